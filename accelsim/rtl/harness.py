"""Runs jobs on a circuit that was built: bytes in, bytes out, a batch of jobs at a time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accelsim.errors import ToolError
from accelsim.rtl.job import Job

BATCH_BYTES = 1 << 25
HEAD = np.dtype("<i4")
RESULT = np.dtype("<i8")


@dataclass(frozen=True, eq=False)
class Ran:
    """What a circuit did with a job: cycles −1 where it did not end."""

    job: Job
    fill_cycles: int
    cycles: int
    drain_cycles: int
    sums: np.ndarray


def run(program: Path, jobs: Iterable[Job]) -> Iterator[Ran]:
    """Jobs through a circuit, in order, several megabytes at a time. Raises ToolError where it fails."""
    batch: list[Job] = []
    size = 0
    for job in jobs:
        batch.append(job)
        size += job.lines.nbytes + job.entries.nbytes
        if size > BATCH_BYTES:
            yield from _batch(program, batch)
            batch, size = [], 0
    if batch:
        yield from _batch(program, batch)


def _batch(program: Path, jobs: list[Job]) -> Iterator[Ran]:
    given = b"".join(piece for job in jobs for piece in _given(job))
    try:
        done = subprocess.run([program], input=given, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        again = f"remove {program.parent} and it is built anew"
        raise ToolError(f"rtl: the circuit's simulation fails: {error}; {again}") from error
    at = 0
    for job in jobs:
        fill, cycles, drain = np.frombuffer(done.stdout, HEAD, 3, at).tolist()
        at += 3 * HEAD.itemsize
        sums = np.frombuffer(done.stdout, RESULT, job.places.size, at)
        at += sums.nbytes
        yield Ran(job, fill, cycles, drain, sums)


def _given(job: Job) -> Iterator[bytes]:
    yield np.array([len(job.lines), len(job.entries), job.places.size], HEAD).tobytes()
    yield job.lines.tobytes()
    yield job.entries.tobytes()
    yield job.places.astype(HEAD).tobytes()
