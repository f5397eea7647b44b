"""Where masks come from that no statistical model draws: numbers of a file, and N:M patterns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.errors import TraceError
from accelsim.workload.mask_model import greatest
from accelsim.workload.tiles import NEVER, Block, Shape, shape_of

LARGEST_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class Stored:
    """Numbers, or a mask, that a file holds.

    Parameters
    ----------
    read : callable
        Gives all of them anew each time.
    rows : callable, optional
        Gives those of a slice of axis 0, where that can be had without the others.
    """

    read: Callable[[], np.ndarray]
    rows: Callable[[slice], np.ndarray] | None = None
    has_zeros = True

    @property
    def is_divisible(self) -> bool:
        """Whether a part can be had alone."""
        return self.rows is not None

    def scores(self, shape: Shape, rng: np.random.Generator, block: Block | None = None) -> np.ndarray:
        """Magnitudes; TraceError if the file holds another shape, or NaN."""
        if block is not None and self.rows is not None:
            values, wanted = self.rows(block[0])[:, block[1], block[2]], shape_of(block, shape)
        else:
            values, wanted = self.read(), shape
        if values.shape != wanted:
            raise TraceError(f"must have shape {wanted}, got {values.shape}")
        magnitudes = np.abs(values.astype(np.float32, copy=False))
        if np.isnan(magnitudes).any():
            raise TraceError("must be numbers, got NaN")
        magnitudes[values == 0] = NEVER
        return magnitudes

    def count(self, size: int) -> int:
        """How many positions may be non-zero before any Top-K: all whose number is not zero."""
        return size


def _blocks_first(rows: np.ndarray, kept: np.ndarray, size: int) -> np.ndarray:
    """Of each `size` numbers of a row as many of the greatest as `kept` says for the row, the others NEVER."""
    count, length = rows.shape
    padded = np.pad(rows, [(0, 0), (0, -length % size)], constant_values=NEVER).reshape(count, -1, size)
    order = np.argsort(-padded, axis=2, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(size)[None, None], axis=2)
    chosen = np.where(ranks < kept[:, None, None], padded, NEVER)
    return chosen.reshape(count, -1)[:, :length]


@dataclass(frozen=True)
class Blocks:
    """N:M sparsity as SCALE-Sim has it: of each ``size`` weights of a filter, R S C in this order, ``kept`` drawn.

    Parameters
    ----------
    kept : int, optional
        N of every filter; None for one drawn for each filter, in 1…M/2, as in SCALE-Sim's optimised mapping.
    size : int
        M.
    seed : int
        Of the filters' N, as SCALE-Sim draws them.
    """

    kept: int | None
    size: int
    seed: int = 40
    has_zeros = True
    is_divisible = True

    def scores(self, shape: Shape, rng: np.random.Generator, block: Block | None = None) -> np.ndarray:
        """Random numbers for the chosen."""
        filters = len(range(*block[0].indices(shape[0]))) if block else shape[0]
        channels, r, s = shape[1:]
        rows = rng.random((filters, r * s * channels), np.float32)
        kept = self._kept(shape[0])[block[0] if block else slice(None)]
        chosen = _blocks_first(rows, kept, self.size).reshape(filters, r, s, channels).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(chosen[:, block[1], block[2]] if block else chosen)

    def _kept(self, filters: int) -> np.ndarray:
        if self.kept is not None:
            return np.full(filters, self.kept)
        draw = np.random.RandomState(self.seed)  # SCALE-Sim's own generator: each filter has the N that it has there
        return np.array([draw.randint(1, self.size // 2 + 1) for _ in range(filters)])

    def count(self, size: int) -> int:
        """All that are chosen."""
        return size


@dataclass(frozen=True)
class Thinned:
    """As many zeros as a density leaves, drawn alike everywhere, that are zeros whatever the sparsity.

    Parameters
    ----------
    density : float
    """

    density: float
    has_zeros = True
    is_divisible = True

    def scores(self, shape: Shape, rng: np.random.Generator, block: Block | None = None) -> np.ndarray:
        """Random numbers for those that are chosen, of a part its share."""
        drawn = rng.random(shape_of(block, shape) if block else shape, np.float32)
        return np.where(greatest(drawn, round(self.density * drawn.size)), drawn, NEVER)

    def count(self, size: int) -> int:
        """All that are chosen."""
        return size


@dataclass(frozen=True, eq=False)
class Grouped:
    """N:M sparsity of another source's numbers: of each M neighbours along an axis the N greatest are left.

    As SR-STE's and ASP's forward passes have it, along the channels: those of one tap of one filter.

    Parameters
    ----------
    source : source
    kept, size : int
        N and M, which divides the axis.
    axis : 0 or 1
        Filters or channels.
    """

    source: Any
    kept: int
    size: int
    axis: int = 1
    has_zeros = True

    @property
    def is_divisible(self) -> bool:
        """Whether a part can be had alone: filters can, of which each has its own groups."""
        return self.axis == 1 and bool(self.source.is_divisible)

    def scores(self, shape: Shape, rng: np.random.Generator, block: Block | None = None) -> np.ndarray:
        """The source's, NEVER where a group has N greater ones; TraceError if a part cuts groups."""
        if block is not None and block[1].indices(shape[1])[:2] != (0, shape[1]):
            raise TraceError(f"a filter of {shape[1:]} weights is too large for N:M sparsity")
        drawn = self.source.scores(shape, rng, block) if block is not None else self.source.scores(shape, rng)
        last = np.moveaxis(drawn, self.axis, -1)
        rows = last.reshape(-1, last.shape[-1])
        chosen = _blocks_first(rows, np.full(len(rows), self.kept), self.size)
        return np.ascontiguousarray(np.moveaxis(chosen.reshape(last.shape), -1, self.axis))

    def count(self, size: int) -> int:
        """All that are left."""
        return int(self.source.count(size))


@dataclass(frozen=True, eq=False)
class Spread:
    """Another source's masks with zeros between their elements, as a transposed convolution sees its input.

    Parameters
    ----------
    source : source
    step : (int, int)
        Rows and columns from one element to the next; the first stands in the corner.
    """

    source: Any
    step: tuple[int, int]
    has_zeros = True
    is_divisible = False

    def scores(self, shape: Shape, rng: np.random.Generator, block: Block | None = None) -> np.ndarray:
        """The source's on the grid, NEVER elsewhere."""
        found = np.full(shape, NEVER)
        grid = found[:, :, :: self.step[0], :: self.step[1]]
        drawn = self.source.scores(grid.shape, rng)
        count = self.source.count(drawn.size)
        found[:, :, :: self.step[0], :: self.step[1]] = np.where(greatest(drawn, count), drawn, NEVER)
        return found

    def count(self, size: int) -> int:
        """All that are left."""
        return size
