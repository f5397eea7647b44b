"""Stripes: activations bit by bit, in as many cycles as the layer's precision. Judd et al., MICRO 2016."""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.bit_level.mapping import Mapping
from accelsim.hardware.accelerators.bit_level.widths import Widths


class Stripes(Widths):
    """Every step takes the precision of what is on the columns, whatever the values."""

    model: Literal["stripes"]

    def skips(self, which: str) -> dict[str, str]:
        """Bits of what is on the columns, by layer, with a profiled precision; see ``Accelerator``."""
        return {self._column_tensor(which): "bits"} if self.precision == "layer" else {}

    def _needs_values(self, side: Literal["columns", "rows"]) -> bool:
        return side == "columns" and self.precision == "layer"

    def _costs(self, mapping: Mapping, rows: object, windows: np.ndarray) -> np.ndarray:
        """Cycles of each column in each step; see ``BitLevel``."""
        cycles = np.full((mapping.visits, mapping.lines.shape[2], mapping.in_use), self._step(mapping))
        return np.asarray((cycles * mapping.has_window[:, None])[:, None])

    def _worked(self, mapping: Mapping, values: np.ndarray, side: Literal["columns", "rows"]) -> np.ndarray:
        """Bits of each value; where it need not be known, those that all take; see ``BitLevel``."""
        if side == "rows" or self._needs_values("columns"):
            return super()._worked(mapping, values, side)
        return np.asarray((values != 0) * (mapping.on_columns.slices * self._step(mapping)))

    def _step(self, mapping: Mapping) -> int:
        return min(mapping.on_columns.bits, self.pe_width)
