"""Diffy: columns that work on differences of neighbouring windows. Mahmoud et al., MICRO 2018."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware import bits
from accelsim.hardware.accelerators.bit_level.mapping import Mapping, Operand, is_linear
from accelsim.hardware.accelerators.bit_level.model import BitLevel
from accelsim.hardware.parameters import option
from accelsim.workload.lowering import Convolution


class DifferenceParameters(BitLevel):
    """The key, and what it does to windows and to their products."""

    differential: bool = option(
        "columns work on the difference of a window to the one before in its row, whose product is added (Diffy)",
        default=False,
    )

    def _is_differential(self, conv: Convolution) -> bool:
        """Not where the columns hold no windows, or a single one."""
        return self.differential and conv.which != "weight_grad" and not is_linear(conv)

    def _operand(self, conv: Convolution, side: Literal["columns", "rows"]) -> Operand:
        """Differences have signs, and where the layer's precision is known a bit more; see ``BitLevel``."""
        operand = super()._operand(conv, side)
        if side == "rows" or not self._is_differential(conv):
            return operand
        needed = min(operand.bits + 1, self.column_bits)
        return replace(operand, bits=needed, slices=-(-needed // self.pe_width), signed=True)

    def _as_seen(self, mapping: Mapping, windows: np.ndarray) -> np.ndarray:
        """Differences; the first window of a row of the map stays; see ``BitLevel``.

        Raises
        ------
        MachineError
            If one does not fit the slices of a value.
        """
        if not self._is_differential(mapping.lines.conv):
            return windows
        in_rows = windows.reshape(*mapping.lines.conv.geometry.output, *windows.shape[1:])
        seen = np.diff(in_rows, axis=1, prepend=np.zeros_like(in_rows[:, :1])).reshape(windows.shape)
        holds, operand = mapping.on_columns.slices * self.pe_width, mapping.on_columns
        needed = bits.bits_needed(seen if operand.signed else np.abs(seen))
        if needed > holds:
            raise MachineError(
                f"accelerator.column_bits: must leave room for differences of {needed} bits, got {holds}"
            )
        return seen

    def _as_meant(self, mapping: Mapping, products: np.ndarray) -> np.ndarray:
        """Differences of products added up along a row of the map; see ``BitLevel``."""
        if not self._is_differential(mapping.lines.conv):
            return products
        in_rows = products.reshape(*products.shape[:2], *mapping.lines.conv.geometry.output)
        return np.cumsum(in_rows, axis=3).reshape(products.shape)
