"""A trace that holds a part of a layer's places: what it holds, and what is simulated of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import geometries
from test_recorder import execute

import accelsim
from accelsim import ledger
from accelsim.cli import main
from accelsim.errors import AccelsimError, MachineError, TraceError
from accelsim.hardware.machine import load_machine
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import PASSES
from accelsim.workload.part import Part, band, least_band
from accelsim.workload.shares import of_pass
from accelsim.workload.trace import Layer, Trace
from accelsim.workload.trace_writer import TraceWriter

torch = pytest.importorskip("torch")

import families  # noqa: E402

from accelsim.capture import Recorder, Selection  # noqa: E402


@given(geometries(largest=11, kernels=4), st.data())
def test_each_pass_of_a_band_is_that_part_of_the_whole_one(geometry, data):
    """Its forward pass and input gradient are rows of the whole ones, its weight gradient their sum over the band."""
    axis = data.draw(st.sampled_from([a for a in (0, 1) if geometry.output[a] > 1] or [None]))
    if axis is None or max(geometry.padding[2 * axis : 2 * axis + 2]) >= geometry.kernel_extent[axis]:
        return
    size, least = geometry.output[axis], least_band(geometry, axis)
    if least >= size:
        return
    count = data.draw(st.integers(least, size - 1))
    first = data.draw(st.integers(0, size - count))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    sizes = geometry.activation_shape(2), geometry.weight_shape, geometry.gradient_shape(2)
    activation, weight, gradient = (rng.integers(-3, 4, shape) for shape in sizes)
    stored, inputs = band(geometry, axis, first, count)
    cut = tuple(slice(first, first + count) if a == axis else slice(None) for a in (0, 1))
    kept = tuple(inputs if a == axis else slice(None) for a in (0, 1))
    whole_size = (geometry.height, geometry.width)[axis]
    part = Part(axis, whole_size, size, first)
    part.check(stored)
    tensors = {"activation": activation[(..., *kept)], "weight": weight, "gradient": gradient[(..., *cut)]}
    layer = Layer("band", "conv", stored, 2, 2, PASSES, tensors, part=part)

    forward = execute(geometry, "fwd", activation, weight)[(..., *cut)]
    np.testing.assert_array_equal(execute(stored, "fwd", tensors["activation"], weight), forward)
    only = np.zeros_like(gradient)
    only[(..., *cut)] = tensors["gradient"]
    got = execute(stored, "weight_grad", tensors["activation"], tensors["gradient"])
    np.testing.assert_array_equal(got, execute(geometry, "weight_grad", activation, only))

    run = of_pass(layer, "input_grad")
    ext, stride, pad = geometry.kernel_extent[axis], geometry.stride[axis], geometry.padding[2 * axis]
    begin = first * stride - pad + max(0, ext - stride) if first else 0
    rows = (run.geometry.height, run.geometry.width)[axis]
    places = tuple(slice(begin, begin + rows) if a == axis else slice(None) for a in (0, 1))
    got = execute(run.geometry, "input_grad", run.tensors["gradient"], weight)
    np.testing.assert_array_equal(got, execute(geometry, "input_grad", gradient, weight)[(..., *places)])
    assert part.share(stored, "input_grad") * whole_size == rows
    if geometry.dilation[axis] > 1:  # of which inputs between others are reached alone too
        return
    outside = execute(geometry, "input_grad", 1 - (np.zeros_like(gradient) + _ones(gradient, cut)), np.abs(weight) + 1)
    alone = np.flatnonzero(~outside.any(axis=tuple(a for a in range(4) if a != 2 + axis)))
    reached = execute(geometry, "input_grad", _ones(gradient, cut), np.abs(weight) + 1)
    alone = [x for x in alone if reached.take(x, 2 + axis).any()]
    assert set(alone) <= set(range(begin, begin + rows))  # no input that the band alone reaches is left out


def _ones(like, cut):
    ones = np.zeros_like(like)
    ones[(..., *cut)] = 1
    return ones


def recorded(path, name, **keep):
    torch.manual_seed(0)
    model, run, own = families.FAMILIES[name]()
    keep = Selection(values=True, **keep)
    with Recorder(model, path, steps=[0], keep=keep, force=True, **own) as recorder, recorder.step():
        run()
    return path


@pytest.mark.parametrize("name", ["gpt2", "unet", "wavenet"])
def test_a_part_holds_the_numbers_that_all_of_it_would_and_stands_for_all(name, tmp_path):
    whole, part = (recorded(tmp_path / f"{n}.npz", name, places=n) for n in (None, 3))
    with Trace.open(whole) as whole, Trace.open(part) as part:
        both = list(zip(whole.snapshots[0].layers, part.snapshots[0].layers, strict=True))
        assert whole.snapshots[0].coverage == part.snapshots[0].coverage
        assert sum(layer.part is not None for _, layer in both) > len(both) / 2
        assert part.path.stat().st_size < whole.path.stat().st_size
        for all_of_it, layer in both:
            p = layer.part
            if p is None:
                assert layer.geometry == all_of_it.geometry
                continue
            share = p.share(layer.geometry, "fwd")
            assert layer.geometry.multiplications == share * all_of_it.geometry.multiplications
            assert (layer.batch, layer.samples, layer.passes) == (all_of_it.batch, all_of_it.samples, all_of_it.passes)
            count = layer.geometry.output[p.axis]
            tokens = np.arange(count) * p.output // count if p.first is None else np.arange(p.first, p.first + count)
            if "gradient" in layer.tensors:
                wanted = all_of_it.tensors["gradient"].take(tokens, 2 + p.axis)
                np.testing.assert_array_equal(layer.tensors["gradient"], wanted)
            np.testing.assert_array_equal(layer.tensors["weight"], all_of_it.tensors["weight"])


def test_places_drawn_at_random_are_those_of_the_seed_and_alike_in_a_step(tmp_path):
    found = []
    for seed in (3, 3, 4):
        with Trace.open(recorded(tmp_path / "t.npz", "gpt2", places=3, seed=seed)) as trace:
            found.append({layer.name: layer.tensors["activation"] for layer in trace.snapshots[0].layers})
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    assert not all(np.array_equal(found[0][name], found[2][name]) for name in found[0])


def written(path, geometry, part=None, kind="conv", samples=2, batch=8, fill=None):
    """A trace of one layer, of ones or of what ``fill`` gives."""
    layer = Layer("layer", kind, geometry, samples, batch, PASSES, {})
    with TraceWriter(path, network="n", dataset="d") as out:
        out.snapshot("dense", sparsity=0.0, step=0, algorithm="dense", batch=batch)
        out.layer("layer", kind=kind, geometry=geometry, samples=samples, part=part)
        for name in ("weight", "activation", "gradient"):
            out.tensor(name, np.ones(layer.shape_of(name), bool) if fill is None else fill(layer.shape_of(name)))
    return path


TOKENS = Geometry(128, 64, 1, 128, (1, 1))
HEADS = replace(TOKENS, groups=2)


def simulated(path, machine):
    with Trace.open(path) as trace:
        return accelsim.simulate(load_machine(machine), trace)


@pytest.mark.parametrize("machine", ["dadiannao.yaml", "tensordash.yaml"])
@pytest.mark.parametrize("kind", ["linear", "matmul"])
def test_counts_of_a_part_are_scaled_to_the_whole(machine, kind, tmp_path):
    """Of ones a quarter of the tokens says all: what computing takes, and what moves but for whole bursts."""
    geometry = TOKENS if kind == "linear" else HEADS
    whole = written(tmp_path / "w.npz", geometry, kind=kind)
    quarter = written(tmp_path / "q.npz", replace(geometry, height=16), Part(0, 64, 64, None), kind=kind)
    a, b = (simulated(path, machine) for path in (whole, quarter))
    assert a["samples"].tolist() == [2, 2, 2] and set(b["samples"]) == {1}  # half a sample, counted twice
    for column in ("dense_multiplications", "effectual_slots"):
        assert (a[column] == 2 * b[column]).all(), column
    moved = [c for c in a if c.startswith("offchip") and c.endswith("_bytes")]
    assert len(moved) == 2
    for column in ("compute_cycles", *moved):
        np.testing.assert_allclose(a[column], 2 * b[column], rtol=0.05, err_msg=column)
    slots = [c for c in b if c.endswith("_slots")]
    assert (b[slots].sum(axis=1) == b["cycles"] * b["multipliers"]).all()


@pytest.mark.parametrize("machine", ["pe16x16.yaml", "cnvlutin.yaml"])
def test_a_part_is_run_as_the_smaller_layer_that_it_is(machine, tmp_path):
    """A quarter of the tokens of 2 of 8 samples as 2 of 32 windows of 16 tokens: every count, twice."""
    small = replace(TOKENS, height=16)
    windows = written(tmp_path / "w.npz", small, kind="linear", batch=32)
    part = written(tmp_path / "q.npz", small, Part(0, 64, 64, None), kind="linear")
    a, b = (simulated(path, machine) for path in (windows, part))
    counts = [row.column for row in ledger.rows() if row.column in a]
    assert "offchip_pj" in counts and a["cycles"].all()
    for column in counts:
        np.testing.assert_allclose(2 * a[column], b[column], rtol=1e-12, err_msg=column)


def test_a_band_is_counted_as_the_whole_map_where_all_places_are_alike(tmp_path):
    """56 rows of ones with 10 of them: per place of the pass it says the same, but for the edges that have padding."""
    whole = Geometry(16, 40, 8, 16, (3, 3), padding=(1, 1, 1, 1))
    stored, _ = band(whole, 0, 15, 10)
    part = Part(0, 40, 40, 15)
    paths = written(tmp_path / "w.npz", whole), written(tmp_path / "p.npz", stored, part)
    found = []
    for path in paths:
        table = simulated(path, "dadiannao.yaml").set_index("pass")
        found.append(table["effectual_slots"] / table["samples"])
        shares = dict(zip(table.index, table["samples"], strict=True))
    assert shares == {"fwd": 1, "input_grad": 2, "weight_grad": 1}  # 2·10/40 = 1/2, 2·8/40 = 2/5
    np.testing.assert_allclose(found[0], found[1], rtol=0.03)


def test_what_one_layer_leaves_on_chip_the_next_ones_band_finds(tmp_path):
    """Bands of two layers that follow one another move what the whole maps do."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, padding=1)
    )
    read, inputs = [], torch.randn(1, 3, 32, 32)
    for places in (None, 256):
        recorder = Recorder(model, tmp_path / f"{places}.npz", steps=[0], keep=Selection(places=places))
        with recorder, recorder.step():
            model(inputs).square().sum().backward()
        table = simulated(tmp_path / f"{places}.npz", "dadiannao.yaml").set_index(["layer", "pass"])
        read.append(table["offchip_read_bytes"] / table["samples"])
    assert read[1]["2", "fwd"] == pytest.approx(read[0]["2", "fwd"], rel=0.1)
    np.testing.assert_allclose(read[1].groupby("pass").sum(), read[0].groupby("pass").sum(), rtol=0.3)  # with halos


def test_what_a_part_cannot_say_is_refused_in_one_line(tmp_path, capsys):
    part = Part(0, 64, 64, None)
    path = written(tmp_path / "q.npz", replace(TOKENS, height=16), part, kind="linear")
    by_sample = load_machine("dadiannao.yaml", settings={"memory.order": "sample"})
    refused = pytest.raises(MachineError, match=r"layer: fwd: memory.order: must be layer where a trace has a part")
    with Trace.open(path) as trace, refused:
        accelsim.simulate(by_sample, trace)
    export = ["export", "--trace", str(path), "--format", "scalesim", "--out", str(tmp_path / "out")]
    animate = ["animate", "--trace", str(path), "--layer", "layer", "--config", "dadiannao.yaml", "--out", "out.html"]
    for arguments in (export, animate):
        assert main(arguments) == 2
        assert "layer: must hold all its places to be" in capsys.readouterr().err


@pytest.mark.parametrize(
    "part, geometry, rule",
    [
        (Part(0, 64, 64, None), TOKENS, "fewer places than all 64, got 64"),
        (Part(0, 64, 64, 60), replace(TOKENS, height=16), "fewer places than all 64, got 16 from 60"),
        (Part(0, 9, 9, None), Geometry(1, 3, 3, 1, (3, 3), padding=(1, 1, 1, 1)), "must be a band"),
        (Part(0, 9, 9, 4), Geometry(1, 3, 3, 1, (3, 3), padding=(0, 0, 1, 1)), "a band of 3 places at least"),
        (Part(2, 9, 9, 4), TOKENS, "axis: must be an integer in 0…1, got 2"),
        (Part(0, 4, 9, 0), Geometry(1, 5, 3, 1, (3, 3), padding=(0, 0, 1, 1)), "must be 1…4 inputs, got 5"),
    ],
)
def test_a_part_that_is_none_is_refused(part, geometry, rule, tmp_path):
    with pytest.raises(TraceError, match=rule), TraceWriter(tmp_path / "t.npz", network="n", dataset="d") as out:
        out.snapshot("dense", sparsity=0.0, step=0, algorithm="dense", batch=1)
        out.layer("layer", kind="conv", geometry=geometry, part=part)


def test_info_and_run_tell_of_parts(tmp_path, capsys):
    path = recorded(tmp_path / "t.npz", "gpt2", places=3)
    main(["info", str(path)])
    told = capsys.readouterr().out
    assert "1/3, places 3/7" in told and "layers a part of the places, 42.9 % at least" in told
    main(["run", "--config", "pe16x16.yaml", "--trace", str(path)])
    told = " ".join(capsys.readouterr().out.split())
    assert "layers a part of the places, 42.9 % at least" in told and "scaled to whole samples" in told
    main(["info", str(path), "--format", "json"])
    layers = json.loads(capsys.readouterr().out)["snapshots"][0]["layers"]
    assert {"axis": 0, "input": 7, "output": 7, "first": None} in [layer["part"] for layer in layers]


@pytest.mark.parametrize("places", [0, True, 2.0])
def test_a_number_of_places_must_be_one(places):
    with pytest.raises(AccelsimError, match="places: must be an integer from 1 or None"):
        Selection(places=places)
