"""Layers small enough to be watched: one made up, or a corner cut out of a real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches

import numpy as np

from accelsim.errors import TraceError
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES
from accelsim.workload.metadata import tensor_shape
from accelsim.workload.random_layers import TENSORS
from accelsim.workload.trace import Layer, Trace

# Keys of a made-up layer, with what they are by default.
TOY: dict[str, float] = {
    "samples": 1, "channels": 16, "filters": 16, "height": 6, "width": 6, "kernel": 3, "stride": 1, "padding": 1,
    "groups": 1, "zeros": 0.6, "seed": 0,
}  # fmt: skip
# What of a real layer can be kept less of. Channels and filters are those of a group.
CUTS = ("samples", "groups", "channels", "filters", "height", "width")
LARGEST = 96  # magnitude of a made-up value; most are far smaller


def toy(sizes: Mapping[str, float] | None = None) -> Layer:
    """A layer of integers with zeros in every tensor.

    Parameters
    ----------
    sizes : mapping of str to number
        Keys of ``TOY``: ``zeros`` is a share below 1, the others are integers.

    Raises
    ------
    TraceError
        If a key is not known or a value is out of its range.
    GeometryError
        If they make no convolution.
    """
    given = _known("toy", sizes or {}, tuple(TOY))
    values = TOY | dict(given)
    if not 0 <= values["zeros"] < 1:
        raise TraceError(f"toy: zeros: must be a share, 0 or more and below 1, got {values['zeros']:g}")
    for key in sorted(TOY.keys() - {"zeros"}):
        if values[key] != int(values[key]) or values[key] < (key not in ("padding", "seed")):
            raise TraceError(f"toy: {key}: must be a whole number, got {values[key]:g}")
    n = {key: int(value) for key, value in values.items()}
    geometry = Geometry(
        n["channels"], n["height"], n["width"], n["filters"], (n["kernel"],) * 2, (n["stride"],) * 2,
        (n["padding"],) * 4, groups=n["groups"],
    )  # fmt: skip
    rng, tensors = np.random.default_rng(n["seed"]), {}
    for name in TENSORS:
        shape = tensor_shape(geometry, n["samples"], name)
        drawn = np.clip(np.rint(rng.laplace(scale=12, size=shape)), -LARGEST, LARGEST).astype(np.int16)
        drawn[drawn == 0] = 1
        tensors[name] = np.where(rng.random(shape) < values["zeros"], np.int16(0), drawn)
    # The first operand of a layer behind a ReLU has no signs.
    tensors["activation"], tensors["saved_activation"] = abs(tensors["activation"]), abs(tensors["activation"])
    return Layer("toy", "conv", geometry, n["samples"], n["samples"], PASSES, tensors)


def of_trace(trace: Trace, name: str, snapshot: str | None = None) -> Layer:
    """A layer of a trace by its name, of the last snapshot if none is named. Raises TraceError if there is none."""
    found = trace.snapshots[-1] if snapshot is None else trace.snapshot(snapshot)
    for layer in found.layers:
        if layer.name == name:
            return layer
    near = get_close_matches(name, [layer.name for layer in found.layers], 3, 0.3) or [found.layers[0].name]
    raise TraceError(
        f"{trace.path}: {found.name}: layer must be one of the trace's, as {', '.join(near)}; got {name!r:.60}"
    )


def sizes_of(layer: Layer) -> dict[str, int]:
    """What a layer has of ``CUTS``."""
    g = layer.geometry
    return {
        "samples": layer.samples, "groups": g.groups, "channels": g.channels // g.groups,
        "filters": g.filters // g.groups, "height": g.height, "width": g.width,
    }  # fmt: skip


def cut(layer: Layer, sizes: Mapping[str, float]) -> Layer:
    """The first samples, groups, channels, filters, rows and columns of a layer; its tensors are read now.

    Raises
    ------
    TraceError
        If a key is not one of ``CUTS``, or a size is no whole number from 1 to what the layer has.
    GeometryError
        If the kernel does not fit what is left of the map.
    """
    own = sizes_of(layer)
    for key, value in _known("cut", sizes, CUTS).items():
        if value != int(value) or not 1 <= value <= own[key]:
            raise TraceError(
                f"cut: {key}: {layer.name} has {own[key]}, must be a whole number in 1…{own[key]}, got {value:g}"
            )
        own[key] = int(value)
    g = layer.geometry
    geometry = replace(
        g, channels=own["groups"] * own["channels"], filters=own["groups"] * own["filters"], height=own["height"],
        width=own["width"], groups=own["groups"],
    )  # fmt: skip
    tensors = {name: _kept(layer, name, own, geometry) for name in layer.tensors}
    return replace(layer, geometry=geometry, samples=own["samples"], batch=own["samples"], tensors=tensors)


def _kept(layer: Layer, name: str, own: Mapping[str, int], geometry: Geometry) -> np.ndarray:
    """A tensor's corner."""
    values, groups = layer.tensor(name), layer.geometry.groups
    samples, kept, inner = own["samples"], own["groups"], {"channels": own["channels"], "filters": own["filters"]}
    if name == "weight":
        # Of a product of two activations each sample has its own; else there is one for all.
        of_samples = values.reshape(-1 if layer.kind != "matmul" else layer.samples, *_grouped(values, groups, layer))
        corner = of_samples[:samples, :kept, : inner["filters"], : inner["channels"]]
    else:
        side = "filters" if name == "gradient" else "channels"
        places = geometry.output if name == "gradient" else (geometry.height, geometry.width)
        by_group = values.reshape(len(values), groups, -1, *values.shape[2:])
        corner = by_group[:samples, :kept, : inner[side], : places[0], : places[1]]
    return corner.reshape(tensor_shape(geometry, samples, name, layer.kind)).copy()


def _grouped(values: np.ndarray, groups: int, layer: Layer) -> tuple[int, ...]:
    """The shape of one sample's weight: groups, filters of a group, channels of a group, kernel."""
    return groups, layer.geometry.filters // groups, *values.shape[1:]


def fitting(layer: Layer, fits: Callable[[Layer], bool]) -> dict[str, int]:
    """Sizes of a cut that fits: one sample, then of what is largest half, again and again."""
    own = sizes_of(layer) | {"samples": 1}
    while not fits(cut(layer, own)):
        halves = {key: size for key, size in own.items() if size > 1 and _whole(layer, own | {key: size // 2})}
        if not halves:
            break
        largest = max(halves, key=lambda key: halves[key] * (2 if key in ("height", "width") else 1))
        own[largest] //= 2
    before = sizes_of(layer)
    return {key: size for key, size in own.items() if size < before[key]}


def _whole(layer: Layer, own: Mapping[str, int]) -> bool:
    """Whether the kernel still fits the map."""
    top, bottom, left, right = layer.geometry.padding
    extent = layer.geometry.kernel_extent
    return own["height"] + top + bottom >= extent[0] and own["width"] + left + right >= extent[1]


def _known(what: str, given: Mapping[str, float], keys: tuple[str, ...]) -> Mapping[str, float]:
    for key in given:
        if key not in keys:
            raise TraceError(f"{what}: must be of {', '.join(keys)}, got {key[:30]!r}")
    return given
