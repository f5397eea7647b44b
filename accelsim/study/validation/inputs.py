"""Published layers as convolutions: read from the files beside, masks drawn where only densities are published."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from accelsim.files import PACKAGE
from accelsim.hardware.accelerators.base import Accelerator
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import Convolution, lower_tensors

FOLDER = PACKAGE / "study" / "validation"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Drawn:
    """A layer of which its shape and densities are known, in the forward pass of one sample."""

    geometry: Geometry
    activation: float
    weight: float

    def convolution(self, seed: Iterable[int]) -> Convolution:
        """The layer with random masks."""
        rng = np.random.default_rng(list(seed))
        first = rng.random(self.geometry.activation_shape(1)) < self.activation
        second = rng.random(self.geometry.weight_shape) < self.weight
        return lower_tensors(self.geometry, "fwd", first, second)[0]


def rows(file: str) -> list[dict[str, str]]:
    """A published table."""
    with (FOLDER / file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def scnn_layers(network: str, density: float | None = None) -> list[Drawn]:
    """The layers of "alexnet" or "googlenet" with their densities, or all operands with the one given."""
    layers = []
    for row in rows("scnn_layers.csv"):
        if row["network"] != network:
            continue
        filters, channels, height, width = (int(row[key]) for key in ("K", "C", "P", "Q"))
        kernel = int(row["R"]), int(row["S"])
        around = [(size - 1) // 2 for size in kernel]
        padding = around[0], around[0], around[1], around[1]
        geometry = Geometry(channels, height, width, filters, kernel, padding=padding)
        densities = [float(row[f"{name}_density"]) for name in ("input", "weight")]
        layers.append(Drawn(geometry, *(densities if density is None else [density, density])))
    return layers


def alexnet_from_the_image() -> list[Drawn]:
    """AlexNet as the networks of 2016 have it: its first layer reads the image, and two others go in two groups.

    The table of SCNN has one layer folded by its stride, and the halves of another one by one.
    """
    first, *halves, third, fourth, fifth = scnn_layers("alexnet")
    second = sum(half.activation for half in halves) / len(halves)
    shapes = [
        (Geometry(3, 227, 227, 96, (11, 11), (4, 4)), first),
        (Geometry(96, 27, 27, 256, (5, 5), padding=(2, 2, 2, 2), groups=2), replace(halves[0], activation=second)),
        (third.geometry, third),
        (Geometry(384, 13, 13, 384, (3, 3), padding=(1, 1, 1, 1), groups=2), fourth),
        (Geometry(384, 13, 13, 256, (3, 3), padding=(1, 1, 1, 1), groups=2), fifth),
    ]
    return [replace(layer, geometry=geometry) for geometry, layer in shapes]


def eyeriss_layers() -> Iterator[tuple[str, Convolution, int, float]]:
    """Name, forward pass, published cycles, and the share of these that a statistical model got."""
    with np.load(FOLDER / "eyeriss_v2_pe.npz", allow_pickle=False) as masks:
        for row in rows("eyeriss_v2_pe.csv"):
            channels, height, width, filters = (int(row[key]) for key in ("C", "H", "W", "K"))
            geometry = Geometry(channels, height, width, filters, (1, 1))
            first = _unpacked(masks[f"{row['layer']}_input"], (height, width, channels)).transpose(2, 0, 1)[None]
            second = _unpacked(masks[f"{row['layer']}_weight"], (filters, channels))[..., None, None]
            (conv,) = lower_tensors(geometry, "fwd", first, second)
            yield row["layer"], conv, int(row["cycles"]), float(row["sparseloop_ratio"])


def _unpacked(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(packed, count=int(np.prod(shape))).view(bool).reshape(shape)


def cycles(machines: Iterable[Accelerator], layers: list[Drawn], seed: int, jobs: int) -> list[int]:
    """Cycles of each machine for all layers, with the same masks."""
    machines = list(machines)

    def of_layer(number: int) -> list[int]:
        conv = layers[number].convolution((seed, number))
        return [machine.run(conv).cycles for machine in machines]

    with ThreadPoolExecutor(jobs) as pool:
        return [sum(of_machine) for of_machine in zip(*pool.map(of_layer, range(len(layers))), strict=True)]


def gains(
    baseline: Accelerator, machine: Accelerator, layers: list[Drawn], jobs: int, seeds: Iterable[int] = SEEDS
) -> tuple[float, float]:
    """How much faster a machine is than another: the mean over seeds, and the spread as a share of it."""

    def of_seed(seed: int) -> float:
        slow, fast = cycles([baseline, machine], layers, seed, jobs)
        return slow / fast

    return mean_and_spread(of_seed, seeds)


def mean_and_spread(of_seed: Callable[[int], float], seeds: Iterable[int] = SEEDS) -> tuple[float, float]:
    """The mean over seeds, and the largest minus the smallest as a share of it."""
    found = [of_seed(seed) for seed in seeds]
    mean = sum(found) / len(found)
    return mean, (max(found) - min(found)) / mean
