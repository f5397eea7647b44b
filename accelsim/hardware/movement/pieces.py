"""Arrays that hold many groups one after another, such as the transfers of all layers."""

from __future__ import annotations

import numpy as np


def cut(sizes: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts transfers into pieces: of each the transfer that it belongs to, and its bytes; nothing for an empty one."""
    counts = -(-sizes // most)
    of = np.repeat(np.arange(sizes.size), counts)
    number = np.arange(of.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return of, np.minimum(most, sizes[of] - number * most)


def by_group(values: np.ndarray, counts: np.ndarray) -> list[int]:
    """The sum over each group of so many values."""
    before = np.append(0, np.cumsum(values))[np.append(0, np.cumsum(counts))]
    sums: list[int] = np.diff(before).tolist()
    return sums
