"""Jobs too large for a memory, in slices: what a machine does with a map or a matrix that it cannot hold at once.

A machine that sums products over a job needs no operand whole: it walks both, and each slice brings the same share of
them. Where every value of a part meets every value of the other operand's, only one operand is cut, and the other's
part is there for all slices. Partial sums stay where the job keeps them, so the result is complete with the last slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware.hierarchy import Buffers, Memory
from accelsim.hardware.movement.demand import Capacities, OperandDemand
from accelsim.hardware.movement.plan import Plan
from accelsim.hardware.movement.planner import Planner
from accelsim.hardware.movement.traffic import LayerTraffic, Operand, Traffic

MOST_JOBS = 1 << 20  # of a layer in slices: a plan takes about a kilobyte a job


def plan(memory: Memory, buffers: Buffers, clock_mhz: int, layers: Sequence[LayerTraffic]) -> Plan:
    """The plan of a pass, with jobs in slices only where there is none without.

    Raises
    ------
    MachineError
        If a memory or buffer cannot hold what a slice needs.
    """
    planner = Planner(memory, buffers, clock_mhz, list(layers))
    try:
        return planner.plan()
    except MachineError as error:
        refusal = error
    cut = [fitting(layer, memory, planner.capacities) for layer in layers]
    try:
        return Planner(memory, buffers, clock_mhz, cut).plan()
    except MachineError:
        raise refusal from None  # of the jobs as they are


def fitting(layer: LayerTraffic, memory: Memory, capacities: Capacities) -> LayerTraffic:
    """The layer in so few slices that memories hold two of them, and a buffer where it must; itself if it fits."""
    asked = [OperandDemand.of(operand, memory) for operand in layer.traffic.operands]
    choices = [(0,), (1,)] if layer.traffic.crossed else [(0, 1)]
    counts = {chosen: _slices(layer, memory, capacities, asked, chosen) for chosen in choices}
    chosen = min(counts, key=lambda one: counts[one])
    count = counts[chosen]
    if count == 1 or count * layer.traffic.job_cycles.size > MOST_JOBS:
        return layer
    return replace(layer, traffic=sliced(layer.traffic, count, chosen))


def _slices(
    layer: LayerTraffic, memory: Memory, capacities: Capacities, asked: list[OperandDemand], cut: tuple[int, ...]
) -> int:
    """How many slices of the operands that are cut it takes; more than MOST_JOBS where no number is enough."""
    buffers, count = dict(capacities.buffers), 1
    for name, capacity in capacities.memories:
        spilled = int(memory.partial_bytes(layer.traffic.spilled).max(initial=0)) if name == layer.result_memory else 0
        room = capacity - spilled - 2 * capacities.piece_bytes
        whole, shared = (
            sum(
                int(o.stored_bytes.max(initial=0))
                for at, o in enumerate(asked)
                if o.memory == name and (at in cut) == is_cut
            )
            for is_cut in (False, True)
        )
        if whole + shared > room:
            count = max(count, -(-2 * shared // max(1, room - whole)) if room > whole else 2 * MOST_JOBS)
    if layer.traffic.crossed:
        sizes = [int(o.inside_bytes.max(initial=0)) for o in asked]
        held = [size <= buffers[o.buffer] for size, o in zip(sizes, asked, strict=True)]
        if not any(held):
            (at,) = cut
            count = max(count, -(-2 * sizes[at] // max(1, buffers[asked[at].buffer])))
    return count


def sliced(traffic: Traffic, count: int, cut: Sequence[int]) -> Traffic:
    """Each job as so many, in equal shares; the operands of these numbers bring another slice of their part to each."""
    jobs = traffic.job_cycles.size
    last = np.arange(jobs * count) % count == count - 1
    return replace(
        traffic,
        job_cycles=_shares(traffic.job_cycles, count),
        operands=tuple(_sliced(o, count, is_cut=at in cut) for at, o in enumerate(traffic.operands)),
        result=np.where(last, traffic.result.repeat(count), 0),
        spilled=np.where(last, traffic.spilled.repeat(count), 0),
        sample=None if traffic.sample is None else traffic.sample.repeat(count),
    )


def _sliced(operand: Operand, count: int, *, is_cut: bool) -> Operand:
    part = operand.part.repeat(count)
    streamed = None if operand.streamed is None else _shares(operand.streamed, count)
    if not is_cut:
        return replace(operand, part=part, streamed=streamed)
    part = np.where(part < 0, -1, part * count + np.arange(part.size) % count)
    nonzeros = _shares(operand.nonzeros, count)
    zeros = _shares(operand.values - operand.nonzeros, count)
    return replace(
        operand, values=nonzeros + zeros, nonzeros=nonzeros, placeholders=_shares(operand.placeholders, count),
        part=part, streamed=streamed,
    )  # fmt: skip


def _shares(counts: np.ndarray, count: int) -> np.ndarray:
    """Each number as so many that add up to it, as equal as they go: (n,) → (n · count,)."""
    ends = counts[:, None] * np.arange(count + 1) // count
    return np.diff(ends, axis=1).ravel()
