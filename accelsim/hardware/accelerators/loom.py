"""Loom: bits of activations against bits of weights. Sharify et al., DAC 2018."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np

from accelsim.hardware.accelerators.bit_level.mapping import Mapping, Operand
from accelsim.hardware.accelerators.bit_level.widths import GroupWidths
from accelsim.hardware.parameters import option


class Loom(GroupWidths):
    """A step takes the widest of its activations times the bits of the weights."""

    model: Literal["loom"]
    pe_serial_bits: Literal[1, 2, 4, 8] = option("bits of a value on the columns that a lane takes in a cycle")
    dynamic_weights: bool = option(
        "bits of what is on the rows: found on the fly, group by group; or those of row_bits and precision"
    )

    @property
    def _bits_of_a_product(self) -> int:
        return -(-self.column_bits // self.pe_serial_bits) * self.row_bits

    def skips(self, which: str) -> dict[str, str]:
        """Bits of both, of what is on the rows by layer or by group; see ``Accelerator``."""
        skipped = {self._column_tensor(which): "bits"}
        return skipped | ({self._row_tensor(which): "bits"} if self._needs_values("rows") else {})

    def _needs_values(self, side: Literal["columns", "rows"]) -> bool:
        return side == "columns" or self.dynamic_weights or self.precision == "layer"

    def _seen(self, mapping: Mapping) -> object:
        """Cycles for the bits of what is on the rows of each set, (sets, lines): the widest group's."""
        return np.stack([self._row_widths(mapping.on_rows, own).max(axis=0) for own in mapping.row_sets()])

    def _row_widths(self, operand: Operand, own: np.ndarray) -> np.ndarray:
        """Of the filters of a tile, (filters, T, lanes): of each row and line."""
        if not self.dynamic_weights:
            return np.full((len(own) * operand.slices, own.shape[1]), min(operand.bits, self.pe_width))
        high, low = (each.reshape(1, -1, own.shape[1]) for each in self._extents(operand, own))
        return np.asarray(self._widths(operand, high, low)[0])

    def _costs(self, mapping: Mapping, rows: object, windows: np.ndarray) -> np.ndarray:
        """Cycles of each column in each step: one for all; see ``BitLevel``."""
        times = -(-self._column_widths(mapping, windows).max(axis=1) // self.pe_serial_bits)
        widest = mapping.by_round(cast(np.ndarray, rows)).max(axis=1)
        return np.asarray((times[:, None] * widest)[..., None] * mapping.has_window[:, None, None])

    def _worked(self, mapping: Mapping, values: np.ndarray, side: Literal["columns", "rows"]) -> np.ndarray:
        """Bits of each value, those on the columns so many at a time; on rows of a fixed width all of them."""
        if side == "columns":
            return -(-super()._worked(mapping, values, side) // self.pe_serial_bits)
        operand = mapping.on_rows
        fixed = min(operand.bits, self.pe_width)
        return np.asarray((values != 0) * (self._bits_of(operand, values) if self.dynamic_weights else fixed))

    def _product(self, mapping: Mapping, windows: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Both sides worked off, each in its own part of a step; see ``BitLevel``."""
        widest = self._column_widths(mapping, windows).max(axis=1, keepdims=True)
        cycles = mapping.of_windows(
            np.broadcast_to(widest, (len(widest), mapping.in_use, widest.shape[2])).swapaxes(1, 2)
        )
        values, rows = self._worked_off(mapping.on_columns, windows, cycles), mapping.lines.rows()
        if self.dynamic_weights:
            rows = np.concatenate([self._rows_worked_off(mapping.on_rows, own) for own in mapping.row_sets()])
            rows = rows.reshape(*mapping.lines.shape[:2], *values.shape[1:])
        return np.asarray(np.einsum("bstl,wtl->bsw", rows, values))

    def _rows_worked_off(self, operand: Operand, own: np.ndarray) -> np.ndarray:
        cycles = self._row_widths(operand, own).reshape(len(own), -1, own.shape[1])
        return self._worked_off(operand, own, cycles)
