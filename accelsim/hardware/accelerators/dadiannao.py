"""DaDianNao: the dense baseline. Every line of every filter costs a cycle. Chen et al., MICRO 2014."""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import DrainParameters
from accelsim.hardware.accelerators.tiled import EveryLine


class DaDianNao(DrainParameters, EveryLine):
    """Skips nothing: ceil(P·Q/columns) · ceil(ceil(K/rows)/tiles) · T cycles per sample and group."""

    model: Literal["dadiannao"]

    def skips(self, which: str) -> dict[str, str]:
        """Nothing; see ``Accelerator``."""
        return {}

    @classmethod
    def with_multipliers(cls, multipliers: int) -> DaDianNao:
        """The baseline of another machine: as many multipliers, 16 lanes, rows and tiles where these divide them."""
        sizes = []
        for _ in ("lanes", "rows", "tiles"):
            sizes.append(int(np.gcd(multipliers, 16)))
            multipliers //= sizes[-1]
        lanes, rows, tiles = sizes
        return cls(model="dadiannao", tiles=tiles, rows=rows, columns=multipliers, lanes=lanes)
