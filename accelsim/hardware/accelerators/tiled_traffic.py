"""What tiled machines move. A job is one round of tiles on one band: some windows of a sample, or some streams."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from accelsim.hardware.lines import Lines
from accelsim.hardware.movement.traffic import Parts, Traffic, joined, measured
from accelsim.workload.lowering import Convolution

# Cuts of what is on the columns: fine enough for a fetch to hide behind compute, coarse enough to be simulated quickly.
BANDS = 16


@dataclass(frozen=True, eq=False)
class Work:
    """What a tiled machine does for one group of a convolution.

    Parameters
    ----------
    lines : Lines
    slowest : ndarray of int64, (schedules, rounds)
        Lines executed by the slowest tile of a round: one schedule for all visits of columns, or one for each.
    row_lines : ndarray of int64, (schedules, rounds)
        Lines read from where the rows' streams are stored, times the rows that do, over the tiles of a round.
    streams : ndarray of int64, (rounds,)
        Rows in use over the tiles of a round.
    cycles : ndarray of int64
    slots, accesses : mapping of str to int
        As in ``Activity``; "ineffectual" holds all products.
    """

    lines: Lines
    slowest: np.ndarray
    row_lines: np.ndarray
    streams: np.ndarray
    cycles: np.ndarray
    slots: dict[str, int]
    accesses: dict[str, int]


@dataclass(frozen=True)
class Grid:
    """A machine as its traffic sees it: sets of ``rows`` streams, ``tiles`` at a time, on ``columns`` windows.

    ``buffers`` counts those of what is on the rows; each buffer of what is on the columns has all of it.
    """

    tiles: int
    rows: int
    columns: int
    lanes: int
    buffers: int


def lines_traffic(grid: Grid, work: Work, source: Convolution) -> Traffic:
    """What one group of a convolution moves; ``source`` holds its values as memory does."""
    lines = work.lines
    visits = -(-lines.windows // grid.columns)
    bands = max(n for n in (1, 2, 4, 8, BANDS) if n <= visits)
    cuts = visits * np.arange(bands + 1) // bands
    ends = np.minimum(cuts * grid.columns, lines.windows)
    windows, visits_of = np.diff(ends), np.diff(cuts)
    rounds = work.streams.size
    shape = (rounds, lines.repeats, bands)

    def summed(counts: np.ndarray) -> np.ndarray:
        """(schedules, rounds), for each visit → (jobs,)."""
        if len(counts) == 1:
            return np.broadcast_to(counts[0][:, None, None] * visits_of, shape).ravel()
        by_visit = counts.T.reshape(rounds, lines.repeats, visits)
        return np.asarray(np.add.reduceat(by_visit, cuts[:-1], axis=2)).ravel()

    def per_job(of_round: np.ndarray, of_band: np.ndarray) -> np.ndarray:
        return np.broadcast_to(of_round[:, None, None] * of_band, shape).ravel()

    sets = -(-lines.shape[1] // grid.rows)
    parts = -(-sets // grid.tiles)
    run, at = np.divmod(np.arange(rounds), rounds // lines.runs)
    # In the weight gradient with activations on the rows each tap takes the same channels again; a round that begins
    # inside a tap's sets counts for the part in which it begins.
    row_part = run * parts + at * grid.tiles % sets // grid.tiles
    row_ends = np.minimum(np.arange(parts + 1) * grid.tiles * grid.rows, lines.shape[1])
    row_tensor, row_values, row_read = _counted(lines, "row_parts", source, row_ends, lines.shape[1])
    column_tensor, column_values, column_read = _counted(lines, "column_parts", source, ends, lines.windows)
    # Repeats walk samples, with columns of their own, or taps, which take the same columns again.
    of_repeat = np.arange(lines.repeats) * bands if column_read.size == lines.repeats * bands else 0
    column_part = np.arange(bands) + np.broadcast_to(of_repeat, lines.repeats)[:, None]
    depth = np.full(rounds, lines.shape[2] * lines.lanes)
    rows = measured(
        row_tensor, "weight", row_values, np.broadcast_to(row_read[row_part][:, None, None], shape).ravel(),
        units=min(grid.buffers, sets), streamed=summed(work.row_lines) * grid.lanes,
    )  # fmt: skip
    columns = measured(
        column_tensor, "activation", column_values, np.broadcast_to(column_read[column_part], shape).ravel(),
        copies=grid.buffers, streamed=per_job(depth, windows),
    )  # fmt: skip
    cycles = summed(work.slowest)
    of_samples = {"columns": np.arange(lines.repeats)[:, None], "rows": run[:, None, None]}.get(lines.samples_on)
    sample = None if of_samples is None else np.broadcast_to(of_samples, shape).ravel()
    nothing = np.zeros(cycles.size, np.int64)
    results = per_job(work.streams, windows)
    return Traffic(cycles, (columns, rows), results, nothing, sample=sample, sums_leave=sample is None)


def _counted(
    lines: Lines, side: str, source: Convolution, ends: np.ndarray, total: int
) -> tuple[str, Parts, np.ndarray]:
    """The tensor of a side, cut; and of each cut the part that it reads. Machines that cut alike share them."""

    def count() -> tuple[str, Parts, np.ndarray]:
        tensor, cut = getattr(lines, side)(source, ends, total)
        values, read = _with_values(cut)
        return tensor, Parts.of(values), read

    return source.once(("parts", type(lines), side, total, *ends.tolist()), count)


def _with_values(cut: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """The parts that hold values, and for each cut the part it reads: its own, or where it brings nothing new that with
    the last values before it. Only where none holds any is the first part an empty one."""
    new = np.array([part.size > 0 for part in cut])
    new[0] = True
    return [part for part, is_new in zip(cut, new, strict=True) if is_new], np.cumsum(new) - 1


def stretched(traffic: Traffic, cycles: int) -> Traffic:
    """The same jobs in so many cycles altogether, each in proportion; all in the last where none takes any."""
    done = np.cumsum(traffic.job_cycles)
    ends = cycles * done // max(1, int(done[-1]))
    ends[-1] = cycles
    return replace(traffic, job_cycles=np.diff(ends, prepend=0))


def moved_once(groups: Iterable[Lines], cycles: int) -> Traffic:
    """Both operands move once, and the result: in bands of what is on the rows, the other with the first of them."""
    moved = []
    for lines in groups:
        grid = Grid(tiles=1, rows=-(-lines.shape[1] // BANDS), columns=lines.windows, lanes=1, buffers=1)
        sets = -(-lines.shape[1] // grid.rows) * lines.shape[0]
        streams = np.minimum(grid.rows, lines.shape[1] - grid.rows * (np.arange(sets) % (sets // lines.shape[0])))
        nothing = np.zeros((1, sets), np.int64)
        moved.append(lines_traffic(grid, Work(lines, nothing, nothing, streams, nothing[0], {}, {}), lines.conv))
    traffic = joined(moved)
    jobs = traffic.job_cycles.size
    sample = np.zeros(jobs, np.int64) if traffic.sample is None else traffic.sample
    once = tuple(replace(o, streamed=None, part=_firsts(o.part, sample)) for o in traffic.operands)
    return replace(traffic, operands=once, job_cycles=np.diff(cycles * np.arange(jobs + 1) // jobs))


def _firsts(part: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """The part of each job that no job before has read for its sample; −1 for the others."""
    once = np.full_like(part, -1)
    first = np.unique(np.stack([sample, part]), axis=1, return_index=True)[1]
    once[first] = part[first]
    return once
