"""The command line: thin. It reads arguments, calls the library, prints, and turns errors into one line and a code.

Exit codes: 0 done, 2 bad input or output, 130 interrupted (Ctrl-C), 1 a defect of accelsim.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from accelsim import __version__
from accelsim.errors import AccelsimError, ConfigError, TraceError
from accelsim.workload.lowering import PASSES


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments, argparse.Namespace(command_line=["accelsim", *arguments]))
    try:
        options.command(options)
        sys.stdout.flush()
        return 0
    except AccelsimError as error:
        return _failed(options, 2, f"accelsim: error: {_one_line(error)}")
    except KeyboardInterrupt:
        return _failed(options, 130, "accelsim: interrupted; nothing was written")
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; what it wanted it has got.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _failed(options, 2, f"accelsim: error: {error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:
        return _failed(options, 2, "accelsim: error: out of memory; fewer --jobs need less")
    except Exception as error:
        text = f"{type(error).__name__}: {_one_line(error)}"
        return _failed(options, 1, f"accelsim: defect: {text}; --debug shows where, please report it")


def _failed(options: argparse.Namespace, code: int, line: str) -> int:
    if options.debug:
        raise
    print(line, file=sys.stderr)
    return code


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error does."""

    def error(self, message: str):
        self.exit(2, f"accelsim: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(
        prog="accelsim", description="What would sparsity in your training run buy on an accelerator? Cycle by cycle."
    )
    parser.add_argument("--version", action="version", version=f"accelsim {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands, common)
    info = commands.add_parser("info", parents=[common], help="describe a trace or a machine file")
    info.add_argument("file", metavar="FILE", help="a trace (.npz) or a machine (.yaml)")
    info.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    info.set_defaults(command=_info)
    schema = commands.add_parser("schema", parents=[common], help="print the JSON Schema of machine files")
    schema.set_defaults(command=_schema)
    return parser


def _add_run(commands, common) -> None:
    run = commands.add_parser(
        "run",
        parents=[common],
        help="simulate a trace on a machine and print its speedups as the paper's Table 6",
        description="Counts the cycles of each pass of each layer of a trace on a machine. FILE names without a path "
        "are looked up here, then among the files that accelsim ships.",
    )
    run.add_argument("--config", required=True, metavar="FILE", help="machine, e.g. pe16x16.yaml")
    run.add_argument("--trace", required=True, metavar="FILE", help="trace, e.g. resnet50.npz")
    run.add_argument("--passes", type=_list, default=list(PASSES), metavar="P,…", help=f"of {','.join(PASSES)}")
    run.add_argument("--layers", type=_list, default=["*"], metavar="GLOB,…", help="layers, e.g. 'layer1.*,conv1'")
    run.add_argument("--snapshots", type=_list, metavar="NAME,…", help="snapshots of the trace (default: all)")
    run.add_argument(
        "--baseline", default="dadiannao", metavar="FILE",
        help="machine to compare with; by default a DaDianNao with as many multipliers; none: no comparison",
    )  # fmt: skip
    run.add_argument("--jobs", type=_jobs, metavar="N", help="layers simulated at once (default: one per core)")
    run.add_argument("--out", type=Path, metavar="DIR", help="write layers.csv, layers.parquet, run.json, summary.txt")
    run.add_argument("--explain", action="store_true", help="show where every multiplier slot went")
    run.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    run.add_argument("--quiet", action="store_true", help="no progress bar, and the speedup table only")
    run.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> None:
    """Trace × machine × passes → a table, and files where asked for."""
    from accelsim import open_trace
    from accelsim.hardware.machine import baseline_of, load_machine
    from accelsim.simulate import simulate_records
    from accelsim.study import export, tables
    from accelsim.study.paper import table6
    from accelsim.study.results import convolutions, covers, frame, summarize

    machine = load_machine(options.config)
    baseline = None
    if options.baseline != "none":
        baseline = baseline_of(machine) if options.baseline == "dadiannao" else load_machine(options.baseline)
    if baseline and baseline.name == machine.name:
        baseline = baseline.model_copy(update={"name": f"{baseline.name} (baseline)"})
    machines = [machine, baseline] if baseline else [machine]
    if options.out:
        export.check_writable(options.out)
    with open_trace(options.trace) as trace, _progress(options) as progress:
        records = simulate_records(
            machines, trace, passes=options.passes, layers=options.layers, snapshots=options.snapshots,
            jobs=options.jobs or _cores(), progress=progress,
        )  # fmt: skip
        table = frame(records)
        other = baseline and baseline.name
        everything = summarize(table, machine.name, other)
        chosen = summarize(convolutions(table), machine.name, other)
        origin = export.provenance(trace, machines, options.command_line)
        paper = [
            table6(trace.network, trace.dataset, row["sparsity"]) if covers(table, trace) else {}
            for row in chosen.speedup
        ]
    shown = {"full": not options.quiet, "explain": options.explain}
    parts = list(tables.summary(chosen, everything, table, paper, **shown))
    data = export.report(chosen, everything, table, paper, origin)
    if options.out:
        export.write_results(options.out, table, data, tables.render(parts))
    print(export.to_json(data) if options.json else tables.render(parts, sys.stdout.isatty()), end="")


def _info(options: argparse.Namespace) -> None:
    """What a file holds; its ending says which of the two it is."""
    from accelsim.files import find
    from accelsim.study import describe, export, tables

    is_trace = Path(options.file).suffix == ".npz"
    path = find(options.file, *(("traces", TraceError) if is_trace else ("configs", ConfigError)))
    if is_trace:
        from accelsim.workload.trace import Trace

        with Trace.open(path) as trace:
            facts = describe.trace_facts(trace)
        parts = describe.trace_tables(facts)
    else:
        from accelsim.hardware.machine import load_machine

        machine = load_machine(path)
        facts = machine.resolved() | {"multipliers": machine.accelerator.multipliers}
        parts = describe.machine_tables(machine, str(path))
    print(export.to_json(facts) if options.json else tables.render(parts, sys.stdout.isatty()), end="")


def _schema(options: argparse.Namespace) -> None:
    from accelsim.hardware.machine import schema
    from accelsim.study.export import to_json

    print(to_json(schema()), end="")


@contextmanager
def _progress(options: argparse.Namespace) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; nothing where output is piped, quiet or JSON."""
    if options.quiet or options.json or not (sys.stderr.isatty() and sys.stdout.isatty()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TextColumn("layers"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _list(text: str) -> list[str]:
    """``a,b`` as names."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def _jobs(text: str) -> int:
    """A number of threads."""
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"must be an integer in 1…1024, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
