"""What tiled machines move. A job is one round of tiles on one band: some windows of a sample, or some streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from accelsim.hardware.lines import FilterLines, Lines
from accelsim.hardware.traffic import Operand, Traffic, joined, measured

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
    slowest : ndarray of int64, (rounds,)
        Lines executed for each window, by the slowest tile of a round.
    streams, row_lines : ndarray of int64, (rounds,)
        Rows in use, and lines that they execute, over the tiles of a round.
    cycles : ndarray of int64, (rounds,)
    slots, accesses : mapping of str to int
        As in ``Activity``; "ineffectual" holds all products.
    """

    lines: Lines
    slowest: np.ndarray
    streams: np.ndarray
    row_lines: np.ndarray
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
    height = source.stored.shape[2] if isinstance(lines, FilterLines) else visits
    # A stride phase may see nothing but padding.
    bands = max(n for n in (1, 2, 4, 8, BANDS) if n <= max(1, min(visits, height)))
    cuts = visits * np.arange(bands + 1) // bands
    windows = np.diff(np.minimum(cuts * machine.columns, lines.windows))
    shape = (work.slowest.size, lines.repeats, bands)

    def per_job(of_round, of_band):
        return np.broadcast_to(of_round[:, None, None] * of_band, shape).ravel()

    rows = _rows(machine, lines, source, shape, per_job(work.row_lines * machine.lanes, np.diff(cuts)))
    depth = np.full(shape[0], lines.shape[2] * machine.lanes)
    columns = _columns(machine, lines, source, shape, per_job(depth, windows))
    cycles = per_job(work.slowest, np.diff(cuts))
    return Traffic(cycles, (columns, rows), per_job(work.streams, windows), np.zeros(cycles.size, np.int64))


def _rows(machine, lines, source, shape, streamed) -> Operand:
    """What rows hold, a round of tiles at a time; tile by tile in buffers of its own.

    In the weight gradient with activations on the rows each tap takes the same channels again. Where a round begins
    inside a tap's sets it counts for the part in which it begins.
    """
    tensor, values = lines.row_values(source)
    sets = -(-len(values) // machine.rows)
    streams = min(machine.tiles, sets) * machine.rows
    part = np.arange(shape[0]) * machine.tiles % sets // machine.tiles
    blocks = (values[k : k + streams].reshape(1, -1) for k in range(0, len(values), streams))
    part = np.broadcast_to(part[:, None, None], shape).ravel()
    return measured(tensor, "weight", blocks, part, units=min(machine.tiles, sets), streamed=streamed)


def _columns(machine, lines, source, shape, streamed) -> Operand:
    """What columns walk, a band at a time; every tile's buffer gets all of it."""
    bands, repeats = shape[2], shape[1]
    tensor, values, axis = lines.column_values(source)
    size = values.shape[axis]
    cuts = size * np.arange(bands + 1) // bands
    parts = (values.take(range(a, b), axis) for a, b in pairwise(cuts))
    if axis:  # samples × channels × height: each sample has bands of its own
        blocks = [block.reshape(len(values), -1) for block in parts]
        # Parts are numbered band by band, sample by sample within.
        part = np.arange(bands) * repeats + np.arange(repeats)[:, None]
    else:
        blocks = [block.reshape(1, -1) for block in parts]
        part = np.broadcast_to(np.arange(bands), (repeats, bands))
    part = np.broadcast_to(part, shape).ravel()
    return measured(tensor, "activation", blocks, part, copies=machine.tiles, streamed=streamed)
