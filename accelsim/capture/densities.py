"""Counting the non-zeros of every tensor of a step, beside training, for a series: a hook a layer, no copies.

Tensors of the whole batch are counted where a layer multiplies them. SWAT's layers and their like hand theirs over
(``watch``); of other layers with a weight the first input, the weight and the gradient of the output are taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from accelsim.capture.swat_layers import SwatLayer
from accelsim.errors import TraceError
from accelsim.workload.series import SeriesWriter


@dataclass(frozen=True)
class SeriesOf:
    """What to keep of every step of a run, beside the few that are recorded whole.

    Parameters
    ----------
    path : path-like
        The series; one of the same run goes on.
    steps : int, collection of int, or callable
        Every so many, or which; a callable is asked for each number.
    steps_per_epoch : int, optional
    top_k_period : int, optional
        Iterations between exact thresholds, where Top-K searches for them.
    """

    path: str | os.PathLike[str]
    steps: int | Collection[int] | Callable[[int], bool] = 1
    steps_per_epoch: int | None = None
    top_k_period: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "steps_per_epoch", "top_k_period"):
            value = getattr(self, name)
            if isinstance(value, int) and (isinstance(value, bool) or value < 1):
                raise TraceError(f"series: {name}: must be 1 or more, got {value!r}")

    def wants(self, step: int) -> bool:
        """Whether a step is in it."""
        if callable(self.steps):
            return bool(self.steps(step))
        return step % self.steps == 0 if isinstance(self.steps, int) else step in self.steps

    def writer(self, **header: Any) -> SeriesWriter:
        """The file, begun or gone on with."""
        of_run = {"steps_per_epoch": self.steps_per_epoch, "top_k_period": self.top_k_period}
        return SeriesWriter(self.path, header | of_run)


class Counting:
    """Counts while it is attached to a model.

    Counts stay where the tensors are till ``counts`` asks for them, so that a GPU need not wait.
    """

    def __init__(self, model: torch.nn.Module):
        self._counts: dict[tuple[str, str], tuple[Any, int]] = {}
        self._arrived_last: dict[tuple[str, str], tuple[Any, int]] = {}
        self._handles: list[Any] = []
        self._watched: list[SwatLayer] = []
        for name, module in model.named_modules():
            label = name.replace("_orig_mod.", "") or type(module).__name__
            if isinstance(module, SwatLayer):
                module.watch = _Taker(self, label)
                self._watched.append(module)
            elif any(p.ndim > 1 for p in module.parameters(recurse=False)) and hasattr(module, "weight"):
                self._handles.append(module.register_forward_hook(self._hook(label)))
                continue
            else:
                continue
            self._handles.append(module.register_forward_hook(self._gradient_hook(label)))

    def remove(self) -> None:
        """Leave the model as it was."""
        while self._handles:
            self._handles.pop().remove()
        while self._watched:
            self._watched.pop().__dict__.pop("watch", None)

    @property
    def counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Non-zeros and size, by layer and tensor, in the order of the forward pass."""
        return {key: (int(nonzeros), size) for key, (nonzeros, size) in self._counts.items()}

    @torch.no_grad()
    def take(self, layer: str, tensor: str, values: torch.Tensor) -> None:
        """Count; of several calls of a layer all."""
        found = _nonzeros(values.detach())
        nonzeros, size = self._counts.get((layer, tensor), (0, 0))
        self._counts[layer, tensor] = found + nonzeros, size + values.numel()

    def replace_gradient(self, layer: str, values: torch.Tensor) -> None:
        """What a layer multiplies in place of the gradient that has just arrived."""
        key = layer, "gradient"
        if key in self._arrived_last:
            nonzeros, size = self._counts.pop(key)
            last, elements = self._arrived_last.pop(key)
            self._counts[key] = nonzeros - last, size - elements
        self.take(layer, "gradient", values)

    def _hook(self, label: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not inputs or not isinstance(inputs[0], torch.Tensor) or not isinstance(output, torch.Tensor):
                return
            if isinstance(module.weight, torch.Tensor):
                self.take(label, "weight", module.weight)
            if inputs[0].is_floating_point():  # not the indices of an embedding
                self.take(label, "activation", inputs[0])
            self._await(label, output)

        return hook

    def _gradient_hook(self, label: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            self._await(label, output)

        return hook

    def _await(self, label: str, output: torch.Tensor) -> None:
        if output.requires_grad:
            hook: Callable[[torch.Tensor], None] = partial(self._arrived, label)
            output.register_hook(hook)  # type: ignore[no-untyped-call]

    def _arrived(self, label: str, gradient: torch.Tensor) -> None:
        if self._handles:  # attached still
            nonzeros, size = self._counts.get((label, "gradient"), (0, 0))
            self.take(label, "gradient", gradient)
            now, elements = self._counts[label, "gradient"]
            self._arrived_last[label, "gradient"] = now - nonzeros, elements - size


class _Taker:
    """What a layer hands over; a gradient that it used in place of the one that arrives is counted instead."""

    def __init__(self, counting: Counting, label: str):
        self._counting, self._label = counting, label

    def __call__(self, tensor: str, values: torch.Tensor) -> None:
        if tensor == "gradient":
            self._counting.replace_gradient(self._label, values)
        else:
            self._counting.take(self._label, tensor, values)


def _nonzeros(values: torch.Tensor) -> Any:
    """How many there are: on a CPU at once, and three times as fast as PyTorch counts; elsewhere without waiting."""
    mask = values.bool()
    return np.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else mask.count_nonzero()
