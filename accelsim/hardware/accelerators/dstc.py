"""DSTC, the dual-side sparse tensor core: outer products of condensed columns and rows, tile by tile.

Wang et al., "Dual-side Sparse Tensor Core", ISCA 2021. For each element of the reduction the non-zeros of a tile's
column of the first matrix meet those of the second's row, a few of each at a time, and are merged into the tile's
partial sums. docs/model.md.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import STRIDED_INPUT_GRAD, AcceleratorParameters, Activity, Summation
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.tiled_traffic import moved_once
from accelsim.hardware.lines import Lines, to_lines
from accelsim.hardware.parameters import integer, option
from accelsim.hardware.strips import nonzero, strips
from accelsim.workload.lowering import READS, Convolution


class DSTC(AcceleratorParameters):
    """The input (windows; in the weight gradient channels) is the first matrix, the kernel the second."""

    model: Literal["dstc"]
    tile_rows: int = integer(1, 1 << 16, "rows of the first matrix in a tile of the output")
    tile_columns: int = integer(1, 1 << 16, "columns of the second matrix in a tile of the output")
    step_rows: int = integer(1, 4096, "non-zeros of the first matrix's column multiplied at once")
    step_columns: int = integer(1, 4096, "non-zeros of the second matrix's row multiplied at once")
    strided_input_grad: Literal["phase", "dilate"] = option(STRIDED_INPUT_GRAD)

    @property
    def multipliers(self) -> int:
        return self.step_rows * self.step_columns

    @property
    def summation(self) -> Summation:
        """Each product is added to its partial sum of the tile; see ``Accelerator``."""
        return Summation(additions="accumulator_updates", partial_sums=self.tile_rows * self.tile_columns)

    def skips(self, which: str) -> dict[str, str]:
        """Both operands; see ``Accelerator``."""
        return dict.fromkeys(READS[which], "zeros")

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        groups = to_lines(conv, 1, "input")
        jobs = np.concatenate([self._tiles(lines) for lines in groups])
        cycles, products = int(jobs.sum()), conv.effectual
        slots = {"effectual": products, "ineffectual": 0, "imbalance": cycles * self.multipliers - products}
        accesses = {
            "multiplications": products,
            "activation_buffer_reads": cycles * self.step_rows,
            "weight_buffer_reads": cycles * self.step_columns,
            "accumulator_updates": products,
        }
        return Activity(self.multipliers, jobs, slots, accesses, lambda: moved_once(groups, cycles))

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        results, cycles = [], 0
        for lines in to_lines(conv, 1, "input"):
            first, second = lines.rows()[..., 0], lines.columns()[..., 0]
            products = np.zeros((*first.shape[:2], *second.shape[:2]), np.result_type(first, second))
            for b, repeat, k in np.ndindex(len(first), len(second), first.shape[2]):
                for i in range(0, first.shape[1], self.tile_rows):
                    rows = i + np.flatnonzero(first[b, i : i + self.tile_rows, k])
                    for j in range(0, second.shape[1], self.tile_columns):
                        columns = j + np.flatnonzero(second[repeat, j : j + self.tile_columns, k])
                        for r in range(0, rows.size, self.step_rows):
                            for c in range(0, columns.size, self.step_columns):
                                of_rows, of_columns = rows[r : r + self.step_rows], columns[c : c + self.step_columns]
                                outer = np.outer(first[b, of_rows, k], second[repeat, of_columns, k])
                                products[b, of_rows[:, None], repeat, of_columns] += outer
                                cycles += 1
                                if film is not None:
                                    note = f"tile at row {i} and column {j}, element {k} of the reduction"
                                    shot = film.shoot(
                                        1, self.step_rows, self.step_columns, cause="imbalance", note=note
                                    )
                                    shot[0, : of_rows.size, : of_columns.size] = film["effectual"]
            results.append(lines.place(products))
        return np.concatenate(results, axis=1), cycles

    def _tiles(self, lines: Lines) -> np.ndarray:
        """Cycles of each row of tiles, block after block: Σ over the reduction of steps of rows × steps of columns."""
        columns = sum(
            _steps(nonzero(block[..., 0]), self.tile_columns, self.step_columns).sum(axis=0)
            for block in lines.column_strips(self.tile_columns)
        )
        rows = lines.row_strips(self.tile_rows)
        return np.concatenate(
            [_steps(nonzero(strip[..., 0]), self.tile_rows, self.step_rows) @ columns for strip in rows]
        )


def _steps(mask: np.ndarray, tile: int, step: int) -> np.ndarray:
    """(streams, elements) → (tiles, elements): how many steps the non-zeros of a tile take."""
    counts = [
        np.add.reduceat(some, np.arange(0, len(some), tile), axis=0, dtype=np.int64) for some in strips(mask, tile)
    ]
    return -(-np.concatenate(counts) // step)
