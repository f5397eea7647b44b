"""A study: which points a sweep computes. Read from YAML, or given as plain data."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import accelsim
from accelsim.errors import AccelsimError, ConfigError
from accelsim.hardware.machine import Machine, load_machine, load_section, parse_machine, validated
from accelsim.hardware.parameters import Parameters, check, option
from accelsim.workload.lowering import PASSES
from accelsim.workload.synthetic import reference_of

MOST_POINTS = 1_000_000
# Keys of a grid that are not keys of the machine.
OWN = ("trace", "machine", "snapshot", "sparsity")


class Study(Parameters):
    """What a study file says. ``grid`` takes all combinations, ``points`` a list; both may be given."""

    trace: str | list[str] = option("trace, or traces")
    machine: str | list[str] = option("machine file, or files")
    passes: list[str] = option("passes", default=list(PASSES))
    layers: list[str] = option("shell patterns on layer names", default=["*"])
    snapshots: list[str] | None = option("snapshots of the traces; by default all", default=None)
    grid: dict[str, list[Any]] = option(
        "values of machine keys (accelerator.lanes), or of trace, machine, snapshot, sparsity", default={}
    )
    points: list[dict[str, Any]] = option("points by themselves: such keys, one value each", default=[])

    @check
    def _has_points(self):
        for name, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{name} must have a value")
        count = 1
        for values in self.grid.values():
            count *= len(values)
        if count + len(self.points) > MOST_POINTS:
            raise ValueError(f"a study must have at most {MOST_POINTS:,} points, got {count + len(self.points):,}")
        return self

    def settings(self) -> Iterator[dict[str, Any]]:
        """What each point sets, in the order of the table: the last key of the grid turns fastest."""
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


def load_study(file: str | Path | dict) -> Study:
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

    def key(self, digest: str, layers: tuple[str, ...], passes: tuple[str, ...]) -> str:
        """What determines its result, as a digest."""
        determined = {
            "code": code_digest(),
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
    root = Path(accelsim.__file__).parent
    digest = hashlib.sha256(accelsim.__version__.encode())
    for path in sorted([*root.glob("workload/**/*.py"), *root.glob("hardware/**/*.py"), root / "simulate.py"]):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def machine_with(file: str, settings: dict[str, Any]) -> Machine:
    """A machine file with some keys changed.

    Raises
    ------
    ConfigError
        If a key is unknown or its value not allowed; it names the keys that were set.
    """
    data = copy.deepcopy(_resolved(file))
    for name, value in settings.items():
        *path, last = name.split(".")
        section = data
        for part in path:
            section = section.setdefault(part, {}) if isinstance(section, dict) else None
            if not isinstance(section, dict):
                raise ConfigError(f"{file}: {name}: must be a key of a section")
        if last == "preset":  # it fills in what is not given, so nothing else may be
            section.clear()
        section[last] = value
    changed = ", ".join(f"{name}={value}" for name, value in settings.items())
    return parse_machine(data, f"{file} with {changed}" if changed else file)


@cache
def _resolved(file: str) -> dict[str, Any]:
    return load_machine(file).resolved()


def points_of(study: Study, traces: dict[str, Any]) -> Iterator[Point]:
    """The points of a study in the order of its table; ``traces``: open traces by name."""
    for settings in study.settings():
        machine, error = None, None
        try:
            machine = machine_with(settings["machine"], {k: v for k, v in settings.items() if k not in OWN})
        except AccelsimError as problem:
            error = str(problem)
        trace = traces[settings["trace"]]
        wanted = [settings["snapshot"]] if "snapshot" in settings else study.snapshots
        if "sparsity" in settings and wanted is None:  # of one snapshot any sparsity is made
            wanted = [reference_of(trace).name]
        for snapshot in trace.snapshots:
            if wanted is None or snapshot.name in wanted:
                shown = {k: v for k, v in settings.items() if k != "snapshot"}
                yield Point(shown, settings["trace"], snapshot.name, settings.get("sparsity"), machine, error)
