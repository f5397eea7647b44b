"""Real jobs through a machine's circuit, beside what we count for them: cycles, and the product that comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware.machine import Machine
from accelsim.pipeline import Task, chosen_tasks
from accelsim.rtl import build, harness
from accelsim.rtl.circuit import Circuit
from accelsim.rtl.harness import Ran
from accelsim.rtl.job import Job, Twin
from accelsim.rtl.twins import twin_of
from accelsim.workload.lowering import PASSES, Convolution, lower
from accelsim.workload.shares import of_pass
from accelsim.workload.trace import Trace


@dataclass
class Tally:
    """What the jobs of a pass came to.

    Parameters
    ----------
    jobs, cycles : int
        Tried, and the cycles counted for them.
    fill_cycles, drain_cycles : set of int
        Those that a job had before its first cycle that is counted, and after its last.
    other_cycles, other_sums : int
        Jobs with other cycles than counted; with a sum that is not the product.
    """

    jobs: int = 0
    cycles: int = 0
    fill_cycles: set[int] = field(default_factory=set)
    drain_cycles: set[int] = field(default_factory=set)
    other_cycles: int = 0
    other_sums: int = 0

    def add(self, ran: Ran, circuit: Circuit) -> bool:
        """Counts a job; whether it is as it must be."""
        cycles = took(ran, circuit) == counted(ran, circuit)
        sums = not (right_sums(ran, circuit) ^ True).any()
        self.jobs += 1
        self.cycles += ran.job.cycles
        self.fill_cycles.add(ran.fill_cycles)
        self.drain_cycles.add(ran.drain_cycles)
        self.other_cycles += not cycles
        self.other_sums += not sums
        return cycles and sums


@dataclass(frozen=True)
class Difference:
    """A job that differs, and where it was met."""

    layer: str
    which: str
    ran: Ran


@dataclass(frozen=True)
class Finding:
    """A machine's circuit beside its counts: what each pass came to, the first job that differs, if any, and why others
    have none."""

    circuit: Circuit
    passes: dict[str, Tally]
    first: Difference | None
    lacks: list[str]

    @property
    def jobs(self) -> int:
        """Tried in all."""
        return sum(tally.jobs for tally in self.passes.values())


def counted(ran: Ran, circuit: Circuit) -> int:
    """Cycles of a job as the machine has them: where it takes any, its pipeline drains after it."""
    return ran.job.cycles + (circuit.drain_cycles if ran.job.cycles else 0)


def took(ran: Ran, circuit: Circuit) -> int:
    """Cycles of a job from the first that is counted until nothing is left."""
    return ran.cycles + ran.drain_cycles


def right_sums(ran: Ran, circuit: Circuit) -> np.ndarray:
    """Which partial sums are the product, in the bits that the circuit has."""
    bits = np.int64((1 << circuit.sum_bits) - 1)
    equal: np.ndarray = (ran.sums & bits) == (ran.job.sums & bits)
    return equal


def check(
    machine: Machine,
    trace: Trace,
    *,
    passes: str | Iterable[str] = PASSES,
    layers: str | Iterable[str] = "*",
    snapshots: str | Iterable[str] | None = None,
    jobs: int = 2000,
    seed: int = 0,
    program: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Finding:
    """Jobs of a trace, as many of each layer and pass, drawn without repetition.

    Parameters
    ----------
    machine : Machine
        One that there is a circuit of.
    trace, passes, layers, snapshots
        As for ``simulate_records``.
    jobs : int
        How many at most; layers and passes have equal shares, as far as they have so many.
    seed : int
        Of which jobs are drawn, and of the numbers where masks are set.
    program : Path, optional
        A simulation of the circuit; by default it is built, or found in the cache.
    progress : callable
        Called with the layers × passes done and how many there are.

    Raises
    ------
    MachineError
        If there is no circuit of the machine, or of no pass that is asked for.
    ToolError
        If a tool is missing or fails.
    AccelsimError
        As ``simulate_records``.
    """
    twin = twin_of(machine)
    tasks = chosen_tasks(trace, passes, layers, snapshots)
    asked = tasks[0].passes
    lacks = [why for which in asked if (why := twin.lacks(which))]
    there = [which for which in asked if not twin.lacks(which)]
    if not there:
        raise MachineError(f"{machine.name}: {lacks[0]}")
    parts = [(task, which) for task in tasks for which in there if which in task.layer.passes]
    program = program or build.build(twin.circuit)
    tallies = {which: Tally() for which in there}
    first = None
    for number, (task, which) in enumerate(parts):
        progress(number, len(parts))
        share = jobs // len(parts) + (number < jobs % len(parts))
        for ran in _of_pass(twin, program, task, which, share, np.random.default_rng([seed, number])):
            if not tallies[which].add(ran, twin.circuit) and first is None:
                first = Difference(task.layer.name, which, ran)
    progress(len(parts), len(parts))
    return Finding(twin.circuit, tallies, first, lacks)


def _of_pass(twin: Twin, program: Path, task: Task, which: str, share: int, rng: np.random.Generator) -> Iterator[Ran]:
    """So many jobs of a pass of a layer, drawn from all of its convolutions."""
    layer = replace(task.layer, tensors={name: task.layer.tensor(name) for name in task.reads})
    convolutions = lower(of_pass(layer, which), which, strided=twin.strided_input_grad)
    counts = [twin.count(conv) for conv in convolutions]
    total = sum(counts)
    chosen = np.sort(rng.choice(total, min(total, share), replace=False))
    yield from harness.run(program, _jobs(twin, convolutions, counts, chosen, rng))


def _jobs(
    twin: Twin, convolutions: list[Convolution], counts: list[int], chosen: np.ndarray, rng: np.random.Generator
) -> Iterator[Job]:
    first = 0
    for conv, count in zip(convolutions, counts, strict=True):
        own = chosen[(chosen >= first) & (chosen < first + count)] - first
        first += count
        if own.size:
            yield from twin.jobs(conv, own, rng)
