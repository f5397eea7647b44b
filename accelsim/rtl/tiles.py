"""Jobs of tiled machines: which streams stand on the rows and columns of a tile, and what comes out of its PEs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice

import numpy as np

from accelsim.hardware.accelerators.tiled import TiledParameters
from accelsim.hardware.lines import Lines
from accelsim.rtl.circuit import SUM_BITS
from accelsim.rtl.job import Job, marks
from accelsim.workload.lowering import Convolution


def pe_parameters(accelerator: TiledParameters, bits: int, drain: int) -> dict[str, int | str]:
    """Parameters that all tiles have: how many PEs, what one is, and registers before its partial sum."""
    return {
        "ROWS": accelerator.rows, "COLUMNS": accelerator.columns, "LANES": accelerator.lanes, "WIDTH": bits,
        "SUM": 2 * bits + SUM_BITS, "DRAIN": drain,
    }  # fmt: skip


class TileJobs(ABC):
    """A job is a set of ``rows`` streams that meets a group of ``columns`` streams, on one tile."""

    def __init__(self, accelerator: TiledParameters, bits: int):
        self.tiled, self.bits = accelerator, bits

    @property
    def strided_input_grad(self) -> str:
        """As the machine has it."""
        return self.tiled.strided_input_grad

    def lacks(self, which: str) -> str:
        """Nothing: a tile does all passes."""
        return ""

    def count(self, conv: Convolution) -> int:
        """Jobs of a convolution, of all its groups."""
        return sum(int(np.prod(self._sizes(lines))) for lines in self.tiled.lines(conv))

    @abstractmethod
    def job(self, where: str, rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> Job:
        """Of streams (streams, T, lanes), as many as the tile has places for or fewer."""

    def jobs(self, conv: Convolution, chosen: np.ndarray, rng: np.random.Generator) -> Iterator[Job]:
        """Those with these numbers; see ``Twin``."""
        for where, rows, columns in self._streams(conv, chosen):
            yield self.job(where, rows, columns, rng)

    def _sizes(self, lines: Lines) -> tuple[int, int, int, int]:
        """Blocks, sets in a block, repeats, groups of columns in a repeat."""
        blocks, streams, _ = lines.shape
        return blocks, -(-streams // self.tiled.rows), lines.repeats, -(-lines.windows // self.tiled.columns)

    def _streams(self, conv: Convolution, chosen: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Of each job where it is, and its rows and columns, (streams, T, lanes); the last ones may be fewer."""
        first = 0
        for group, lines in enumerate(self.tiled.lines(conv)):
            sizes = self._sizes(lines)
            own = chosen[(chosen >= first) & (chosen < first + np.prod(sizes))] - first
            first += int(np.prod(sizes))
            if own.size:
                yield from self._of_group(f"group {group}, " if conv.groups > 1 else "", lines, sizes, own)

    def _of_group(
        self, where: str, lines: Lines, sizes: tuple[int, int, int, int], own: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        at = np.stack(np.unravel_index(own, sizes), axis=1)
        columns = _kept(lines.column_blocks(), at[:, 2:], self.tiled.columns)
        rows = _kept(lines.blocks(), at[:, :2], self.tiled.rows)
        for block, of_block, repeat, visit in at.tolist():
            text = f"{where}block {block}, set {of_block}, repeat {repeat}, columns {visit}"
            yield text, rows[block, of_block], columns[repeat, visit]

    def filled(self, streams: np.ndarray, number: int) -> np.ndarray:
        """As many streams as a tile has places for; zeros where there is none."""
        return np.concatenate([streams, np.zeros((number - len(streams), *streams.shape[1:]), streams.dtype)])


def _kept(blocks: Iterator[np.ndarray], wanted: np.ndarray, size: int) -> dict[tuple[int, int], np.ndarray]:
    """Copies of the sets (block, number in it) that are wanted, of ``size`` streams each."""
    kept: dict[tuple[int, int], np.ndarray] = {}
    for number, block in enumerate(islice(blocks, int(wanted[:, 0].max()) + 1)):
        for of_block in np.unique(wanted[wanted[:, 0] == number, 1]).tolist():
            kept[number, of_block] = block[of_block * size : (of_block + 1) * size].copy()
    return kept


def summed(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The PEs of a tile, row by row, and the product of the streams that each of them has."""
    flat = [streams.reshape(len(streams), -1).astype(np.int64) for streams in (rows, columns)]
    sums = flat[0] @ flat[1].T
    return np.arange(sums.size, dtype=np.int32), sums.ravel()


def shown(rows: np.ndarray, columns: np.ndarray) -> str:
    """Masks of a job."""
    return f"rows:\n{marks(rows)}\ncolumns:\n{marks(columns)}"
