"""A run over time as tables, as data and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from accelsim.files import staged
from accelsim.hardware.machine import Machine
from accelsim.ledger import ENERGY
from accelsim.study import manifest
from accelsim.study.csv_file import write_csv
from accelsim.study.json_file import to_json
from accelsim.study.layout import new_table
from accelsim.study.over_time import OverTime

PERIODS = (1, 10, 100, 1000)
JOULES = 1e-12
UNITS = (("J", 1.0), ("mJ", 1e3), ("µJ", 1e6))


def tables(
    runs: Iterable[OverTime],
    machine: Machine,
    per_epoch: int | None = None,
    target: float | None = None,
    dense: dict[str, float] | None = None,
) -> Iterator[Table | Text]:
    """What was simulated, and the totals; each run's error beside them.

    ``dense`` are the cycles of a step of each run on the machine's dense self, by label.
    """
    runs = list(runs)
    for run in runs:
        yield _steps(run, per_epoch)
    totals = new_table(f"{machine.name}: whole runs, of the whole batch")
    headings = "run", "steps", "cycles", "± by leaving out", "filled in by", "seconds", "energy", "waiting", "Top-K"
    for heading in headings:
        totals.add_column(heading, justify="left" if heading == "run" else "right")
    for run in runs:
        totals.add_row(*_total_cells(run, machine))
    yield totals
    if target is not None:
        yield _target(runs, machine, target)
    yield from _period_table(runs, machine, dense or {})


def data(runs: Iterable[OverTime], machine: Machine) -> list[dict[str, Any]]:
    """Plain data, unrounded."""
    return [
        {
            "run": run.label,
            "machine": machine.name,
            "steps": len(run.steps),
            "filled_in_by": run.how,
            "errors_of_steps_left_out": run.errors,
            "total": {name: _number(run.total(name)) for name in run.counts},
            "total_cycles_error": run.total_error,
            "simulated": [{k: _number(v) for k, v in row.items()} for row in run.simulated.to_dict("records")],
            "per_step": {name: [_number(v) for v in values.tolist()] for name, values in run.counts.items()},
            "accuracy": run.notes.get("accuracy", {}),
        }
        for run in runs
    ]


def frame(runs: Iterable[OverTime]) -> pd.DataFrame:
    """One row per run and step."""
    return pd.concat([pd.DataFrame({"run": run.label, "step": run.steps, **run.counts}) for run in runs])


def write(folder: Path, runs: Iterable[OverTime], found: dict[str, Any]) -> None:
    """Writes over_time.csv and over_time.json into a folder, all or none. Raises OutputError."""
    with staged(folder) as stage:
        write_csv(frame(runs), stage / "over_time.csv")
        (stage / "over_time.json").write_text(to_json(found), encoding="utf-8")
        manifest.write(stage)


def _steps(run: OverTime, per_epoch: int | None) -> Table:
    table = new_table(f"{run.label}: simulated steps, and each as the others foretell it")
    for heading in ("step", "epoch", "cycles", "foretold", "off by", "energy", "waiting", "Top-K"):
        table.add_column(heading, justify="right")
    for row in run.simulated.to_dict("records"):
        foretold = row["left_out"]
        off = "–" if np.isnan(foretold) else f"{100 * (foretold / row['cycles'] - 1):+.1f} %"
        epoch = f"{row['step'] / per_epoch:.2f}" if per_epoch else "–"
        shares = (f"{100 * row[name] / row['cycles']:.1f} %" for name in ("stalls", "top_k"))
        told = "–" if np.isnan(foretold) else f"{foretold:,.0f}"
        table.add_row(
            f"{row['step']:.0f}", epoch, f"{row['cycles']:,.0f}", told, off, joules(row[ENERGY.column]), *shares
        )
    return table


def _total_cells(run: OverTime, machine: Machine) -> list[str]:
    cycles = run.total()
    shares = [f"{100 * run.total(name) / cycles:.1f} %" for name in ("stalls", "top_k")]
    seconds = f"{cycles / machine.clock_mhz / 1e6:.3g}"
    error, energy = f"{100 * run.total_error:.1f} %", joules(run.total(ENERGY.column))
    return [run.label, f"{len(run.steps):,}", f"{cycles:.4g}", error, run.how, seconds, energy, *shares]


def _target(runs: list[OverTime], machine: Machine, target: float) -> Table:
    table = new_table(f"{machine.name}: up to an accuracy of {100 * target:g} %")
    for heading in ("run", "step", "cycles", "seconds", "energy", "accuracy at the end"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for run in runs:
        noted, step = run.notes.get("accuracy", {}), run.reached(target)
        last = f"{100 * noted[max(noted)]:.1f} %" if noted else "not noted"
        if step is None:
            table.add_row(run.label, "not reached", "–", "–", "–", last)
            continue
        cycles = run.until(step)
        seconds = f"{cycles / machine.clock_mhz / 1e6:.3g}"
        table.add_row(run.label, f"{step:,}", f"{cycles:.4g}", seconds, joules(run.until(step, ENERGY.column)), last)
    return table


def _period_table(runs: list[OverTime], machine: Machine, dense: dict[str, float]) -> Iterator[Table | Text]:
    """Equations 7 and 8 on one's own run: what the search for thresholds leaves of the speedup, by its period."""
    cost = machine.overheads.top_k if machine.overheads else None
    sparse = [run for run in runs if run.total("top_k")]
    if cost is None or not sparse:
        why = "the machine has no overheads; --overheads swat.yaml gives it some" if cost is None else "none ran"
        yield Text(f"Top-K costs nothing here: {why}")
        return
    table = new_table(f"{machine.name}: speedup over its dense self by the period of Top-K (equations 7 and 8)")
    for heading in ("run", *(f"every {p:,}" for p in PERIODS), "without Top-K"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    own = cost.threshold_comparisons + cost.search_comparisons / cost.period
    for run in sparse:
        rest, searched = run.total() - run.total("top_k"), run.total("top_k")
        costs = [searched * (cost.threshold_comparisons + cost.search_comparisons / p) / own for p in PERIODS]
        whole = dense.get(run.label, float("nan")) * len(run.steps)
        table.add_row(run.label, *(f"{whole / (rest + each):.2f}×" for each in [*costs, 0.0]))
    yield table


def joules(picojoules: float) -> str:
    """With a unit that fits; a dash where not known."""
    if np.isnan(picojoules):
        return "–"
    value = picojoules * JOULES
    unit, scale = next((pair for pair in UNITS if value * pair[1] >= 1), UNITS[-1])
    return f"{value * scale:.3g} {unit}"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
