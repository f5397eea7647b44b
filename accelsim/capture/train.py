"""Training with SWAT or another algorithm, recorded: what ``accelsim capture`` runs. One model, a few runs, one trace.

Each run starts from the same weights, or from a checkpoint of its own, sees the same batches, and is a snapshot of
the trace for each recorded step, so that a trace with 0 % in it is all that a speedup needs. A checkpoint without a
recipe is not trained: its forward and backward pass are recorded as it is. Section 4.1 of the paper says how it
trained.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accelsim.capture import algorithms, checkpoint, models
from accelsim.capture.algorithm import Algorithm
from accelsim.capture.data import Dataset, open_dataset
from accelsim.capture.plan import Plan, Recipe, Run
from accelsim.capture.recorder import Recorder
from accelsim.capture.selection import Selection
from accelsim.errors import AccelsimError


@dataclass(frozen=True)
class Progress:
    """One iteration done.

    ``snapshot`` is its name in the trace if it was recorded, ``weights`` the checkpoint that its run began with, and
    ``zeros_before`` the share of zeros that this had among its weights.

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
    snapshot: str
    weights: str | None
    zeros_before: float


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
    told = {file.name: list(checkpoint.load(model, file).told) for file in plan.weights}  # before anything is run
    model = model.to(device)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    recorder = Recorder(
        model,
        plan.out,
        steps=plan.recorded_steps,
        keep=Selection(plan.samples, values=plan.values, scales=plan.scales, places=plan.places),
        network=plan.network or plan.model,
        dataset=plan.dataset or _data_name(plan),
        force=plan.force,
        provenance=_provenance(plan, dataset, device) | ({"checkpoints": told} if told else {}),
    )
    history: list[Progress] = []
    try:
        with recorder:
            for run in plan.runs:
                model.load_state_dict(initial)
                if len(plan.weights) > 1 and run.weights:
                    checkpoint.load(model, run.weights)
                for progress in _train(plan, run, model, dataset, recorder, device):
                    history.append(progress)
                    tell(progress)
            recorder.provenance["images skipped"] = dataset.skipped
    except KeyboardInterrupt:
        held = ", ".join(recorder.recorded)
        raise KeyboardInterrupt(f"{plan.out} holds {held}" if held else "nothing was written") from None
    return history


def _train(
    plan: Plan, run: Run, model: nn.Module, dataset: Dataset, recorder: Recorder, device: torch.device
) -> Iterator[Progress]:
    """One run; yields each iteration's progress."""
    torch.manual_seed(plan.seed)
    model.train()
    recipe, sparsity = plan.recipe or Recipe(), run.sparsity
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    batches = dataset.steps(plan.batch, seed=plan.seed, augment=plan.augment)
    had = checkpoint.zeros(model) if run.weights else 0.0
    how = _labels(plan, run, had)
    with plan.converted(model, sparsity) if sparsity else nullcontext() as algorithm:
        optimizer = recipe.optimizer(model, algorithm.parameters() if algorithm else [])
        for step in range(plan.step_count):
            images, labels = (tensor.to(device) for tensor in next(batches))
            start = time.perf_counter()
            with recorder.step(step, name=plan.snapshot(run, step), **how):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate(step, plan.step_count)
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
                    outputs = model(images)
                loss = criterion(outputs.float(), labels)
                loss.backward()
                if algorithm and not plan.is_frozen:
                    algorithm.before_update(optimizer)
                if not plan.is_frozen:
                    optimizer.step()
            if algorithm and not plan.is_frozen:
                algorithm.step(optimizer)
            if not math.isfinite(loss.item()):
                raise AccelsimError(
                    f"training diverged: loss is {loss.item()} at step {step}, sparsity {sparsity:g}; "
                    "a lower learning rate may help"
                )
            yield Progress(
                sparsity,
                step,
                plan.step_count,
                loss.item(),
                (outputs.argmax(1) == labels).float().mean().item(),
                *_reached(algorithm),
                time.perf_counter() - start,
                step in plan.recorded_steps,
                dataset.skipped,
                plan.snapshot(run, step),
                run.weights.name if run.weights else None,
                had,
            )


def _labels(plan: Plan, run: Run, zeros: float) -> dict[str, Any]:
    """Sparsity and algorithm of a run's snapshots. A checkpoint as it is has the sparsity of its weights."""
    if plan.is_frozen and run.weights and not run.sparsity:
        share = min(round(zeros, 3), 0.999)
        return {"sparsity": share, "algorithm": "pruned checkpoint" if share else "checkpoint"}
    return {"sparsity": float(run.sparsity), "algorithm": _algorithm(plan, run.sparsity)}


def _reached(algorithm: Algorithm | None) -> tuple[float, float]:
    """Share of zeros among all weights, and the mean share among the saved activations of layers not left dense."""
    if algorithm is None:
        return 0.0, 0.0
    reached = algorithm.sparsity()
    sizes = {name: math.prod(shape) for name, shape in algorithm.shapes.items()}
    zeros = sum(sizes[name] * (layer["weight"] or 0.0) for name, layer in reached.items())
    activations = [layer["activation"] or 0.0 for layer in reached.values() if layer["weight"]]
    return zeros / sum(sizes.values()), sum(activations) / max(1, len(activations))


def _algorithm(plan: Plan, sparsity: float) -> str:
    """As a trace calls it; SWAT-U, SWAT-ERK or SWAT-M, as the paper calls them."""
    if not sparsity:
        return "dense"
    if plan.algorithm != "swat":
        return algorithms.known(plan.algorithm).title
    suffix = {"uniform": "U", "erk": "ERK", "momentum": "M"}[plan.options.get("distribution", "uniform")]
    return f"SWAT-{suffix}" + (" (structured)" if plan.options.get("structure") == "channel" else "")


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
    plain |= {"sparsities": list(plan.topk), "frozen": plan.is_frozen, "steps": plan.step_count}
    plain["recipe"] = None if plan.is_frozen else asdict(plan.recipe or Recipe())
    return {
        "training": plain | {"data": _data_name(plan)},
        "images": len(dataset),
        "device": str(device),
        "torch": torch.__version__,
    }


def _data_name(plan: Plan) -> str:
    return plan.data.resolve().name if plan.data else "synthetic"
