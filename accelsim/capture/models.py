"""The networks of the paper, and whatever a user's own module builds.

torchvision would be the natural source, but its binary must match the installed PyTorch to the build: a CPU wheel of
one with a CUDA wheel of the other fails at ``import torchvision``. timm imports it; transformers names the layers in
another way. The networks themselves are a page of plain PyTorch, so they are written out here: they run wherever torch
runs. Names of parameters, outputs and, for a seed, initial weights are torchvision's, which the tests prove where it
can be imported; so its published weights and the layer names of the shipped trace fit.

ReLUs are not in place, so that hooks on any layer are safe; the numbers are the same.
"""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accelsim.errors import AccelsimError


def _conv(channels: int, filters: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int, width: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv(planes, planes, 3), nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1×1, 3×3 with the stride, 1×1: version 1.5 of He et al., torchvision's."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int, width: int, downsample: nn.Module | None):
        super().__init__()
        inner = planes * width
        self.conv1, self.bn1 = _conv(channels, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = _conv(inner, inner, 3, stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = _conv(inner, planes * 4, 1), nn.BatchNorm2d(planes * 4)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x)))


class PadShortcut(nn.Module):
    """Every second pixel, with channels of zeros on both sides: shortcut A of He et al., without weights."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.stride, self.pad = stride, (filters - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))


def _projection(channels: int, filters: int, stride: int) -> nn.Module:
    return nn.Sequential(_conv(channels, filters, 1, stride), nn.BatchNorm2d(filters))


class ResNet(nn.Module):
    """He et al., 2015. For CIFAR the stem is 3×3 with stride 1 and without pooling.

    Parameters
    ----------
    block : BasicBlock or Bottleneck
    counts : sequence of int
        Blocks in each stage; the number of channels doubles from stage to stage.
    num_classes : int
    cifar : bool
    first : int
        Channels of the first stage.
    width : int
        Of a bottleneck's inner channels, 2 for WRN-50-2.
    shortcut : callable
        (channels, filters, stride) → the module where the shapes change.
    head : str
        Name of the last layer.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        counts: tuple[int, ...],
        num_classes: int,
        *,
        cifar: bool = False,
        first: int = 64,
        width: int = 1,
        shortcut: Callable[[int, int, int], nn.Module] = _projection,
        head: str = "fc",
    ):
        super().__init__()
        self.conv1 = _conv(3, first, 3) if cifar else _conv(3, first, 7, 2)
        self.bn1 = nn.BatchNorm2d(first)
        self.maxpool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
        channels, self._names = first, [f"layer{stage + 1}" for stage in range(len(counts))] + [head]
        for stage, count in enumerate(counts):
            planes, blocks = first << stage, []
            for index in range(count):
                stride, filters = (2 if stage and not index else 1), planes * block.expansion
                change = shortcut(channels, filters, stride) if stride > 1 or channels != filters else None
                blocks.append(block(channels, planes, stride, width, change))
                channels = filters
            self.add_module(self._names[stage], nn.Sequential(*blocks))
        self.add_module(head, nn.Linear(channels, num_classes))
        _initialise(self, "fan_out")

    def forward(self, x: Tensor) -> Tensor:
        *stages, head = (getattr(self, name) for name in self._names)
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in stages:
            x = stage(x)
        out: Tensor = head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return out


class VGG(nn.Module):
    """Simonyan and Zisserman's VGG-16 with batch norm; for CIFAR the classifier sees one pixel, not 7×7.

    The classifier keeps its two hidden layers of 4096 for CIFAR, as SWAT's own code has it.
    """

    plan = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: max-pool

    def __init__(self, num_classes: int, *, cifar: bool = False):
        super().__init__()
        layers, channels, side = [], 3, 1 if cifar else 7
        for filters in self.plan:
            if filters:
                layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
            else:
                layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        hidden = [nn.Linear(512 * side**2, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
        self.classifier = nn.Sequential(*hidden, nn.Dropout(), nn.Linear(4096, num_classes))
        _initialise(self, "fan_out", linear=0.01)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return out


class DenseLayer(nn.Module):
    """BN-ReLU-conv 1×1, BN-ReLU-conv 3×3; its output joins the channels."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), _conv(channels, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), _conv(4 * growth, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, out], 1)


class DenseNet(nn.Module):
    """Huang et al.'s DenseNet-BC-121, growth 32; for CIFAR (SWAT's code) the stem is 3×3 without pooling."""

    def __init__(self, num_classes: int, *, cifar: bool = False, growth: int = 32):
        super().__init__()
        channels, counts = 2 * growth, (6, 12, 24, 16)
        self.features = nn.Sequential()
        self.features.add_module("conv0", _conv(3, channels, 3) if cifar else _conv(3, channels, 7, 2))
        if not cifar:
            for name, layer in {"norm0": nn.BatchNorm2d(channels), "relu0": nn.ReLU()}.items():
                self.features.add_module(name, layer)
            self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        for index, count in enumerate(counts, 1):
            block = nn.Sequential()
            for number in range(count):
                block.add_module(f"denselayer{number + 1}", DenseLayer(channels + number * growth, growth))
            self.features.add_module(f"denseblock{index}", block)
            channels += count * growth
            if index < len(counts):
                self.features.add_module(f"transition{index}", self._transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        _initialise(self, "fan_in")
        nn.init.zeros_(self.classifier.bias)

    @staticmethod
    def _transition(channels: int) -> nn.Sequential:
        layers = nn.Sequential()
        layers.add_module("norm", nn.BatchNorm2d(channels))
        layers.add_module("relu", nn.ReLU())
        layers.add_module("conv", _conv(channels, channels // 2, 1))
        layers.add_module("pool", nn.AvgPool2d(2, 2))
        return layers

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(F.adaptive_avg_pool2d(F.relu(self.features(x)), 1).flatten(1))
        return out


class WideBlock(nn.Module):
    """BN-ReLU-conv twice, with dropout between; where the shape changes, the shortcut branches off after the ReLU."""

    def __init__(self, channels: int, filters: int, stride: int, dropout: float):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), _conv(channels, filters, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(filters), _conv(filters, filters, 3)
        self.dropout = nn.Dropout(dropout)
        self.convShortcut = _conv(channels, filters, 1, stride) if channels != filters else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(out)
        changed: Tensor = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(out)))))
        return shortcut + changed


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis's WRN for CIFAR, with the paper's dropout of 0.3 (Table 12), named as in SWAT's code."""

    def __init__(self, num_classes: int, *, depth: int = 16, widen: int = 8, dropout: float = 0.3):
        super().__init__()
        channels, count = 16, (depth - 4) // 6
        self.conv1 = _conv(3, channels, 3)
        for stage in range(3):
            blocks, filters = [], (16 << stage) * widen
            for index in range(count):
                blocks.append(WideBlock(channels, filters, 2 if stage and not index else 1, dropout))
                channels = filters
            self.add_module(f"block{stage + 1}", nn.ModuleDict({"layer": nn.Sequential(*blocks)}))
        self.bn1, self.fc = nn.BatchNorm2d(channels), nn.Linear(channels, num_classes)
        _initialise(self, "fan_out")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in range(3):
            x = self.get_submodule(f"block{stage + 1}.layer")(x)
        out: Tensor = self.fc(F.adaptive_avg_pool2d(F.relu(self.bn1(x)), 1).flatten(1))
        return out


def _initialise(model: nn.Module, mode: Literal["fan_in", "fan_out"], linear: float | None = None) -> None:
    """He initialisation of convolutions; that of linear layers is PyTorch's, or normal with deviation ``linear``."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif linear is not None and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, linear)
            nn.init.zeros_(module.bias)


# He et al.'s own CIFAR networks: 16, 32 and 64 channels, shortcuts without weights.
_small = partial(ResNet, BasicBlock, cifar=True, first=16, shortcut=PadShortcut, head="linear")
# Name → number of classes by default, and what builds it. SWAT's code gives ResNet-18's convolutions biases on CIFAR;
# the batch norm after each takes them away again, so there are none here.
MODELS: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "resnet18": (1000, lambda classes: ResNet(BasicBlock, (2, 2, 2, 2), classes)),
    "resnet34": (1000, lambda classes: ResNet(BasicBlock, (3, 4, 6, 3), classes)),
    "resnet50": (1000, lambda classes: ResNet(Bottleneck, (3, 4, 6, 3), classes)),
    "wide_resnet50_2": (1000, lambda classes: ResNet(Bottleneck, (3, 4, 6, 3), classes, width=2)),
    "vgg16_bn": (1000, VGG),
    "densenet121": (1000, DenseNet),
    "cifar_resnet18": (10, lambda classes: ResNet(BasicBlock, (2, 2, 2, 2), classes, cifar=True)),
    "cifar_resnet8": (10, lambda classes: _small((1, 1, 1), classes)),
    "cifar_resnet20": (10, lambda classes: _small((3, 3, 3), classes)),
    "cifar_resnet56": (10, lambda classes: _small((9, 9, 9), classes)),
    "cifar_vgg16": (10, partial(VGG, cifar=True)),
    "cifar_wrn16_8": (10, WideResNet),
    "cifar_densenet121": (10, partial(DenseNet, cifar=True)),
}


def build(name: str, num_classes: int | None = None) -> nn.Module:
    """A model with fresh weights, which follow ``torch.manual_seed``.

    Parameters
    ----------
    name : str
        One of ``MODELS``, or the path to your own: ``package.module:factory`` or ``package.module.factory``, looked for
        in the current folder too. That is a callable that returns an ``nn.Module``, a subclass of it for example; it
        gets ``num_classes`` if it takes it.
    num_classes : int, optional
        Without it 1000, 10 for the CIFAR networks, or what your factory does by itself.

    Raises
    ------
    AccelsimError
        If there is no such model, or your module or factory fails.
    """
    if num_classes is not None and num_classes < 1:
        raise AccelsimError(f"number of classes: must be 1 or more, got {num_classes}")
    if name in MODELS:
        classes, factory = MODELS[name]
        return factory(num_classes or classes)
    if not {":", "."} & set(name):
        raise AccelsimError(f"{name}: no such model; must be one of {', '.join(MODELS)}, or package.module:factory")
    with _current_folder_first():
        try:
            target = pkgutil.resolve_name(name)
        except Exception as error:  # a user's module may raise anything while it is imported
            raise AccelsimError(f"{name}: cannot import: {_line(error)}") from error
        return _call(name, target, num_classes)


def _call(name: str, target: object, num_classes: int | None) -> nn.Module:
    if isinstance(target, nn.Module):
        return target
    if not callable(target):
        raise AccelsimError(f"{name}: must be callable and return a torch.nn.Module, is {type(target).__name__}")
    try:
        wanted = num_classes is not None and _takes(target, "num_classes")
        model = target(num_classes=num_classes) if wanted else target()
    except Exception as error:
        raise AccelsimError(f"{name}: must build a model, raised {_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise AccelsimError(f"{name}: must return a torch.nn.Module, returned {type(model).__name__}")
    return model


def _takes(function: Callable[..., object], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some builtins have none
        return False
    return name in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """As ``python -m`` looks for modules; a console script does not."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
