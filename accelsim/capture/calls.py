"""What one convolution multiplied, as ``conv2d`` or ``linear`` was given it, or as a layer hands it over itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from accelsim.errors import TraceError
from accelsim.workload.geometry import Geometry

Sizes = int | Sequence[int]  # of both axes, or of each


@dataclass(frozen=True, eq=False)
class Call:
    """What one convolution multiplied.

    Parameters
    ----------
    kind : "conv" or "linear"
    geometry : Geometry
    tensors : dict of str to Tensor
        As the operation was given them; :meth:`stored` brings them into the trace's form.
    output : Tensor
        What the operation returned. Its dtype is the one that was computed in, also under autocast.
    input_grad : bool
        Whether autograd is asked for the gradient of the input.
    late : dict of str to Tensor, optional
        Where a layer that hands over its tensors itself puts the gradient that its backward pass uses.
    """

    kind: str
    geometry: Geometry
    tensors: dict[str, torch.Tensor]
    output: torch.Tensor
    input_grad: bool
    late: dict[str, torch.Tensor] | None = None

    @property
    def batch(self) -> int:
        """Size of the first dimension."""
        return len(self.output)

    def stored(self, name: str, samples: slice | Sequence[int]) -> torch.Tensor:
        """A tensor in four dimensions and in the dtype that was computed in; of all but the weight only ``samples``."""
        tensor = self.tensors[name].detach()
        if name == "weight":
            return as_conv_weight(tensor).to(self.output.dtype)
        return as_map(self.kind, tensor[samples]).to(self.output.dtype)


def as_map(kind: str, tensor: torch.Tensor) -> torch.Tensor:
    """Activations and gradients as N, C, H, W; those of a linear layer, (N, …, C), as a T×1 map."""
    if kind == "conv":
        return tensor
    return tensor.reshape(tensor.shape[0], -1, tensor.shape[-1]).transpose(1, 2).unsqueeze(-1)


def as_conv_weight(weight: torch.Tensor) -> torch.Tensor:
    """A linear layer's weight as that of a 1×1 convolution."""
    return weight[:, :, None, None] if weight.ndim == 2 else weight


def conv_call(
    output: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Call:
    """What ``conv2d`` with these arguments multiplied.

    Raises
    ------
    TraceError
        If the input has no batch dimension.
    GeometryError
        If a size is zero.
    """
    if input.ndim != 4:
        raise TraceError(f"input must have a batch dimension, N×C×H×W; got shape {tuple(input.shape)}")
    kernel, strides, spacing = _pair(weight.shape[2:]), _pair(stride), _pair(dilation)
    if padding == "same":  # what is odd goes to the bottom and to the right
        rows, columns = (d * (k - 1) for d, k in zip(spacing, kernel, strict=True))
        sides = rows // 2, rows - rows // 2, columns // 2, columns - columns // 2
    else:
        rows, columns = (0, 0) if isinstance(padding, str) else _pair(padding)
        sides = rows, rows, columns, columns
    channels, height, width, filters = map(int, (*input.shape[1:], weight.shape[0]))
    geometry = Geometry(channels, height, width, filters, kernel, strides, sides, spacing, int(groups))
    return _call("conv", geometry, {"activation": input, "weight": weight}, output)


def linear_call(
    output: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> Call:
    """What ``linear`` with these arguments multiplied; raises as :func:`conv_call`."""
    if input.ndim < 2 or weight.ndim != 2:
        raise TraceError(f"input must have a batch dimension, N×C or N×T×C; got shape {tuple(input.shape)}")
    tokens = input[0, ..., 0].numel()
    geometry = Geometry(input.shape[-1], tokens, 1, weight.shape[0], (1, 1))
    return _call("linear", geometry, {"activation": input, "weight": weight}, output)


def _call(kind: str, geometry: Geometry, tensors: dict[str, torch.Tensor], output: torch.Tensor) -> Call:
    needed = output.requires_grad and tensors["activation"].requires_grad
    return Call(kind, geometry, tensors, output, needed)


def _pair(value: Sizes) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    first, second = values * 2 if len(values) == 1 else values
    return int(first), int(second)


def own_call(
    module: torch.nn.Module,
    handed: dict[str, torch.Tensor],
    late: dict[str, torch.Tensor],
    input: torch.Tensor,
    output: torch.Tensor,
) -> Call:
    """The call of a layer that handed over its tensors itself, in the shape that its attributes tell."""
    needed, known = {"weight", "activation"}, {"weight", "activation", "saved_activation"}
    if not needed <= handed.keys() <= known:  # a trace has one weight, for the forward pass and the input gradient
        got = ", ".join(sorted(handed)) or "nothing"
        raise TraceError(f"must record weight, activation and maybe saved_activation, nothing else; got {got}")
    activation, weight = handed["activation"], handed["weight"]
    if isinstance(module, torch.nn.Conv2d):  # any other padding is in the activation already
        padding = module.padding if module.padding_mode == "zeros" else 0
        call = conv_call(output, activation, weight, None, module.stride, padding, module.dilation, module.groups)
    else:
        call = linear_call(output, activation, weight)
    return Call(call.kind, call.geometry, handed, output, output.requires_grad and input.requires_grad, late)
