"""The integers that fake-quantised numbers are: which scale a tensor's values are whole multiples of.

Fake quantisation (QAT) trains with numbers that are integers times a scale, of the tensor or of each filter. PyTorch's
operations for it tell their scales as they run; of other quantisers the numbers themselves do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from accelsim.workload.metadata import WEIGHTS

ENOUGH = 64  # non-zeros in a tensor, from which on whole multiples are no accident
ENOUGH_OF_A_FILTER = 8
DIVISORS = range(1, 65)  # the least magnitude may itself be so many steps


class Grids:
    """Scales of the fake quantisations of a step."""

    def __init__(self) -> None:
        self._scales: dict[tuple[float, ...], torch.Tensor] = {}

    def saw(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """An operation ran: keep its scales, if it is one that fake-quantises."""
        if "fake_quantize" not in name and "_fq_helper" not in name:
            return
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        scales = torch.as_tensor(given["scale"]).detach().double().flatten().cpu()
        if scales.isfinite().all() and (scales > 0).all():
            self._scales.setdefault(tuple(scales.tolist()), scales)

    def integers(self, tensor: torch.Tensor, name: str, most: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Integers of at most ``most`` in magnitude and their scales, (1,) or (filters,); None of other numbers.

        A scale that was told comes first, the greatest that fits; then the greatest that the numbers show.
        """
        numbers = tensor.detach().double().cpu()
        rounding = 4 * most * torch.finfo(tensor.dtype).eps
        if rounding > 0.25 or not numbers.numel() or not numbers.isfinite().all():
            return None
        told = sorted(self._scales.values(), key=lambda scales: -float(scales.mean()))
        for rows, scales in _candidates(numbers, name in WEIGHTS, told, rounding):
            multiples = rows / scales[:, None]
            whole = multiples.round()
            if float((multiples - whole).abs().max()) <= rounding and float(whole.abs().max()) <= most:
                return whole.reshape(tensor.shape), scales
        return None


def _candidates(
    numbers: torch.Tensor, is_weight: bool, told: Sequence[torch.Tensor], rounding: float
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Scales to try, with the numbers in as many rows."""
    whole, filters = numbers.reshape(1, -1), numbers.reshape(len(numbers), -1) if is_weight else None
    for scales in told:
        if len(scales) == 1:
            yield whole, scales
        elif filters is not None and len(scales) == len(filters):
            yield filters, scales
    if int(whole.count_nonzero()) >= ENOUGH:
        yield whole, _shown(whole, rounding)
        if filters is not None and int(filters.count_nonzero(1).min()) >= ENOUGH_OF_A_FILTER:
            yield filters, _shown(filters, rounding)


def _shown(rows: torch.Tensor, rounding: float) -> torch.Tensor:
    """The greatest scale of each row by which its greatest numbers are whole; where there is none, any."""
    magnitudes = rows.abs()
    least = torch.where(rows == 0, torch.inf, magnitudes).amin(1)
    greatest = magnitudes.topk(min(ENOUGH, rows.shape[1]), dim=1).values
    found = least
    for k in reversed(DIVISORS):
        multiples = greatest / (least / k)[:, None]
        fits = (multiples - multiples.round()).abs().amax(1) <= rounding
        found = torch.where(fits, least / k, found)
    return found
