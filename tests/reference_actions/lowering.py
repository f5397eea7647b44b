"""A pass of a layer as convolutions of masks, or integers, element by element from the definition (docs/model.md)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

READS = {
    "fwd": ("activation", "weight"),
    "input_grad": ("gradient", "weight"),
    "weight_grad": ("activation", "gradient"),
}


@dataclass
class Layer:
    """A layer as plain data: sizes, and masks by name ("weight", "activation", "saved_activation", "gradient").

    ``masks`` holds integers instead for machines that multiply bits.

    Pairs are (height, width); ``before`` and ``after`` are the zeros around the input.
    """

    name: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    first: bool
    masks: dict[str, np.ndarray]

    def operand(self, which: str, number: int) -> np.ndarray:
        """The first or second tensor that a pass reads."""
        name = READS[which][number]
        if which == "weight_grad" and name == "activation":
            return self.masks.get("saved_activation", self.masks["activation"])
        return self.masks[name]


@dataclass
class Problem:
    """A convolution: place (p, q) under tap (r, s) meets padded element (p·stride + r·dilation, likewise).

    ``padded``: (N, C, H', W'); ``held``: what memory holds of it, (N, C, h, w). ``kernel``: (K, C/groups, R, S), of the
    weight gradient None; ``gradient``: (N, K, P, Q), of that only. ``tensors``: the layer's own two, whole.
    """

    which: str
    padded: np.ndarray
    held: np.ndarray
    kernel: np.ndarray | None
    gradient: np.ndarray | None
    taps: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    places: tuple[int, int]
    groups: int
    tensors: tuple[np.ndarray, np.ndarray]

    def element(self, p, q, r, s) -> np.ndarray:
        """(N, C): what place (p, q) meets under tap (r, s)."""
        return self.padded[:, :, p * self.stride[0] + r * self.dilation[0], q * self.stride[1] + s * self.dilation[1]]

    def every_place(self):
        return product(range(self.places[0]), range(self.places[1]))

    def every_tap(self):
        return product(range(self.taps[0]), range(self.taps[1]))


def problems(layer: Layer, which: str, strided: str) -> list[Problem]:
    """The convolutions of a pass; none where nobody needs the input gradient."""
    first, second = layer.operand(which, 0), layer.operand(which, 1)
    places = layer.masks["gradient"].shape[2:]
    if which == "fwd":
        sizes = [first.shape[2 + a] + layer.before[a] + layer.after[a] for a in (0, 1)]
        padded = _around(first, [range(-b, size - b) for b, size in zip(layer.before, sizes, strict=True)])
        shape = layer.kernel, layer.stride, layer.dilation, places
        return [Problem(which, padded, first, second, None, *shape, layer.groups, (first, second))]
    if which == "weight_grad":
        # From the first place that the first tap meets to the last that the last one does.
        spans = [
            range(-b, (n - 1) * st + (taps - 1) * d + 1 - b)
            for b, n, st, taps, d in zip(layer.before, places, layer.stride, layer.kernel, layer.dilation, strict=True)
        ]
        shape = layer.kernel, layer.stride, layer.dilation, places
        padded, held = _around(first, spans), _inside(first, spans)
        return [Problem(which, padded, held, None, second, *shape, layer.groups, (first, second))]
    if layer.first:
        return []
    found = []
    sizes, strides = layer.masks["activation"].shape[2:], layer.stride
    phases = strided == "phase" and layer.stride != (1, 1)
    axes = [
        _phases(sizes[a], layer.kernel[a], strides[a], layer.dilation[a], layer.before[a], places[a])
        if phases
        else [_dilated(sizes[a], layer.kernel[a], layer.dilation[a], layer.before[a])]
        for a in (0, 1)
    ]
    for rows, columns in product(*axes):
        gradient = first
        if not phases:
            dilated = [(n - 1) * st + 1 for n, st in zip(places, strides, strict=True)]
            gradient = np.zeros((*first.shape[:2], *dilated), first.dtype)
            gradient[:, :, :: strides[0], :: strides[1]] = first
        spans = [rows.span, columns.span]
        step = (1, 1) if phases else strides
        held = first[:, :, _kept(rows.span, step[0], places[0])][:, :, :, _kept(columns.span, step[1], places[1])]
        found.append(
            Problem(
                which, _around(gradient, spans), held, _turned(layer, second, rows.taps, columns.taps), None,
                (len(rows.taps), len(columns.taps)), (1, 1), (rows.spacing, columns.spacing),
                (rows.outputs, columns.outputs), layer.groups, (first, second),
            )
        )  # fmt: skip
    return found


@dataclass
class _Axis:
    """One axis of an input gradient: its taps in the order in which they lie, and the gradients that they span."""

    taps: list[int]
    spacing: int
    outputs: int
    span: range


def _dilated(size, taps, dilation, before) -> _Axis:
    """Input x meets tap r at x + before − r·dilation of the gradient with zeros between."""
    order = list(reversed(range(taps)))
    return _Axis(order, dilation, size, range(before - order[0] * dilation, size - 1 + before + 1))


def _phases(size, taps, stride, dilation, before, places) -> list[_Axis]:
    """The inputs at each distance modulo the stride, from the first to the last that a gradient reaches."""
    found = []
    for phase in range(stride):
        own = [r for r in reversed(range(taps)) if (r * dilation - phase) % stride == 0]
        at = lambda x, r: (x + before - r * dilation) // stride  # noqa: E731
        inputs = [x for x in range(size) if (x + before) % stride == phase]
        reached = [x for x in inputs if any(0 <= at(x, r) < places for r in own)]
        if reached:
            outputs = (reached[-1] - reached[0]) // stride + 1
            spacing = at(0, own[1]) - at(0, own[0]) if len(own) > 1 else 1
            found.append(_Axis(own, spacing, outputs, range(at(reached[0], own[0]), at(reached[-1], own[-1]) + 1)))
    return found


def _around(array, spans) -> np.ndarray:
    """The elements at these rows and columns, zeros where there are none."""
    out = np.zeros((*array.shape[:2], len(spans[0]), len(spans[1])), array.dtype)
    for (i, x), (j, y) in product(enumerate(spans[0]), enumerate(spans[1])):
        if 0 <= x < array.shape[2] and 0 <= y < array.shape[3]:
            out[:, :, i, j] = array[:, :, x, y]
    return out


def _inside(array, spans) -> np.ndarray:
    rows, columns = (_kept(span, 1, size) for span, size in zip(spans, array.shape[2:], strict=True))
    return array[:, :, rows][:, :, :, columns]


def _kept(span, step, size) -> list[int]:
    """The elements, ``step`` apart, that lie in a span."""
    return [u for u in range(size) if u * step in span]


def _turned(layer, weight, rows, columns) -> np.ndarray:
    """(C, K/groups, …): within each group filters and channels change places; taps in this order."""
    groups, filters, channels = layer.groups, len(weight) // layer.groups, weight.shape[1]
    out = np.zeros((groups * channels, filters, len(rows), len(columns)), weight.dtype)
    for g, c, k in product(range(groups), range(channels), range(filters)):
        out[g * channels + c, k] = weight[g * filters + k, c][np.ix_(rows, columns)]
    return out
