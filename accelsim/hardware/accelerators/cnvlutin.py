"""Cnvlutin: DaDianNao's tiles with neuron lanes that walk the non-zero activations of their own bricks.

Albericio et al., "Cnvlutin: Ineffectual-Neuron-Free Deep Neural Network Computing", ISCA 2016. Activations are stored
in bricks with an offset for each non-zero, so a lane goes through its bricks at its own pace; all filters of all tiles
follow the same lanes, and the lanes meet at the end of each window. Zero weights are not skipped. docs/model.md,
docs/machines.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
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
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.tiled_traffic import Grid, Work, lines_traffic
from accelsim.hardware.lines import Lines, on_rows, tensor_on, to_lines
from accelsim.hardware.movement.traffic import joined
from accelsim.hardware.parameters import integer, option
from accelsim.workload.lowering import Convolution


class Cnvlutin(AcceleratorParameters):
    """Skips zeros of the operand on the neuron lanes: activations, and in the input gradient the output gradients."""

    model: Literal["cnvlutin"]
    tiles: int = integer(1, 4096, "tiles; each holds `rows` filters, and all see the same window")
    rows: int = integer(1, 256, "filters in a tile")
    lanes: int = integer(1, 64, "neuron lanes; each feeds one multiplier of every filter")
    brick: int = integer(1, 256, "consecutive activations that a lane takes as one piece", unit="activations")
    empty_brick_cycles: Literal[0, 1] = option("cycles that a brick without a non-zero costs its lane")
    image_encoded: bool = option(
        "a forward input of 3 channels, an image, comes with offsets too; without, it is computed as on DaDianNao"
    )
    space_to_depth: bool = option(
        "a strided image that is computed as on DaDianNao has stride × stride positions folded into its channels",
        default=True,
    )
    strided_input_grad: Literal["phase", "dilate"] = option(STRIDED_INPUT_GRAD)
    weight_grad_skips: Literal["activation", "gradient"] = option(
        "operand of the weight gradient on the neuron lanes; the other takes the filters' place"
    )

    @property
    def multipliers(self) -> int:
        return self.tiles * self.rows * self.lanes

    @property
    def dense(self) -> DaDianNao:
        """The machine without skipping."""
        return DaDianNao(
            model="dadiannao", tiles=self.tiles, rows=self.rows, columns=1, lanes=self.lanes,
            strided_input_grad=self.strided_input_grad, space_to_depth=self.space_to_depth,
        )  # fmt: skip

    @property
    def summation(self) -> Summation:
        """An adder tree over the lanes, and a register behind it; see ``Accelerator``."""
        return Summation(additions="multiplications", partial_sums=1)

    @property
    def drawing(self) -> Drawing:
        """Its tiles, and one of them; see ``Accelerator``."""
        return Drawing("tiles", self.tiles, "tree", down=self.rows, lanes=self.lanes)

    def skips(self, which: str) -> dict[str, str]:
        """What is on the neuron lanes; see ``Accelerator``."""
        return {tensor_on(which, "kernel" if self._filters(which) == "input" else "input"): "zeros"}

    def unused(self, conv: Convolution) -> Unused | None:
        """Filters' places, or neuron lanes without a brick; see ``Accelerator``."""
        if self._is_plain(conv):
            return self.dense.unused(conv)
        blocks, streams, bricks = self._groups(conv)[0].shape
        filters, rounds = blocks * streams, self._passes(blocks * streams)
        places = Unused("filters' places", rounds * self.tiles * self.rows, filters, f"a layer of {filters:,}", rounds)
        lanes = Unused("neuron lanes", self.lanes, min(bricks, self.lanes), f"a window of {bricks:,} bricks")
        worst = max(places, lanes, key=lambda kind: kind.share)
        return worst if worst.share else None

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        if self._is_plain(conv):
            return self.dense.run(conv)
        slots = Counter(effectual=conv.effectual, ineffectual=-conv.effectual)
        by_group: list[list[np.ndarray]] = [[] for _ in range(conv.groups)]
        accesses: Counter[str] = Counter()
        sums = 0
        for number, lines in enumerate(self._lines(conv)):
            blocks, streams, bricks = lines.shape
            filters, passes = blocks * streams, self._passes(blocks * streams)
            used = min(bricks, self.lanes)
            for windows in lines.column_strips(1):
                filled = np.count_nonzero(windows, axis=-1)
                own = self._lane_cycles(filled)
                slowest, products = own.max(axis=1), int(filled.sum())
                total, busy = int(slowest.sum()), int(own.sum())
                slots["edge"] += total * (passes * self.multipliers - filters * used)
                slots["barrier"] += filters * (total * used - busy)
                slots["imbalance"] += filters * (busy - products)
                slots["ineffectual"] += filters * products
                by_group[number % conv.groups].append(slowest)
                accesses["activation_buffer_reads"] += passes * self.tiles * products
                sums += filters * total
        products = slots["effectual"] + slots["ineffectual"]
        accesses.update(multiplications=products, weight_buffer_reads=products, accumulator_updates=sums)
        works = [
            self._work(lines, np.concatenate(own)) for lines, own in zip(self._groups(conv), by_group, strict=True)
        ]
        grid = Grid(tiles=self.tiles * self.rows, rows=1, columns=1, lanes=self.lanes, buffers=self.tiles)
        return Activity(
            self.multipliers, np.concatenate([work.cycles for work in works]), slots, accesses,
            lambda: joined([lines_traffic(grid, work, work.lines.conv) for work in works]),
        )  # fmt: skip

    def _work(self, lines: Lines, slowest: np.ndarray) -> Work:
        """One group, all its samples: each window takes its own time, in every pass over the filters."""
        filters = lines.shape[0] * lines.shape[1]
        passes, together = self._passes(filters), self.tiles * self.rows
        streams = np.minimum(together, filters - together * np.arange(passes))
        cycles = np.repeat(slowest[:, None], passes, axis=1)
        return Work(lines, cycles, cycles * streams, streams, cycles.T.ravel(), {}, {})

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        if self._is_plain(conv):
            return self.dense.replay(conv, film)
        results, cycles = [], 0
        for lines in self._lines(conv):
            rows, columns = lines.rows(), lines.columns()
            blocks, streams = rows.shape[:2]
            products = np.zeros((blocks, streams, *columns.shape[:2]), np.result_type(rows, columns))
            for repeat, window in np.ndindex(*columns.shape[:2]):
                # Of each lane the places that it multiplies, one a cycle; None: an empty brick.
                taken: list[list[tuple[int, int] | None]] = [[] for _ in range(self.lanes)]
                for number, brick in enumerate(columns[repeat, window]):
                    for offset in np.flatnonzero(brick).tolist():
                        products[:, :, repeat, window] += rows[:, :, number, offset] * brick[offset]
                        taken[number % self.lanes].append((number, offset))
                    taken[number % self.lanes] += [] if brick.any() else [None] * self.empty_brick_cycles
                cycles += self._passes(blocks * streams) * max(map(len, taken))
                if film is not None:
                    self._shoot(film, rows.reshape(blocks * streams, *rows.shape[2:]) != 0, taken, window)
            results.append(lines.place(products))
        by_group = [np.concatenate(results[g :: conv.groups]) for g in range(conv.groups)]
        return np.concatenate(by_group, axis=1), cycles

    def _shoot(self, film: Film, rows: np.ndarray, taken: list[list[tuple[int, int] | None]], window: int) -> None:
        """Films one window, pass after pass over the filters (filters, bricks, places)."""
        together, cycles = self.tiles * self.rows, max(map(len, taken))
        for first in range(0, len(rows), together):
            own = rows[first : first + together]
            note = f"filters {first}–{first + len(own) - 1} of {len(rows)}, window {window}"
            shot = film.shoot(cycles, together, self.lanes, cause="edge", note=note)
            for lane, places in enumerate(taken[: rows.shape[1]]):
                shot[:, : len(own), lane] = film["barrier"]
                for cycle, place in enumerate(places):
                    done = film["imbalance"] if place is None else _made(film, own[:, place[0], place[1]])
                    shot[cycle, : len(own), lane] = done

    def _is_plain(self, conv: Convolution) -> bool:
        """Whether the input is an image without offsets."""
        return not self.image_encoded and conv.which == "fwd" and conv.geometry.channels == 3

    def _lines(self, conv: Convolution) -> Iterator[Lines]:
        """Bricks as lines, sample after sample, for a window's bricks are gathered once a tap."""
        if conv.which == "weight_grad":
            yield from self._groups(conv)
            return
        for sample in conv.input:
            yield from self._groups(replace(conv, input=sample[None]))

    def _groups(self, conv: Convolution) -> tuple[Lines, ...]:
        return to_lines(conv, self.brick, self._filters(conv.which))

    def _filters(self, which: str) -> str:
        """The side of a convolution in the filters' place."""
        return on_rows(which, "gradient" if self.weight_grad_skips == "activation" else "activation")

    def _passes(self, filters: int) -> int:
        """How often all windows are walked: once for as many filters as the tiles hold."""
        return -(-filters // (self.tiles * self.rows))

    def _lane_cycles(self, filled: np.ndarray) -> np.ndarray:
        """(windows, bricks) non-zeros → (windows, lanes) cycles: bricks go to the lanes in turn."""
        windows, bricks = filled.shape
        dealt = np.zeros((windows, -(-bricks // self.lanes) * self.lanes), np.int64)
        dealt[:, :bricks] = np.maximum(filled, self.empty_brick_cycles)
        cycles: np.ndarray = dealt.reshape(windows, -1, self.lanes).sum(axis=1)
        return cycles


def _made(film: Film, filled: np.ndarray) -> np.ndarray:
    """Products of a non-zero with what filters hold."""
    return np.where(filled, film["effectual"], film["ineffectual"])
