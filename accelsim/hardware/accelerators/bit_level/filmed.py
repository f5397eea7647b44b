"""What the lanes of a bit-level machine do in each cycle: ``account`` has the same slots, as sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accelsim.hardware.accelerators.bit_level.hooks import Hooks
from accelsim.hardware.accelerators.bit_level.mapping import Mapping
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.lines import Lines


@dataclass(frozen=True)
class Step:
    """A step of a round at a visit: of each column in use the cycle that it begins in, and how many it takes."""

    visit: int
    round: int
    number: int
    starts: Sequence[int]
    cycles: Sequence[int]

    @property
    def end(self) -> int:
        """The cycle in which its last column has ended."""
        return max(start + cycles for start, cycles in zip(self.starts, self.cycles, strict=True))


@dataclass(frozen=True, eq=False)
class _Rows:
    """A set of rows: what is non-zero on them, (streams, places); the bits of each value; the place of each slot."""

    filled: np.ndarray
    bits: np.ndarray
    places: np.ndarray


def filmed(
    film: Film, machine: Hooks, mapping: Mapping, given: tuple[Lines, np.ndarray, np.ndarray], steps: list[Step]
) -> None:
    """Films one repeat of a group.

    ``given``: its lines and windows as they were before they became integers, and what the columns work on.
    """
    lines, before, seen = given
    grid = machine.tiles, machine.rows, machine.columns, machine.lanes
    note = f"windows: {mapping.lines.windows}, on {mapping.in_use} columns; sets of rows: {len(mapping.sets)}"
    shot = film.shoot(max((step.end for step in steps), default=0), *grid, cause="edge", note=note)
    shot[:, :, :, : mapping.in_use] = film["synchronisation"]
    is_dealt = machine.staggered_linear and mapping.is_linear
    if not is_dealt:
        for first, end in _last_visits(mapping, steps):
            shot[first:end, :, :, mapping.last_columns : mapping.in_use] = film["edge"]
    sets, windows = _row_sets(machine, mapping, lines), before.reshape(len(before), -1) != 0
    bits = machine._worked(mapping, seen, "columns").reshape(len(before), -1).astype(np.int64)
    slices = mapping.on_columns.slices
    for step in steps:
        for place in range(mapping.windows):
            window = 0 if is_dealt else step.visit * mapping.windows + place
            columns = range(place * slices, (place + 1) * slices)
            if window < len(windows) and any(step.cycles[column] for column in columns):
                of_window = windows[window], bits[window]
                _work(film, machine, mapping, shot, step, columns, sets, of_window)
    if machine._registers and not is_dealt:
        film.watch("steps that each column is ahead of the last", _ahead(len(shot), machine.columns, steps))


def _last_visits(mapping: Mapping, steps: list[Step]) -> list[tuple[int, int]]:
    """From when to when the last windows alone are worked on, which may leave columns without one."""
    before = max((step.end for step in steps if step.visit < mapping.visits - 1), default=0)
    return [(before, max((step.end for step in steps), default=0))]


def _row_sets(machine: Hooks, mapping: Mapping, lines: Lines) -> list[_Rows]:
    """What the rows hold, set after set."""
    given = [block[first : first + mapping.filters] for block in lines.blocks()
             for first in range(0, len(block), mapping.filters)]  # fmt: skip
    return [
        _Rows(
            before.reshape(len(own), -1) != 0,
            machine._worked(mapping, own, "rows").reshape(len(own), -1).astype(np.int64),
            places,
        )
        for before, own, places in zip(given, mapping.row_sets(), machine._multiplied(mapping), strict=True)
    ]


def _work(
    film: Film,
    machine: Hooks,
    mapping: Mapping,
    shot: np.ndarray,
    step: Step,
    columns: range,
    sets: list[_Rows],
    window: tuple[np.ndarray, np.ndarray],
) -> None:
    """What the columns of a window do while they are in a step, in every tile."""
    slices, begun = mapping.on_rows.slices, 0
    for column in columns:
        start, cycles = step.starts[column], step.cycles[column]
        for tile in range(machine.tiles):
            number = step.round * machine.tiles + tile
            slots = shot[start : start + cycles, tile, :, column]
            slots[:] = film["edge"]
            if number >= len(sets):
                continue
            rows = sets[number]
            used = slots[:, : len(rows.places) * slices].reshape(cycles, len(rows.places), slices, machine.lanes)
            if step.number >= rows.places.shape[1]:
                used[:] = film["barrier"]
            else:
                used[:] = _products(film, machine, rows, step.number, window, (begun, cycles, slices))
            slots[:, : len(rows.places) * slices] = used.reshape(cycles, -1, machine.lanes)
        begun += cycles


def _products(
    film: Film,
    machine: Hooks,
    rows: _Rows,
    step: int,
    window: tuple[np.ndarray, np.ndarray],
    extent: tuple[int, int, int],
) -> np.ndarray:
    """(cycles, streams, slices, lanes): a product's first slot, those of its other bits, and those that wait.

    ``extent``: cycles of the window's columns before this one, its own, and slices of a value on the rows.
    """
    begun, cycles, slices = extent
    source, stream = rows.places[:, step], np.arange(len(rows.places))[:, None]
    both = rows.filled[stream, source] & window[0][source]
    worked = rows.bits[stream, source] * window[1][source]
    turn = ((begun + np.arange(cycles))[:, None] * slices + np.arange(slices))[:, None, :, None]
    first = np.where(both, film["effectual"], film["ineffectual"])[:, None]
    others = np.where(turn < worked[:, None], film["serial"], film[machine._waits])
    return np.where((source < 0)[:, None], film[machine._empty_lane], np.where(turn == 0, first, others))


def _ahead(cycles: int, columns: int, steps: list[Step]) -> np.ndarray:
    """Steps that each column has ended in each cycle, beyond those of the last: (cycles, 1, 1, columns)."""
    ended = np.zeros((cycles + 1, columns), np.int64)
    for step in steps:
        for column, (start, took) in enumerate(zip(step.starts, step.cycles, strict=True)):
            if took:
                ended[start + took, column] += 1
    ended = np.cumsum(ended, axis=0)[:cycles]
    used = len(steps[0].starts) if steps else 0
    ahead = np.zeros((cycles, 1, 1, columns), np.int64)
    ahead[:, 0, 0, :used] = ended[:, :used] - ended[:, :used].min(axis=1, keepdims=True, initial=1 << 30)
    return ahead
