"""What a report shows of a sweep's folder: its points compared, the Pareto front, why others have no counts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from accelsim import ledger
from accelsim.errors import ResultsError
from accelsim.ledger import CYCLES, EFFECTUAL, ENERGY
from accelsim.study.csv_file import unquoted
from accelsim.study.points import MACHINE, compared, failures
from accelsim.study.report.common import bullets, chart_html, filter_html
from accelsim.study.report.folders import LARGEST, read_json
from accelsim.study.report.page import (
    Cell,
    Page,
    Section,
    count,
    details,
    downloads,
    esc,
    flat,
    mj,
    percent,
    table,
    times,
)
from accelsim.study.tables import short

MEANING = (
    "Speedup is over the first point that was computed, for equal work; for each multiplier: over as many multipliers "
    "that multiply zeros too and are always busy. On the Pareto front are the points of each trace, snapshot and "
    "sparsity that no other beats in cycles, multipliers and, where it is known, energy together."
)
RULE: dict[str, Any] = {"accelsim": {}, "study": {}, "traces": {}, "machines": {}}
TEXTS = ("trace", "machine_file", "snapshot", "machine", "pass", "error")
NEEDED = ("point", *TEXTS, "sparsity", "multipliers", "baseline_multipliers", "cycles", EFFECTUAL.column)
MOST = 2000  # points in the page's table; table.csv has all


def page_of(folder: Path) -> Page:
    """The page of a folder that ``accelsim sweep`` wrote. Raises ResultsError."""
    data, files = read_json(folder, "sweep.json", RULE, ("table.csv",))
    rows = read_points(folder / "table.csv", files["table.csv"])
    points = compared(rows)
    title = ", ".join(map(str, data["traces"])) or "no trace"
    sections = [
        Section("points", "Points", _points(rows, points)),
        Section("provenance", "Provenance", _provenance(data)),
        Section("files", "Files", "<p>The results as they were written, inside this page:</p>" + downloads(files)),
    ]
    return Page(
        title=f"{rows['point'].nunique():,} points of a sweep on {title}",
        lead=f"{len(points):,} points computed, {int(points['front'].sum()):,} on the Pareto front; passes and layers "
        "together.",
        sections=sections,
        data={"charts": [_front(points)]},
        generator=f"accelsim {data['accelsim'].get('accelsim', '')}".strip(),
    )


def read_points(path: Path, content: bytes) -> pd.DataFrame:
    """A sweep's table.csv, checked. Raises ResultsError with the column and the rule."""
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, na_values={}, encoding="utf-8")
    except (ValueError, OSError) as error:
        raise ResultsError(f"{path}: must be CSV, but is damaged: {error}") from error
    missing = [name for name in NEEDED if name not in table]
    if missing and not (table.get("error", pd.Series([""])) != "").all():
        raise ResultsError(f"{path}: has no column {', '.join(missing)}")
    known = {"point", "sparsity", *MACHINE, *(row.column for row in ledger.rows())}
    failed = table["error"] != ""
    for name in table.columns.intersection([*known]):
        unknown = table[name] == ""
        numbers = pd.to_numeric(table[name].mask(unknown), errors="coerce")
        fine = numbers.between(0, LARGEST) | (
            unknown & (failed | (name in (*ledger.columns("energy", "total"), "area_mm2")))
        )
        if not fine.all():
            odd = str(table[name][~fine].iloc[0])[:40] or "nothing"
            raise ResultsError(f"{path}: column {name} must hold numbers from 0, not {odd}")
        table[name] = numbers
    for name in table.columns.difference([*known]):
        table[name] = table[name].map(unquoted)
    table["error"] = table["error"].where(failed)
    computed = table[~failed]
    if len(computed) and not (computed[[CYCLES.column, "multipliers", "baseline_multipliers"]] > 0).all(axis=None):
        raise ResultsError(f"{path}: columns cycles, multipliers and baseline_multipliers must be above 0")
    return table


def _points(rows: pd.DataFrame, points: pd.DataFrame) -> str:
    """A chart of cycles over multipliers, every point in a table, and why others have no counts."""
    lost = [f"{name}: none of its points could be computed ({why})" for name, why in failures(rows).items()]
    errors = rows.loc[rows["error"].notna()].drop_duplicates("point")["error"].value_counts(sort=False)
    reasons = bullets(f"{n:,} × {why}" for why, n in errors.items())
    parts = [f"<p>{esc(MEANING)}</p>", chart_html("front", "Cycles over multipliers"), bullets(lost)]
    parts.append(_table(rows, points))
    return "".join(parts) + (f"<h3>Points without counts</h3>{reasons}" if reasons else "")


def _table(rows: pd.DataFrame, points: pd.DataFrame) -> str:
    """Whatever differs between points, and what they come to; those of fewest cycles first."""
    columns = list(rows.columns)
    own = [name for name in columns[: columns.index("error")] if name not in ("point", "made")]
    differ = [name for name in [*own, "sparsity"] if rows.loc[rows["error"].isna(), name].nunique() > 1]
    settings = rows.groupby("point", sort=False)[differ].first()
    shown = points[~settings.reindex(points.index).duplicated()] if differ else points  # of equal points one
    shown = shown.sort_values(CYCLES.column, kind="stable").head(MOST) if len(points) else points
    energy = {"energy": "energy, mJ"} if ENERGY.column in points and points[ENERGY.column].notna().any() else {}
    area = {"area": "GMAC/s/mm²"} if len(points) and points["gmacs_per_mm2"].notna().any() else {}
    headings = {"point": "point", **{name: name for name in differ}, "multipliers": "multipliers", "cycles": "cycles"}
    headings |= {"speedup": "speedup", "per_multiplier": "for each multiplier", "utilization": "utilization"}
    cells = []
    for number, row in zip(shown.index, shown.to_dict("records"), strict=True):
        cell = [count(row["multipliers"]), count(row[CYCLES.column]), times(row["speedup"])]
        cell += [times(row["per_multiplier"]), percent(row["utilization"])]
        cell += [mj(None if pd.isna(row[ENERGY.column]) else row[ENERGY.column])] if energy else []
        cell += [Cell(short(row["gmacs_per_mm2"]), row["gmacs_per_mm2"])] if area else []
        named = (settings[name][number] for name in differ)
        cells.append([str(number), *map(_text, named), *cell, "front" if row["front"] else ""])
    headings |= energy | area | {"front": "Pareto front"}
    whole = table(headings, cells, name="point-table", caption="Points", sortable=True)
    return filter_html("tensordash front", len(shown)) + whole


def _front(points: pd.DataFrame) -> dict[str, Any]:
    """Cycles over multipliers, the front apart."""
    front = points["front"].astype(bool)
    series = {}
    for name, chosen in (("others", points[~front]), ("Pareto front", points[front])):
        records = chosen.to_dict("records")
        series[name] = {
            "x": [row["multipliers"] for row in records],
            "y": [row[CYCLES.column] for row in records],
            "said": [_said(number, row) for number, row in zip(chosen.index, records, strict=True)],
        }
    return {"name": "front", "scatter": series, "x": "multipliers", "y": "cycles"}


def _said(number: Any, row: Mapping[Any, Any]) -> str:
    return f"point {number}: {row.get('machine', '')}, {row['snapshot']}: {row[CYCLES.column]:,.0f} cycles"


def _text(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _provenance(data: dict[str, Any]) -> str:
    """The study, traces and machines that the points are of."""
    rows = [*flat({"accelsim": data["accelsim"]}), *flat({"trace": data["traces"]}), *flat({"study": data["study"]})]
    first = table({"key": "key", "value": "value"}, rows, name="origin", caption="This sweep")
    keys = table(
        {"key": "key", "value": "value"}, flat(data["machines"]), name="machine-keys", caption="Machines, resolved"
    )
    return first + details("Every key of the machines, before the points change them", keys)
