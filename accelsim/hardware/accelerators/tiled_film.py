"""What the multipliers of a tiled machine do in each cycle: sets of rows round after round, each for all columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np

from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.lines import Lines

WAITS, TAKEN = 1, 2  # of a value in a window


@dataclass(frozen=True, eq=False)
class Pick:
    """What a tile executes for its set of rows and columns.

    Parameters
    ----------
    lines : ndarray of int64, (cycles,)
        The first line in sight in each cycle.
    sources : ndarray of int64, (rows, columns or 1, cycles, lanes)
        The place of the pair that each slot executes, below 0 none; of one column where all have the same.
    """

    lines: np.ndarray
    sources: np.ndarray


class _Tiled(Protocol):
    """What is asked of the machine."""

    @property
    def tiles(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def lanes(self) -> int: ...
    @property
    def _lines_in_sight(self) -> int: ...
    def drained(self, cycles: np.ndarray) -> np.ndarray: ...
    def _schedule(self, lines: Lines) -> tuple[np.ndarray, int, str]: ...


def shoot(film: Film, machine: _Tiled, lines: Lines, picked: Callable[[int, int, int], Pick]) -> None:
    """Films one group of a convolution; ``picked`` tells of a set, a repeat and its first window what is executed."""
    rows, columns, idle = lines.rows() != 0, lines.columns() != 0, machine._schedule(lines)[2]
    blocks, streams = rows.shape[:2]
    per_block = -(-streams // machine.rows)
    of_run = blocks * per_block // lines.runs
    for run, start in product(range(lines.runs), range(0, of_run, machine.tiles)):
        numbers = range(run * of_run + start, run * of_run + min(start + machine.tiles, of_run))
        for repeat, first in product(range(lines.repeats), range(0, lines.windows, machine.columns)):
            visit = columns[repeat, first : first + machine.columns].reshape(-1, rows[0, 0].size)
            picks = [picked(number, repeat, first) for number in numbers]
            cycles = int(machine.drained(np.array(max(pick.lines.size for pick in picks))))
            note = f"sets of rows {numbers[0]}–{numbers[-1]}, streams on the columns {first}–{first + len(visit) - 1}"
            note += f" of {lines.windows}" + (f", sample {repeat}" if lines.repeats > 1 else "")
            grid = machine.tiles, machine.rows, machine.columns, machine.lanes
            shot = film.shoot(cycles, *grid, cause="edge", note=note)
            seen = np.zeros((cycles, machine.tiles * machine.rows, machine._lines_in_sight, lines.lanes), np.uint8)
            for tile, (number, pick) in enumerate(zip(numbers, picks, strict=True)):
                block, stream = divmod(number, per_block)
                own = rows[block, stream * machine.rows : (stream + 1) * machine.rows]
                shot[:, tile, :, : len(visit)] = film["barrier"]
                shot[: pick.lines.size, tile, :, : len(visit)] = film["edge"]
                slots = shot[: pick.lines.size, tile, : len(own), : len(visit)]
                slots[:] = _executed(film, own.reshape(len(own), -1), visit, pick.sources, idle)
                at = tile * machine.rows
                seen[: pick.lines.size, at : at + len(own)] = _in_sight(own, pick, machine._lines_in_sight)
            if ahead := machine._lines_in_sight:
                by_tile = seen.reshape(cycles, machine.tiles, machine.rows * ahead, lines.lanes)
                film.watch(f"windows of {ahead} lines, one for each row of the tile", by_tile, "window", ahead)


def _executed(film: Film, own: np.ndarray, visit: np.ndarray, sources: np.ndarray, idle: str) -> np.ndarray:
    """(cycles, rows, columns, lanes): products of two non-zeros, other products, and lanes without one."""
    row, column = np.ogrid[: len(own), : len(visit)]
    both = own[row[..., None, None], sources] & visit[column[..., None, None], sources]
    slots = np.where(sources < 0, film[idle], np.where(both, film["effectual"], film["ineffectual"]))
    return slots.transpose(2, 0, 1, 3)


def _in_sight(own: np.ndarray, pick: Pick, ahead: int) -> np.ndarray:
    """What is left in the lines that the scheduler of each row sees, (cycles, rows, ahead, lanes), for one column."""
    streams, _, lanes = own.shape
    left = np.pad(own, ((0, 0), (0, ahead), (0, 0)))
    seen = np.zeros((pick.lines.size, streams, ahead, lanes), np.uint8)
    for cycle, line in enumerate(pick.lines.tolist()):
        sight = left[:, line : line + ahead]
        seen[cycle] = sight * WAITS
        for stream, source in enumerate(pick.sources[:, 0, cycle]):
            at, lane = np.divmod(source[source >= 0], lanes)
            inside = at - line < ahead
            left[stream, at, lane] = False
            seen[cycle, stream, (at - line)[inside], lane[inside]] = TAKEN
    return seen
