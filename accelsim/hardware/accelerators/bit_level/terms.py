"""Machines that go through the powers of two of a value: which there are, and what is worked off."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from accelsim.hardware import bits
from accelsim.hardware.accelerators.bit_level.mapping import Mapping, Operand
from accelsim.hardware.accelerators.bit_level.model import BitLevel
from accelsim.hardware.parameters import option
from accelsim.workload.lowering import Convolution


class Terms(BitLevel):
    """Its lanes multiply with a power of two a cycle, of the magnitude of a value."""

    booth_encoding: bool = option("powers of two may be subtracted, so that fewer are needed", default=True)

    @property
    def _waits(self) -> str:
        return "synchronisation"

    def _operand(self, conv: Convolution, side: Literal["columns", "rows"]) -> Operand:
        """Of magnitudes: the sign is the product's; see ``BitLevel``."""
        return replace(super()._operand(conv, side), signed=False)

    def _powers(self, operand: Operand, values: np.ndarray) -> np.ndarray:
        """(n, T, lanes) → which powers of two each slice has: (n, slices, T, lanes)."""
        return bits.powers(self._slices(operand, values), self.booth_encoding)

    def _counts(self, operand: Operand, values: np.ndarray) -> np.ndarray:
        """How many."""
        return bits.counts(self._slices(operand, values), self.booth_encoding)

    def _worked(self, mapping: Mapping, values: np.ndarray, side: Literal["columns", "rows"]) -> np.ndarray:
        """Powers of two of each value; on the rows, which are bit-parallel, 1; see ``BitLevel``."""
        return np.asarray(
            values != 0 if side == "rows" else self._counts(mapping.on_columns, values).sum(axis=1, dtype=np.uint8)
        )

    @property
    def _reach(self) -> int:
        """How far above the lowest power of all lanes a lane's own may be to be dropped with it."""
        return bits.WORD

    def _executed(self, operand: Operand, slices: np.ndarray, cycles: np.ndarray) -> np.ndarray:
        """Each cycle the lowest power of each lane that is within reach of the lowest of all; see ``BitLevel``."""
        left = bits.powers(slices, self.booth_encoding).astype(np.int64)
        total = np.zeros(slices.shape, np.int64)
        for k in range(int(cycles.max(initial=0))):
            together = np.bitwise_or.reduce(left, axis=-1, keepdims=True)
            dropped = left & -left
            within = (dropped < (together & -together) << self._reach) & (k < cycles)[..., None]
            dropped = np.where(within, dropped, 0)
            total += dropped * self._signs(slices, dropped)
            left ^= dropped
        return total

    def _signs(self, words: np.ndarray, powers: np.ndarray) -> np.ndarray:
        """1 where a power is added to make up the word, −1 where it is subtracted."""
        return np.where(self.booth_encoding & ((bits.recoding()[1][words] & powers) != 0), -1, 1)
