"""What a sweep will compute: a study's points, and those of them that the store does not have, cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fnmatch import fnmatchcase

from accelsim.errors import AccelsimError, TraceError
from accelsim.files import find
from accelsim.hardware.accelerators.catalogue import source_digest
from accelsim.hardware.machine import Machine
from accelsim.sweeps.chunks import Chunk
from accelsim.sweeps.store import Store
from accelsim.sweeps.study import Point, Study, points_of
from accelsim.workload.trace import Trace

# Accelerators, and machines, simulated together on one snapshot: enough to share what they share, few enough to be lost
# to a dead worker. Machines of one accelerator share all that is counted before their memories are replayed.
ACCELERATORS, MACHINES = 8, 64
Place = tuple[str, str, str, "float | None"]  # where a trace is, its digest, a snapshot, a sparsity


@dataclass(frozen=True)
class Plan:
    """A study with its traces opened: its points in the table's order, their keys, and what is to be computed."""

    study: Study
    points: tuple[Point, ...]
    keys: tuple[str | None, ...]
    chunks: tuple[Chunk, ...]
    found: int
    digests: dict[str, str]
    paths: dict[str, str]
    allow_code: bool = False

    @property
    def missing(self) -> int:
        """Points to be computed; equal ones once."""
        return sum(len(chunk.keys) for chunk in self.chunks)


def plan_sweep(study: Study, store: Store, workers: int = 1, *, allow_code: bool = False) -> Plan:
    """What a sweep will compute, given what the store has, cut so that all workers get their share. ``allow_code``: see
    ``load_machine``.

    Raises
    ------
    AccelsimError
        If a trace cannot be opened, a snapshot or layer is in none, or no point can be computed.
    """
    with ExitStack() as stack:
        traces = {name: stack.enter_context(closing(open_trace(name))) for name in _traces(study)}
        _check_names(study, traces)
        points = tuple(points_of(study, traces, allow_code=allow_code))
        digests = {name: trace.digest for name, trace in traces.items()}
        paths = {name: str(trace.path.resolve()) for name, trace in traces.items()}
    if not any(point.machine for point in points):
        raise AccelsimError((points[0].error or "") if points else "study: must have a point, has none")
    chosen = tuple(study.passes), tuple(study.layers)
    keys = tuple(p.key(digests[p.trace], *chosen) for p in points)
    known = store.known()
    missing: dict[Place, dict[str, Machine]] = {}
    for point, key in zip(points, keys, strict=True):
        if key and point.machine and key not in known:
            place = paths[point.trace], digests[point.trace], point.snapshot, point.sparsity
            missing.setdefault(place, {})[key] = point.machine
    chunks = tuple(_chunks(missing, chosen, workers))
    return Plan(study, points, keys, chunks, sum(key in known for key in keys if key), digests, paths, allow_code)


def _traces(study: Study) -> list[str]:
    """The names of all its traces, once each."""
    names = [study.trace] if isinstance(study.trace, str) else list(study.trace)
    names += study.grid.get("trace", [])
    names += [point["trace"] for point in study.points if "trace" in point]
    return list(dict.fromkeys(names))


def _check_names(study: Study, traces: dict[str, Trace]) -> None:
    """What no trace has is a misspelling."""
    known = list(dict.fromkeys(s.name for trace in traces.values() for s in trace.snapshots))
    for name in study.snapshots or ():
        if name not in known:
            raise AccelsimError(f"study: snapshots: must be one of {', '.join(known)}, got {name}")
    layers = list(dict.fromkeys(layer.name for t in traces.values() for s in t.snapshots for layer in s.layers))
    for pattern in study.layers:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            some = ", ".join(layers[:4])
            raise AccelsimError(f"study: layers: must match a layer of a trace ({some}, …), got {pattern}")


def _chunks(
    missing: dict[Place, dict[str, Machine]], chosen: tuple[tuple[str, ...], tuple[str, ...]], workers: int
) -> Iterator[Chunk]:
    """Machines with equal accelerators next to each other: what they compute is computed once."""
    count = sum(map(len, missing.values()))
    most = max(1, min(MACHINES, count // (4 * workers)))
    for place, machines in missing.items():
        resolved = {key: machine.resolved() for key, machine in machines.items()}
        named = {key: repr(resolved[key]["accelerator"]) for key in machines}
        for some in _cut(sorted((name, key) for key, name in named.items()), most):
            foreign = {
                resolved[key]["accelerator"]["model"]: digest
                for key in some
                if (digest := source_digest(type(machines[key].accelerator)))
            }
            yield Chunk(*place, tuple(resolved[key] for key in some), some, *chosen, foreign=foreign)


def _cut(machines: list[tuple[str, str]], most: int) -> Iterator[tuple[str, ...]]:
    """Keys of machines, by the accelerators they are listed with, at most so many at a time."""
    some: list[str] = []
    seen: set[str] = set()
    for accelerator, key in machines:
        if len(some) == most or len(seen | {accelerator}) > ACCELERATORS:
            yield tuple(some)
            some, seen = [], set()
        some.append(key)
        seen.add(accelerator)
    yield tuple(some)


def open_trace(name: str) -> Trace:
    """A trace by name, as everywhere."""
    return Trace.open(find(name, "traces", TraceError))
