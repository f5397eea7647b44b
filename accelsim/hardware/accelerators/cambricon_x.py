"""Cambricon-X: PEs that hold their filter's non-zero weights and have the inputs for them picked out by step indices.

Zhang et al., "Cambricon-X: An Accelerator for Sparse Neural Networks", MICRO 2016. Each PE has a filter of its own, so
they take different numbers of cycles and wait for the slowest before all go on to the next output. Zeros of the other
operand are not skipped. docs/model.md, docs/machines.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import (
    STRIDED_INPUT_GRAD,
    Activity,
    DrainParameters,
    Drawing,
    Summation,
    Unused,
)
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.tiled_traffic import Grid, Work, lines_traffic
from accelsim.hardware.lines import Lines, on_rows, stream_names, tensor_on, to_lines
from accelsim.hardware.movement.traffic import joined
from accelsim.hardware.parameters import check, integer, option
from accelsim.hardware.strips import nonzero
from accelsim.workload.lowering import Convolution


class CambriconX(DrainParameters):
    """Skips zeros of the operand that the PEs hold: weights, and in the weight gradient the saved activations."""

    model: Literal["cambricon_x"]
    pes: int = integer(1, 65536, "PEs, one filter each")
    lanes: int = integer(1, 64, "multipliers of a PE; their products are added up")
    window: int = integer(1, 1 << 20, "consecutive inputs that an indexing module picks from in a cycle", unit="inputs")
    strided_input_grad: Literal["phase", "dilate"] = option(STRIDED_INPUT_GRAD)
    weight_grad_rows: Literal["activation", "gradient"] = option(
        "operand of the weight gradient that the PEs hold compressed; the other is broadcast"
    )

    @check
    def _window_fills_the_lanes(self) -> CambriconX:
        if self.window < self.lanes:
            raise ValueError(f"window must be at least lanes, {self.lanes}, got {self.window}")
        return self

    @property
    def multipliers(self) -> int:
        return self.pes * self.lanes

    @property
    def summation(self) -> Summation:
        """An adder tree over the lanes, and a register behind it; see ``Accelerator``."""
        return Summation(additions="multiplications", partial_sums=1)

    @property
    def drawing(self) -> Drawing:
        """Its PEs; see ``Accelerator``."""
        return Drawing("PEs", self.pes, "lanes", lanes=self.lanes)

    def skips(self, which: str) -> dict[str, str]:
        """What the PEs hold; see ``Accelerator``."""
        return {tensor_on(which, on_rows(which, self.weight_grad_rows)): "zeros"}

    def unused(self, conv: Convolution) -> Unused | None:
        """PEs without a stream in the last set; see ``Accelerator``."""
        blocks, streams, _ = self._lines(conv)[0].shape
        rounds = -(-blocks * streams // self.pes)
        what = stream_names(conv.which, on_rows(conv.which, self.weight_grad_rows))
        taps = f"{blocks:,} taps of " if blocks > 1 else ""
        idle = Unused("PEs", rounds * self.pes, blocks * streams, f"a layer of {taps}{streams:,} {what}", rounds)
        return idle if idle.share else None

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        works, products, edge, barrier, imbalance, sums = [], 0, 0, 0, 0, 0
        for lines in self._lines(conv):
            own, filled = self._streams(lines)
            outputs = lines.repeats * lines.windows
            slowest = self._slowest(own)
            waited = int(slowest.repeat(self.pes)[: own.size].sum())
            edge += outputs * (int(slowest.sum()) * self.pes - waited) * self.lanes
            barrier += outputs * (waited - int(own.sum())) * self.lanes
            imbalance += outputs * (int(own.sum()) * self.lanes - filled)
            products += outputs * filled
            sums += outputs * int(own.sum())
            held = np.add.reduceat(own, range(0, own.size, self.pes))
            streams = np.minimum(self.pes, own.size - self.pes * np.arange(slowest.size))
            works.append(Work(lines, slowest[None], held[None], streams, slowest * outputs, {}, {}))
        slots = {"effectual": conv.effectual, "ineffectual": products - conv.effectual}
        slots |= {"edge": edge, "barrier": barrier, "imbalance": imbalance}
        accesses = {
            "multiplications": products,
            "activation_buffer_reads": products,
            "weight_buffer_reads": products,
            "accumulator_updates": sums,
        }
        jobs = np.concatenate([work.cycles for work in works])
        grid = Grid(tiles=self.pes, rows=1, columns=1, lanes=self.lanes, buffers=self.pes)
        return Activity(
            self.multipliers, jobs, slots, accesses,
            lambda: joined([lines_traffic(grid, work, work.lines.conv) for work in works]),
        )  # fmt: skip

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        groups, cycles = [], 0
        for lines in self._lines(conv):
            rows, columns = lines.rows()[..., 0], lines.columns()[..., 0]
            blocks, streams, _ = rows.shape
            products = np.zeros((blocks, streams, *columns.shape[:2]), np.result_type(rows, columns))
            steps: list[list[np.ndarray]] = []
            for block, stream in np.ndindex(blocks, streams):
                steps.append(list(self._steps(np.flatnonzero(rows[block, stream]))))
                for taken in steps[-1]:
                    products[block, stream] += columns[..., taken] @ rows[block, stream, taken]
            groups.append(lines.place(products))
            slowest = self._slowest(np.array(list(map(len, steps))))
            cycles += int(slowest.sum()) * lines.repeats * lines.windows
            if film is not None:
                self._shoot(film, columns.reshape(-1, columns.shape[2]) != 0, steps, slowest)
        return np.concatenate(groups, axis=1), cycles

    def _shoot(self, film: Film, windows: np.ndarray, steps: list[list[np.ndarray]], slowest: np.ndarray) -> None:
        """Films one group: each set of ``pes`` streams meets all windows, (windows, places), one after another."""
        for number, cycles in enumerate(slowest.tolist()):
            own = steps[number * self.pes : (number + 1) * self.pes]
            for window, filled in enumerate(windows):
                first = number * self.pes
                note = f"streams {first}–{first + len(own) - 1} of {len(steps)}, window {window}"
                shot = film.shoot(cycles, self.pes, self.lanes, cause="edge", note=note)
                shot[:, : len(own)] = film["barrier"]
                for pe, of_stream in enumerate(own):
                    shot[: len(of_stream), pe] = film["imbalance"]
                    for cycle, taken in enumerate(of_stream):
                        made = np.where(filled[taken], film["effectual"], film["ineffectual"])
                        shot[cycle, pe, : taken.size] = made

    def _lines(self, conv: Convolution) -> tuple[Lines, ...]:
        """Streams without padding: a compressed filter has no lines to fill."""
        return to_lines(conv, 1, on_rows(conv.which, self.weight_grad_rows))

    def _streams(self, lines: Lines) -> tuple[np.ndarray, int]:
        """Cycles of every stream, block after block, and non-zeros in all."""
        from accelsim.hardware.kernels.compressed import compressed_cycles

        own, filled = [], 0
        for block in lines.blocks():
            mask = nonzero(block[..., 0])
            own.append(compressed_cycles(mask, self.lanes, self.window))
            filled += int(np.count_nonzero(mask))
        return np.concatenate(own), filled

    def _slowest(self, own: np.ndarray) -> np.ndarray:
        """Cycles of each set of ``pes`` streams; taps of a weight gradient share sets, for all meet the same inputs."""
        return self.drained(np.maximum.reduceat(own, range(0, own.size, self.pes)))

    def _steps(self, places: np.ndarray) -> Iterator[np.ndarray]:
        """The places of a stream's non-zeros that each cycle takes; none where a gap is wider than the window."""
        at = 0
        while places.size:
            taken = places[: self.lanes]
            taken = taken[taken < at + self.window]
            at = int(taken[-1]) + 1 if taken.size == self.lanes else at + self.window
            places = places[taken.size :]
            yield taken
