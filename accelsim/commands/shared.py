"""What commands share: printing a result, a progress bar, and arguments that are lists, numbers or names of files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from accelsim.errors import OutputError


def show(text: str) -> None:
    """Prints the result. Raises OutputError where standard output is closed, OSError where it is full."""
    if sys.stdout is None:
        raise OutputError("standard output: is closed")
    sys.stdout.write(text)
    sys.stdout.flush()


def is_terminal(*streams) -> bool:
    """Whether all of them are."""
    return all(stream is not None and stream.isatty() for stream in streams)


@contextmanager
def bar(
    options: argparse.Namespace, told: Callable[..., dict], *, before="", after="", description="", total=None
) -> Iterator[Callable]:
    """A bar on a terminal; nothing where output is piped, quiet or JSON.

    What it yields is called with what ``told`` makes rich's ``Progress.update`` of; ``before`` and ``after`` stand
    beside the count, with ``{task.description}`` where ``told`` gives one.
    """
    if options.quiet or getattr(options, "json", False) or not is_terminal(sys.stderr, sys.stdout):
        yield lambda *what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TextColumn(after), TimeRemainingColumn()
    columns = (TextColumn(before), *columns) if before else columns
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(description, total=total)
        yield lambda *what: shown.update(task, **told(*what))


def progress(options: argparse.Namespace):
    """A bar of layers simulated."""
    return bar(options, lambda done, total: {"completed": done, "total": total}, before="simulating", after="layers")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def names(text: str) -> list[str]:
    """``a,b`` as names."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def jobs(text: str) -> int:
    """A number of threads."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"must be an integer in 1…1024, got {text[:20]}")
    return int(text)
