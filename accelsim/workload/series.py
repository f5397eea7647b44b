"""A training run as a series: of every step, or every k-th, how many values of each tensor are not zero.

A file of JSON lines that only grows. What a killed process had not finished of its last line is left out when it is
read, and cut off when it is appended to; of a step that is there twice, since a run was resumed from a checkpoint
before it, the last one counts. traces/README.md has the format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from accelsim.durable import read_whole
from accelsim.errors import OutputError, TraceError

FORMAT, VERSION = "accelsim-series", 1
Densities = dict[tuple[str, str], float]  # by layer and tensor


@dataclass(frozen=True)
class SeriesStep:
    """One step: densities by layer and tensor, and whatever was noted, such as accuracy or loss."""

    step: int
    densities: Densities
    notes: dict[str, float]


@dataclass(frozen=True)
class Series:
    """A series as it was read.

    Parameters
    ----------
    path : Path
    header : dict
        ``network``, ``dataset``, ``algorithm``, ``sparsity``, ``steps_per_epoch``, ``top_k_period``; None where nobody
        said.
    steps : tuple of SeriesStep
        By number.
    """

    path: Path
    header: dict[str, Any]
    steps: tuple[SeriesStep, ...]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Series:
        """Raises TraceError, which names the file and the line, if it is no series."""
        path = Path(path)
        try:
            lines = read_whole(path).split(b"\n")[:-1]  # what is not ended by a newline was never finished
        except OSError as error:
            raise TraceError(f"{path}: cannot read: {error.strerror}") from error
        if not lines:
            raise TraceError(f"{path}: must begin with a line that says what it is, is empty")
        header = _checked(_parsed(path, 1, lines[0]), path)
        layout: list[tuple[str, str, int]] = []
        steps: dict[int, SeriesStep] = {}
        for number, line in enumerate(lines[1:], 2):
            entry = _parsed(path, number, line)
            try:
                if "layout" in entry:
                    layout = [(str(layer), str(tensor), int(size)) for layer, tensor, size in entry["layout"]]
                elif "nonzeros" not in entry:
                    steps[int(entry["step"])].notes.update(entry["notes"])
                else:
                    counts = entry["nonzeros"]
                    of = {(a, b): c / size for (a, b, size), c in zip(layout, counts, strict=True)}
                    steps[int(entry["step"])] = SeriesStep(int(entry["step"]), of, dict(entry.get("notes", {})))
            except (KeyError, TypeError, ValueError, ZeroDivisionError):
                rule = "must be a layout, or a step with as many nonzeros as the layout before it"
                raise TraceError(f"{path}: line {number}: {rule}") from None
        if not steps:
            raise TraceError(f"{path}: must hold at least one step")
        return cls(path, header, tuple(steps[step] for step in sorted(steps)))

    def epoch(self, step: int) -> float | None:
        """Which epoch a step is in, with its fraction; None where nobody said how long one is."""
        length = self.header.get("steps_per_epoch")
        return step / length if length else None


class SeriesWriter:
    """Appends to a series, step by step; each step is one write, so that a kill leaves all steps before it.

    Parameters
    ----------
    path : path-like
        A new file, or a series with the same header, which goes on.
    header : mapping
        See :class:`Series`.

    Raises
    ------
    OutputError
        If the file is something else, has another header, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]):
        self.path, self._layout = Path(path), [("", "", 0)]
        entry = {"format": FORMAT, "version": VERSION, **header}
        try:
            held = read_whole(self.path) if self.path.exists() else b""
            whole = held[: held.rfind(b"\n") + 1]
            self._check_same(held, whole.split(b"\n", 1)[0], entry)
            self._file: IO[bytes] = self.path.open("r+b" if held else "wb", buffering=0)
            self._file.truncate(len(whole))
            self._file.seek(len(whole))
            if not whole:
                self._write(entry)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write: {error.strerror}") from error

    def _check_same(self, held: bytes, line: bytes, entry: dict[str, Any]) -> None:
        """Of a file without a whole line: is it how this series begins?"""
        try:
            is_same = json.loads(line) == json.loads(json.dumps(entry)) if line else _line(entry).startswith(held)
        except ValueError:
            is_same = False
        if not is_same:
            raise OutputError(f"{self.path}: exists, and is not a series of this run, which would be appended to")

    def step(self, number: int, counts: Mapping[tuple[str, str], tuple[int, int]], notes: Mapping[str, float]) -> None:
        """A step: of each layer's tensors the non-zeros, and the size."""
        layout = [(layer, tensor, size) for (layer, tensor), (_, size) in counts.items()]
        try:
            if layout != self._layout:
                self._write({"layout": layout})
                self._layout = layout
            told = {"notes": dict(notes)} if notes else {}
            self._write({"step": number, "nonzeros": [nonzeros for nonzeros, _ in counts.values()], **told})
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write: {error.strerror}") from error

    def note(self, number: int, notes: Mapping[str, float]) -> None:
        """Something about a step that is in the series already."""
        try:
            self._write({"step": number, "notes": dict(notes)})
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write: {error.strerror}") from error

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        left = _line(entry)
        while left:  # a disk that is nearly full takes a part
            left = left[self._file.write(left) :]


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise TraceError(f"{path}: line {number}: must be a JSON object")
    return entry


def _checked(header: dict[str, Any], path: Path) -> dict[str, Any]:
    if header.pop("format", None) != FORMAT:
        raise TraceError(f"{path}: must be a series, which begins with its format {FORMAT!r}")
    if header.pop("version", None) != VERSION:
        raise TraceError(f"{path}: must be a series of version {VERSION}")
    return header
