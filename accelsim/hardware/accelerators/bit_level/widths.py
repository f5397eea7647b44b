"""Machines that go through a value bit after bit: what widths are, and what is worked off in so many cycles."""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware import bits
from accelsim.hardware.accelerators.bit_level.mapping import Mapping, Operand
from accelsim.hardware.accelerators.bit_level.model import BitLevel
from accelsim.hardware.parameters import integer, option


class Widths(BitLevel):
    """Its lanes multiply with a bit a cycle, from the lowest."""

    def _extents(self, operand: Operand, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, T, lanes) → bits that any lane has, of negative values inverted, and as they stand: (n, slices, T)."""
        slices = self._slices(operand, values)
        low = np.bitwise_or.reduce(slices, axis=3)
        if not operand.signed:
            return low, low
        mask = np.uint32((1 << self.pe_width) - 1)
        top = slices[:, -1]
        top = np.where(top >> np.uint32(self.pe_width - 1), top ^ mask, top)
        high = np.concatenate([low[:, :-1], np.bitwise_or.reduce(top, axis=2)[:, None]], axis=1)
        return high, low

    def _worked(self, mapping: Mapping, values: np.ndarray, side: Literal["columns", "rows"]) -> np.ndarray:
        """Bits of each value; on the rows, which are bit-parallel, 1; see ``BitLevel``."""
        return np.asarray(values != 0 if side == "rows" else self._bits_of(mapping.on_columns, values) * (values != 0))

    def _bits_of(self, operand: Operand, values: np.ndarray) -> np.ndarray:
        """From the highest bit that a value has, or its sign, to bit 0."""
        magnitude = np.where(values < 0, ~values, values) if operand.signed else np.abs(values)
        return bits.lengths(magnitude) + operand.signed

    def _executed(self, operand: Operand, slices: np.ndarray, cycles: np.ndarray) -> np.ndarray:
        """Bit after bit from the lowest; the last of the top slice of a signed value counts negative."""
        first = self._first_bits(slices, cycles)
        words = slices.astype(np.int64)
        if operand.signed:
            words[:, -1] -= (words[:, -1] >> (self.pe_width - 1)) << self.pe_width
        total = np.zeros(slices.shape, np.int64)
        for k in range(int((first + cycles).max(initial=0))):
            is_worked = ((first <= k) & (k < first + cycles))[..., None]
            value = np.where(is_worked, (words >> k & 1) << k, 0)
            if operand.signed:
                is_last = (k == first + cycles - 1)[:, -1, :, None]
                value[:, -1] = np.where(is_last, -value[:, -1], value[:, -1])
            total += value
        return total

    def _first_bits(self, slices: np.ndarray, cycles: np.ndarray) -> np.ndarray:
        """The bit at which each slice begins, (n, slices, T)."""
        return np.zeros(cycles.shape, np.int64)


class GroupWidths(Widths):
    """Widths found on the fly, for neighbours together."""

    group_size: int = integer(1, 1 << 16, "neighbouring columns (in Loom rows too) that share a width", unit="columns")
    minor_bit: bool = option("zero bits below the lowest that any value of the group has are skipped too")

    def _widths(self, operand: Operand, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Cycles of each column: from the highest bit that a value of its group has to bit 0, or to the lowest.

        Parameters
        ----------
        operand : Operand
        high, low : ndarray, (visits, columns, T)
            Bits that any lane of a column has, of negative values inverted; and as they stand (``_extents``).

        Returns
        -------
        ndarray of int64, (visits, columns, T)
        """
        starts = np.arange(0, high.shape[1], self.group_size)
        width = bits.lengths(np.bitwise_or.reduceat(high, starts, axis=1)) + operand.signed
        if self.minor_bit:
            width -= bits.zeros_below(np.bitwise_or.reduceat(low, starts, axis=1))
        return width.repeat(self.group_size, axis=1)[:, : high.shape[1]]

    def _column_widths(self, mapping: Mapping, windows: np.ndarray) -> np.ndarray:
        """Cycles of each column at each visit, (visits, columns, T); 0 without a window."""
        high, low = (mapping.on_each_column(each) for each in self._extents(mapping.on_columns, windows))
        return np.asarray(self._widths(mapping.on_columns, high, low) * mapping.has_window[..., None])

    def _bits_of(self, operand: Operand, values: np.ndarray) -> np.ndarray:
        """From the highest bit to the lowest that a value has, where low zeros are skipped."""
        own = super()._bits_of(operand, values)
        return own - bits.zeros_below(np.abs(values)) if self.minor_bit else own

    def _first_bits(self, slices: np.ndarray, cycles: np.ndarray) -> np.ndarray:
        """The bit at which each slice begins, (n, slices, T)."""
        first = super()._first_bits(slices, cycles)
        return bits.zeros_below(np.bitwise_or.reduce(slices, axis=3)) if self.minor_bit else first
