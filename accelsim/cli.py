"""The command line: thin. It reads arguments, calls the library, prints, and turns errors into one line and a code.

Exit codes: 0 done, 2 bad input or output, 130 interrupted (Ctrl-C), 1 a defect of accelsim, or a figure that
``reproduce`` should reach and does not.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from accelsim import __version__
from accelsim.commands import sweep
from accelsim.commands.shared import cores as _cores
from accelsim.commands.shared import is_terminal as _is_terminal
from accelsim.commands.shared import jobs as _jobs
from accelsim.commands.shared import names as _list
from accelsim.commands.shared import progress as _progress
from accelsim.commands.shared import show as _print
from accelsim.errors import AccelsimError, ConfigError, TraceError, printable
from accelsim.workload.lowering import PASSES


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments, argparse.Namespace(command_line=["accelsim", *arguments]))
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # a terminal that cannot show × gets a ? instead of a failure
    try:
        return options.command(options) or 0
    except AccelsimError as error:
        return _failed(options, 2, f"accelsim: error: {error}")
    except KeyboardInterrupt as interrupt:
        return _failed(options, 130, f"accelsim: interrupted; {str(interrupt) or 'nothing was written'}")
    except BrokenPipeError:
        _forget_output()  # its reader has gone, as `head` does; what it wanted it has got
        return 0
    except OSError as error:
        _forget_output()
        return _failed(options, 2, f"accelsim: error: {error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:
        return _failed(options, 2, "accelsim: error: out of memory; fewer --jobs need less")
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return _failed(options, 1, f"accelsim: defect: {text}; --debug shows where, please report it")


def _failed(options: argparse.Namespace, code: int, line: str) -> int:
    if options.debug:
        raise
    if sys.stderr:
        print(printable(line), file=sys.stderr)
    return code


def _forget_output() -> None:
    """What could not be written would fail once more when Python ends."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error does."""

    def error(self, message: str):
        self.exit(2, printable(f"accelsim: error: {message}; see {self.prog} --help") + "\n")


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(
        prog="accelsim", description="What would sparsity in your training run buy on an accelerator? Cycle by cycle."
    )
    parser.add_argument("--version", action="version", version=f"accelsim {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands, common)
    sweep.add(commands, common)
    _add_capture(commands, common)
    _add_reproduce(commands, common)
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


def _add_capture(commands, common) -> None:
    capture = commands.add_parser(
        "capture",
        parents=[common],
        help="train a model with SWAT and record a trace of it (needs PyTorch: pip install 'accelsim[capture]')",
        description="Trains a model with SWAT for some steps, for each sparsity from the same weights, and records "
        "what the convolutions of chosen steps multiply. Ctrl-C leaves a valid trace of the steps recorded so far.",
    )
    add = capture.add_argument
    add(
        "--model",
        required=True,
        metavar="NAME",
        help="e.g. resnet50, cifar_resnet18, or your own module:factory",
    )
    add("--out", required=True, type=Path, metavar="FILE", help="the trace (.npz)")
    add("--force", action="store_true", help="replace the trace if it exists")
    add("--data", type=Path, metavar="PATH", help="images by class, CIFAR-10/100, or .npz (default: synthetic images)")
    add(
        "--weights", type=_paths, default=(), metavar="FILE,…", help="checkpoint for all runs, or one for each sparsity"
    )
    add(
        "--sparsity", dest="sparsities", type=_numbers(float), default=(0.8,), metavar="S,…", help="e.g. 0,0.8,0.9; 0.8"
    )
    add("--steps", type=int, default=10, metavar="N", help="iterations for each sparsity (10)")
    add("--batch", type=int, default=32, metavar="N", help="samples of an iteration (32)")
    add("--record", type=_numbers(int), metavar="STEP,…", help="iterations to record, from 0 (default: the last)")
    add("--samples", type=int, default=1, metavar="N", help="samples of the batch to keep (1)")
    add("--values", action="store_true", help="keep numbers instead of masks")
    add("--learning-rate", type=float, default=0.1, metavar="X", help="of SGD (0.1)")
    add("--momentum", type=float, default=0.9, metavar="X", help="of SGD (0.9)")
    add("--weight-decay", type=float, default=1e-4, metavar="X", help="of SGD (0.0001)")
    add("--label-smoothing", type=float, default=0.0, metavar="X", help="of the loss (0)")
    add("--schedule", default="constant", metavar="NAME", help="of the learning rate: constant, cosine or step")
    add("--decay-at", type=_numbers(int), default=(), metavar="STEP,…", help="where --schedule step divides it by 10")
    add("--warmup", type=int, default=0, metavar="N", help="iterations over which the learning rate rises (0)")
    add("--precision", default="fp32", metavar="NAME", help="fp32 or bf16")
    add("--device", metavar="NAME", help="cpu, cuda, … (default: cuda where there is one)")
    add("--seed", type=int, default=0, metavar="N", help="of weights, batches and synthetic images (0)")
    add("--num-classes", type=int, metavar="N", help="where the data does not say")
    add("--image-size", type=int, metavar="N", help="height and width of the images of a folder, or synthetic ones")
    add("--augment", action="store_true", help="random crops and flips")
    add("--network", metavar="NAME", help="name of the network in the trace (default: the model's)")
    add("--dataset", metavar="NAME", help="name of the data set in the trace (default: that of its folder)")
    add(
        "--distribution",
        default="uniform",
        metavar="NAME",
        help="of the sparsity over layers: uniform, erk or momentum",
    )
    add("--structure", default="unstructured", metavar="NAME", help="unstructured, or channel")
    add("--activation-sparsity", type=float, metavar="S", help="where it differs from the weights'")
    add("--activation-scope", default="NCHW", metavar="NAME", help="within what Top-K selects: NCHW, CHW or HW")
    add("--period", type=int, default=1, metavar="N", help="iterations between exact thresholds (1)")
    add("--quiet", action="store_true", help="no progress bar")
    capture.set_defaults(command=_capture)


def _add_reproduce(commands, common) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        parents=[common],
        help="compute the paper's figures and compare them with what the paper prints",
        description="Ours, the paper's, the difference, and a verdict with its tolerance. Exit code 1 when a figure "
        "differs that should agree.",
    )
    add = reproduce.add_argument
    add("figures", nargs="*", metavar="FIGURE", help="e.g. table3, eq7, all (default: list them)")
    add("--trace", default="resnet50.npz", metavar="FILE", help="captured run for Tables 2, 3 and 6 (resnet50.npz)")
    add("--layers", type=_list, default=["*"], metavar="GLOB,…", help="simulate only these, e.g. 'layer4.*'")
    add("--jobs", type=_jobs, metavar="N", help="layers simulated at once (default: one per core)")
    add("--measure", action="store_true", help="measure Table 9 here instead of showing a recorded run")
    add("--out", type=Path, metavar="DIR", help="write reproduction.csv, .md, .html and .json")
    add("--json", action="store_true", help="one JSON object on stdout and nothing else")
    add("--quiet", action="store_true", help="no progress bar, and the comparisons only")
    reproduce.set_defaults(command=_reproduce)


def _capture(options: argparse.Namespace) -> None:
    """Training → trace."""
    try:
        from accelsim.capture.train import Plan, capture, last_of
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise AccelsimError("capture needs PyTorch: pip install 'accelsim[capture]'") from error
    from accelsim.study.tables import capture_tables, render

    swat = ("distribution", "structure", "activation_sparsity", "activation_scope", "period")
    other = ("command", "command_line", "debug", "quiet", *swat)
    plan = Plan(
        **{name: value for name, value in vars(options).items() if name not in other},
        swat={name: getattr(options, name) for name in swat},
    )
    with _training_bar(options) as tell:
        history = capture(plan, tell)
    _print(render(capture_tables(list(last_of(history)), plan.out), _is_terminal(sys.stdout)))


def _run(options: argparse.Namespace) -> None:
    """Trace × machine × passes → a table, and files where asked for."""
    from accelsim import open_trace
    from accelsim.hardware.machine import baseline_of, load_machine
    from accelsim.simulate import simulate_records

    machine = load_machine(options.config)
    baseline = None
    if options.baseline != "none":
        baseline = baseline_of(machine) if options.baseline == "dadiannao" else load_machine(options.baseline)
    if baseline and baseline.name == machine.name:
        baseline = baseline.model_copy(update={"name": f"{baseline.name} (baseline)"})
    machines = [machine, baseline] if baseline else [machine]

    # After the machine is known to be one: pandas takes its time.
    from accelsim.study import export, tables
    from accelsim.study.paper import table6
    from accelsim.study.results import convolutions, covers, frame, summarize

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
        comparable = covers(table, trace)
        paper = [table6(trace.network, trace.dataset, row["sparsity"]) if comparable else {} for row in chosen.speedup]
    shown = {"full": not options.quiet, "explain": options.explain}
    parts = list(tables.summary(chosen, everything, table, paper, **shown))
    data = export.report(chosen, everything, table, paper, origin)
    if options.out:
        export.write_results(options.out, table, data, tables.render(parts))
    _print(export.to_json(data, ascii_only=True) if options.json else tables.render(parts, _is_terminal(sys.stdout)))


def _reproduce(options: argparse.Namespace) -> int:
    """Figures by name → comparisons; 1 if one fails that should hold."""
    from accelsim.study import export, tables
    from accelsim.study.reproduction import catalogue, page
    from accelsim.study.reproduction.session import Session

    known = {name: what for name, (what, _) in catalogue.FIGURES.items()}
    if not options.figures:
        parts = tables.render(page.listing(known), _is_terminal(sys.stdout))
        _print(export.to_json(known, ascii_only=True) if options.json else parts)
        return 0
    catalogue.check(options.figures)
    if options.out:
        export.check_writable(options.out)
    with _progress(options) as progress:
        session = Session(options.trace, options.layers, options.jobs or _cores(), options.measure, progress)
        figures = catalogue.reproduce(options.figures, session)
        with session.trace() as trace:
            origin = export.provenance(trace, session.machines(), options.command_line)
    if options.out:
        page.write(options.out, figures, origin)
    text = tables.render(page.text(figures, not options.quiet), _is_terminal(sys.stdout))
    _print(export.to_json(page.report(figures, origin), ascii_only=True) if options.json else text)
    return int(any(figure.failures for figure in figures))


def _info(options: argparse.Namespace) -> None:
    """What a file holds; its ending says which of the two it is."""
    from accelsim.files import find
    from accelsim.study import describe, export, tables

    is_trace = Path(options.file).suffix.lower() == ".npz"
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
    _print(export.to_json(facts, ascii_only=True) if options.json else tables.render(parts, _is_terminal(sys.stdout)))


def _schema(options: argparse.Namespace) -> None:
    from accelsim.hardware.machine import schema
    from accelsim.study.export import to_json

    _print(to_json(schema(), ascii_only=True))


@contextmanager
def _training_bar(options: argparse.Namespace) -> Iterator[Callable]:
    """A bar with loss, accuracy, sparsity reached and time left, on a terminal."""
    if options.quiet or not _is_terminal(sys.stderr, sys.stdout):
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("training", total=options.steps * len(options.sparsities))

        def tell(p) -> None:
            told = f"Top-K {100 * p.sparsity:g} %  loss {p.loss:.3f}  accuracy {100 * p.accuracy:.0f} %"
            bar.update(task, advance=1, description=f"{told}  zeros {100 * p.weight_sparsity:.1f} % of weights")

        yield tell


def _paths(text: str) -> tuple[Path, ...]:
    """``a,b`` as paths."""
    return tuple(Path(name) for name in _list(text))


def _numbers(kind: type) -> Callable[[str], tuple]:
    """``1,2`` as numbers of a kind."""

    def parse(text: str) -> tuple:
        try:
            return tuple(kind(part) for part in _list(text))
        except ValueError:
            name = {int: "integers", float: "numbers"}[kind]
            raise argparse.ArgumentTypeError(f"must be {name} with commas between, got {text}") from None

    return parse


if __name__ == "__main__":
    sys.exit(main())
