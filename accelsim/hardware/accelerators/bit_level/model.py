"""What the bit-level machines share: keys, integers, the time that steps take, and the account of every slot.

Stripes (Judd et al., MICRO 2016), ShapeShifter (Delmas Lascorz et al., MICRO 2019), Loom (Sharify et al., DAC 2018),
Bit-Pragmatic (Albericio et al., MICRO 2017), Laconic (Sharify et al., ISCA 2019) and Bit-Tactical's back-ends (Delmas
Lascorz et al., ASPLOS 2019) are DaDianNao's tiles with lanes that multiply a bit, or a power of two, in a cycle. They
differ in what a step costs a column; docs/model.md has the rules.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware import bits
from accelsim.hardware.accelerators.base import Activity, Summation
from accelsim.hardware.accelerators.bit_level.account import accounted
from accelsim.hardware.accelerators.bit_level.hooks import Hooks
from accelsim.hardware.accelerators.bit_level.mapping import Mapping, Operand
from accelsim.hardware.accelerators.bit_level.replay import replayed
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.tiled_traffic import Grid, Work, lines_traffic
from accelsim.hardware.lines import to_lines
from accelsim.hardware.movement.traffic import Traffic, joined
from accelsim.hardware.parameters import check, integer, option
from accelsim.workload.lowering import READS, Convolution


class BitLevel(Hooks):
    """Keys of the values, and the run of a machine that says of itself what ``Hooks`` asks for."""

    column_bits: int = integer(
        1, 16, "what is on the columns, sign included: numbers are quantised to as many, integers stay and must fit",
        default=16, unit="bits",
    )  # fmt: skip
    row_bits: int = integer(1, 16, "what is on the rows, likewise", default=16, unit="bits")
    number_format: Literal["fixed", "bfloat16"] = option(
        "numbers of a trace become integers in fixed point, by the greatest magnitude of their tensor; or bfloat16, of "
        "which the significand of 8 bits is worked on (integers of a trace stay integers)",
        default="fixed",
    )
    precision: Literal["full", "layer"] = option(
        "bits of a layer that are worked on: all of column_bits or row_bits, or those that the widest value of the "
        "layer's tensor needs, as a profile tells beforehand",
        default="full",
    )

    @check
    def _a_value_fits(self) -> BitLevel:
        for side, has, holds in (("columns", self.columns, self.column_bits), ("rows", self.rows, self.row_bits)):
            if has * self.pe_width < holds:
                raise ValueError(
                    f"{side}: must be {-(-holds // self.pe_width)} or more for values of {holds} bits, got {has}"
                )
        return self

    @property
    def baseline_multipliers(self) -> int:
        """So many bits of a full product are a lane's cycle: that many lanes are worth a multiplier."""
        return max(1, self.multipliers // self._bits_of_a_product)

    @property
    def _bits_of_a_product(self) -> int:
        return self.column_bits

    @property
    def summation(self) -> Summation:
        """A bit operation has its addition in the tree; a column's sum goes to its register once a step."""
        return Summation(additions="accumulator_updates", partial_sums=1, multiplications="bit_operations")

    def _integers(self, conv: Convolution) -> Convolution:
        """The same convolution of integers, shared by machines that make the same of it."""
        key = "integers", self.column_bits, self.row_bits, self.number_format, self._on_rows(conv)
        return conv.once(key, lambda: self._quantised(conv))

    def _quantised(self, conv: Convolution) -> Convolution:
        sides = {}
        whole = conv.operands or (conv.input, conv.kernel)
        for side, tensor in zip(("input", "kernel"), whole, strict=True):
            key = "row_bits" if side == self._on_rows(conv) else "column_bits"
            values = getattr(conv, side)
            if values.dtype.kind in "biu" or self.number_format == "fixed":
                sides[side] = bits.fixed_point(values, tensor, getattr(self, key), key)
            else:
                sides[side] = bits.significands(values, key)
        return replace(conv, input=sides["input"], kernel=sides["kernel"])

    def _operand(self, conv: Convolution, side: Literal["columns", "rows"]) -> Operand:
        """How what is on one side is cut. Raises MachineError where the trace has a mask and values are needed."""
        which = self._on_rows(conv) if side == "rows" else {"input": "kernel", "kernel": "input"}[self._on_rows(conv)]
        values, at = getattr(conv, which), int(which == "kernel")
        if values.dtype == bool and self._needs_values(side):
            tensor = READS[conv.which][at]
            raise MachineError(f"accelerator.model: {self.model} needs values of the {tensor}, the trace has a mask")
        whole = conv.operands[at] if conv.operands else values
        given = self.column_bits if side == "columns" else self.row_bits
        if values.dtype == bool:
            return Operand(given, -(-given // self.pe_width), False)
        if values.dtype.kind not in "iu" and self.number_format == "bfloat16":
            return Operand(bits.SIGNIFICAND, -(-bits.SIGNIFICAND // self.pe_width), False)
        ends = np.array([whole.min(initial=0), whole.max(initial=0)], whole.dtype)
        ends = bits.fixed_point(ends, whole, given, f"{side[:-1]}_bits")
        needed = bits.bits_needed(ends) if self.precision == "layer" and self._needs_values(side) else given
        return Operand(needed, -(-needed // self.pe_width), bits.is_signed(ends))

    def _mappings(self, conv: Convolution) -> list[Mapping]:
        """Each group of a convolution on the tiles."""
        integers = self._integers(conv)
        sides = self._operand(conv, "columns"), self._operand(conv, "rows")
        lines = to_lines(self._folded(integers), self.lanes, self._on_rows(conv))
        return [Mapping(group, self.tiles, self.rows, self.columns, *sides) for group in lines]

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        mappings = self._mappings(conv)
        works = [accounted(self, mapping) for mapping in mappings]
        activity = self._activity(conv, works)
        return replace(activity, traffic=lambda: self._moved(conv, mappings, works))

    def _moved(self, conv: Convolution, mappings: list[Mapping], works: list[Work]) -> Traffic:
        traffics = []
        for mapping, work in zip(mappings, works, strict=True):
            grid = Grid(self.tiles, mapping.filters, mapping.windows, self.lanes, self.tiles)
            traffics.append(lines_traffic(grid, work, conv if conv.groups == 1 else mapping.lines.conv))
        return joined(traffics)

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Works the integers off bit by bit; see ``Accelerator``."""
        # What became zero as an integer was a product of non-zeros.
        given = to_lines(self._folded(conv), self.lanes, self._on_rows(conv))
        pairs = zip(self._mappings(conv), given, strict=True)
        groups = [replayed(self, mapping, lines, film) for mapping, lines in pairs]
        return np.concatenate([result for result, _ in groups], axis=1), sum(cycles for _, cycles in groups)
