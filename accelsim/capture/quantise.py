"""Values of a trace in few bits: integers by a scale, or bfloat16.

A machine multiplies the integers, so that is what a trace keeps of ``int8`` and ``int16``; scales only say what they
stand for, and no count depends on them.
"""

from __future__ import annotations

from typing import Literal

import torch

from accelsim.errors import TraceError

Values = Literal["as_trained", "int8", "int16", "bf16"]
Scales = Literal["tensor", "channel"]
VALUES: tuple[Values, ...] = ("as_trained", "int8", "int16", "bf16")
SCALES: tuple[Scales, ...] = ("tensor", "channel")
BITS = {"int8": 8, "int16": 16}


def check(values: object, scales: object) -> None:
    """Raises TraceError where a choice is none."""
    for key, got, known in (("values", values, (False, True, *VALUES)), ("scales", scales, SCALES)):
        if got not in known:
            raise TraceError(f"{key}: must be one of {', '.join(map(str, known))}, got {got!r}")


def quantised(tensor: torch.Tensor, values: bool | Values, scales: Scales, name: str) -> torch.Tensor:
    """A tensor as a trace is to hold it.

    Parameters
    ----------
    tensor : Tensor
    values : bool or str
        ``int8``, ``int16``: the greatest magnitude becomes 2^(bits−1) − 1, the others in proportion, rounded to even; a
        non-zero stays at least ±1, so that zeros are those of the training. ``bf16``: rounded. Others: as it is.
    scales : str
        ``channel``: of weights each filter has a scale of its own. Activations and gradients have one.
    name : str
        Which tensor of the layer it is.
    """
    if values == "bf16":
        return tensor.bfloat16()
    if values not in BITS or not tensor.is_floating_point():
        return tensor
    magnitude = tensor.detach().double().abs()
    by_filter = scales == "channel" and name == "weight" and tensor.numel()
    greatest = magnitude.flatten(1).amax(1).view(-1, *[1] * (tensor.ndim - 1)) if by_filter else magnitude.amax()
    if not torch.isfinite(greatest).all():
        raise TraceError(f"must be finite to become {values}, has NaN or infinity")
    scaled = magnitude * (((1 << (BITS[str(values)] - 1)) - 1) / greatest.clamp_min(torch.finfo(torch.double).tiny))
    integers = torch.where(magnitude > 0, scaled.round().clamp_min(1), 0)
    return (integers * tensor.sign()).to(torch.int16)
