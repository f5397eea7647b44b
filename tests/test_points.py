"""Are a sweep's points compared as they should be, and is no machine dropped in silence?"""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim import load_machine, open_trace
from accelsim.study.compare import compare
from accelsim.study.layout import rendered
from accelsim.study.points import compared, failures, on_front
from accelsim.sweeps import text
from accelsim.sweeps.sweep import sweep


def made(*points):
    """A sweep's table by hand: of each point machine file, multipliers, cycles, mJ, or why there are none."""
    rows = []
    for number, (machine, multipliers, cycles, energy, error) in enumerate(points):
        place = {"point": number, "trace": "t.npz", "machine_file": machine, "snapshot": "dense", "made": False}
        own = {"machine": machine, "multipliers": multipliers, "baseline_multipliers": multipliers, "sparsity": 0.0}
        counts = {"cycles": cycles, "dense_multiplications": 1000, "effectual_slots": 500, "energy_pj": energy * 1e9}
        halves = {name: None if error else value / 2 for name, value in counts.items()}
        rows += [
            place | {"lanes": number, "error": error} | own | {"pass": which} | halves for which in ("fwd", "back")
        ]
    return pd.DataFrame(rows)


def test_ratios_worked_by_hand():
    points = compared(made(("a", 10, 100, 4, None), ("b", 20, 50, 8, None), ("c", 20, 200, 9, None)))
    assert points["speedup"].tolist() == [1, 2, 0.5]
    assert points["per_multiplier"].tolist() == [1, 1, 0.25]  # 1,000 products in 100 × 10, 50 × 20 and 200 × 20
    assert points["utilization"].tolist() == [0.5, 0.5, 0.125]
    assert points["front"].tolist() == [True, True, False]  # c takes more of all than a


def test_per_multiplier_is_the_speedup_of_compare(tiny, tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr("accelsim.sweeps.workers.ProcessPoolExecutor", lambda count, **how: ThreadPoolExecutor(count))
    files = ["dadiannao.yaml", "pe8x8.yaml"]
    chosen = {"snapshots": ["swat80"], "layers": ["conv1", "block/*", "depthwise"]}
    study = {"trace": str(tiny), "machine": files, **chosen}
    points = compared(sweep(study, tmp_path / "out")).set_index("machine")
    with open_trace(tiny) as trace:
        rows = compare([load_machine(file) for file in files], trace, **chosen).rows.set_index("machine")
    assert points["per_multiplier"].to_dict() == pytest.approx(rows["step_speedup"].astype(float).to_dict(), rel=1e-12)


@given(st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=1, max_size=12))
def test_the_front_is_what_nothing_is_better_than(costs):
    points = pd.DataFrame(costs, columns=["cycles", "multipliers", "energy_pj"])
    naive = [
        i
        for i, own in enumerate(costs)
        if not any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in costs)
    ]
    assert on_front(points).tolist() == naive


def test_equal_work_is_what_is_compared():
    """Half the cycles for half the multiplications are as fast."""
    table = made(("a", 10, 100, 4, None), ("a", 10, 50, 2, None))
    table.loc[table["point"] == 1, "dense_multiplications"] /= 2
    assert compared(table)["speedup"].tolist() == [1, 1]


def test_points_of_other_work_are_on_a_front_of_their_own():
    table = made(("a", 10, 100, 4, None), ("a", 10, 50, 2, None))
    table.loc[table["point"] == 1, "sparsity"] = 0.9
    assert compared(table)["front"].tolist() == [True, True]


def test_no_machine_is_dropped_in_silence():
    fast = [("fast.yaml", 10, cycles, 4, None) for cycles in range(100, 120)]
    points = [
        *fast,
        ("slow.yaml", 10, 900, 41234, None),
        ("slow.yaml", 10, 950, 4, None),
        ("not.yaml", 10, 0, 0, "too small"),
    ]
    table = made(*points)
    out = rendered(text.summary(table, None, Path("out")))
    shown = re.findall(r"^ +(\d+)  ", out, re.M)
    assert shown == [*map(str, range(10)), "20"]  # the ten of fewest cycles, and the best of the other machine
    assert "not.yaml is not in the table: none of its points could be computed (too small)" in out
    assert "11 others are in table.csv" in out and "The 11 of 22 points by cycles" in out
    assert (
        "Pareto front, of the points of each trace, snapshot and sparsity by cycles, multipliers and energy: point 0\n"
        in out
    )
    row = next(line for line in out.splitlines() if re.match(r" +20 ", line))
    assert row.split() == ["20", "slow.yaml", "20", "10", "900", "0.11×", "0.11×", "5.6", "%", "41,234"]


def test_energy_that_is_not_known_of_all_is_not_traded(tmp_path):
    table = made(("a", 10, 100, 4, None), ("b", 10, 200, 2, None))
    assert compared(table)["front"].tolist() == [True, True]
    assert compared(table.assign(energy_pj=[1e9, 1e9, None, None]))["front"].tolist() == [True, False]
    out = rendered(text.summary(table.assign(energy_pj=None), None, tmp_path))
    assert "mJ" not in out and "by cycles and multipliers: point 0" in out


def test_json_has_it_too_and_a_table_of_failures_has_nothing():
    table = made(("a", 10, 100, 4, None), ("b", 20, 50, 8, None), ("not.yaml", 10, 0, 0, "too small"))
    data = json.loads(json.dumps(text.report(table, None, Path("out"))))
    assert [point["speedup"] for point in data["compared"]] == [1, 2] and data["left_out"] == {"not.yaml": "too small"}
    lost = made(("not.yaml", 10, 0, 0, "too small")).drop(
        columns=["cycles", "dense_multiplications", "effectual_slots"]
    )
    assert text.report(lost, None, Path("out"))["compared"] == [] and failures(lost) == {"not.yaml": "too small"}
    assert "not.yaml is not in the table" in rendered(text.summary(lost, None, Path("out")))
