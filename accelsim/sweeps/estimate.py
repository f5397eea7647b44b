"""How long a sweep will take and how much memory, from a few layers of its first point."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.hardware.machine import parse_machine
from accelsim.pipeline import simulate_records
from accelsim.workload.trace import Layer, Trace

if TYPE_CHECKING:
    from accelsim.sweeps.plan import Plan

# Layers are tried until so much time is gone; then what is left of the sample is guessed as well.
ENOUGH_SECONDS = 2.0
# A worker's start: Python, libraries, compiled kernels from their cache.
START_SECONDS = 2.0


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of all workers together."""

    seconds: float
    memory_bytes: int


def estimate(plan: Plan, jobs: int) -> Estimate | None:
    """Times a small, a middle and the largest layer of the first missing point, and scales by multiplications.

    None where nothing is missing, or where the point cannot do them. Memory is what this process then takes, for each
    worker and itself.
    """
    if not plan.chunks:
        return None
    chunk = plan.chunks[0]
    machine = parse_machine(chunk.machines[0], allow_code=True)  # settled when it was planned
    with Trace.open(chunk.trace) as trace:
        layers = [
            layer
            for layer in trace.snapshot(chunk.snapshot).layers
            if any(fnmatchcase(layer.name, pattern) for pattern in chunk.layers)
        ]
        layers.sort(key=_work)
        sample = [layers[0], layers[len(layers) // 2], layers[-1]]
        seconds = work = 0.0
        for number, layer in enumerate(sample):
            start = time.perf_counter()
            try:
                list(simulate_records(machine, trace, passes=chunk.passes, layers=layer.name, snapshots=chunk.snapshot))
            except AccelsimError:
                return None
            if number:  # the first compiles kernels
                seconds += time.perf_counter() - start
                work += _work(layer)
            if seconds > ENOUGH_SECONDS:
                break
        of_point = seconds / work * sum(map(_work, layers))
    busy = min(jobs, len(plan.chunks))
    return Estimate(START_SECONDS + of_point * plan.missing / busy, (jobs + 1) * _peak_bytes())


def _work(layer: Layer) -> int:
    return layer.samples * layer.geometry.multiplications


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
