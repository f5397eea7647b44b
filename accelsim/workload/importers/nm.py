"""N:M sparsity that is imposed on the weights of what was imported, as a forward pass imposes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import ImportedLayer
from accelsim.workload.patterns import LARGEST_BLOCK, Grouped
from accelsim.workload.synthetic import Source

AXES = ("filters", "channels")


@dataclass(frozen=True)
class Pattern:
    """N of each M weights along an axis.

    Parameters
    ----------
    kept, size : int
        N and M.
    axis : str
        Of AXES.

    Raises
    ------
    ImportFormatError
        If it is none.
    """

    kept: int
    size: int
    axis: str = "channels"

    def __post_init__(self) -> None:
        if not 1 <= self.kept <= self.size <= LARGEST_BLOCK:
            raise ImportFormatError(f"nm: must be N:M with 1 ≤ N ≤ M ≤ {LARGEST_BLOCK}, got {self.kept}:{self.size}")
        if self.axis not in AXES:
            raise ImportFormatError(f"axis: must be one of {', '.join(AXES)}; got {self.axis[:40]}")

    @classmethod
    def parse(cls, text: str, axis: str = "channels") -> Pattern:
        """Of ``2:4``; ImportFormatError if it is none."""
        match = re.fullmatch(r"(\d{1,6}):(\d{1,6})", text.strip())
        if match is None:
            raise ImportFormatError(f"nm: must be N:M, got {text[:40]!r}")
        return cls(int(match[1]), int(match[2]), axis)

    def fits(self, layer: ImportedLayer) -> bool:
        """Whether M divides the layer's axis."""
        return layer.geometry.weight_shape[AXES.index(self.axis)] % self.size == 0

    def of(self, weight: Source) -> Grouped:
        """What is left of a weight."""
        return Grouped(weight, self.kept, self.size, AXES.index(self.axis))

    @property
    def words(self) -> str:
        """For the user."""
        return f"{self.kept}:{self.size} along {self.axis}"
