"""The networks of the paper as layer tables: every convolution and linear layer with its shape, without PyTorch.

Six networks in the shapes that the paper trained: ImageNet at 224×224, CIFAR at 32×32. Layers have the names that
torchvision and ``accelsim.capture`` give them, in forward order; tests compare them with the shipped trace, with the
PyTorch models, and with well-known parameter counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from accelsim.errors import AccelsimError
from accelsim.workload.geometry import Geometry


@dataclass(frozen=True)
class NetworkLayer:
    """A layer with weights.

    Parameters
    ----------
    name : str
    kind : {"conv", "linear"}
    geometry : Geometry
    bias : bool
        Whether each filter has one.
    first : bool
        Whether its input is the image, whose gradient nobody needs.
    """

    name: str
    kind: str
    geometry: Geometry
    bias: bool = False
    first: bool = False

    @property
    def weights(self) -> int:
        """Elements of the weight, biases aside."""
        k, c, r, s = self.geometry.weight_shape
        return k * c * r * s

    @property
    def inputs(self) -> int:
        """Elements of one sample's input, padding aside."""
        g = self.geometry
        return g.channels * g.height * g.width


@dataclass(frozen=True)
class Norm:
    """A batch norm: its input is ``channels`` maps of ``height`` × ``width``, and as large as its output."""

    name: str
    channels: int
    height: int
    width: int

    @property
    def inputs(self) -> int:
        """Elements of one sample's input."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Network:
    """A layer table.

    Parameters
    ----------
    name : str
        Of :data:`NETWORKS`.
    title, dataset : str
        As the paper writes them.
    layers : tuple of NetworkLayer
    norms : tuple of Norm
    """

    name: str
    title: str
    dataset: str
    layers: tuple[NetworkLayer, ...]
    norms: tuple[Norm, ...]

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Weight shape by layer, linear layers with two axes, as ``workload.sparsify`` takes them."""
        shapes = {layer.name: (layer.kind, layer.geometry.weight_shape) for layer in self.layers}
        return {name: shape if kind == "conv" else shape[:2] for name, (kind, shape) in shapes.items()}

    @property
    def parameters(self) -> int:
        """All that is trained: weights, biases, and scale and shift of each batch-norm channel."""
        own = sum(layer.weights + layer.bias * layer.geometry.filters for layer in self.layers)
        return own + sum(2 * norm.channels for norm in self.norms)


class _Tape:
    """Walks a network from the image on, and keeps the layers that it passes and the map that it is at."""

    def __init__(self, side: int):
        self.channels, self.side = 3, side
        self.layers: list[NetworkLayer] = []
        self.norms: list[Norm] = []

    def conv(self, name: str, filters: int, kernel: int, stride: int = 1, bias: bool = False) -> None:
        geometry = Geometry(
            self.channels, self.side, self.side, filters, (kernel, kernel), (stride, stride), (kernel // 2,) * 4
        )
        self.layers.append(NetworkLayer(name, "conv", geometry, bias, first=not self.layers))
        self.channels, (self.side, _) = filters, geometry.output

    def linear(self, name: str, filters: int) -> None:
        """Of whatever is there, flattened; after :meth:`average` that is one position."""
        geometry = Geometry(self.channels * self.side**2, 1, 1, filters, (1, 1))
        self.layers.append(NetworkLayer(name, "linear", geometry, bias=True, first=not self.layers))
        self.channels, self.side = filters, 1

    def norm(self, name: str) -> None:
        self.norms.append(Norm(name, self.channels, self.side, self.side))

    def pool(self) -> None:
        """Halves the map, as every pooling here does."""
        self.side //= 2

    def average(self) -> None:
        self.side = 1

    def beside(self, name: str, at: tuple[int, int], filters: int, stride: int, norm: str | None = None) -> None:
        """A 1×1 convolution on the map ``at`` an earlier place; the walk goes on where it was."""
        here = self.channels, self.side
        self.channels, self.side = at
        self.conv(name, filters, 1, stride)
        if norm:
            self.norm(norm)
        self.channels, self.side = here

    @property
    def place(self) -> tuple[int, int]:
        return self.channels, self.side


def _resnet(tape: _Tape, classes: int, counts: tuple[int, ...], bottleneck: bool, width: int = 1) -> None:
    """He et al., with the stride in the 3×3 convolution (torchvision's); CIFAR: a 3×3 stem without pooling."""
    if tape.side == 32:
        tape.conv("conv1", 64, 3)
        tape.norm("bn1")
    else:
        tape.conv("conv1", 64, 7, 2)
        tape.norm("bn1")
        tape.pool()
    for stage, count in enumerate(counts):
        planes = 64 << stage
        steps = [(planes * width, 1), (planes * width, 3), (planes * 4, 1)] if bottleneck else [(planes, 3)] * 2
        for block in range(count):
            stride, at, prefix = (2 if stage and not block else 1), tape.place, f"layer{stage + 1}.{block}."
            for step, (filters, kernel) in enumerate(steps, 1):
                # The stride sits in the block's first 3×3.
                tape.conv(f"{prefix}conv{step}", filters, kernel, stride if step == 1 + bottleneck else 1)
                tape.norm(f"{prefix}bn{step}")
            if stride > 1 or at[0] != tape.channels:
                tape.beside(f"{prefix}downsample.0", at, tape.channels, stride, f"{prefix}downsample.1")
    tape.average()
    tape.linear("fc", classes)


def _vgg16(tape: _Tape, classes: int) -> None:
    """VGG-16-D with batch norm; on CIFAR the two hidden layers of 4096 see one pixel, as in SWAT's code."""
    index = 0
    for stage, count in enumerate((2, 2, 3, 3, 3)):
        for _ in range(count):
            tape.conv(f"features.{index}", min(64 << stage, 512), 3, bias=True)
            tape.norm(f"features.{index + 1}")
            index += 3
        tape.pool()
        index += 1
    for index, filters in zip((0, 3, 6), (4096, 4096, classes), strict=True):
        tape.linear(f"classifier.{index}", filters)


def _densenet121(tape: _Tape, classes: int, growth: int = 32) -> None:
    """Huang et al.'s DenseNet-BC-121; on CIFAR SWAT's code has a 3×3 stem without norm and pooling."""
    if tape.side == 32:
        tape.conv("features.conv0", 2 * growth, 3)
    else:
        tape.conv("features.conv0", 2 * growth, 7, 2)
        tape.norm("features.norm0")
        tape.pool()
    for index, count in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, count + 1):
            joined, prefix = tape.channels + growth, f"features.denseblock{index}.denselayer{layer}."
            tape.norm(f"{prefix}norm1")
            tape.conv(f"{prefix}conv1", 4 * growth, 1)
            tape.norm(f"{prefix}norm2")
            tape.conv(f"{prefix}conv2", growth, 3)
            tape.channels = joined
        if index < 4:
            tape.norm(f"features.transition{index}.norm")
            tape.conv(f"features.transition{index}.conv", tape.channels // 2, 1)
            tape.pool()
    tape.norm("features.norm5")
    tape.average()
    tape.linear("classifier", classes)


def _wrn(tape: _Tape, classes: int, depth: int, widen: int) -> None:
    """Zagoruyko and Komodakis's wide residual network for CIFAR, norms before convolutions."""
    tape.conv("conv1", 16, 3)
    for stage in range(3):
        filters = (16 << stage) * widen
        for block in range((depth - 4) // 6):
            stride, at, prefix = (2 if stage and not block else 1), tape.place, f"block{stage + 1}.layer.{block}."
            tape.norm(f"{prefix}bn1")
            if at[0] != filters:
                tape.beside(f"{prefix}convShortcut", at, filters, stride)
            tape.conv(f"{prefix}conv1", filters, 3, stride)
            tape.norm(f"{prefix}bn2")
            tape.conv(f"{prefix}conv2", filters, 3)
    tape.norm("bn1")
    tape.average()
    tape.linear("fc", classes)


_TABLES: dict[str, tuple[str, str, Callable[[_Tape, int], None]]] = {
    "resnet50": ("ResNet-50", "ImageNet", partial(_resnet, counts=(3, 4, 6, 3), bottleneck=True)),
    "wide_resnet50_2": ("WRN-50-2", "ImageNet", partial(_resnet, counts=(3, 4, 6, 3), bottleneck=True, width=2)),
    "densenet121": ("DenseNet-121", "ImageNet", _densenet121),
    "resnet18": ("ResNet-18", "ImageNet", partial(_resnet, counts=(2, 2, 2, 2), bottleneck=False)),
    "cifar_resnet18": ("ResNet-18", "CIFAR-10", partial(_resnet, counts=(2, 2, 2, 2), bottleneck=False)),
    "cifar_vgg16": ("VGG-16", "CIFAR-10", _vgg16),
    "cifar_wrn16_8": ("WRN-16-8", "CIFAR-10", partial(_wrn, depth=16, widen=8)),
    "cifar_densenet121": ("DenseNet-121", "CIFAR-10", _densenet121),
}
NETWORKS = tuple(_TABLES)


def network(name: str, classes: int | None = None) -> Network:
    """The layer table of a network.

    Parameters
    ----------
    name : str
        One of :data:`NETWORKS`; those of ``cifar_…`` take 32×32 images, the others 224×224.
    classes : int, optional
        Outputs of the last layer; 10 or 1000 without it.

    Raises
    ------
    AccelsimError
        If there is no such network.
    """
    if name not in _TABLES:
        raise AccelsimError(f"network: must be one of {', '.join(NETWORKS)}, got {name}")
    title, dataset, walk = _TABLES[name]
    cifar = name.startswith("cifar_")
    tape = _Tape(32 if cifar else 224)
    walk(tape, classes or (10 if cifar else 1000))
    return Network(name, title, dataset, tuple(tape.layers), tuple(tape.norms))
