"""Lines of bit_level.jsonl: their values, and their machines as this package has them."""

import numpy as np

from accelsim.hardware.accelerators.bit_tactical_serial import TCLe, TCLp
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.laconic import Laconic
from accelsim.hardware.accelerators.loom import Loom
from accelsim.hardware.accelerators.pragmatic import Pragmatic
from accelsim.hardware.accelerators.shapeshifter import ShapeShifter
from accelsim.hardware.accelerators.stripes import Stripes
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import lower_tensors

MACHINES = {
    "Stripes": ("stripes", Stripes),
    "ShapeShifter": ("shapeshifter", ShapeShifter),
    "Loom": ("loom", Loom),
    "BitPragmatic": ("pragmatic", Pragmatic),
    "Laconic": ("laconic", Laconic),
    "BitTacticalP": ("tclp", TCLp),
    "BitTacticalE": ("tcle", TCLe),
}


def draw(rng, shape, recipe):
    bits = recipe["bits"]
    if recipe["distribution"] == "uniform":
        magnitude = np.floor(rng.random(shape) * 2**bits).astype(np.int64)
        magnitude >>= np.floor(rng.random(shape) * recipe["skew"]).astype(np.int64)
    else:
        bell = rng.random(shape) + rng.random(shape) + rng.random(shape) + rng.random(shape)
        magnitude = np.minimum(np.floor(np.abs(bell - 2) * 2 ** (bits - 1)), 2**bits - 1).astype(np.int64)
    kept = rng.random(shape) >= recipe["sparsity"]
    minus = rng.random(shape) < 0.5
    values = np.where(kept, magnitude, 0)
    return np.where(minus, -values, values) if recipe["signed"] else values


def convolution(case):
    """The line's forward pass; the simulator walks the last axis slowest, so the spatial axes are exchanged."""
    layer = case["layer"]
    rng = np.random.default_rng(case["seed"])
    is_linear = layer["type"] == "fc"
    kernel, place = ((), ()) if is_linear else ((layer["R"], layer["S"]), (layer["H"], layer["W"]))
    weight = draw(rng, (layer["K"], layer["C"], *kernel), case["values"]["weight"])
    activation = draw(rng, (1, layer["C"], *place), case["values"]["activation"])
    if is_linear:
        weight, activation = weight[..., None, None], activation[..., None, None]
    weight, activation = weight.swapaxes(2, 3), activation.swapaxes(2, 3)
    stride, padding = (1, 0) if is_linear else (layer["stride"], layer["padding"])
    geometry = Geometry(
        layer["C"], *activation.shape[2:], layer["K"], weight.shape[2:], (stride,) * 2, (padding,) * 4
    )  # fmt: skip
    return lower_tensors(geometry, "fwd", activation, weight)[0]


def machine(case):
    """The line's machine; keys of the same name mean the same."""
    keys, precision = dict(case["machine"]), case["precision"]
    model, kind = MACHINES[case["architecture"]]
    if "diffy" in case or "diffy" in keys:
        keys["differential"] = keys.pop("diffy", True)
    if search := keys.pop("search_map", None):
        keys |= {"search_shape": search["shape"], **{k: search[k] for k in ("lookahead_h", "lookaside_d")}}
    keys["space_to_depth"] = case["layer"].get("space_to_depth", False)
    bits = {"column_bits": precision["activation"], "row_bits": precision["weight"]}
    return kind(model=model, **bits, **keys)


def counts(case):
    conv, array = convolution(case), machine(case)
    shape = {key: getattr(array, key) for key in ("tiles", "rows", "columns", "lanes", "space_to_depth")}
    dense = DaDianNao(model="dadiannao", **shape)
    return {"cycles": array.run(conv).cycles, "dadiannao_cycles": dense.run(conv).cycles}
