"""Layers that multiply what an algorithm leaves: a convolution and a linear layer, SWAT's and those of all others.

In reading order: what a layer asks of its algorithm, SWAT's answers, the product with its two gradients, the layers.
``capture.algorithm`` makes them out of a model's own layers; ``capture.topk`` selects. Paper, sections 3.3.1 and A.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from accelsim.capture.topk import TopK
from accelsim.errors import AccelsimError


@dataclass
class Clock:
    """The iteration, shared by all layers."""

    period: int
    iteration: int = 0
    frozen: bool = False

    @property
    def due(self) -> bool:
        return self.iteration % self.period == 0


class Config(Protocol):
    """What a layer asks of ``SwatConfig``."""

    @property
    def structure(self) -> str: ...

    @property
    def weight_scope(self) -> str: ...

    @property
    def activation_scope(self) -> str: ...

    @property
    def sparse_forward(self) -> bool: ...

    @property
    def masked_update(self) -> bool: ...


class State:
    """What a layer asks of its algorithm. As it stands, the answers of dense training.

    Attributes
    ----------
    sparse_forward, sparse_backward : bool
        Whether the forward pass, and the input gradient, multiply by the active weights only.
    masked_update : bool
        Whether only the active weights get a gradient.
    """

    sparse_forward = sparse_backward = True
    masked_update = False

    def __init__(self, name: str):
        self.name = name

    def active(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Mask of the active weights; None where all are."""
        return None

    def multiplied(self, x: torch.Tensor) -> torch.Tensor:
        """The activation as the forward pass multiplies it."""
        return x

    def saved(self, x: torch.Tensor) -> torch.Tensor:
        """The activation as it is saved, and the weight gradient multiplies it."""
        return x

    def outputs(self, out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, of: Operation) -> torch.Tensor | None:
        """Mask of the outputs that are computed; None where all are."""
        return None

    def propagated(self, gradient: torch.Tensor) -> torch.Tensor:
        """The output gradient as both gradients multiply it; the very tensor where nothing is dropped."""
        return gradient

    @property
    def zeros(self) -> dict[str, float | None]:
        """Fraction of zeros of the last weight, and of the last saved activation; None where nobody looked."""
        return {"weight": 0.0, "activation": 0.0}

    def state_dict(self) -> dict[str, Any]:
        """What a later step depends on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class LayerState(State):
    """SWAT's, of one layer: its shares, its thresholds, the active weights."""

    def __init__(self, name: str, config: Config, clock: Clock, maps: bool):
        super().__init__(name)
        self.clock = clock
        self.channels = config.structure == "channel"
        self.sparse_forward, self.masked_update = config.sparse_forward, config.masked_update
        self.weight = TopK(1.0, "CHW" if self.channels else config.weight_scope)
        scope = "CHW" if config.activation_scope == "HW" and not maps else config.activation_scope
        self.activation, self.gradient = TopK(1.0, scope, samples=True), TopK(1.0, scope, samples=True)
        self._fixed: torch.Tensor | None = None
        self._mask: torch.Tensor | None = None
        self._of: tuple[int, bool, int, int] | None = None

    def active(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Mask of the active weights, worked out once an iteration; None where all are."""
        if not self.clock.frozen:
            self._fixed = None
        elif self._fixed is not None:
            self._fixed = self._fixed.to(weight.device)
            return self._fixed
        if self.weight.density >= 1:
            return None
        # A parameter that was changed without step() is seen by its version; a parametrized weight is new each time.
        version = 0 if weight.is_inference() else weight._version
        of = (self.clock.iteration, self.clock.frozen, version, weight.data_ptr())
        if self._mask is None or of != self._of or not isinstance(weight, nn.Parameter):
            # Out of inference mode, lest a mask made while evaluating be refused in training.
            with torch.inference_mode(False), torch.no_grad():
                self._mask, self._of = self._select(weight.detach()), of
        if self.clock.frozen:
            self._fixed = self._mask
        return self._mask

    @property
    def last_active(self) -> torch.Tensor | None:
        """The mask that the last forward pass used; None where all weights were active."""
        if self._fixed is not None:
            return self._fixed
        return None if self.weight.density >= 1 else self._mask

    def saved(self, x: torch.Tensor) -> torch.Tensor:
        """Its Top-K."""
        return self._blamed("activation", self.activation, x, self.clock.due)

    def propagated(self, gradient: torch.Tensor) -> torch.Tensor:
        """Its Top-K where that is asked for. An overflow under a loss scale is the scaler's to see, so NaN passes."""
        if self.gradient.density >= 1 or gradient.isnan().any():
            return gradient
        return self._blamed("gradient", self.gradient, gradient, self.clock.due)

    @property
    def zeros(self) -> dict[str, float | None]:
        """Of what Top-K last kept."""
        weight = 0.0 if self.weight.density >= 1 else self.weight.sparsity
        return {"weight": weight, "activation": self.activation.sparsity}

    def state_dict(self) -> dict[str, Any]:
        """Thresholds, shares, and the active weights where they are fixed."""
        kept = {which: getattr(self, which).state_dict() for which in ("weight", "activation", "gradient")}
        return kept | {"fixed": self._fixed, "mask": self._mask}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for which in ("weight", "activation", "gradient"):
            getattr(self, which).load_state_dict(state[which])
        self._fixed, self._mask, self._of = state["fixed"], state["mask"], None

    def _select(self, weight: torch.Tensor) -> torch.Tensor:
        refresh = self.clock.due or self.clock.frozen
        if not self.channels:
            return self._blamed("weight", self.weight.mask, weight, refresh)
        norms = weight.abs().flatten(2).sum(2, dtype=torch.float64) if weight.ndim > 2 else weight.abs()
        mask = self._blamed("weight", self.weight.mask, norms, refresh)
        return mask.reshape(*mask.shape, *[1] * (weight.ndim - 2)).expand_as(weight)

    def _blamed(
        self, which: str, function: Callable[[torch.Tensor, bool], torch.Tensor], values: torch.Tensor, refresh: bool
    ) -> torch.Tensor:
        try:
            return function(values, refresh)
        except AccelsimError as error:
            raise AccelsimError(f"{self.name}: {which} {error}") from None


@dataclass(frozen=True)
class Convolve:
    """A convolution of known geometry; padding is (top, bottom, left, right)."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    features: int = 1  # the output's axis of filters

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        begin, extra = self._split()
        x = F.pad(x, extra) if any(extra) else x
        return F.conv2d(x, weight, bias, self.stride, begin, self.dilation, self.groups)

    def gradients(
        self, gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: tuple[bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Of input and weight, each only where wanted; of an operand that no wanted one reads the shape will do.

        One call of ``convolution_backward``, as autograd itself makes: the input gradient reads ``weight`` only, the
        weight gradient ``x`` only, so each may be another than the forward pass used. ``torch.nn.grad`` makes two.
        """
        begin, extra = self._split()
        height, width = x.shape[2:]
        if wanted[1]:
            x = F.pad(x, extra) if any(extra) else x
        else:
            x = x.new_empty(1).expand(*x.shape[:2], height + extra[3], width + extra[1])
        to_x, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, self.stride, begin, self.dilation, False, (0, 0), self.groups, (*wanted, False)
        )  # fmt: skip
        return to_x[..., :height, :width] if wanted[0] else None, to_weight if wanted[1] else None

    def _split(self) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """Padding for both sides, and what the right and the bottom get beyond that (an even kernel under 'same')."""
        top, bottom, left, right = self.padding
        return (top, left), (0, right - left, 0, bottom - top)


class Multiply:
    """The product of a linear layer."""

    features = -1

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.linear(x, weight, bias)

    def gradients(
        self, gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: tuple[bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Of input and weight, each only where wanted."""
        to_x = gradient @ weight if wanted[0] else None
        return to_x, gradient.flatten(0, -2).T @ x.flatten(0, -2) if wanted[1] else None


Operation = Convolve | Multiply


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


_sparse_product: Callable[..., torch.Tensor] = _SparseProduct.apply


class SwatLayer(nn.Module):
    """What both layers share.

    Attributes
    ----------
    swat : State
    record : callable or None
        If set, each forward pass calls it as ``record(name, tensor)`` with the very tensors that are multiplied, cast
        as autocast has them: ``weight``, ``activation``, then ``saved_activation`` where the backward pass needs
        another; and in that, ``gradient`` where it is sparsified.
        Under ``sparse_forward=False`` ``weight`` is the full one, and ``backward_weight`` the sparse one.
    """

    record: Callable[[str, torch.Tensor], Any] | None = None
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
            out = _sparse_product(x, weight, bias, call)
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
        return _Call(self._operation(), state, forward, backward, active, self.record)


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


def _autocast_dtype(x: torch.Tensor) -> torch.dtype | None:
    """What autocast would cast a convolution's operands to; None where it would not."""
    if not x.is_floating_point() or x.dtype == torch.float64:
        return None
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _cast(x: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return x if dtype is None or x.dtype == torch.float64 else x.to(dtype)
