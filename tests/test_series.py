"""Are many snapshots of one dense run shown as a series, with no speedup against the first of them?"""

import json
import re

import numpy as np
import pandas as pd
import pytest

from accelsim import TraceWriter, cli
from accelsim.study.results import is_series, steps_of
from accelsim.workload.geometry import Geometry

STEPS = {"late": (300, 0.3), "first": (0, 0.9), "middle": (100, 0.6)}  # not in order of steps
GEOMETRY = Geometry(16, 8, 8, 16, (3, 3), (1, 1), (1, 1, 1, 1))


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A layer at three steps of a dense run; its activations and gradients get sparser."""
    path, rng = tmp_path_factory.mktemp("series") / "series.npz", np.random.default_rng(0)
    with TraceWriter(path, network="net", dataset="noise") as out:
        for name, (step, density) in STEPS.items():
            out.snapshot(name, sparsity=0.0, step=step, algorithm="dense", batch=1, samples=1)
            out.layer("conv", kind="conv", geometry=GEOMETRY)
            out.tensor("weight", np.ones(GEOMETRY.weight_shape, bool))
            out.tensor("activation", rng.random(GEOMETRY.activation_shape(1)) < density)
            out.tensor("gradient", rng.random(GEOMETRY.gradient_shape(1)) < density)
    return path


def run(trace, *more):
    return ["run", "--config", "tensordash.yaml", "--trace", str(trace), *more]


def test_one_sparsity_at_several_steps_is_a_series():
    def table(*rows):
        return pd.DataFrame(rows, columns=["snapshot", "sparsity", "step"])

    assert is_series(table(("a", 0.0, 5), ("b", 0.0, 1))) and is_series(table(("a", 0.8, 5), ("b", 0.8, 1)))
    assert not is_series(table(("a", 0.0, 5), ("a", 0.0, 5)))  # one
    assert not is_series(table(("a", 0.0, 5), ("b", 0.0, 5)))  # two of one step
    assert not is_series(table(("a", 0.0, 5), ("b", 0.8, 1)))  # these compare
    assert list(steps_of(table(("a", 0.0, 5), ("b", 0.0, 1))).items()) == [("b", 1), ("a", 5)]


def test_it_has_no_speedup_over_its_first_step(trace, capsys):
    assert cli.main(run(trace, "--json", "--quiet")) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["steps"] == {"first": 0, "middle": 100, "late": 300}
    columns = ("fwd", "input_grad", "weight_grad", "backward", "step")
    for key in ("speedup", "fewer_effectual"):
        assert all(row[column] is None for row in data[key] for column in columns)
    assert all(row[column] is None for row in data["energy"]["saving"] for column in columns)
    gains = {row["snapshot"]: row["step"] for row in data["gain"]}
    assert 1 < gains["first"] < gains["middle"] < gains["late"]


def test_its_table_is_in_order_of_steps_and_says_how_it_went(trace, capsys):
    assert cli.main(run(trace, "--json", "--quiet")) == 0
    gains = {row["snapshot"]: row["step"] for row in json.loads(capsys.readouterr().out)["gain"]}
    assert cli.main(run(trace)) == 0
    out = capsys.readouterr().out
    assert out.startswith("tensordash over 3 steps of a run, over convolutions") and "Top-K" not in out
    labels = re.findall(r"step \d+ \(\w+\)", out)
    assert labels[:3] == ["step 0 (first)", "step 100 (middle)", "step 300 (late)"]
    told = f"training step: {gains['first']:.2f}× at step 0 and {gains['late']:.2f}× at step 300"
    assert told in out and "no speedup over a snapshot: all are of one sparsity, at different steps" in out


def test_without_dense_selves_it_is_in_cycles(trace, capsys):
    assert cli.main(run(trace, "--baseline", "none", "--passes", "fwd", "--quiet")) == 0
    out = capsys.readouterr().out
    assert "cycles a sample" in out and "What zeros buy" not in out and "gain" not in out


def test_its_picture_and_its_report(trace, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("plotly")
    from test_report import Tree, browse

    where = ["--plots", str(tmp_path / "plots"), "--out", str(tmp_path / "out")]
    assert cli.main(run(trace, *where, "--quiet", "--passes", "fwd")) == 0
    assert {"series.png", "series.svg"} <= {path.name for path in (tmp_path / "plots").iterdir()}
    assert not (tmp_path / "plots" / "speedup.png").exists() and "no picture of speedups" not in capsys.readouterr().out
    assert cli.main(["report", str(tmp_path / "out")]) == 0
    page = Tree((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    data = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert [row[0] for row in page.cells["series"][1:]] == ["0 (first)", "100 (middle)", "300 (late)"]
    assert "table6" not in page.cells
    (chart,) = json.loads(page.scripts[0])["charts"]
    assert chart["scatter"].keys() == {"forward"} and chart["scatter"]["forward"]["x"] == [0, 100, 300]
    by_step = sorted(data["gain"], key=lambda row: data["steps"][row["snapshot"]])
    assert chart["scatter"]["forward"]["y"] == [row["fwd"] for row in by_step]
    drawn = browse(tmp_path / "out" / "report.html", tmp_path)
    assert "main-svg" in drawn.partition('id="chart-series"')[2].partition("</figure>")[0]
