"""Several algorithms on one network and the same batches: what ``accelsim reproduce algorithms`` trains.

Each run leaves a trace of a few steps, a series of all, and its accuracy on held-out images as it goes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
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
from accelsim.capture.swat import Swat
from accelsim.errors import AccelsimError

TORCH = torch.__version__.partition("+")[0]
COUNTED = ("every", "freeze_after", "period")  # options of algorithms that are numbers of iterations
THRESHOLD = "threshold "  # of a layer, as notes of a series begin


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
    steps, batch, held_out, samples : int
    seeds : int
        Trainings of each run, from other first weights and on other batches. The first is recorded, the others say how
        far accuracies scatter.
    record, evaluate : tuple of int
        Iterations that are recorded whole, and after which accuracy is measured.
    values : bool or str
        Whether traces hold numbers, as ``Selection`` has it; bit-level machines need them.
    recipe : Recipe
    halve : bool
        Average 2×2 pixels.
    noise : float
        Standard deviation of what is added to synthetic images, which are learnt in 50 steps without.
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
    seeds: int = 1
    recipe: Recipe = field(default_factory=Recipe)
    halve: bool = False
    noise: float = 0.0
    data: Path | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "held_out", "samples", "seeds"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise AccelsimError(f"{name}: must be an integer from 1, got {value!r}")
        for name in ("record", "evaluate"):
            if not all(type(step) is int and 0 <= step < self.steps for step in getattr(self, name)):
                raise AccelsimError(f"{name}: must be iterations in 0…{self.steps - 1}, got {getattr(self, name)}")
        if isinstance(self.noise, bool) or not 0 <= self.noise < math.inf:
            raise AccelsimError(f"noise: must be a number from 0, got {self.noise!r}")
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
            name: {k: max(1, round(v * scale)) if k in COUNTED else v for k, v in given.items()}
            for name, given in self.algorithms.items()
        }
        return replace(self, steps=steps, algorithms=options, record=at(self.record), evaluate=at(self.evaluate))

    @property
    def runs(self) -> list[tuple[str, float]]:
        """Entry and sparsity of each run."""
        wanted = {name: of.get("sparsities", self.sparsities) for name, of in self.algorithms.items()}
        every = dict.fromkeys(s for sparsities in wanted.values() for s in sparsities)
        dense = [("dense", 0.0)] if "dense" in wanted else []
        return dense + [(name, s) for s in every for name in wanted if name != "dense" and s in wanted[name]]


@dataclass(frozen=True)
class Trained:
    """One training: the run that it is of, what that was, accuracy and loss by step, CPU seconds."""

    label: str
    algorithm: str
    title: str
    sparsity: float
    seed: int
    accuracy: dict[int, float]
    loss: dict[int, float]
    seconds: float


def train_all(settings: Settings, folder: Path, tell: Callable[[int, int], None]) -> list[Trained]:
    """Trains every run that is not in the folder yet, with every seed.

    The first seed leaves LABEL.npz, LABEL.series and LABEL.json there, each other one LABEL-seedN.json.

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
    every = [(run, seed) for run in settings.runs for seed in range(settings.seeds)]
    done, whole = 0, len(every) * settings.steps
    for (name, sparsity), seed in every:
        run = _Run(settings, name, sparsity, seed, folder)
        held = run.held()
        if held is None:
            run.keep(run.train(learn, test, partial(_told, tell, done, whole)))
            held = run.held()
        done += settings.steps
        tell(done, whole)
        if held is not None:
            yield held


def _told(tell: Callable[[int, int], None], before: int, whole: int, step: int) -> None:
    tell(before + step, whole)


def _halves(settings: Settings) -> tuple[Dataset, Dataset]:
    """What to learn from, and what is held out: another part of the data."""
    if settings.data is None:
        sets = (open_dataset(split=s, length=n) for s, n in (("train", 4000), ("test", settings.held_out)))
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
    seed: int
    folder: Path

    @property
    def label(self) -> str:
        return self.name if self.name == "dense" else f"{self.name}{100 * self.sparsity:g}"

    def held(self) -> Trained | None:
        """What an earlier command trained by the same settings."""
        path = self._told
        held = json.loads(path.read_text()) if path.exists() else {}
        if held.get("settings") != self._of:
            return None
        curves = {k: {int(step): value for step, value in held["run"][k].items()} for k in ("accuracy", "loss")}
        return Trained(**held["run"] | curves)

    def keep(self, trained: Trained) -> None:
        self._told.write_text(json.dumps({"settings": self._of, "run": asdict(trained)}))

    @property
    def _told(self) -> Path:
        return self.folder / (f"{self.label}-seed{self.seed}.json" if self.seed else f"{self.label}.json")

    @property
    def _of(self) -> dict[str, Any]:
        """The settings that this training depends on."""
        told: dict[str, Any] = json.loads(json.dumps(asdict(self.settings), default=str))
        return told | {"algorithms": self.settings.algorithms[self.name], "seeds": None}

    def train(self, learn: Dataset, test: Dataset, tell: Callable[[int], None]) -> Trained:
        s = self.settings
        torch.manual_seed(self.seed)
        model = models.build(s.model, learn.num_classes)
        begun = time.process_time()
        accuracy: dict[int, float] = {}
        loss: dict[int, float] = {}
        held_out = enumerate(test.batches(100, shuffle=False, drop_last=False), s.steps)
        examples = [(self._input(images, number), labels) for number, (images, labels) in held_out]
        with self._converted(model) as algorithm, self._recorder(model, len(learn)) as recorder:
            for step, value in self._steps(model, algorithm, recorder, learn):
                loss[step] = value
                if step in s.evaluate:
                    accuracy[step] = _accuracy(model, examples)
                    recorder.note(accuracy=accuracy[step])
                tell(step)
        seconds = time.process_time() - begun
        return Trained(self.label, self._kind, self._title, self.sparsity, self.seed, accuracy, loss, seconds)

    def _steps(
        self, model: nn.Module, algorithm: Algorithm | None, recorder: Recorder | _Unrecorded, learn: Dataset
    ) -> Iterator[tuple[int, float]]:
        s = self.settings
        optimizer = s.recipe.optimizer(model, algorithm.parameters() if algorithm else [])
        batches = learn.steps(s.batch, seed=self.seed)
        for step in range(s.steps):
            images, labels = next(batches)
            images = self._input(images, step)
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
                recorder.note(loss=value, **(_thresholds(algorithm) if isinstance(algorithm, Swat) else {}))
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

    def _recorder(self, model: nn.Module, images: int) -> Recorder | _Unrecorded:
        if self.seed:
            return _Unrecorded()
        s = self.settings
        period = s.algorithms[self.name].get("period", 1) if self._kind.startswith(("swat", "saw")) else None
        per_epoch = max(1, images // s.batch)
        (self.folder / f"{self.label}.series").unlink(missing_ok=True)
        whole = set(s.record) or {s.steps}  # which never comes
        return Recorder(
            model, self.folder / f"{self.label}.npz", steps=whole, force=True, network=s.model,
            keep=Selection(s.samples, values=s.values),
            dataset="synthetic" if s.data is None else s.data.stem, name=f"{self.label}-step{{step}}",
            sparsity=self.sparsity, algorithm=self._title,
            series=SeriesOf(self.folder / f"{self.label}.series", steps_per_epoch=per_epoch, top_k_period=period),
        )  # fmt: skip

    def _input(self, images: Tensor, number: int) -> Tensor:
        """What the network sees of a batch; its number decides the noise."""
        s = self.settings
        images = F.avg_pool2d(images, 2) if s.halve else images
        if s.data is not None or not s.noise:
            return images
        draw = torch.Generator().manual_seed(1_000_000 * self.seed + number)
        return images + s.noise * torch.randn(images.shape, generator=draw)


class _Unrecorded:
    """In a recorder's place where only accuracy is asked for."""

    def step(self, step: int) -> AbstractContextManager[None]:
        return nullcontext()

    def note(self, **notes: float) -> None:
        """Nowhere."""

    def __enter__(self) -> _Unrecorded:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""


def _thresholds(algorithm: Swat) -> dict[str, float]:
    """Of each layer's weights, as noted in the series: what Figure 4 of the paper shows."""
    of = {name: state.weight.threshold for name, state in algorithm.states.items()}
    return {f"{THRESHOLD}{name}": t for name, t in of.items() if isinstance(t, float)}


@torch.no_grad()
def _accuracy(model: nn.Module, examples: list[tuple[Tensor, Tensor]]) -> float:
    model.eval()
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in examples)
    model.train()
    return right / sum(len(labels) for _, labels in examples)
