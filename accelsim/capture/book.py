"""What of a step is written: layers as they are seen, and the count of everything, stored or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from accelsim.capture.grids import Grids
from accelsim.capture.products import Form
from accelsim.capture.quantise import quantised
from accelsim.capture.selection import Selection
from accelsim.errors import TraceError
from accelsim.workload.metadata import PASSES
from accelsim.workload.npz import blame
from accelsim.workload.series import SeriesWriter
from accelsim.workload.trace_writer import TraceWriter

STORED = (torch.float16, torch.bfloat16, torch.float32)  # floating-point numbers that a trace holds as they are


class Keeper(Protocol):
    """What a step asks of the recorder that keeps it."""

    keep: Selection
    batch_dim: int | None
    model: torch.nn.Module
    provenance: dict[str, Any]
    recorded: list[str]
    under_way: Any

    def writer(self) -> TraceWriter:
        """The trace, open."""

    def series_file(self, entry: dict[str, Any]) -> SeriesWriter:
        """The series, open."""

    def end_step(self) -> None:
        """The step under way is complete."""

    def abandon_step(self) -> None:
        """What was recorded of the step under way is forgotten."""


class Book:
    """The snapshot under way.

    Parameters
    ----------
    keeper : Keeper
        What to keep, and where.
    entry : dict
        Of the snapshot.
    """

    def __init__(self, keeper: Keeper, entry: dict[str, Any]):
        self._keeper, self._entry, self._name = keeper, entry, entry["name"]
        self._writer: TraceWriter | None = None
        self._calls: Counter[str] = Counter()
        self._passes: dict[str, list[str]] = {}
        self._tensors: set[tuple[str, str]] = set()
        self._scales: dict[str, dict[str, list[float]]] = {}
        self.grids = Grids()
        self.multiplications = 0
        self.not_stored: Counter[str] = Counter()

    @property
    def _open(self) -> TraceWriter:
        if self._writer is None:
            raise TraceError(f"{self._name}: a layer must have begun")
        return self._writer

    @property
    def is_empty(self) -> bool:
        """Whether no layer has begun."""
        return self._writer is None

    def leave(self, reason: str, operation: str, multiplications: int) -> None:
        """Count what is not stored, and why."""
        if multiplications:
            self.not_stored[f"{operation}: {reason}"] += multiplications

    def reason_against(self, name: str) -> str | None:
        """Why the next product of that name is not wanted, if it is not."""
        if not self._keeper.keep.wants(name):
            return "left out by layers or skip"
        most = self._keeper.keep.calls
        return "left out by calls" if most is not None and self._calls[name] >= most else None

    def begin(self, name: str, form: Form, batch: int, which: str) -> str:
        """A layer with its first pass; gives its name in the trace."""
        if self._writer is None:
            writer = self._keeper.writer()
            writer.snapshot(**self._entry, batch=batch)
            self._say_drawn(batch)
            self._writer = writer
        self._calls[name] += 1
        layer = name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"
        how: dict[str, Any] = {
            "kind": form.kind,
            "geometry": form.geometry,
            "batch": form.batch,
            "samples": form.samples,
            "part": form.part,
        }
        self._writer.layer(layer, passes=[which], **how)
        self._passes[layer] = [which]
        return layer

    def _say_drawn(self, batch: int) -> None:
        """Samples drawn at random are not known otherwise."""
        if self._keeper.keep.seed is not None:
            chosen = list(self._keeper.keep.of(batch, self._entry["step"]))
            self._keeper.provenance["recorder"].setdefault("samples", {})[self._name] = chosen

    def ran(self, layer: str, which: str) -> bool:
        """A pass of a layer ran; False if it did before."""
        if which in self._passes[layer]:
            return False
        self._passes[layer].append(which)
        self._open.passes(layer, [name for name in PASSES if name in self._passes[layer]])
        return True

    def write(self, layer: str, name: str, tensor: torch.Tensor) -> None:
        """A tensor of a layer in its form; again, do nothing."""
        if (layer, name) in self._tensors:
            return
        self._tensors.add((layer, name))
        with blame(f"{self._name}/{layer}/{name}"):
            if tensor.is_complex() or tensor.layout is not torch.strided:
                raise TraceError(f"must be dense and real, got {tensor.dtype}, {tensor.layout}")
            if not self._keeper.keep.allow_nan and tensor.is_floating_point() and tensor.amin().isnan():
                raise TraceError("must be numbers, has NaN, which is not zero; Selection(allow_nan=True) records it")
        keep = self._keeper.keep
        with blame(f"{self._name}/{layer}/{name}"):
            tensor, scales = quantised(tensor, keep.values, keep.scales, name, self.grids)
        array, bfloat16 = as_array(tensor, bool(keep.values))
        self._open.tensor(name, array, layer=layer, bfloat16=bfloat16)
        if scales is not None:
            self._scales.setdefault(layer, {})[name] = [float(f"{scale:.9g}") for scale in scales.tolist()]

    def complete(self, opaque: Sequence[str]) -> None:
        """The step is over: say what it was of the whole."""
        self._open.coverage(self.multiplications, self.not_stored)
        if self._scales:
            self._keeper.provenance["recorder"].setdefault("scales", {})[self._name] = self._scales
        if opaque:
            self._keeper.provenance["recorder"].setdefault("not_counted", {})[self._name] = list(opaque)

    def abandon(self) -> None:
        """Forget it."""
        if self._writer is not None:
            self._writer.abandon_snapshot()
            self._writer = None


def as_array(tensor: torch.Tensor, values: bool) -> tuple[np.ndarray, bool]:
    """A mask, or the values, for :meth:`TraceWriter.tensor`, and whether these are the bits of bfloat16 numbers.

    Never NumPy's view of storage that is the user's, which could not be resized any more, as FSDP2 does.
    """
    if not values:
        return (tensor != 0).contiguous().cpu().numpy(), False
    dtype = tensor.dtype if not tensor.is_floating_point() or tensor.dtype in STORED else torch.float32
    tensor = tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16), True
    return tensor.numpy(), False
