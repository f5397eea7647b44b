"""Is every byte and every access what a program of its own counts, that knows the documents and not accelsim?"""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from machines import BIT_LEVEL, NEED_VALUES, accelerators
from reference_actions.lowering import Layer
from reference_actions.plan import Refused, count, price
from strategies import layers

import accelsim
from accelsim import TraceWriter
from accelsim.errors import MachineError
from accelsim.hardware.machine import parse_machine
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import lower_tensors

CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(file.name for file in CONFIGS.glob("*.yaml"))
# A quick network for machines whose bits are counted one by one.
FEW = ("first", "grouped", "tall", "linear")
PASSES = ("fwd", "input_grad", "weight_grad")
SAMPLES, BATCH = 2, 5
# A network of nine layers of all kinds, and of odd sizes. Where shapes agree a result stays on chip for the next layer.
NETWORK = {
    "first": Geometry(3, 12, 11, 8, (3, 3), (2, 2), (1, 1, 1, 1)),
    "pointwise": Geometry(8, 6, 6, 21, (1, 1)),
    "depthwise": Geometry(21, 6, 6, 21, (3, 3), (1, 1), (1, 1, 1, 1), groups=21),
    "strided": Geometry(21, 6, 6, 18, (3, 3), (2, 2), (1, 1, 1, 1)),
    "grouped": Geometry(18, 7, 5, 12, (3, 2), (1, 2), (1, 0, 1, 1), groups=3),
    "dilated": Geometry(12, 7, 3, 20, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "down": Geometry(20, 7, 3, 19, (1, 1), (2, 2)),
    "tall": Geometry(19, 4, 2, 33, (4, 2), (3, 1), (2, 1, 0, 1)),
    "linear": Geometry(66, 1, 1, 10, (1, 1)),
}
DENSITIES = {"weight": 0.35, "activation": 0.5, "saved_activation": 0.3, "gradient": 0.8}


def sections(name):
    """A shipped machine as plain data, its sections read from their files."""
    machine = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    for section in ("memory", "energy"):
        machine[section] = yaml.safe_load((CONFIGS / section / machine[section]).read_text(encoding="utf-8"))
    return machine


def tensors():
    """The tensors of each layer, small integers; the first layer saves no other activation than it reads."""
    rng = np.random.default_rng(7)
    found = {}
    for name, g in NETWORK.items():
        shapes = dict.fromkeys(("activation", "saved_activation"), g.activation_shape(SAMPLES))
        shapes |= {"weight": g.weight_shape, "gradient": g.gradient_shape(SAMPLES)}
        if name == "first":
            del shapes["saved_activation"]
        found[name] = {
            tensor: ((rng.random(shape) < DENSITIES[tensor]) * rng.integers(1, 99, shape)).astype("int16")
            for tensor, shape in shapes.items()
        }
    return found


def plain(name, g, arrays, first):
    """A layer as the program takes it, with integers; ``of_masks`` makes masks of them."""
    top, bottom, left, right = g.padding
    return Layer(
        name, g.kernel, g.stride, (top, left), (bottom, right), g.dilation, g.groups, first,
        dict(arrays),
    )  # fmt: skip


def of_masks(plain_layers):
    """For machines that see zeros alone."""
    return [replace(layer, masks={name: own != 0 for name, own in layer.masks.items()}) for layer in plain_layers]


def write(path, geometries, arrays, samples, batch):
    """A trace, and the same as plain data; the layer called "first" needs no input gradient."""
    with TraceWriter(path, network="nine", dataset="noise") as out:
        out.snapshot("sparse", sparsity=0.65, step=1, algorithm="none", batch=batch, samples=samples)
        for name, of_layer in arrays.items():
            kind = "linear" if name == "linear" else "conv"
            out.layer(name, kind=kind, geometry=geometries[name], passes=PASSES[::2] if name == "first" else PASSES)
            for tensor, array in of_layer.items():
                out.tensor(tensor, array)
    return [plain(name, geometries[name], of_layer, name == "first") for name, of_layer in arrays.items()]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The network as a trace, and as plain data."""
    path = tmp_path_factory.mktemp("actions") / "nine.npz"
    plain_layers = write(path, NETWORK, tensors(), SAMPLES, BATCH)
    with accelsim.open_trace(path) as trace:
        yield trace, plain_layers, BATCH


ACTIONS = [
    "multiplications", "bit_operations", "accumulator_updates",
    *(f"{place}_{way}_bytes"
      for place in ("activation_buffer", "weight_buffer", "activation_memory", "weight_memory", "offchip")
      for way in ("read", "write")),
]  # fmt: skip


def differences(machine, trace, plain_layers, batch, passes=PASSES):
    """Where accelsim and the program count or price something else. Raises what either does where it refuses."""
    if machine["accelerator"]["model"] not in BIT_LEVEL:
        plain_layers = of_masks(plain_layers)
    counted = {which: count(machine, plain_layers, which, batch) for which in passes}
    rows = accelsim.simulate(parse_machine(machine, "machine"), trace, passes=passes).set_index(["layer", "pass"])
    wrong = []
    for which, found in counted.items():
        for name in (layer.name for layer in plain_layers):
            row, counts = rows.loc[(name, which)], found.get(name, Counter())  # nothing where nobody needs the pass
            whole = machine | {"multipliers": row["multipliers"]}
            expected = {action: counts[action] for action in ACTIONS}
            expected |= {f"{part}_pj": pj for part, pj in price(whole, counts, row["cycles"]).items()}
            wrong += [
                f"{name} {which} {column}: {row[column]} is not {value}"
                for column, value in expected.items()
                if row[column] != pytest.approx(value, rel=1e-12)
            ]
    return wrong


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Some of its layers."""
    path, own = tmp_path_factory.mktemp("actions") / "few.npz", tensors()
    plain_layers = write(path, NETWORK, {name: own[name] for name in FEW}, SAMPLES, BATCH)
    with accelsim.open_trace(path) as trace:
        yield trace, plain_layers, BATCH


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_machines_move_and_price_what_the_program_counts(name, network, few):
    assert differences(sections(name), *(few if Path(name).stem in NEED_VALUES else network)) == []


# The same on small machines: several rounds of sets, bands and blocks, buffers that hold some of the parts or none, and
# other formats. Of each what is changed in the shipped file.
SMALL_TILES = {"tiles": 2, "rows": 3, "columns": 2, "lanes": 4}
SMALL_PES = {"pe_rows": 3, "pe_columns": 2, "activation_width": 2, "weight_width": 3, "accumulators": 40, "banks": 8}
SMALL = [
    ("dadiannao.yaml", SMALL_TILES, (70, 0), "dense"),
    ("dadiannao.yaml", {**SMALL_TILES, "columns": 1, "weight_grad_rows": "gradient"}, (200, 100), "bitmask"),
    ("bit-tactical.yaml", {**SMALL_TILES, "strided_input_grad": "dilate"}, (300, 300), "run_length"),
    ("bit-tactical-l8.yaml", {**SMALL_TILES, "rows": 1, "lookahead_h": 3, "lookaside_d": 2}, (0, 64), "dense"),
    ("bit-tactical.yaml", {**SMALL_TILES, "space_to_depth": False}, (100, 0), "zvc"),
    ("tensordash.yaml", {**SMALL_TILES, "scheduled_operand": "weight"}, (60, 60), "dense"),
    ("tensordash.yaml", {**SMALL_TILES, "scheduled_operand": "activation", "tiles": 3}, (300, 40), "bitmask"),
    ("tensordash.yaml", {**SMALL_TILES, "skipping": "two_sided"}, (0, 200), "run_length"),
    ("ampere.yaml", {**SMALL_TILES, "n": 2, "m": 3}, (150, 90), "dense"),
    ("cambricon-x.yaml", {"pes": 3, "lanes": 2, "window": 5}, (90, 30), "bitmask"),
    ("cambricon-x.yaml", {"pes": 2, "weight_grad_rows": "gradient"}, (1000, 70), "run_length"),
    ("cnvlutin.yaml", {"tiles": 2, "rows": 2, "lanes": 3, "brick": 4}, (120, 40), "dense"),
    ("cnvlutin.yaml", {"tiles": 3, "rows": 2, "brick": 2, "image_encoded": True}, (800, 60), "zvc"),
    ("cnvlutin.yaml", {"tiles": 2, "rows": 3, "weight_grad_skips": "gradient"}, (60, 400), "dense"),
    ("pe8x8.yaml", SMALL_PES, (40, 400), "bitmask"),
    ("pe8x8.yaml", {**SMALL_PES, "strided_input_grad": "phase"}, (200, 20), "run_length"),
    ("pe16x16.yaml", {**SMALL_PES, "accumulators": 4, "spill_partial_sums": True}, (90, 90), "zvc"),
    ("pe16x16.yaml", {**SMALL_PES, "pe_columns": 4}, (30, 1000), "dense"),
    ("scnn.yaml", {**SMALL_PES, "group_filters": 3}, (40, 400), "bitmask"),
    ("dcnn.yaml", {"pe_rows": 2, "pe_columns": 3, "lanes": 5}, (90, 70), "run_length"),
    ("sigma.yaml", {"multipliers": 7, "reduction_cut": 5}, (60, 0), "bitmask"),
    ("dstc.yaml", {"tile_rows": 5, "tile_columns": 3, "step_rows": 2}, (0, 0), "zvc"),
    ("ideal.yaml", {"multipliers": 5, "fwd_skips": "weight"}, (0, 0), "bitmask"),
    ("ideal-one-sided.yaml", {"weight_grad_skips": "neither", "fwd_skips": "neither"}, (0, 100), "dense"),
]


def small(name, accelerator, capacities, form):
    """A clone of a shipped machine. Its results stay on chip, or samples go one by one, with some formats."""
    machine = sections(name)
    machine["accelerator"] |= accelerator
    for buffer, capacity in zip(("activation", "weight"), capacities, strict=True):
        machine["buffers"][buffer]["capacity_bytes"] = capacity
    machine["memory"] |= {"formats": dict.fromkeys(("activation", "weight", "gradient"), form)}
    machine["memory"] |= {
        "value_bits": 8 if form == "run_length" else 16,
        "order": "sample" if form == "bitmask" else "layer",
    }
    machine["memory"]["accumulator_bits"] = 24 if form == "zvc" else 32
    machine["memory"]["write_back"] = "unless_kept" if form == "zvc" else "always"
    machine["energy"] |= {"leakage_mw_per_multiplier": 0.3, "leakage_mw_per_mib": 0.7}
    return machine


@pytest.mark.parametrize("clone", SMALL, ids=str)
def test_small_machines_move_and_price_what_the_program_counts(clone, network):
    assert differences(small(*clone), *network) == []


def test_large_blocks_of_a_weight_gradient_move_in_bands(tmp_path):
    """Of every PE's tile the same share at a time: blocks of 105,600 activations and 259,200 gradients."""
    geometry = Geometry(16, 110, 60, 40, (3, 1))
    rng = np.random.default_rng(3)
    shapes = {"weight": geometry.weight_shape, "activation": geometry.activation_shape(1),
              "gradient": geometry.gradient_shape(1)}  # fmt: skip
    arrays = {"layer": {name: (rng.random(shape) < 0.3).astype("int16") for name, shape in shapes.items()}}
    plain_layers = write(tmp_path / "large.npz", {"layer": geometry}, arrays, 1, 1)
    machine = small("pe8x8.yaml", {"pe_rows": 3}, (20_000, 5_000), "bitmask")
    with accelsim.open_trace(tmp_path / "large.npz") as trace:
        assert differences(machine, trace, plain_layers, 1, passes=("weight_grad",)) == []
        # And what a block takes is shared by its bands to the cycle.
        layer = trace.snapshots[0].layers[0]
        names = ("activation", "gradient")
        masks = {name: layer.tensor(name) for name in names}
        (conv,) = lower_tensors(geometry, "weight_grad", *masks.values())
        activity = parse_machine(machine, "small").accelerator.run(conv)
        assert activity.traffic().job_cycles.sum() == activity.cycles > activity.job_cycles.size


FORMATS = st.sampled_from(["dense", "bitmask", "run_length", "zvc"])
CAPACITY = st.sampled_from([0, 8, 20, 50, 100, 300, 1 << 20])


@settings(max_examples=80, phases=[Phase.generate], deadline=None)
@given(
    accelerators(), layers(numbers=True), st.tuples(CAPACITY, CAPACITY), st.tuples(FORMATS, FORMATS, FORMATS),
    st.integers(0, 3),
)  # fmt: skip
def test_any_machine_moves_what_the_program_counts_of_any_layer(accelerator, layer, capacities, forms, more):
    machine = small("dadiannao.yaml", {}, capacities, "dense") | {"accelerator": accelerator.model_dump()}
    machine["memory"]["formats"] = dict(zip(("activation", "weight", "gradient"), forms, strict=True))
    arrays = {"layer": {name: array.astype("int16") for name, array in layer.tensors.items()}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.npz"
        batch = layer.samples + more
        plain_layers = write(path, {"layer": layer.geometry}, arrays, layer.samples, batch)
        with accelsim.open_trace(path) as trace:
            try:
                wrong = differences(machine, trace, plain_layers, batch)
            except Refused:
                with pytest.raises(MachineError, match="must fit its buffer"):
                    accelsim.simulate(parse_machine(machine, "machine"), trace)
            else:
                assert wrong == []
