"""``accelsim diff``: what differs between two machines, traces or runs, and by how much."""

from __future__ import annotations

import argparse
from math import isfinite
from pathlib import Path

from accelsim.commands.shared import Commands, add_code, add_format, show_as
from accelsim.errors import ConfigError


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "diff",
        parents=[common],
        help="tell what differs between two machines, traces or runs, and by how much",
        description="Both must be of a kind: machines (.yaml), traces (.npz), or folders that run --out wrote. Exit "
        "code 0 where they were compared, whatever differs; with --threshold 1 where a figure differs by more.",
    )
    command.add_argument("a", metavar="A", help="the one to start from")
    command.add_argument("b", metavar="B", help="the other")
    text = (
        "exit with 1 where totals of runs (cycles, energy, bytes off chip) or non-zeros of tensors differ by more than "
    )
    command.add_argument("--threshold", type=_percent, metavar="PERCENT", help=text + "this share of A's")
    add_code(command)
    add_format(command)
    command.set_defaults(command=diff)


def diff(options: argparse.Namespace) -> int:
    """Two of a kind → tables, and an exit code."""
    from accelsim import open_trace
    from accelsim.hardware.machine import load_machine

    kinds = [_kind(name) for name in (options.a, options.b)]
    if kinds[0] != kinds[1]:
        raise ConfigError(f"B: must be a {kinds[0]} as A is, got the {kinds[1]} {options.b}")
    if kinds[0] == "machine" and options.threshold is not None:
        raise ConfigError("--threshold: machines have no figures; run both, and compare the results")

    from accelsim.study import diff as study

    if kinds[0] == "machine":
        machines = [load_machine(name, allow_code=options.allow_code) for name in (options.a, options.b)]
        found = study.diff_machines(machines[0], machines[1], (options.a, options.b))
    elif kinds[0] == "trace":
        with open_trace(options.a) as a, open_trace(options.b) as b:
            found = study.diff_traces(a, b)
    else:
        found = study.diff_runs(Path(options.a), Path(options.b))
    beyond = [] if options.threshold is None else found.beyond(options.threshold)
    lost = [] if options.threshold is None else found.only["a"] + found.only["b"]
    parts = [*study.shown(found), *study.verdict(options.threshold, beyond, lost)]
    show_as(options, parts, found.as_dict())
    return int(bool(beyond or lost))


def _kind(name: str) -> str:
    """A folder holds results; of a file the ending says what it is."""
    if Path(name).is_dir():
        return "run"
    kinds = {".yaml": "machine", ".yml": "machine", ".npz": "trace"}
    kind = kinds.get(Path(name).suffix.lower())
    if kind is None:
        raise ConfigError(f"{name}: must be a machine (.yaml), a trace (.npz) or a folder that run --out wrote")
    return kind


def _percent(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"must be a number from 0, in percent, got {text[:20]}")
    return number
