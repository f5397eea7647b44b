"""The time that a bit-level machine takes for one group of a convolution, and the cause of every slot."""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.bit_level.hooks import Hooks
from accelsim.hardware.accelerators.bit_level.mapping import Mapping
from accelsim.hardware.accelerators.tiled_traffic import Work


def accounted(machine: Hooks, mapping: Mapping) -> Work:
    """Cycles of each round of tiles, slots by cause ("ineffectual" holds all products), and what is read.

    A slot is lost, from the outside in: to a column without a window; to a column that waits for others; to a tile
    without a set or a row without a stream; to a tile that has no such step; to a lane without a value. What is left is
    products: each takes a slot, those of two non-zeros further ones for their other bits, and the rest of the column's
    cycles waits for wider values.
    """
    lines, steps, rows = mapping.lines, machine._steps(mapping), machine._seen(mapping)
    is_dealt = machine.staggered_linear and mapping.is_linear
    times, busy = [], np.zeros(steps.filled.shape, np.int64)
    own = np.zeros((2, lines.shape[2], mapping.lanes), np.int64)
    for windows in lines.column_blocks():
        windows = machine._as_seen(mapping, windows)
        costs = machine._costs(mapping, rows, windows)
        times.append(_timed(mapping, steps.count, costs, machine._registers, is_dealt))
        busy += _busy(mapping, steps.count, costs, is_dealt)
        own += _own(machine, mapping, windows, "columns")
    taken = np.concatenate(times)
    slots = _lost(mapping, taken, busy, is_dealt)
    tile_rows = mapping.on_rows.slices * mapping.lanes
    sets = mapping.by_round(mapping.sets)
    lines_of = mapping.by_round(steps.lines).reshape(len(sets), -1, 1)
    has_step = lines_of > np.arange(steps.filled.shape[1])
    in_rows, working = sets.sum(axis=1, keepdims=True), (sets.reshape(lines_of.shape) * has_step).sum(axis=1)
    filled = steps.filled * mapping.on_rows.slices
    slots["edge"] += int((busy * (mapping.tiles * mapping.rows * mapping.lanes - in_rows * tile_rows)).sum())
    slots["barrier"] = int((busy * (in_rows - working)).sum()) * tile_rows
    slots[machine._empty_lane] = slots.get(machine._empty_lane, 0) + int((busy * (working * tile_rows - filled)).sum())
    products, in_products = machine._products(mapping, steps), int((busy * filled).sum())
    worked, nonzero = (
        int(n) for n in sum((own * _own(machine, mapping, b, "rows")).sum(axis=(1, 2)) for b in lines.blocks())
    )
    slots |= {"ineffectual": products, "serial": worked - nonzero}
    slots[machine._waits] = slots.get(machine._waits, 0) + in_products - products - (worked - nonzero)
    return _work(machine, mapping, taken, steps.lines, slots, in_products)


def _own(machine: Hooks, mapping: Mapping, values: np.ndarray, side: Literal["columns", "rows"]) -> np.ndarray:
    """Bits that the values at each place are worked off in, and values that need any: (2, T, lanes)."""
    worked = machine._worked(mapping, values, side)
    return np.stack([worked.sum(axis=0, dtype=np.int64), np.count_nonzero(worked, axis=0)])


def _timed(mapping: Mapping, count: np.ndarray, costs: np.ndarray, registers: int, is_dealt: bool) -> np.ndarray:
    """Cycles of each visit and round of a repeat, (visits, rounds)."""
    from accelsim.hardware.kernels.bit_level import in_step, in_turn

    rounds = count.size
    if is_dealt:
        dearest = np.broadcast_to(costs[0].max(axis=2), (rounds, costs.shape[2]))
        return in_turn(dearest.copy(), count, mapping.windows)[None]
    shape = len(costs), rounds, *costs.shape[2:]
    return in_step(np.broadcast_to(costs, shape), count, registers)


def _busy(mapping: Mapping, count: np.ndarray, costs: np.ndarray, is_dealt: bool) -> np.ndarray:
    """Cycles of all columns together, over the visits of a repeat, in each step: (rounds, most steps)."""
    own = costs.max(axis=3) * mapping.on_columns.slices if is_dealt else costs.sum(axis=3)
    over = np.broadcast_to(own.sum(axis=0), (count.size, costs.shape[2]))
    return np.asarray(np.where(np.arange(costs.shape[2]) < count[:, None], over, 0))


def _lost(mapping: Mapping, taken: np.ndarray, busy: np.ndarray, is_dealt: bool) -> dict[str, int]:
    """Slots of whole columns, by cause: without a window, or waiting for other columns."""
    height = mapping.tiles * mapping.rows * mapping.lanes
    cycles = int(taken.sum())
    last = int(taken[mapping.visits - 1 :: mapping.visits].sum())
    unused = 0 if is_dealt else mapping.in_use - mapping.last_columns
    waiting = cycles * mapping.in_use - last * unused - int(busy.sum())
    # Python's integers: a machine may have more columns than 64 bits leave room for.
    return {
        "edge": (cycles * (mapping.columns - mapping.in_use) + last * unused) * height,
        "synchronisation": waiting * height,
    }


def _work(
    machine: Hooks, mapping: Mapping, taken: np.ndarray, executed: np.ndarray, slots: dict[str, int], ops: int
) -> Work:
    """What ``tiled_traffic`` and the ledger are told."""
    lines, sets = mapping.lines, mapping.sets
    row_lines = executed * sets
    visits, partners = len(taken), lines.partners
    accesses = {
        "bit_operations": ops,
        "activation_buffer_reads": partners * sets.size * lines.shape[2] * lines.lanes,
        "weight_buffer_reads": visits * int(row_lines.sum()) * lines.lanes,
        "accumulator_updates": partners * int(row_lines.sum()),
    }
    moved = mapping.by_round(row_lines).sum(axis=1)[None]
    streams = mapping.by_round(sets).sum(axis=1)
    return Work(lines, taken, moved, streams, taken.T.ravel(), slots, accesses)
