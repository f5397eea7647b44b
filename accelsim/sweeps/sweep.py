"""Sweeps: many machines, traces and sparsities through the one pipeline, nothing lost and nothing twice.

A *point* is one machine on one snapshot; points that share a snapshot are simulated together, so that its tensors are
read and lowered once. Workers get paths and plain data, compute, and give rows back; only the process that was called
writes. What it has written it does not compute again. docs/sweeps.md.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from accelsim.errors import AccelsimError
from accelsim.sweeps.chunks import Chunk, Rows, TraceElsewhere, simulate_chunk
from accelsim.sweeps.fidelity import sweep_fidelity
from accelsim.sweeps.plan import Plan, plan_sweep
from accelsim.sweeps.store import Store
from accelsim.sweeps.study import Study, load_study
from accelsim.sweeps.tables import write_tables
from accelsim.sweeps.workers import WorkerDied, Workers, leave_if_imported_again

# How often what a dead worker was at is tried again.
ATTEMPTS = 3
# Workers that die before any gave a result: then it is not a point that kills them.
MOST_DEATHS = 10
# Waiting for each worker, so that none idles.
AHEAD = 2


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: points in all, there before, computed now, failed."""

    total: int
    found: int
    done: int
    failed: int


def sweep(
    study: Study | str | Path | dict[str, Any],
    out: str | Path,
    *,
    jobs: int = 1,
    cluster: str | None = None,
    allow_code: bool = False,
    before: Callable[[Plan], None] = lambda plan: None,
    progress: Callable[[Progress], None] = lambda p: None,
) -> pd.DataFrame:
    """Computes the points of a study that a folder does not have yet, and writes the table of all.

    Workers are processes that import the main module: a script calls it below ``if __name__ == "__main__":``.

    Parameters
    ----------
    study : Study, or a file, or its plain data
    out : path
        ``points/`` in it is the store; ``table.csv`` and ``table.parquet``, a row a point and pass,
        ``layers.parquet``, a row a point, layer and pass, and ``sweep.json``, what they were computed from, are
        written when all points are there; ``fidelity.csv`` too, where a sparsity is not a trace's own.
    jobs : int
        Worker processes.
    cluster : str, optional
        Address of a Dask scheduler (tls://…), or "local" for one on this machine with ``jobs`` workers.
    allow_code : bool
        Whether accelerators ``model: package.module:Class`` of machine files may be imported, by workers too.
    before : callable
        Called with the plan before anything is computed.
    progress : callable

    Returns
    -------
    DataFrame
        The table; ``error`` says why a point has no counts.

    Raises
    ------
    AccelsimError
        If the study, a trace or the folder will not do. What was computed until then is kept.
    KeyboardInterrupt
        With a text that says how much is kept.
    """
    leave_if_imported_again()
    if jobs < 1:
        raise AccelsimError(f"jobs: must be 1 or more, got {jobs}")
    study = study if isinstance(study, Study) else load_study(study)
    store = Store(Path(out))
    plan = plan_sweep(study, store, jobs, allow_code=allow_code)
    try:
        before(plan)
        errors = dict(compute(plan, store, jobs=jobs, cluster=cluster, progress=progress))
        fidelity = sweep_fidelity(plan)
        table, damaged = write_tables(plan, store, errors, fidelity)
        for _ in range(1, ATTEMPTS):
            if not damaged:
                break
            plan = plan_sweep(study, store, jobs, allow_code=allow_code)  # what was damaged is gone
            errors = dict(compute(plan, store, jobs=jobs, cluster=cluster, progress=progress))
            table, damaged = write_tables(plan, store, errors, fidelity)
    except KeyboardInterrupt:
        kept = len(store.known().intersection(filter(None, plan.keys)))
        message = f"{kept} of {len(plan.points)} points are in {store.folder}; the same command goes on"
        raise KeyboardInterrupt(message) from None
    return table


def compute(
    plan: Plan,
    store: Store,
    *,
    jobs: int,
    cluster: str | None = None,
    progress: Callable[[Progress], None] = lambda p: None,
    work: Callable[..., list[Rows]] = simulate_chunk,
) -> Iterator[tuple[str, str]]:
    """Computes a plan's chunks into the store; yields the keys of points that failed, and why."""
    total, done, failed = len(plan.points), 0, sum(key is None for key in plan.keys)
    progress(Progress(total, plan.found, done, failed))
    if not plan.chunks:
        return
    # Another sweep into the same store begins elsewhere; what it has stored until its turn comes is not computed again.
    start = os.getpid() % len(plan.chunks)
    order = plan.chunks[start:] + plan.chunks[:start]
    chunks = (chunk for chunk in order if not all(key in store for key in chunk.keys))
    with closing(run_chunks(chunks, jobs, cluster, work)) as results:
        for chunk, of_machines in results:
            for key, rows in zip(chunk.keys, of_machines, strict=True):
                done += 1
                if isinstance(rows, str):
                    failed += 1
                    yield key, rows
                else:
                    store.put(key, rows)
            progress(Progress(total, plan.found, done, failed))


def run_chunks(
    chunks: Iterable[Chunk], jobs: int, cluster: str | None = None, work: Callable[..., list[Rows]] = simulate_chunk
) -> Generator[tuple[Chunk, list[Rows]], None, None]:
    """Chunks with their results as they come, on processes of this machine or a Dask cluster.

    A chunk whose worker dies is tried again, each of its machines by itself; what is there at ``ATTEMPTS`` deaths has
    failed.
    """
    fresh = iter(chunks)
    lost: deque[Chunk] = deque()
    results = died = 0
    while True:
        with Workers(jobs, cluster) as workers:
            running: dict[Future[list[Rows]], Chunk] = {}
            while True:
                _fill(workers, running, fresh, lost, work)
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    chunk = running.pop(future)
                    try:
                        of_machines = workers.result(future)
                    except TraceElsewhere:
                        workers.need(chunk)
                        lost.append(chunk)
                        continue
                    except WorkerDied as death:
                        died += 1
                        if not results and died > MOST_DEATHS:
                            raise AccelsimError(f"workers: all die before they give a result: {death}") from None
                        again = chunk.singly(chunk.attempts + 1)
                        lost.extend(one for one in again if one.attempts < ATTEMPTS)
                        for one in again:
                            if one.attempts >= ATTEMPTS:
                                yield one, [f"{death}, each of {ATTEMPTS} times"]
                    else:
                        results += 1
                        yield chunk, of_machines
            if not workers.broken:
                return


def _fill(
    workers: Workers,
    running: dict[Future[list[Rows]], Chunk],
    fresh: Iterator[Chunk],
    lost: deque[Chunk],
    work: Callable[..., list[Rows]],
) -> None:
    """Gives workers what they can take: first what was lost, and that alone: a death does not say whose it is."""
    while not workers.broken:
        chunk = lost[0] if lost else None
        alone = any(c and c.attempts for c in (chunk, *running.values()))
        if len(running) >= (1 if alone else workers.count * AHEAD):
            return
        chunk = lost.popleft() if lost else next(fresh, None)
        if chunk is None:
            return
        future = workers.submit(work, chunk)
        if future is None:
            lost.appendleft(chunk)
        else:
            running[future] = chunk
