"""What ``accelsim diff`` tells: which keys, layers, passes and causes differ between two machines, traces or runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.text import Text

from accelsim import ledger
from accelsim.errors import ResultsError, printable
from accelsim.hardware.machine import Machine
from accelsim.ledger import CYCLES, ENERGY
from accelsim.study.layout import new_table
from accelsim.study.report.folders import Run, read_run
from accelsim.study.results import fold
from accelsim.study.tables import count, short
from accelsim.workload.metadata import TENSORS
from accelsim.workload.trace import Layer, Snapshot, Trace

KEYS = ["snapshot", "layer", "pass"]
# What two runs are judged by, where both know it.
FIGURES = (CYCLES.column, ENERGY.column, *ledger.columns("actions", place="offchip"))
ABSENT = "—"
SHOWN = 18  # rows of a table that a person reads; JSON has all
WIDEST = 22  # letters of a value that a person reads, so that a key and two values are a line


@dataclass(frozen=True)
class Diff:
    """Two of a kind, A and B.

    Parameters
    ----------
    kind
        What both are.
    a, b
        Their names.
    keys
        What went in and differs: {"key", "a", "b"}; None where one has no such key.
    only
        What only one has, by "a" and "b": layers of traces, and rows of runs.
    figures
        Of runs, by snapshot and pass: {"snapshot", "pass", "count", "unit", "a", "b", "change"}; of traces by snapshot,
        layer and tensor: {"snapshot", "layer", "tensor", "count": "nonzeros", …}. ``change`` is b / a − 1, None where
        a is 0. Only those that differ, the largest difference first.
    causes
        Of runs: {"snapshot", "pass", "cause", "a", "b"}: cycles of the whole array that slots were used for or lost to.
    layers
        Of runs: {"snapshot", "layer", "pass", "a", "b", "change", "cause", "of_cause"}: cycles, and the cause that
        moved most, by so many.
    """

    kind: Literal["machines", "traces", "runs"]
    a: str
    b: str
    keys: list[dict[str, Any]] = field(default_factory=list)
    only: dict[str, list[str]] = field(default_factory=lambda: {"a": [], "b": []})
    figures: list[dict[str, Any]] = field(default_factory=list)
    causes: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs but where both were read."""
        return not (self.keys or self.only["a"] or self.only["b"] or self.figures or self.causes)

    def beyond(self, percent: float) -> list[dict[str, Any]]:
        """Figures that differ by more than so many percent of A's, and all where A has none."""
        return [row for row in self.figures if row["change"] is None or 100 * abs(row["change"]) > percent]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


# Machines -----------------------------------------------------------------------------------------------------------


def diff_machines(a: Machine, b: Machine, names: tuple[str, str]) -> Diff:
    """Every key, defaults filled in."""
    return Diff("machines", *names, keys=list(_keys(a.resolved(), b.resolved())))


def _keys(a: object, b: object, path: str = "") -> Iterator[dict[str, Any]]:
    """Leaves of plain data that differ, by their dotted names."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from _keys(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
    elif a != b:
        yield {"key": path, "a": a, "b": b}


# Traces -------------------------------------------------------------------------------------------------------------


def diff_traces(a: Trace, b: Trace) -> Diff:
    """Snapshots and layers by name; reads every tensor that both have, one of each at a time."""
    keys = [row for key in ("network", "dataset", "provenance") for row in _keys(getattr(a, key), getattr(b, key), key)]
    ours, theirs = ({s.name: s for s in trace.snapshots} for trace in (a, b))
    names = str(a.path), str(b.path)
    found = Diff("traces", *names, keys=keys, only={"a": [*_missing(ours, theirs)], "b": [*_missing(theirs, ours)]})
    if a.digest == b.digest:
        return found
    for name in (name for name in ours if name in theirs):
        _add_snapshot(found, ours[name], theirs[name])
    found.figures.sort(key=lambda row: -abs(row["b"] - row["a"]))
    return found


def _missing(one: Iterable[str], other: Iterable[str], before: str = "") -> Iterator[str]:
    yield from (before + name for name in one if name not in other)


def _add_snapshot(found: Diff, a: Snapshot, b: Snapshot) -> None:
    for key in ("sparsity", "algorithm", "step", "batch", "coverage"):
        found.keys.extend(_keys(getattr(a, key), getattr(b, key), f"{a.name}.{key}"))
    ours, theirs = ({layer.name: layer for layer in s.layers} for s in (a, b))
    found.only["a"].extend(_missing(ours, theirs, f"{a.name}/"))
    found.only["b"].extend(_missing(theirs, ours, f"{a.name}/"))
    for name in (name for name in ours if name in theirs):
        own, other = ours[name], theirs[name]
        for key in ("kind", "samples", "batch", "passes"):
            found.keys.extend(_keys(getattr(own, key), getattr(other, key), f"{a.name}/{name}.{key}"))
        own_part, other_part = (layer.part and layer.part.as_dict() for layer in (own, other))
        found.keys.extend(_keys(own_part, other_part, f"{a.name}/{name}.part"))
        found.keys.extend(_keys(own.geometry.as_dict(), other.geometry.as_dict(), f"{a.name}/{name}.geometry"))
        for tensor in TENSORS:
            found.figures.extend(_tensor(a.name, own, other, tensor))


def _tensor(snapshot: str, a: Layer, b: Layer, tensor: str) -> Iterator[dict[str, Any]]:
    """Non-zeros of one tensor in both, where any value differs."""
    held = [layer.tensor(tensor) if tensor in layer.tensors else None for layer in (a, b)]
    first, second = held
    if first is None and second is None:
        return
    if first is not None and second is not None and first.dtype == second.dtype and np.array_equal(first, second):
        return
    nonzeros = [0 if array is None else int(np.count_nonzero(array)) for array in held]
    where = {"snapshot": snapshot, "layer": a.name, "tensor": tensor, "count": "nonzeros", "unit": "values"}
    stored = {f"of_{side}": 0 if array is None else array.size for side, array in zip("ab", held, strict=True)}
    yield where | _sides(*nonzeros) | stored


# Runs ---------------------------------------------------------------------------------------------------------------


def diff_runs(a: Path, b: Path) -> Diff:
    """Two folders that ``accelsim run --out`` wrote, layer by layer and pass by pass.

    Counts are of the samples that were stored; where the two stored other numbers of them, of a sample.

    Raises
    ------
    ResultsError
        If one is no such folder, or nothing in one is in the other.
    """
    runs = read_run(a), read_run(b)
    tables = _per_sample(*(run.table.set_index(KEYS) for run in runs))
    both = tables[0].index.intersection(tables[1].index, sort=False)
    if both.empty:
        raise ResultsError(f"{b}: must have a layer and pass of {a}, but has none")
    only = {
        side: ["/".join(row) for row in own.index.difference(both, sort=False)]
        for side, own in zip("ab", tables, strict=True)
    }
    matched = [table.loc[both] for table in tables]
    return Diff(
        "runs", str(a), str(b), keys=list(_inputs(*runs)), only=only, figures=list(_figures(*matched)),
        causes=list(_causes(*matched)), layers=sorted(_layers(*matched), key=lambda row: -abs(row["b"] - row["a"])),
    )  # fmt: skip


def _inputs(a: Run, b: Run) -> Iterator[dict[str, Any]]:
    """Keys of the machine, the trace and the program that differ."""
    ours, theirs = (run.data["provenance"] for run in (a, b))
    yield from _keys({"accelsim": ours["accelsim"]}, {"accelsim": theirs["accelsim"]})
    yield from _keys(ours["trace"]["sha256"], theirs["trace"]["sha256"], "trace.sha256")
    yield from _keys(ours["machines"][0], theirs["machines"][0])


def _per_sample(a: pd.DataFrame, b: pd.DataFrame) -> list[pd.DataFrame]:
    """Both as they are, or, where they stored other numbers of samples, divided by them."""
    samples = a["samples"].align(b["samples"], join="inner")
    if samples[0].equals(samples[1]):
        return [a, b]
    counted = [row.column for row in ledger.rows()]
    return [t.assign(**{c: t[c] / t["samples"] for c in counted if c in t}) for t in (a, b)]


def _figures(a: pd.DataFrame, b: pd.DataFrame) -> Iterator[dict[str, Any]]:
    known = {row.column: row for row in ledger.rows()}
    counts = [known[column] for column in FIGURES if column in a and column in b]
    folded = [_records(fold(table.reset_index(), ["snapshot", "pass"], counts)) for table in (a, b)]
    for row in counts:
        for own, other in zip(*folded, strict=True):
            pair = own[row.column], other[row.column]
            if pair[0] != pair[1] and not any(map(pd.isna, pair)):
                where = {"snapshot": own["snapshot"], "pass": own["pass"], "count": row.column, "unit": row.unit}
                yield where | _sides(*pair)


def _sides(a: float, b: float) -> dict[str, Any]:
    a, b = (int(n) if float(n).is_integer() else float(n) for n in (a, b))
    return {"a": a, "b": b, "change": b / a - 1 if a else None}


def _lost(table: pd.DataFrame) -> pd.DataFrame:
    """Cycles of the whole array by cause; the first is what was effectual."""
    columns = [row.column for row in ledger.rows("slots") if row.column in table]
    return table[columns].div(table["multipliers"], axis=0)


def _causes(a: pd.DataFrame, b: pd.DataFrame) -> Iterator[dict[str, Any]]:
    groups = ["snapshot", "pass"]
    ours, theirs = (_lost(table).groupby(groups, sort=False).sum() for table in (a, b))
    ours, theirs = ours.align(theirs, join="outer", axis=1, fill_value=0.0)
    for own, other in zip(*(_records(table) for table in (ours, theirs)), strict=True):
        where = {key: own.pop(key) for key in groups}
        for column, before in own.items():
            if abs(other[column] - before) > 1e-9:
                yield where | {"cause": _words(column), "a": before, "b": other[column]}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.reset_index().to_dict("records")  # type: ignore[assignment]
    return rows


def _layers(a: pd.DataFrame, b: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Those whose cycles differ, the largest difference first."""
    lost = _lost(a).align(_lost(b), join="outer", axis=1, fill_value=0.0)
    moved = lost[1] - lost[0]
    cause = moved.abs().idxmax(axis=1)
    rows = pd.DataFrame({"a": a[CYCLES.column], "b": b[CYCLES.column], "cause": cause})
    for row, of_causes in zip(_records(rows), moved.to_dict("records"), strict=True):
        if row["a"] != row["b"]:
            by = {"cause": _words(row["cause"]), "of_cause": of_causes[row["cause"]]}
            yield {key: row[key] for key in KEYS} | _sides(row["a"], row["b"]) | by


def _words(column: str) -> str:
    known = {row.column: row.words for row in ledger.rows("slots")}
    return known.get(column, column)


# For people ---------------------------------------------------------------------------------------------------------


def shown(found: Diff) -> Iterator[object]:
    """Tables, or one line that says that nothing differs."""
    yield Text(f"A  {found.a}")
    yield Text(f"B  {found.b}")
    if found.is_equal:
        yield Text(f"The {found.kind} are the same.")
    else:
        yield from _key_table(found)
        yield from _figure_table(found)
        yield from _cause_table(found)
        yield from _layer_table(found)
    for side, names in found.only.items():
        if names:
            listed = ", ".join(printable(name) for name in names[:SHOWN])
            more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
            yield Text(f"only in {side.upper()}: {listed}{more}")


def verdict(threshold: float | None, beyond: list[dict[str, Any]], lost: list[str]) -> Iterator[object]:
    """What a threshold says: figures beyond it, and what only one has, in a line."""
    if threshold is None:
        return
    yield Text()
    if not beyond and not lost:
        yield Text(f"no figure differs by more than {threshold:g} %")
        return
    differ = "figure differs" if len(beyond) == 1 else "figures differ"
    parts = [f"{len(beyond):,} {differ} by more than {threshold:g} %"]
    parts += [f"{len(lost):,} only in one"] if lost else []
    yield Text(", ".join(parts), style="red")


def _table(title: str, headings: Iterable[str], rows: list[list[str]], numbers: int) -> Iterator[object]:
    """The first rows of a table whose last columns are numbers, and how many there are in all."""
    if not rows:
        return
    table = new_table(title)
    headings = list(headings)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i >= len(headings) - numbers else "left")
    for row in rows[:SHOWN]:
        table.add_row(*map(printable, row))
    yield Text()
    yield table
    if len(rows) > SHOWN:
        yield Text(f"  the first {SHOWN} of {len(rows):,}; --json has all")


def _key_table(found: Diff) -> Iterator[object]:
    rows = [[row["key"], _value(row["a"]), _value(row["b"])] for row in found.keys]
    yield from _table("What went in", ("key", "A", "B"), rows, 0)


def _figure_table(found: Diff) -> Iterator[object]:
    if found.kind == "traces":
        rows = [
            [r["snapshot"], r["layer"], r["tensor"], *(_share(r[s], r[f"of_{s}"]) for s in "ab"), _change(r)]
            for r in found.figures
        ]
        heads = ("snapshot", "layer", "tensor", "density, A", "density, B", "non-zeros")
        yield from _table("Tensors that differ", heads, rows, 3)
        return
    rows = [
        [_NAMES[r["count"]], r["snapshot"], r["pass"], *(_total(r, side) for side in "ab"), _change(r)]
        for r in found.figures
    ]
    heads = ("", "snapshot", "pass", "A", "B", "change")
    yield from _table("Totals that differ, over all layers of both", heads, rows, 3)


_NAMES = dict(zip(FIGURES, ("cycles", "energy, mJ", "bytes read off chip", "bytes written off chip"), strict=True))


def _total(row: Mapping[str, Any], side: str) -> str:
    return short(row[side] / 1e9) if row["unit"] == "pJ" else _count(row[side])


def _cause_table(found: Diff) -> Iterator[object]:
    ordered = sorted(found.causes, key=lambda r: -abs(r["b"] - r["a"]))
    rows = [
        [r["snapshot"], r["pass"], r["cause"], _count(r["a"]), _count(r["b"]), f"{r['b'] - r['a']:+,.0f}"]
        for r in ordered
    ]
    title = "Where the cycles went: slots of each cause over multipliers, in cycles"
    yield from _table(title, ("snapshot", "pass", "cause", "A", "B", "B − A"), rows, 3)


def _layer_table(found: Diff) -> Iterator[object]:
    rows = [
        [r["snapshot"], r["layer"], r["pass"], r["cause"], _count(r["a"]), _count(r["b"]), _change(r)]
        for r in found.layers
    ]
    heads = ("snapshot", "layer", "pass", "most of it", "cycles, A", "cycles, B", "change")
    yield from _table("Layers that moved most", heads, rows, 3)


def _value(value: object) -> str:
    text = ABSENT if value is None else str(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _count(number: float) -> str:
    """An integer with separators; others rounded to one."""
    return count(round(number))


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else ABSENT


def _change(row: Mapping[str, Any]) -> str:
    return ABSENT if row["change"] is None else f"{100 * row['change']:+.2f} %"
