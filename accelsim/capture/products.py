"""What a product multiplies: its operands, how many multiplications, and the form in which a trace holds it.

Every operation of PyTorch that multiplies tensors arrives, below autograd, as one of ``PRODUCTS``. A :class:`Form` says
how the two operands and the result (or its gradient) become the weight, the activation and the gradient of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from accelsim.capture.samples import Rows
from accelsim.workload.geometry import Geometry
from accelsim.workload.part import Part

Take = Callable[[torch.Tensor], torch.Tensor]
# The pass that computes a tensor of a layer.
COMPUTES = {"gradient": "fwd", "activation": "input_grad", "weight": "weight_grad"}


@dataclass(frozen=True, eq=False)
class Product:
    """One product as it ran.

    Parameters
    ----------
    operation : str
        Such as "mm".
    first, second : Tensor
        Its operands: matrices (…, M, K) and (…, K, N), or input and weight of a convolution.
    inputs : (int, int)
        Which inputs of its autograd node the operands are.
    convolution : Convolution, optional
        Stride and the like, where it is one.
    """

    operation: str
    first: torch.Tensor
    second: torch.Tensor
    inputs: tuple[int, int]
    convolution: Convolution | None = None

    @property
    def multiplications(self) -> int:
        """With nothing skipped; padding zeros are multiplied."""
        if self.convolution is None:
            return math.prod(self.first.shape) * self.second.shape[-1]
        return self.convolution.multiplications(self.first.shape, self.second.shape)


@dataclass(frozen=True)
class Convolution:
    """The arguments of a convolution, one, two or three axes."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, axes: int, values: Sequence[Any]) -> Convolution:
        """From stride, padding, dilation, transposed, output_padding and groups as ``aten::convolution`` takes them."""
        stride, padding, dilation, transposed, output_padding, groups = values
        each = [tuple(v) * (axes if len(v) == 1 else 1) for v in (stride, padding, dilation, output_padding)]
        return cls(each[0], each[1], each[2], bool(transposed), each[3], int(groups))

    def output(self, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """Sizes of the result's axes."""
        axes = zip(sizes, kernel, self.stride, self.padding, self.dilation, self.output_padding, strict=True)
        if self.transposed:
            return tuple((n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, k, s, p, d, o in axes)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in axes)

    def multiplications(self, input: Sequence[int], weight: Sequence[int]) -> int:
        """Of the forward pass, and of each of its gradients."""
        places = input[2:] if self.transposed else self.output(input[2:], weight[2:])
        return int(input[0]) * math.prod(weight) * math.prod(places)


@dataclass(frozen=True, eq=False)
class Form:
    """How a product is a layer.

    Parameters
    ----------
    kind, geometry, batch, samples
        As of :class:`accelsim.workload.trace.Layer`.
    names : (str, str, str)
        Which tensor of the layer the first operand, the second and the result are.
    takes : (callable, callable, callable)
        What brings each into the layer's form, of the stored samples.
    part : Part, optional
        Which of its places are stored, if not all.
    """

    kind: str
    geometry: Geometry
    batch: int
    samples: int
    names: tuple[str, str, str]
    takes: tuple[Take, Take, Take]
    part: Part | None = None

    @property
    def multiplications(self) -> int:
        """Of the product, as the layer says it: its batch of its geometry."""
        return self.batch * self.geometry.multiplications

    def computes(self, which: int) -> str:
        """The pass that computes the first operand (0), the second (1) or the result (2)."""
        return COMPUTES[self.names[which]]


class NoForm(Exception):
    """Why a product has no place in a trace."""


@dataclass(frozen=True, eq=False)
class Keep:
    """The samples to store of a batch of so many."""

    batch: int
    samples: tuple[int, ...]

    def rows(self, rows: Rows) -> tuple[np.ndarray, bool]:
        """The indices to keep: (samples, n) where each sample of the batch has n; else (rows, 1), and that it is so."""
        found = rows.even(self.batch)
        if found is not None:
            return found[list(self.samples)], True
        if rows.labels.min(initial=0) < 0:
            raise NoForm("rows of all samples")
        kept = np.flatnonzero(np.isin(rows.labels, self.samples))
        if not len(kept):
            raise NoForm("no row of the samples kept")
        return kept[:, None], False


def matrix_form(product: Product, x: Rows | None, y: Rows | None, keep: Keep) -> Form:
    """A product of matrices, (M, K)·(K, N) or a stack of them; ``x`` and ``y`` are the samples of its operands."""
    first, second = product.first, product.second
    stack = first.ndim - 2
    at_first, at_second = (None if rows is None else rows.axis - stack for rows in (x, y))
    stacked = [rows for rows in (x, y) if rows is not None and rows.axis < stack]
    if stacked:
        if len(stacked) == 2 and (stacked[0].axis != stacked[1].axis or (stacked[0].labels != stacked[1].labels).any()):
            raise NoForm("operands of different samples")
        return _by_sample(first, second, stacked[0], keep)
    if stack > 1:
        raise NoForm("a stack of stacks of matrices")
    if x is not None and at_first == 0:
        return _by_row(first, second, x, keep)
    if y is not None and at_second == 1:
        turned = _by_row(second.mT, first.mT, Rows(stack, y.labels), keep)
        a, b, c = turned.takes
        takes = (lambda t: b(t.mT)), (lambda t: a(t.mT)), (lambda t: c(t.mT))
        names = turned.names[1], turned.names[0], turned.names[2]
        return Form(turned.kind, turned.geometry, turned.batch, turned.samples, names, takes)
    if not stack and x is not None and y is not None and at_first == 1 and at_second == 0:
        return _over_rows(first, second, x, y, keep)
    if not stack and keep.batch == 1:  # all that there is is of the one sample
        of_one = _by_sample(first[None], second[None], Rows(0, np.zeros(1, int)), keep)
        a, b, c = of_one.takes
        return replace(of_one, takes=((lambda t: a(t[None])), (lambda t: b(t[None])), (lambda t: c(t[None]))))
    raise NoForm("samples not known" if x is None and y is None else "samples mixed")


def _by_row(first: torch.Tensor, second: torch.Tensor, x: Rows, keep: Keep) -> Form:
    """Rows are of samples, the other operand is of all: a linear layer, or of a stack of g a grouped one."""
    chosen, is_even = keep.rows(x)
    samples, tokens = chosen.shape
    pick = _picker(chosen)
    groups = len(first) if first.ndim == 3 else 1
    inner, columns = second.shape[-2:]
    geometry = Geometry(groups * inner, tokens, 1, groups * columns, (1, 1), groups=groups)

    def as_map(t: torch.Tensor) -> torch.Tensor:
        rows = pick(t, t.ndim - 2)
        if t.ndim == 2:
            return rows.reshape(samples, tokens, -1).transpose(1, 2).unsqueeze(-1)
        rows = rows.reshape(groups, samples, tokens, -1).permute(1, 0, 3, 2)
        return rows.reshape(samples, -1, tokens, 1)

    def as_weight(t: torch.Tensor) -> torch.Tensor:
        return t.mT.reshape(groups * columns, inner)[:, :, None, None]

    batch = keep.batch if is_even else first.shape[-2]
    names = "activation", "weight", "gradient"
    return Form("linear" if groups == 1 else "conv", geometry, batch, samples, names, (as_map, as_weight, as_map))


def _over_rows(first: torch.Tensor, second: torch.Tensor, x: Rows, y: Rows, keep: Keep) -> Form:
    """(K, rows)·(rows, C) with samples in what is summed over, as a weight gradient has: dOᵀ·A."""
    if not (x.labels == y.labels).all():
        raise NoForm("operands of different samples")
    chosen, is_even = keep.rows(x)
    samples, tokens = chosen.shape
    pick = _picker(chosen)
    geometry = Geometry(second.shape[1], tokens, 1, first.shape[0], (1, 1))

    def as_map(t: torch.Tensor) -> torch.Tensor:
        return pick(t, 0).reshape(samples, tokens, -1).transpose(1, 2).unsqueeze(-1)

    takes = (lambda t: as_map(t.mT)), as_map, (lambda t: t[:, :, None, None])
    batch = keep.batch if is_even else first.shape[1]
    return Form("linear", geometry, batch, samples, ("gradient", "activation", "weight"), takes)


def _by_sample(first: torch.Tensor, second: torch.Tensor, x: Rows, keep: Keep) -> Form:
    """Both operands are of the sample, in a stack of samples × heads: a matmul layer, one group a head."""
    chosen, is_even = keep.rows(x)
    samples, each = chosen.shape
    axis = x.axis
    pick = _picker(chosen)
    others = math.prod(first.shape[:-2]) // first.shape[axis]
    heads = each * others
    rows, inner = first.shape[-2:]
    columns = second.shape[-1]
    geometry = Geometry(heads * inner, rows, 1, heads * columns, (1, 1), groups=heads)

    def by_sample(t: torch.Tensor) -> torch.Tensor:
        """(samples, heads, rows, columns)."""
        return pick(t.movedim(axis, 0), 0).reshape(samples, heads, *t.shape[-2:])

    def as_map(t: torch.Tensor) -> torch.Tensor:
        t = by_sample(t)
        return t.permute(0, 1, 3, 2).reshape(samples, -1, t.shape[2], 1)

    def as_weight(t: torch.Tensor) -> torch.Tensor:
        return by_sample(t).permute(0, 1, 3, 2).reshape(samples * heads * columns, inner, 1, 1)

    batch = keep.batch if is_even else first.shape[axis]
    names = "activation", "weight", "gradient"
    return Form("matmul", geometry, batch, samples, names, (as_map, as_weight, as_map))


def _picker(chosen: np.ndarray) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """Takes the chosen indices along an axis; a run of them is a view."""
    flat = chosen.reshape(-1)
    if (np.diff(flat) == 1).all():
        start, count = int(flat[0]), len(flat)
        return lambda t, axis: t.narrow(axis, start, count)
    return lambda t, axis: t.index_select(axis, torch.as_tensor(flat, device=t.device))


def convolution_form(product: Product, x: Rows | None, y: Rows | None, keep: Keep, result: int = 2) -> Form:
    """A convolution; ``result`` says which of input (0), weight (1) and output (2) was computed from the others.

    One axis is two, of which the first has size 1. Of three the depth's taps go to the channels, its places to the
    samples. A transposed convolution is the input gradient of one.
    """
    conv = product.convolution
    if conv is not None and x is not None and y is not None and x.axis == 1 == y.axis:
        return _over_samples(product, conv, x, y, keep)
    if conv is None or x is None or x.axis != 0:
        raise NoForm("samples not known" if x is None else "kernels of samples")
    if y is not None:
        raise NoForm("kernels of samples")
    chosen, _ = keep.rows(x)
    pick = _picker(chosen)
    axes = product.first.ndim - 2
    sizes, kernel = product.first.shape[2:], product.second.shape[2:]
    small = conv.output(sizes, kernel)
    big = small if conv.transposed else tuple(sizes)
    shape, places = _Axes(big, kernel, conv), (tuple(sizes) if conv.transposed else small)
    k, c = product.second.shape[0], product.second.shape[1] * conv.groups
    geometry = shape.geometry(k, c)
    depth = places[0] if axes == 3 else 1
    samples = chosen.size * depth

    def as_activation(t: torch.Tensor) -> torch.Tensor:
        return shape.activation(pick(t, 0), places)

    def as_gradient(t: torch.Tensor) -> torch.Tensor:
        return shape.gradient(pick(t, 0))

    given = ("activation", as_activation), ("gradient", as_gradient)
    outer, inner = given[::-1] if conv.transposed else given
    parts = [outer, ("weight", shape.weight), inner]
    parts.append(parts.pop(result))
    names, takes = zip(*parts, strict=True)
    return Form("conv", geometry, len(x.labels) * depth, samples, names, takes)


def _over_samples(product: Product, conv: Convolution, x: Rows, y: Rows, keep: Keep) -> Form:
    """A weight gradient computed as a convolution: samples are its channels, and the gradient its kernel."""
    if (x.labels != y.labels).any() or conv.groups > 1 or conv.transposed or product.first.ndim != 4:
        raise NoForm("kernels of samples")
    chosen, _ = keep.rows(x)
    pick = _picker(chosen)
    result = conv.output(product.first.shape[2:], product.second.shape[2:])
    rows, columns = conv.padding
    (channels, batch, height, width), filters = product.first.shape, product.second.shape[0]
    geometry = Geometry(
        channels, height, width, filters, (result[0], result[1]), (conv.dilation[0], conv.dilation[1]),
        (rows, rows, columns, columns), (conv.stride[0], conv.stride[1]),
    )  # fmt: skip
    if geometry.output != tuple(product.second.shape[2:]):
        raise NoForm("a weight gradient with more rows than the kernel")

    def turned(t: torch.Tensor) -> torch.Tensor:
        return pick(t, 1).transpose(0, 1)

    takes = turned, turned, (lambda t: t.transpose(0, 1))
    return Form("conv", geometry, batch, chosen.size, ("activation", "gradient", "weight"), takes)


@dataclass(frozen=True)
class _Axes:
    """Brings the axes of a convolution to two."""

    sizes: tuple[int, ...]
    kernel: Sequence[int]
    conv: Convolution

    def geometry(self, filters: int, channels: int) -> Geometry:
        c = self.conv
        fill = (1,) * (2 - len(self.sizes))
        height, width = (*fill, *self.sizes)[-2:]
        kernel, stride, dilation = ((*fill, *map(int, v))[-2:] for v in (self.kernel, c.stride, c.dilation))
        rows, columns = (*(0 for _ in fill), *c.padding)[-2:]
        taps = self.kernel[0] if len(self.sizes) == 3 else 1
        padding = rows, rows, columns, columns
        return Geometry(
            channels * taps, int(height), int(width), filters, (kernel[0], kernel[1]), (stride[0], stride[1]),
            padding, (dilation[0], dilation[1]), c.groups,
        )  # fmt: skip

    def activation(self, t: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
        if len(self.sizes) < 3:
            return t.unsqueeze(2) if len(self.sizes) == 1 else t
        c, taps = self.conv, self.kernel[0]
        t = F.pad(t, (0, 0, 0, 0, c.padding[0], c.padding[0]))
        planes = [t[:, :, d * c.dilation[0] :: c.stride[0]][:, :, : places[0]] for d in range(taps)]
        stacked = torch.stack(planes, dim=3)  # N, C, D, taps, H, W
        n, channels, depth = stacked.shape[:3]
        return stacked.permute(0, 2, 1, 3, 4, 5).reshape(n * depth, channels * taps, *t.shape[3:])

    def gradient(self, t: torch.Tensor) -> torch.Tensor:
        if len(self.sizes) < 3:
            return t.unsqueeze(2) if len(self.sizes) == 1 else t
        return t.transpose(1, 2).flatten(0, 1)

    def weight(self, t: torch.Tensor) -> torch.Tensor:
        if len(self.sizes) == 1:
            return t.unsqueeze(2)
        return t.flatten(1, 2) if len(self.sizes) == 3 else t


def product_of(name: str, args: Sequence[Any]) -> Product:
    """The product of an operation of ``PRODUCTS`` (all but a convolution's backward pass), by its arguments."""
    if name == "convolution":
        return Product(name, args[0], args[1], (0, 1), Convolution.of(args[1].ndim - 2, args[3:9]))
    added = int(name in ("addmm", "baddbmm", "addmv"))
    first, second = args[added : added + 2]
    if name in ("mv", "addmv", "dot"):
        second = second.unsqueeze(-1)
    if name == "dot":
        first = first.unsqueeze(0)
    return Product(name, first, second, (added, added + 1))


PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution")
