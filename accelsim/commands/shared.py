"""What commands share: printing a result, a progress bar, and arguments that are lists, numbers or names of files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO, TypeAlias

from accelsim.errors import OutputError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # what a command is added to


def show(text: str) -> None:
    """Prints the result. Raises OutputError where standard output is closed, OSError where it is full."""
    if sys.stdout is None:
        raise OutputError("standard output: is closed")
    sys.stdout.write(text)
    sys.stdout.flush()


FORMS = ("table", "markdown", "csv", "latex", "json")


def add_format(command: argparse.ArgumentParser) -> None:
    """How the result is printed."""
    text = "how the result is printed (default: table, on a terminal no wider than it is); latex needs booktabs"
    command.add_argument("--format", choices=FORMS, default="table", help=text)
    text = "--format json: one JSON object on stdout and nothing else"
    command.add_argument("--json", dest="format", action="store_const", const="json", help=text)


def show_as(options: argparse.Namespace, parts: Iterable[object], data: Any) -> None:
    """Prints a result as ``add_format`` has it: tables and lines, or the data. Raises as ``show`` does."""
    from accelsim.study import json_file, layout

    if options.format == "json":
        show(json_file.to_json(data, ascii_only=True))
    else:
        show(layout.rendered(parts, options.format, is_terminal(sys.stdout)))


def is_terminal(*streams: TextIO | None) -> bool:
    """Whether all of them are."""
    return all(stream is not None and stream.isatty() for stream in streams)


@contextmanager
def bar(
    options: argparse.Namespace,
    told: Callable[..., dict[str, Any]],
    *,
    before: str = "",
    after: str = "",
    description: str = "",
    total: float | None = None,
) -> Iterator[Callable[..., None]]:
    """A bar on a terminal; nothing where output is piped, quiet or JSON.

    What it yields is called with what ``told`` makes rich's ``Progress.update`` of; ``before`` and ``after`` stand
    beside the count, with ``{task.description}`` where ``told`` gives one.
    """
    if options.quiet or getattr(options, "format", "") == "json" or not is_terminal(sys.stderr, sys.stdout):
        yield lambda *what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn(before)] if before else []
    counted = BarColumn(), MofNCompleteColumn(), TextColumn(after), TimeRemainingColumn()
    with Progress(*columns, *counted, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(description, total=total)
        yield lambda *what: shown.update(task, **told(*what))


def progress(options: argparse.Namespace) -> AbstractContextManager[Callable[..., None]]:
    """A bar of layers simulated."""
    return bar(options, lambda done, total: {"completed": done, "total": total}, before="simulating", after="layers")


def add_settings(command: argparse.ArgumentParser, more: str = "") -> None:
    """Other values for keys of the machine; ``settings_of`` reads them."""
    text = f"another value for a key of the machine, e.g. accelerator.lanes=8; repeatable{more}"
    command.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=text)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What ``KEY=VALUE`` say, by key. Raises ConfigError where one says nothing."""
    from accelsim.hardware.yaml_file import parse_setting

    return dict(map(parse_setting, options.settings))


def add_code(command: argparse.ArgumentParser) -> None:
    """The consent to import code."""
    text = "import accelerators `model: package.module:Class` of machine files, which runs their code"
    command.add_argument("--allow-code", action="store_true", help=text)


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


def at_least_one(text: str) -> int:
    """A number of things."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 6 and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be an integer from 1, got {text[:20]}")
    return int(text)


def shape(text: str) -> tuple[int, ...]:
    """``1,3,224,224`` as sizes."""
    sizes = text.split(",")
    if not all(size.isascii() and size.isdecimal() and int(size[:9]) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"must be sizes with commas between, got {text[:40]}")
    return tuple(int(size[:9]) for size in sizes)
