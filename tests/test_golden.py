"""Are the counts those of an independent simulator, exactly? ``pytest -k golden --golden DIR`` tries other files.

Each line of a file is a seeded random layer on a machine with its counts; tests/golden/README.md describes them.
"""

import json

import golden_bits
import numpy as np
import pytest

from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.accelerators.tensordash import TensorDash
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import lower_tensors


def pytest_generate_tests(metafunc):
    # What off-chip memory takes is come near to, not met: tests/test_offchip.py.
    files = sorted(file for file in metafunc.config.golden.glob("*.jsonl") if file.name != "dram.jsonl")
    cases = [
        pytest.param(json.loads(line), id=f"{file.stem}:{number}")
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if line.strip()
    ]
    metafunc.parametrize("case", cases)


def masks(case, last_axis_slow):
    """The line's layer as geometry, weight, activation and output gradient (where it has one); see README.md.

    Where its simulator walks the last axis slowest, the spatial axes are exchanged.
    """
    layer, sparsity = case["layer"], case["sparsity"]
    rng = np.random.default_rng(case["seed"])
    weight = rng.random((layer["K"], layer["C"], layer["R"], layer["S"])) >= sparsity["weight"]
    activation = rng.random((layer["N"], layer["C"], layer["H"], layer["W"])) >= sparsity["activation"]
    places = layer["N"], layer["K"], layer["output_size"], layer["output_size"]
    gradient = rng.random(places) >= sparsity["gradient"] if "gradient" in sparsity else np.zeros(places, bool)
    if last_axis_slow:
        weight, activation, gradient = (array.swapaxes(2, 3) for array in (weight, activation, gradient))
    geometry = Geometry(
        layer["C"], *activation.shape[2:], layer["K"], weight.shape[2:], (layer["stride"],) * 2, (layer["padding"],) * 4
    )
    return geometry, weight, activation, gradient


def forward(case, last_axis_slow):
    geometry, weight, activation, _ = masks(case, last_axis_slow)
    return lower_tensors(geometry, "fwd", activation, weight)[0]


def scnn(case):
    machine, conv = case["machine"], forward(case, last_axis_slow=False)
    array = PEArray(
        model="pe_array",
        pe_rows=machine["pe_columns_Wt"],
        pe_columns=machine["pe_rows_Ht"],
        activation_width=machine["I"],
        weight_width=machine["F"],
        accumulators=machine["out_acc_size"],
        banks=machine["banks"],
        stride_phases=True,
        halo_exchange=True,
        strided_input_grad="phase",
        reduction_width=0,
    )
    activity = array.run(conv)
    return {"cycles": activity.cycles, "dense_cycles": array.dense_cycles(conv), "mults": activity.slots["effectual"]}


def search_of(machine):
    """The search map as the keys of a machine file."""
    search = machine["search_map"]
    return {"search_shape": search["shape"], **{key: search[key] for key in ("lookahead_h", "lookaside_d")}}


def tiled(case):
    machine, conv = case["machine"], forward(case, last_axis_slow=True)
    shape = {key: machine[key] for key in ("tiles", "rows", "columns", "lanes")}
    shape["space_to_depth"] = case["layer"]["space_to_depth"]
    search = search_of(machine)
    return {
        "dadiannao_compute_cycles": DaDianNao(model="dadiannao", **shape).run(conv).cycles,
        "bittactical_compute_cycles": BitTactical(model="bit_tactical", **shape, **search).run(conv).cycles,
    }


def tensordash(case):
    machine = case["machine"]
    shape = {"rows": machine["tile_rows"], "columns": machine["tile_columns"], "lanes": machine["lanes"]}
    tile = TensorDash(model="tensordash", tiles=1, space_to_depth=False, **shape, **search_of(machine))
    geometry, weight, activation, gradient = masks(case, last_axis_slow=True)
    operands = {
        "forward": ("fwd", activation, weight),
        "input_gradient": ("input_grad", gradient, weight),
        "weight_gradient": ("weight_grad", activation, gradient),
    }
    counts = {}
    for name in case["expected"]:
        convolutions = lower_tensors(geometry, *operands[name])
        counts[name] = {
            "cycles": sum(tile.run(conv).cycles for conv in convolutions),
            "baseline_cycles": sum(tile.dense_cycles(conv) for conv in convolutions),
            "scheduled_operand": tile.scheduled(convolutions[0]),
        }
    return counts


def test_golden(case):
    machine = case["machine"]
    simulate = scnn if "banks" in machine else tensordash if "tile_rows" in machine else tiled
    if case.get("architecture") in golden_bits.MACHINES:
        simulate = golden_bits.counts
    counts, expected = simulate(case), case["expected"]
    assert {key: counts[key] for key in expected} == expected
