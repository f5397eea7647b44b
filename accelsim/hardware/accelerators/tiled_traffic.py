"""What tiled machines move. A job is one round of tiles on one band: some windows of a sample, or some streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accelsim.hardware.lines import Lines
from accelsim.hardware.traffic import Traffic, joined, measured

if TYPE_CHECKING:
    from accelsim.hardware.accelerators.tiled import TiledParameters
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
        Lines executed, times the rows that do, over the tiles of a round.
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
    slots: Mapping[str, int]
    accesses: Mapping[str, int]


def tiled_traffic(machine: TiledParameters, conv: Convolution, works: list[Work]) -> Traffic:
    """What a convolution moves; ``works`` are its groups."""
    return joined([_of_group(machine, conv, work) for work in works])


def _of_group(machine: TiledParameters, conv: Convolution, work: Work) -> Traffic:
    lines = work.lines
    # Folding space into depth moves no other values; where it is done there is one group.
    source = conv if conv.groups == 1 else lines.conv
    visits = -(-lines.windows // machine.columns)
    bands = max(n for n in (1, 2, 4, 8, BANDS) if n <= visits)
    cuts = visits * np.arange(bands + 1) // bands
    ends = np.minimum(cuts * machine.columns, lines.windows)
    windows, visits_of = np.diff(ends), np.diff(cuts)
    rounds = work.streams.size
    shape = (rounds, lines.repeats, bands)

    def summed(counts):
        """(schedules, rounds), for each visit → (jobs,)."""
        if len(counts) == 1:
            return np.broadcast_to(counts[0][:, None, None] * visits_of, shape).ravel()
        by_visit = counts.T.reshape(rounds, lines.repeats, visits)
        return np.add.reduceat(by_visit, cuts[:-1], axis=2).ravel()

    def per_job(of_round, of_band):
        return np.broadcast_to(of_round[:, None, None] * of_band, shape).ravel()

    sets = -(-lines.shape[1] // machine.rows)
    parts = -(-sets // machine.tiles)
    run, at = np.divmod(np.arange(rounds), rounds // lines.runs)
    # In the weight gradient with activations on the rows each tap takes the same channels again; a round that begins
    # inside a tap's sets counts for the part in which it begins.
    row_part = run * parts + at * machine.tiles % sets // machine.tiles
    row_ends = np.minimum(np.arange(parts + 1) * machine.tiles * machine.rows, lines.shape[1])
    row_tensor, row_values = lines.row_parts(source, row_ends, lines.shape[1])
    column_tensor, column_values = lines.column_parts(source, ends, lines.windows)
    # Repeats walk samples, with columns of their own, or taps, which take the same columns again.
    of_repeat = np.arange(lines.repeats) * bands if len(column_values) == lines.repeats * bands else 0
    column_part = np.arange(bands) + np.broadcast_to(of_repeat, lines.repeats)[:, None]
    depth = np.full(rounds, lines.shape[2] * machine.lanes)
    rows = measured(
        row_tensor, "weight", row_values, np.broadcast_to(row_part[:, None, None], shape).ravel(),
        units=min(machine.tiles, sets), streamed=summed(work.row_lines) * machine.lanes,
    )  # fmt: skip
    columns = measured(
        column_tensor, "activation", column_values, np.broadcast_to(column_part, shape).ravel(),
        copies=machine.tiles, streamed=per_job(depth, windows),
    )  # fmt: skip
    cycles = summed(work.slowest)
    return Traffic(cycles, (columns, rows), per_job(work.streams, windows), np.zeros(cycles.size, np.int64))
