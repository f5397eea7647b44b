"""Do files of other tools become traces that say what is theirs, and do bad ones fail in one line?"""

import inspect
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from importing import DATA, SCALESIM, TOPOLOGY, run

import accelsim
from accelsim.errors import AccelsimError, ImportFormatError
from accelsim.workload.formats import FORMATS, OPTIONS, page, readers
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import read, said, scalesim, to_trace
from accelsim.workload.importers.base import Imported, ImportedLayer, LeftOut, Names
from accelsim.workload.patterns import Stored
from accelsim.workload.trace import Trace

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(QUIET, max_examples=60)
@given(st.binary(max_size=80), st.sampled_from(["a.csv", "model.csv", "a.npz", "a.safetensors", "a.pt", "a.onnx"]))
def test_no_bytes_give_a_traceback(tmp_path, content, name):
    if name == "a.pt":
        pytest.importorskip("torch")
    (tmp_path / name).write_bytes(content)
    topology = SCALESIM / "alexnet.csv" if name in ("a.safetensors", "a.pt") else None
    with pytest.raises(AccelsimError) as caught:
        read(tmp_path / name, topology=topology)
    assert "\n" not in str(caught.value)


def test_what_is_imported_runs(tmp_path, capsys):
    out = tmp_path / "t.npz"
    (tmp_path / "net.csv").write_text(TOPOLOGY)
    assert run("import", tmp_path / "net.csv", "--sparsity", "0,0.5", "--density-activation", "0.25", "--out", out) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 2 layers × 2 snapshots of net, from net.csv (scalesim); what is drawn is with seed 0",
        "  conv1: weight drawn, density 1; activation drawn, density 1; gradient drawn, density 1",
        "  fc: weight drawn, density 1; activation drawn, density 0.25; gradient drawn, density 1",
        "read: 100 % of 3,908 multiplications of the forward pass",
    ]
    with Trace.open(out) as trace:
        assert [s.name for s in trace.snapshots] == ["dense", "swat50"]
        conv, fc = trace.snapshots[1].layers
        assert ("input_grad" in conv.passes, "input_grad" in fc.passes) == (False, True)
        assert [np.count_nonzero(fc.tensor(name)) for name in ("weight", "activation", "gradient")] == [10, 1, 5]
        assert trace.provenance == {
            "synthetic": "accelsim, seed 0",
            "imported": "net.csv (scalesim)",
            "tensors": {
                "conv1": "weight drawn, density 1; activation drawn, density 1; gradient drawn, density 1",
                "fc": "weight drawn, density 1; activation drawn, density 0.25; gradient drawn, density 1",
            },
            "read": "100 % of 3,908 multiplications of the forward pass",
        }
    assert run("info", out) == 0
    assert "tensors  conv1: weight drawn" in capsys.readouterr().out
    assert run("run", "--config", "dadiannao.yaml", "--trace", out, "--quiet") == 0
    capsys.readouterr()
    assert run("import", tmp_path / "net.csv", "--out", out) == 2
    assert capsys.readouterr().err == f"accelsim: error: {out}: exists; --force replaces it\n"
    assert run("import", tmp_path / "net.csv", "--out", out, "--force") == 0


def test_what_is_drawn_can_be_like_a_real_trace(tiny, tmp_path):
    """A layer of the same name is like that one, channels and all; others are like the one as far along."""
    with Trace.open(tiny) as like:
        ours = to_trace(read(tiny), [0.8], like=like).snapshots[0]
        theirs = like.snapshot("swat80")
        assert (ours.batch, ours.layers[0].samples) == (theirs.batch, theirs.layers[0].samples) == (8, 1)
        for a, b in zip(ours.layers, theirs.layers, strict=True):
            assert a.geometry == b.geometry
            for name in ("activation", "gradient"):
                assert a.tensor(name).sum() == b.tensor(name).sum()
        other = to_trace(read(SCALESIM / "sparse_conv.csv"), [0.8], like=like)
        assert other.snapshots[0].layers[0].tensor("activation").shape == (1, 2, 5, 5)
        assert other.snapshots[0].batch == 8


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["nothing.csv"], "nothing.csv: no such file"),
        ([DATA / "README.md"], "format: the ending '.md' does not tell; --format says which: scalesim (.csv"),
        (["nothing.csv", "--format", "caffe"], "format: must be one of scalesim"),
        (["nothing.npy", "--format", "dnnsim", "--topology", "x"], "topology: is for"),
        ([SCALESIM / "vit_s.csv", "--tensors", "x"], "tensors: is for dnnsim, and the format is scalesim"),
        ([SCALESIM / "vit_s.csv", "--density-activation", "2"], "density of activation: must be in (0, 1], got 2"),
        ([SCALESIM / "vit_s.csv", "--sparsity", "1"], "sparsity: must be a number in [0, 1), got 1"),
        ([SCALESIM / "vit_s.csv", "--like", "nothing.npz"], "nothing.npz: no such file"),
        ([DATA], "the folder does not tell"),
    ],
)
def test_bad_arguments_give_one_line(arguments, rule, tmp_path, capsys):
    assert run("import", *arguments, "--out", tmp_path / "o.npz") == 2
    error = capsys.readouterr().err
    assert rule in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", sorted({ending for row in readers() for ending in row.endings} | {".nosuch"}))
def test_a_file_that_is_not_there_is_told_before_any_package_is_asked_for(ending, tmp_path, monkeypatch):
    for package in ("onnx", "torch", "safetensors", "openpyxl", "pandas", "ruamel"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportFormatError, match=rf"gone\{ending}: no such file$"):
        read(tmp_path / f"gone{ending}")
    for row in readers():
        if ending in row.endings:
            with pytest.raises(ImportFormatError, match=rf"gone\{ending}: no such file$"):
                read(tmp_path / f"gone{ending}", row.name)


def test_a_reader_is_one_function_of_a_path():
    assert scalesim.read(SCALESIM / "vit_s.csv").format == "scalesim"


# ---- what is said


def layer(name, geometry=None, **more):
    return ImportedLayer(name, "linear", geometry or Geometry(10, 1, 1, 10, (1, 1)), **more)


def partly(*left_out):
    return Imported(Path("net.x"), "x", "net", (layer("a"), layer("b")), left_out=left_out)


def test_what_is_left_out_is_named_with_its_share(tmp_path, capsys, monkeypatch):
    """From five per cent on the last line says so, and --strict fails; also where the number is not known."""
    (tmp_path / "net.csv").write_text(TOPOLOGY)
    for parts, last, code in [
        ((LeftOut("qk", "a product", 10),), "read: 95.2 % of 210 multiplications of the forward pass", 0),
        ((LeftOut("qk", "why", 20),), "read: 90.9 % of 220 multiplications of the forward pass; LESS THAN 95 %, so", 2),
        ((LeftOut("qk", "why"),), "read: 200 multiplications of the forward pass, and 0 left out, and 1", 2),
    ]:  # fmt: skip
        monkeypatch.setattr(scalesim, "read", lambda path, parts=parts: partly(*parts))
        assert run("import", tmp_path / "net.csv", "--out", tmp_path / "t.npz", "--force") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1].startswith(last) and any(line.startswith("  left out: qk, ") for line in lines)
        assert run("import", tmp_path / "net.csv", "--out", tmp_path / "t.npz", "--force", "--strict") == code
        error = capsys.readouterr().err
        assert error.count("\n") == (code == 2) and ("left out: qk" in error) == (code == 2)
        with Trace.open(tmp_path / "t.npz") as trace:
            assert trace.provenance["left out"].keys() == {"qk"}


def test_tensors_are_said_one_by_one():
    """Runs of layers of which the same is true stand together; a range never hides another one."""
    file = Stored(lambda: np.ones((10, 10, 1, 1)))
    layers = (
        layer("a", tensors={"weight": file}),
        layer("b", tensors={"weight": file}),
        layer("c"),
        layer("d", tensors={"weight": file}, words={"weight": "from the file, folded"}),
    )
    imported = Imported(Path("net.x"), "x", "net", layers, is_network=False)
    by_layer = to_trace(imported).provenance["tensors"]
    lines = list(said.lines(imported, by_layer))
    assert [line.split("; ")[0] for line in lines[:-1]] == [
        "  a … b (2 layers): weight from the file",
        "  c: weight drawn, density 1",
        "  d: weight from the file, folded",
    ]


def test_a_share_is_never_rounded_to_all_or_nothing():
    assert said._percent(0.99999) == "99.999 %" and said._percent(1e-5) == "0.001 %"
    assert said._percent(1.0) == "100 %" and said._percent(0.5) == "50.0 %"


def test_names_are_fit_and_each_once():
    names = Names()
    assert [names.add(text) for text in ("/a//b", "a/b", "a/b", "c\\d", "a/b#2")] == [
        "a/b", "a/b#2", "a/b#3", "c/d", "a/b#2#2",
    ]  # fmt: skip
    for bad in ("", "..", "\n", "x" * 300, "\udc80"):
        with pytest.raises(ImportFormatError, match="layer name"):
            names.add(bad)


# ---- rows


def test_every_format_has_its_pieces():
    """A reader that reads, a writer that writes, a row on the page; and no module without a row."""
    text = (DATA.parents[1] / "docs" / "importers.md").read_text(encoding="utf-8")
    assert text.partition("<!-- begin: formats -->\n")[2].partition("<!-- end -->")[0] == page()
    assert len({row.name for row in FORMATS}) == len(FORMATS)
    folder = Path(accelsim.__file__).parent / "workload"
    for kind, used in {
        "importers": {row.reader for row in FORMATS},
        "exporters": {row.writer for row in FORMATS},
    }.items():
        there = {path.stem for path in (folder / kind).glob("*.py") if "\ndef read(path" in path.read_text()}
        there |= {path.stem for path in (folder / kind).glob("*.py") if "\ndef files(snapshot" in path.read_text()}
        assert there - {"__init__"} <= used, f"{there - used} has no row"
    for row in FORMATS:
        assert row.reader or row.writer
        assert set(row.options) <= OPTIONS.keys()
        if row.reader:
            module = import_module(f"accelsim.workload.importers.{row.reader}")
            taken = list(inspect.signature(module.read).parameters)
            assert taken[0] == "path" and sorted(taken[1:]) == sorted(row.options)
            shared = [other for other in readers() if set(other.endings) & set(row.endings) and other is not row]
            assert not shared or hasattr(module, "tells"), f"{row.name} shares an ending and cannot tell its files"
        if row.writer:
            assert callable(import_module(f"accelsim.workload.exporters.{row.writer}").files)
    taken = {option for row in readers() for option in row.options}
    assert taken == OPTIONS.keys()
