"""Builds traces/resnet50.npz from real masks: ``python traces/build_resnet50.py --data DIR --out traces/resnet50.npz``.

DIR holds, as packed masks (``numpy.packbits`` of flat boolean arrays, C order):

- ``resnet50_weight_masks_mag80.npz``, ``…mag90.npz``: weights of ResNet-50, trained and magnitude-pruned on ImageNet;
  a key for each layer.
- ``masks_step_dense.npz``, ``…swat80.npz``, ``…swat90.npz``: one training step of ResNet-50 on ImageNet photos:
  ``meta`` (JSON: layers, shapes, strides, padding) and per layer ``/x`` activation, ``/xk`` its Top-K, ``/gy`` output
  gradient.

Weights come from the pruned network, for its masks are those of a network that was trained to be sparse; activations
and gradients from the training steps. As in SWAT-U, the first convolution is dense (SWAT, section 3.3.2).
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import FIRST_LAYER, PASSES
from accelsim.workload.trace_writer import TraceWriter

# name, Top-K sparsity, algorithm, SWAT steps trained, weight masks
SNAPSHOTS = (
    ("dense", 0.0, "dense", 0, None),
    ("swat80", 0.8, "SWAT-U", 160, "resnet50_weight_masks_mag80.npz"),
    ("swat90", 0.9, "SWAT-U", 160, "resnet50_weight_masks_mag90.npz"),
)
FIRST = "conv1"
PROVENANCE = {
    "weights": "ResNet-50 trained and magnitude-pruned on ImageNet (Gale et al., Deep Learning Matrix Collection, rn50 "
    "magnitude_pruning), every layer at the stated sparsity, first convolution dense; dense snapshot: all ones",
    "activations and gradients": "one training step, batch 32, of an ImageNet ResNet-50 (kill-the-bits, large blocks, "
    "batch norm recalibrated), at 80 % and 90 % after 160 SWAT-U steps (learning rate 0.002; 90 % starts from 80 %) on "
    "ImageNet photos; activation: as the forward pass uses it; saved_activation: its Top-K over the batch",
    "caveat": "weights and activations come from two networks of the same architecture and data set",
}


def unpack(file, key, shape):
    return np.unpackbits(file[key], count=int(np.prod(shape))).reshape(shape).astype(bool)


def geometry(entry):
    k, c, r, s = [*entry["w"], 1, 1][:4]
    (_, _, height, width), (top, left) = entry["x"], entry["padding"]
    return Geometry(c, height, width, k, (r, s), tuple(entry["stride"]), (top, top, left, left))


def build(data: Path, out: Path, sample: int) -> None:
    names = [f"masks_step_{name}.npz" for name, *_ in SNAPSHOTS] + [weights for *_, weights in SNAPSHOTS if weights]
    digests = {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in names}
    provenance = PROVENANCE | {"stored sample": sample, "sources (sha256)": digests}
    with TraceWriter(out, network="resnet50", dataset="imagenet", provenance=provenance) as writer:
        for name, sparsity, algorithm, step, weights in SNAPSHOTS:
            with np.load(data / f"masks_step_{name}.npz") as masks:
                meta = json.loads(bytes(masks["meta"]))
                pruned = np.load(data / weights) if weights else {}
                writer.snapshot(name, sparsity=sparsity, step=step, algorithm=algorithm, batch=meta["batch"], samples=1)
                for entry in meta["layers"]:
                    add_layer(writer, entry, masks, pruned, sample)


def add_layer(writer, entry, masks, pruned, sample) -> None:
    layer, g = entry["name"], geometry(entry)
    writer.layer(layer, kind=entry["kind"], geometry=g, passes=FIRST_LAYER if layer == FIRST else PASSES)
    if layer in pruned and layer != FIRST:
        writer.tensor("weight", unpack(pruned, layer, g.weight_shape))
    else:
        writer.tensor("weight", np.ones(g.weight_shape, bool))
    tensors = {"activation": ("x", entry["x"]), "saved_activation": ("xk", entry["x"]), "gradient": ("gy", entry["gy"])}
    for tensor, (key, shape) in tensors.items():
        if f"{layer}/{key}" in masks:
            writer.tensor(tensor, unpack(masks, f"{layer}/{key}", shape)[sample : sample + 1])
        elif tensor == "activation":
            writer.tensor(tensor, np.ones(g.activation_shape(1), bool))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the source masks")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "resnet50.npz")
    parser.add_argument("--sample", type=int, default=0, help="which of the stored images (default: the first)")
    arguments = parser.parse_args()
    build(arguments.data, arguments.out, arguments.sample)
