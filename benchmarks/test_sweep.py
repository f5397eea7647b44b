"""Do two workers halve a sweep, and is a thousand-point sweep a matter of minutes?"""

import os
import time
from itertools import product

import pandas as pd

import accelsim

GRID = {
    "accelerator.search_shape": ["L"],
    "accelerator.lookahead_h": [1, 2, 3, 4, 6, 8, 10, 12],
    "accelerator.lookaside_d": [1, 3, 5, 7, 9],
    "accelerator.rows": [4, 8, 12, 16, 32],
    "accelerator.tiles": [4, 8, 12, 16, 32],
}
BASE = {"trace": "resnet50.npz", "machine": "bit-tactical.yaml", "passes": ["fwd"], "snapshots": ["swat80"]}


def timed(study, folder, jobs):
    """Wall seconds, and the table."""
    start = time.perf_counter()
    table = accelsim.sweep(study, folder, jobs=jobs)
    return time.perf_counter() - start, table


def test_two_workers_against_one(tmp_path):
    """On a third of ResNet-50's layers. Other load on the machine shows in the ratio."""
    grid = GRID | {"accelerator.lookaside_d": [1]}
    study = BASE | {"layers": ["layer3.*"], "grid": grid}
    timed(BASE | {"layers": ["fc"], "grid": {}}, tmp_path / "warm", 1)
    seconds, tables = zip(*(timed(study, tmp_path / str(jobs), jobs) for jobs in (1, 2)), strict=True)
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["point"].nunique() == 200 and tables[0]["error"].isna().all()
    ratio = seconds[1] / seconds[0]
    print(f"\n200 points: {seconds[0]:.1f} s on one worker, {seconds[1]:.1f} s on two, {ratio:.2f} (target 0.6)")
    assert ratio <= 0.6


def test_a_thousand_points(tmp_path):
    """Every 17th point of the grid; all of it with ACCELSIM_BENCHMARK_FULL set."""
    points = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    assert len(points) == 1000
    chosen = points if os.environ.get("ACCELSIM_BENCHMARK_FULL") else points[::17]
    seconds, table = timed(BASE | {"points": chosen}, tmp_path, 2)
    assert table["error"].isna().all() and table["point"].nunique() == len(chosen)
    by_tiles = table.groupby("accelerator.tiles")["cycles"].mean()
    assert by_tiles.is_monotonic_decreasing and (table["effectual_slots"] == table["effectual_slots"][0]).all()
    minutes = seconds / len(chosen) * len(points) / 60
    print(f"\n{len(chosen)} points: {seconds:.0f} s on two workers; 1000 points: {minutes:.1f} minutes (target 15)")
    assert minutes < 15
