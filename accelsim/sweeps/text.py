"""What ``accelsim sweep`` says: what it is about to do, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from accelsim.ledger import CYCLES, EFFECTUAL
from accelsim.study.layout import new_table
from accelsim.study.results import fold

if TYPE_CHECKING:
    from accelsim.sweeps.estimate import Estimate
    from accelsim.sweeps.plan import Plan

FASTEST = 10
REASONS = 3
# Before the columns that a study sets; ``error`` is after them.
PLACE = ("point", "trace", "machine_file", "snapshot")


def plan_line(plan: Plan, guess: Estimate | None, out: Path) -> str:
    """How many points, how many of them are there, how long and how much memory the others take."""
    failed = sum(key is None for key in plan.keys)
    parts = [f"{len(plan.points):,} points, {plan.found:,} of them in {out}, {plan.missing:,} to compute"]
    parts += [f"{failed:,} cannot be"] if failed else []
    if guess:
        parts.append(f"about {_duration(guess.seconds)} and {guess.memory_bytes / 1e9:.1f} GB of memory")
    return ", ".join(parts)


def summary(table: pd.DataFrame, fidelity: pd.DataFrame | None, out: Path) -> Iterator[Table | Text]:
    """The points of fewest cycles, why others failed, how good a synthetic sparsity is, and where the files are."""
    done, failed = table[table["error"].isna()], table[table["error"].notna()]
    if len(done):
        yield _fastest(done)
    points, failures = table["point"].nunique(), failed.drop_duplicates("point")
    yield Text(f"{points - len(failures):,} points computed, {len(failures):,} failed")
    reasons = failures["error"].value_counts(sort=False)
    for reason, count in list(reasons.items())[:REASONS]:
        yield Text(f"  {count:,} × {reason}")
    if len(reasons) > REASONS:
        yield Text(f"  and {len(reasons) - REASONS:,} other reasons, in the column error")
    if fidelity is not None:
        yield _fidelity(fidelity)
    more = "" if fidelity is None else ", fidelity.csv"
    yield Text(f"in {out}: table.csv, table.parquet, layers.parquet, sweep.json{more}")


def report(table: pd.DataFrame, fidelity: pd.DataFrame | None, out: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "out": str(out),
        "points": int(table["point"].nunique()),
        "failed": int(table.loc[table["error"].notna(), "point"].nunique()),
        "table": json.loads(table.to_json(orient="records")),
        "fidelity": None if fidelity is None else fidelity.to_dict(orient="records"),
    }


def read_fidelity(out: Path) -> pd.DataFrame | None:
    """What the sweep left about its synthetic traces."""
    path = out / "fidelity.csv"
    return pd.read_csv(path) if path.is_file() else None


def _fastest(done: pd.DataFrame) -> Table:
    """Whatever differs between points, then sums over the passes."""
    columns = list(done.columns)
    varied = columns[len(PLACE) : columns.index("error")]
    differ = [name for name in (*PLACE[1:], *varied, "sparsity") if done[name].nunique() > 1]
    first = done.groupby("point", sort=False)[[*differ, "multipliers"]].first()
    sums = fold(done[["point", CYCLES.column, EFFECTUAL.column]], ["point"]).set_index("point")
    points = first.join(sums).sort_values(CYCLES.column, kind="stable")
    shown = points.head(FASTEST)
    title = f"The {len(shown)} points of fewest cycles of {len(points):,}, over passes and layers together"
    table = new_table(title)
    for name in ("point", *differ, "multipliers", "cycles", "utilization"):
        table.add_column(name, justify="right")
    for number, row in shown.iterrows():
        cycles = row[CYCLES.column]
        used = row[EFFECTUAL.column] / (cycles * row["multipliers"]) if cycles else 0
        cells = [f"{row['multipliers']:,}", f"{cycles:,}", f"{100 * used:.1f} %"]
        table.add_row(str(number), *(str(row[name]) for name in differ), *cells)
    return table


def _fidelity(errors: pd.DataFrame) -> Table:
    title = "Sparsities of no snapshot are made; where the trace has them, cycles made against cycles real"
    table = new_table(title)
    for name in ("trace", "machine", "sparsity", "pass", "error of the sum", "of a layer (RMS)"):
        table.add_column(name, justify="right")
    for row in errors.to_dict(orient="records"):
        error, layer = f"{100 * row['error']:+.1f} %", f"{100 * row['layer_error']:.1f} %"
        table.add_row(row["trace"], row["machine"], f"{100 * row['sparsity']:g} %", row["pass"], error, layer)
    return table


def _duration(seconds: float) -> str:
    """In the largest unit that leaves a number above one or two."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
