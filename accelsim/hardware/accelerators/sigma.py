"""SIGMA: multipliers that hold non-zeros of one operand in any shape, a flexible network to them and adders behind.

Qin et al., "SIGMA: A Sparse and Irregular GEMM Accelerator with Flexible Interconnects for DNN Training", HPCA 2020.
The stationary operand is compressed and cut along the reduction; non-zeros of a cut fill the multipliers whatever rows
they are of, and the other operand streams by, a column a cycle. docs/model.md.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import (
    STRIDED_INPUT_GRAD,
    AcceleratorParameters,
    Activity,
    Summation,
)
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.tiled_traffic import moved_once
from accelsim.hardware.lines import Lines, on_rows, tensor_on, to_lines
from accelsim.hardware.parameters import integer, option
from accelsim.hardware.strips import nonzero, strips
from accelsim.workload.lowering import Convolution


class Sigma(AcceleratorParameters):
    """Skips zeros of the operand that the multipliers hold: weights, and in the weight gradient activations."""

    model: Literal["sigma"]
    multipliers: int = integer(1, 1 << 20, "multipliers, over all dot-product engines")
    reduction_cut: int = integer(1, 1 << 20, "elements of the reduction whose non-zeros are held at a time")
    load_width: int = integer(1, 1 << 20, "values loaded into the multipliers per cycle", unit="values/cycle")
    strided_input_grad: Literal["phase", "dilate"] = option(STRIDED_INPUT_GRAD)
    weight_grad_rows: Literal["activation", "gradient"] = option(
        "operand of the weight gradient that the multipliers hold; the other streams"
    )

    @property
    def summation(self) -> Summation:
        """A tree of adders that sums whatever stands beside each other, and a register; see ``Accelerator``."""
        return Summation(additions="multiplications", partial_sums=1)

    def skips(self, which: str) -> dict[str, str]:
        """What the multipliers hold; see ``Accelerator``."""
        return {tensor_on(which, on_rows(which, self.weight_grad_rows)): "zeros"}

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        groups, jobs = self._lines(conv), []
        slots: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for lines in groups:
            for block in lines.blocks():
                held, loads, sums, lengths = self._cuts(nonzero(block[..., 0]))
                chunks = -(-held // self.multipliers)
                jobs.append(chunks * lines.partners + loads)
                slots["imbalance"] += int((chunks * self.multipliers - held).sum()) * lines.partners
                slots["load"] += int(loads.sum()) * self.multipliers
                counts["multiplications"] += int(held.sum()) * lines.partners
                counts["weight_buffer_reads"] += int(held.sum())
                counts["activation_buffer_reads"] += int((chunks * lengths).sum()) * lines.partners
                counts["accumulator_updates"] += int(sums.sum()) * lines.partners
        slots["effectual"] = conv.effectual
        slots["ineffectual"] = counts["multiplications"] - conv.effectual
        cycles = np.concatenate(jobs)
        return Activity(
            self.multipliers, cycles, slots, counts, lambda: moved_once(groups, int(cycles.sum()))
        )  # fmt: skip

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        results, cycles = [], 0
        for lines in self._lines(conv):
            rows, columns = lines.rows()[..., 0], lines.columns()[..., 0]
            products = np.zeros((*rows.shape[:2], *columns.shape[:2]), np.result_type(rows, columns))
            for number, block in enumerate(rows):
                for first in range(0, block.shape[1], self.reduction_cut):
                    places = np.argwhere(block[:, first : first + self.reduction_cut])
                    for chunk in range(0, len(places), self.multipliers):
                        held = places[chunk : chunk + self.multipliers]
                        for stream, element in held + np.array([0, first]):
                            products[number, stream] += block[stream, element] * columns[..., element]
                        cycles += lines.partners - (-len(held) // self.load_width)
                        if film is not None:
                            self._shoot(film, columns[..., first + held[:, 1]].reshape(-1, len(held)) != 0)
            results.append(lines.place(products))
        return np.concatenate(results, axis=1), cycles

    def _shoot(self, film: Film, columns: np.ndarray) -> None:
        """Films one chunk: it is loaded, then what streams by, (columns, held), meets it."""
        held = columns.shape[1]
        film.shoot(-(-held // self.load_width), self.multipliers, cause="load", note=f"{held} non-zeros are loaded")
        note = f"{len(columns)} columns stream by {held} non-zeros"
        shot = film.shoot(len(columns), self.multipliers, cause="imbalance", note=note)
        shot[:, :held] = np.where(columns, film["effectual"], film["ineffectual"])

    def _lines(self, conv: Convolution) -> tuple[Lines, ...]:
        return to_lines(conv, 1, on_rows(conv.which, self.weight_grad_rows))

    def _cuts(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each cut of (streams, elements): non-zeros, cycles of loading them, partial sums a column, elements.

        Non-zeros stand stream by stream; a stream has a partial sum in each chunk that holds some of its.
        """
        firsts = np.arange(0, mask.shape[1], self.reduction_cut)
        of_streams = np.concatenate([np.add.reduceat(some, firsts, axis=1, dtype=np.int64) for some in strips(mask)])
        ends = np.cumsum(of_streams, axis=0)
        last, first = (ends - 1) // self.multipliers, (ends - of_streams) // self.multipliers
        sums = np.where(of_streams > 0, last - first + 1, 0).sum(axis=0)
        held = ends[-1]
        whole, rest = np.divmod(held, self.multipliers)
        loads = whole * -(-self.multipliers // self.load_width) - (-rest // self.load_width)
        return held, loads, sums, np.diff(np.append(firsts, mask.shape[1]))
