"""Does a trace come back as it was written, does an interrupted one leave nothing wrong, is a damaged one refused?

No byte of a file may lead to another exception than TraceError, of one line that begins with the file's name, or to a
tensor that is not what the metadata says.
"""

import errno
import hashlib
import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import OutputError, TraceError
from accelsim.workload import npz, npz_writer
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import FIRST_LAYER, PASSES, STANDS_IN, TENSORS
from accelsim.workload.trace import Layer, Trace
from accelsim.workload.trace_writer import TraceWriter

pytestmark = pytest.mark.filterwarnings("error")

CONV = Geometry(4, 7, 5, 6, (3, 2), (2, 1), (1, 0, 1, 1), (1, 2), 2)
DEPTHWISE = Geometry(3, 3, 3, 3, (3, 3), groups=3)
LINEAR = Geometry(5, 1, 1, 3, (1, 1))
TOKENS = Geometry(5, 4, 1, 3, (1, 1))
LAYERS = {
    "conv1": ("conv", CONV),
    "blocks.0/dw": ("conv", DEPTHWISE),
    "fc": ("linear", LINEAR),
    "mlp é": ("linear", TOKENS),
}
DTYPES = {"bits": bool, "float16": np.float16, "float32": np.float32, "int16": np.int16, "bfloat16": np.uint16}
SNAPSHOT = {"sparsity": 0.8, "step": 160, "algorithm": "SWAT-U", "batch": 8, "samples": 3}


def shapes(geometry, samples):
    layer = Layer("", "conv", geometry, samples, samples, PASSES, {})
    return {name: layer.shape_of(name) for name in TENSORS}


def draw(rng, shape, encoding):
    """Any bits at all, so any numbers, NaN too."""
    if encoding == "bits":
        return rng.random(shape) < 0.3
    return rng.integers(0, 256, (*shape, np.dtype(DTYPES[encoding]).itemsize), np.uint8).view(DTYPES[encoding])[..., 0]


def as_read(array, encoding):
    if encoding != "bfloat16":
        return array
    wide = np.zeros((*array.shape, 2), "<u2")
    wide[..., 1] = array
    return wide.view("<f4")[..., 0]


def same(left, right):
    """Equal to the bit, dtype and shape too."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def write_all(path, encodings, seed=0):
    """Every layer with every tensor but one; returns what must be read, by (layer, tensor)."""
    rng, expected = np.random.default_rng(seed), {}
    with TraceWriter(path, network="net", dataset="noise", provenance={"seed": seed}) as out:
        out.snapshot("swat80", **SNAPSHOT)
        for index, (name, (kind, geometry)) in enumerate(LAYERS.items()):
            out.layer(name, kind=kind, geometry=geometry, passes=PASSES if index else FIRST_LAYER)
            for place, (tensor, shape) in enumerate(shapes(geometry, SNAPSHOT["samples"]).items()):
                if name == "fc" and tensor in STANDS_IN:
                    continue
                encoding = encodings[(index + place) % len(encodings)]
                array = draw(rng, shape, encoding)
                out.tensor(tensor, array, bfloat16=encoding == "bfloat16")
                expected[name, tensor] = as_read(array, encoding)
    return expected


def members_of(path):
    with zipfile.ZipFile(path) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def zip_members(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, method)


def npy(array, **how):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), **how)
    return buffer.getvalue()


def meta_of(members):
    return json.loads(np.load(io.BytesIO(members["meta.npy"])).tobytes())


def npy_text(text):
    return npy(np.frombuffer(text if isinstance(text, bytes) else text.encode(), np.uint8))


def read_all(path):
    """All tensors by (snapshot, layer, tensor), each as its geometry says."""
    found = {}
    with Trace.open(path) as trace:
        for snapshot in trace.snapshots:
            for layer in snapshot.layers:
                for name in layer.tensors:
                    array = found[snapshot.name, layer.name, name] = layer.tensor(name)
                    assert array.shape == layer.shape_of(name) and array.dtype.name in ("bool", *npz.ENCODINGS)
    return found


def refusal(path):
    """The message with which a trace is refused."""
    with pytest.raises(TraceError) as caught:
        read_all(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 1000
    return message.removeprefix(f"{path}: ")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.npz"


@pytest.fixture
def small(path):
    """The file that the cases below damage: one layer, a mask of 72 positions and values."""
    write_small(path)
    return path


def write_small(path):
    rng = np.random.default_rng(1)
    with TraceWriter(path, network="net", dataset="noise", provenance={"of": ["tests"]}) as out:
        for name in ("dense", "swat80"):
            out.snapshot(name, **SNAPSHOT)
            out.layer("conv1", kind="conv", geometry=CONV, passes=FIRST_LAYER)
            sizes = shapes(CONV, SNAPSHOT["samples"])
            out.tensor("weight", rng.random((6, 2, 3, 2)) < 0.3)
            out.tensor("activation", rng.random(sizes["activation"]).astype(np.float16))
            out.layer("fc", kind="linear", geometry=LINEAR)
            out.tensor("weight", rng.random((3, 5, 1, 1)) < 0.5)
            out.tensor("gradient", rng.integers(0, 1 << 16, (3, 3, 1, 1), np.uint16), bfloat16=True)


# Round trips


@pytest.mark.parametrize("encoding", DTYPES)
def test_round_trip_of_each_encoding(path, encoding):
    expected = write_all(path, [encoding])
    with Trace.open(path) as trace:
        for layer in trace.snapshots[0].layers:
            for tensor in layer.tensors:
                assert same(layer.tensor(tensor), expected[layer.name, tensor])


@settings(max_examples=30, deadline=None)
@given(encodings=st.lists(st.sampled_from(list(DTYPES)), min_size=1), seed=st.integers(0, 99), chunk=st.integers(1, 20))
def test_round_trip_in_any_chunks(tmp_path_factory, encodings, seed, chunk):
    path = tmp_path_factory.mktemp("trip") / "net.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npz, "CHUNK", 8 * chunk)
        patch.setattr(npz_writer, "CHUNK", 8 * chunk)
        patch.setattr(npz, "RAW_STEP", chunk)
        expected = write_all(path, encodings, seed)
        found = read_all(path)
    assert len(found) == len(expected) == 18
    assert all(same(found[("swat80", *where)], array) for where, array in expected.items())


def test_everything_about_the_run_comes_back(path):
    write_all(path, ["bits"], seed=7)
    with Trace.open(path) as trace:
        assert (trace.path, trace.version, trace.network, trace.dataset) == (path, 2, "net", "noise")
        assert trace.provenance == {"seed": 7}
        snapshot = trace.snapshot("swat80")
        assert {key: getattr(snapshot, key) for key in SNAPSHOT if key != "samples"} | {"samples": 3} == SNAPSHOT
        assert snapshot.coverage is None
        assert {(layer.samples, layer.batch) for layer in snapshot.layers} == {(3, 8)}
        assert {layer.name: (layer.kind, layer.geometry) for layer in snapshot.layers} == LAYERS
        assert [layer.passes for layer in snapshot.layers] == [FIRST_LAYER, *[PASSES] * 3]
        with pytest.raises(TraceError, match=r"net.npz: snapshot must be one of swat80; got 'dense'"):
            trace.snapshot("dense")


def test_comparison_notices_what_differs():
    zero = np.zeros((1, 2, 1, 1), np.float32)
    assert same(zero, zero.copy())
    for other in (-zero, zero.astype(np.float16), zero.reshape(2, 1, 1, 1), zero + 1):
        assert not same(zero, other)
    assert np.array_equal(as_read(np.array([0x3F80, 0xC000], np.uint16), "bfloat16"), [1.0, -2.0])


def test_saved_activation_and_backward_weight_fall_back(path):
    expected = write_all(path, ["float32", "bits"])
    with Trace.open(path) as trace:
        conv, _, linear, _ = trace.snapshots[0].layers
        assert same(linear.tensor("saved_activation"), expected["fc", "activation"])
        assert same(conv.tensor("saved_activation"), expected["conv1", "saved_activation"])
        assert not same(conv.tensor("saved_activation"), expected["conv1", "activation"])
        assert same(linear.tensor("backward_weight"), expected["fc", "weight"])
        assert same(conv.tensor("backward_weight"), expected["conv1", "backward_weight"])


def test_absent_tensor_is_named(small):
    with Trace.open(small) as trace, pytest.raises(TraceError) as caught:
        trace.snapshot("dense").layers[0].tensor("gradient")
    assert (
        str(caught.value) == f"{small}: dense/conv1/gradient: must be in the trace, whose layer has weight, activation"
    )
    layer = Layer("conv1", "conv", CONV, 1, 1, PASSES, {"weight": np.zeros((6, 2, 3, 3), bool)})
    with pytest.raises(TraceError, match=r"^conv1/weight: must have shape \(6, 2, 3, 2\), got \(6, 2, 3, 3\)$"):
        layer.tensor("weight")
    with pytest.raises(TraceError, match="tensor must be one of weight, "):
        layer.tensor("bias")


def test_nan_and_minus_zero(path):
    """NaN is not zero, −0.0 is, whether values are stored or only where they are."""
    bits = np.array([0x7FC0, 0x8000, 0x0000, 0x0001], np.uint16).reshape(1, 4, 1, 1)
    values = np.array([np.nan, -0.0, 0.0, 1e-40], np.float32).reshape(1, 4, 1, 1)
    with TraceWriter(path, network="net", dataset="noise") as out:
        out.snapshot("s", **SNAPSHOT | {"samples": 1})
        out.layer("fc", kind="linear", geometry=Geometry(4, 1, 1, 1, (1, 1)))
        out.tensor("weight", values)
        out.tensor("activation", bits, bfloat16=True)
        out.tensor("saved_activation", bits, bfloat16=True, as_mask=True)
        out.layer("fc2", kind="linear", geometry=Geometry(4, 1, 1, 1, (1, 1)))
        out.tensor("weight", values.astype(np.float64), as_mask=True)
        out.tensor("activation", np.arange(4, dtype=np.int64).reshape(1, 4, 1, 1), as_mask=True)
    found = {where[1:]: (array != 0).ravel().tolist() for where, array in read_all(path).items()}
    assert found.pop(("fc2", "activation")) == [False, True, True, True]
    assert list(found.values()) == [[True, False, False, True]] * 4


def test_numpy_loads_it(small):
    file = np.load(small)
    assert file["dense/conv1/activation"].shape == (3, 4, 7, 5)
    mask = np.unpackbits(file["dense/conv1/weight"], count=72).reshape(6, 2, 3, 2).astype(bool)
    assert same(mask, read_all(small)["dense", "conv1", "weight"])
    assert json.loads(file["meta"].tobytes())["version"] == 2


def test_what_numpy_saves_is_read(small):
    found, arrays = read_all(small), dict(np.load(small))
    for save in (np.savez, np.savez_compressed):
        save(small, **arrays)
        again = read_all(small)
        assert again.keys() == found.keys() and all(same(again[key], found[key]) for key in found)


def test_arrays_in_any_memory_order(path):
    rng = np.random.default_rng(0)
    array = rng.random((3, 7, 5, 4)) < 0.5
    with TraceWriter(path, network="net", dataset="noise") as out:
        out.snapshot("s", **SNAPSHOT)
        out.layer("conv1", kind="conv", geometry=CONV)
        out.tensor("activation", array.transpose(0, 3, 1, 2))
        out.tensor("weight", np.ones((6, 2, 3, 2), ">f4"))
    found = read_all(path)
    np.testing.assert_array_equal(found["s", "conv1", "activation"], array.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(found["s", "conv1", "weight"], np.ones((6, 2, 3, 2)))


def test_large_members_use_zip64(path, monkeypatch):
    monkeypatch.setattr(npz_writer, "LARGE", 100)
    expected = write_all(path, ["float32"])
    assert b"\x01\x00\x10\x00" in path.read_bytes()[:100]  # the extra field of the first member
    assert same(read_all(path)["swat80", "conv1", "weight"], expected["conv1", "weight"])
    assert np.load(path)["swat80/conv1/weight"].shape == (6, 2, 3, 2)


def test_digest_and_determinism(small, tmp_path):
    write_small(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == small.read_bytes()
    with Trace.open(small) as trace:
        assert trace.digest == trace.digest == hashlib.sha256(small.read_bytes()).hexdigest()


def test_import_is_cheap():
    heavy = ["pydantic", "yaml", "numba", "pandas", "scipy", "torch", "simpy"]
    code = f"import sys, accelsim.workload.trace; sys.exit(bool(set(sys.modules) & set({heavy})))"
    subprocess.run([sys.executable, "-c", code], check=True)


# What layers say for themselves


def test_layers_have_samples_batches_and_passes_of_their_own(path):
    windows, frozen = np.ones((5, 5, 4, 1), bool), ("fwd", "input_grad")
    with TraceWriter(path, network="net", dataset="noise") as out:
        out.snapshot("s", **SNAPSHOT)
        out.layer("attention", kind="linear", geometry=TOKENS, samples=5, batch=64, passes=frozen)
        out.tensor("activation", windows)
        out.layer("fc", kind="linear", geometry=LINEAR)
        out.tensor("activation", np.ones((3, 5, 1, 1), bool))
        out.coverage(1000, {"aten::lstm": 300})
    with Trace.open(path) as trace:
        (snapshot,) = trace.snapshots
        assert (snapshot.batch, snapshot.coverage) == (8, {"multiplications": 1000, "not_stored": {"aten::lstm": 300}})
        assert [(la.samples, la.batch, la.passes) for la in snapshot.layers] == [(5, 64, frozen), (3, 8, PASSES)]
        assert same(snapshot.layers[0].tensor("activation"), windows)


def test_all_samples_of_the_batch_are_stored_unless_said_otherwise(path):
    with TraceWriter(path, network="net", dataset="noise") as out:
        out.snapshot("s", **{key: value for key, value in SNAPSHOT.items() if key != "samples"})
        out.layer("fc", kind="linear", geometry=LINEAR)
        out.tensor("activation", np.ones((8, 5, 1, 1), bool))
    assert read_all(path)["s", "fc", "activation"].shape == (8, 5, 1, 1)


# Version 1

VERSION1 = Path(__file__).parent / "data" / "traces" / "version1.npz"


def test_version_1_is_read(small):
    """The file was written when the format was version 1; it holds what ``write_small`` writes."""
    old, new = read_all(VERSION1), read_all(small)
    assert old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
    with Trace.open(VERSION1) as trace:
        assert trace.version == 1
        for snapshot in trace.snapshots:
            assert (snapshot.batch, snapshot.coverage) == (8, None)
            assert [(la.samples, la.batch, la.passes) for la in snapshot.layers] == [
                (3, 8, FIRST_LAYER),
                (3, 8, PASSES),
            ]


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("snapshots", 1, "samples"), 9, "swat80/conv1: samples: must be at most batch, 8; got 9"),
        (("snapshots", 1, "samples"), KeyError, "swat80: samples: must be given, is missing"),
        (("snapshots", 1, "coverage"), None, "snapshots[1]: 'coverage': unknown key"),
        (("snapshots", 1), 5, "snapshots[1]: must be an object with keys name, sparsity"),
        (("snapshots", 1, "name"), "dense", "snapshots[1]: name: must be new, got 'dense' again"),
        (("snapshots", 1, "layers", 0), [], "swat80: layers[0]: must be an object with keys name, kind"),
        (("snapshots", 1, "layers", 0, "input_grad"), 0, "swat80/conv1: input_grad: must be true or false, got 0"),
        (("snapshots", 1, "layers", 0, "passes"), ["fwd"], "swat80: layers[0]: 'passes': unknown key"),
        (("snapshots", 1, "layers", 0, "kind"), "pool", "swat80/conv1: kind: must be conv or linear, got 'pool'"),
    ],
)
def test_a_wrong_version_1_is_refused(path, where, value, message):
    members = members_of(VERSION1)
    meta = meta_of(members)
    set_in(meta, where, value)
    zip_members(path, members | {"meta.npy": npy_text(json.dumps(meta))})
    assert refusal(path).startswith(message)


# Memory and threads


def peak_of(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_peak_memory_is_that_of_the_tensor(path):
    geometry = Geometry(32, 1024, 1024, 1, (1, 1))  # 32 MiB of bool, 4 MiB of bits
    mask = np.zeros((1, 1024, 32, 1024), bool)
    mask[..., ::7] = True

    def write(array):
        with TraceWriter(path, network="net", dataset="noise", level=1) as out:
            out.snapshot("s", **SNAPSHOT | {"samples": 1})
            out.layer("conv", kind="conv", geometry=geometry)
            out.tensor("activation", array)

    assert peak_of(lambda: write(mask.transpose(0, 2, 1, 3))) < 8 << 20
    with Trace.open(path) as trace:
        layer = trace.snapshots[0].layers[0]
        assert peak_of(lambda: layer.tensor("activation")) < (32 + 8) << 20
        np.testing.assert_array_equal(layer.tensor("activation"), mask.transpose(0, 2, 1, 3))


def test_threads_read_at_once(path):
    expected = write_all(path, list(DTYPES))
    failures = []
    with Trace.open(path) as trace:

        def read(seed):
            layers = list(trace.snapshots[0].layers)
            random.Random(seed).shuffle(layers)
            for layer in layers * 20:
                for name in layer.tensors:
                    if not same(layer.tensor(name), expected[layer.name, name]):
                        failures.append((layer.name, name))
            trace.digest  # noqa: B018 (reads the file)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


# Writing: all or nothing


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_file_and_nothing_else(small, kind):
    before = small.read_bytes()
    with pytest.raises(kind), TraceWriter(small, network="net", dataset="noise") as out:
        out.snapshot("s", **SNAPSHOT)
        out.layer("fc", kind="linear", geometry=LINEAR)
        out.tensor("weight", np.ones((3, 5, 1, 1), bool))
        raise kind
    assert small.read_bytes() == before
    assert os.listdir(small.parent) == [small.name]


def test_interrupted_then_closed_keeps_the_snapshots_before(path, monkeypatch):
    """Ctrl-C in the middle of a tensor; the step under way is given up, the one before is kept."""
    encode, calls = npz_writer._encode, []

    def encode_until(*args):
        calls.append(args)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return encode(*args)

    monkeypatch.setattr(npz_writer, "CHUNK", 16)
    monkeypatch.setattr(npz_writer, "_encode", encode_until)
    weight = np.ones((6, 2, 3, 2), np.float32)
    with pytest.raises(KeyboardInterrupt), TraceWriter(path, network="net", dataset="noise") as out:
        try:
            for step in range(9):
                out.snapshot(f"step{step}", **SNAPSHOT | {"step": step})
                for name in ("conv1", "conv2"):
                    out.layer(name, kind="conv", geometry=CONV)
                    out.tensor("weight", weight)
        except KeyboardInterrupt:
            out.abandon_snapshot()
            out.abandon_snapshot()
            out.close()
            raise
    assert os.listdir(path.parent) == [path.name]
    assert list(read_all(path)) == [("step0", "conv1", "weight"), ("step0", "conv2", "weight")]


def test_an_interrupted_tensor_can_be_left_out_or_written_again(path, monkeypatch):
    rng = np.random.default_rng(0)
    first, second = rng.random((6, 2, 3, 2)) < 0.5, rng.random((3, 4, 7, 5)).astype(np.float32)
    with TraceWriter(path, network="net", dataset="noise") as out:
        out.snapshot("s", **SNAPSHOT)
        out.layer("conv1", kind="conv", geometry=CONV)
        out.tensor("weight", first)
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(npz_writer, "_encode", lambda *args: 1 // 0)
            out.tensor("activation", second)
        out.tensor("activation", second)
        out.close()
        with pytest.raises(OutputError, match="closed already"):
            out.tensor("saved_activation", second)
    found = read_all(path)
    assert same(found["s", "conv1", "weight"], first) and same(found["s", "conv1", "activation"], second)


def test_gradients_come_when_all_layers_have_begun(path):
    with TraceWriter(path, network="net", dataset="noise") as out:
        out.snapshot("s", **SNAPSHOT)
        for name in "ab":
            out.layer(name, kind="linear", geometry=LINEAR)
        for value, name in enumerate("ba"):
            out.tensor("gradient", np.full((3, 3, 1, 1), value, np.int16), layer=name)
    found = read_all(path)
    assert found["s", "a", "gradient"].all() and not found["s", "b", "gradient"].any()


def test_a_full_disk_is_one_line(small):
    """Made with a limit on file size, which fails where a full disk does."""
    resource = pytest.importorskip("resource")
    before, limit = small.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).random((3, 4, 7, 5)).astype(np.float32)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, limit[1]))
    try:
        with pytest.raises(OutputError) as caught, TraceWriter(small, network="net", dataset="noise") as out:
            for step in range(9):
                out.snapshot(f"step{step}", **SNAPSHOT)
                out.layer("conv1", kind="conv", geometry=CONV)
                out.tensor("activation", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert str(caught.value) == f"{small}: cannot write: {os.strerror(errno.EFBIG)}"
    assert small.read_bytes() == before and os.listdir(small.parent) == [small.name]


def test_places_that_cannot_be_written(tmp_path):
    nowhere = tmp_path / "missing" / "net.npz"
    with pytest.raises(OutputError, match=r"missing/net.npz: cannot write: No such file or directory$"):
        TraceWriter(nowhere, network="net", dataset="noise")
    with pytest.raises(OutputError, match=r": cannot write: is a folder$"):
        TraceWriter(tmp_path, network="net", dataset="noise")
    assert os.listdir(tmp_path) == []


MISUSE = {
    "conv1/weight: must have shape (6, 2, 3, 2), got (6, 2, 3, 3)": lambda o: o.tensor(
        "weight", np.ones((6, 2, 3, 3), bool)
    ),
    "conv1/weight: dtype must be bool or one of float16, bfloat16, float32, int16; got float64": lambda o: o.tensor(
        "weight", np.ones((6, 2, 3, 2))
    ),
    "got object": lambda o: o.tensor("weight", np.full((6, 2, 3, 2), None), as_mask=True),
    "got uint16": lambda o: o.tensor("weight", np.ones((6, 2, 3, 2), np.uint16)),
    "bfloat16 must come as uint16, got int16": lambda o: o.tensor(
        "weight", np.ones((6, 2, 3, 2), np.int16), bfloat16=True
    ),
    "conv1/bias: tensor must be one of weight, ": lambda o: o.tensor("bias", np.ones(6, bool)),
    "conv1/activation: must be written once": lambda o: o.tensor("activation", np.ones((3, 4, 7, 5), bool)),
    "s: layer must have begun before its tensors, got 'fc'": lambda o: o.tensor("weight", np.ones(1), layer="fc"),
    "s/conv1: name: must be new": lambda o: o.layer("conv1", kind="conv", geometry=CONV),
    "s/fc: a linear layer must be": lambda o: o.layer("fc", kind="linear", geometry=CONV),
    "s/fc: kind: must be one of conv, linear, matmul, got 'pool'": lambda o: o.layer("fc", kind="pool", geometry=CONV),
    "passes: must be a list of some of fwd": lambda o: o.layer("fc", kind="conv", geometry=CONV, passes=["fwd", "fwd"]),
    "without an empty part, . or .., got '../x'": lambda o: o.layer("../x", kind="conv", geometry=CONV),
    "s: name: must be new": lambda o: o.snapshot("s", **SNAPSHOT),
    "s/fc: samples: must be at most batch, 8; got 9": lambda o: o.layer(
        "fc", kind="linear", geometry=LINEAR, samples=9
    ),
    "s/fc: samples: must be at most batch, 2; got 3": lambda o: o.layer("fc", kind="linear", geometry=LINEAR, batch=2),
    "s: coverage: not_stored: must be at most": lambda o: o.coverage(9, {"lstm": 10}),
    "s: coverage: multiplications: must be an integer": lambda o: o.coverage(9.5, {}),
    "t: sparsity: must be a number, 0 ≤ sparsity < 1, got 1.0": lambda o: o.snapshot(
        "t", **SNAPSHOT | {"sparsity": 1.0}
    ),
}


@pytest.mark.parametrize("message", MISUSE)
def test_misuse_of_the_writer_is_refused_and_harms_nothing(path, message):
    with TraceWriter(path, network="net", dataset="noise") as out:
        out.snapshot("s", **SNAPSHOT)
        out.layer("conv1", kind="conv", geometry=CONV)
        out.tensor("activation", np.ones((3, 4, 7, 5), bool))
        with pytest.raises(TraceError) as caught:
            MISUSE[message](out)
        assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert list(read_all(path)) == [("s", "conv1", "activation")]


def test_an_empty_trace_is_not_written(path):
    for begin in (lambda out: None, lambda out: out.snapshot("s", **SNAPSHOT)):
        with (
            pytest.raises(TraceError, match="must hold a snapshot"),
            TraceWriter(path, network="a", dataset="b") as out,
        ):
            begin(out)
    with pytest.raises(TraceError, match="a snapshot must begin"), TraceWriter(path, network="a", dataset="b") as out:
        out.layer("fc", kind="linear", geometry=LINEAR)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("provenance", [{"a": float("nan")}, {"a": {1}}, {1: 2, "1": 3}, [1], {"a": object()}])
def test_provenance_must_be_plain_json(path, provenance):
    with pytest.raises(TraceError, match="provenance: "):
        TraceWriter(path, network="net", dataset="noise", provenance=provenance)
    assert os.listdir(path.parent) == []


# Reading: what is refused, and how


def test_no_file(path, tmp_path):
    assert refusal(path) == "cannot read: No such file or directory"
    assert refusal(tmp_path) == "must be a file, is a folder or a device"
    path.touch()
    assert refusal(path) == "must be a whole .npz file: is empty"
    path.write_text("hello" * 99)
    assert refusal(path) == "must be a whole .npz file: begins with b'hell'"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert refusal(tmp_path / "pipe") == "must be a file, is a folder or a device"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_file(small, share):
    content = small.read_bytes()
    small.write_bytes(content[: int(share * len(content))])
    assert refusal(small).startswith("must be a whole .npz file: File is not a zip file")


def test_file_that_shrinks_while_it_is_open(small):
    with Trace.open(small) as trace:
        os.truncate(small, 100)
        with pytest.raises(TraceError, match=r"swat80/conv1/weight: .* become shorter"):
            trace.snapshot("swat80").layers[0].tensor("weight")
    with pytest.raises(TraceError, match=r"swat80/conv1/weight: .*closed file"):
        trace.snapshot("swat80").layers[0].tensor("weight")


def set_in(meta, where, value):
    *parents, last = where
    for key in parents:
        meta = meta[key]
    if value is KeyError:
        del meta[last]
    else:
        meta[last] = value


LAYER0 = ("snapshots", 1, "layers", 0)
META = [
    (("format",), "zip", "meta: format: must be 'accelsim-trace', got 'zip'"),
    (("version",), 3, "version 3 is not known; this accelsim reads versions 1 to 2"),
    (("version",), 0, "version 0 is not known"),
    (("version",), True, "version True is not known"),
    (("version",), KeyError, "version None is not known"),
    (("colour",), 1, "meta: 'colour': unknown key; known are format, version"),
    (("network",), KeyError, "meta: network: must be given, is missing"),
    (("network",), "two\nlines", "meta: network: must be a text of 1…255 printable characters, got 'two\\nlines'"),
    (("provenance",), [], "meta: provenance: must be an object, got []"),
    (("provenance",), float("nan"), "meta: must be JSON in UTF-8: numbers must be finite, got 'NaN'"),
    (("provenance",), float("-inf"), "meta: must be JSON in UTF-8: numbers must be finite, got '-Infinity'"),
    (("snapshots",), {}, "meta: snapshots: must be a list, got {}"),
    (("snapshots",), [], "snapshots: must hold at least one"),
    (("snapshots", 1), 5, "snapshots[1]: must be an object with keys name, sparsity"),
    (("snapshots", 1, "name"), "dense", "snapshots[1]: name: must be new, got 'dense' again"),
    (("snapshots", 1, "name"), "a/b", "snapshots[1]: name: must be a text"),
    (("snapshots", 1, "name"), "", "snapshots[1]: name: must be a text"),
    (("snapshots", 1, "name"), "\ud800", "snapshots[1]: name: must be a text"),
    (("snapshots", 1, "name"), "x" * 256, "snapshots[1]: name: must be a text"),
    (("snapshots", 1, "sparsity"), 1, "swat80: sparsity: must be a number, 0 ≤ sparsity < 1, got 1"),
    (("snapshots", 1, "sparsity"), -0.1, "swat80: sparsity: must be a number"),
    (("snapshots", 1, "sparsity"), False, "swat80: sparsity: must be a number"),
    (("snapshots", 1, "step"), True, "swat80: step: must be an integer in 0…9007199254740991, got True"),
    (("snapshots", 1, "step"), 1.0, "swat80: step: must be an integer"),
    (("snapshots", 1, "step"), 10**30, "swat80: step: must be an integer"),
    (("snapshots", 1, "batch"), 0, "swat80: batch: must be an integer in 1…16777216, got 0"),
    (("snapshots", 1, "samples"), 3, "snapshots[1]: 'samples': unknown key"),
    (("snapshots", 1, "coverage"), 1, "swat80: coverage: must be an object or null, got 1"),
    (("snapshots", 1, "coverage"), {}, "swat80: coverage: multiplications: must be given, is missing"),
    (
        ("snapshots", 1, "coverage"),
        {"multiplications": -1, "not_stored": {}},
        "swat80: coverage: multiplications: must be an integer in 0…",
    ),
    (
        ("snapshots", 1, "coverage"),
        {"multiplications": 9, "not_stored": {"": 1}},
        "swat80: coverage: not_stored: a name must be a text",
    ),
    (
        ("snapshots", 1, "coverage"),
        {"multiplications": 9, "not_stored": {"lstm": 1.5}},
        "swat80: coverage: not_stored: lstm: must be an integer in 0…",
    ),
    (
        ("snapshots", 1, "coverage"),
        {"multiplications": 9, "not_stored": {"lstm": 5, "bmm": 5}},
        "swat80: coverage: not_stored: must be at most the step's 9 multiplications together, got 10",
    ),
    ((*LAYER0, "samples"), 9, "swat80/conv1: samples: must be at most batch, 8; got 9"),
    ((*LAYER0, "batch"), 2, "swat80/conv1: samples: must be at most batch, 2; got 3"),
    ((*LAYER0, "batch"), KeyError, "swat80/conv1: batch: must be given, is missing"),
    (
        (*LAYER0, "samples"),
        4,
        "swat80/conv1/activation: must be (4, 4, 7, 5) float16 of 1120 bytes, got (3, 4, 7, 5)",
    ),
    (("snapshots", 1, "layers"), [], "swat80: layers: must hold at least one"),
    ((*LAYER0, "name"), "fc", "swat80: layers[1]: name: must be new, got 'fc' again"),
    ((*LAYER0, "name"), "/etc", "swat80: layers[0]: name: must be a text"),
    ((*LAYER0, "name"), "a/../b", "swat80: layers[0]: name: must be a text"),
    ((*LAYER0, "name"), "a\\b", "swat80: layers[0]: name: must be a text"),
    ((*LAYER0, "name"), "conv2", "swat80/conv2/weight: must be in the file, is missing"),
    ((*LAYER0, "kind"), ["conv"], "swat80/conv1: kind: must be one of conv, linear, matmul, got ['conv']"),
    ((*LAYER0, "kind"), "linear", "swat80/conv1: a linear layer must be"),
    ((*LAYER0, "input_grad"), True, "swat80: layers[0]: 'input_grad': unknown key"),
    ((*LAYER0, "passes"), [], "swat80/conv1: passes: must be a list of some of fwd, input_grad, weight_grad, in"),
    ((*LAYER0, "passes"), ["weight_grad", "fwd"], "swat80/conv1: passes: must be a list of some of fwd, "),
    ((*LAYER0, "passes"), [["fwd"]], "swat80/conv1: passes: must be a list of some of fwd, "),
    ((*LAYER0, "geometry"), [1], "swat80/conv1: geometry: must be an object, got [1]"),
    ((*LAYER0, "geometry", "groups"), 3, "swat80/conv1: geometry: groups: must divide channels 4 and filters 6, got 3"),
    ((*LAYER0, "geometry", "groups"), KeyError, "swat80/conv1: geometry: groups: must be given, is missing"),
    ((*LAYER0, "geometry", "kernel"), [9, 9], "swat80/conv1: geometry: kernel: the dilated kernel"),
    ((*LAYER0, "geometry", "kernel"), 3, "swat80/conv1: geometry: kernel: must be 2 integers, got 3"),
    (
        (*LAYER0, "geometry", "channels"),
        True,
        "swat80/conv1: geometry: channels: must be an integer or a list of at most 4, got True",
    ),
    ((*LAYER0, "geometry", "height"), 0, "swat80/conv1: geometry: height: must be an integer in 1…"),
    ((*LAYER0, "geometry", "filters"), 8, "swat80/conv1/weight: must be a (8, 2, 3, 2) mask of 12 bytes, got 9"),
    ((*LAYER0, "tensors", "bias"), {"encoding": "bits"}, "swat80/conv1: tensors: must be of weight, "),
    ((*LAYER0, "tensors", "weight"), KeyError, "'swat80/conv1/weight': must be declared in meta, is not"),
    ((*LAYER0, "tensors", "weight"), "bits", "swat80/conv1: tensors.weight: must be an object with keys encoding"),
    ((*LAYER0, "tensors", "weight", "encoding"), "int8", "swat80/conv1: tensors.weight: encoding: must be one of bits"),
    ((*LAYER0, "tensors", "weight", "encoding"), [], "swat80/conv1: tensors.weight: encoding: must be one of bits"),
    (
        (*LAYER0, "tensors", "weight", "encoding"),
        "int16",
        "swat80/conv1/weight: must have dtype '<i2' for int16, got '|u1'",
    ),
    ((*LAYER0, "tensors", "gradient"), {"encoding": "bits"}, "swat80/conv1/gradient: must be in the file, is missing"),
]


@pytest.mark.parametrize(("where", "value", "message"), META)
def test_metadata_that_is_wrong(small, where, value, message):
    members = members_of(small)
    meta = meta_of(members)
    set_in(meta, where, value)
    zip_members(small, members | {"meta.npy": npy_text(json.dumps(meta))})
    assert refusal(small).startswith(message)


NOT_JSON = {
    b"\xff{}": "meta: must be JSON in UTF-8: 'utf-8' codec can't decode",
    b"{": "meta: must be JSON in UTF-8: Expecting",
    b"[" * 100_000: "meta: must be JSON in UTF-8: is nested too deeply",
    b'{"a": 1, "a": 2}': "meta: must be JSON in UTF-8: key 'a' must occur once, occurs twice",
    b'{"a": 1e999}': "meta: must be JSON in UTF-8: numbers must be finite, got '1e999'",
    b'{"a": ' + b"9" * 9999 + b"}": "meta: must be JSON in UTF-8: numbers must be finite",
    b"[]": "meta: format: must be 'accelsim-trace', got None",
}


@pytest.mark.parametrize("text", NOT_JSON)
def test_metadata_that_is_no_json(small, text):
    zip_members(small, members_of(small) | {"meta.npy": npy_text(text)})
    assert refusal(small).startswith(NOT_JSON[text])


def test_metadata_that_is_too_large(small, monkeypatch):
    for module in (npz, npz_writer):
        monkeypatch.setattr(module, "LARGEST_DOCUMENT", 50)
    assert refusal(small).startswith("meta: must be at most 50 bytes of dtype '|u1', got")
    with pytest.raises(TraceError, match="meta: must be at most 50 bytes"):
        write_small(small.parent / "other.npz")
    assert os.listdir(small.parent) == [small.name]


MASK = np.zeros(9, np.uint8)
MEMBERS = {
    "must be a (6, 2, 3, 2) mask of 9 bytes, got 8": npy(MASK[:8]),
    "must be a (6, 2, 3, 2) mask of 9 bytes, got (3, 3)": npy(MASK.reshape(3, 3)),
    "must be a (6, 2, 3, 2) mask of 9 bytes, got 5 bytes": npy(MASK)[:-4],
    "must be a (6, 2, 3, 2) mask of 9 bytes, got 11 bytes": npy(MASK) + b"xx",
    "must have dtype '|u1' for bits, got '<f4'": npy(MASK.astype(np.float32)),
    "must have dtype '|u1' for bits, got '|b1'": npy(MASK.astype(bool)),
    "must not be a pickled array, has dtype '|O'": npy(MASK.astype(object), allow_pickle=True),
    "must be in C order, is in Fortran order": npy(np.asfortranarray(np.zeros((6, 2), np.uint8))),
    "must have a header as numpy writes it for a plain array": npy(np.zeros(9, [("a", "u1")])),
    "must be an array in .npy format 1.0, begins with b'\\x93NUMPY\\x02": npy(MASK, version=(2, 0)),
    "must be an array in .npy format 1.0, begins with b''": b"",
    "must be an array in .npy format 1.0, begins with b'hell": b"hello world",
    "must be an array in .npy format 1.0, begins with b'\\x93NUMPY\\x01\\x00\\xff": npz.MAGIC
    + b"\xff\xff"
    + b" " * 70000,
}


@pytest.mark.parametrize("message", MEMBERS)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_arrays_that_are_wrong_are_refused_when_the_file_is_opened(small, message, method):
    zip_members(small, members_of(small) | {"swat80/conv1/weight.npy": MEMBERS[message]}, method)
    with pytest.raises(TraceError) as caught:
        Trace.open(small)
    assert str(caught.value).startswith(f"{small}: swat80/conv1/weight: {message}")


def test_filling_bits_must_be_zero(small):
    weight = npy(np.array([0, 1], np.uint8))
    zip_members(small, members_of(small) | {"swat80/fc/weight.npy": weight})
    assert refusal(small) == "swat80/fc/weight: the last 1 bits must be zero, got byte 0x01"


def test_members_that_do_not_belong(small):
    members = members_of(small)
    zip_members(small, members | {"notes.txt": b""})
    assert refusal(small) == "notes.txt: must be a plain name that ends in .npy, got 'notes.txt'"
    zip_members(small, members | {"extra.npy": npy(MASK)})
    assert refusal(small) == "'extra': must be declared in meta, is not"
    zip_members(small, {name: content for name, content in members.items() if name != "meta.npy"})
    assert refusal(small) == "meta: must be in the file, is missing"


def test_a_member_twice(small):
    with zipfile.ZipFile(small, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("swat80/fc/weight.npy", npy(MASK))
    assert refusal(small) == "swat80/fc/weight: must occur once in the file, occurs twice"


def in_directory(content, name, offset, form, value):
    """The file with one field changed in the directory's entry of a member."""
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
    changed = bytearray(content)
    struct.pack_into(form, changed, at + offset, value)
    return bytes(changed)


DIRECTORY = [
    (8, "<H", 1, "must not be encrypted or a patch"),
    (10, "<H", 14, "compression must be 0 (none) or 8 (deflate), got 14"),
    (10, "<H", 99, "compression must be 0 (none) or 8 (deflate), got 99"),
    (10, "<H", 0, "compressed bytes can't hold"),
    (16, "<L", 0xDEADBEEF, "checksum must be deadbeef, got "),
    (20, "<L", 1 << 30, "must end within the file's"),
    (20, "<L", 20, "compressed data must "),
    (24, "<L", 1 << 20, "compressed bytes can't hold"),
    (24, "<L", 138, "must be a (6, 2, 3, 2) mask of 9 bytes, got 10 bytes"),
    (42, "<L", 5, "must begin at byte"),
    (42, "<L", 1 << 31, "the zip's own header of this array is damaged"),
]


@pytest.mark.parametrize(("offset", "form", "value", "message"), DIRECTORY)
def test_directory_that_lies(small, offset, form, value, message):
    small.write_bytes(in_directory(small.read_bytes(), "swat80/conv1/weight.npy", offset, form, value))
    assert message in refusal(small)


def test_a_claim_of_gigabytes_is_refused_before_allocation(small):
    """Metadata, npy header and at last the zip's directory agree on 6·2^31 positions; there are 99 bytes."""
    members = members_of(small)
    meta, name = meta_of(members), "swat80/conv1/weight.npy"
    for key, value in {"channels": 1 << 15, "filters": 1 << 16, "groups": 1}.items():
        set_in(meta, (*LAYER0, "geometry", key), value)
    set_in(meta, (*LAYER0, "tensors"), {"weight": {"encoding": "bits"}})
    del members["swat80/conv1/activation.npy"]
    header = npz.MAGIC + (118).to_bytes(2, "little")
    header += f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({6 << 28},), }}".ljust(117).encode() + b"\n"
    zip_members(small, members | {name: header + bytes(99), "meta.npy": npy_text(json.dumps(meta))})
    assert "weight: must be a (65536, 32768, 3, 2) mask of 1610612736 bytes, got 99 bytes" in refusal(small)
    small.write_bytes(in_directory(small.read_bytes(), name, 24, "<L", 128 + (6 << 28)))
    assert "compressed bytes can't hold 1610612864 bytes" in refusal(small)
    assert peak_of(lambda: refusal(small)) < 1 << 20


def test_a_bomb_is_not_inflated(small):
    """A member that inflates to far more than it declares is given up at its declared size."""
    members = members_of(small)
    weight = members["swat80/conv1/weight.npy"]
    zip_members(small, members | {"swat80/conv1/weight.npy": weight + bytes(32 << 20)}, zipfile.ZIP_DEFLATED)
    content = in_directory(small.read_bytes(), "swat80/conv1/weight.npy", 24, "<L", len(weight))
    small.write_bytes(in_directory(content, "swat80/conv1/weight.npy", 16, "<L", zlib.crc32(weight)))
    assert peak_of(lambda: refusal(small)) < 2 << 20
    assert refusal(small) == f"swat80/conv1/weight: compressed data must end after {len(weight)} bytes, does not"


def test_too_little_memory(small, monkeypatch):
    def empty(*_):
        raise MemoryError

    with Trace.open(small) as trace, monkeypatch.context() as patch:
        patch.setattr(np, "empty", empty)
        with pytest.raises(TraceError, match=r"net.npz: dense/conv1/weight: does not fit into memory$"):
            trace.snapshots[0].layers[0].tensor("weight")


# Fuzzing: whatever the bytes are, a TraceError or tensors as declared


def mutate_bytes(rng, content):
    """Flip, cut, repeat and move bytes, often near the ends, where the structure is."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        size = len(content)
        at = rng.choice([rng.randrange(size), max(0, size - rng.randint(1, 1500)), min(size - 1, rng.randrange(300))])
        length = rng.choice([1, 2, 4, 30, 500])
        match rng.randrange(6):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length]
            case 4:
                to = rng.randrange(size)
                content[to : to + length] = content[at : at + length]
            case 5:
                del content[rng.choice([at, size - length]) :]
        if not content:
            break
    return bytes(content)


ODD = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    7,
    2**24,
    2**63,
    10**30,
    0.5,
    1.5,
    -0.0,
    1e308,
    float("nan"),
    "",
    "x",
    "a/b",
    "..",
    "é",
]
ODD += [
    "\x00",
    "\ud800",
    "dense",
    "conv1",
    "bits",
    "float32",
    "linear",
    [],
    [[]],
    {},
    [1, 1],
    [0, 0],
    [2**24] * 2,
    {"encoding": "bits"},
]


def mutate_json(rng, text):
    """Change, drop, add and swap values anywhere in the tree; or damage the text."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, text)
    meta = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        places = list(walk(meta))
        parent, key = rng.choice(places)
        other, other_key = rng.choice(places)
        match rng.randrange(4):
            case 0:
                parent[key] = rng.choice(ODD)
            case 1:
                del parent[key]
            case 2:
                parent[key] = json.loads(json.dumps(other[other_key]))
            case 3:
                parent.update(x=1) if isinstance(parent, dict) else parent.append(parent[key])
        meta = json.loads(json.dumps(meta))
        if not list(walk(meta)):
            break
    return json.dumps(meta, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")


def walk(tree):
    for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from walk(value)


def mutate_header(rng, content):
    swaps = [
        ("|u1", "<f2", "|O", "<u2", "|b1", "|S9", "<M8[s]", ">f2", "\\x00"),
        ("False", "True", "None", "9"),
        ("descr", "shape"),
    ]
    swaps += [
        ("1.0", "2.0"),
        ("(", "((", "[", ""),
        (")", "", ",)", "99999999999999999999)"),
        (",", ", 0,", "", "-1,", "9,"),
    ]
    head, body = content[10:128].decode("latin-1"), content[128:]
    for _ in range(rng.randint(1, 2)):
        old, *new = rng.choice(swaps)
        head = head.replace(old, rng.choice(new), rng.randint(1, 2))
    head = head[: rng.choice([118, 118, 20])].encode("latin-1")
    length = rng.choice([len(head)] * 4 + [0, 118, 65535])
    return (
        npz.MAGIC[: rng.choice([8, 8, 8, 6])]
        + length.to_bytes(2, "little")
        + head
        + body[: rng.choice([None, None, -1, 3])]
    )


def mutate(rng, path):
    """Put a damaged version of the trace at `path` into its place."""
    kind = rng.randrange(5)
    if kind == 0:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
        return
    if kind == 1:  # a field of a directory entry
        content = bytearray(path.read_bytes())
        starts = [at for at in range(len(content) - 46) if content[at : at + 4] == b"PK\x01\x02"]
        at = rng.choice(starts) + rng.choice([6, 8, 10, 16, 20, 24, 28, 30, 32, 38, 42])
        content[at : at + 2] = rng.choice([bytes(2), b"\xff\xff", b"\x01\x00", b"\x08\x00", rng.randbytes(2)])
        path.write_bytes(content)
        return
    members = members_of(path)
    name = "meta.npy" if kind in (2, 3) else rng.choice(list(members))
    content = members[name]
    if kind in (2, 3):
        members[name] = npy_text(mutate_json(rng, content[128:]))
    else:
        members[name] = rng.choice([mutate_header, mutate_bytes])(rng, content)
    zip_members(path, members, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def survive(seed, path):
    """Whether the damaged trace of this seed is refused; every other outcome but sound tensors is an error."""
    write_small(path)
    mutate(random.Random(seed), path)
    try:
        read_all(path)
    except TraceError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error) and len(str(error)) < 1000
        return True
    return False


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_damaged_files(tmp_path_factory, seed):
    survive(seed, tmp_path_factory.getbasetemp() / "fuzzed.npz")


def test_most_damage_is_noticed(path):
    """The fuzzer damages what matters, and read_all does read: some mutations harm nothing."""
    refused = sum(survive(seed, path) for seed in range(200))
    assert 140 < refused < 200


# The documentation


def readme_blocks(language):
    text = (Path(__file__).parent.parent / "traces" / "README.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_documented_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_numpy, with_accelsim, write = (compile(block, "README.md", "exec") for block in readme_blocks("python"))
    names = {"np": np, "Trace": Trace, "TraceWriter": TraceWriter, "Geometry": Geometry}
    exec(write, names)
    for read in (with_numpy, with_accelsim):
        exec(read, names)
        assert names["mask"].dtype == bool
        assert names["mask"].astype(int).tolist() == [[[[1, 0, 1], [0, 1, 0], [0, 0, 1]]]]
    members = members_of("tiny.npz")
    data = {name.split("/")[-1]: content[128:].hex() for name, content in members.items() if "/" in name}
    gradient = "803f00c000800000003f000040400000"
    assert data == {"weight.npy": "b2", "activation.npy": "a880", "gradient.npy": gradient}
    (documented,) = readme_blocks("json")
    assert meta_of(members) == json.loads(documented)
    found = read_all("tiny.npz")["swat80", "conv1", "gradient"]
    assert found.ravel().tolist() == [1, -2, 0, 0, 0.5, 0, 3, 0]
