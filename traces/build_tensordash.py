"""Trains the four small networks whose masks ``accelsim validate tensordash`` runs, and records a step of each.

    python traces/build_tensordash.py --data cifar10.npz

Of the kinds that TensorDash's paper trains: like AlexNet, a ResNet, a DenseNet and a transformer. Dense training on
images of 32×32 pixels (.npz with x and y, or CIFAR-10 as published), minutes each on one core; the step after the last
epoch is recorded, four samples of its batch. Needs PyTorch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from accelsim.capture.data import open_dataset
from accelsim.capture.models import DenseLayer, build
from accelsim.capture.recorder import Recorder

FOLDER = Path(__file__).parents[1] / "accelsim" / "study" / "validation"
BATCH, SAMPLES, LEARNING_RATE = 32, 4, 0.02


class AlexNet(nn.Sequential):
    """Five convolutions and three linear layers with ReLU, pooling and dropout, for 32×32 pixels."""

    def __init__(self, classes: int):
        super().__init__(
            nn.Conv2d(3, 48, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(48, 96, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(96, 128, 3, padding=1), nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(),
            nn.Conv2d(128, 96, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dropout(), nn.Linear(96 * 16, 256), nn.ReLU(),
            nn.Dropout(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes),
        )  # fmt: skip


class DenseNet(nn.Sequential):
    """Three blocks of four BN-ReLU-convolution layers of growth 16, halved between them."""

    def __init__(self, classes: int, growth: int = 16):
        channels, parts = 2 * growth, [nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)]
        for block in range(3):
            for _ in range(4):
                parts.append(DenseLayer(channels, growth))
                channels += growth
            if block < 2:
                parts += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False)]
                parts.append(nn.AvgPool2d(2))
                channels //= 2
        pool = nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(*parts, *pool, nn.Linear(channels, classes))


class Transformer(nn.Module):
    """Patches of 4×4 pixels, three encoder layers of width 96 whose feed-forward part has ReLU, no dropout."""

    def __init__(self, classes: int, width: int = 96):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        layers = [nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True) for _ in range(3)]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the mean token."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        scores: torch.Tensor = self.head(self.layers(tokens).mean(1))
        return scores


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], int]] = {  # and epochs
    "alexnet": (AlexNet, 12),
    "resnet": (lambda classes: build("cifar_resnet20", classes), 6),
    "densenet": (DenseNet, 6),
    "transformer": (Transformer, 12),
}


def train(name: str, data: Path, out: Path) -> None:
    """Trains one and writes ``tensordash_NAME.npz`` into a folder."""
    torch.manual_seed(0)
    dataset = open_dataset(data, num_classes=10, shape=None, seed=0)
    make, epochs = NETWORKS[name]
    model = make(dataset.num_classes)
    steps = epochs * (4000 // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps + 1)
    batches = dataset.steps(BATCH, seed=0, augment=False)
    path, losses = out / f"tensordash_{name}.npz", []
    how = {"steps": [steps], "samples": SAMPLES, "network": name, "dataset": "cifar10, 4000 images", "force": True}
    with Recorder(model, path, **how) as recorder:  # type: ignore[arg-type]
        for step in range(steps + 1):
            images, labels = next(batches)
            with recorder.step(step):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(images), labels)
                loss.backward()
                optimizer.step()
            schedule.step()
            losses.append(loss.item())
        last = sum(losses[-50:]) / 50
        recorder.provenance["training"] = f"{steps} steps of SGD, dense; loss of the last 50 {last:.2f}"
        recorder.provenance["recorder"].pop("command", None)
    print(f"{path}: loss {losses[0]:.2f} → {last:.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.names:
        train(name, options.data, options.out)
