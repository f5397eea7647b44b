"""Products of two activations: stored, lowered and simulated on every machine; and what of a step a trace holds."""

import json

import numpy as np
import pytest
import reference

import accelsim
from accelsim.cli import main
from accelsim.hardware.machine import load_machine
from accelsim.ledger import EFFECTUAL
from accelsim.workload.coverage import coverage_text, is_enough
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import lower
from accelsim.workload.trace import Snapshot, Trace
from accelsim.workload.trace_writer import TraceWriter

SAMPLES, HEADS, ROWS, INNER, COLUMNS = 2, 3, 5, 4, 6


def operands():
    """X, Y and dO of each head of each sample, with zeros."""
    rng = np.random.default_rng(0)
    shapes = (ROWS, INNER), (INNER, COLUMNS), (ROWS, COLUMNS)
    return [rng.normal(size=(SAMPLES, HEADS, *s)) * (rng.random((SAMPLES, HEADS, *s)) < 0.6) for s in shapes]


def as_map(x):
    return x.transpose(0, 1, 3, 2).reshape(SAMPLES, -1, x.shape[2], 1)


def attention(path, masks=True, coverage=None):
    """A trace of one matmul layer."""
    x, y, gradient = operands()
    geometry = Geometry(HEADS * INNER, ROWS, 1, HEADS * COLUMNS, (1, 1), groups=HEADS)
    weight = y.transpose(0, 1, 3, 2).reshape(-1, INNER, 1, 1)
    with TraceWriter(path, network="n", dataset="d") as out:
        out.snapshot("dense", sparsity=0.0, step=0, algorithm="dense", batch=8, samples=SAMPLES)
        out.layer("qk", kind="matmul", geometry=geometry, passes=("fwd", "input_grad", "weight_grad"))
        for name, array in (("activation", as_map(x)), ("weight", weight), ("gradient", as_map(gradient))):
            out.tensor(name, array.astype(np.float32), as_mask=masks)
        if coverage:
            out.coverage(*coverage)
    return path


def test_the_three_passes_are_the_products_of_each_head_of_each_sample(tmp_path):
    x, y, gradient = operands()
    with Trace.open(attention(tmp_path / "t.npz", masks=False)) as trace:
        layer = trace.snapshots[0].layers[0]
        results = {}
        for which in layer.passes:
            (conv,) = lower(layer, which)
            parts = conv.input.astype(float), conv.kernel.astype(float)
            results[which] = reference.convolve(*parts, conv.stride, conv.padding, conv.dilation, conv.groups)
            assert (conv.batch, conv.multiplications) == (1, SAMPLES * layer.geometry.multiplications)
    shape = SAMPLES, HEADS, COLUMNS, ROWS
    np.testing.assert_allclose(results["fwd"].reshape(shape), (x @ y).swapaxes(2, 3), atol=1e-5)
    to_x = (gradient @ y.swapaxes(2, 3)).swapaxes(2, 3)
    np.testing.assert_allclose(results["input_grad"].reshape(to_x.shape), to_x, atol=1e-5)
    to_y = x.swapaxes(2, 3) @ gradient  # comes as C/groups × K, all groups' filters one after another
    got = results["weight_grad"].reshape(INNER, SAMPLES, HEADS, COLUMNS)
    np.testing.assert_allclose(got.transpose(1, 2, 0, 3), to_y, atol=1e-5)


@pytest.mark.parametrize(
    "config", ["pe16x16.yaml", "scnn.yaml", "tensordash.yaml", "bit-tactical.yaml", "dadiannao.yaml", "ideal.yaml"]
)
def test_every_machine_computes_it_with_memory_and_energy(tmp_path, config):
    machine = load_machine(config, memory="ddr4.yaml", energy="28nm.yaml")
    x, y, gradient = (array != 0 for array in operands())
    effectual = {"fwd": np.sum(x.astype(int) @ y), "input_grad": np.sum(gradient.astype(int) @ y.swapaxes(2, 3))}
    effectual["weight_grad"] = np.sum(x.swapaxes(2, 3).astype(int) @ gradient)
    with Trace.open(attention(tmp_path / "t.npz")) as trace:
        table = accelsim.simulate(machine, trace)
    assert list(table["pass"]) == list(effectual)
    assert (table["dense_multiplications"] == SAMPLES * HEADS * ROWS * INNER * COLUMNS).all()
    assert list(table[EFFECTUAL.column]) == list(effectual.values())
    assert (table["cycles"] > 0).all()


def test_the_second_operand_is_fetched_once_a_sample_and_not_once_a_batch(tmp_path):
    """Of a batch of 8, of which 2 are stored: a weight would be fetched for a quarter of its bytes."""
    with Trace.open(attention(tmp_path / "t.npz")) as trace:
        layer = trace.snapshots[0].layers[0]
        machine = load_machine("pe16x16.yaml", memory="ddr4.yaml")
        table = accelsim.simulate(machine, trace, passes="fwd")
        value_bytes = machine.memory.value_bits // 8
        least = (layer.tensor("weight").size + layer.tensor("activation").size) * value_bytes
    assert table["offchip_read_bytes"].sum() >= least


def snapshot(coverage):
    return Snapshot("s", 0.0, 0, "dense", 1, (), coverage)


def test_coverage_in_words():
    counted = {"multiplications": 2_310_000_000, "not_stored": {"lstm": 23_100_000, "cdist": 6_930_000}}
    text = "98.7 % of 2.31 G multiplications; not stored: lstm 1.0 %, cdist 0.3 %"
    assert coverage_text(snapshot(counted)) == text
    assert is_enough(snapshot(counted))
    assert not is_enough(snapshot({"multiplications": 100, "not_stored": {"lstm": 6}}))
    nearly = {"multiplications": 10**6, "not_stored": {"mv": 1}}
    assert coverage_text(snapshot(nearly)).startswith("99.999 % of 1 M")
    assert coverage_text(snapshot(None)) is None


@pytest.mark.parametrize("command", ["run", "info", "compare"])
def test_commands_say_what_is_missing(tmp_path, capsys, command):
    path = attention(tmp_path / "t.npz", coverage=(10_000, {"lstm": 5680}))
    arguments = {"run": ["run", "--config", "pe16x16.yaml", "--trace"], "info": ["info"]}
    arguments["compare"] = ["compare", "--machines", "pe16x16.yaml,ideal.yaml", "--trace"]
    text = "43.2 % of 10 k multiplications; not stored: lstm 56.8 %"
    assert main([*arguments[command], str(path)]) == 0
    assert text in capsys.readouterr().out
    assert main([*arguments[command], str(path), "--json"]) == 0
    assert text in json.dumps(json.loads(capsys.readouterr().out), ensure_ascii=False)


def test_a_pass_that_did_not_run_has_no_cycles(tmp_path):
    """A frozen weight has no weight gradient, a frozen prefix no gradient at all."""
    ones = np.ones((1, 2, 3, 1), bool)
    with TraceWriter(tmp_path / "t.npz", network="n", dataset="d") as out:
        out.snapshot("dense", sparsity=0.0, step=0, algorithm="dense", batch=1)
        for name, passes in (("prefix", ("fwd",)), ("frozen", ("fwd", "input_grad")), ("fc", ("fwd", "weight_grad"))):
            out.layer(name, kind="linear", geometry=Geometry(2, 3, 1, 2, (1, 1)), passes=passes)
            out.tensor("weight", np.ones((2, 2, 1, 1), bool))
            out.tensor("activation", ones)
            if len(passes) > 1:
                out.tensor("gradient", ones)
    with Trace.open(tmp_path / "t.npz") as trace:
        table = accelsim.simulate(load_machine("pe16x16.yaml"), trace)
    ran = {(row["layer"], row["pass"]) for _, row in table.iterrows() if row["cycles"]}
    assert ran == {("prefix", "fwd"), ("frozen", "fwd"), ("frozen", "input_grad"), ("fc", "fwd"), ("fc", "weight_grad")}
