"""Do the files that we write say what we have, in the words of the tools that read them?"""

import csv
import json
import re
import shutil
from math import ceil, prod
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from strategies import layers

import accelsim
from accelsim import cli
from accelsim.errors import AccelsimError
from accelsim.study import manifest
from accelsim.study.csv_file import unquoted, write_csv
from accelsim.study.scalesim_reports import BANDWIDTH, COMPUTE
from accelsim.workload.exporters.scalesim import topology
from accelsim.workload.exporters.timeloop import problem, problems
from accelsim.workload.formats import writers
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import read
from accelsim.workload.lowering import PASSES, lower
from accelsim.workload.trace import Layer, Snapshot, Trace
from accelsim.workload.trace_writer import TraceWriter

SCALESIM = Path(__file__).parent / "data" / "scalesim"
# Timeloop's problem-shapes/cnn_layer.yaml, output channels M as in the public exercises: what indexes each data space.
CNN_LAYER = {
    "Weights": [[["C"]], [["M"]], [["R"]], [["S"]]],
    "Inputs": [[["N"]], [["C"]], [["R", "Wdilation"], ["P", "Wstride"]], [["S", "Hdilation"], ["Q", "Hstride"]]],
    "Outputs": [[["N"]], [["M"]], [["Q"]], [["P"]]],
}


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def snapshot(*layers):
    return Snapshot("s", 0.8, 0, "SWAT-U", 2, layers)


# ---- Timeloop


def sizes(problem):
    """Of each data space, as Timeloop computes it: the extent of each projection."""
    instance = problem["instance"]
    extents = {}
    for space in problem["shape"]["data_spaces"]:
        extents[space["name"]] = [
            sum((instance[term[0]] - 1) * (instance[term[1]] if len(term) > 1 else 1) for term in terms) + 1
            for terms in space["projection"]
        ]
    return extents


@settings(deadline=None, max_examples=60)
@given(layers(samples=2))
def test_a_problem_has_the_convolutions_work_shape_and_non_zeros(layer):
    """Loops are multiplications; the volume of the inputs times their density is the non-zeros that windows meet."""
    for which in PASSES:
        for conv in lower(layer, which, strided="dilate"):
            parsed = yaml.safe_load(problem(conv, "x"))["problem"]
            instance = parsed["instance"]
            assert prod(instance[name] for name in parsed["shape"]["dimensions"]) == conv.multiplications
            extents = sizes(parsed)
            assert prod(extents["Weights"]) == conv.kernel.size
            assert prod(extents["Outputs"]) == conv.samples * conv.geometry.filters * prod(conv.geometry.output)
            density = {name: how["density"] for name, how in instance["densities"].items()}
            assert prod(extents["Weights"]) * density["Weights"] == pytest.approx(np.count_nonzero(conv.kernel))
            met = np.zeros(conv.input.shape, bool)
            height, width = conv.input.shape[2:]
            for p, q, r, s in np.ndindex(*conv.geometry.output, *conv.geometry.kernel):
                row = p * conv.stride[0] + r * conv.dilation[0] - conv.padding[0]
                column = q * conv.stride[1] + s * conv.dilation[1] - conv.padding[2]
                if 0 <= row < height and 0 <= column < width:
                    met[..., row, column] = True
            # Rows between windows lie in what Timeloop counts, though no window meets them.
            non_zeros = prod(extents["Inputs"]) * density["Inputs"]
            assert np.count_nonzero(conv.input * met) <= non_zeros + 1e-6
            assert non_zeros <= np.count_nonzero(conv.input) + 1e-6


def test_a_problem_is_of_timeloops_own_shape():
    """The same data spaces, term by term; with groups, each begins with G."""
    for groups in (1, 2):
        geometry = Geometry(4, 6, 5, 4, (3, 2), (2, 1), (1, 0, 0, 1), (1, 2), groups)
        tensors = {
            "weight": np.ones(geometry.weight_shape, bool),
            "activation": np.ones(geometry.activation_shape(1), bool),
        }
        (conv,) = lower(Layer("l", "conv", geometry, 1, 1, PASSES, tensors), "fwd")
        parsed = yaml.safe_load(problem(conv, "x"))["problem"]
        g = [[["G"]]] if groups > 1 else []
        spaces = {space["name"]: space["projection"] for space in parsed["shape"]["data_spaces"]}
        assert spaces == {name: g + projection for name, projection in CNN_LAYER.items()}
        wanted = {"R": 2, "S": 3, "Wstride": 1, "Hstride": 2, "Wdilation": 2, "Hdilation": 1, "N": 1}
        assert wanted.items() <= parsed["instance"].items()
        assert parsed["shape"]["data_spaces"][2]["read_write"] is True


def test_files_are_named_and_the_first_input_gradient_is_left_out(tiny):
    with Trace.open(tiny) as trace:
        files = dict(problems(trace.snapshot("swat80")))
    assert len(files) == 5 * 3 - 1 and "000_conv1.input_grad.yaml" not in files
    assert files["001_block-conv2.fwd.yaml"].startswith("# block/conv2, fwd, Top-K 80 %, by accelsim\nproblem:\n")


# ---- SCALE-Sim topologies


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layer=layers(dilations=1))
def test_a_topology_is_read_back_with_the_same_work(layer, tmp_path):
    g = layer.geometry
    if g.groups not in (1, g.channels):
        with pytest.raises(AccelsimError, match="groups: must be 1 or channels for SCALE-Sim"):
            topology(snapshot(layer))
        return
    (tmp_path / "t.csv").write_text(topology(snapshot(layer)))
    (back,) = read(tmp_path / "t.csv").layers
    b = back.geometry
    assert b.multiplications == g.multiplications
    if g.channels == 1 and (b.channels > 1):  # its kernel spans the map, whose axis is the channels
        return
    assert (b.channels, b.filters, b.kernel, b.stride, b.groups) == (
        g.channels,
        g.filters,
        g.kernel,
        g.stride,
        g.groups,
    )
    assert (b.output, b.padding) == (g.output, (0, 0, 0, 0))


@pytest.mark.parametrize("name", ["alexnet", "mobilnet_paper", "dlrm_fwd", "UNet_maestro"])
def test_real_topologies_come_back_with_their_multiplications(name, tmp_path):
    once = read(SCALESIM / f"{name}.csv")
    made = [Layer(layer.name, layer.kind, layer.geometry, 1, 1, PASSES, {}) for layer in once.layers]
    (tmp_path / "t.csv").write_text(topology(snapshot(*made)))
    twice = read(tmp_path / "t.csv")
    for a, b in zip(once.layers, twice.layers, strict=True):
        assert (a.name.replace("#", "_"), a.geometry.multiplications) == (b.name, b.geometry.multiplications)


def test_what_scalesim_does_not_know_is_refused():
    layer = Layer("l", "conv", Geometry(2, 9, 9, 2, (3, 3), dilation=(2, 2)), 1, 1, PASSES, {}, "t.npz: s/")
    with pytest.raises(AccelsimError, match=r"t\.npz: s/l: dilation: must be 1 for SCALE-Sim, got \(2, 2\)"):
        topology(snapshot(layer))


# ---- SCALE-Sim reports


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("results") / "r"
    assert run("run", "--config", "pe8x8.yaml", "--trace", tiny, "--out", folder, "--quiet") == 0
    return folder


def rows(path):
    """As SCALE-Sim's users read a report: a header with blanks, and a comma at each line's end."""
    return [
        {key.strip(): float(value) for key, value in row.items() if key.strip()}
        for row in csv.DictReader(path.read_text().splitlines())
    ]


@pytest.mark.parametrize(("name", "ours"), [("COMPUTE_REPORT.csv", COMPUTE), ("BANDWIDTH_REPORT.csv", BANDWIDTH)])
def test_our_reports_have_the_columns_of_scalesims_own(name, ours):
    header = (SCALESIM / name).read_text().splitlines()[0]
    assert ours == header or ours == header + " Avg DRAM Read BW,"


def test_reports_hold_the_runs_counts(results, tmp_path, capsys):
    assert run("export", "--results", results, "--format", "scalesim", "--out", tmp_path / "o") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'o'}: 18 files\n"
    places = [f"{s}_{which}" for s in ("dense", "swat80") for which in PASSES]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == sorted(places)
    with (results / "layers.csv").open() as file:
        table = list(csv.DictReader(file))
    word = json.loads((results / "run.json").read_text())["provenance"]["machines"][0]["memory"]["value_bits"] / 8
    for place in places:
        counts = [r for r in table if f"{r['snapshot']}_{r['pass']}" == place and r["cycles"] != "0"]
        compute, moved = (rows(tmp_path / "o" / place / f"{n}_REPORT.csv") for n in ("COMPUTE", "BANDWIDTH"))
        assert len(counts) == len(compute) == len(moved) == (4 if "input_grad" in place else 5)
        for number, (count, row, words) in enumerate(zip(counts, compute, moved, strict=True)):
            slots = int(count["cycles"]) * int(count["multipliers"])
            assert (row["LayerID"], row["Total Cycles"]) == (number, int(count["cycles"]))
            assert row["Stall Cycles"] == int(count["cycles"]) - int(count["compute_cycles"])
            busy = int(count["effectual_slots"]) + int(count["ineffectual_slots"])
            assert row["Overall Util %"] == pytest.approx(100 * busy / slots)
            assert row["Overall Util %"] <= row["Compute Util %"] <= row["Mapping Efficiency %"] <= 100
            read_words = words["Avg DRAM Read BW"] * int(count["cycles"])
            assert read_words * word == pytest.approx(int(count["offchip_read_bytes"]))
            assert np.isnan(words["Avg IFMAP DRAM BW"])
    names = (tmp_path / "o" / "dense_fwd" / "LAYER_NAMES.csv").read_text()
    assert names.startswith("LayerID, Layer name,\n0, conv1,\n1, block/conv2,\n")


# ---- the command


def test_a_trace_is_exported(tiny, tmp_path, capsys):
    out = tmp_path / "o"
    assert run("export", "--trace", tiny, "--format", "timeloop", "--layers", "block/*", "--out", out) == 0
    assert capsys.readouterr().out == f"{out}: 6 files\n"
    for path in out.iterdir():
        assert yaml.safe_load(path.read_text())["problem"]["instance"]["N"] >= 1
    assert run("export", "--trace", tiny, "--format", "scalesim", "--out", tmp_path / "t") == 0
    lines = (tmp_path / "t" / "tiny.csv").read_text().splitlines()
    assert lines[1] == "conv1, 11, 11, 3, 3, 3, 8, 2," and lines[4].startswith("DP_depthwise, ")


def test_the_shipped_trace_comes_back_from_scalesim_with_its_multiplications(tmp_path):
    assert run("export", "--trace", "resnet50.npz", "--format", "scalesim", "--out", tmp_path / "o") == 0
    back = read(tmp_path / "o" / "resnet50.csv")
    with accelsim.open_trace("resnet50.npz") as trace:
        for ours, theirs in zip(back.layers, trace.snapshots[0].layers, strict=True):
            h, w, (r, s), (st, _) = (
                ours.geometry.height,
                ours.geometry.width,
                ours.geometry.kernel,
                ours.geometry.stride,
            )
            assert (ceil((h - r + st) / st), ceil((w - s + st) / st)) == theirs.geometry.output
            assert ours.geometry.multiplications == theirs.geometry.multiplications


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--trace", "tiny.npz", "--format", "caffe"], "format: must be one of scalesim (.csv .xlsx .cfg), timeloop"),
        (["--results", "r", "--format", "timeloop"], "format: must be scalesim for results, got timeloop"),
        (
            ["--results", "r", "--format", "scalesim"],
            "r/manifest.sha256: must be there, as accelsim writes",
        ),
        (["--trace", "tiny.npz", "--format", "timeloop", "--layers", "x*"], "layers: must match a layer of the trace"),
        (["--trace", "tiny.npz", "--format", "timeloop", "--snapshot", "x"], "snapshot must be one of dense, swat80"),
        (["--trace", "none.npz", "--format", "timeloop"], "none.npz: no such file"),
    ],
)
def test_bad_arguments_give_one_line_and_no_files(arguments, rule, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.npz").write_bytes(tiny.read_bytes())
    assert run("export", *arguments, "--out", "o") == 2
    error = capsys.readouterr().err
    assert rule in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.npz"]


def test_files_that_are_there_are_not_mixed_with_new_ones(tiny, tmp_path, capsys):
    (tmp_path / "mine").write_text("x")
    assert run("export", "--trace", tiny, "--format", "timeloop", "--out", tmp_path) == 2
    assert "must be new or an empty folder" in capsys.readouterr().err


def test_results_of_something_else_are_refused(tmp_path, results, capsys):
    (tmp_path / "run.json").write_text((results / "run.json").read_text())
    (tmp_path / "layers.csv").write_text("snapshot,layer\na,b\n")
    order = ("export", "--results", tmp_path, "--format", "scalesim", "--out", tmp_path / "o")
    assert run(*order) == 2
    assert "manifest.sha256: must be there" in capsys.readouterr().err
    manifest.write(tmp_path)
    assert run(*order) == 2
    assert "layers.csv: has no column kind, pass" in capsys.readouterr().err


NAMES = ["=1+1", "-", "x/.x", ".accelsim-ready-x", "€" * 255, 'a, "b"', "@x"]


@pytest.mark.parametrize("name", NAMES)
def test_any_valid_name_of_a_layer_exports_into_the_folder_and_nowhere_else(name, write_tiny, tmp_path):
    tensors = {"weight": np.ones((2, 3, 1, 1), bool), "activation": np.ones((1, 3, 2, 2), bool)}
    trace = tmp_path / "t.npz"
    with TraceWriter(trace, network=name, dataset="d") as out:
        out.snapshot(name.replace("/", "+"), sparsity=0.5, step=0, algorithm="a", batch=1, samples=1)
        out.layer(name, kind="conv", geometry=Geometry(3, 2, 2, 2, (1, 1)), passes=("fwd",))
        for tensor, mask in tensors.items():
            out.tensor(tensor, mask)
    for row in writers():
        assert run("export", "--trace", trace, "--format", row.name, "--out", tmp_path / "o" / row.name) == 0
        (written,) = list((tmp_path / "o" / row.name).rglob("*"))[:1]
        assert written.is_file() and not written.name.startswith(".")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o", "t.npz"]


def test_names_of_snapshots_stay_apart_and_inside(results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "results")
    text = (folder / "layers.csv").read_text()
    (folder / "layers.csv").write_text(text.replace("\ndense,", "\n../x,").replace("\nswat80,", "\n..-x,"))
    manifest.write(folder)
    assert run("export", "--results", folder, "--format", "scalesim", "--out", tmp_path / "o") == 0
    places = {path.name for path in (tmp_path / "o").iterdir()}
    assert len(places) == 6 and all(re.fullmatch(r"-[.-]-x~[0-9a-f]{8}_\w+", place) for place in places), places
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o", "results"]


@pytest.mark.parametrize("cell", ["=1+1", "+x", "-x", "@x", "\tx", "'=1", "-"])
def test_cells_that_a_spreadsheet_would_run_are_quoted(cell, tmp_path):
    table = pd.DataFrame({"layer": [cell, "a=b", None, "-5", "'tis"], "count": [-1, 2, 3, 4, 5]})
    write_csv(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        first, *others = [row["layer"] for row in csv.DictReader(file)]
    assert first == f"'{cell}" and unquoted(first) == cell
    assert others[:3] == ["a=b", "", "-5"] and unquoted(others[3]) == "'tis"
    assert pd.read_csv(tmp_path / "t.csv")["count"][0] == -1
