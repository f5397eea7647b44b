"""The points of a sweep compared: speedup, cycles for each multiplier, and which are on the Pareto front."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from accelsim.hardware.area import gmacs_per_mm2
from accelsim.ledger import CYCLES, DENSE, EFFECTUAL, ENERGY
from accelsim.study.results import fold

# What a point computes; those that compute the same can be on one front.
WORKLOAD = ("trace", "snapshot", "sparsity")
# What of a machine its points are compared by. A study may set "clock_mhz", so what that is has a name of its own; an
# area is often not known.
MACHINE = ("multipliers", "baseline_multipliers", "chip_mhz", "area_mm2")
# What a front trades off, each the less the better; energy only where it is known of all points.
COSTS = (CYCLES.column, "multipliers", ENERGY.column)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each point that was computed, in the table's order, its passes added up.

    Parameters
    ----------
    table : DataFrame
        What a sweep leaves: a row a point and pass.

    Returns
    -------
    DataFrame
        By ``point``: cycles, effectual slots, dense multiplications, energy where it is known; and

        - ``utilization``, effectual slots over all;
        - ``speedup`` over the first point, for equal work: of its multiplications, of zeros too, in a cycle;
        - ``per_multiplier``, over as many multipliers that multiply zeros too and are always busy, a bit-serial one
          counted as what it is worth: the speedup of ``accelsim compare``;
        - ``gmacs_per_mm2``, 10⁹ multiplications, of zeros too, in a second and on a mm²; NaN where no area is known;
        - ``front``: no point of the same trace, snapshot and sparsity needs fewer cycles, multipliers or energy
          without needing more of another.
    """
    done = table[table["error"].isna()]
    if done.empty:  # then it has no counts
        return pd.DataFrame(columns=["speedup", "per_multiplier", "gmacs_per_mm2", "utilization", "front"]).rename_axis(
            "point"
        )
    counts = [row.column for row in (CYCLES, DENSE, EFFECTUAL, ENERGY) if row.column in done]
    points = fold(done[["point", *counts]].astype(dict.fromkeys(counts, float)), ["point"]).set_index("point")
    own = [name for name in (*WORKLOAD, "machine", "machine_file", *MACHINE) if name in done]
    points = points.join(done.groupby("point", sort=False)[own].first())
    points = points.reindex(columns=points.columns.union(pd.Index(MACHINE), sort=False))
    for name in MACHINE:
        points[name] = points[name].astype(float)
    work = points[DENSE.column] / points[CYCLES.column]
    points["utilization"] = points[EFFECTUAL.column] / (points[CYCLES.column] * points["multipliers"])
    points["speedup"] = work / work.iloc[0]
    points["per_multiplier"] = work / points["baseline_multipliers"]
    points["gmacs_per_mm2"] = gmacs_per_mm2(work, points["chip_mhz"], points["area_mm2"])
    groups: Any = points.groupby([name for name in WORKLOAD if name in points], sort=False, dropna=False)
    points["front"] = False
    for _, group in groups:
        points.loc[on_front(group), "front"] = True
    return points


def on_front(points: pd.DataFrame) -> pd.Index:
    """Those that no other is better than: in one cost, and in none worse. Equal ones are there together."""
    costs = [name for name in COSTS if name in points and points[name].notna().all()]
    return points.index[undominated(points[costs].to_numpy(float))]


def undominated(costs: np.ndarray) -> np.ndarray:
    """Which rows no other is better than, in one column and in none worse: (points, costs) → bool (points,)."""
    return np.array([not ((costs <= own).all(axis=1) & (costs < own).any(axis=1)).any() for own in costs], bool)


def failures(table: pd.DataFrame) -> dict[str, str]:
    """The machine files of which no point was computed, with the first reason."""
    failed = table[table["error"].notna()]
    lost = failed[~failed["machine_file"].isin(table.loc[table["error"].isna(), "machine_file"])]
    return {str(name): str(rows["error"].iloc[0]) for name, rows in lost.groupby("machine_file", sort=False)}
