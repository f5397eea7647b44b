"""A study: which points a sweep computes. Read from YAML, or given as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.hardware.accelerators import catalogue
from accelsim.hardware.machine import Machine, load_machine, load_section, machine_with
from accelsim.hardware.parameters import Parameters, check, option
from accelsim.hardware.validation import validated
from accelsim.version import __version__
from accelsim.workload.lowering import PASSES
from accelsim.workload.sparsify import check_sparsity
from accelsim.workload.synthetic import nearest
from accelsim.workload.trace import Snapshot, Trace

MOST_POINTS = 1_000_000
# Keys of a grid that are not keys of the machine.
OWN = ("trace", "machine", "snapshot", "sparsity")


class Study(Parameters):
    """What a study file says. ``grid`` takes all combinations, ``points`` a list; both may be given."""

    trace: str | list[str] = option("trace, or traces")
    machine: str | Machine | list[str | Machine] = option("machine file, or files; in Python also machines")
    passes: list[str] = option("passes", default=list(PASSES))
    layers: list[str] = option("shell patterns on layer names", default=["*"])
    snapshots: list[str] | None = option("snapshots of the traces; by default all", default=None)
    grid: dict[str, list[Any]] = option(
        "values of machine keys (accelerator.lanes), or of trace, machine, snapshot, sparsity", default={}
    )
    points: list[dict[str, Any]] = option("points by themselves: such keys, one value each", default=[])

    @check
    def _can_be(self) -> Study:
        for name in self.passes:
            if name not in PASSES:
                raise ValueError(f"passes: must be one of {', '.join(PASSES)}, got {name}")
        if len(set(self.passes)) < len(self.passes):
            raise ValueError(f"passes: must be given once each, got {', '.join(self.passes)}")
        for name in ("trace", "machine", "passes", "layers", "snapshots"):
            if getattr(self, name) == []:
                raise ValueError(f"{name}: must have a value, has none")
        for name, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{name}: must have a value, has none")
            for value in values:
                _check_own(f"grid.{name}", name, value)
        for number, point in enumerate(self.points):
            for name, value in point.items():
                _check_own(f"points.{number}.{name}", name, value)
        self._check_machines()
        count = prod(map(len, self.grid.values())) + len(self.points)
        if count > MOST_POINTS:
            raise ValueError(f"must have at most {MOST_POINTS:,} points, got {count:,}")
        return self

    def _check_machines(self) -> None:
        """Machines that are no files go by their names."""
        given = self._given()
        names = [machine for machine in given if isinstance(machine, str)]
        for machine in given:
            if isinstance(machine, Machine) and (machine.name in names or machine != self.machines[machine.name]):
                raise ValueError(f"machine: names must differ, got {machine.name} twice")

    def _given(self) -> list[Any]:
        """What is given as machine, wherever."""
        base = self.machine if isinstance(self.machine, list) else [self.machine]
        return [*base, *self.grid.get("machine", []), *(p["machine"] for p in self.points if "machine" in p)]

    @property
    def machines(self) -> dict[str, Machine]:
        """Machines that are no files, by name."""
        return {machine.name: machine for machine in self._given() if isinstance(machine, Machine)}

    def load(self, name: str, *, allow_code: bool = False) -> Machine:
        """A machine by the name that points have for it. Raises ConfigError."""
        return self.machines.get(name) or load_machine(name, allow_code=allow_code)

    def named(self) -> dict[str, Any]:
        """Plain data, with names for machines."""
        data = self.model_dump(exclude={"machine", "grid", "points"})
        grid = {key: list(map(_name, values)) for key, values in self.grid.items()}
        points = [{key: _name(value) for key, value in point.items()} for point in self.points]
        machine = list(map(_name, self.machine)) if isinstance(self.machine, list) else _name(self.machine)
        return {"trace": data.pop("trace"), "machine": machine, **data, "grid": grid, "points": points}

    def settings(self) -> Iterator[dict[str, Any]]:
        """What each point sets, in the order of the table: the last key of the grid turns fastest."""
        for settings in self._settings():
            machine = settings["machine"]
            yield settings | {"machine": machine.name} if isinstance(machine, Machine) else settings

    def _settings(self) -> Iterator[dict[str, Any]]:
        base = {"trace": self.trace, "machine": self.machine}
        several = {name: value for name, value in base.items() if isinstance(value, list)}
        one = {name: value for name, value in base.items() if not isinstance(value, list)}
        if self.grid or not self.points:
            axes = several | self.grid
            for values in product(*axes.values()):
                yield one | dict(zip(axes, values, strict=True))
        for point in self.points:
            for values in product(*several.values()):
                yield one | dict(zip(several, values, strict=True)) | point


def _name(value: Any) -> Any:
    """The name of a machine; anything else as it is."""
    return value.name if isinstance(value, Machine) else value


def _check_own(where: str, name: str, value: Any) -> None:
    """A value of a key that is not the machine's; those are checked with it."""
    if name == "sparsity":
        try:
            check_sparsity(value)
        except AccelsimError as error:
            raise ValueError(f"{where}: {str(error).removeprefix('sparsity: ')}") from None
    elif name in OWN and not isinstance(value, (str, Machine) if name == "machine" else str):
        raise ValueError(f"{where}: must be a name, got {value!r:.60}")


def load_study(file: str | Path | dict[str, Any]) -> Study:
    """Reads and validates a study file, or its plain data.

    Raises
    ------
    ConfigError
        With the file, the key, the rule and the value, in one line.
    """
    return validated(Study, file, "study") if isinstance(file, dict) else load_section(Study, file, "study")


@dataclass(frozen=True)
class Point:
    """One machine on one snapshot of one trace.

    ``settings`` is what the study varies, for the table. A point that cannot be has an ``error`` instead of a machine.
    """

    settings: dict[str, Any]
    trace: str
    snapshot: str
    sparsity: float | None
    machine: Machine | None
    error: str | None = field(default=None)

    def key(self, digest: str, layers: tuple[str, ...], passes: tuple[str, ...]) -> str | None:
        """What determines its result, as a digest; None of a point that cannot be."""
        if self.machine is None:
            return None
        foreign = catalogue.source_digest(type(self.machine.accelerator))
        determined = {
            "code": code_digest() + (foreign or ""),
            "machine": self.machine.resolved() | {"description": ""},
            "trace": digest,
            "snapshot": self.snapshot,
            "sparsity": self.sparsity,
            "layers": layers,
            "passes": passes,
        }
        text = json.dumps(determined, sort_keys=True, ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@cache
def code_digest() -> str:
    """Version and digest of the code that counts: results of other code are other results."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256(__version__.encode())
    counting = [*root.glob("workload/**/*.py"), *root.glob("hardware/**/*.py")]
    files = ("ledger.py", "pipeline.py", "study/results.py", "sweeps/chunks.py")
    for path in sorted([*counting, *(root / file for file in files)]):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def points_of(study: Study, traces: dict[str, Trace], *, allow_code: bool = False) -> Iterator[Point]:
    """The points of a study in the order of its table; ``traces``: open traces by name."""
    machine_of = cache(lambda name: study.load(name, allow_code=allow_code))
    numbers = cache(has_values)  # it reads tensors
    for settings in study.settings():
        trace = traces[settings["trace"]]
        machine, error = None, None
        try:
            changes = {name: value for name, value in settings.items() if name not in OWN}
            base, source = machine_of(settings["machine"]), settings["machine"]
            machine = machine_with(base, changes, source, allow_code=allow_code or source in study.machines)
        except AccelsimError as problem:
            error = "; ".join(problem.lines)
        shown = {name: value for name, value in settings.items() if name != "snapshot"}
        for name, sparsity in _snapshots(study, settings, trace, numbers):
            yield _point(shown, trace, name, sparsity, machine, error, numbers)


def _snapshots(
    study: Study, settings: dict[str, Any], trace: Trace, numbers: Callable[[Snapshot], bool]
) -> Iterator[tuple[str, float | None]]:
    """Which snapshots a setting means, and the sparsity that is made of each, None: it is taken as it is.

    A sparsity that the trace has is taken from it, unless the study names what others are to be made of.
    """
    names, sparsity = [snapshot.name for snapshot in trace.snapshots], settings.get("sparsity")
    if "snapshot" in settings:
        names = [settings["snapshot"]]
    elif study.snapshots is not None:
        names = [name for name in names if name in study.snapshots]
    elif sparsity is not None:
        own = [snapshot.name for snapshot in trace.snapshots if snapshot.sparsity == sparsity]
        names, sparsity = (own[:1], None) if own else ([made_of(trace, sparsity, numbers).name], sparsity)
    yield from ((name, sparsity) for name in names)


def _point(
    shown: dict[str, Any],
    trace: Trace,
    name: str,
    sparsity: float | None,
    machine: Machine | None,
    error: str | None,
    numbers: Callable[[Snapshot], bool],
) -> Point:
    known = {snapshot.name: snapshot for snapshot in trace.snapshots}
    if name not in known:
        error = error or f"{shown['trace']}: snapshot: must be one of {', '.join(known)}, got {name}"
    elif sparsity is not None and sparsity < known[name].sparsity and numbers(known[name]):
        least = known[name].sparsity
        error = error or f"{shown['trace']}: sparsity: must be {least:g} or more, what {name} has, got {sparsity:g}"
    return Point(shown, shown["trace"], name, sparsity, None if error else machine, error)


def has_values(snapshot: Snapshot) -> bool:
    """Whether it holds numbers, which another Top-K can be applied to, rather than masks."""
    return all(layer.tensor(name).dtype != bool for layer in snapshot.layers for name in ("weight", "activation"))


def made_of(trace: Trace, sparsity: float, numbers: Callable[[Snapshot], bool] = has_values) -> Snapshot:
    """The snapshot that a sparsity is made of: numbers may only lose more, masks are drawn like the nearest."""
    least = min(trace.snapshots, key=lambda snapshot: snapshot.sparsity)
    return least if numbers(least) else nearest(trace, sparsity)
