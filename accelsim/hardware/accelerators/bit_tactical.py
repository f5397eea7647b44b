"""Bit-Tactical's front-end: weights scheduled beforehand into the lanes that zeros leave empty.

Delmas Lascorz et al., "Bit-Tactical: A Software/Hardware Approach to Exploiting Value and Bit Sparsity in Neural
Networks", ASPLOS 2019: the search shapes L⟨h,d⟩ and T⟨2,5⟩ and the scheduler are those of its section 3. The back-end
is bit-parallel, a line a cycle, or bit-serial: then a line takes as many cycles as the longest of the activations that
the tile multiplies in it, over all its rows, lanes and columns, has bits (TCLp) or powers of two (TCLe).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware.accelerators import serial
from accelsim.hardware.accelerators.base import Activity
from accelsim.hardware.accelerators.search import SearchParameters
from accelsim.hardware.accelerators.tiled import FixedRows
from accelsim.hardware.accelerators.tiled_traffic import Work
from accelsim.hardware.lines import Lines, to_words
from accelsim.hardware.parameters import option
from accelsim.workload.lowering import READS, Convolution


class BitTactical(SearchParameters, FixedRows):
    """Skips zeros of the operand on the rows: weights, and in the weight gradient the saved activations.

    Rows of a tile run in lock-step; the speedup over ``DaDianNao`` of the same shape cannot pass 1 + lookahead_h.
    """

    model: Literal["bit_tactical"]
    back_end: Literal["bit_parallel", "TCLp", "TCLe"] = option(
        "how a line is multiplied: in a cycle; or with a bit-serial multiplier in each lane, in as many cycles as the "
        "longest value on the columns has bits (TCLp) or powers of two (TCLe)",
        default="bit_parallel",
    )
    value_bits: Literal[8, 16] = option("width of the fixed-point values that TCLp and TCLe work on", default=16)
    booth: bool = option("powers of two may be subtracted, so that TCLe needs fewer", default=True)

    @property
    def baseline_multipliers(self) -> int:
        """A bit-serial lane needs ``value_bits`` cycles for a full product: so many of them are worth a multiplier."""
        return max(1, self.multipliers // (1 if self.back_end == "bit_parallel" else self.value_bits))

    def skips(self, which: str) -> dict[str, str]:
        """What is on the rows, as far as the lookahead; bit-serial, bits of the other; see ``Accelerator``."""
        rows = self._row_tensor(which)
        skipped = {rows: "zeros"} if self.lookahead_h else {}
        if self.back_end != "bit_parallel":
            # Without lookahead too a line waits for those values only that its weights meet.
            skipped = {rows: "bits"} | skipped | {name: "bits" for name in READS[which] if name != rows}
        return skipped

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        return super().run(self._priced(conv))

    def replay(self, conv: Convolution) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        result, cycles = super().replay(conv)
        if self.back_end != "bit_parallel":
            cycles = sum(self._replay_serial(lines) for lines in self._lines(self._priced(conv)))
        return result, cycles

    def _priced(self, conv: Convolution) -> Convolution:
        """With a bit-serial back-end: the cycles that each value of the operand on the columns takes in its place."""
        if self.back_end == "bit_parallel":
            return conv
        name = "kernel" if conv.which == "weight_grad" and self.weight_grad_rows == "activation" else "input"
        values = getattr(conv, name)
        if values.dtype == bool:
            tensor = READS[conv.which][name == "kernel"]
            raise MachineError(
                f"accelerator.back_end: {self.back_end} needs values of the {tensor}, the trace has a mask"
            )
        if self.back_end == "TCLp":
            lengths = serial.precision(values, self.value_bits)
        else:
            lengths = serial.terms(values, self.value_bits, self.booth)
        return replace(conv, kernel=lengths) if name == "kernel" else replace(conv, input=lengths)

    def _account(self, lines: Lines) -> Work:
        """As ``TiledParameters``; bit-serial, each visit to the columns takes its own time."""
        if self.back_end == "bit_parallel":
            return super()._account(lines)
        from accelsim.hardware.kernels.serial import serial_cycles

        lengths = lines.columns().reshape(lines.repeats, lines.windows, -1)
        starts = range(0, lines.windows, self.columns)
        longest = np.maximum.reduceat(lengths, starts, axis=1).reshape(-1, lengths.shape[2]).T.copy()
        windows = np.tile(np.diff([*starts, lines.windows]), lines.repeats)
        bits, ones = (count.sum(axis=(0, 1), dtype=np.int64) for count in (lengths, lengths != 0))
        cycles, executed, filled, products, worked, effectual = [], [], 0, 0, 0, 0
        for block in lines.blocks():
            sources = self._sources_of(to_words(block[None]))[0]
            own, busy = serial_cycles(sources, self.rows, longest)
            weights = np.count_nonzero(block, axis=0).ravel()
            cycles.append(own)
            executed.append((sources[:: self.rows] != -2).any(axis=2).sum(axis=1))
            filled += int(busy.sum(axis=0) @ windows)
            products += int(weights.sum()) * int(windows.sum())
            worked += int(weights @ bits)
            effectual += int(weights @ ones)
        work, in_rows = self._rounds(lines, np.concatenate(cycles).T, np.concatenate(executed)[None])
        # A product of two non-zeros takes its own bits, one with a zero a cycle; then both wait for the line's longest.
        work.slots.update(ineffectual=products, serial=worked - effectual, lookahead=in_rows - filled)
        work.slots["barrier"] += filled - products - work.slots["serial"]
        return work

    def _replay_serial(self, lines: Lines) -> int:
        """Cycles of one group, line by line: the longest value that any row of the tile meets in any column."""
        lengths = lines.columns().reshape(lines.repeats, lines.windows, -1)
        own = []
        for block in self._sources(lines):
            for first in range(0, len(block), self.rows):
                tile = block[first : first + self.rows]
                executed = [np.unique(line[line >= 0]) for line in tile[:, (tile[0] != -2).any(axis=1)].swapaxes(0, 1)]
                own.append(
                    [
                        sum(int(lengths[n, at : at + self.columns, line].max(initial=1)) for line in executed)
                        for n in range(lines.repeats)
                        for at in range(0, lines.windows, self.columns)
                    ]
                )
        rounds = (own[i : i + self.tiles] for i in range(0, len(own), self.tiles))
        return int(sum(np.max(tiles, axis=0).sum() for tiles in rounds))

    def _schedule(self, lines: Lines) -> tuple[np.ndarray, int, str]:
        """Lines that each set executes; products executed; what an empty lane of a used row is."""
        words = lines.words
        key = "executed", self.rows, self.search_map  # not how many tiles or columns there are
        executed = lines.conv.once(key, lambda: self._executed_lines(words, np.empty((0, 0, 0, 0), np.int64)))
        return executed, lines.partners * int(np.bitwise_count(words).sum(dtype=np.int64)), "lookahead"

    def _sources(self, lines: Lines) -> np.ndarray:
        """The place of the weight that each slot executes, as the kernel chose it."""
        return self._sources_of(lines.words)

    def _sources_of(self, words: np.ndarray) -> np.ndarray:
        sources = np.empty((*words.shape, self.lanes), np.int64)
        self._executed_lines(words, sources)
        return sources

    def _executed_lines(self, words: np.ndarray, sources: np.ndarray) -> np.ndarray:
        from accelsim.hardware.kernels.promotion import executed_lines

        search = self.search_arrays(self.lanes)
        return executed_lines(words, self.rows, self.lanes, self.lookahead_h, *search, sources)
