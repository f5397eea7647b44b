"""No machine moves less than any schedule of its order must: each tensor once, less what capacity lets stay on chip."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml

import accelsim
from accelsim import TraceWriter
from accelsim.hardware.machine import parse_machine
from accelsim.workload.geometry import Geometry

CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(file.name for file in CONFIGS.glob("*.yaml"))
PASSES = ("fwd", "input_grad", "weight_grad")
SAMPLES, BATCH = 2, 8
# Each feeds the next but for the fourth, whose input has other channels. The strided layers leave places unread.
CHAIN = {
    "first": Geometry(8, 12, 12, 8, (3, 3), padding=(1, 1, 1, 1)),
    "second": Geometry(8, 12, 12, 8, (1, 1)),
    "third": Geometry(8, 12, 12, 16, (1, 1), (2, 2)),
    "fourth": Geometry(12, 6, 6, 12, (3, 3), (2, 2), (1, 1, 1, 1)),
    "fifth": Geometry(12, 3, 3, 20, (1, 1)),
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Two of the eight samples of a batch, as values."""
    path, rng = tmp_path_factory.mktemp("chain") / "chain.npz", np.random.default_rng(5)
    with TraceWriter(path, network="chain", dataset="noise") as out:
        out.snapshot("sparse", sparsity=0.5, step=1, algorithm="none", batch=BATCH, samples=SAMPLES)
        for name, g in CHAIN.items():
            out.layer(name, kind="conv", geometry=g, passes=PASSES)
            shapes = {"weight": g.weight_shape, "activation": g.activation_shape(SAMPLES),
                      "gradient": g.gradient_shape(SAMPLES)}  # fmt: skip
            for tensor, shape in shapes.items():
                out.tensor(tensor, ((rng.random(shape) < 0.5) * rng.integers(1, 99, shape)).astype("int16"))
    with accelsim.open_trace(path) as trace:
        yield trace


# The twin: places that a product touches, element by element


def touched(g):
    """Elements of each tensor of one sample that some product of the layer needs."""
    rows = [(p, r, p * g.stride[0] + r * g.dilation[0] - g.padding[0])
            for p in range(g.output[0]) for r in range(g.kernel[0])]  # fmt: skip
    columns = [(q, s, q * g.stride[1] + s * g.dilation[1] - g.padding[2])
               for q in range(g.output[1]) for s in range(g.kernel[1])]  # fmt: skip
    rows = [row for row in rows if 0 <= row[2] < g.height]
    columns = [column for column in columns if 0 <= column[2] < g.width]
    of_gradient, of_weight, of_activation = (
        len({row[side] for row in rows}) * len({column[side] for column in columns}) for side in range(3)
    )
    return {
        "activation": g.channels * of_activation,
        "gradient": g.filters * of_gradient,
        "weight": g.filters * g.channels // g.groups * of_weight,
    }


READ = {
    "fwd": ("activation", "weight"),
    "input_grad": ("gradient", "weight"),
    "weight_grad": ("activation", "gradient"),
}


def least_read(geometries, which, order, samples, batch, memory):
    """Bytes of off-chip memory that some schedule must read: of each layer without weights, and of all its weights."""
    size, room = memory["value_bits"] // 8, memory["activation_memory"]["capacity_bytes"]
    together = batch if order == "layer" else 1
    in_turn = geometries if which == "fwd" else geometries[::-1]
    data, weights = [], []
    for at, g in enumerate(in_turn):
        least = Fraction(0)
        for tensor in READ[which]:
            if tensor == "weight":
                weights.append(touched(g)["weight"] * size)
                continue
            own, before = touched(g)[tensor] * size, in_turn[at - 1] if at else None
            feeds = before and which != "weight_grad" and (
                (before.filters, *before.output) == (g.channels, g.height, g.width) if which == "fwd"
                else (before.channels, before.height, before.width) == (g.filters, *g.output))  # fmt: skip
            if feeds and which == "input_grad":
                own = min(own, touched(before)["activation"] * size)  # other places hold zeros that nobody computed
            # A share of each sample may have stayed, as far as the memory holds it for all samples in between.
            least += samples * max(Fraction(0), own - (Fraction(room, together) if feeds else 0))
        data.append(least)
    of_weights, held = Fraction(sum(weights) * samples, batch), memory["weight_memory"]["capacity_bytes"]
    if order == "sample":
        of_weights = max(of_weights, Fraction(samples * (sum(weights) - held)))
    return data, of_weights


def least_written(g, which, samples, batch, size):
    """Bytes that a training step must write: each result once, a weight gradient once a batch."""
    values = {"fwd": g.filters * g.output[0] * g.output[1], "input_grad": touched(g)["activation"]}
    if which == "weight_grad":
        return Fraction(touched(g)["weight"] * size * samples, batch)
    return Fraction(samples * values[which] * size)


def check(records, geometries, names, memory, samples, batch):
    """The law on the records of a snapshot."""
    for which in PASSES:
        own = records[records["pass"] == which].set_index("layer").loc[list(names)]
        data, weights = least_read(geometries, which, memory["order"], samples, batch, memory)
        read = own["offchip_read_bytes"].tolist()
        assert sum(read) >= sum(data) + weights, which
        for bytes_read, least in zip(read if which == "fwd" else read[::-1], data, strict=True):
            assert bytes_read >= least, which
        for bytes_written, g in zip(own["offchip_write_bytes"].tolist(), geometries, strict=True):
            assert bytes_written >= least_written(g, which, samples, batch, memory["value_bits"] // 8), which


@pytest.mark.parametrize("name", SHIPPED)
def test_no_machine_moves_less_than_any_schedule_must(name, chain):
    """Small memories: a sample's results fit, those of a batch do not; weights of a layer fit, those of all do not."""
    machine = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    machine["memory"] = yaml.safe_load((CONFIGS / "memory" / machine["memory"]).read_text(encoding="utf-8"))
    for order in ("layer", "sample"):
        for capacities in ((14_000, 5_000), (48_000, 1 << 25)):
            machine["memory"]["order"] = order
            for place, size in zip(("activation_memory", "weight_memory"), capacities, strict=True):
                machine["memory"][place]["capacity_bytes"] = size
            records = accelsim.simulate(parse_machine(machine, "machine"), chain)
            check(records, list(CHAIN.values()), CHAIN, machine["memory"], SAMPLES, BATCH)


def test_the_orders_differ_by_what_they_say(chain):
    """By hand, the forward pass on memories that hold a sample of each layer, and of the batch that of the last alone.

    ``layer``: a quarter of the weights, and 2 samples of each other input. ``sample``: the weights twice; of the inputs
    those of the first and the fourth layer, which no layer before computes.
    """
    machine = yaml.safe_load((CONFIGS / "dadiannao.yaml").read_text(encoding="utf-8"))
    machine["memory"] = yaml.safe_load((CONFIGS / "memory" / machine["memory"]).read_text(encoding="utf-8"))
    machine["memory"]["offchip"] = {"preset": "unlimited"}
    machine["memory"]["activation_memory"]["capacity_bytes"] = 9_300
    machine["memory"]["weight_memory"]["capacity_bytes"] = 3_700
    sizes = [g.channels * g.height * g.width * 2 for g in CHAIN.values()]
    weights = [int(np.prod(g.weight_shape)) * 2 for g in CHAIN.values()]
    assert sum(weights) > 3_700 > max(weights)
    layers = list(enumerate(zip(sizes, weights, strict=True)))
    expected = {
        "layer": [2 * size * (at < 4) + weight // 4 for at, (size, weight) in layers],
        "sample": [2 * (size * (at in (0, 3)) + weight) for at, (size, weight) in layers],
    }
    for order, read in expected.items():
        machine["memory"]["order"] = order
        records = accelsim.simulate(parse_machine(machine, "machine"), chain, passes="fwd")
        assert records["offchip_read_bytes"].tolist() == pytest.approx(read, abs=4), order


def test_the_shipped_trace_obeys_too():
    """ResNet-50, a sample of 32: of 53 forward inputs those of the last stages alone may have stayed."""
    memory = yaml.safe_load((CONFIGS / "memory" / "layer-at-a-time.yaml").read_text(encoding="utf-8"))
    with accelsim.open_trace("resnet50.npz") as trace:
        layers = [layer for layer in trace.snapshots[2].layers if layer.kind == "conv"]
        names = [layer.name for layer in layers]
        records = accelsim.simulate(accelsim.load_machine("pe16x16.yaml"), trace, snapshots="swat90", layers=names)
    geometries = [layer.geometry for layer in layers]
    for which in ("fwd", "weight_grad"):
        own = records[records["pass"] == which]
        data, weights = least_read(geometries, which, "layer", 1, 32, memory | {"order": "layer"})
        assert own["offchip_read_bytes"].sum() >= sum(data) + weights
