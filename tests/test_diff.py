"""Does diff tell what differs, by how much and why, and nothing where nothing does?"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from accelsim import cli, load_machine
from accelsim.errors import ResultsError
from accelsim.hardware.machine import with_settings
from accelsim.study.diff import diff_machines, diff_runs, diff_traces
from accelsim.workload.trace import Trace

PAGE = Path(__file__).parent.parent / "docs" / "diff.md"


@pytest.fixture(scope="module")
def runs(write_tiny, tmp_path_factory):
    """Three folders of one trace: a machine, the same with another key, and a part of it."""
    folder = tmp_path_factory.mktemp("diff")
    trace = str(write_tiny(folder / "tiny.npz"))
    for name, more in {"a": [], "b": ["--set", "accelerator.rows=2"], "part": ["--passes", "fwd"]}.items():
        run = ["run", "--config", "tensordash.yaml", "--trace", trace, "--quiet", "--out", str(folder / name), *more]
        assert cli.main(run) == 0
    return folder


def layers(folder):
    return pd.read_csv(folder / "layers.csv").set_index(["snapshot", "layer", "pass"])


def test_machines_differ_in_their_keys(capsys):
    machine = load_machine("tensordash.yaml")
    (other,) = with_settings([machine], ["accelerator.rows=2", "memory.offchip.latency_ns=30"])
    assert diff_machines(machine, machine, ("a", "b")).is_equal
    assert diff_machines(machine, other, ("a", "b")).keys == [
        {"key": "accelerator.rows", "a": 4, "b": 2},
        {"key": "memory.offchip.latency_ns", "a": machine.memory.offchip.latency_ns, "b": 30},
    ]
    assert cli.main(["diff", "pe16x16.yaml", "pe8x8.yaml"]) == 0
    assert re.search(r"accelerator.pe_rows +16 +8\n", capsys.readouterr().out)


def test_totals_causes_and_layers_of_runs_are_those_of_their_tables(runs):
    """Recounted from layers.csv; the causes of a pass add up to its cycles, on both sides."""
    found = diff_runs(runs / "a", runs / "b")
    a, b = layers(runs / "a"), layers(runs / "b")
    assert found.keys == [{"key": "accelerator.rows", "a": 4, "b": 2}]
    assert found.only == {"a": [], "b": []}
    for column in ("cycles", "energy_pj"):
        for (snapshot, which), own in a[column].groupby(["snapshot", "pass"]):
            other = b[column].groupby(["snapshot", "pass"]).sum()[snapshot, which]
            rows = [r for r in found.figures if (r["snapshot"], r["pass"], r["count"]) == (snapshot, which, column)]
            assert [(r["a"], r["b"]) for r in rows] == (
                [] if own.sum() == other else [pytest.approx((own.sum(), other))]
            )
            assert all(r["change"] == pytest.approx(other / own.sum() - 1) for r in rows)
    moved = pd.DataFrame(found.causes).groupby(["snapshot", "pass"])[["a", "b"]].sum()
    cycles = pd.DataFrame([r for r in found.figures if r["count"] == "cycles"]).set_index(["snapshot", "pass"])
    np.testing.assert_allclose((moved["b"] - moved["a"]).loc[cycles.index], cycles["b"] - cycles["a"])
    differ = a.index[a["cycles"] != b["cycles"]]
    assert {(r["snapshot"], r["layer"], r["pass"]) for r in found.layers} == set(differ)
    sizes = [abs(r["b"] - r["a"]) for r in found.layers]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 0


def test_equal_runs_are_the_same_and_within_any_threshold(runs, capsys):
    assert diff_runs(runs / "a", runs / "a").is_equal
    assert cli.main(["diff", str(runs / "a"), str(runs / "a"), "--threshold", "0"]) == 0
    out = capsys.readouterr().out
    assert "The runs are the same." in out and "no figure differs by more than 0 %" in out


def test_a_threshold_is_an_exit_code(runs, capsys):
    both = ["diff", str(runs / "a"), str(runs / "b")]
    assert cli.main(both) == 0
    most = max(abs(r["change"]) for r in diff_runs(runs / "a", runs / "b").figures)
    assert cli.main([*both, "--threshold", f"{100 * most + 0.1}"]) == 0
    capsys.readouterr()
    assert cli.main([*both, "--threshold", f"{100 * most - 0.1}"]) == 1
    assert re.search(r"\d+ figures? differs? by more than", capsys.readouterr().out)
    assert cli.main([*both, "--threshold", "0", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "runs" and len(found["layers"]) > 1


def test_what_only_one_run_has_is_named_and_beyond_every_threshold(runs, capsys):
    found = diff_runs(runs / "a", runs / "part")
    assert not found.figures and not found.only["b"]
    assert "dense/fc/weight_grad" in found.only["a"] and len(found.only["a"]) == len(layers(runs / "a")) * 2 // 3
    assert cli.main(["diff", str(runs / "a"), str(runs / "part"), "--threshold", "99"]) == 1
    assert re.search(r"^only in A: .* and \d+ more$", capsys.readouterr().out, re.M)


def test_of_other_numbers_of_samples_it_compares_one(write_tiny, runs, tmp_path):
    """The same masks twice would take twice the cycles; nothing is twice of it a sample."""
    trace = str(write_tiny(tmp_path / "two.npz", samples=2))
    run = ["run", "--config", "tensordash.yaml", "--trace", trace, "--quiet", "--out", str(tmp_path / "two")]
    assert cli.main(run) == 0
    found = diff_runs(runs / "a", tmp_path / "two")
    forward = [r for r in found.figures if (r["count"], r["pass"], r["snapshot"]) == ("cycles", "fwd", "dense")]
    of_two = layers(tmp_path / "two")["cycles"].xs("fwd", level="pass").loc["dense"].sum()
    of_one = layers(runs / "a")["cycles"].xs("fwd", level="pass").loc["dense"].sum()
    assert [(r["a"], r["b"]) for r in forward] == ([(of_one, of_two / 2)] if of_one != of_two / 2 else [])


def test_tensors_of_traces_differ_where_a_value_does(write_tiny, tmp_path):
    one, same, other = (tmp_path / f"{name}.npz" for name in ("one", "same", "other"))
    for path in (one, same):
        write_tiny(path)
    write_tiny(other, change=lambda snapshot, layer, tensor, mask: (mask[::-1].copy(), {}))
    with Trace.open(one) as a, Trace.open(same) as b:
        assert diff_traces(a, b).is_equal
    with Trace.open(one) as a, Trace.open(other) as b:
        found = diff_traces(a, b)
        row = found.figures[0]
        for side, trace in (("a", a), ("b", b)):
            layer = next(x for x in trace.snapshot(row["snapshot"]).layers if x.name == row["layer"])
            assert row[side] == np.count_nonzero(layer.tensor(row["tensor"]))
        assert not found.only["a"] and {r["tensor"] for r in found.figures} == {"weight"}


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("pe16x16.yaml", "resnet50.npz", "B: must be a machine as A is, got the trace resnet50.npz"),
        ("none.yaml", "pe8x8.yaml", "none.yaml"),
        (".", ".", "manifest.sha256: must be there"),
        ("x.txt", "x.txt", "x.txt: must be a machine (.yaml), a trace (.npz) or a folder that run --out wrote"),
    ],
)
def test_bad_input_is_one_line(a, b, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["diff", a, b]) == 2
    out, error = capsys.readouterr()
    assert told in error and error.count("\n") == 1 and not out


def test_machines_have_no_figures_for_a_threshold(capsys):
    assert cli.main(["diff", "pe16x16.yaml", "pe8x8.yaml", "--threshold", "1"]) == 2
    assert "machines have no figures" in capsys.readouterr().err


def test_runs_without_a_common_layer_are_refused(runs, tmp_path):
    other = tmp_path / "other"
    run = ["run", "--config", "tensordash.yaml", "--trace", "resnet20-int8.npz", "--layers", "fc", "--quiet"]
    assert (
        cli.main([*run, "--snapshots", "dense", "--passes", "fwd", "--layers", "layer1.0.conv1", "--out", str(other)])
        == 0
    )
    with pytest.raises(ResultsError, match="must have a layer and pass of"):
        diff_runs(runs / "a", other)


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path):
    for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        shell = f'set -e; accelsim() {{ "{sys.executable}" -m accelsim.cli "$@"; }}\n{block}'
        result = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")
    assert "accelerator.rows" in result.stdout
