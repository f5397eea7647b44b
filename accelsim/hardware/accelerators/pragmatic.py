"""Bit-Pragmatic: activations power of two by power of two. Albericio et al., MICRO 2017."""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.bit_level.differences import DifferenceParameters
from accelsim.hardware.accelerators.bit_level.mapping import Mapping
from accelsim.hardware.accelerators.bit_level.terms import Terms
from accelsim.hardware.parameters import integer


class Pragmatic(Terms, DifferenceParameters):
    """A column takes as long as its lanes need to drop all powers of two of their values, sharing a second shift."""

    model: Literal["pragmatic"]
    bits_first_stage: int = integer(
        0, 4, "bits of each lane's own shift: a power 2^this above the lowest of all lanes, or more, waits", unit="bits"
    )
    column_registers: int = integer(0, 64, "steps that columns may run ahead of each other", unit="steps")

    @property
    def _registers(self) -> int:
        return self.column_registers

    @property
    def _reach(self) -> int:
        return 1 << self.bits_first_stage

    def skips(self, which: str) -> dict[str, str]:
        """Bits of what is on the columns; see ``Accelerator``."""
        return {self._column_tensor(which): "bits"}

    def _costs(self, mapping: Mapping, rows: object, windows: np.ndarray) -> np.ndarray:
        """Cycles of each column in each step; see ``BitLevel``."""
        from accelsim.hardware.kernels.bit_level import term_cycles

        words = self._powers(mapping.on_columns, windows)
        cycles = term_cycles(words.reshape(-1, mapping.lanes), self._reach).reshape(words.shape[:3])
        return mapping.on_each_column(cycles).swapaxes(1, 2)[:, None]
