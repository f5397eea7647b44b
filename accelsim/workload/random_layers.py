"""Small layers of every kind from a seed, and smaller ones from them: what laws are tried on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields, replace
from typing import Any

import numpy as np

from accelsim.errors import GeometryError
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES
from accelsim.workload.metadata import tensor_shape
from accelsim.workload.trace import Layer

TENSORS = ("activation", "saved_activation", "weight", "gradient")
DENSITIES = (0.0, 0.1, 0.3, 0.6, 0.9, 1.0)
# Each kind of layer once, whatever the seed: samples of a batch, and the shape.
KINDS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "1×1": (1, 1, {"channels": 9, "height": 4, "width": 3, "filters": 6, "kernel": (1, 1)}),
    "3×3": (1, 4, {"channels": 4, "height": 5, "width": 5, "filters": 5, "kernel": (3, 3), "padding": (1, 1, 1, 1)}),
    "a first layer": (
        1, 1, {"channels": 3, "height": 7, "width": 6, "filters": 3, "kernel": (3, 3), "stride": (2, 2),
               "padding": (1, 1, 1, 1)},
    ),
    "depthwise": (
        2, 2, {"channels": 3, "height": 4, "width": 5, "filters": 3, "kernel": (2, 2), "groups": 3, "stride": (2, 1)},
    ),
    "dilated": (
        1, 1, {"channels": 2, "height": 7, "width": 5, "filters": 3, "kernel": (2, 3), "dilation": (3, 2),
               "padding": (0, 2, 1, 0)},
    ),
    "linear": (2, 8, {"channels": 40, "height": 1, "width": 1, "filters": 35, "kernel": (1, 1)}),
    "one product": (1, 1, {"channels": 1, "height": 1, "width": 1, "filters": 1, "kernel": (1, 1)}),
}  # fmt: skip


def layers(count: int, seed: int = 0) -> Iterator[Layer]:
    """So many layers, the same for a seed: each of ``KINDS``, then any; tensors of small integers of any density."""
    rng = np.random.default_rng(seed)
    for number, (samples, batch, shape) in zip(range(count), KINDS.values(), strict=False):
        yield _filled(rng, Geometry(**shape), samples, batch, f"layer {number}")
    for number in range(len(KINDS), count):
        samples = int(rng.integers(1, 3))
        yield _filled(rng, _geometry(rng), samples, samples * int(rng.integers(1, 4)), f"layer {number}")


def _geometry(rng: np.random.Generator) -> Geometry:
    """Any convolution of a few elements: odd sizes, stride, dilation, padding for each side, groups."""
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3]))
        channels, filters = (groups * int(n) for n in rng.integers(1, max(1, 5 // groups) + 1, 2))
        height, width = rng.integers(1, 7, 2).tolist()
        kernel, stride, dilation = (tuple(pair) for pair in rng.integers(1, 4, (3, 2)).tolist())
        padding = tuple(rng.integers(0, 4, 4).tolist())
        try:
            return Geometry(channels, height, width, filters, kernel, stride, padding, dilation, groups)
        except GeometryError:
            continue


def _filled(rng: np.random.Generator, geometry: Geometry, samples: int, batch: int, name: str) -> Layer:
    tensors = {}
    for tensor in TENSORS:
        shape = tensor_shape(geometry, samples, tensor)
        values = rng.integers(1, 9, shape) * rng.choice([-1, 1], shape)
        tensors[tensor] = np.where(rng.random(shape) < rng.choice(DENSITIES), values, 0)
    return Layer(name, "conv", geometry, samples, batch, PASSES, tensors)


def shrunk(layer: Layer, fails: Callable[[Layer], bool], seconds: float = 10.0) -> Layer:
    """The smallest layer found of which something that is true of this one still is: in size, then in non-zeros."""
    until = time.monotonic() + seconds
    found = True
    while found and time.monotonic() < until:
        found = False
        for smaller in _smaller(layer):
            if time.monotonic() > until:
                break
            if fails(smaller):
                layer, found = smaller, True
                break
    return layer


def _smaller(layer: Layer) -> Iterator[Layer]:
    """A step towards one product of ones: fewer samples, a smaller shape, tensors of zeros or ones, fewer non-zeros."""
    if layer.samples > 1:
        yield from _fitted(layer, layer.geometry, 1, layer.batch)
    if layer.batch > layer.samples:
        yield replace(layer, batch=layer.samples)
    for changes in _shapes(layer.geometry):
        try:
            geometry = replace(layer.geometry, **changes)
        except GeometryError:
            continue
        yield from _fitted(layer, geometry, layer.samples, layer.batch)
    for name, values in layer.tensors.items():
        for plain in (np.zeros_like(values), (values != 0).astype(values.dtype)):
            if (plain != values).any():
                yield replace(layer, tensors={**layer.tensors, name: plain})
    for name, values in layer.tensors.items():
        for at in np.flatnonzero(values)[:64]:
            fewer = values.copy()
            fewer.flat[at] = 0
            yield replace(layer, tensors={**layer.tensors, name: fewer})


def _shapes(geometry: Geometry) -> Iterator[dict[str, Any]]:
    """Changes of one thing at a time: halved first, then by one."""
    g = geometry
    if g.groups > 1:
        yield {"groups": 1, "channels": g.channels // g.groups, "filters": g.filters // g.groups}
        yield {"groups": 1}
        fewer = {name: getattr(g, name) // g.groups * (g.groups - 1) for name in ("channels", "filters")}
        yield {"groups": g.groups - 1, **fewer}
    for name in ("channels", "filters"):
        size = getattr(g, name) // g.groups
        yield from ({name: g.groups * new} for new in (size // 2, size - 1) if 0 < new < size)
    for name in ("height", "width"):
        size = getattr(g, name)
        yield from ({name: new} for new in (size // 2, size - 1) if 0 < new < size)
    for name, least in (("kernel", 1), ("stride", 1), ("dilation", 1), ("padding", 0)):
        values = getattr(g, name)
        for i, value in enumerate(values):
            if value > least:
                yield {name: (*values[:i], value - 1, *values[i + 1 :])}


def _fitted(layer: Layer, geometry: Geometry, samples: int, batch: int) -> Iterator[Layer]:
    """Layers of another shape, with the first or the last of the tensors, and ones where they are larger."""
    for last in (False, True):
        tensors = {}
        for name, values in layer.tensors.items():
            shape = tensor_shape(geometry, samples, name)
            filled = np.ones(shape, values.dtype)
            kept = [min(sizes) for sizes in zip(shape, values.shape, strict=True)]
            corner = tuple(slice(-size, None) if last else slice(size) for size in kept)
            filled[corner] = values[corner]
            tensors[name] = filled
        yield replace(layer, geometry=geometry, samples=samples, batch=batch, tensors=tensors)


def said(layer: Layer, names: Iterable[str]) -> str:
    """A layer in words: its shape, what differs from the plainest, and these tensors, spelled out where small."""
    g = layer.geometry
    odd = [
        f"{field.name} {getattr(g, field.name)}"
        for field in fields(g)
        if field.default is not MISSING and getattr(g, field.name) != field.default
    ]
    shape = [f"{layer.samples} of {layer.batch} samples", f"input {g.channels}×{g.height}×{g.width}"]
    shape += [f"weight {'×'.join(map(str, g.weight_shape))}", *odd]
    values = [f"{name} {_values(layer.tensors[name])}" for name in names]
    return ", ".join([*shape, *values])


def _values(tensor: np.ndarray) -> str:
    """All of them, or how many are not zero."""
    if tensor.size <= 16:
        return f"[{' '.join(str(int(value)) for value in tensor.flat)}]"
    return f"with {int(np.count_nonzero(tensor))} of {tensor.size} non-zero"
