"""Masks of tensors too large to be drawn at once: tile by tile, with exactly as many non-zeros as if drawn whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from accelsim.workload.mask_model import greatest

TILE = 1 << 24  # positions drawn at once
NEVER = np.float32(-np.inf)  # the score of what is zero whatever the sparsity
Shape = tuple[int, int, int, int]
Block = tuple[slice, slice, slice]  # of axes 0, 1 and 2
WHOLE = slice(None)


def blocks(shape: Shape, most: int = TILE) -> Iterator[Block]:
    """A tensor cut into parts of about `most` positions that follow each other in C order; a row is never cut."""
    a, b, h, w = shape
    if b * h * w <= most:
        step = max(1, most // (b * h * w))
        yield from ((slice(i, min(i + step, a)), WHOLE, WHOLE) for i in range(0, a, step))
    elif h * w <= most:
        step = most // (h * w)
        yield from ((slice(i, i + 1), slice(j, min(j + step, b)), WHOLE) for i in range(a) for j in range(0, b, step))
    else:
        step = max(1, most // w)
        rows = [slice(r, min(r + step, h)) for r in range(0, h, step)]
        yield from ((slice(i, i + 1), slice(j, j + 1), r) for i in range(a) for j in range(b) for r in rows)


def shape_of(block: Block, shape: Shape) -> Shape:
    """The shape of a part."""
    sizes = [len(range(*part.indices(size))) for part, size in zip(block, shape, strict=False)]
    return sizes[0], sizes[1], sizes[2], shape[3]


@dataclass(frozen=True, eq=False)
class Field:
    """The scores of a tensor, tile by tile in C order; ``tiles`` gives the same at each walk."""

    shape: Shape
    tiles: Callable[[], Iterator[np.ndarray]]

    def greatest(self, count: int) -> Callable[[], Iterator[np.ndarray]]:
        """The mask of the `count` greatest scores that are not NEVER; of equal ones the first. Tile by tile."""
        size = prod(self.shape)
        if count >= size:
            return lambda: (scores > NEVER for scores in self.tiles())
        if size <= TILE:
            return lambda: (greatest(scores, count) & (scores > NEVER) for scores in self.tiles())
        edge, ties = self._edge(count)
        return lambda: self._above(edge, ties)

    def _edge(self, count: int) -> tuple[int, int]:
        """The key of the last score that is taken, and how many of the scores that have it are."""
        if count <= 0:
            return 1 << 32, 0
        high = np.zeros(1 << 16, np.int64)
        for scores in self.tiles():
            high += np.bincount(_keys(scores) >> 16, minlength=1 << 16)
        upper, left = _last(high, count)
        low = np.zeros(1 << 16, np.int64)
        for scores in self.tiles():
            keys = _keys(scores)
            low += np.bincount(keys[keys >> 16 == upper] & 0xFFFF, minlength=1 << 16)
        lower, ties = _last(low, left)
        return upper << 16 | lower, ties

    def _above(self, edge: int, ties: int) -> Iterator[np.ndarray]:
        for scores in self.tiles():
            keys = _keys(scores)
            mask = keys > edge
            if ties:
                equal = np.flatnonzero(keys == edge)[:ties]
                mask[equal] = True
                ties -= equal.size
            yield mask.reshape(scores.shape) & (scores > NEVER)


def _last(counts: np.ndarray, wanted: int) -> tuple[int, int]:
    """Walking bins from the last on: where the wanted number is reached, and how many of that bin it takes."""
    reached = np.cumsum(counts[::-1])
    number = int(np.searchsorted(reached, wanted))
    before = int(reached[number - 1]) if number else 0
    return counts.size - 1 - number, wanted - before


def _keys(scores: np.ndarray) -> np.ndarray:
    """Integers in the order of the scores, −0.0 as 0.0."""
    bits = (scores.reshape(-1) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


@dataclass(frozen=True, eq=False)
class Pieces:
    """A mask that is made piece by piece in C order; what a writer takes in place of an array."""

    shape: Shape
    walk: Callable[[], Iterator[np.ndarray]]

    def whole(self) -> np.ndarray:
        """All of it at once."""
        mask, at = np.empty(prod(self.shape), bool), 0
        for piece in self.walk():
            mask[at : at + piece.size] = piece.reshape(-1)
            at += piece.size
        return mask.reshape(self.shape)
