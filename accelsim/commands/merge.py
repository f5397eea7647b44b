"""``accelsim merge``: the traces that the processes of one run recorded, joined."""

from __future__ import annotations

import argparse
from pathlib import Path

from accelsim.commands.shared import Commands, show


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "merge",
        parents=[common],
        help="join the traces that the processes of one training run recorded",
        description="Joins traces of which each process recorded its share of the batch: samples follow one another, "
        "batches and coverage add up. Steps, layers, shapes and weights must agree.",
    )
    command.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="two traces or more (.npz)")
    command.add_argument("-o", "--out", required=True, type=Path, metavar="FILE", help="the joined trace (.npz)")
    command.add_argument("--force", action="store_true", help="replace the file if it exists")
    command.set_defaults(command=merge)


def merge(options: argparse.Namespace) -> None:
    """Traces → trace."""
    from accelsim.workload.merge import merge as joined
    from accelsim.workload.trace import Trace

    with Trace.open(joined(options.traces, options.out, force=options.force)) as trace:
        held = ", ".join(f"{s.name} of {s.batch} samples" for s in trace.snapshots)
    show(f"{options.out}: {len(options.traces)} traces joined: {held}\n")
