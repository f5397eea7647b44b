"""Sweeps: many machines, traces and sparsities through the one pipeline, nothing lost and nothing twice.

A *point* is one machine on one snapshot; points that share a snapshot are simulated together, so that its tensors are
read and lowered once. Workers get paths and plain data, compute, and give rows back; only the process that was called
writes. What it has written it does not compute again. docs/sweeps.md.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from accelsim.errors import AccelsimError
from accelsim.files import find
from accelsim.hardware.machine import Machine, parse_machine
from accelsim.simulate import simulate_records
from accelsim.study.results import frame
from accelsim.study.store import Store
from accelsim.study.study import Point, Study, load_study, points_of
from accelsim.study.sweep_tables import write_tables
from accelsim.workload import synthetic
from accelsim.workload.trace import Trace

# Machines simulated together on one snapshot: enough to share what they share, few enough to be lost to a dead worker.
TOGETHER = 8
# How often what a dead worker was at is tried again.
ATTEMPTS = 3
# Waiting for each worker, so that none idles.
AHEAD = 2
SEED = 0


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: points in all, there before, computed now, failed."""

    total: int
    found: int
    done: int
    failed: int


@dataclass(frozen=True)
class Chunk:
    """What a worker gets: machines as plain data, and where the trace is."""

    trace: str
    digest: str
    snapshot: str
    sparsity: float | None
    machines: tuple[dict[str, Any], ...]
    keys: tuple[str, ...]
    passes: tuple[str, ...]
    layers: tuple[str, ...]
    attempts: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Plan:
    """A study with its traces opened: its points in the table's order, their keys, and what is to be computed."""

    study: Study
    points: tuple[Point, ...]
    keys: tuple[str | None, ...]
    chunks: tuple[Chunk, ...]
    found: int
    layers: int


def plan_sweep(study: Study, store: Store, workers: int = 1) -> Plan:
    """What a sweep will compute, given what the store has, cut so that all workers get their share.

    Raises
    ------
    AccelsimError
        If a trace cannot be opened, or no point can be computed.
    """
    names = study.trace if isinstance(study.trace, list) else [study.trace]
    names += [value for value in study.grid.get("trace", []) if value not in names]
    names += [point["trace"] for point in study.points if point.get("trace") not in (None, *names)]
    with ExitStack() as stack:
        traces = {name: stack.enter_context(closing(open_trace(name))) for name in dict.fromkeys(names)}
        points = tuple(points_of(study, traces))
        digests = {name: trace.digest for name, trace in traces.items()}
        paths = {name: str(trace.path.resolve()) for name, trace in traces.items()}
        layers = sum(len(traces[p.trace].snapshots[0].layers) for p in points)
    if not points:
        raise AccelsimError("study: must have a point, has none; snapshots are those of the traces")
    chosen = tuple(study.layers), tuple(study.passes)
    keys = tuple(p.key(digests[p.trace], *chosen) if p.machine else None for p in points)
    known = store.known()
    missing: dict[tuple, dict[str, dict]] = {}
    for point, key in zip(points, keys, strict=True):
        if key and key not in known:
            place = paths[point.trace], digests[point.trace], point.snapshot, point.sparsity
            missing.setdefault(place, {})[key] = point.machine.resolved()
    chunks, count = [], sum(map(len, missing.values()))
    together = max(1, min(TOGETHER, count // (4 * workers)))
    for place, machines in missing.items():
        # Machines with equal accelerators next to each other: what they compute is computed once.
        alike = sorted(machines, key=lambda key: (repr(machines[key]["accelerator"]), key))
        for i in range(0, len(alike), together):
            some = tuple(alike[i : i + together])
            chunks.append(Chunk(*place, tuple(machines[key] for key in some), some, chosen[1], chosen[0]))
    return Plan(study, points, keys, tuple(chunks), sum(key in known for key in keys if key), layers)


def sweep(
    study: Study | str | Path | dict,
    out: str | Path,
    *,
    jobs: int = 1,
    cluster: str | None = None,
    progress: Callable[[Progress], None] = lambda p: None,
) -> pd.DataFrame:
    """Computes the points of a study that a folder does not have yet, and writes the table of all.

    Parameters
    ----------
    study : Study, or a file, or its plain data
    out : path
        ``points/`` in it is the store; ``table.csv`` and ``table.parquet``, a row a point and pass, and
        ``layers.parquet``, a row a point, layer and pass, are written when all points are there.
    jobs : int
        Worker processes.
    cluster : str, optional
        Address of a Dask scheduler (tcp://…), or "local" for one on this machine with ``jobs`` workers.
    progress : callable

    Returns
    -------
    DataFrame
        The table; ``error`` says why a point has no counts.

    Raises
    ------
    AccelsimError
        If the study, a trace or the folder will not do. What was computed until then is kept.
    """
    study = study if isinstance(study, Study) else load_study(study)
    store = Store(Path(out))
    plan = plan_sweep(study, store, jobs)
    errors = dict(compute(plan, store, jobs=jobs, cluster=cluster, progress=progress))
    return write_tables(plan, store, errors)


def compute(
    plan: Plan, store: Store, *, jobs: int, cluster: str | None, progress: Callable[[Progress], None]
) -> Iterator[tuple[str, str]]:
    """Computes a plan's chunks into the store; yields the keys of points that failed, and why."""
    total, done, failed = len(plan.points), 0, sum(key is None for key in plan.keys)
    progress(Progress(total, plan.found, done, failed))
    if not plan.chunks:
        return
    try:
        for chunk, results in run_chunks(plan.chunks, jobs, cluster):
            for key, rows in zip(chunk.keys, results, strict=True):
                done += 1
                if isinstance(rows, str):
                    failed += 1
                    yield key, rows
                else:
                    store.put(key, rows)
            progress(Progress(total, plan.found, done, failed))
    except KeyboardInterrupt:
        stored = plan.found + done - failed
        raise KeyboardInterrupt(f"{stored} of {total} points are in {store.folder}; the same command goes on") from None


def run_chunks(chunks: Iterable[Chunk], jobs: int, cluster: str | None) -> Iterator[tuple[Chunk, list]]:
    """Chunks with their results as they come, on processes of this machine or a Dask cluster.

    A chunk whose worker dies is tried again, alone in the end; what dies ``ATTEMPTS`` times has failed.
    """
    waiting = deque(chunks)
    while waiting:
        with _executor(jobs, cluster) as (executor, workers, send):
            running: dict[Future, Chunk] = {}
            try:
                while waiting or running:
                    # After a death one at a time, so that it is known who brings it about.
                    most = 1 if any(chunk.attempts for chunk in waiting) else workers * AHEAD
                    while waiting and len(running) < most:
                        chunk = waiting.popleft()
                        running[executor.submit(simulate_chunk, chunk, *send(chunk))] = chunk
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        chunk = running[future]
                        results = future.result()
                        del running[future]
                        yield chunk, results
            except _deaths() as death:
                lost = [Chunk(**vars(chunk) | {"attempts": chunk.attempts + 1}) for chunk in running.values()]
                for chunk in lost:
                    if chunk.attempts < ATTEMPTS:
                        waiting.append(chunk)
                    else:
                        yield chunk, [f"worker died: {death}"] * len(chunk.keys)


def _deaths() -> tuple[type[Exception], ...]:
    """What a future raises when its worker is gone."""
    with suppress(ImportError):
        from distributed import KilledWorker

        return BrokenProcessPool, KilledWorker
    return (BrokenProcessPool,)


class _executor:
    """Where chunks run: ``(executor, workers, send)``; ``send(chunk)`` is what a chunk is sent with."""

    def __init__(self, jobs: int, cluster: str | None):
        self.jobs, self.cluster = jobs, cluster
        self.stack = ExitStack()
        self.others = set(multiprocessing.active_children())

    def __enter__(self) -> tuple[Executor, int, Callable[[Chunk], tuple]]:
        if self.cluster is not None:
            return self._dask()
        spawn = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(self.jobs, mp_context=spawn, initializer=_start_worker)
        self.stack.callback(executor.shutdown, wait=True, cancel_futures=True)
        return executor, self.jobs, lambda chunk: ()

    def __exit__(self, kind, *error) -> None:
        if kind is not None and self.cluster is None:
            for child in set(multiprocessing.active_children()) - self.others:
                child.terminate()  # nobody waits for what it computes
        self.stack.close()

    def _dask(self) -> tuple[Executor, int, Callable[[Chunk], tuple]]:
        try:
            from distributed import Client, LocalCluster
        except ModuleNotFoundError as error:
            raise AccelsimError("a cluster needs Dask: pip install 'accelsim[cluster]'") from error
        try:
            address = self.cluster
            if address == "local":
                address = self.stack.enter_context(
                    LocalCluster(n_workers=self.jobs, threads_per_worker=1, dashboard_address=None)
                )
            client = self.stack.enter_context(Client(address, timeout="20s"))
        except (OSError, ValueError) as error:
            raise AccelsimError(f"cluster: must be a Dask scheduler that answers, got {self.cluster}") from error
        files: dict[str, Any] = {}

        def send(chunk: Chunk) -> tuple:
            """The trace itself, for workers that do not see its path: it goes to each once."""
            if self.cluster == "local":
                return ()
            if chunk.digest not in files:
                files[chunk.digest] = client.scatter(Path(chunk.trace).read_bytes(), hash=True)
            return (files[chunk.digest],)

        return client.get_executor(retries=0), max(1, len(client.scheduler_info()["workers"])), send


def _start_worker() -> None:
    """Ctrl-C is for the process that waits for the workers; and when that is gone, so are they."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()


def _follow(parent) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def simulate_chunk(chunk: Chunk, content: bytes | None = None) -> list[pd.DataFrame | str]:
    """What a worker does: rows of each machine, or why none. ``content``: the trace, where its path is not."""
    machines = [parse_machine(data) for data in chunk.machines]
    try:
        table = _simulated(chunk, machines, content)
        return [rows.reset_index(drop=True) for _, rows in table.groupby("machine_number", sort=True)]
    except AccelsimError as error:
        if len(machines) == 1:
            return [str(error)]
    # One of them cannot do it: each by itself, so that the others are not lost.
    alone = [Chunk(**vars(chunk) | {"machines": (data,)}) for data in chunk.machines]
    return [rows for one in alone for rows in simulate_chunk(one, content)]


def _simulated(chunk: Chunk, machines: list[Machine], content: bytes | None) -> pd.DataFrame:
    """Machines may have one name; their rows come machine by machine for each layer."""
    trace = _opened(chunk.trace, chunk.digest, content, chunk.sparsity, chunk.snapshot)
    snapshot = chunk.snapshot if chunk.sparsity is None else trace.snapshots[0].name
    numbered = [m.model_copy(update={"name": f"{number:04d} {m.name}"}) for number, m in enumerate(machines)]
    records = simulate_records(numbered, trace, passes=chunk.passes, layers=chunk.layers, snapshots=[snapshot])
    table = frame(records)
    table.insert(0, "machine_number", table["machine"].str[:4].astype(int))
    table["machine"] = table["machine"].str[5:]
    return table


@lru_cache(maxsize=2)
def _opened(path: str, digest: str, content: bytes | None, sparsity: float | None, snapshot: str):
    """A trace, or one like it at another sparsity."""
    if not Path(path).is_file() or (content is not None and _other(path, digest)):
        if content is None:
            raise AccelsimError(f"{path}: no such file on this worker")
        local = Path(tempfile.gettempdir()) / f"accelsim-{digest}.npz"
        if not local.is_file():
            beside = local.with_name(f"{local.name}.{multiprocessing.current_process().pid}")
            beside.write_bytes(content)
            beside.replace(local)
        path = str(local)
    trace = Trace.open(path)
    return trace if sparsity is None else at_sparsity(trace, snapshot, sparsity)


def _other(path: str, digest: str) -> bool:
    with closing(Trace.open(path)) as trace:
        return trace.digest != digest


def at_sparsity(trace: Trace, snapshot: str, sparsity: float):
    """The trace at another Top-K sparsity: of its numbers where it holds any, else masks drawn like its own."""
    layers = trace.snapshot(snapshot).layers
    if all(layer.tensors[name].dtype != bool for layer in layers for name in ("weight", "activation")):
        return synthetic.resparsified(trace, snapshot, [sparsity])
    return synthetic.fitted(trace, [sparsity], reference=snapshot, seed=SEED)


def open_trace(name: str) -> Trace:
    """A trace by name, as everywhere."""
    from accelsim.errors import TraceError

    return Trace.open(find(name, "traces", TraceError))
