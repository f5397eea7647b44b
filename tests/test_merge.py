"""Are the shares of several processes joined to what one would have recorded, and shares that do not fit refused?"""

import subprocess
import sys

import numpy as np
import pytest

from accelsim.errors import AccelsimError, OutputError
from accelsim.workload.geometry import Geometry
from accelsim.workload.merge import merge
from accelsim.workload.metadata import tensor_shape
from accelsim.workload.trace import Trace
from accelsim.workload.trace_writer import TraceWriter

CONV, LINEAR = Geometry(2, 4, 4, 3, (3, 3), padding=(1, 1, 1, 1)), Geometry(5, 2, 1, 4, (1, 1))
HEADS = Geometry(6, 3, 1, 4, (1, 1), groups=2)
LAYERS = {"a": ("conv", CONV, bool), "b": ("linear", LINEAR, np.float16), "b:qk": ("matmul", HEADS, np.uint16)}
LAYERS["c"] = ("conv", CONV, np.int16)
NUMBERS = np.random.default_rng(0)
WEIGHTS = {}


def tensors(samples, seed):
    """Of each layer its tensors of so many samples; weights are shared."""
    random = np.random.default_rng(seed)
    found = {}
    for layer, (kind, geometry, dtype) in LAYERS.items():
        for name in ("weight", "activation", "gradient"):
            of = np.random.default_rng(7) if name == "weight" and kind != "matmul" else random
            shape = tensor_shape(geometry, samples, name, kind)
            found[layer, name] = of.integers(0, 2 if dtype is bool else 99, shape).astype(dtype)
    return found


def write(path, content, *, samples, batch, coverage=True, **changed):
    """A trace of two snapshots with these tensors."""
    how = {
        "network": "net",
        "sparsity": 0.5,
        "step": 3,
        "algorithm": "dense",
        "passes": ["fwd", "weight_grad"],
    } | changed
    with TraceWriter(path, network=how["network"], dataset="data", provenance={"file": path.name}) as out:
        for snapshot in changed.get("snapshots", ("first", "second")):
            what = {key: how[key] for key in ("sparsity", "step", "algorithm")}
            out.snapshot(snapshot, **what, batch=batch, samples=samples)
            for layer, (kind, geometry, _) in LAYERS.items():
                if layer == changed.get("without"):
                    continue
                out.layer(layer, kind=kind, geometry=geometry, passes=how["passes"])
                for name in ("weight", "activation", "gradient"):
                    array = content[layer, name]
                    out.tensor(name, array, bfloat16=array.dtype == np.uint16)
            if coverage:
                out.coverage(10**6 * batch, {"mm: not known": batch, f"of {path.stem}": 1})
    return path


def shares(tmp_path, sizes=(2, 1, 3)):
    parts = [tensors(size, seed) for seed, size in enumerate(sizes)]
    files = [
        write(tmp_path / f"{number}.npz", part, samples=size, batch=2 * size)
        for number, (part, size) in enumerate(zip(parts, sizes, strict=True))
    ]
    return files, parts


def test_samples_follow_one_another_and_weights_are_once(tmp_path):
    files, parts = shares(tmp_path)
    assert merge(files, tmp_path / "all.npz") == tmp_path / "all.npz"
    whole = {
        (layer, name): parts[0][layer, name]
        if name == "weight" and LAYERS[layer][0] != "matmul"
        else np.concatenate([part[layer, name] for part in parts])
        for layer, name in parts[0]
    }
    write(tmp_path / "one.npz", whole, samples=6, batch=12)
    with Trace.open(tmp_path / "all.npz") as joined, Trace.open(tmp_path / "one.npz") as one:
        assert (joined.network, joined.dataset) == ("net", "data")
        assert [part["provenance"]["file"] for part in joined.provenance["merged"]] == ["0.npz", "1.npz", "2.npz"]
        for got, wanted in zip(joined.snapshots, one.snapshots, strict=True):
            assert (got.name, got.batch, got.step, got.sparsity) == (wanted.name, 12, 3, 0.5)
            assert got.coverage["multiplications"] == 12 * 10**6
            assert got.coverage["not_stored"] == {"mm: not known": 12, "of 0": 1, "of 1": 1, "of 2": 1}
            for a, b in zip(got.layers, wanted.layers, strict=True):
                same = ("name", "kind", "geometry", "passes", "samples", "batch")
                assert [getattr(a, key) for key in same] == [getattr(b, key) for key in same]
                for name in b.tensors:
                    assert a.encoding(name) == b.encoding(name)
                    np.testing.assert_array_equal(a.tensor(name), b.tensor(name))


def test_coverage_that_one_did_not_count_is_not_counted(tmp_path):
    parts = tensors(1, 0)
    files = [write(tmp_path / f"{n}.npz", parts, samples=1, batch=1, coverage=n) for n in range(2)]
    with Trace.open(merge(files, tmp_path / "all.npz")) as trace:
        assert trace.snapshots[0].coverage is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"network": "other"}, "1.npz: network: must be the first file's, net; got other"),
        ({"step": 4}, "1.npz: first: step: must be the first file's, 3; got 4"),
        ({"sparsity": 0.25}, "1.npz: first: sparsity: must be the first file's, 0.5; got 0.25"),
        (
            {"snapshots": ("first", "third")},
            "1.npz: snapshots: must be the first file's, in its order; differ in second",
        ),
        ({"without": "b:qk"}, "1.npz: first: layers: must be the first file's, in its order; differ in b:qk"),
        ({"passes": ["fwd"]}, "1.npz: first/a: passes: must be the first file's"),
    ],
)
def test_shares_of_different_runs_are_refused(tmp_path, changed, message):
    first = write(tmp_path / "0.npz", tensors(1, 0), samples=1, batch=1)
    second = write(tmp_path / "1.npz", tensors(1, 1), samples=1, batch=1, **changed)
    with pytest.raises(AccelsimError) as caught:
        merge([first, second], tmp_path / "all.npz")
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.npz", "1.npz"]


def test_weights_must_be_the_same_and_tensors_stored_alike(tmp_path):
    first = write(tmp_path / "0.npz", tensors(1, 0), samples=1, batch=1)
    other = tensors(1, 1)
    other["a", "weight"] = ~other["a", "weight"]
    second = write(tmp_path / "1.npz", other, samples=1, batch=1)
    with pytest.raises(
        AccelsimError, match=r"1.npz: first/a/weight: must be the first file's weight, differs in 54 of 54"
    ):
        merge([first, second], tmp_path / "all.npz")
    other = tensors(1, 1)
    other["b", "activation"] = other["b", "activation"].astype(np.float32)
    second = write(tmp_path / "1.npz", other, samples=1, batch=1)
    with pytest.raises(AccelsimError, match=r"b/activation: must be float16 as in the first file, is float32"):
        merge([first, second], tmp_path / "all.npz")


def test_the_command(tmp_path):
    files, _ = shares(tmp_path)

    def command(*arguments):
        full = [sys.executable, "-m", "accelsim.cli", "merge", *map(str, arguments)]
        return subprocess.run(full, capture_output=True, text=True, cwd=tmp_path)

    done = command(*files, "-o", "all.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "all.npz: 3 traces joined: first of 12 samples, second of 12 samples\n"
    again = command(*files, "-o", "all.npz")
    assert again.returncode == 2
    assert again.stderr == "accelsim: error: all.npz: exists, and is kept; force=True replaces it\n"
    assert command(*files, "-o", "all.npz", "--force").returncode == 0
    one = command(files[0], "-o", "x.npz")
    assert one.returncode == 2 and one.stderr.endswith("traces: must be two or more, got 1\n")
    with Trace.open(tmp_path / "all.npz") as trace:
        assert trace.snapshots[0].layers[0].samples == 6
    with pytest.raises(OutputError, match="exists"):
        merge(files, tmp_path / "all.npz")
