"""Record what a training step multiplies, from anybody's training loop, into a trace.

>>> with Recorder(model, "mine.npz", steps={100, 200}) as recorder:  # doctest: +SKIP
...     for inputs, targets in loader:
...         with recorder.step():
...             criterion(model(inputs), targets).backward()
...             optimizer.step()

Every product of such a step is recorded as it runs, of whatever module or function: its operands at once, the gradient
of its result when its backward pass receives it, and which passes ran. The snapshot counts all multiplications of the
step and says what is not stored. docs/capture.md has the rules.

Every tensor is written when it is seen, so nothing is kept, and what is changed in place later is not in the trace.

Layers that sparsify: a layer with an attribute ``record`` that is None gets a function there during its forward pass,
and calls it as ``record("weight", w)``, with the weight that the forward pass and the input gradient use (or the
latter another one: ``"backward_weight"``), ``record("activation", x)``, and ``record("saved_activation", xs)`` with
what the weight gradient uses; in its backward
pass it may call the same function with ``"gradient"`` where it does not use the one that arrives.
"""

from __future__ import annotations

import operator
import os
import shlex
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from accelsim.capture.densities import Counting, SeriesOf
from accelsim.capture.selection import Selection
from accelsim.capture.step import Step
from accelsim.errors import OutputError, TraceError
from accelsim.workload.metadata import META_RULES, check_keys, check_snapshot
from accelsim.workload.npz import blame, json_bytes
from accelsim.workload.series import SeriesWriter
from accelsim.workload.trace_writer import TraceWriter


class Recorder:
    """Records chosen steps of a training run; the model, its results and the random numbers stay as they are.

    Outside the recorded steps nothing is attached to the model. Used in a ``with`` block; when that ends, in whatever
    way, the trace of the recorded steps that were completed is written.

    Parameters
    ----------
    model : Module
        Any with a parameter that is multiplied. Layers that a recorded step never called are listed in the trace's
        provenance. Of a DistributedDataParallel model this process's
        share of the batch is recorded, so give each process a path of its own or record in one only.
    path : path-like
        The trace.
    steps : collection of int, or callable
        Which steps to record, by number from 0; a callable is asked for each number.
    keep : Selection, optional
        What to keep of them: by default of all layers the masks of the first sample.
    network, dataset : str
        For the trace; the network is by default the model's class.
    name : str
        Of the snapshots; ``{step}`` is replaced by the step's number.
    sparsity, algorithm
        For the snapshots, see :class:`accelsim.workload.trace.Snapshot`; :meth:`step` can say otherwise.
    batch_dim : int, optional
        The axis of the model's inputs along which its samples lie: 1 for sequences before samples. None: the inputs
        are one sample together, such as a graph of which all nodes are trained at once.
    force : bool
        Replace a file that exists.
    provenance : dict, optional
        Plain JSON to keep in the trace.
    series : SeriesOf or path-like, optional
        Keep besides, of every step or every k-th, how many values of each tensor are not zero: a file that grows with
        the run, can be read at any time, and goes on where a resumed run does.

    Attributes
    ----------
    recorded : list of str
        Names of the snapshots completed so far.
    number : int
        Of the step under way, or of the last one; −1 before the first.

    Raises
    ------
    TraceError
        If the model has no layer to record or is one that cannot be, or a value above makes no sense. While recording
        nothing is raised inside a forward or backward pass: what goes wrong, such as NaN in a tensor or no backward
        pass, is raised when the step ends, and the step
        is not in the trace.
    OutputError
        If the file exists, or, when a step or the block ends, if it could not be written.

    Notes
    -----
    Each call of a layer within a step is a layer of the trace, in the order of the calls: ``fc``, ``fc#2``, … . A step
    is what its block encloses: of a step with several forward and backward passes (gradient accumulation) all are
    recorded, each micro-batch being another call. ``batch`` in the trace is that of one call.

    What activation checkpointing computes again, and further backward passes through the same call, are layers of
    their own.

    What ``torch.compile`` made runs uncompiled in the recorded steps.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        path: str | os.PathLike[str],
        *,
        steps: Collection[int] | Callable[[int], bool],
        keep: Selection | None = None,
        network: str | None = None,
        dataset: str = "unstated",
        name: str = "step{step}",
        sparsity: float = 0.0,
        algorithm: str = "dense",
        batch_dim: int | None = 0,
        force: bool = False,
        provenance: dict[str, Any] | None = None,
        series: SeriesOf | str | os.PathLike[str] | None = None,
    ):
        self._path, self.keep, self.batch_dim = Path(path), keep or Selection(), batch_dim
        self._entry: dict[str, Any] = {"name": name, "sparsity": sparsity, "algorithm": algorithm}
        with blame("Recorder"):
            check_model(model)
            self.model = inner_model(model)
            self._check_patterns()
            _check_entry({**self._entry, "step": 0})
            self._wanted = _checked_steps(steps)
            self._header = {"network": network or type(self.model).__name__, "dataset": dataset}
            check_keys(self._header, {key: META_RULES[key] for key in self._header}, "trace")
            with blame("provenance"):
                json_bytes({**(provenance or {})})
        _check_path(self._path, force)
        self.provenance = {**(provenance or {}), "recorder": _versions() | {"not_called": {}}}
        self.recorded: list[str] = []
        self._writer: TraceWriter | None = None
        self._series = SeriesOf(series) if isinstance(series, str | os.PathLike) else series
        self._series_file: SeriesWriter | None = None
        self._closed = False
        self.under_way: Step | None = None
        self.number = -1

    def _check_patterns(self) -> None:
        names = [name or type(m).__name__ for name, m in self.model.named_modules() if has_weight(m)]
        names = [name.replace("_orig_mod.", "") for name in names]
        if not any(map(self.keep.wants, names)):
            of = f"layers and skip must leave one of {', '.join(names[:3])}, …" if names else "has none"
            raise TraceError(f"model: must have a layer to record, {type(self.model).__name__}: {of}")

    @property
    def recording(self) -> bool:
        """Whether the step under way is recorded."""
        return self.under_way is not None and self.under_way.records

    def step(
        self,
        number: int | None = None,
        *,
        name: str | None = None,
        sparsity: float | None = None,
        algorithm: str | None = None,
    ) -> Step:
        """A training step begins. It ends with its ``with`` block, or at :meth:`end_step` or the next :meth:`step`.

        Without a ``with`` block, what runs between the last line of the step and the next :meth:`step`, such as a
        validation, belongs to it, unless :meth:`end_step` is called before.

        Parameters
        ----------
        number : int, optional
            Iterations before this one; by default one more than the last time, from 0.
        name, sparsity, algorithm : optional
            Of the snapshot, instead of what the Recorder was given.

        Raises
        ------
        TraceError, OutputError
            If the step before could not be recorded, see :class:`Recorder`.
        """
        self.end_step()
        self.number = self.number + 1 if number is None else number
        given = {"name": name, "sparsity": sparsity, "algorithm": algorithm}
        entry = self._entry | {key: value for key, value in given.items() if value is not None}
        entry["step"] = self.number
        records = bool(self._wanted(self.number))
        if records:
            with blame("Recorder.step"):
                if self._closed:
                    raise TraceError(f"step {self.number} must be recorded before the recorder is closed")
                _check_entry(entry)
            entry["name"] = entry["name"].replace("{step}", str(self.number))
        counting = Counting(self.model) if self._series and self._series.wants(self.number) else None
        self.under_way = Step(self, entry, records, counting)
        self.under_way.attach()
        return self.under_way

    def note(self, **notes: float) -> None:
        """Keep numbers in the series with the step under way, or the last one: its loss, or an accuracy after it."""
        numbers = {name: float(value) for name, value in notes.items()}
        if self.under_way is not None:
            self.under_way.notes |= numbers
        elif self._series_file is not None and self._series is not None and self._series.wants(self.number):
            self._series_file.note(self.number, numbers)

    def series_file(self, entry: dict[str, Any]) -> SeriesWriter:
        """The series, begun with the first step that it keeps."""
        if self._series_file is None and self._series is not None:
            of_run = {key: entry[key] for key in ("algorithm", "sparsity")}
            self._series_file = self._series.writer(**self._header, **of_run)
        if self._series_file is None:
            raise TraceError("series: must be given")
        return self._series_file

    def end_step(self) -> None:
        """The step under way, if any, is complete. Raises TraceError or OutputError if it could not be recorded."""
        if self.under_way is not None:
            step, self.under_way = self.under_way, None
            step.end()

    def abandon_step(self) -> None:
        """The step under way, if any, is of no use: it will not be in the trace, and the model is left alone."""
        if self.under_way is not None:
            step, self.under_way = self.under_way, None
            step.abandon()

    def close(self) -> None:
        """End the step under way, and write the trace.

        Raises
        ------
        TraceError
            If no step was recorded; then no file is written.
        """
        try:
            self.end_step()
        finally:
            self._finish()
        if not self.recorded and self._series_file is None:
            made = f"the last one had number {self.number}" if self.number >= 0 else "step() was never called"
            raise TraceError(f"{self._path}: not written, since no step was recorded: {made}")

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.abandon_step()
        finally:
            self._finish()

    def _finish(self) -> None:
        writer, self._writer, self._closed = self._writer, None, True
        if self._series_file is not None:
            self._series_file.close()
        if writer is not None:
            try:
                if self.recorded:
                    writer.close()
            finally:
                writer.__exit__(TraceError)  # what is not finished by now goes

    def writer(self) -> TraceWriter:
        """The trace, begun with the first step that is recorded."""
        if self._writer is None:
            self._writer = TraceWriter(
                self._path, **self._header, provenance=self.provenance, level=self.keep.deflate_level
            )
        return self._writer


def inner_model(model: torch.nn.Module) -> torch.nn.Module:
    """The model within wrappers that only spread it over devices or compile it."""
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(model, wrappers) or hasattr(model, "_orig_mod"):
        inner: torch.nn.Module = model.get_submodule("module" if isinstance(model, wrappers) else "_orig_mod")
        model = inner
    return model


def has_weight(module: torch.nn.Module) -> bool:
    """Whether a module has a parameter of its own that could be multiplied with."""
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


def check_model(model: torch.nn.Module) -> None:
    """Raises TraceError for a model whose layers can't be watched."""
    if not isinstance(model, torch.nn.Module):
        raise TraceError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.nn.DataParallel) and len(model.device_ids) > 1:
        raise TraceError("model: must run on one device a process, is a DataParallel of several; use its .module")
    for name, module in model.named_modules():
        where = f"model.{name}" if name else "model"
        if isinstance(module, torch.jit.ScriptModule):
            raise TraceError(f"{where}: must not be TorchScript, which runs past its layers' forward")


def _check_entry(entry: dict[str, Any]) -> None:
    check_snapshot({**entry, "batch": 1, "coverage": None, "layers": []}, "snapshot")


def _checked_steps(steps: int | Collection[int] | Callable[[int], bool]) -> Callable[[int], bool]:
    if callable(steps):
        return steps
    if isinstance(steps, range) and steps and min(steps[0], steps[-1]) >= 0:  # it may be long
        return steps.__contains__
    try:
        numbers = frozenset(operator.index(step) for step in ([steps] if isinstance(steps, int) else steps))
    except TypeError:
        numbers = frozenset()
    if not numbers or min(numbers) < 0:
        raise TraceError(f"steps: must be integers from 0, or a function of one; got {steps!r}")
    return numbers.__contains__


def _check_path(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise OutputError(f"{path}: exists, and is kept; force=True replaces it")
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise OutputError(f"{path}: must be a file in a folder that exists and may be written to")


def _versions() -> dict[str, Any]:
    from accelsim.version import __version__

    found = {"accelsim": __version__, "torch": torch.__version__, "seed": torch.initial_seed()}
    program, *arguments = sys.argv  # without its folder: a trace that goes out says nothing of the disk it is from
    return found | {"command": shlex.join([Path(program).name, *arguments])}
