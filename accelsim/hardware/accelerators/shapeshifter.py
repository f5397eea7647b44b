"""ShapeShifter: Stripes with widths found on the fly, group by group. Delmas Lascorz et al., MICRO 2019.

With ``differential`` it is Diffy: Mahmoud et al., MICRO 2018, whose columns work on differences of neighbours.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.bit_level.differences import DifferenceParameters
from accelsim.hardware.accelerators.bit_level.mapping import Mapping
from accelsim.hardware.accelerators.bit_level.widths import GroupWidths
from accelsim.hardware.parameters import integer


class ShapeShifter(DifferenceParameters, GroupWidths):
    """A group of columns takes the bits of its widest value."""

    model: Literal["shapeshifter"]
    column_registers: int = integer(0, 64, "steps that columns may run ahead of each other", unit="steps")

    @property
    def _registers(self) -> int:
        return self.column_registers

    def skips(self, which: str) -> dict[str, str]:
        """Bits of what is on the columns; see ``Accelerator``."""
        return {self._column_tensor(which): "bits"}

    def _costs(self, mapping: Mapping, rows: object, windows: np.ndarray) -> np.ndarray:
        """Cycles of each column in each step; see ``BitLevel``."""
        return self._column_widths(mapping, windows).swapaxes(1, 2)[:, None]
