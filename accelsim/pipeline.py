"""The one pipeline: trace × machine × passes → records. A reader starts here.

    trace ─► layer ─► lower() ─► convolutions ─► accelerator.run() ─► activities ─► memory.replay() ─► records

What else a training step costs (``machine.overheads``) and the energy of it all (``machine.energy``) come last.

Data goes left to right and never back. Computing is independent from layer to layer, so layers run on as many threads
as asked (kernels release the GIL), and no more layers' tensors are in memory than threads. A memory is not: what one
layer leaves there the next one finds, so a machine with one replays a snapshot's pass when all its layers are counted.
Records come in the trace's order, whatever the number of threads.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from accelsim import ledger
from accelsim.errors import AccelsimError, MachineError, TraceError
from accelsim.hardware.movement.traffic import LayerTraffic, Traffic, joined
from accelsim.ledger import Record
from accelsim.workload import footprint
from accelsim.workload.lowering import PASSES, lower, operands, stacked
from accelsim.workload.shares import check_samples, counted_samples, of_pass
from accelsim.workload.trace import Layer, Snapshot, Trace

if TYPE_CHECKING:
    from accelsim.hardware.accelerators.base import Activity
    from accelsim.hardware.machine import Machine
    from accelsim.hardware.movement.plan import Plan
    from accelsim.hardware.movement.replay_simpy import Observer
    from accelsim.hardware.overheads import Cost
    from accelsim.workload.geometry import Geometry
    from accelsim.workload.synthetic import SyntheticTrace

    Timeline = Callable[[Machine, str, str, Plan], Observer | None]


@dataclass(frozen=True)
class Task:
    """One layer of one snapshot, for every machine and pass: its tensors are read once."""

    snapshot: Snapshot
    layer: Layer
    position: int
    passes: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The tensors that the passes need; one that did not run needs none."""
        ran = (which for which in self.passes if which in self.layer.passes)
        return tuple(dict.fromkeys(name for which in ran for name in operands(self.layer, which)))

    def run(self, machines: Iterable[Machine]) -> list[list[Counted | MachineError]]:
        """Counts every pass on every machine: of each machine its passes."""
        layer = replace(self.layer, tensors={name: self.layer.tensor(name) for name in self.reads})
        by_pass = [self._run_pass(of_pass(layer, which), which, machines) for which in self.passes]
        return [list(of_machine) for of_machine in zip(*by_pass, strict=True)]

    def _run_pass(self, layer: Layer, which: str, machines: Iterable[Machine]) -> list[Counted | MachineError]:
        """One pass on every machine. Lowering is done once for all, the rest once for equal accelerators."""
        matters = which == "input_grad" and layer.geometry.stride != (1, 1)
        lowered = cache(lambda strided: lower(layer, which, strided=strided))
        run = cache(lambda a: [a.run(conv) for conv in lowered(a.strided_input_grad if matters else "phase")])
        moved = cache(lambda accelerator: joined([each.traffic() for each in run(accelerator)], shared=True))
        return [self._count(layer, which, machine, run, moved) for machine in machines]

    def _count(
        self,
        layer: Layer,
        which: str,
        machine: Machine,
        run: Callable[[Any], list[Activity]],
        moved: Callable[[Any], Traffic],
    ) -> Counted | MachineError:
        """What a machine does; or why it cannot, to be raised when its records are asked for."""
        accelerator, s = machine.accelerator, self.snapshot
        counted = counted_samples(self.layer, s, which)
        slots: Counter[str] = Counter()
        accesses: Counter[str] = Counter()
        traffic = None
        try:
            activities = run(accelerator)
            for activity in activities:
                slots.update(activity.slots)
                accesses.update(activity.accesses)
            if machine.memory and activities:
                part, of = self.layer.part, self._moved_of(layer, which, machine)
                whole = part.ends(self.layer.geometry) if part and layer.kind != "matmul" else None
                moves = moved(accelerator)
                traffic = LayerTraffic(layer.name, which, self.position, *of, accesses, moves, whole=whole)
        except MachineError as error:
            return MachineError(f"{machine.name}: {s.name}/{layer.name}: {which}: {error}")
        cycles = sum(activity.cycles for activity in activities)
        multiplications = layer.samples * layer.geometry.multiplications if activities else 0
        record = Record(
            snapshot=s.name, sparsity=s.sparsity, step=s.step, algorithm=s.algorithm, batch=s.batch,
            samples=counted.numerator, layer=layer.name, kind=layer.kind, which=which, machine=machine.name,
            multipliers=accelerator.multipliers, clock_mhz=machine.clock_mhz, cycles=cycles, compute_cycles=cycles,
            dense_multiplications=multiplications,
            slots=dict(slots), actions=ledger.among(accesses, "actions"),
        )  # fmt: skip
        return Counted(record, traffic, self._cost(layer, which, machine) if activities else None, counted.denominator)

    def _moved_of(self, layer: Layer, which: str, machine: Machine) -> tuple[Geometry, int, int]:
        """Of what shape a memory sees a layer, and of how many samples so many are stored; of a matmul nothing is a
        batch's.

        Raises
        ------
        MachineError
            If a part of the places would go through the layers sample by sample.
        """
        part = self.layer.part
        if part and machine.memory and machine.memory.order == "sample":
            raise MachineError("memory.order: must be layer where a trace has a part of a layer's places, is sample")
        share = part.share(self.layer.geometry, which) if part else Fraction(1)
        if layer.kind == "matmul":
            return stacked(layer), share.numerator, share.denominator
        return layer.geometry, layer.samples * share.numerator, self.layer.batch * share.denominator

    def _cost(self, layer: Layer, which: str, machine: Machine) -> Cost | None:
        """What the machine's overheads add, if it has any."""
        if not machine.overheads:
            return None
        from accelsim.hardware.overheads import tensors_of

        bits = machine.memory.value_bits if machine.memory else 16
        saved = "saved_activation" in self.layer.tensors
        return machine.overheads.cost(tensors_of(layer, which, self.snapshot, saved=saved, value_bits=bits))


@dataclass(frozen=True)
class Counted:
    """A record before its machine's memory is replayed.

    ``traffic`` is what the layer moves, None where there is no memory; ``cost`` what it costs besides multiplying,
    None where the machine leaves that out. Counts times ``times`` are of the record's samples.
    """

    record: Record
    traffic: LayerTraffic | None
    cost: Cost | None
    times: int = 1


def simulate_records(
    machines: Machine | Iterable[Machine],
    trace: Trace | SyntheticTrace,
    *,
    passes: str | Iterable[str] = PASSES,
    layers: str | Iterable[str] = "*",
    snapshots: str | Iterable[str] | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    timeline: Timeline | None = None,
    refused: dict[str, str] | None = None,
) -> Iterator[Record]:
    """Runs the chosen layers and passes of a trace on one or more machines.

    Parameters
    ----------
    machines : Machine or iterable of Machine
    trace : Trace
    passes : str or iterable of str
        Some of "fwd", "input_grad", "weight_grad".
    layers : str or iterable of str
        Shell patterns on layer names.
    snapshots : str or iterable of str, optional
        Names; by default all of the trace.
    jobs : int
        Layers simulated at once, each on a thread. The records do not depend on it.
    progress : callable
        Called with layers done and layers in all.
    timeline : callable, optional
        Called with the machine, snapshot, pass and plan of each replay; gives what ``memory.replay`` is to tell what
        happens, or None.
    refused : dict, optional
        A machine that cannot run a layer ends the run; or, where this is given, the others go on and the reason is put
        here by its name. Records of its earlier layers may have come.

    Yields
    ------
    Record
        In the order snapshot, layer, machine, pass.

    Raises
    ------
    AccelsimError
        If a name is not in the trace, a layer lacks a tensor that a pass reads or needs more memory than there is,
        layers store shares of their batch that do not add up (all before anything is simulated), a tensor turns out to
        be corrupt, or a machine cannot run a layer.
    """
    if jobs < 1:
        raise AccelsimError(f"jobs: must be 1 or more, got {jobs}")
    from accelsim.hardware.machine import Machine

    machines = (machines,) if isinstance(machines, Machine) else tuple(machines)
    tasks = chosen_tasks(trace, passes, layers, snapshots)
    pool = ThreadPoolExecutor(max_workers=jobs)
    waiting = iter(tasks)
    running = deque(pool.submit(task.run, machines) for task in islice(waiting, jobs))
    try:
        progress(0, len(tasks))
        counted: list[list[list[Counted | MachineError]]] = []
        for done, task in enumerate(tasks, start=1):
            counted.append(running.popleft().result())
            running.extend(pool.submit(task.run, machines) for task in islice(waiting, 1))
            over = done == len(tasks) or tasks[done].snapshot is not task.snapshot
            if over or not any(machine.memory for machine in machines):
                yield from _completed(machines, counted, timeline, refused)
                counted = []
            progress(done, len(tasks))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _completed(
    machines: tuple[Machine, ...],
    layers: list[list[list[Counted | MachineError]]],
    timeline: Timeline | None,
    refused: dict[str, str] | None,
) -> Iterator[Record]:
    """The records of a snapshot, layer by layer, with what memories and overheads add, and their energy."""
    columns = []
    for machine, of_layers in zip(machines, zip(*layers, strict=True), strict=True):
        try:
            columns += [_records(machine, list(of_pass), timeline) for of_pass in zip(*of_layers, strict=True)]
        except MachineError as error:
            if refused is None:
                raise
            refused.setdefault(machine.name, str(error))
    return chain.from_iterable(zip(*columns, strict=True))


def _records(machine: Machine, layers: list[Counted | MachineError], timeline: Timeline | None) -> list[Record]:
    """One pass of one machine. Raises MachineError where it cannot run a layer."""
    good: list[Counted] = []
    for counted in layers:
        if isinstance(counted, MachineError):
            raise counted
        good.append(counted)
    records = _replayed(machine, good, timeline) if machine.memory else [counted.record for counted in good]
    priced = (_priced(machine, record, counted.cost) for record, counted in zip(records, good, strict=True))
    return [_scaled(record, counted.times) for record, counted in zip(priced, good, strict=True)]


def _scaled(record: Record, times: int) -> Record:
    """A record whose counts are of so many times the work; the largest of something stays."""
    if times == 1:
        return record
    grows = {row.name for row in ledger.rows() if row.adds_up != "most"}

    def each(group: dict[str, Any]) -> dict[str, Any]:
        return {name: n if n is None or name not in grows else n * times for name, n in group.items()}

    return replace(
        record, cycles=record.cycles * times, compute_cycles=record.compute_cycles * times,
        dense_multiplications=record.dense_multiplications * times, slots=each(record.slots),
        actions=each(record.actions), energy=each(record.energy),
    )  # fmt: skip


def _priced(machine: Machine, record: Record, cost: Cost | None) -> Record:
    """A record with its overheads, during which all PEs wait, and its energy."""
    if cost:
        slots = record.slots | {cause: cycles * record.multipliers for cause, cycles in cost.cycles.items()}
        known = ledger.names("actions") if machine.memory else ledger.names("actions", needs_memory=False)
        actions = {name: cost.actions[name] for name in known if name in cost.actions}
        actions = dict(Counter(record.actions) + Counter(actions))
        record = replace(record, cycles=record.cycles + sum(cost.cycles.values()), slots=slots, actions=actions)
    if not machine.energy:
        return record
    from accelsim.hardware.pricing import energy_pj

    return replace(record, energy=energy_pj(machine, record.actions, record.cycles))


def _replayed(machine: Machine, layers: list[Counted], timeline: Timeline | None) -> list[Record]:
    """One pass of one machine: the forward pass runs through the layers from first to last, the others back."""
    from accelsim.hardware.movement import slices
    from accelsim.hardware.movement.replay import replay
    from accelsim.hardware.movement.traffic import in_order

    first = layers[0].record
    order = [counted for counted in layers if counted.traffic]
    if first.which != "fwd":
        order.reverse()
    if not order or machine.memory is None or machine.buffers is None:
        return [counted.record for counted in layers]
    turns = in_order([counted.traffic for counted in order if counted.traffic], machine.memory.order)
    try:
        plan = slices.plan(machine.memory, machine.buffers, machine.clock_mhz, [moved for _, moved in turns])
    except MachineError as error:
        raise MachineError(f"{machine.name}: {first.snapshot}: {first.which}: {error}") from None
    observe = timeline and timeline(machine, first.snapshot, first.which, plan)
    if observe:
        from accelsim.hardware.movement import replay_simpy

        played = replay_simpy.replay(plan, observe)
    else:
        played = replay(plan)
    waited: list[Counter[str]] = [Counter() for _ in order]
    acted: list[Counter[str]] = [Counter() for _ in order]
    for (number, _), stalls, actions in zip(turns, played.stalls, plan.actions, strict=True):
        waited[number].update(stalls)
        acted[number].update(actions)
    replayed = {}
    for counted, stalls, actions in zip(order, waited, acted, strict=True):
        r = counted.record
        slots = r.slots | {cause: cycles * r.multipliers for cause, cycles in stalls.items()}
        cycles = r.cycles + sum(stalls.values())
        replayed[id(counted)] = replace(r, cycles=cycles, slots=slots, actions=dict(actions))
    return [replayed.get(id(counted), counted.record) for counted in layers]


def chosen_tasks(
    trace: Trace | SyntheticTrace,
    passes: str | Iterable[str],
    layers: str | Iterable[str],
    snapshots: str | Iterable[str] | None,
) -> list[Task]:
    """What is asked for, checked against what the trace holds. Raises as ``simulate_records``."""
    passes = _known("pass", passes, PASSES)
    chosen = list(trace.snapshots)
    if snapshots is not None:
        names = _known("snapshot", snapshots, [s.name for s in chosen])
        chosen = [s for s in chosen if s.name in names]
    patterns = [layers] if isinstance(layers, str) else list(layers)
    tasks = [
        Task(snapshot, layer, position, passes)
        for snapshot in chosen
        for position, layer in enumerate(snapshot.layers)
        if any(fnmatchcase(layer.name, pattern) for pattern in patterns)
    ]
    if not tasks:
        known = ", ".join(layer.name for layer in chosen[0].layers[:4])
        raise AccelsimError(f"layers: must match a layer of the trace ({known}, …), got {', '.join(patterns)}")
    for task in tasks:
        for name in task.reads:
            if name not in task.layer.tensors:
                where = f"{trace.path}: {task.snapshot.name}/{task.layer.name}"
                raise TraceError(f"{where}: must have the tensor {name} for {', '.join(passes)}")
        footprint.check(f"{trace.path}: {task.snapshot.name}/{task.layer.name}", task.layer, task.reads)
    for snapshot in chosen:
        check_samples(trace.path, snapshot, [t.layer for t in tasks if t.snapshot is snapshot])
    return tasks


def _known(what: str, names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The names, once each and in the known order; an error where one is not known."""
    names, known = [names] if isinstance(names, str) else list(names), list(known)
    for name in names:
        if name not in known:
            raise AccelsimError(f"{what}: must be one of {', '.join(known)}, got {name}")
    if not names:
        raise AccelsimError(f"{what}: must name at least one of {', '.join(known)}")
    return tuple(name for name in known if name in names)
