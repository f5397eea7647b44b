"""``accelsim info``, ``accelsim schema`` and ``accelsim report``: what a file is, may be, or says."""

from __future__ import annotations

import argparse
from pathlib import Path

from accelsim.commands.shared import Commands, add_code, add_format, add_settings, settings_of, show, show_as
from accelsim.errors import ConfigError, TraceError


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the commands and their arguments."""
    of_file = commands.add_parser("info", parents=[common], help="describe a trace or a machine file")
    of_file.add_argument("file", metavar="FILE", help="a trace (.npz) or a machine (.yaml)")
    add_format(of_file)
    add_settings(of_file)
    add_code(of_file)
    of_file.set_defaults(command=info)
    of_results = commands.add_parser(
        "report",
        parents=[common],
        help="results as one HTML file (needs Plotly: pip install 'accelsim-sparse[report]')",
    )
    of_results.add_argument("folder", type=Path, metavar="DIR", help="what run --out wrote")
    of_results.add_argument("--out", type=Path, metavar="FILE", help="the file (default: DIR/report.html)")
    of_results.set_defaults(command=report)
    of_machines = commands.add_parser("schema", parents=[common], help="print the JSON Schema of machine files")
    text = "describe this accelerator too, package.module:Class; repeatable. Those of installed packages are"
    of_machines.add_argument("--model", dest="models", action="append", default=[], metavar="NAME", help=text)
    add_code(of_machines)
    of_machines.set_defaults(command=schema)


def info(options: argparse.Namespace) -> None:
    """What a file holds; its ending says which of the two it is."""
    from accelsim.files import find
    from accelsim.study import describe

    is_trace = Path(options.file).suffix.lower() == ".npz"
    path = find(options.file, *(("traces", TraceError) if is_trace else ("configs", ConfigError)))
    if is_trace:
        from accelsim.workload.trace import Trace

        with Trace.open(path) as trace:
            facts = describe.trace_facts(trace)
        parts = describe.trace_tables(facts)
    else:
        from accelsim.hardware.machine import load_machine

        machine = load_machine(path, allow_code=options.allow_code, settings=settings_of(options))
        facts = machine.resolved() | {"multipliers": machine.accelerator.multipliers}
        parts = describe.machine_tables(machine, str(path))
    show_as(options, parts, facts)


def report(options: argparse.Namespace) -> None:
    """A folder of results → a page."""
    from accelsim.study.report import write_report

    show(f"{write_report(options.folder, options.out)}\n")


def schema(options: argparse.Namespace) -> None:
    """What a machine file may hold."""
    from accelsim.hardware import machine
    from accelsim.study.json_file import to_json

    rules = machine.schema(*options.models, allow_code=options.allow_code)
    show(to_json(rules, ascii_only=True))
