"""Top-K of live tensors: the k-th magnitude, exactly, and a threshold that stays in use. Paper, 3.3.3, A.1, A.4–A.6.

At a refresh exactly k = ⌈(1 − sparsity)·size⌉ elements of each group survive, the lowest index first among equal
magnitudes; a zero never counts. Between refreshes an element survives whose magnitude is at least the k-th greatest of
the last refresh, as in SWAT's own code. The numpy twin is ``workload.sparsify``.

Ways to find that magnitude exactly, on 10⁷ floats and one core, half of them zero as after a ReLU: sort 0.8–1.4 s, topk
0.4 s, kthvalue 0.2–0.5 s, numpy.partition 2 s (0.1 s without the zeros), by sample as below 0.05–0.08 s.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from accelsim.errors import AccelsimError
from accelsim.workload.sparsify import group_axes, kept

SAMPLE = 1 << 16
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def kth_magnitude(magnitude: torch.Tensor, count: int) -> torch.Tensor:
    """The exact ``count``-th greatest of the magnitudes; 0 where fewer are non-zero.

    A regular sample brackets it, within six standard deviations of where a random one would put it; only what lies in
    the bracket is searched. A bracket that missed costs time, not exactness.

    Parameters
    ----------
    magnitude : Tensor, one axis, ≥ 0, no NaN
    count : int
        1 … its size.

    Returns
    -------
    Tensor, no axis
    """
    size = magnitude.numel()
    if count < 1 or _count(magnitude > 0) < count:
        return magnitude.new_zeros(())
    if size <= 4 * SAMPLE:
        return _largest(magnitude, count)
    sample = magnitude[:: (size // SAMPLE) | 1].sort().values
    share, points = count / size, sample.numel()
    middle, margin = points * (1 - share), 6 * (points * share * (1 - share)) ** 0.5 + 2
    low, high = sample[max(0, int(middle - margin))], sample[min(points - 1, int(middle + margin))]
    above = _count(magnitude > high)
    if above >= count:
        return _largest(magnitude[magnitude > high], count)
    among = magnitude[(magnitude >= low) & (magnitude <= high) & (magnitude > 0)]
    if above + among.numel() < count:
        return _largest(magnitude[(magnitude < low) & (magnitude > 0)], count - above - among.numel())
    return high if low == high else _largest(among, count - above)


class TopK:
    """Keeps the elements of greatest magnitude of one tensor that changes from iteration to iteration.

    Parameters
    ----------
    density : float
        The fraction to keep, in (0, 1]; 1: everything. May be set anew; the next refresh follows it.
    scope : {"NCHW", "CHW", "HW"}
    samples : bool
        Whether the first axis numbers the samples of a batch. The next batch holds others, and maybe fewer: between
        refreshes these meet the mean of the samples' thresholds.

    Attributes
    ----------
    threshold : float, Tensor or None
        The k-th magnitude of the last refresh: one number or, by group, a tensor that broadcasts.
    """

    def __init__(self, density: float, scope: str = "NCHW", samples: bool = False):
        self.density, self.scope, self.samples = density, scope, samples
        self.threshold: float | torch.Tensor | None = None
        self._nonzero: int | torch.Tensor | None = None
        self._size = 0

    @property
    def sparsity(self) -> float | None:
        """Fraction of zeros of what was last kept; None before the first time."""
        return None if self._nonzero is None else 1 - int(self._nonzero) / max(1, self._size)

    def state_dict(self) -> dict[str, Any]:
        """The density and the threshold in use."""
        return {"density": self.density, "threshold": self.threshold}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that threshold."""
        self.density, self.threshold = state["density"], state["threshold"]

    def mask(self, values: torch.Tensor, refresh: bool) -> torch.Tensor:
        """Which elements to keep. NaN raises AccelsimError at a refresh and is kept between."""
        magnitude = values.abs()
        if refresh or self.threshold is None:
            edge = self._refresh(magnitude)
            keep = _exact(magnitude, edge, self._kept(values), self._lead(values))
        else:
            keep = (magnitude < _at(self.threshold, values)).logical_not_()
        self._note(keep)
        return keep

    def __call__(self, values: torch.Tensor, refresh: bool) -> torch.Tensor:
        """The tensor with only these elements; itself where nothing is to be dropped. NaN as in :meth:`mask`."""
        if self.density >= 1 or values.numel() == 0:
            return self._note(values)
        if refresh or self.threshold is None:
            magnitude = values.abs()
            edge = self._refresh(magnitude)
            if self._lead(values) or _count(magnitude >= edge) > self._kept(values):
                keep = _exact(magnitude, edge, self._kept(values), self._lead(values))
                del magnitude
                return self._note(torch.where(keep, values, 0))
            del magnitude
        if isinstance(self.threshold, torch.Tensor):
            return self._note(values.masked_fill(values.abs() < self.threshold.to(values), 0))
        return self._note(F.hardshrink(values, _below(self.threshold or 0.0, values)))

    def _refresh(self, magnitude: torch.Tensor) -> torch.Tensor:
        """Sets the threshold, and returns it by group, in a shape that broadcasts."""
        if magnitude.max().isnan():
            raise AccelsimError("must be numbers, has NaN")
        edge = _edges(magnitude, self._kept(magnitude), self._lead(magnitude))
        if edge.numel() == 1:
            self.threshold = float(edge)
        else:
            self.threshold = edge.mean(0, keepdim=True) if self.samples else edge
        return edge

    def _lead(self, values: torch.Tensor) -> int:
        return group_axes(self.scope, values.ndim)

    def _kept(self, values: torch.Tensor) -> int:
        """k: what a group keeps."""
        return kept(values.shape[self._lead(values) :].numel(), 1 - self.density)

    def _note(self, values: torch.Tensor) -> torch.Tensor:
        # On a GPU the count stays there until someone asks; bool first, since counting floats is slow on a CPU.
        self._nonzero, self._size = (values != 0).count_nonzero(), values.numel()
        return values


def _edges(magnitude: torch.Tensor, count: int, lead: int) -> torch.Tensor:
    """The k-th magnitude of each group, one axis of 1 for each that the group spans."""
    groups, ones = magnitude.shape[:lead], (1,) * (magnitude.ndim - lead)
    size = magnitude.shape[lead:].numel()
    if size <= 4 * SAMPLE and lead:
        # A k-th greatest is 0 by itself where fewer are non-zero.
        return _largest(magnitude.flatten(lead), count).reshape(*groups, *ones)
    rows = magnitude.flatten(0, lead - 1) if lead > 1 else magnitude if lead else [magnitude]
    return torch.stack([kth_magnitude(_flat(row), count) for row in rows]).reshape(*groups, *ones)


def _exact(magnitude: torch.Tensor, edge: torch.Tensor, count: int, lead: int) -> torch.Tensor:
    """Which elements are among the ``count`` greatest of their group, ties decided, zeros never."""
    axes, groups = tuple(range(lead, magnitude.ndim)), magnitude.shape[:lead]
    keep = magnitude > edge
    ties = (magnitude == edge) & (edge > 0)
    spare = (count - keep.count_nonzero(axes)).reshape(-1)
    if bool((ties.count_nonzero(axes).reshape(-1) <= spare).all()):
        return keep.logical_or_(ties)
    # In C order, whatever the memory format is, so that the rank within the group follows the index.
    at = ties.nonzero()
    group = torch.zeros_like(at[:, 0])
    for axis, length in enumerate(groups):
        group = group * length + at[:, axis]
    counts = group.bincount(minlength=groups.numel())
    rank = torch.arange(len(at), device=at.device) - (counts.cumsum(0) - counts)[group]
    keep[at[rank < spare[group]].unbind(1)] = True
    return keep


def _largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count``-th greatest along the last axis."""
    wide = values.float() if values.element_size() == 2 else values
    return wide.kthvalue(values.shape[-1] - count + 1).values.to(values.dtype)


def _flat(values: torch.Tensor) -> torch.Tensor:
    """All elements in the order of memory, without a copy where they lie densely."""
    return values.permute(sorted(range(values.ndim), key=lambda axis: -values.stride()[axis])).reshape(-1)


def _at(edge: float | torch.Tensor, values: torch.Tensor) -> float | torch.Tensor:
    return edge if isinstance(edge, float) else edge.to(values)


def _below(edge: float, values: torch.Tensor) -> float:
    """The greatest number of the tensor's dtype below an edge: hardshrink drops what is not above it, in one pass."""
    at = torch.tensor(edge, dtype=values.dtype)
    return float((at.view(BITS[values.element_size()]) - 1).view(values.dtype)) if at > 0 else 0.0


def _count(mask: torch.Tensor) -> int:
    return int(mask.count_nonzero())
