"""What ``accelsim sweep`` says: what it is about to do, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from accelsim.ledger import CYCLES, ENERGY
from accelsim.study.layout import new_table
from accelsim.study.points import compared, failures
from accelsim.study.tables import percent, short, times

if TYPE_CHECKING:
    from accelsim.sweeps.estimate import Estimate
    from accelsim.sweeps.plan import Plan

FASTEST, FRONT, MOST_NAMED = 10, 10, 20
PER_MULTIPLIER = "speedup over as many multipliers that multiply zeros too and are always busy"
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
    """The points compared, why others failed, how good a synthetic sparsity is, and where the files are."""
    done, failed = table[table["error"].isna()], table[table["error"].notna()]
    if len(done):
        yield from _compared(done)
    for machine, why in failures(table).items():
        yield Text(f"{machine} is not in the table: none of its points could be computed ({why})")
    points, lost = table["point"].nunique(), failed.drop_duplicates("point")
    yield Text(f"{points - len(lost):,} points computed, {len(lost):,} failed")
    reasons = lost["error"].value_counts(sort=False)
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
    points = compared(table).reset_index()
    told = ["point", "speedup", "per_multiplier", "gmacs_per_mm2", "utilization", "front"]
    return {
        "out": str(out),
        "points": int(table["point"].nunique()),
        "failed": int(table.loc[table["error"].notna(), "point"].nunique()),
        "compared": json.loads(points[told].to_json(orient="records")),
        "left_out": failures(table),
        "table": json.loads(table.to_json(orient="records")),
        "fidelity": None if fidelity is None else fidelity.to_dict(orient="records"),
    }


def read_fidelity(out: Path) -> pd.DataFrame | None:
    """What the sweep left about its synthetic traces."""
    path = out / "fidelity.csv"
    return pd.read_csv(path) if path.is_file() else None


def _compared(done: pd.DataFrame) -> Iterator[Table | Text]:
    """Whatever differs between points, then sums over the passes: the fastest, the front, the best of each machine."""
    columns = list(done.columns)
    varied = columns[len(PLACE) : columns.index("error")]
    differ = [name for name in (*PLACE[1:], *varied, "sparsity") if done[name].nunique() > 1]
    points = compared(done)
    settings = done.groupby("point", sort=False)[differ].first().reindex(points.index)
    points = points[~settings.duplicated() if differ else slice(None)].sort_values(CYCLES.column, kind="stable")
    best = points.groupby("machine_file", sort=False).head(1).index
    front = points.index[points["front"]]
    chosen = points.index[:FASTEST].union(best, sort=False).union(front[:FRONT], sort=False)
    shown = points.loc[[number for number in points.index if number in chosen]]
    first = done["point"].iloc[0]
    energy = ENERGY.column in points and points[ENERGY.column].notna().any()
    area = points["gmacs_per_mm2"].notna().any()
    of = f"The {len(shown):,} of {len(points):,} points" if len(shown) < len(points) else f"The {len(points):,} points"
    table = new_table(f"{of} by cycles, over passes and layers together; speedup over point {first}")
    headings = ("multipliers", "cycles", "speedup", "for each\nmultiplier", "utilization", *(["mJ"] if energy else []))
    headings += ("GMAC/s\n/mm²",) if area else ()
    for name in ("point", *differ, *headings, "Pareto\nfront"):
        table.add_column(name, justify="right")
    for (number, row), named in zip(shown.iterrows(), settings.loc[shown.index].to_numpy(), strict=True):
        cells = [f"{row['multipliers']:,.0f}", f"{row[CYCLES.column]:,.0f}"]
        cells += [times(row["speedup"]), times(row["per_multiplier"]), percent(row["utilization"])]
        cells += [_mj(row[ENERGY.column])] if energy else []
        cells += [_known(row["gmacs_per_mm2"])] if area else []
        table.add_row(str(number), *map(str, named), *cells, "●" if row["front"] else "")
    yield table
    costs = "cycles, multipliers and energy" if energy else "cycles and multipliers"
    more = f" and {len(front) - MOST_NAMED:,} more" if len(front) > MOST_NAMED else ""
    numbers = ", ".join(str(number) for number in sorted(front)[:MOST_NAMED]) + more
    yield Text(f"Pareto front, of the points of each trace, snapshot and sparsity by {costs}: point {numbers}")
    yield Text(f"for each multiplier: {PER_MULTIPLIER}")
    if len(shown) < len(points):
        yield Text(
            f"shown: the {min(FASTEST, len(points))} of fewest cycles, the best of each machine, "
            f"and of the front {min(FRONT, len(front))}; {len(points) - len(shown):,} others are in table.csv"
        )


def _mj(energy_pj: float) -> str:
    return _known(energy_pj * 1e-9)


def _known(value: float) -> str:
    return short(None if pd.isna(value) else value)


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
