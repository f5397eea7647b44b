"""Layers that multiply what an algorithm leaves: a convolution and a linear layer, SWAT's and those of all others.

In reading order: the product with its two gradients, the layers. What they multiply a state answers
(``capture.states``); ``capture.algorithm`` makes them out of a model's own layers. Paper, sections 3.3.1 and A.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from accelsim.capture.operations import Convolve, Multiply, Operation
from accelsim.capture.states import State
from accelsim.errors import AccelsimError


@dataclass(frozen=True, eq=False)
class _Call:
    """What one call of a layer computes with, beside what autograd differentiates."""

    operation: Operation
    state: State
    forward_weight: torch.Tensor
    backward_weight: torch.Tensor
    active: torch.Tensor | None
    record: Callable[[str, torch.Tensor], Any] | None

    def product(
        self, x: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """The output, which of it was computed, None for all, and the activation that was multiplied."""
        x = self.state.multiplied(x)
        out = self.operation.product(x, self.forward_weight, bias)
        if self.record is not None:
            self.record("weight", self.forward_weight)
            if self.backward_weight is not self.forward_weight:
                self.record("backward_weight", self.backward_weight)
            self.record("activation", x.detach())
        chosen = self.state.outputs(out, x, self.forward_weight, self.operation)
        return out if chosen is None else torch.where(chosen, out, 0), chosen, x


class _SparseProduct(torch.autograd.Function):
    """Forward with one weight, backward with another, and with the Top-K activation: stages 1 and 2 of Algorithm 1."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, call: _Call
    ) -> torch.Tensor:
        out, chosen, multiplied = call.product(x, bias)
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        saved = None
        if wants_weight:
            saved = call.state.saved(x)
            if call.record is not None and saved is not multiplied:
                call.record("saved_activation", saved.detach())
        active = call.active if wants_weight and call.state.masked_update else None
        ctx.save_for_backward(saved, call.backward_weight if wants_x else None, active, chosen)
        ctx.operation, ctx.state, ctx.record = call.operation, call.state, call.record
        ctx.shapes, ctx.dtype = (x.shape, weight.shape), weight.dtype
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise AccelsimError(f"{ctx.state.name}: a SWAT layer has no second derivative; leave out create_graph=True")
        x, weight, active, chosen = ctx.saved_tensors
        whole, gradient = gradient, gradient if chosen is None else torch.where(chosen, gradient, 0)
        wanted, to_x, to_weight, to_bias = ctx.needs_input_grad[:2], None, None, None
        if ctx.needs_input_grad[2]:
            axes = [axis for axis in range(gradient.ndim) if axis != ctx.operation.features % gradient.ndim]
            to_bias = gradient.sum(axes)
        if any(wanted):
            # Of an operand that nobody reads only the shape is left.
            x = gradient.new_empty(1).expand(ctx.shapes[0]) if x is None else x
            weight = gradient.new_empty(1).expand(ctx.shapes[1]) if weight is None else weight
            gradient = ctx.state.propagated(gradient)
            if ctx.record is not None and gradient is not whole:
                ctx.record("gradient", gradient)
            to_x, to_weight = ctx.operation.gradients(gradient, x, weight, wanted)
        if to_weight is not None:
            to_weight = to_weight.to(ctx.dtype)
            to_weight = to_weight if active is None else to_weight.masked_fill_(~active, 0)
        return to_x, to_weight, to_bias, None


class SwatLayer(nn.Module):
    """What both layers share.

    Attributes
    ----------
    swat : State
    record : callable or None
        If set, each forward pass calls it as ``record(name, tensor)`` with the very tensors that are multiplied, cast
        as autocast has them: ``weight``, ``activation``, then ``saved_activation`` where the backward pass needs
        another; and in that, ``gradient`` where it is sparsified.
    watch : callable or None
        Told the same.

        Under ``sparse_forward=False`` ``weight`` is the full one, and ``backward_weight`` the sparse one.
    """

    record: Callable[[str, torch.Tensor], Any] | None = None
    watch: Callable[[str, torch.Tensor], Any] | None = None
    swat: State
    weight: torch.Tensor
    bias: Any  # a tensor or None; PyTorch declares it in one way for convolutions, in another for linear layers
    sample_axes: int  # of an input without a batch

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        """The activation that is multiplied."""
        raise NotImplementedError

    def _operation(self) -> Operation:
        """The product that the layer computes."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer that it was, with SWAT's operands. Where autograd is not asked, nothing is saved."""
        weight, bias, single = self.weight, self.bias, x.ndim == self.sample_axes
        x = self._padded(x.unsqueeze(0) if single else x)
        dtype = _autocast_dtype(x)
        x = _cast(x, dtype)
        bias = None if bias is None else _cast(bias, dtype)
        call = self._call(weight, dtype)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
            apply: Callable[..., torch.Tensor] = _SparseProduct.apply
            out = apply(x, weight, bias, call)
        else:
            out, _, _ = call.product(x, bias)
        return out.squeeze(0) if single else out

    @torch.no_grad()
    def _call(self, weight: torch.Tensor, dtype: torch.dtype | None) -> _Call:
        active = self.swat.active(weight)
        full = weight.detach()
        sparse = _cast(full if active is None else torch.where(active, full, 0), dtype)
        state = self.swat
        dense = sparse if active is None or (state.sparse_forward and state.sparse_backward) else _cast(full, dtype)
        forward, backward = (sparse if chosen else dense for chosen in (state.sparse_forward, state.sparse_backward))
        return _Call(self._operation(), state, forward, backward, active, _both(self.record, self.watch))


class SwatConv2d(SwatLayer, nn.Conv2d):
    """A ``Conv2d`` that trains by SWAT. Made by :func:`convert`."""

    sample_axes = 3

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        """Padding other than zeros belongs to the activation that the convolution sees."""
        if self.padding_mode == "zeros":
            return x
        top, bottom, left, right = self._sides()
        return F.pad(x, (left, right, top, bottom), mode=self.padding_mode)

    def _operation(self) -> Convolve:
        sides = self._sides() if self.padding_mode == "zeros" else (0, 0, 0, 0)
        (down, right), (rows, columns) = self.stride, self.dilation
        return Convolve((down, right), sides, (rows, columns), self.groups)

    def _sides(self) -> tuple[int, int, int, int]:
        if self.padding == "valid":
            return 0, 0, 0, 0
        if not isinstance(self.padding, str):
            vertical, horizontal = self.padding
            return vertical, vertical, horizontal, horizontal
        rows, columns = (d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True))
        return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2


class SwatLinear(SwatLayer, nn.Linear):
    """A ``Linear`` that trains by SWAT. Made by :func:`convert`."""

    sample_axes = 1

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _operation(self) -> Multiply:
        return Multiply()


def _both(*told: Callable[[str, torch.Tensor], Any] | None) -> Callable[[str, torch.Tensor], Any] | None:
    """What tells all that are to be told."""
    listeners = [each for each in told if each is not None]
    if len(listeners) < 2:
        return listeners[0] if listeners else None
    return lambda name, tensor: [listener(name, tensor) for listener in listeners]


def _autocast_dtype(x: torch.Tensor) -> torch.dtype | None:
    """What autocast would cast a convolution's operands to; None where it would not."""
    if not x.is_floating_point() or x.dtype == torch.float64:
        return None
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _cast(x: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return x if dtype is None or x.dtype == torch.float64 else x.to(dtype)
