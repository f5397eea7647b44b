"""Points of what was counted before: folders that ``run --out`` and ``sweep`` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

from accelsim import ledger
from accelsim.errors import ResultsError
from accelsim.study.points import compared
from accelsim.study.report.folders import read_run
from accelsim.sweeps.read import read_sweep
from accelsim.view.points import MOST_POINTS, LayerAccount, Point, point_of


class Results:
    """A folder as the page shows it."""

    points: list[Point]

    def layers(self, number: int) -> list[LayerAccount]:
        """The layers of a point."""
        raise NotImplementedError


class RunResults(Results):
    """Of a run: a point for each machine and snapshot."""

    def __init__(self, folder: Path):
        run = read_run(folder)
        table, self._worth = run.table, run.data.get("worth")
        self._groups = list(table.groupby(["machine", "snapshot"], sort=False))
        if not self._groups:
            raise ResultsError(f"{folder}: must have a layer")
        self.points = [self._point(names, rows) for names, rows in self._groups]

    def _point(self, names: Any, rows: Any) -> Point:
        machine, snapshot = names
        work = int(rows["dense_multiplications"].sum()) if "dense_multiplications" in rows else 0
        accounts = list(_accounts(rows.to_dict("records")))
        return point_of(f"{machine}, {snapshot}", str(snapshot), accounts, work, self._worth)

    def layers(self, number: int) -> list[LayerAccount]:
        return list(_accounts(self._groups[number][1].to_dict("records")))


class SweepResults(Results):
    """Of a sweep: its points that were computed."""

    def __init__(self, folder: Path):
        self._swept = read_sweep(folder)
        rows = compared(self._swept.table)
        if not len(rows):
            raise ResultsError(f"{folder}: must have a point that was computed")
        if len(rows) > MOST_POINTS:
            raise ResultsError(f"{folder}: must have at most {MOST_POINTS} points to be shown, has {len(rows)}")
        self._numbers = rows.index.tolist()
        table = self._swept.table
        varied = [name for name in map(str, table) if _is_setting(name) and table[name].nunique() > 1]
        first = table.drop_duplicates("point").set_index("point")
        told = [", ".join(f"{_short(name)} {first[name][number]}" for name in varied) for number in self._numbers]
        counted = zip(rows.to_dict("records"), told, strict=True)
        self.points = [_swept_point(row, label) for row, label in counted]

    @cached_property
    def _by_point(self) -> Any:
        return dict(list(self._swept.layers.groupby("point", sort=False)))

    def layers(self, number: int) -> list[LayerAccount]:
        rows = self._by_point.get(self._numbers[number])
        return [] if rows is None else list(_accounts(rows.to_dict("records")))


def _swept_point(row: Mapping[Any, Any], label: str) -> Point:
    energy = _number(row.get(ledger.ENERGY.column))
    group = ", ".join(str(row.get(name)) for name in ("trace", "snapshot", "sparsity"))
    return Point(
        label or str(row.get("machine")), int(row["cycles"]), int(row["multipliers"]),
        None if energy is None else energy * 1e-9, float(row["utilization"]), _number(row["per_multiplier"]), group,
    )  # fmt: skip


def _accounts(rows: Iterable[Mapping[Any, Any]]) -> Iterable[LayerAccount]:
    for row in rows:
        counted = ((count.name, _number(row.get(count.column))) for count in ledger.rows("slots"))
        slots = {name: int(value) for name, value in counted if value}
        energy, cycles = _number(row.get(ledger.ENERGY.column)), int(row["cycles"])
        if cycles:
            yield LayerAccount(str(row["layer"]), str(row["pass"]), cycles, int(row["multipliers"]), slots, energy)


def _number(value: Any) -> float | None:
    """None for what is missing."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if isnan(number) else number


def _is_setting(name: str) -> bool:
    """Whether a column is what a study sets, and not what was counted."""
    return name in ("machine", "trace", "snapshot", "sparsity") or "." in name or name == "clock_mhz"


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def read(folder: Path) -> Results:
    """A folder's points. Raises ResultsError where it is no folder of results, or a damaged one."""
    if (folder / "run.json").is_file():
        return RunResults(folder)
    if (folder / "sweep.json").is_file():
        return SweepResults(folder)
    raise ResultsError(f"{folder}: must be a trace (.npz), or a folder that accelsim run --out or sweep wrote")
