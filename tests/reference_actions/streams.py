"""What machines with adder trees put on rows and columns: streams of lines, and the parts of memory they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .lowering import Problem
from .moved import Part


@dataclass
class Side:
    """Rows or columns: blocks of streams, each an array (streams, T, lanes), and where their values lie.

    ``pieces``: for each block an array whose first axis is cut when streams are, in proportion; blocks that show the
    same values share it. ``apart``: a set of streams of one block never shares a round with one of another.
    """

    tensor: str
    blocks: list[np.ndarray]
    pieces: list[np.ndarray]
    apart: bool = False

    @property
    def streams(self) -> int:
        return len(self.blocks[0])

    def parts(self, ends: list[int]) -> tuple[list[Part], list[list[int]]]:
        """Cuts before these streams: the parts, and of each block the part that each cut reads.

        Element x of n is in the part of the first cut of whose streams one needs it: streams s of m need those up to
        x = ceil(s·n/m). A cut that needs nothing new reads the part with the last that it needs.
        """
        parts: list[Part] = []
        reads: list[list[int]] = []
        for number, piece in enumerate(self.pieces):
            same = next((i for i in range(number) if self.pieces[i] is piece), None)
            if same is not None:
                reads.append(reads[same])
                continue
            own, taken = [], 0
            if not len(piece):  # memory holds nothing of what is padding alone
                parts.append(Part(0, 0, 0))
            for end in ends:
                needed = -(-end * len(piece) // ends[-1])
                if needed > taken:
                    parts.append(Part.of(piece[taken:needed]))
                    taken = needed
                own.append(len(parts) - 1)
            reads.append(own)
        return parts, reads


def sides(problem: Problem, group: int, lanes: int) -> tuple[Side, Side]:
    """The first operand and the second, each as it lies on rows or columns."""
    if problem.which == "weight_grad":
        return _raster(problem, group, lanes)
    return _windows(problem, group, lanes)


def _of_group(array: np.ndarray, axis: int, group: int, groups: int) -> np.ndarray:
    size = array.shape[axis] // groups
    return array.take(range(group * size, (group + 1) * size), axis)


def _windows(problem: Problem, group: int, lanes: int) -> tuple[Side, Side]:
    """Windows, a block for each sample, and filters; a tap's channels fill lines of their own."""
    kernel = _of_group(problem.kernel, 0, group, problem.groups)
    taps = list(problem.every_tap())
    windows = []
    for n in range(len(problem.padded)):
        own = [
            [_of_group(problem.element(p, q, r, s)[n], 0, group, problem.groups) for r, s in taps]
            for p, q in problem.every_place()
        ]
        windows.append(_lines(np.array(own), lanes))
    filters = _lines(np.array([[of[:, r, s] for r, s in taps] for of in kernel]), lanes)
    held = _of_group(problem.held, 1, group, problem.groups)
    return (
        Side("activation" if problem.which == "fwd" else "gradient", windows, [n.swapaxes(0, 1) for n in held], True),
        Side("weight", [filters], [kernel]),
    )


def _raster(problem: Problem, group: int, lanes: int) -> tuple[Side, Side]:
    """Channels, a block for each tap, and filters' gradients; ``lanes`` places (n, p, q) in a line."""
    gradient = _of_group(problem.gradient, 1, group, problem.groups).swapaxes(0, 1)
    blocks = []
    for r, s in problem.every_tap():
        places = [problem.element(p, q, r, s) for p, q in problem.every_place()]  # (N, C) each
        own = _of_group(np.array(places).transpose(2, 1, 0), 0, group, problem.groups)
        blocks.append(_lines(own.reshape(len(own), 1, -1), lanes))
    held = _of_group(problem.held, 1, group, problem.groups).swapaxes(0, 1)
    filters = _lines(gradient.reshape(len(gradient), 1, -1), lanes)
    return Side("activation", blocks, [held] * len(blocks)), Side("gradient", [filters], [gradient])


def _lines(values: np.ndarray, lanes: int) -> np.ndarray:
    """(streams, pieces, elements) → (streams, T, lanes): each piece is filled up with zeros to whole lines."""
    streams, pieces, elements = values.shape
    lines = -(-elements // lanes)
    out = np.zeros((streams, pieces, lines * lanes), values.dtype)
    out[:, :, :elements] = values
    return out.reshape(streams, pieces * lines, lanes)


def folded(problem: Problem) -> Problem:
    """A forward pass with stride²·C channels at stride 1: each place of a stride × stride square is a channel."""
    (st_p, st_q), channels = problem.stride, problem.padded.shape[1]
    taps = tuple(-(-k // st) for k, st in zip(problem.taps, problem.stride, strict=True))
    sizes = [p + k - 1 for p, k in zip(problem.places, taps, strict=True)]

    def fold(array, rows, columns):
        out = np.zeros((len(array), st_p * st_q * channels, rows, columns), array.dtype)
        for x in range(min(rows * st_p, array.shape[2])):
            for y in range(min(columns * st_q, array.shape[3])):
                square = ((x % st_p) * st_q + y % st_q) * channels
                out[:, square : square + channels, x // st_p, y // st_q] = array[:, :, x, y]
        return out

    kernel = fold(problem.kernel, *taps)
    return replace(problem, padded=fold(problem.padded, *sizes), kernel=kernel, taps=taps, stride=(1, 1))
