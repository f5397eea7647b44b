"""Records as a tidy table, and the ratios that a summary shows. All pandas is in ``accelsim.study``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import pandas as pd

from accelsim.hardware.accelerators.base import CAUSES
from accelsim.simulate import Record

COLUMNS = ("fwd", "input_grad", "weight_grad", "backward", "step")
SUMS = {"backward": ("input_grad", "weight_grad"), "step": ("fwd", "input_grad", "weight_grad")}
SNAPSHOT = ("snapshot", "sparsity")


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per snapshot × layer × machine × pass; a column of multiplier slots for each cause.

    Counts are integers. ``which`` becomes ``pass``; ``slots[cause]`` becomes ``<cause>_slots``.
    """
    names = [field.name for field in fields(Record) if field.name != "slots"]
    rows = [
        [getattr(record, name) for name in names] + [record.slots.get(cause, 0) for cause in CAUSES]
        for record in records
    ]
    table = pd.DataFrame(rows, columns=[*names, *(f"{cause}_slots" for cause in CAUSES)])
    return table.rename(columns={"which": "pass"})


@dataclass(frozen=True)
class Summary:
    """The ratios of one run, one row per snapshot: each a list of {"snapshot", "sparsity", "fwd", …, "step"}.

    A pass that was not simulated, and a speedup that has nothing to compare with, is None.

    Parameters
    ----------
    machine, multipliers, baseline, baseline_multipliers
        The machine, and the one it is compared with, if any.
    layers : str
        What it is over: "convolutions", "linear layers", or both.
    speedup
        Over the first snapshot with sparsity 0, on the same machine.
    speedup_over_baseline
        Over the baseline machine, on the same snapshot.
    bound
        Effectual multiplications at sparsity 0 over those of the snapshot: what skipping every zero would gain.
    utilization
        Effectual multiplications over cycles × multipliers.
    cycles, baseline_cycles
        Counts.
    """

    machine: str
    multipliers: int
    baseline: str | None
    baseline_multipliers: int | None
    layers: str
    speedup: list[dict]
    speedup_over_baseline: list[dict]
    bound: list[dict]
    utilization: list[dict]
    cycles: list[dict]
    baseline_cycles: list[dict]


def summarize(table: pd.DataFrame, machine: str, baseline: str | None = None) -> Summary:
    """The ratios of one machine, and over a baseline machine, from the rows of a table from ``frame``.

    Give it only the rows that are to count; ``convolutions`` picks those of the paper's Table 6.
    """
    own, other = table[table["machine"] == machine], table[table["machine"] == baseline]
    cycles, effectual = _totals(own, "cycles"), _totals(own, "effectual_slots")
    multipliers = int(own["multipliers"].iloc[0])
    slots = [{c: row[c] and row[c] * multipliers for c in COLUMNS} | {k: row[k] for k in SNAPSHOT} for row in cycles]
    kinds = {"conv": "convolutions", "linear": "linear layers"}
    others = _totals(other, "cycles")
    return Summary(
        machine=machine,
        multipliers=multipliers,
        baseline=baseline,
        baseline_multipliers=int(other["multipliers"].iloc[0]) if baseline else None,
        layers=" and ".join(kinds[kind] for kind in own["kind"].unique()),
        speedup=_ratios(_dense(cycles), cycles),
        speedup_over_baseline=_ratios(others, cycles) if baseline else [],
        bound=_ratios(_dense(effectual), effectual),
        utilization=_ratios(effectual, slots),
        cycles=cycles,
        baseline_cycles=others,
    )


def convolutions(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of convolutions, which the paper's Table 6 is over; where there are none, all rows."""
    rows = table[table["kind"] == "conv"]
    return table if rows.empty else rows


def _totals(table: pd.DataFrame, column: str) -> list[dict]:
    """Per snapshot the sums of a column by pass, and of the passes together; None for a pass that is not there."""
    sums = table.groupby([*SNAPSHOT, "pass"], sort=False)[column].sum()
    rows = []
    for snapshot, sparsity in dict.fromkeys(zip(table["snapshot"], table["sparsity"], strict=True)):
        row = {which: _integer(sums.get((snapshot, sparsity, which))) for which in COLUMNS[:3]}
        for name, parts in SUMS.items():
            row[name] = None if any(row[p] is None for p in parts) else sum(row[p] for p in parts)
        rows.append({"snapshot": snapshot, "sparsity": sparsity, **row})
    return rows


def _integer(value) -> int | None:
    return None if value is None else int(value)


def _dense(rows: list[dict]) -> list[dict]:
    """Every snapshot's reference: the first row with sparsity 0, or nothing."""
    reference = next((row for row in rows if row["sparsity"] == 0), dict.fromkeys(COLUMNS))
    return [reference] * len(rows)


def _ratios(over: list[dict], under: list[dict]) -> list[dict]:
    """Row by row, column by column; None where a side is missing or nothing was done."""
    return [
        {key: b[key] for key in SNAPSHOT} | {c: a[c] / b[c] if a[c] is not None and b[c] else None for c in COLUMNS}
        for a, b in zip(over, under, strict=True)
    ]
