"""Are the counts those of an independent simulator, exactly? ``pytest -k golden --golden DIR`` tries other files.

Each line of a file is a seeded random layer on a machine with its counts; tests/golden/README.md describes them.
"""

import json

import numpy as np
import pytest

from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.pe_array import PEArray
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import lower_tensors


def pytest_generate_tests(metafunc):
    files = sorted(metafunc.config.golden.glob("*.jsonl"))
    cases = [
        pytest.param(json.loads(line), id=f"{file.stem}:{number}")
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if line.strip()
    ]
    metafunc.parametrize("case", cases)


def convolution(case, last_axis_slow):
    """The line's layer; where its simulator walks the last axis slowest, with the spatial axes exchanged."""
    layer, sparsity = case["layer"], case["sparsity"]
    rng = np.random.default_rng(case["seed"])
    weight = rng.random((layer["K"], layer["C"], layer["R"], layer["S"])) >= sparsity["weight"]
    activation = rng.random((layer["N"], layer["C"], layer["H"], layer["W"])) >= sparsity["activation"]
    if last_axis_slow:
        weight, activation = weight.swapaxes(2, 3), activation.swapaxes(2, 3)
    geometry = Geometry(
        layer["C"], *activation.shape[2:], layer["K"], weight.shape[2:], (layer["stride"],) * 2, (layer["padding"],) * 4
    )
    return lower_tensors(geometry, "fwd", activation, weight)[0]


def scnn(case):
    machine, conv = case["machine"], convolution(case, last_axis_slow=False)
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


def tiled(case):
    machine, conv = case["machine"], convolution(case, last_axis_slow=True)
    shape = {key: machine[key] for key in ("tiles", "rows", "columns", "lanes")}
    shape["space_to_depth"] = case["layer"]["space_to_depth"]
    search = {"search_shape": machine["search_map"]["shape"], **machine["search_map"]}
    del search["shape"]
    return {
        "dadiannao_compute_cycles": DaDianNao(model="dadiannao", **shape).run(conv).cycles,
        "bittactical_compute_cycles": BitTactical(model="bit_tactical", **shape, **search).run(conv).cycles,
    }


def test_golden(case):
    if "tile_rows" in case["machine"]:
        pytest.skip("TensorDash is not modelled yet")
    counts = scnn(case) if "banks" in case["machine"] else tiled(case)
    expected = case["expected"]
    assert {key: counts[key] for key in expected} == expected
