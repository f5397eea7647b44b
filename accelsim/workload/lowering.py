"""The three passes of a training step as standard convolutions. Nothing downstream knows what a pass is made of.

=============  ====================  ====================================================================
pass           product               as a standard convolution
=============  ====================  ====================================================================
fwd            O = A ∗ W             as it is
input_grad     dA = dO ∗ᵀ W          W rotated by 180° in R×S, K and C swapped, dO padded by R−1−padding;
                                     stride > 1: dO dilated, or stride² phases on the undilated dO
weight_grad    dW = dO ∗ A           channels take the place of the batch, the batch that of the channels;
                                     the kernel is dO dilated by the stride
=============  ====================  ====================================================================

SWAT (section 3.2 and appendix A.1): ``fwd`` and ``input_grad`` read the Top-K weight, ``weight_grad`` the Top-K
activation that the forward pass saved; the output gradient is never sparsified. Where an algorithm's input gradient
reads another weight than the forward pass, as SAW's does, the trace holds both (``operands``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import PASSES
from accelsim.workload.trace import Layer

__all__ = ["PASSES", "READS", "Convolution", "lower", "lower_tensors", "pad"]
READS = {
    "fwd": ("activation", "weight"),
    "input_grad": ("gradient", "weight"),
    "weight_grad": ("saved_activation", "gradient"),
}
EVERYWHERE = (slice(None), slice(None))
COUNTED = 1 << 20  # places whose non-zeros are counted at once: more would take memory, fewer time
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Convolution:
    """One standard convolution: what a machine is asked to compute. Zero is the only ineffectual value.

    Parameters
    ----------
    which : str
        The pass it belongs to, one of ``PASSES``.
    input : ndarray, (N, C, H, W)
        Booleans (non-zero or not) or numbers.
    kernel : ndarray, (K, C/groups, R, S)
    stride, dilation : (int, int)
    padding : (int, int, int, int)
        Zeros around the input: top, bottom, left, right.
    groups : int
    batch : int
        Samples in the training batch; a trace may store fewer. Work done once a batch is shared by its samples.
    scatter : (slice, slice)
        The rows and columns of the pass's result that this convolution yields (a stride phase yields every st-th).
    held : (slice, slice)
        The rows and columns of the input that hold data; the others are zeros that lowering put between them.
    operands : (ndarray, ndarray), optional
        The layer's tensors that ``input`` and ``kernel`` were cut from, for a machine that chooses by whole tensors.
    """

    which: str
    input: np.ndarray
    kernel: np.ndarray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    batch: int = 1
    scatter: tuple[slice, slice] = field(default=EVERYWHERE)
    held: tuple[slice, slice] = field(default=EVERYWHERE)
    operands: tuple[np.ndarray, np.ndarray] | None = None
    _made: dict[tuple[Hashable, ...], Any] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def geometry(self) -> Geometry:
        """Its shape, checked."""
        _, channels, height, width = self.input.shape
        return Geometry(
            channels, height, width, self.kernel.shape[0], self.kernel.shape[2:], self.stride, self.padding,
            self.dilation, self.groups,
        )  # fmt: skip

    def once(self, key: tuple[Hashable, ...], make: Callable[[], Made]) -> Made:
        """What was made of it before under this key, or is now: machines share it while the convolution lives."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    @property
    def samples(self) -> int:
        """N."""
        return len(self.input)

    @property
    def stored(self) -> np.ndarray:
        """The input as a memory holds it, (N, C, …): without the zeros that lowering put between its elements."""
        return self.input[:, :, self.held[0], self.held[1]]

    @property
    def multiplications(self) -> int:
        """Multiplications with nothing skipped, padding zeros included."""
        return self.samples * self.geometry.multiplications

    @cached_property
    def effectual(self) -> int:
        """Multiplications with both operands non-zero: the least that any zero-skipping machine executes.

        Σ over channel, tap and output place of (samples non-zero there) × (filters non-zero there), walking taps or
        output places, whichever are fewer.
        """
        step = max(1, COUNTED // int(np.prod(self.input.shape[2:])))
        kernels = np.count_nonzero(self.kernel.reshape(self.groups, -1, *self.kernel.shape[1:]), axis=1)
        kernels = kernels.reshape(self.geometry.channels, *self.geometry.kernel)
        channels = (slice(c, c + step) for c in range(0, self.geometry.channels, step))
        return sum(self._effectual(self.input[:, of], kernels[of]) for of in channels)

    def _effectual(self, inputs: np.ndarray, kernels: np.ndarray) -> int:
        """Of some channels."""
        counts = pad(np.count_nonzero(inputs, axis=0), self.padding)
        taps, places = self.geometry.kernel, self.geometry.output
        if taps[0] * taps[1] <= places[0] * places[1]:
            return sum(
                int(_window(counts, at, self.dilation, places, self.stride).sum(axis=(1, 2)) @ kernels[:, at[0], at[1]])
                for at in np.ndindex(*taps)
            )
        return sum(
            int(np.vdot(_window(counts, at, self.stride, taps, self.dilation), kernels)) for at in np.ndindex(*places)
        )


def lower(layer: Layer, which: str, *, strided: str = "phase") -> list[Convolution]:
    """The convolutions that compute one pass of one layer.

    Parameters
    ----------
    layer : Layer
    which : str
        One of ``PASSES``.
    strided : {"phase", "dilate"}
        How an input gradient with stride > 1 becomes a convolution.

    Returns
    -------
    list of Convolution
        One; for the input gradient by phases one for each phase that has taps and outputs that a gradient reaches (the
        others are zeros); none where the pass did not run.

    Raises
    ------
    TraceError
        If the layer lacks a tensor that the pass reads.
    """
    if which not in layer.passes:
        return []
    first, second = (layer.tensor(name) for name in operands(layer, which))
    if layer.kind == "matmul":  # samples' channels one after another; the second operands are so already
        heights = (-1, *first.shape[2:]), (-1, *second.shape[2:])
        first, second = (
            array if name == "weight" else array.reshape(1, *shape)
            for name, array, shape in zip(READS[which], (first, second), heights, strict=True)
        )
        return lower_tensors(stacked(layer), which, first, second)
    return lower_tensors(layer.geometry, which, first, second, strided=strided, batch=layer.batch)


def operands(layer: Layer, which: str) -> tuple[str, ...]:
    """The tensors of the trace that a pass multiplies, in the order of ``READS``: SAW's backward weight is another."""
    names = ("gradient", "backward_weight") if which == "input_grad" else READS[which]
    return tuple(layer.stored(name) for name in names)


def stacked(layer: Layer) -> Geometry:
    """A matmul layer as it is computed: one sample, whose groups are the heads of all that are stored."""
    g, n = layer.geometry, layer.samples
    return Geometry(n * g.channels, g.height, 1, n * g.filters, (1, 1), groups=n * g.groups)


def lower_tensors(
    geometry: Geometry, which: str, first: np.ndarray, second: np.ndarray, *, strided: str = "phase", batch: int = 1
) -> list[Convolution]:
    """``lower`` on plain arrays, booleans or numbers, in the order of ``READS``: see there."""
    if which == "fwd":
        g = geometry
        lowered = [Convolution(which, first, second, g.stride, g.padding, g.dilation, g.groups, batch)]
    elif which == "weight_grad":
        lowered = [_weight_grad(geometry, first, second, batch)]
    elif strided == "dilate" or geometry.stride == (1, 1):
        lowered = [_input_grad_dilated(geometry, first, _rotate(geometry, second), batch)]
    else:
        lowered = _input_grad_phases(geometry, first, _rotate(geometry, second), batch)
    return [replace(conv, operands=(first, second)) for conv in lowered]


def pad(array: np.ndarray, padding: tuple[int, int, int, int]) -> np.ndarray:
    """Zeros around the last two axes: top, bottom, left, right."""
    top, bottom, left, right = padding
    if not any(padding):
        return array
    return np.pad(array, [(0, 0)] * (array.ndim - 2) + [(top, bottom), (left, right)])


def _window(
    array: np.ndarray, start: Sequence[int], step: Sequence[int], count: Sequence[int], stride: Sequence[int]
) -> np.ndarray:
    """Of the last two axes: ``count`` elements, ``stride`` apart, from ``start``·``step``."""
    rows, columns = (
        slice(at * d, at * d + (n - 1) * st + 1, st) for at, d, n, st in zip(start, step, count, stride, strict=True)
    )
    return array[..., rows, columns]


def _weight_grad(geometry: Geometry, activation: np.ndarray, gradient: np.ndarray, batch: int) -> Convolution:
    """dW[k, c, r, s] = Σ dO[n, k, p, q]·A[n, c, p·st + r·d − pad, …].

    With groups g: input (C/g, g·N, H, W), kernel (K, N, P, Q), groups g, result (C/g, K, R, S) — PyTorch's own trick.
    """
    g, samples = geometry.groups, activation.shape[0]
    group = geometry.channels // g
    stacked = activation.reshape(samples, g, group, *activation.shape[2:]).transpose(2, 1, 0, 3, 4)
    stacked = stacked.reshape(group, g * samples, *activation.shape[2:])
    extent = [(size - 1) * st + 1 for size, st in zip(geometry.output, geometry.stride, strict=True)]
    begins = geometry.padding[0], geometry.padding[2]
    stacked, padding, held = _fit(stacked, begins, extent, geometry.dilation, geometry.kernel)
    kernel = gradient.transpose(1, 0, 2, 3)
    return Convolution("weight_grad", stacked, kernel, geometry.dilation, padding, geometry.stride, g, batch, held=held)


def _rotate(geometry: Geometry, weight: np.ndarray) -> np.ndarray:
    """The weight with R and S reversed and K and C swapped within each group: (C, K/groups, R, S)."""
    g = geometry.groups
    filters, channels = geometry.filters // g, geometry.channels // g
    split = weight.reshape(g, filters, channels, *geometry.kernel)[..., ::-1, ::-1]
    return split.swapaxes(1, 2).reshape(g * channels, filters, *geometry.kernel)


def _input_grad_dilated(geometry: Geometry, gradient: np.ndarray, rotated: np.ndarray, batch: int) -> Convolution:
    """The input gradient as one stride-1 convolution on dO with st−1 zeros between its elements."""
    sizes = [(size - 1) * st + 1 for size, st in zip(geometry.output, geometry.stride, strict=True)]
    dilated = np.zeros((*gradient.shape[:2], *sizes), gradient.dtype)
    dilated[..., :: geometry.stride[0], :: geometry.stride[1]] = gradient
    extent = geometry.kernel_extent
    begins = extent[0] - 1 - geometry.padding[0], extent[1] - 1 - geometry.padding[2]
    dilated, padding, held = _fit(dilated, begins, extent, (1, 1), (geometry.height, geometry.width))
    # Where ``_fit`` cuts into the gradient, data begin at the next multiple of the stride.
    rows, columns = (
        slice(min(0, begin) % st, there.stop, st)
        for begin, st, there in zip(begins, geometry.stride, held, strict=True)
    )
    return Convolution(
        "input_grad", dilated, rotated, (1, 1), padding, geometry.dilation, geometry.groups, batch, held=(rows, columns)
    )


def _input_grad_phases(geometry: Geometry, gradient: np.ndarray, rotated: np.ndarray, batch: int) -> list[Convolution]:
    """The input gradient as one stride-1 convolution for each phase of input positions modulo the stride."""
    g = geometry
    rows = _axis_phases(g.height, g.kernel[0], g.stride[0], g.dilation[0], g.padding[0], g.output[0])
    columns = _axis_phases(g.width, g.kernel[1], g.stride[1], g.dilation[1], g.padding[2], g.output[1])
    convolutions = []
    for y in rows:
        for x in columns:
            taps = rotated[:, :, y.taps, x.taps]
            dilation = y.dilation, x.dilation
            extent = [(n - 1) * d + 1 for n, d in zip(taps.shape[2:], dilation, strict=True)]
            part, padding, held = _fit(gradient, (y.begin, x.begin), extent, (1, 1), (y.outputs, x.outputs))
            convolutions.append(
                Convolution(
                    "input_grad", part, taps, (1, 1), padding, dilation, geometry.groups, batch,
                    (y.scatter, x.scatter), held,
                )
            )  # fmt: skip
    return convolutions


@dataclass(frozen=True)
class _Phase:
    """One axis of one phase: its taps in the rotated kernel, their spacing in dO, zeros before dO, what it yields."""

    taps: slice
    dilation: int
    begin: int
    outputs: int
    scatter: slice


def _axis_phases(size: int, taps: int, stride: int, dilation: int, padding: int, places: int) -> list[_Phase]:
    """The phases of one axis that have taps, and of each the outputs from the first to the last that dO reaches.

    Input position x lies in phase i = (x + padding) mod stride and meets the taps r with r·dilation ≡ i (mod stride);
    these lie ``step`` = stride/gcd apart, and their positions in dO, (x + padding − r·dilation)/stride, lie
    ``dilation/gcd`` apart.
    """
    gcd = int(np.gcd(stride, dilation))
    step, spacing = stride // gcd, dilation // gcd
    phases = []
    for i in range(stride):
        first_tap = next((r for r in range(min(step, taps)) if (r * dilation - i) % stride == 0), None)
        first_output = (i - padding) % stride
        if first_tap is None or first_output >= size:
            continue
        count = len(range(first_tap, taps, step))
        # In the rotated kernel the phase's last tap comes first; it meets dO at first_place − (count−1)·spacing.
        first_place = (first_output + padding - first_tap * dilation) // stride
        rotated = slice(taps - 1 - (first_tap + (count - 1) * step), taps - first_tap, step)
        # Outputs before and after those from which a tap meets dO are zeros.
        reached = [
            output
            for output in range(len(range(first_output, size, stride)))
            if any(0 <= first_place + output - tap * spacing < places for tap in range(count))
        ]
        if reached:
            begin = (count - 1) * spacing - first_place - reached[0]
            scatter = slice(first_output + reached[0] * stride, first_output + reached[-1] * stride + 1, stride)
            phases.append(_Phase(rotated, spacing, begin, reached[-1] - reached[0] + 1, scatter))
    return phases


def _fit(
    array: np.ndarray, begins: Sequence[int], extent: Sequence[int], stride: Sequence[int], outputs: Sequence[int]
) -> tuple[np.ndarray, tuple[int, int, int, int], tuple[slice, slice]]:
    """The array and the padding that give exactly ``outputs`` places, starting ``begins`` zeros before the array.

    Where the window starts inside the array or ends before its end, the elements that nothing reads are cut away. Also
    which rows and columns of it hold data.
    """
    padding: list[int] = []
    held = list(EVERYWHERE)
    for axis, begin, span, st, count in zip((2, 3), begins, extent, stride, outputs, strict=True):
        size = array.shape[axis]
        end = (count - 1) * st + span - size - begin
        if -begin >= size or -end >= size:
            # Nothing but padding is read: one zero stands for it.
            array, begin, end = np.zeros_like(array.take([0], axis)), 0, begin + size + end - 1
            held[axis - 2] = slice(0, 0)
        else:
            array = array.take(range(max(0, -begin), size - max(0, -end)), axis) if min(begin, end) < 0 else array
        padding += [max(0, begin), max(0, end)]
    top, bottom, left, right = padding
    return array, (top, bottom, left, right), (held[0], held[1])
