"""``accelsim ask``: from a trained network to what its zeros would buy, in sentences."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.commands.shared import Commands, add_code, add_format, cores, jobs, names, progress, shape, show_as
from accelsim.errors import AccelsimError, ConfigError, OutputError, TraceError
from accelsim.workload.lowering import PASSES

if TYPE_CHECKING:
    from accelsim.study.compare import Comparison
    from accelsim.workload.synthetic import SyntheticTrace
    from accelsim.workload.trace import Trace

TRIED = 3  # layers of each pass that changes of the best machine are tried on
# One of each kind: skips weights' zeros, the sparser operand's, both operands'; a fixed pattern; the bound.
BOUND = "ideal"
MACHINES = ("tensordash", "cambricon-x", "scnn", "ampere", BOUND)


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "ask",
        parents=[common],
        help="say in sentences what the zeros of a trained network would buy on accelerators",
        description="FILE is a trace (.npz), an ONNX model or whatever else accelsim import reads; or the name of a "
        "model, or a file with its shapes, with a CHECKPOINT behind it: accelsim ask resnet50 pruned.pt. What the file "
        "does not hold is drawn, and told. Cycles are counted, not estimated; compare and run have the details.",
    )
    add = command.add_argument
    add("file", metavar="FILE", help="a trace, a model file, or the name of a model, such as package.module:factory")
    add("checkpoint", metavar="CHECKPOINT", nargs="?", type=Path, help="weights of the model that FILE is")
    add("--input", metavar="N,C,…", type=shape, default=(1, 3, 224, 224), help="of a model given by name (1,3,224,224)")
    add("--like", metavar="TRACE", help="draw what the file does not hold like a real trace, e.g. resnet50.npz")
    text = "share of non-zeros of activations that are drawn (0.5: ReLU's, about)"
    add("--density-activation", type=float, default=0.5, metavar="X", help=text)
    add("--training", action="store_true", help="of a file without gradients too: draw them, for the training step")
    text = f"machines to ask (default: {','.join(MACHINES)}; ideal: what all zeros skipped would be)"
    add("--machines", type=names, default=[f"{name}.yaml" for name in MACHINES], metavar="FILE,…", help=text)
    add("--layers", type=names, default=["*"], metavar="GLOB,…", help="layers, e.g. 'layer1.*,conv1'")
    add("--snapshots", type=names, metavar="NAME,…", help="snapshots of a trace (default: all)")
    add("--jobs", type=jobs, metavar="N", help="layers simulated at once (default: one per core)")
    add_code(command)
    text = "write answer.json, machines.csv, summary.txt and, with accelsim-sparse[report], report.html"
    add("--out", type=Path, metavar="DIR", help=text)
    add_format(command)
    add("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(command=ask)


def ask(options: argparse.Namespace) -> None:
    """A network with zeros → sentences, with the table behind them."""
    from accelsim.hardware.machine import load_machine

    machines = [load_machine(file, allow_code=options.allow_code) for file in options.machines]
    if {machine.name for machine in machines} <= {BOUND}:
        raise ConfigError(f"machines: must name one besides {BOUND}, which is what no machine passes")
    if options.out:
        from accelsim.study.export import check_writable

        check_writable(options.out)
    with _network(options) as (trace, passes, told):
        from accelsim.study import answer, compare, export, layout, tables

        how = {"jobs": options.jobs or cores()}
        with progress(options) as tell:
            comparison = compare.compare(
                machines, trace, passes=passes, layers=options.layers, snapshots=options.snapshots, progress=tell, **how
            )
        data = answer.facts(comparison, trace, machines, options.snapshots)
        with progress(options) as tell:
            answer.add_limits(data, comparison, trace, machines, most=TRIED, progress=tell, **how)
        covered = [text.plain for text in tables.coverage_notes(trace.snapshots, options.snapshots)]
        origin = export.provenance(trace, machines, options.command_line) | {"files": _digests(options)}
    data |= {"told": told, "coverage": covered, "provenance": origin}
    parts = [*answer.sentences(data), *told, *covered]
    if options.out:
        parts.append(_written(options.out, comparison, data | compare.facts(comparison), layout.rendered(parts)))
    show_as(options, parts, data)


def _written(folder: Path, comparison: Comparison, data: dict[str, Any], text: str) -> str:
    """Writes the answer and its report, all or none; where the report is, or what it needs."""
    from accelsim.files import staged
    from accelsim.study import answer
    from accelsim.study.report import write_report

    with staged(folder) as stage:
        answer.write(stage, comparison, data, text)
        try:
            return f"\nin {folder / write_report(stage).name}"
        except OutputError:
            raise
        except AccelsimError as error:  # without Plotly
            return f"\nin {folder}, without a report: {error}"


def _digests(options: argparse.Namespace) -> dict[str, str]:
    """Of the files that were read."""
    from hashlib import sha256

    files = [path for path in (Path(options.file), options.checkpoint) if path and path.is_file()]
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def _network(options: argparse.Namespace) -> Iterator[tuple[Any, tuple[str, ...], list[str]]]:
    """What is asked about, the passes that are simulated, and where its tensors come from."""
    from accelsim import open_trace
    from accelsim.files import find

    if options.checkpoint is None and options.file.lower().endswith(".npz"):
        from accelsim.workload.importers.trace import tells

        path = find(options.file, "traces", TraceError)
        if tells(path):  # another .npz is a file of arrays, which import reads
            with open_trace(path) as trace:
                yield trace, PASSES, []
            return
    like = options.like and find(options.like, "traces", TraceError)
    if like is None:
        yield _imported(options, None)
        return
    with open_trace(like) as reference:
        yield _imported(options, reference)


def _imported(options: argparse.Namespace, like: Trace | None) -> tuple[SyntheticTrace, tuple[str, ...], list[str]]:
    from accelsim.workload.importers import read, said, to_trace

    how: dict[str, Any] = {}
    path = Path(options.file)
    if options.checkpoint is not None:
        how["topology"], path = path, options.checkpoint
        if not how["topology"].is_file():
            from accelsim.capture.shapes import topology

            how["topology"] = topology(options.file, options.input, allow_code=options.allow_code)
    imported = read(path, "auto", **how)
    trace = to_trace(imported, (0.0,), density_activation=options.density_activation, like=like)
    told = list(said.lines(imported, trace.provenance["tensors"]))
    return trace, PASSES if options.training else ("fwd",), ["", "Where the tensors come from:", *told]
