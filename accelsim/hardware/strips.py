"""Large blocks of streams, counted a strip at a time: a count takes eight bytes where a mask takes one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

COUNTED = 1 << 22  # values whose non-zeros are counted at once: each takes eight bytes meanwhile


def nonzero(values: np.ndarray) -> np.ndarray:
    """Which values are not zero: a mask itself."""
    return values if values.dtype == bool else values != 0


def strips(block: np.ndarray, multiple: int = 1, at_once: int = 0) -> Iterator[np.ndarray]:
    """Streams of a block, a multiple of so many and about so many values at a time; by default to be counted."""
    most = multiple * max(1, (at_once or COUNTED) // (multiple * max(1, block[0].size)))
    return (block[first : first + most] for first in range(0, len(block), most))
