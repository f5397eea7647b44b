"""TensorDash: zeros of one operand, or of both, skipped as the lines stream by, in all three passes of training.

Mahmoud et al., "TensorDash: Exploiting Sparsity to Accelerate Deep Neural Network Training", MICRO 2020. A PE sees
1 + lookahead_h lines; a small scheduler fills the lanes that a zero leaves empty, lane after lane in a fixed order, and
multiplexers of few inputs bring the operands there. docs/model.md has the rules.

One-sided, the paper's tile: a scheduler for each row looks at the row's operand alone, and each PE of the row moves its
own column's operand likewise. Two-sided: a scheduler *for each PE* looks at the lines of its row and its column ANDed,
with multiplexers on both operands in each PE. Either way the PEs of a tile share one window and one clock: all execute
line t in the same cycle, and a line costs the tile a cycle as soon as one PE has work left in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import DrainParameters
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.search import WindowParameters
from accelsim.hardware.accelerators.tiled import TiledParameters
from accelsim.hardware.accelerators.tiled_film import Pick, shoot
from accelsim.hardware.lines import Lines
from accelsim.hardware.parameters import check, option
from accelsim.hardware.strips import strips
from accelsim.workload.lowering import READS, Convolution

WORD = 64  # PEs that the kernel schedules at once
PACKED = 1 << 26  # values on the rows that are packed into such words at once


class TensorDash(DrainParameters, WindowParameters, TiledParameters):
    """Skips zeros of the operand that it schedules, which goes on the rows; ``two_sided``: of either operand."""

    model: Literal["tensordash"]
    scheduled_operand: Literal["sparser", "weight", "activation", "gradient"] = option(
        "operand on the rows, the one that is scheduled: of a layer's two operands in a pass the one with the larger "
        "share of zeros, or the one named; a pass that does not read the one named takes the sparser",
        default="sparser",
    )
    skipping: Literal["one_sided", "two_sided"] = option(
        "skip zeros of the scheduled operand, a scheduler for each row; or of both operands, a scheduler for each PE",
        default="one_sided",
    )

    free_skip_at_start: bool = option(
        "empty lines with which a set begins are dropped before its first cycle, as many as the lookahead; without, "
        "its first line costs a cycle whatever it holds",
        default=True,
    )

    @check
    def _a_tile_is_no_larger_than_its_schedule(self) -> TensorDash:
        if self.skipping == "two_sided" and self.columns > 256:
            raise ValueError(f"skipping two_sided needs columns of at most 256, got {self.columns}")
        return self

    def skips(self, which: str) -> dict[str, str]:
        """What is scheduled, as far as the lookahead; two-sided both operands; see ``Accelerator``."""
        named = [name for name in READS[which] if name.removeprefix("saved_") == self.scheduled_operand]
        if not self.lookahead_h:
            # No zero is skipped; but which operand goes on the rows, by their zeros, changes how a layer fits.
            return {} if named else dict.fromkeys(READS[which], "sparser")
        if self.skipping == "one_sided" and named:
            return {named[0]: "zeros"}
        return dict.fromkeys(READS[which], "sparser" if self.skipping == "one_sided" else "zeros")

    def scheduled(self, conv: Convolution) -> str:
        """The operand on the rows: "weight", "activation" or "gradient".

        Zeros are counted in the layer's whole tensors, padding left out; with equal shares it is the weight, and in the
        weight gradient the gradient.
        """
        names = _operands(conv)
        if self.scheduled_operand in names:
            return self.scheduled_operand
        tensors = conv.operands or (conv.input, conv.kernel)
        zeros = [tensor.size - int(np.count_nonzero(tensor)) for tensor in tensors]
        # Shares compared as products of integers: a tie is one exactly.
        return names[0] if zeros[0] * tensors[1].size > zeros[1] * tensors[0].size else names[1]

    def _on_rows(self, conv: Convolution) -> str:
        """The side of the convolution on the rows, "input" or "kernel"."""
        return ("input", "kernel")[_operands(conv).index(self.scheduled(conv))]

    def _schedule(self, lines: Lines) -> tuple[np.ndarray, int, str]:
        """Lines that each set executes, if two-sided with each visit of columns; products; what an empty lane is."""
        executed, filled = [], 0
        for block in lines.row_strips(self.rows):
            filled += int(np.count_nonzero(block))
            for rows in strips(block, self.rows, PACKED):
                by_columns = [self.executed(rows, columns) for columns in self._column_blocks(lines)]
                executed.append(np.concatenate(by_columns))
        products = lines.conv.effectual if self.skipping == "two_sided" else lines.partners * filled
        return np.concatenate(executed, axis=1), products, "lookahead"

    def _row_lines(self, lines: Lines, executed: np.ndarray) -> np.ndarray:
        """All: a scheduler sees each line before it can skip it."""
        return np.full((1, executed.shape[1]), lines.shape[2], np.int64)

    def _column_blocks(self, lines: Lines) -> Iterator[np.ndarray]:
        """What the schedulers see of the columns: one-sided a single stream without zeros."""
        if self.skipping == "two_sided":
            return lines.column_blocks()
        return iter([np.ones((1, lines.shape[2], self.lanes), bool)])

    def executed(self, rows: np.ndarray, columns: np.ndarray, sources: np.ndarray | None = None) -> np.ndarray:
        """Lines executed by (groups of columns, sets of rows), from their streams (streams, T, lanes)."""
        from accelsim.hardware.kernels.dynamic import executed_lines

        group = min(self.columns, len(columns))
        in_column, in_row = self._word(group)
        whole_row = (1 << in_row) - 1
        first_column = sum(1 << in_row * i for i in range(in_column))
        word = np.min_scalar_type((1 << in_column * in_row) - 1)  # the narrower, the more go through the kernel at once
        return executed_lines(
            _words(rows, self.rows, [whole_row << in_row * i for i in range(in_column)], word),
            _words(columns, group, [first_column << j for j in range(in_row)], word),
            *self.search_arrays(self.lanes),
            np.array(lane_order(self.lanes, self.lookaside_d), np.int64),
            self.ports - 1,
            self.free_skip_at_start,
            np.empty((0, 0, 0, 0), np.int64) if sources is None else sources,
        )

    def _word(self, columns: int) -> tuple[int, int]:
        """Rows and columns of PEs that share a machine word in the kernel."""
        in_row = min(columns, WORD)
        return min(self.rows, WORD // in_row), in_row

    def _sources(self, lines: Lines) -> np.ndarray:
        """One-sided: the place of the value that each slot executes, as the kernel chose it."""
        (columns,) = self._column_blocks(lines)
        return np.stack(
            [
                np.concatenate([self._tile(block[i : i + self.rows], columns)[:, 0] for i in self._firsts(lines)])
                for block in lines.blocks()
            ]
        )

    def _tile(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The place of the pair that each slot of one tile executes: (rows, columns, T, lanes)."""
        in_column, in_row = self._word(len(columns))
        words = -(-self.rows // in_column), -(-len(columns) // in_row)
        sources = np.full((words[0] * words[1], in_column * in_row, *rows.shape[1:]), -1, np.int64)
        self.executed(rows, columns, sources)
        pes = sources.reshape(*words, in_column, in_row, *rows.shape[1:]).swapaxes(1, 2)
        return pes.reshape(words[0] * in_column, words[1] * in_row, *rows.shape[1:])[: len(rows), : len(columns)]

    def _firsts(self, lines: Lines) -> range:
        """The first stream of each set."""
        return range(0, lines.shape[1], self.rows)

    def _replay(self, lines: Lines, film: Film | None) -> tuple[np.ndarray, int]:
        """One group with numbers; two-sided each PE has a schedule of its own."""
        if self.skipping == "one_sided":
            return super()._replay(lines, film)
        rows, columns = lines.rows(), lines.columns()
        products = np.zeros((*rows.shape[:2], *columns.shape[:2]), np.result_type(rows, columns))
        cycles, picks = 0, {}
        for repeat, first_column in product(range(lines.repeats), range(0, lines.windows, self.columns)):
            visit = columns[repeat, first_column : first_column + self.columns]
            took: list[int] = []
            for block, first in product(range(len(rows)), self._firsts(lines)):
                own = rows[block, first : first + self.rows]
                sources = self._tile(own, visit)
                kept = (sources != -2).any(axis=(0, 1, 3))
                picks[len(took), repeat, first_column] = Pick(kept.nonzero()[0], sources[:, :, kept])
                took.append(int(kept.sum()))
                for r, c in np.ndindex(*sources.shape[:2]):
                    used = sources[r, c][kept]
                    used = used[used >= 0]
                    products[block, first + r, repeat, first_column + c] = own[r].flat[used] @ visit[c].flat[used]
            cycles += self._slowest(took, lines.runs)
        if film is not None:
            shoot(film, self, lines, lambda *at: picks[at])
        return lines.place(products), cycles


def _operands(conv: Convolution) -> list[str]:
    """What the input and the kernel of a convolution hold."""
    return [name.removeprefix("saved_") for name in READS[conv.which]]


def lane_order(lanes: int, lookaside: int) -> list[int]:
    """The order in which lanes take: the lowest left, then those ``lookaside`` apart that it cannot contend with.

    These are the levels of the paper's scheduler: the T shape's candidates of lanes 5 apart differ, around the end of
    the line too.
    """
    order: list[int] = []
    for lane in range(lanes):
        if lane not in order:
            apart = range(lane + lookaside, min(lanes, lanes - lookaside + lane), lookaside) if lookaside else ()
            order += [lane, *apart]
    return order


def _words(streams: np.ndarray, group: int, bits: list[int], word: np.dtype) -> np.ndarray:
    """(streams, T, lanes) → (groups, words, T, lanes); the i-th stream of a word sets ``bits[i]`` where non-zero."""
    groups, words = -(-len(streams) // group), -(-group // len(bits))
    packed = np.zeros((groups, words, *streams.shape[1:]), word)
    for i in range(min(group, len(streams))):
        own = streams[i::group] != 0
        packed[: len(own), i // len(bits)] |= own * word.type(bits[i % len(bits)])
    return packed
