"""Tiles of rows × columns of PEs with ``lanes`` multipliers and an adder tree each: what their models share.

DaDianNao (Chen et al., MICRO 2014) has 16 tiles of 16 rows, one column and 16 lanes; Bit-Tactical (Delmas Lascorz et
al., ASPLOS 2019) adds columns, each with a window of its own; TensorDash (Mahmoud et al., MICRO 2020) chooses what goes
on the rows. Sets of ``rows`` streams go to the tiles in turn, set m to tile m mod tiles; all tiles see the same columns
and meet at the end of each round of ``tiles`` sets.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import (
    STRIDED_INPUT_GRAD,
    AcceleratorParameters,
    Activity,
    Drawing,
    Summation,
    Unused,
)
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.tiled_film import Pick, shoot
from accelsim.hardware.accelerators.tiled_traffic import Grid, Work, lines_traffic
from accelsim.hardware.lines import Lines, on_rows, space_to_depth, stream_names, tensor_on, to_lines
from accelsim.hardware.movement.traffic import Traffic, joined
from accelsim.hardware.parameters import integer, option
from accelsim.workload.lowering import Convolution


class TiledParameters(AcceleratorParameters):
    """Keys of a tiled machine, and its accounting.

    A model says which side of a convolution goes on the rows (``_on_rows``), which lines a set executes (``_schedule``)
    and what each slot of them executes (``_sources``).
    """

    tiles: int = integer(1, 4096, "tiles; each holds a set of `rows` streams")
    rows: int = integer(1, 256, "rows of PEs in a tile, one stream each, such as a filter's weights")
    columns: int = integer(1, 1 << 40, "columns of PEs in a tile, one stream each, such as a window's activations")
    lanes: int = integer(1, 64, "multipliers of a PE; their products are added up")
    strided_input_grad: Literal["phase", "dilate"] = option(
        STRIDED_INPUT_GRAD,
        default="phase",
    )
    space_to_depth: bool = option(
        "fold stride × stride positions of a strided 3-channel input into its channels", default=True
    )

    @property
    def multipliers(self) -> int:
        return self.tiles * self.rows * self.columns * self.lanes

    @property
    def summation(self) -> Summation:
        """An adder tree over the lanes, and a register behind it; see ``Accelerator``."""
        return Summation(additions="multiplications", partial_sums=1)

    @property
    def drawing(self) -> Drawing:
        """Its tiles, and one of them; see ``Accelerator``."""
        return Drawing("tiles", self.tiles, "tree", down=self.rows, across=self.columns, lanes=self.lanes)

    def drained(self, cycles: np.ndarray) -> np.ndarray:
        """Cycles of rounds, as they are; ``DrainParameters`` adds to them."""
        return cycles

    def unused(self, conv: Convolution) -> Unused | None:
        """Of its rows, columns and lanes those that are least filled, by the first group; see ``Accelerator``."""
        lines, side = self.lines(conv)[0], self._on_rows(conv)
        blocks, streams, depth = lines.shape
        sets = blocks * -(-streams // self.rows) // lines.runs
        rounds, visits = -(-sets // self.tiles), -(-lines.windows // self.columns)
        on_rows, on_columns = (stream_names(conv.which, s) for s in (side, "input" if side == "kernel" else "kernel"))
        held, taps = blocks * streams // lines.runs, f"{blocks // lines.runs:,} taps of " if blocks > lines.runs else ""
        line = lines.elements // lines.pieces
        kinds = (
            Unused(
                "rows of PEs", rounds * self.tiles * self.rows, held, f"a layer of {taps}{streams:,} {on_rows}", rounds
            ),
            Unused(
                "columns of PEs",
                visits * self.columns,
                lines.windows,
                f"a layer of {lines.windows:,} {on_columns}",
                visits,
            ),
            Unused("lanes", depth // lines.pieces * self.lanes, line, f"a sum over {line:,}", depth // lines.pieces),
        )
        worst = max(kinds, key=lambda kind: kind.share)
        return worst if worst.share else None

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        return self._activity(conv, [self._account(lines) for lines in self.lines(conv)])

    def _activity(self, conv: Convolution, works: list[Work]) -> Activity:
        """What the groups of a convolution come to."""
        slots: Counter[str] = Counter()
        accesses: Counter[str] = Counter()
        for work in works:
            slots.update(work.slots)
            accesses.update(work.accesses)
        accesses["multiplications"] = slots["ineffectual"]
        slots["effectual"] = conv.effectual
        slots["ineffectual"] -= conv.effectual
        jobs = np.concatenate([work.cycles for work in works])
        return Activity(self.multipliers, jobs, slots, accesses, lambda: self._traffic(conv, works))

    def _traffic(self, conv: Convolution, works: list[Work]) -> Traffic:
        grid = Grid(self.tiles, self.rows, self.columns, self.lanes, self.tiles)
        # Folding space into depth moves no other values; where it is done there is one group.
        return joined([lines_traffic(grid, work, conv if conv.groups == 1 else work.lines.conv) for work in works])

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        groups, cycles = [], 0
        for lines in self.lines(conv):
            result, took = self._replay(lines, film)
            groups.append(result)
            cycles += took
        return np.concatenate(groups, axis=1), cycles

    def dense_cycles(self, conv: Convolution) -> int:
        """Cycles of the same mapping with every line executed."""
        cycles = 0
        for lines in self.lines(conv):
            blocks, streams, depth = lines.shape
            rounds = lines.runs * -(-blocks * -(-streams // self.rows) // lines.runs // self.tiles)
            each = int(self.drained(np.array(depth)))
            cycles += lines.repeats * -(-lines.windows // self.columns) * rounds * each
        return cycles

    def lines(self, conv: Convolution) -> tuple[Lines, ...]:
        """The groups of a convolution as this machine's lines."""
        return to_lines(self._folded(conv), self.lanes, self._on_rows(conv))

    def _folded(self, conv: Convolution) -> Convolution:
        plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.which == "fwd"
        if self.space_to_depth and plain and conv.geometry.channels == 3 and max(conv.stride) > 1:
            return space_to_depth(conv)
        return conv

    @abstractmethod
    def _on_rows(self, conv: Convolution) -> str:
        """The side of the convolution on the rows, "input" or "kernel"."""

    @abstractmethod
    def _schedule(self, lines: Lines) -> tuple[np.ndarray, int, str]:
        """Lines that each set executes; products executed; what an empty lane of a used row is."""

    @abstractmethod
    def _sources(self, lines: Lines) -> np.ndarray:
        """The place of the value that each slot executes: (blocks, streams, T, lanes); −1 none, −2 a line dropped."""

    @property
    def _lines_in_sight(self) -> int:
        """Lines that a front-end looks at together; 0: it has none."""
        return 0

    def _account(self, lines: Lines) -> Work:
        """Cycles of each round of tiles, and the slots of all of them by cause; "ineffectual" holds all products.

        ``_schedule`` gives the lines that each set executes: one count for all visits of columns, or one for each.
        """
        executed, products, idle = self._schedule(lines)
        executed = np.atleast_2d(executed)
        work, in_rows = self._rounds(lines, executed, executed)
        work.slots["ineffectual"] = products
        work.slots[idle] = work.slots.get(idle, 0) + in_rows - products
        return work

    def _rounds(self, lines: Lines, own: np.ndarray, executed: np.ndarray) -> tuple[Work, int]:
        """What is lost around the rows in use, and the slots of these rows.

        ``own`` are the cycles of each set in each visit of columns, or in all alike; ``executed`` its lines likewise. A
        slot is lost, from the outside in: to a column without a window; to a tile without a set; to waiting for the
        round's slowest tile; to a row without a stream. Columns' lines pass by whole, executed or not.
        """
        schedules = len(own)
        visits, tile = lines.repeats * -(-lines.windows // self.columns), self.rows * self.lanes
        shared = visits // schedules  # visits of columns that one schedule serves
        windows = np.minimum(self.columns, lines.windows - np.arange(0, lines.windows, self.columns))
        windows = np.tile(windows, lines.repeats).reshape(schedules, shared).sum(axis=1)
        used = self._sets(lines.shape[0], lines.shape[1])
        slowest, sets = self.drained(self._by_round(own, lines.runs).max(axis=2)), own.shape[1] // lines.runs
        held = slowest.reshape(schedules, lines.runs, -1).repeat(self.tiles, axis=2)[:, :, :sets]
        # Python's integers: a machine may have more columns than 64 bits leave room for.
        windows, total, held, busy, rows, row_lines = (
            counts.astype(object)
            for counts in (
                windows, slowest.sum(axis=1), held.sum(axis=(1, 2)), own.sum(axis=1), own @ used,
                np.broadcast_to(executed @ used, schedules),
            )
        )  # fmt: skip
        in_rows = windows @ rows * self.lanes
        edge = (shared * self.columns - windows) @ total * self.tiles * tile
        edge += windows @ (total * self.tiles - held + busy) * tile - in_rows
        read = self._row_lines(lines, executed)
        accesses = {
            "activation_buffer_reads": windows.sum() * used.size * lines.shape[2] * lines.lanes,
            "weight_buffer_reads": visits * int((read @ used).sum()) * self.lanes,
            "accumulator_updates": windows @ row_lines,
        }
        streams = self._by_round(used[None], lines.runs).sum(axis=2)[0]
        moved = self._by_round(read * used, lines.runs).sum(axis=2)
        lost = {"edge": edge, "barrier": windows @ (held - busy) * tile}
        return Work(lines, slowest, moved, streams, slowest.T.ravel() * shared, lost, accesses), in_rows

    def _row_lines(self, lines: Lines, executed: np.ndarray) -> np.ndarray:
        """Lines of each set that are read for its rows: what was scheduled beforehand is stored as it is executed."""
        return executed

    def _by_round(self, counts: np.ndarray, runs: int) -> np.ndarray:
        """Of each set, (schedules, sets) → (schedules, rounds, tiles); zero where a round leaves a tile without."""
        by_run = counts.reshape(len(counts), runs, -1)
        by_run = np.pad(by_run, ((0, 0), (0, 0), (0, -by_run.shape[2] % self.tiles)))
        return by_run.reshape(len(counts), -1, self.tiles)

    def _sets(self, blocks: int, streams: int) -> np.ndarray:
        """Rows in use in each set, set after set."""
        sets = np.full(-(-streams // self.rows), self.rows, np.int64)
        sets[-1] = streams - (sets.size - 1) * self.rows
        return np.tile(sets, blocks)

    def _replay(self, lines: Lines, film: Film | None) -> tuple[np.ndarray, int]:
        """One group with numbers: each executed line of each row of each tile meets its windows."""
        rows, columns, sources = lines.rows(), lines.columns(), self._sources(lines)
        blocks, streams, depth, lanes = rows.shape
        repeats, windows = columns.shape[:2]
        columns = columns.reshape(repeats * windows, depth * lanes)
        products = np.zeros((blocks, streams, repeats * windows), np.result_type(rows, columns))
        took, picks = [], []
        for block in range(blocks):
            for first in range(0, streams, self.rows):
                # The rows of a tile run in lock-step: one line of each a cycle, but for the lines all of them drop.
                own = sources[block, first : first + self.rows]
                kept = (own != -2).any(axis=(0, 2))
                took.append(int(kept.sum()))
                picks.append(Pick(kept.nonzero()[0], own[:, None, kept]))
                for stream in range(first, min(first + self.rows, streams)):
                    values = rows[block, stream].reshape(-1)
                    for source in sources[block, stream][kept]:
                        used = source[source >= 0]
                        products[block, stream] += columns[:, used] @ values[used]
        cycles = repeats * -(-windows // self.columns) * self._slowest(took, lines.runs)
        if film is not None:
            shoot(film, self, lines, lambda number, repeat, first: picks[number])
        return lines.place(products.reshape(blocks, streams, repeats, windows)), cycles

    def _slowest(self, took: list[int], runs: int) -> int:
        """Cycles of a visit of columns: each round of tiles waits for its slowest set."""
        by_run = np.array(took).reshape(runs, -1)
        rounds = [by_run[:, i : i + self.tiles].max(axis=1) for i in range(0, by_run.shape[1], self.tiles)]
        return int(self.drained(np.array(rounds)).sum())


class FixedRows(TiledParameters):
    """A tiled machine with weights on the rows, and in the weight gradient the operand that its user chooses."""

    weight_grad_rows: Literal["activation", "gradient"] = option(
        "operand of the weight gradient on the rows; the other goes on the columns", default="activation"
    )

    def _on_rows(self, conv: Convolution) -> str:
        """The side of the convolution on the rows, "input" or "kernel"."""
        return on_rows(conv.which, self.weight_grad_rows)

    def _row_tensor(self, which: str) -> str:
        return tensor_on(which, on_rows(which, self.weight_grad_rows))

    def _column_tensor(self, which: str) -> str:
        return tensor_on(which, "input" if on_rows(which, self.weight_grad_rows) == "kernel" else "kernel")


class EveryLine(FixedRows):
    """A tiled machine that executes each line of every stream, whatever stands in it."""

    def _schedule(self, lines: Lines) -> tuple[np.ndarray, int, str]:
        """Lines that each set executes; products executed; what an empty lane of a used row is."""
        blocks, streams, depth = lines.shape
        sets = blocks * -(-streams // self.rows)
        return np.full(sets, depth, np.int64), lines.partners * blocks * streams * lines.elements, "edge"

    def _sources(self, lines: Lines) -> np.ndarray:
        """Each slot executes the value that stands there."""
        blocks, streams, depth = lines.shape
        return np.broadcast_to(lines.places(), (blocks, streams, depth, self.lanes))
