"""Where the chunks of a sweep run: processes of this machine, or a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from accelsim.errors import AccelsimError, TraceError
from accelsim.sweeps.chunks import Chunk, TraceElsewhere

Result = TypeVar("Result")


# Exit code of a worker whose script, as it is imported again, calls ``sweep`` as well.
CALLED_AGAIN = 96


def leave_if_imported_again() -> None:
    """Ends, without a word, a worker that imports a script which calls ``sweep`` whenever it is imported."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(CALLED_AGAIN)


class WorkerDied(Exception):
    """The worker that computed a chunk is gone, killed or out of memory; perhaps the chunk did it."""


class Workers:
    """An executor that says of a result that its worker died, and sends a trace to workers that do not see it.

    Attributes
    ----------
    count : int
    broken : bool
        Takes no more; another ``Workers`` does.

    Raises
    ------
    AccelsimError
        On entering, if there is no such cluster; from ``result``, if it goes away.
    """

    def __init__(self, jobs: int, cluster: str | None):
        self.count, self.cluster = jobs, cluster
        self.broken = False
        self._stack = ExitStack()
        self._executor: Executor  # since entering
        self._client: Any = None  # a cluster's
        self._contents: dict[str, Any] = {}

    def __enter__(self) -> Workers:
        if self.cluster is not None:
            self._connect()
            return self
        self._others = set(multiprocessing.active_children())
        self._children: set[BaseProcess] = set()
        spawn = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(self.count, mp_context=spawn, initializer=_start_worker)
        self._stack.callback(self._executor.shutdown, wait=True, cancel_futures=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and self.cluster is None:
            for child in set(multiprocessing.active_children()) - self._others:
                child.terminate()  # nobody waits for what it computes
        self._stack.close()

    def submit(self, work: Callable[..., Result], chunk: Chunk) -> Future[Result] | None:
        """A chunk to be computed; None if the workers are broken."""
        content = (self._contents[chunk.digest],) if chunk.digest in self._contents else ()
        try:
            with _interrupts_held_back():  # processes that start here inherit it
                future = self._executor.submit(work, chunk, *content)
            if self.cluster is None:
                self._children |= set(multiprocessing.active_children()) - self._others
            return future
        except BrokenProcessPool:
            self.broken = True
            return None

    def result(self, future: Future[Result]) -> Result:
        """What ``work`` returned. Raises WorkerDied, TraceElsewhere, AccelsimError."""
        try:
            return future.result()
        except (AccelsimError, TraceElsewhere):
            raise
        except BrokenProcessPool:
            self.broken = True
            if any(child.exitcode == CALLED_AGAIN for child in self._children):
                raise AccelsimError(
                    'sweep: a script must call it below `if __name__ == "__main__":`, for workers import the script'
                ) from None
            raise WorkerDied("its worker died") from None
        except CancelledError:
            if self._client is None or self._client.status != "running":
                raise AccelsimError(f"cluster: the scheduler {self.cluster} is gone") from None
            self._contents.clear()  # it was with a worker that is gone
            raise WorkerDied("its worker died") from None
        except Exception as error:
            if type(error).__name__ == "KilledWorker":
                raise WorkerDied("its worker died") from None
            raise AccelsimError(f"workers: cannot take a point: {type(error).__name__}: {error}") from error

    def need(self, chunk: Chunk) -> None:
        """A worker does not see the trace of a chunk: from now on it is sent, once to each worker, who keeps it.

        Raises
        ------
        TraceError
            If it is not here either.
        """
        if chunk.digest in self._contents:
            return
        try:
            content = Path(chunk.trace).read_bytes()
        except OSError as error:
            raise TraceError(f"{chunk.trace}: cannot read: {error.strerror}") from error
        self._contents[chunk.digest] = content
        if self._client is not None:
            self._contents[chunk.digest] = self._client.scatter(content, hash=True, broadcast=True)

    def _connect(self) -> None:
        try:
            from accelsim.sweeps.cluster import connect
        except ModuleNotFoundError as error:
            raise AccelsimError(f"cluster: needs Dask: pip install 'accelsim-sparse[cluster]' ({error})") from error
        with _interrupts_held_back():
            self._client = connect(self._stack, self.cluster or "", self.count)
        known = self._client.scheduler_info(n_workers=-1)["workers"].values()
        self.count = max(1, sum(worker["nthreads"] for worker in known))
        self._executor = self._client.get_executor(pure=False, retries=0)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C goes to all processes of a terminal, but it is for the one that waits for the others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """When the process that waits for the workers is gone, so are they."""
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
