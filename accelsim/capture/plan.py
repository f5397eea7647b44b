"""What ``accelsim capture`` trains or only runs, on what, and what it records: checked before anything begins."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from accelsim.capture import algorithms, quantise
from accelsim.capture.algorithm import Algorithm
from accelsim.capture.swat import SwatConfig
from accelsim.errors import AccelsimError
from accelsim.workload import sparsify

SCHEDULES = ("constant", "cosine", "step")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Recipe:
    """How the weights are updated.

    Parameters
    ----------
    learning_rate, momentum, weight_decay, label_smoothing : float
        Of SGD and its loss.
    schedule : {"constant", "cosine", "step"}
        Of the learning rate: "step" divides it by 10 at each iteration in ``decay_at``. Over the first ``warmup``
        iterations it rises in a line.

    Raises
    ------
    AccelsimError
        If a value makes no sense.
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    schedule: str = "constant"
    decay_at: tuple[int, ...] = ()
    warmup: int = 0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "momentum", "weight_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise AccelsimError(f"{name}: must be 0 or more, got {getattr(self, name)}")
        if self.schedule not in SCHEDULES:
            raise AccelsimError(f"schedule: must be one of {', '.join(SCHEDULES)}, got {self.schedule}")
        if self.warmup < 0:
            raise AccelsimError(f"warmup: must be 0 or more, got {self.warmup}")

    def optimizer(self, model: torch.nn.Module, own: list[torch.nn.Parameter]) -> torch.optim.SGD:
        """Of a model, and of what its algorithm trains besides, without weight decay."""
        groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
        groups += [{"params": own, "weight_decay": 0.0}] if own else []
        return torch.optim.SGD(groups, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of an iteration of so many."""
        rate = self.learning_rate * min(1.0, (step + 1) / (self.warmup + 1))
        if self.schedule == "cosine":
            return rate * (1 + math.cos(math.pi * step / steps)) / 2
        if self.schedule == "step":
            return rate * 0.1 ** sum(step >= at for at in self.decay_at)
        return rate


@dataclass(frozen=True)
class Run:
    """One run of the model: from which weights, at which sparsity of Top-K, and the name of its snapshots."""

    weights: Path | None
    sparsity: float
    name: str


@dataclass(frozen=True)
class Plan:
    """What to run, on what, and what to record of it.

    Parameters
    ----------
    model : str
        As ``accelsim.capture.models.build`` takes it.
    out : path-like
        The trace.
    data : path-like, optional
        As ``accelsim.capture.data.open_dataset`` takes it; by default synthetic images.
    weights : tuple of path-like
        Checkpoints: one for all sparsities, one for each, or several to compare at one; none: fresh weights.
    sparsities : tuple of float, optional
        Of Top-K, one run for each; 0 is without. By default 0.8, and 0 where the weights are not updated.
    recipe : Recipe, optional
        How the weights are updated.
    frozen : bool, optional
        Forward and backward without an update: the weights stay as they are, zeros of a pruned checkpoint among them.
        By default so where weights are given and no recipe.
    steps : int, optional
        Iterations of each run; by default 10, and 1 where the weights are not updated.
    batch : int
        Samples of an iteration.
    record : tuple of int, optional
        Iterations to record, from 0; by default the last.
    samples : int
        Samples of the batch to keep.
    places : int, optional
        Of each sample at most so many places of a layer, as ``Selection`` has them.
    values, scales
        Numbers instead of masks, as ``Recorder`` has them.
    precision : {"fp32", "bf16"}
        "bf16" runs the model under autocast.
    device : str, optional
        By default CUDA where there is one.
    algorithm : str
        "swat", or one of ``accelsim.capture.algorithms.ALGORITHMS``.
    options : dict
        Of the algorithm; of SWAT keys of ``SwatConfig`` other than the sparsity.
    network, dataset : str, optional
        Names for the trace.

    Raises
    ------
    AccelsimError
        If a value makes no sense.
    """

    model: str
    out: Path
    data: Path | None = None
    weights: tuple[Path, ...] = ()
    sparsities: tuple[float, ...] | None = None
    recipe: Recipe | None = None
    frozen: bool | None = None
    steps: int | None = None
    batch: int = 32
    record: tuple[int, ...] | None = None
    samples: int = 1
    places: int | None = None
    values: bool | quantise.Values = False
    scales: quantise.Scales = "tensor"
    precision: str = "fp32"
    device: str | None = None
    seed: int = 0
    num_classes: int | None = None
    image_size: int | None = None
    augment: bool = False
    force: bool = False
    network: str | None = None
    dataset: str | None = None
    algorithm: str = "swat"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, got, least in (("steps", self.step_count, 1), ("batch", self.batch, 1), ("samples", self.samples, 1)):
            if got < least:
                raise AccelsimError(f"{name}: must be {least} or more, got {got}")
        if self.places is not None and self.places < 1:
            raise AccelsimError(f"places: must be 1 or more, got {self.places}")
        if self.seed < 0:
            raise AccelsimError(f"seed: must be 0 or more, got {self.seed}")
        if self.precision not in PRECISIONS:
            raise AccelsimError(f"precision: must be one of {', '.join(PRECISIONS)}, got {self.precision}")
        quantise.check(self.values, self.scales)
        if self.is_frozen and self.recipe is not None:
            raise AccelsimError("frozen: must be left out with a learning rate or the like, which is for training")
        self._check_runs()
        for step in self.recorded_steps:
            if not 0 <= step < self.step_count:
                raise AccelsimError(f"record: must be iterations in 0…{self.step_count - 1}, got {step}")
        if self.samples > self.batch:
            raise AccelsimError(f"samples: must be at most the batch, {self.batch}, got {self.samples}")

    def _check_runs(self) -> None:
        found = self.topk
        if not found or len(set(found)) < len(found):
            raise AccelsimError(f"sparsity: must be different numbers in [0, 1), got {list(found)}")
        if len(found) > 1 and len(self.weights) not in (0, 1, len(found)):
            rule = "must be one file, one for each sparsity, or several for one sparsity"
            raise AccelsimError(f"weights: {rule}, got {len(self.weights)} for {len(found)}")
        algorithms.check_options(self.kind, self.options)
        for sparsity in found:
            sparsify.check_sparsity(sparsity)
            if self.algorithm == "swat":
                SwatConfig(sparsity, **self.options)
        again = [name for name, count in Counter(run.name for run in self.runs).items() if count > 1]
        if again:
            raise AccelsimError(f"weights: must be files of different names, which their snapshots get, got {again[0]}")

    @property
    def kind(self) -> str:
        """The algorithm by name; SWAT's variants are its options."""
        return "swat-u" if self.algorithm == "swat" else self.algorithm

    def converted(self, model: torch.nn.Module, sparsity: float) -> Algorithm:
        """The model, to be trained by the algorithm."""
        return algorithms.build(self.kind, model, sparsity, steps=self.step_count, options=self.options)

    @property
    def is_frozen(self) -> bool:
        """Whether the weights are not updated."""
        return bool(self.weights) and self.recipe is None if self.frozen is None else self.frozen

    @property
    def step_count(self) -> int:
        """Iterations of each run."""
        return (1 if self.is_frozen else 10) if self.steps is None else self.steps

    @property
    def topk(self) -> tuple[float, ...]:
        """The sparsities of Top-K."""
        default = (0.0,) if self.is_frozen and self.weights else (0.8,)
        return default if self.sparsities is None else self.sparsities

    @property
    def runs(self) -> tuple[Run, ...]:
        """Each run of the model, in order."""
        found, files = self.topk, self.weights
        if len(found) == 1 < len(files):
            one = found[0]
            return tuple(Run(file, one, f"{file.stem}-{self._topk(one)}" if one else file.stem) for file in files)
        one_each = files if len(files) == len(found) else [files[0] if files else None] * len(found)
        as_it_is = self.is_frozen and bool(files)
        return tuple(
            Run(file, s, file.stem if file and as_it_is and not s else self._topk(s))
            for file, s in zip(one_each, found, strict=True)
        )

    @property
    def recorded_steps(self) -> tuple[int, ...]:
        """Iterations to record."""
        return (self.step_count - 1,) if self.record is None else tuple(sorted(set(self.record)))

    def snapshot(self, run: Run, step: int) -> str:
        """Name of a snapshot."""
        return run.name if len(self.recorded_steps) == 1 else f"{run.name}-step{step}"

    def _topk(self, sparsity: float) -> str:
        return f"{self.algorithm}{100 * sparsity:g}" if sparsity else "dense"
