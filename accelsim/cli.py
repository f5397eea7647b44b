"""The command line: thin. It reads arguments, calls the library, prints, and turns errors into one line and a code.

Exit codes: 0 done, 2 bad input or output, 130 interrupted (Ctrl-C; SIGTERM 143, SIGHUP 129), 1 a defect of accelsim, or
a figure that ``reproduce`` or ``validate`` should reach and does not, or that ``diff`` finds beyond its threshold.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Any, NoReturn

from accelsim.commands import (
    animate,
    ask,
    capture,
    compare,
    describe,
    diff,
    exchange,
    merge,
    new,
    reproduce,
    rtl,
    run,
    sweep,
    validate,
    view,
)
from accelsim.errors import AccelsimError, AccelsimWarning, printable
from accelsim.interrupts import Ending, heard
from accelsim.version import __version__


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments, argparse.Namespace(command_line=["accelsim", *arguments]))
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # a terminal that cannot show × gets a ? instead of a failure
    with heard() as ending:
        return _run(options, ending)


def _run(options: argparse.Namespace, ending: Ending) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return options.command(options) or 0
    except AccelsimError as error:
        return _failed(options, 2, f"accelsim: error: {error.lines[0]}", *error.lines[1:])
    except KeyboardInterrupt as interrupt:
        return _failed(
            options, 128 + ending.number, f"accelsim: interrupted; {str(interrupt) or 'nothing was written'}"
        )
    except BrokenPipeError:
        _forget_output()  # its reader has gone, as `head` does; what it wanted it has got
        return 0
    except OSError as error:
        _forget_output()
        return _failed(options, 2, f"accelsim: error: {error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:
        advice = "; fewer --jobs need less" if getattr(options, "jobs", 1) != 1 else ""
        return _failed(options, 2, f"accelsim: error: out of memory{advice}")
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return _failed(options, 1, f"accelsim: defect: {text}; --debug shows where, please report it")


def _failed(options: argparse.Namespace, code: int, line: str, *more: str) -> int:
    """What is wrong in a line; a file with several faults has one for each."""
    if options.debug:
        raise
    if sys.stderr:
        print("\n  ".join(map(printable, (line, *more))), file=sys.stderr)
    return code


def _warn(message: Warning | str, category: type[Warning], *where: Any, **_: Any) -> None:
    """A warning in a line; those of libraries say where, for they mean developers."""
    told = "" if issubclass(category, AccelsimWarning) else f"{where[0]}:{where[1]}: {category.__name__}: "
    if sys.stderr:
        print(printable(f"accelsim: warning: {told}{message}"), file=sys.stderr)


def _forget_output() -> None:
    """What could not be written would fail once more when Python ends."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, printable(f"accelsim: error: {message}; see {self.prog} --help") + "\n")


def parser() -> argparse.ArgumentParser:
    """The parser of every command; the command reference is made of it."""
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    whole = _Parser(
        prog="accelsim", description="What would sparsity in your training run buy on an accelerator? Cycle by cycle."
    )
    whole.add_argument("--version", action="version", version=f"accelsim {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for command in (
        ask, run, compare, diff, sweep, animate, view, capture, merge, reproduce, validate, exchange, describe, new,
        rtl,
    ):  # fmt: skip
        command.add(commands, common)
    return whole


if __name__ == "__main__":
    sys.exit(main())
