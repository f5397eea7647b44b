"""Several algorithms on one network and the same batches: what ``accelsim reproduce algorithms`` trains.

Each run leaves a trace of a few steps, a series of all, and its accuracy on held-out images as it goes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accelsim.capture import algorithms, models
from accelsim.capture.algorithm import Algorithm
from accelsim.capture.data import Dataset, open_dataset
from accelsim.capture.densities import SeriesOf
from accelsim.capture.plan import Recipe
from accelsim.capture.quantise import Values
from accelsim.capture.recorder import Recorder
from accelsim.capture.selection import Selection
from accelsim.errors import AccelsimError

TORCH = torch.__version__.partition("+")[0]


@dataclass(frozen=True)
class Settings:
    """What to train.

    Parameters
    ----------
    model : str
    algorithms : dict
        Options by name; "dense" is without.
        An entry of another name says with ``is`` which algorithm it is, and may have ``sparsities`` of its own.
    sparsities : tuple of float
        Targets; dense runs once.
    steps, batch, held_out, samples, seed : int
    record, evaluate : tuple of int
        Iterations that are recorded whole, and after which accuracy is measured.
    values : bool or str
        Whether traces hold numbers, as ``Selection`` has it; bit-level machines need them.
    recipe : Recipe
    halve : bool
        Average 2×2 pixels.
    data : path-like, optional
        By default synthetic images.

    Raises
    ------
    AccelsimError
        If a value makes no sense.
    """

    model: str
    algorithms: dict[str, dict[str, Any]]
    sparsities: tuple[float, ...]
    steps: int
    batch: int
    record: tuple[int, ...]
    evaluate: tuple[int, ...]
    held_out: int = 500
    samples: int = 1
    values: bool | Values = False
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    halve: bool = False
    data: Path | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "held_out", "samples"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise AccelsimError(f"{name}: must be an integer from 1, got {value!r}")
        for name in ("record", "evaluate"):
            if not all(type(step) is int and 0 <= step < self.steps for step in getattr(self, name)):
                raise AccelsimError(f"{name}: must be iterations in 0…{self.steps - 1}, got {getattr(self, name)}")
        for name in self.algorithms:
            if name != "dense":
                algorithms.check_options(*self.of(name))

    def of(self, name: str) -> tuple[str, dict[str, Any]]:
        """Which algorithm an entry is, and its options."""
        options = self.algorithms[name]
        return str(options.get("is", name)), {k: v for k, v in options.items() if k not in ("is", "sparsities")}

    @classmethod
    def read(cls, told: Mapping[str, Any], **other: Any) -> Settings:
        """From plain data, as a YAML file says it; AccelsimError where a key is unknown or missing."""
        known = {f.name for f in fields(cls)}
        given = {**told, **{key: value for key, value in other.items() if value is not None}}
        for key in given:
            if key not in known:
                raise AccelsimError(f"{key}: unknown key; known are {', '.join(sorted(known))}")
        for key in ("model", "algorithms", "sparsities", "steps", "batch", "record", "evaluate"):
            if key not in given:
                raise AccelsimError(f"{key}: must be given")
        for key in ("sparsities", "record", "evaluate"):
            given[key] = tuple(given[key])
        given["algorithms"] = {name: dict(options or {}) for name, options in given["algorithms"].items()}
        return cls(**given | {"recipe": Recipe(**given.get("recipe", {}))})

    def shortened(self, steps: int) -> Settings:
        """With so many iterations; what is recorded and evaluated, and what options count in steps, in proportion."""
        scale = steps / self.steps

        def at(those: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(sorted({max(0, round((step + 1) * scale) - 1) for step in those}))

        options = {
            name: {k: max(1, round(v * scale)) if k in ("every", "freeze_after") else v for k, v in given.items()}
            for name, given in self.algorithms.items()
        }
        return replace(self, steps=steps, algorithms=options, record=at(self.record), evaluate=at(self.evaluate))

    @property
    def runs(self) -> list[tuple[str, float]]:
        """Algorithm and sparsity of each run."""
        wanted = {name: of.get("sparsities", self.sparsities) for name, of in self.algorithms.items()}
        every = dict.fromkeys(s for sparsities in wanted.values() for s in sparsities)
        dense = [("dense", 0.0)] if "dense" in wanted else []
        return dense + [(name, s) for s in every for name in wanted if name != "dense" and s in wanted[name]]


@dataclass(frozen=True)
class Trained:
    """One run: its label, what it was, accuracy and loss by step, CPU seconds."""

    label: str
    algorithm: str
    title: str
    sparsity: float
    accuracy: dict[int, float]
    loss: dict[int, float]
    seconds: float


def train_all(settings: Settings, folder: Path, tell: Callable[[int, int], None]) -> list[Trained]:
    """Trains every run that is not in the folder yet; each leaves LABEL.npz, LABEL.series and LABEL.json there.

    Raises
    ------
    AccelsimError
        For whatever is wrong with the settings or the data, or if a run diverges.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on small maps more only cost
    try:
        return [*_trained(settings, folder, tell)]
    finally:
        torch.set_num_threads(threads)


def _trained(settings: Settings, folder: Path, tell: Callable[[int, int], None]) -> Iterator[Trained]:
    learn, test = _halves(settings)
    done, whole = 0, len(settings.runs) * settings.steps
    for name, sparsity in settings.runs:
        label = name if name == "dense" else f"{name}{100 * sparsity:g}"
        told = folder / f"{label}.json"
        of = json.loads(json.dumps(asdict(settings), default=str)) | {"algorithms": settings.algorithms[name]}
        held = json.loads(told.read_text()) if told.exists() else {}
        if held.get("settings") != of:
            run = _Run(settings, name, sparsity, label, folder)
            result = run.train(learn, test, partial(_told, tell, done, whole))
            told.write_text(json.dumps({"settings": of, "run": asdict(result)}))
            held = json.loads(told.read_text())
        done += settings.steps
        tell(done, whole)
        run_of = held["run"]
        curves = {key: {int(step): value for step, value in run_of[key].items()} for key in ("accuracy", "loss")}
        yield Trained(**run_of | curves)


def _told(tell: Callable[[int, int], None], before: int, whole: int, step: int) -> None:
    tell(before + step, whole)


def _halves(settings: Settings) -> tuple[Dataset, Dataset]:
    """What to learn from, and what is held out: another part of the data."""
    if settings.data is None:
        sets = (open_dataset(split=s, seed=settings.seed, length=n) for s, n in (("train", 4000), ("test", 500)))
        learn, test = sets
        return learn, test
    everything = open_dataset(settings.data)
    n = len(everything) - settings.held_out
    if n < settings.batch:
        raise AccelsimError(f"{everything.name}: must have more than {settings.held_out} images to hold out, has {n}")
    rest = replace(everything, labels=everything.labels[n:], read=lambda i, draw: everything.read(n + i, draw))
    return replace(everything, labels=everything.labels[:n]), rest


@dataclass(frozen=True)
class _Run:
    settings: Settings
    name: str
    sparsity: float
    label: str
    folder: Path

    def train(self, learn: Dataset, test: Dataset, tell: Callable[[int], None]) -> Trained:
        s = self.settings
        torch.manual_seed(s.seed)
        model = models.build(s.model, learn.num_classes)
        begun = time.process_time()
        accuracy: dict[int, float] = {}
        loss: dict[int, float] = {}
        examples = [self._input(images, labels) for images, labels in test.batches(100, shuffle=False)]
        (self.folder / f"{self.label}.series").unlink(missing_ok=True)
        with self._converted(model) as algorithm, self._recorder(model, len(learn)) as recorder:
            for step, value in self._steps(model, algorithm, recorder, learn):
                loss[step] = value
                if step in s.evaluate:
                    accuracy[step] = _accuracy(model, examples)
                    recorder.note(accuracy=accuracy[step])
                tell(step)
        title = self._title
        seconds = time.process_time() - begun
        return Trained(self.label, self._kind, title, self.sparsity, accuracy, loss, seconds)

    def _steps(
        self, model: nn.Module, algorithm: Algorithm | None, recorder: Recorder, learn: Dataset
    ) -> Iterator[tuple[int, float]]:
        s = self.settings
        optimizer = s.recipe.optimizer(model, algorithm.parameters() if algorithm else [])
        batches = learn.steps(s.batch, seed=s.seed)
        for step in range(s.steps):
            images, labels = self._input(*next(batches))
            with recorder.step(step):
                for group in optimizer.param_groups:
                    group["lr"] = s.recipe.rate(step, s.steps)
                optimizer.zero_grad(set_to_none=True)
                loss = F.cross_entropy(model(images), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                if algorithm:
                    algorithm.before_update(optimizer)
                optimizer.step()
                value = float(loss.detach())
                recorder.note(loss=value)
            if algorithm:
                algorithm.step(optimizer)
            if not math.isfinite(value):
                raise AccelsimError(f"{self.label}: training diverged at step {step}; a lower learning rate may help")
            yield step, value

    @property
    def _kind(self) -> str:
        return "dense" if self.name == "dense" else self.settings.of(self.name)[0]

    @property
    def _title(self) -> str:
        return "dense" if self.name == "dense" else algorithms.known(self._kind).title

    def _converted(self, model: nn.Module) -> Any:
        if self.name == "dense":
            return nullcontext()
        kind, options = self.settings.of(self.name)
        return algorithms.build(kind, model, self.sparsity, steps=self.settings.steps, options=options)

    def _recorder(self, model: nn.Module, images: int) -> Recorder:
        s = self.settings
        period = s.algorithms[self.name].get("period", 1) if self._kind.startswith(("swat", "saw")) else None
        per_epoch = max(1, images // s.batch)
        return Recorder(
            model, self.folder / f"{self.label}.npz", steps=set(s.record), force=True, network=s.model,
            keep=Selection(s.samples, values=s.values),
            dataset="synthetic" if s.data is None else s.data.stem, name=f"{self.label}-step{{step}}",
            sparsity=self.sparsity, algorithm=self._title,
            series=SeriesOf(self.folder / f"{self.label}.series", steps_per_epoch=per_epoch, top_k_period=period),
        )  # fmt: skip

    def _input(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return (F.avg_pool2d(images, 2) if self.settings.halve else images), labels


@torch.no_grad()
def _accuracy(model: nn.Module, examples: list[tuple[Tensor, Tensor]]) -> float:
    model.eval()
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in examples)
    model.train()
    return right / sum(len(labels) for _, labels in examples)
