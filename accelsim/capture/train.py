"""Training with SWAT, recorded: what ``accelsim capture`` runs. One model, one or more sparsities, one trace.

Each sparsity starts from the same weights, or from a checkpoint of its own, sees the same batches, and is a snapshot of
the trace for each recorded step, so that a trace with 0 % in it is all that a speedup needs. Section 4.1 of the paper
says how it trained.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accelsim.capture import checkpoint, models, quantise
from accelsim.capture.data import Dataset, open_dataset
from accelsim.capture.recorder import Recorder
from accelsim.capture.swat import Swat, SwatConfig, convert
from accelsim.errors import AccelsimError

SCHEDULES = ("constant", "cosine", "step")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """What to train, on what, and what to record of it.

    Parameters
    ----------
    model : str
        As ``accelsim.capture.models.build`` takes it.
    out : path-like
        The trace.
    data : path-like, optional
        As ``accelsim.capture.data.open_dataset`` takes it; by default synthetic images.
    weights : tuple of path-like
        Checkpoint to start from: one for all runs, or one for each sparsity; none: fresh weights.
    sparsities : tuple of float
        One training run for each; 0 is dense training.
    steps, batch : int
        Iterations of each run, and samples of each.
    record : tuple of int, optional
        Iterations to record, from 0; by default the last.
    samples : int
        Samples of the batch to keep.
    values, scales
        Numbers instead of masks, as ``Recorder`` has them.
    learning_rate, momentum, weight_decay, label_smoothing : float
        Of SGD and its loss.
    schedule : {"constant", "cosine", "step"}
        Of the learning rate: "step" divides it by 10 at each iteration in ``decay_at``. Over the first ``warmup``
        iterations it rises in a line.
    precision : {"fp32", "bf16"}
        "bf16" runs the model under autocast.
    device : str, optional
        By default CUDA where there is one.
    frozen : bool
        Forward and backward without an update: the weights stay as they are, zeros of a pruned checkpoint among them.
    swat : dict
        Keys of ``SwatConfig`` other than the sparsity.
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
    sparsities: tuple[float, ...] = (0.8,)
    steps: int = 10
    batch: int = 32
    record: tuple[int, ...] | None = None
    samples: int = 1
    values: bool | quantise.Values = False
    scales: quantise.Scales = "tensor"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    schedule: str = "constant"
    decay_at: tuple[int, ...] = ()
    warmup: int = 0
    precision: str = "fp32"
    device: str | None = None
    seed: int = 0
    num_classes: int | None = None
    image_size: int | None = None
    augment: bool = False
    force: bool = False
    frozen: bool = False
    network: str | None = None
    dataset: str | None = None
    swat: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("samples", 1), ("warmup", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise AccelsimError(f"{name}: must be {least} or more, got {getattr(self, name)}")
        for name in ("learning_rate", "momentum", "weight_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise AccelsimError(f"{name}: must be 0 or more, got {getattr(self, name)}")
        for name, known in (("schedule", SCHEDULES), ("precision", tuple(PRECISIONS))):
            if getattr(self, name) not in known:
                raise AccelsimError(f"{name}: must be one of {', '.join(known)}, got {getattr(self, name)}")
        quantise.check(self.values, self.scales)
        if not self.sparsities or len(set(self.sparsities)) < len(self.sparsities):
            raise AccelsimError(f"sparsity: must be different numbers in [0, 1), got {list(self.sparsities)}")
        if len(self.weights) not in (0, 1, len(self.sparsities)):
            raise AccelsimError(f"weights: must be one file, or one for each sparsity, got {len(self.weights)}")
        for sparsity in self.sparsities:
            SwatConfig(sparsity, **self.swat)
        for step in self.recorded_steps:
            if not 0 <= step < self.steps:
                raise AccelsimError(f"record: must be iterations in 0…{self.steps - 1}, got {step}")
        if self.samples > self.batch:
            raise AccelsimError(f"samples: must be at most the batch, {self.batch}, got {self.samples}")

    @property
    def recorded_steps(self) -> tuple[int, ...]:
        return (self.steps - 1,) if self.record is None else tuple(sorted(set(self.record)))

    def rate(self, step: int) -> float:
        """Learning rate of an iteration."""
        rate = self.learning_rate * min(1.0, (step + 1) / (self.warmup + 1))
        if self.schedule == "cosine":
            return rate * (1 + math.cos(math.pi * step / self.steps)) / 2
        if self.schedule == "step":
            return rate * 0.1 ** sum(step >= at for at in self.decay_at)
        return rate

    def snapshot(self, sparsity: float, step: int) -> str:
        """Name of a snapshot."""
        name = f"swat{100 * sparsity:g}" if sparsity else "dense"
        return name if len(self.recorded_steps) == 1 else f"{name}-step{step}"


@dataclass(frozen=True)
class Progress:
    """One iteration done.

    ``weight_sparsity`` is the share of zeros among all weights, ``activation_sparsity`` the mean share among saved
    activations over the layers that are not left dense; ``images_skipped`` counts those that did not open so far.
    """

    sparsity: float
    step: int
    steps: int
    loss: float
    accuracy: float
    weight_sparsity: float
    activation_sparsity: float
    seconds: float
    recorded: bool
    images_skipped: int


def capture(plan: Plan, tell: Callable[[Progress], None] = lambda progress: None) -> list[Progress]:
    """Trains and records; returns every iteration's progress.

    Raises
    ------
    AccelsimError
        For whatever is wrong with the model, the checkpoint, the data or the plan; or if training diverges.
    KeyboardInterrupt
        With what became of the trace: the steps recorded so far are in it.
    """
    device = _device(plan.device)
    dataset = open_dataset(
        plan.data,
        num_classes=plan.num_classes,
        shape=(3, plan.image_size, plan.image_size) if plan.image_size else None,
        seed=plan.seed,
    )
    torch.manual_seed(plan.seed)
    model = models.build(plan.model, dataset.num_classes)
    for file in plan.weights:  # all of them before anything is trained
        checkpoint.load(model, file)
    model = model.to(device)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    recorder = Recorder(
        model,
        plan.out,
        steps=plan.recorded_steps,
        samples=plan.samples,
        values=plan.values,
        scales=plan.scales,
        network=plan.network or plan.model,
        dataset=plan.dataset or _data_name(plan),
        force=plan.force,
        provenance=_provenance(plan, dataset, device),
    )
    history: list[Progress] = []
    try:
        with recorder:
            for run, sparsity in enumerate(plan.sparsities):
                model.load_state_dict(initial)
                if len(plan.weights) > 1:
                    checkpoint.load(model, plan.weights[run])
                for progress in _train(plan, sparsity, model, dataset, recorder, device):
                    history.append(progress)
                    tell(progress)
            recorder.provenance["images skipped"] = dataset.skipped
    except KeyboardInterrupt:
        held = ", ".join(recorder.recorded)
        raise KeyboardInterrupt(f"{plan.out} holds {held}" if held else "nothing was written") from None
    return history


def _train(
    plan: Plan, sparsity: float, model: nn.Module, dataset: Dataset, recorder: Recorder, device: torch.device
) -> Iterator[Progress]:
    """One run; yields each iteration's progress."""
    torch.manual_seed(plan.seed)
    model.train()
    optimizer = torch.optim.SGD(
        model.parameters(), plan.learning_rate, momentum=plan.momentum, weight_decay=plan.weight_decay
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=plan.label_smoothing)
    batches = dataset.steps(plan.batch, seed=plan.seed, augment=plan.augment)
    algorithm = _algorithm(plan, sparsity)
    with convert(model, SwatConfig(sparsity, **plan.swat)) if sparsity else contextlib.nullcontext() as swat:
        for step in range(plan.steps):
            images, labels = (tensor.to(device) for tensor in next(batches))
            start = time.perf_counter()
            name = plan.snapshot(sparsity, step)
            with recorder.step(step, name=name, sparsity=float(sparsity), algorithm=algorithm):
                for group in optimizer.param_groups:
                    group["lr"] = plan.rate(step)
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
                    outputs = model(images)
                loss = criterion(outputs.float(), labels)
                loss.backward()
                if not plan.frozen:
                    optimizer.step()
            if swat and not plan.frozen:
                swat.step(optimizer)
            if not math.isfinite(loss.item()):
                raise AccelsimError(
                    f"training diverged: loss is {loss.item()} at step {step}, sparsity {sparsity:g}; "
                    "a lower learning rate may help"
                )
            yield Progress(
                sparsity,
                step,
                plan.steps,
                loss.item(),
                (outputs.argmax(1) == labels).float().mean().item(),
                *_reached(swat),
                time.perf_counter() - start,
                step in plan.recorded_steps,
                dataset.skipped,
            )


def _reached(swat: Swat | None) -> tuple[float, float]:
    """Share of zeros among all weights, and the mean share among the saved activations of layers not left dense."""
    if swat is None:
        return 0.0, 0.0
    reached, densities = swat.sparsity(), swat.densities
    sizes = {name: swat.layers[name].weight.numel() for name in reached}
    zeros = sum(sizes[name] * (layer["weight"] or 0.0) for name, layer in reached.items())
    activations = [layer["activation"] or 0.0 for name, layer in reached.items() if densities[name][1] < 1]
    return zeros / sum(sizes.values()), sum(activations) / max(1, len(activations))


def _algorithm(plan: Plan, sparsity: float) -> str:
    """SWAT-U, SWAT-ERK or SWAT-M, as the paper calls them."""
    if not sparsity:
        return "dense"
    suffix = {"uniform": "U", "erk": "ERK", "momentum": "M"}[plan.swat.get("distribution", "uniform")]
    return f"SWAT-{suffix}" + (" (structured)" if plan.swat.get("structure") == "channel" else "")


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise AccelsimError(f"device: must be one that this machine has, got {name}: {error}") from error
    return device


def _provenance(plan: Plan, dataset: Dataset, device: torch.device) -> dict[str, Any]:
    """The plan in plain JSON, files by their names, and what it ran on; the command itself the recorder adds."""
    plain = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name not in ("out", "force", "data")}
    plain = {name: value.name if isinstance(value, Path) else value for name, value in plain.items()}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
    plain["weights"] = [file.name for file in plan.weights]
    return {
        "training": plain | {"data": _data_name(plan)},
        "images": len(dataset),
        "device": str(device),
        "torch": torch.__version__,
    }


def _data_name(plan: Plan) -> str:
    return plan.data.resolve().name if plan.data else "synthetic"


def last_of(history: list[Progress]) -> Iterator[Progress]:
    """The last iteration of each run."""
    for progress in history:
        if progress.step == progress.steps - 1:
            yield progress
