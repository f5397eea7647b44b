"""What a worker of a sweep does: some machines on one snapshot, and rows of each, or why there are none."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from dataclasses import replace as other
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd

from accelsim.durable import replace, sweep_up, temporary
from accelsim.errors import AccelsimError
from accelsim.hardware.accelerators.catalogue import source_digest
from accelsim.hardware.machine import Machine, parse_machine
from accelsim.pipeline import simulate_records
from accelsim.study.results import frame
from accelsim.sweeps.study import code_digest, has_values
from accelsim.workload import synthetic
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.trace import Trace

SEED = 0
MOST_OPEN = 2
_OPEN: OrderedDict[tuple[str, str, str, float | None], tuple[Trace, Trace | SyntheticTrace]] = OrderedDict()
_OPENING = Lock()
Rows = pd.DataFrame | str  # of one machine, or why there are none


class TraceElsewhere(Exception):
    """This worker does not see the trace; it wants its content."""


@dataclass(frozen=True)
class Chunk:
    """What a worker gets: machines as plain data, where the trace is, and which code is to count.

    ``foreign``: of accelerators that are not accelsim's, by their names in machine files, the digests of their code.
    """

    trace: str
    digest: str
    snapshot: str
    sparsity: float | None
    machines: tuple[dict[str, Any], ...]
    keys: tuple[str, ...]
    passes: tuple[str, ...]
    layers: tuple[str, ...]
    code: str = field(default_factory=code_digest)
    attempts: int = 0
    foreign: dict[str, str] = field(default_factory=dict)

    def singly(self, attempts: int) -> list[Chunk]:
        """A chunk for each of its machines, tried so often."""
        pairs = zip(self.machines, self.keys, strict=True)
        return [other(self, machines=(data,), keys=(key,), attempts=attempts) for data, key in pairs]


def simulate_chunk(chunk: Chunk, content: bytes | None = None) -> list[Rows]:
    """Rows of each machine of a chunk, or why there are none: nothing that a machine does ends more than itself.

    Raises
    ------
    TraceElsewhere
        If the trace is not where the chunk says, and its ``content`` was not given.
    AccelsimError
        If this worker runs other code than who sent the chunk.
    """
    if chunk.code != code_digest():
        raise AccelsimError("cluster: workers must run the same accelsim as this process, but one runs another")
    path = _local(chunk.trace, chunk.digest, content)
    return _rows(chunk, path)


def _rows(chunk: Chunk, path: str) -> list[Rows]:
    try:
        machines = [_machine(data, chunk.foreign) for data in chunk.machines]
        return _simulated(chunk, machines, _opened(path, chunk.digest, chunk.snapshot, chunk.sparsity))
    except Exception as error:
        if len(chunk.machines) == 1:
            return [_reason(error)]
    # One of them cannot do it: each by itself, so that the others are not lost.
    return [rows for one in chunk.singly(chunk.attempts) for rows in _rows(one, path)]


def _machine(data: dict[str, Any], foreign: dict[str, str]) -> Machine:
    """A machine; that its code may be imported was settled where the sweep was planned."""
    machine = parse_machine(data, allow_code=True)
    name = data["accelerator"]["model"]
    if source_digest(type(machine.accelerator)) != foreign.get(name):
        raise AccelsimError(f"{name}: workers must have the code of the process that called, but one has other")
    return machine


def _reason(error: Exception) -> str:
    """In a line, for a table."""
    if isinstance(error, AccelsimError):
        return "; ".join(error.lines)
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"defect: {type(error).__name__}: {error}"


def _simulated(chunk: Chunk, machines: list[Machine], trace: Trace | SyntheticTrace) -> list[Rows]:
    """A table for each machine, or why it cannot run: what they share is counted once, whoever of them cannot.

    Several may have one name, so they go by their numbers meanwhile; not one alone, whose errors bear its name.
    """
    snapshot = chunk.snapshot if isinstance(trace, Trace) else trace.snapshots[0].name
    chosen: dict[str, Any] = {"passes": chunk.passes, "layers": chunk.layers, "snapshots": [snapshot]}
    if len(machines) == 1:
        return [frame(simulate_records(machines, trace, **chosen))]
    refused: dict[str, str] = {}
    numbered = [machine.model_copy(update={"name": str(number)}) for number, machine in enumerate(machines)]
    table = frame(simulate_records(numbered, trace, refused=refused, **chosen))
    by_number = dict(iter(table.groupby("machine", sort=False)))
    rows: list[Rows] = []
    for numbered_one, machine in zip(numbered, machines, strict=True):
        number, reason = numbered_one.name, refused.get(numbered_one.name)
        if reason is None:
            rows.append(by_number[number].assign(machine=machine.name).reset_index(drop=True))
        else:
            own = reason.removeprefix(f"{number}: ")
            rows.append(reason if own == reason else f"{machine.name}: {own}")
    return rows


@lru_cache(maxsize=4)
def _local(path: str, digest: str, content: bytes | None) -> str:
    """Where this worker has the trace: at its path, or, from its content, among temporary files, one of each digest."""
    kept = _private() / f"{digest}.npz"
    for place in (path, str(kept)):
        if Path(place).is_file() and _digest(place) == digest:
            return place
    if content is None:
        raise TraceElsewhere
    if hashlib.sha256(content).hexdigest() != digest:
        raise AccelsimError(f"{path}: changed since the sweep began; the same command begins anew with it")
    sweep_up(kept.parent)
    with temporary(kept.parent) as beside:
        beside.write_bytes(content)
        replace(beside, kept)
    return str(kept)


def _private() -> Path:
    """A folder among temporary files of this user alone: what lies where all may write, others may exchange."""
    folder = Path(tempfile.gettempdir()) / f"accelsim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise AccelsimError(f"{folder}: must be a folder of this user alone, is another's or open to others")
    return folder


def _digest(path: str) -> str | None:
    try:
        with closing(Trace.open(path)) as trace:
            return trace.digest
    except AccelsimError:
        return None


def _opened(path: str, digest: str, snapshot: str, sparsity: float | None) -> Trace | SyntheticTrace:
    """A trace, or one like it at another sparsity; ``digest`` tells apart what was at one path at different times.

    This worker keeps the last ``MOST_OPEN``; what it lets go of, it closes.
    """
    key = path, digest, snapshot, sparsity
    with _OPENING:  # of two threads that find it missing, as a Dask worker may have, the second would lose the first's
        if key in _OPEN:
            _OPEN.move_to_end(key)
            return _OPEN[key][1]
        while len(_OPEN) >= MOST_OPEN:
            _OPEN.popitem(last=False)[1][0].close()
        trace = Trace.open(path)
        _OPEN[key] = trace, trace if sparsity is None else alike(trace, snapshot, [sparsity])
        return _OPEN[key][1]


def alike(trace: Trace, snapshot: str, sparsities: Sequence[float]) -> SyntheticTrace:
    """A trace at other Top-K sparsities: of the numbers of a snapshot where it holds any, else masks drawn like its."""
    if has_values(trace.snapshot(snapshot)):
        return synthetic.resparsified(trace, snapshot, sparsities)
    return synthetic.fitted(trace, sparsities, reference=snapshot, seed=SEED)
