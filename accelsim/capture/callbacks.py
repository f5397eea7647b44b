"""A Recorder in the training loops of libraries: Lightning, the Trainer of Hugging Face, accelerate.

Nothing of them is imported before one of these functions is called. In a run of several processes each writes a trace
of its share of the batch, ``mine-rank0.npz``, ``mine-rank1.npz``, …, which ``accelsim merge`` joins.

>>> trainer = lightning.Trainer(callbacks=[lightning_callback("mine.npz", steps={100})])  # doctest: +SKIP
>>> trainer = transformers.Trainer(model, callbacks=[trainer_callback("mine.npz", steps={100})])  # doctest: +SKIP
>>> recorder = accelerate_recorder(accelerator, model, "mine.npz", steps={100})  # doctest: +SKIP
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from accelsim.capture.recorder import Recorder
from accelsim.errors import AccelsimError


def rank_path(path: str | os.PathLike[str], rank: int, count: int) -> Path:
    """Where a process of so many writes its trace."""
    path = Path(path)
    return path if count < 2 else path.with_name(f"{path.stem}-rank{rank}{path.suffix}")


def lightning_callback(path: str | os.PathLike[str], **options: Any) -> Any:
    """For ``lightning.Trainer(callbacks=[…])``.

    A step is an optimizer's step: of accumulated batches all, numbered as ``trainer.global_step`` before it.

    Parameters
    ----------
    path : path-like
        The trace.
    **options
        Of :class:`Recorder`, ``steps`` among them.

    Raises
    ------
    AccelsimError
        If Lightning is not installed; or, while training, as :class:`Recorder`.
    """
    base = _base("Callback", "lightning.pytorch", "pytorch_lightning", install="lightning")
    made: Any = type("RecorderCallback", (_LightningHooks, base), {})
    return made(path, options)


def trainer_callback(path: str | os.PathLike[str], **options: Any) -> Any:
    """For ``transformers.Trainer(callbacks=[…])``; steps are numbered as ``state.global_step`` before each.

    Parameters and errors are those of :func:`lightning_callback`.
    """
    base = _base("TrainerCallback", "transformers", install="transformers")
    made: Any = type("RecorderCallback", (_TrainerHooks, base), {})
    return made(path, options)


def accelerate_recorder(
    accelerator: Any, model: torch.nn.Module, path: str | os.PathLike[str], **options: Any
) -> Recorder:
    """A Recorder of a model that ``accelerator.prepare`` gave, in a file of this process; use it as any other.

    Parameters
    ----------
    accelerator : accelerate.Accelerator
    model : Module
    path, **options
        As for :func:`lightning_callback`.
    """
    own = rank_path(path, accelerator.process_index, accelerator.num_processes)
    return Recorder(accelerator.unwrap_model(model), own, **options)


def _base(name: str, *modules: str, install: str) -> Any:
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name != module.split(".")[0]:
                raise
    raise AccelsimError(f"{name} needs {install}: pip install {install}")


class _Hooks:
    """Begins and ends the steps of a recorder, which is made when training begins."""

    def __init__(self, path: str | os.PathLike[str], options: dict[str, Any]):
        super().__init__()
        self.path, self.options = path, options
        self.recorder: Recorder | None = None

    def begin(self, model: torch.nn.Module, rank: int, count: int) -> None:
        """Training begins."""
        self.recorder = Recorder(model, rank_path(self.path, rank, count), **self.options)

    def step(self, number: int) -> None:
        """Iteration ``number`` begins, or goes on."""
        recorder = self.recorder
        if recorder is not None and (recorder.under_way is None or recorder.number != number):
            recorder.step(number)

    def end_step(self) -> None:
        """The iteration is complete."""
        if self.recorder is not None:
            self.recorder.end_step()

    def end(self, *, completed: bool) -> None:
        """Training ends; what was recorded is written."""
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.close() if completed else recorder.__exit__(RuntimeError)


class _LightningHooks(_Hooks):
    """What Lightning calls."""

    def on_train_start(self, trainer: Any, pl_module: torch.nn.Module) -> None:
        """Training begins."""
        self.begin(pl_module, trainer.global_rank, trainer.world_size)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch begins: of a new step, or of the one under way."""
        self.step(trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch ends, and a step if the optimizer has stepped."""
        if self.recorder is not None and trainer.global_step != self.recorder.number:
            self.end_step()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Training ends."""
        self.end(completed=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Training fails; the steps before are written."""
        self.end(completed=False)


class _TrainerHooks(_Hooks):
    """What the Trainer of Hugging Face calls."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Training begins."""
        self.begin(others["model"], args.process_index, args.world_size)

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """A step begins."""
        self.step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """A step is complete."""
        self.end_step()

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Training ends."""
        self.end(completed=True)
