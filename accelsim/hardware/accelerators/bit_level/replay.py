"""The schedule of a bit-level machine executed with numbers: bits worked off cycle by cycle, columns that wait."""

from __future__ import annotations

import numpy as np

from accelsim.hardware.accelerators.bit_level.hooks import Hooks
from accelsim.hardware.accelerators.bit_level.mapping import Mapping


def replayed(machine: Hooks, mapping: Mapping) -> tuple[np.ndarray, int]:
    """One group: what it comes to, where it belongs, and the cycles that it took."""
    lines, count = mapping.lines, machine._steps(mapping).count.tolist()
    rows, products, cycles = machine._seen(mapping), [], 0
    for windows in lines.column_blocks():
        seen = machine._as_seen(mapping, windows)
        costs = machine._costs(mapping, rows, seen)
        products.append(machine._as_meant(mapping, machine._product(mapping, seen, costs)))
        if machine.staggered_linear and mapping.is_linear:
            cycles += _in_turn(costs, count, mapping.windows)
        else:
            cycles += _in_step(costs, count, machine._registers)
    return lines.place(np.stack(products, axis=2)), cycles


def _in_step(costs: np.ndarray, count: list[int], registers: int) -> int:
    """Step after step: a column begins when it is free and all have ended the step so many before."""
    column_free, all_ended = [0] * costs.shape[3], [0] * (registers + 1)
    for visit in costs:
        for r, steps in enumerate(count):
            for step in visit[r if len(visit) > 1 else 0, :steps].tolist():
                column_free = [max(free, all_ended[0]) + cost for free, cost in zip(column_free, step, strict=True)]
                all_ended = [*all_ended[1:], max(column_free)]
    return int(all_ended[-1])


def _in_turn(costs: np.ndarray, count: list[int], places: int) -> int:
    """One step begun a cycle at most, each where a place is free, the places in turn."""
    ends: list[int] = []
    clock = 0
    for r, steps in enumerate(count):
        for step in costs[0, r if costs.shape[1] > 1 else 0, :steps].tolist():
            if len(ends) >= places:
                clock = max(clock, ends[-places])
            ends.append(clock + max(step))
            clock += 1
    return max(ends, default=0)
