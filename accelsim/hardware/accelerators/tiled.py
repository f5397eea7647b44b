"""Tiles of rows × columns of PEs with ``lanes`` multipliers and an adder tree each: what their models share.

DaDianNao (Chen et al., MICRO 2014) has 16 tiles of 16 rows, one column and 16 lanes; Bit-Tactical (Delmas Lascorz et
al., ASPLOS 2019) adds columns, each with a window of its own. Sets of ``rows`` streams go to the tiles in turn, set m
to tile m mod tiles; all tiles see the same columns and meet at the end of each round of ``tiles`` sets.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import STRIDED_INPUT_GRAD, AcceleratorParameters, Activity
from accelsim.hardware.lines import Lines, space_to_depth, to_lines
from accelsim.hardware.parameters import integer, option
from accelsim.workload.lowering import Convolution


class TiledParameters(AcceleratorParameters):
    """Keys of a tiled machine, and its accounting. A model says which lines a set executes (``_schedule``)."""

    tiles: int = integer(1, 4096, "tiles; each holds a set of `rows` streams")
    rows: int = integer(1, 256, "rows of PEs in a tile, one filter each")
    columns: int = integer(1, 1 << 40, "columns of PEs in a tile, one window each")
    lanes: int = integer(1, 64, "multipliers of a PE; their products are added up")
    strided_input_grad: Literal["phase", "dilate"] = option(
        STRIDED_INPUT_GRAD,
        default="phase",
    )
    weight_grad_rows: Literal["activation", "gradient"] = option(
        "operand of the weight gradient on the rows; the other goes on the columns", default="activation"
    )
    space_to_depth: bool = option(
        "fold stride × stride positions of a strided 3-channel input into its channels", default=True
    )

    @property
    def multipliers(self) -> int:
        return self.tiles * self.rows * self.columns * self.lanes

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        jobs, slots = [], Counter()
        for lines in self._lines(conv):
            cycles, lost = self._account(lines)
            jobs.append(cycles)
            slots.update(lost)
        slots["effectual"] = conv.effectual
        slots["ineffectual"] -= conv.effectual
        return Activity(self.multipliers, np.concatenate(jobs), slots)

    def replay(self, conv: Convolution) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        groups, cycles = [], 0
        for lines in self._lines(conv):
            result, took = self._replay(lines)
            groups.append(result)
            cycles += took
        return np.concatenate(groups, axis=1), cycles

    def _lines(self, conv: Convolution):
        return to_lines(self._folded(conv), self.lanes, self.weight_grad_rows)

    def _folded(self, conv: Convolution) -> Convolution:
        plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.which == "fwd"
        if self.space_to_depth and plain and conv.geometry.channels == 3 and max(conv.stride) > 1:
            return space_to_depth(conv)
        return conv

    def _account(self, lines: Lines) -> tuple[np.ndarray, dict[str, int]]:
        """Cycles of each round of tiles, and the slots of all of them by cause; "ineffectual" holds all products."""
        executed, used, filled, idle = self._schedule(lines)
        windows = lines.repeats * lines.windows
        visits = lines.repeats * -(-lines.windows // self.columns)
        jobs, lost, in_rows = self._rounds(executed[:, None], used, [visits], [windows])
        lost["ineffectual"] = windows * filled
        lost[idle] = lost.get(idle, 0) + in_rows - windows * filled
        return jobs.ravel(), lost

    def _rounds(self, own: np.ndarray, used: np.ndarray, visits, windows) -> tuple[np.ndarray, dict[str, int], int]:
        """Cycles of each round; what is lost around the rows in use; the slots of these rows.

        ``own`` are the cycles of each set in each kind of visit to the columns, ``used`` its rows in use; ``visits``
        says how many visits of a kind there are, ``windows`` how many columns all of them fill. A slot is lost, from
        the outside in: to a column without a window; to a tile without a set; to waiting for the round's slowest tile;
        to a row without a stream.
        """
        by_round = np.zeros((-(-len(own) // self.tiles), self.tiles, own.shape[1]), np.int64)
        by_round.reshape(-1, own.shape[1])[: len(own)] = own
        slowest = by_round.max(axis=1)
        held = slowest.repeat(self.tiles, axis=0)[: len(own)]
        counts = (slowest, held, own, own * used[:, None])
        tile, edge, barrier, in_rows = self.rows * self.lanes, 0, 0, 0
        for n, filled, total, waited, busy, rows in zip(
            visits, windows, *(count.sum(axis=0).tolist() for count in counts), strict=True
        ):
            edge += (n * self.columns - filled) * total * self.tiles * tile
            edge += filled * ((total * self.tiles - waited + busy) * tile - rows * self.lanes)
            barrier += filled * (waited - busy) * tile
            in_rows += filled * rows * self.lanes
        return slowest * np.array(visits), {"edge": edge, "barrier": barrier}, in_rows

    def _sets(self, blocks: int, streams: int) -> np.ndarray:
        """Rows in use in each set, set after set."""
        sets = np.full(-(-streams // self.rows), self.rows, np.int64)
        sets[-1] = streams - (sets.size - 1) * self.rows
        return np.tile(sets, blocks)

    def _replay(self, lines: Lines) -> tuple[np.ndarray, int]:
        """One group with numbers: each executed line of each row of each tile meets its windows."""
        rows, columns, sources = lines.rows(), lines.columns(), self._sources(lines)
        blocks, streams, depth, lanes = rows.shape
        repeats, windows = columns.shape[:2]
        columns = columns.reshape(repeats * windows, depth * lanes)
        products = np.zeros((blocks, streams, repeats * windows), np.result_type(rows, columns))
        took = []
        for block in range(blocks):
            for first in range(0, streams, self.rows):
                # The rows of a tile run in lock-step: one line of each a cycle, but for the lines all of them drop.
                kept = (sources[block, first : first + self.rows] != -2).any(axis=(0, 2))
                took.append(int(kept.sum()))
                for stream in range(first, min(first + self.rows, streams)):
                    values = rows[block, stream].reshape(-1)
                    for source in sources[block, stream][kept]:
                        used = source[source >= 0]
                        products[block, stream] += columns[:, used] @ values[used]
        visits = repeats * -(-windows // self.columns)
        cycles = visits * sum(max(took[i : i + self.tiles]) for i in range(0, len(took), self.tiles))
        return lines.place(products.reshape(blocks, streams, repeats, windows)), cycles
