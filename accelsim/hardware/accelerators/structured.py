"""Structured n:m sparsity, as in the Tensor Cores of NVIDIA's Ampere: 2:4 doubles the throughput.

Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, and the A100 whitepaper (NVIDIA, 2020): of every m
consecutive elements along the reduction at most n may be non-zero; these are multiplied, the others are not looked at.
A tensor has the pattern or it has not, as cuSPARSELt asks: one group with more non-zeros, and all of it runs dense.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import DrainParameters
from accelsim.hardware.accelerators.tiled import FixedRows
from accelsim.hardware.lines import Lines, to_lines
from accelsim.hardware.parameters import check, integer
from accelsim.hardware.strips import strips
from accelsim.workload.lowering import Convolution


class Structured(DrainParameters, FixedRows):
    """m/n times the throughput of ``DaDianNao`` of the same shape where the operand on the rows has the pattern.

    The reduction is that of the pass: channels in the forward pass, filters in the input gradient, places of the output
    in the weight gradient. A weight that has the pattern along its channels need not have it along its filters.
    """

    model: Literal["structured"]
    n: int = integer(1, 64, "non-zeros that a group may have")
    m: int = integer(1, 64, "consecutive elements of a group", unit="elements")

    @check
    def _groups_fill_the_lanes(self) -> Structured:
        if self.n > self.m:
            raise ValueError(f"n must be at most m, {self.m}, got {self.n}")
        if self.lanes % self.n:
            raise ValueError(f"lanes must be a multiple of n, {self.n}, got {self.lanes}")
        return self

    def skips(self, which: str) -> dict[str, str]:
        """What is on the rows, if it has the pattern; see ``Accelerator``."""
        return {self._row_tensor(which): "pattern"}

    def has_pattern(self, conv: Convolution) -> bool:
        """Whether the operand on the rows, all groups of a grouped convolution together, has the pattern."""
        folded = self._folded(conv)
        return all(
            np.count_nonzero(some, axis=-1).max() <= self.n
            for lines in to_lines(folded, self.m, self._on_rows(conv))
            for block in lines.blocks()
            for some in strips(block)
        )

    def lines(self, conv: Convolution) -> tuple[Lines, ...]:
        """A line holds ``lanes`` elements, or the ``lanes``·m/n of which ``lanes`` are executed."""
        lanes = self.lanes // self.n * self.m if self.has_pattern(conv) else self.lanes
        return to_lines(self._folded(conv), lanes, self._on_rows(conv))

    def _schedule(self, lines: Lines) -> tuple[np.ndarray, int, str]:
        """Lines that each set executes; products executed; what an empty lane of a used row is."""
        blocks, streams, depth = lines.shape
        executed = np.full(self._sets(blocks, streams).size, depth, np.int64)
        per_stream = lines.elements
        if lines.lanes > self.lanes:
            per_stream = lines.pieces * -(-(lines.elements // lines.pieces) // self.m) * self.n
        return executed, lines.partners * blocks * streams * per_stream, "edge"

    def _sources(self, lines: Lines) -> np.ndarray:
        """Each slot executes the value that stands there, or the next non-zero of its group, in the end zeros."""
        rows = lines.rows()
        places = np.broadcast_to(lines.places(), rows.shape)
        if lines.lanes == self.lanes:
            return places
        grouped = (*rows.shape[:-1], -1, self.m)
        chosen = np.argsort(rows.reshape(grouped) == 0, axis=-1, kind="stable")[..., : self.n]
        first = places.reshape(grouped)[..., :1]  # of a group that is there: its slots are executed, all of them
        return np.where(first >= 0, first + chosen, -1).reshape(*rows.shape[:-1], self.lanes)
