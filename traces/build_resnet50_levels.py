"""Builds traces/resnet50-levels.npz, real masks at seven sparsities: ``build_resnet50_levels.py --data DIR``.

DIR holds (``numpy.packbits`` of flat boolean arrays, C order, where masks are packed):

- ``resnet50_weight_masks_mag50.npz``, ``…70``, ``…80``, ``…90``, ``…95``, ``…98``: weights of ResNet-50, trained and
  magnitude-pruned on ImageNet to each level; a key for each layer.
- ``swat80_resnet50_sparse_fp16.npz``: an ImageNet ResNet-50 after 160 SWAT steps at 80 %, by torchvision's names; a
  sparse weight is ``.mask``, ``.values`` of what the mask keeps, and ``.shape``.
- ``photos/``: ImageNet photos, and ``labels.csv`` with the class of each.

Weights are those of the pruned networks. Activations and output gradients are of one training step of the second
network, 32 photos, and are the same at all levels: only Top-K differs from snapshot to snapshot. The saved activation
is Top-K of this step's activation at each level, over the batch. It needs PyTorch and Pillow, 4 GB and a minute.
"""

import argparse
import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from accelsim.capture.models import build as build_model
from accelsim.capture.topk import kth_magnitude
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import FIRST_LAYER, PASSES
from accelsim.workload.sparsify import kept
from accelsim.workload.trace_writer import TraceWriter

LEVELS = (0, 50, 70, 80, 90, 95, 98)
BATCH, SIDE, SAMPLE = 32, 224, 0
FIRST = "conv1"
# A part of each stage, strided and not, which all levels have: layer4's 3×3 kernels are not there at 50 %.
LAYERS = (
    FIRST,
    "layer1.1.conv2", "layer1.1.conv3",
    "layer2.1.conv1", "layer2.1.conv2", "layer2.1.conv3",
    "layer3.0.conv1", "layer3.0.conv2", "layer3.0.conv3", "layer3.0.downsample.0",
    "layer4.1.conv1", "layer4.1.conv3",
)  # fmt: skip
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PROVENANCE = {
    "weights": "ResNet-50 trained and magnitude-pruned on ImageNet, a network for each level (Gale et al., Deep "
    "Learning Matrix Collection, rn50 magnitude_pruning), first convolution dense; dense snapshot: all ones",
    "activations and gradients": "one training step, 32 ImageNet photos, of another ImageNet ResNet-50 "
    "(kill-the-bits, large blocks, batch norm recalibrated, 160 SWAT-U steps at 80 %), the same at all levels; "
    "saved_activation: its Top-K at each level, over the batch",
    "layers": f"{len(LAYERS)} of the network's 53 convolutions, a part of each stage; not layer4's 3×3 kernels, which "
    "the collection lacks at 50 %",
    "caveat": "weights and activations come from two networks of the same architecture and data set; activations and "
    "gradients do not follow the level",
}


def network(file) -> nn.Module:
    """The one whose step is taken."""
    state = {}
    for key in file.files:
        name, _, part = key.rpartition(".")
        if part == "mask":
            shape = tuple(file[f"{name}.shape"])
            weight = np.zeros(int(np.prod(shape)), np.float32)
            weight[np.unpackbits(file[key], count=weight.size).astype(bool)] = file[f"{name}.values"]
            state[name] = torch.from_numpy(weight.reshape(shape))
        elif part not in ("values", "shape"):
            state[key] = torch.from_numpy(np.asarray(file[key]))
    model = build_model("resnet50")
    model.load_state_dict({key: value.float() for key, value in state.items()})
    return model.train()


def photos(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The first 32, the middle of each."""
    rows = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1 : BATCH + 1]]
    images = []
    for name, _ in rows:
        with Image.open(folder / name) as opened:
            picture = opened.convert("RGB")
        left, top = (picture.width - SIDE) // 2, (picture.height - SIDE) // 2
        pixels = np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)), np.float32) / 255
        images.append(((pixels - MEAN) / DEVIATION).transpose(2, 0, 1))
    return torch.tensor(np.array(images), dtype=torch.float32), torch.tensor([int(label) for _, label in rows])


def step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, dict]:
    """Of each layer its module, its input and its output gradient, in a training step."""
    modules, seen = dict(model.named_modules()), {name: {} for name in LAYERS}

    def record(module: nn.Module, given: tuple[torch.Tensor], output: torch.Tensor, of: dict) -> None:
        of |= {"module": module, "input": given[0].detach()}
        output.register_hook(lambda gradient: of.update(gradient=gradient))

    for name in LAYERS:
        modules[name].register_forward_hook(partial(record, of=seen[name]))
    nn.functional.cross_entropy(model(images), labels).backward()
    return seen


def geometry(module: nn.Conv2d, given: torch.Tensor) -> Geometry:
    top, left = module.padding
    channels, height, width = given.shape[1:]
    return Geometry(
        channels, height, width, module.out_channels, module.kernel_size, module.stride, (top, top, left, left)
    )


def saved(activation: torch.Tensor, sparsity: float) -> np.ndarray:
    """What Top-K leaves of the stored sample, of the whole batch's values."""
    magnitude = activation.abs()
    least = kth_magnitude(magnitude.flatten(), kept(magnitude.numel(), sparsity))
    return ((magnitude >= least) & (magnitude > 0))[SAMPLE : SAMPLE + 1].numpy()


def write(seen: dict[str, dict], data: Path, out: Path) -> None:
    sources = [f"resnet50_weight_masks_mag{level}.npz" for level in LEVELS[1:]] + ["swat80_resnet50_sparse_fp16.npz"]
    digests = {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in sources}
    provenance = PROVENANCE | {"stored sample": SAMPLE, "sources (sha256)": digests}
    with TraceWriter(out, network="resnet50", dataset="imagenet", provenance=provenance) as writer:
        for level in LEVELS:
            pruned = np.load(data / f"resnet50_weight_masks_mag{level}.npz") if level else {}
            how = {"sparsity": level / 100, "step": 160, "algorithm": "SWAT-U" if level else "dense"}
            writer.snapshot(f"swat{level}" if level else "dense", **how, batch=BATCH, samples=1)
            for name, of in seen.items():
                g = geometry(of["module"], of["input"])
                writer.layer(name, kind="conv", geometry=g, passes=FIRST_LAYER if name == FIRST else PASSES)
                is_sparse = level and name != FIRST
                mask = np.ones(g.weight_shape, bool)
                if is_sparse:
                    mask = np.unpackbits(pruned[name], count=mask.size).reshape(mask.shape).astype(bool)
                writer.tensor("weight", mask)
                writer.tensor("activation", of["input"][SAMPLE : SAMPLE + 1].numpy() != 0)
                if is_sparse:
                    writer.tensor("saved_activation", saved(of["input"], level / 100))
                writer.tensor("gradient", of["gradient"][SAMPLE : SAMPLE + 1].numpy() != 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the source masks, weights and photos")
    parser.add_argument("--photos", type=Path, help="folder with the photos (default: photos in the data's)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "resnet50-levels.npz")
    options = parser.parse_args()
    model = network(np.load(options.data / "swat80_resnet50_sparse_fp16.npz"))
    write(step(model, *photos(options.photos or options.data / "photos")), options.data, options.out)


if __name__ == "__main__":
    main()
