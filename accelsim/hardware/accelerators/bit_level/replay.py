"""The schedule of a bit-level machine executed with numbers: bits worked off cycle by cycle, columns that wait."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from accelsim.hardware.accelerators.bit_level.filmed import Step, filmed
from accelsim.hardware.accelerators.bit_level.hooks import Hooks
from accelsim.hardware.accelerators.bit_level.mapping import Mapping
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.lines import Lines


def replayed(machine: Hooks, mapping: Mapping, given: Lines, film: Film | None) -> tuple[np.ndarray, int]:
    """One group: what it comes to, where it belongs, and the cycles that it took; ``given`` are its lines as they were
    before they became integers."""
    lines, count = mapping.lines, machine._steps(mapping).count.tolist()
    rows, products, cycles = machine._seen(mapping), [], 0
    for windows, before in zip(lines.column_blocks(), given.column_blocks(), strict=True):
        seen = machine._as_seen(mapping, windows)
        costs = machine._costs(mapping, rows, seen)
        products.append(machine._as_meant(mapping, machine._product(mapping, seen, costs)))
        if machine.staggered_linear and mapping.is_linear:
            steps = list(_in_turn(costs, count, mapping))
        else:
            steps = list(_in_step(costs, count, machine._registers))
        cycles += max((step.end for step in steps), default=0)
        if film is not None:
            filmed(film, machine, mapping, (given, before, seen), steps)
    return lines.place(np.stack(products, axis=2)), cycles


def _in_step(costs: np.ndarray, count: list[int], registers: int) -> Iterator[Step]:
    """Step after step: a column begins when it is free and all have ended the step so many before."""
    column_free, all_ended = [0] * costs.shape[3], [0] * (registers + 1)
    for number, visit in enumerate(costs):
        for r, steps in enumerate(count):
            for t, step in enumerate(visit[r if len(visit) > 1 else 0, :steps].tolist()):
                starts = [max(free, all_ended[0]) for free in column_free]
                column_free = [start + cost for start, cost in zip(starts, step, strict=True)]
                all_ended = [*all_ended[1:], max(column_free)]
                yield Step(number, r, t, starts, step)


def _in_turn(costs: np.ndarray, count: list[int], mapping: Mapping) -> Iterator[Step]:
    """One step begun a cycle at most, each where a place is free, the places in turn."""
    ends: list[int] = []
    clock, slices = 0, mapping.on_columns.slices
    for r, steps in enumerate(count):
        for t, step in enumerate(costs[0, r if costs.shape[1] > 1 else 0, :steps].tolist()):
            if len(ends) >= mapping.windows:
                clock = max(clock, ends[-mapping.windows])
            place = len(ends) % mapping.windows * slices
            cycles = [max(step) if place <= at < place + slices else 0 for at in range(mapping.in_use)]
            yield Step(0, r, t, [clock] * mapping.in_use, cycles)
            ends.append(clock + max(step))
            clock += 1
