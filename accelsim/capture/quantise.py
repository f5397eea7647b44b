"""Values of a trace in few bits: integers by a scale, or bfloat16.

A machine multiplies the integers, so that is what a trace keeps of ``int8`` and ``int16``; scales only say what they
stand for, and no count depends on them. Numbers that training itself made integers times a scale stay these integers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from accelsim.capture.grids import Grids
from accelsim.errors import TraceError
from accelsim.workload.metadata import WEIGHTS

Values = Literal["as_trained", "int8", "int16", "bf16"]
Scales = Literal["tensor", "channel"]
VALUES: tuple[Values, ...] = ("as_trained", "int8", "int16", "bf16")
SCALES: tuple[Scales, ...] = ("tensor", "channel")
BITS = {"int8": 8, "int16": 16}
LARGEST = (1 << 15) - 1  # what a trace holds


def check(values: object, scales: object) -> None:
    """Raises TraceError where a choice is none."""
    for key, got, known in (("values", values, (False, True, *VALUES)), ("scales", scales, SCALES)):
        if got not in known:
            raise TraceError(f"{key}: must be one of {', '.join(map(str, known))}, got {got!r}")


def quantised(
    tensor: torch.Tensor, values: bool | Values, scales: Scales, name: str, grids: Grids | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A tensor as a trace is to hold it, and of integers the scales: of the tensor, (1,), or of each filter.

    Parameters
    ----------
    tensor : Tensor
    values : bool or str
        ``int8``, ``int16``: integers. Of fake-quantised numbers those that they stand for, less the zero point, so that
        zero is 0. Of others the greatest magnitude becomes 2^(bits−1) − 1, the others in proportion, rounded to even; a
        non-zero stays at least ±1, so that zeros are those of the training. ``bf16``: rounded. Others: as it is.
    scales : str
        ``channel``: of weights each filter has a scale of its own. Activations and gradients have one. Fake-quantised
        numbers have those that they were trained with.
    name : str
        Which tensor of the layer it is.
    grids : Grids, optional
        The scales of the step's fake quantisations.
    """
    if values == "bf16":
        return tensor.bfloat16(), None
    if values not in BITS or not tensor.is_floating_point():
        return tensor, None
    bits = BITS[str(values)]
    known = grids.integers(tensor, name, min((1 << bits) - 1, LARGEST)) if grids else None
    if known:
        return known[0].to(torch.int16), known[1]
    magnitude = tensor.detach().double().abs()
    by_filter = scales == "channel" and name in WEIGHTS and tensor.numel()
    greatest = magnitude.flatten(1).amax(1).view(-1, *[1] * (tensor.ndim - 1)) if by_filter else magnitude.amax()
    if not torch.isfinite(greatest).all():
        raise TraceError(f"must be finite to become {values}, has NaN or infinity")
    most = (1 << (bits - 1)) - 1
    scaled = magnitude * (most / greatest.clamp_min(torch.finfo(torch.double).tiny))
    integers = torch.where(magnitude > 0, scaled.round().clamp_min(1), 0)
    return (integers * tensor.sign()).to(torch.int16), greatest.flatten() / most


def fake_quantise(model: nn.Module, bits: int = 8, scales: Scales = "channel") -> None:
    """Makes every convolution and linear layer train with integers of so many bits, in place.

    Weights and inputs are rounded in the forward pass to whole multiples of a scale, by which their greatest magnitude
    is 2^(bits−1) − 1, and their gradients pass as if they were not: quantisation-aware training at its plainest.
    ``scales`` is of the weights: "tensor", or "channel" for each filter; inputs have one of the batch.
    """
    most = (1 << (bits - 1)) - 1

    class Rounded(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return _rounded(weight, most, scales)

    def on_grid(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return _rounded(inputs[0], most, "tensor"), *inputs[1:]

    for module in list(model.modules()):
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            parametrize.register_parametrization(module, "weight", Rounded())
            module.register_forward_pre_hook(on_grid)


def _rounded(tensor: torch.Tensor, most: int, scales: Scales) -> torch.Tensor:
    with torch.no_grad():
        magnitude = tensor.abs()
        greatest = magnitude.flatten(1).amax(1) if scales == "channel" else magnitude.amax()[None]
        steps = (greatest / most).clamp_min(torch.finfo(torch.float32).eps).float()
    if scales == "channel":
        zeros = torch.zeros(len(steps), dtype=torch.int32, device=tensor.device)
        return torch.fake_quantize_per_channel_affine(tensor, steps, zeros, 0, -most, most)
    return torch.fake_quantize_per_tensor_affine(tensor, float(steps), 0, -most, most)
