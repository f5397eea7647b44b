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
MEMORIES = {
    "memory.offchip.megabytes_per_second": [1000, 2000, 4000, 8000, 12000, 16000, 24000, 32000, 48000, 96000],
    "memory.activation_memory.capacity_bytes": [(n + 1) << 17 for n in range(100)],
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


def test_a_thousand_memories(tmp_path):
    """Bandwidth × capacity on the machine of Table 6, all passes: every 10th point; all with ACCELSIM_BENCHMARK_FULL.

    Of equal arrays only the memories are planned and replayed; of fewer points fewer share what is counted once. The
    smallest capacities refuse: a job's operands do not fit.
    """
    points = [dict(zip(MEMORIES, values, strict=True)) for values in product(*MEMORIES.values())]
    assert len(points) == 1000
    chosen = points if os.environ.get("ACCELSIM_BENCHMARK_FULL") else points[::10]
    machine = {"trace": "resnet50.npz", "machine": "pe16x16.yaml", "snapshots": ["swat80"]}
    before = os.times()
    seconds, table = timed(machine | {"points": chosen}, tmp_path, 2)
    after = os.times()
    assert table["point"].nunique() == len(chosen)
    assert table.groupby("pass")["compute_cycles"].nunique().eq(1).all()
    cpu = sum(after[:4]) - sum(before[:4])  # others use the machine too
    minutes = cpu / 2 / len(chosen) * len(points) / 60
    print(f"\n{len(chosen)} points: {seconds:.0f} s on two workers, {cpu:.0f} CPU-s;", end=" ")
    print(f"1000 points: {minutes:.1f} minutes of two cores (target 5)")
    assert minutes < 5
