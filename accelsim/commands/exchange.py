"""``accelsim import`` and ``accelsim export``: files of other tools."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.commands.shared import Commands, show
from accelsim.errors import AccelsimError, OutputError, TraceError
from accelsim.files import find, staged

if TYPE_CHECKING:
    from accelsim.workload.trace import Snapshot, Trace


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds both commands and their arguments."""
    _add_import(commands, common)
    _add_export(commands, common)


def _add_import(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "import",
        parents=[common],
        help="make a trace of another tool's file: SCALE-Sim, DNNsim, ONNX, PyTorch",
        description="Reads layers, and weights and activations where the file holds them, and writes a trace. What the "
        "file does not hold is drawn from a seed: at given densities, or like a real trace.",
    )
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="topology .csv, DNNsim's folder, .onnx, .pt, .safetensors, or a trace")
    add("--format", default="auto", metavar="NAME", help="scalesim, dnnsim, onnx, pytorch or trace (default: by name)")
    add("--out", required=True, type=Path, metavar="FILE", help="the trace (.npz)")
    add("--force", action="store_true", help="replace the trace if it exists")
    add("--sparsity", type=_numbers, default=(0.0,), metavar="S,…", help="a snapshot for each, e.g. 0,0.8,0.9 (0)")
    add("--density-activation", type=float, default=0.5, metavar="X", help="of activations that are drawn (0.5)")
    add("--density-gradient", type=float, default=1.0, metavar="X", help="of output gradients that are drawn (1)")
    add("--like", metavar="TRACE", help="draw masks like those of a real trace, e.g. resnet50.npz")
    add("--topology", metavar="FILE", help="strides and sizes for PyTorch's weights: .csv, .onnx or a trace")
    add("--tensors", type=Path, metavar="DIR", help="DNNsim's .npy files (default: net_traces/NETWORK, or beside)")
    add(
        "--batch",
        type=int,
        metavar="N",
        help="samples of the training batch (default: as in the file or in --like, or 1)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of what is drawn (0)")
    parser.set_defaults(command=lambda options: show(_import(options)))


def _import(options: argparse.Namespace) -> str:
    """Another tool's file → a trace, and a line about it."""
    from accelsim.workload.importers import read, to_trace
    from accelsim.workload.synthetic import write
    from accelsim.workload.trace import Trace

    if options.out.exists() and not options.force:
        raise OutputError(f"{options.out}: exists; --force replaces it")
    path, topology = options.file, options.topology
    if path.suffix == ".npz":
        path = find(path, "traces", TraceError)
    if topology and topology.endswith(".npz"):
        topology = find(topology, "traces", TraceError)
    imported = read(path, options.format, topology=topology, tensors=options.tensors)
    how = {"density_activation": options.density_activation, "density_gradient": options.density_gradient}
    how |= {"batch": options.batch, "seed": options.seed}
    if options.like:
        with Trace.open(find(options.like, "traces", TraceError)) as like:
            trace = to_trace(imported, options.sparsity, like=like, **how)
    else:
        trace = to_trace(imported, options.sparsity, **how)
    write(trace, options.out)
    held = sorted({tensor for layer in imported.layers for tensor in layer.tensors})
    lines = [f"{options.out}: {len(imported.layers)} layers × {len(trace.snapshots)} snapshots of {imported.network}"]
    lines.append(f"from the file: {', '.join(['shapes', *held])}; the rest is drawn with seed {options.seed}")
    if imported.left_out:
        lines.append(f"left out, no layer with a weight: {', '.join(imported.left_out)}")
    return "\n".join(lines) + "\n"


def _numbers(text: str) -> tuple[float, ...]:
    """``0,0.8`` as numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between, got {text}") from None


def _add_export(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "export",
        parents=[common],
        help="write a trace or results as files of another tool: Timeloop, SCALE-Sim",
        description="A trace as Timeloop problems with measured densities or as a SCALE-Sim topology; the results of "
        "accelsim run --out as SCALE-Sim's reports.",
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--trace", metavar="FILE", help="trace, e.g. resnet50.npz")
    what.add_argument("--results", type=Path, metavar="DIR", help="folder of accelsim run --out")
    add("--format", required=True, metavar="NAME", help="timeloop (of a trace), scalesim (of a trace or results)")
    add("--out", required=True, type=Path, metavar="DIR", help="folder for the files, new or empty")
    add("--snapshot", metavar="NAME", help="of the trace (default: the first that is sparse)")
    add("--layers", default="*", metavar="GLOB", help="layers of the trace, e.g. 'layer1.*'")
    parser.set_defaults(command=lambda options: show(_export(options)))


def _export(options: argparse.Namespace) -> str:
    """A trace or results → files, and a line about them."""
    if options.out.is_dir() and any(options.out.iterdir()):
        raise OutputError(f"{options.out}: must be new or an empty folder, has files in it")
    if options.results is not None:
        if options.format != "scalesim":
            raise AccelsimError(f"format: must be scalesim for results, got {options.format}")
        from accelsim.study.scalesim_reports import reports

        return _written(options.out, reports(options.results))
    from accelsim.workload.synthetic import reference_of
    from accelsim.workload.trace import Trace

    with Trace.open(find(options.trace, "traces", TraceError)) as trace:
        snapshot = reference_of(trace, options.snapshot)
        layers = tuple(layer for layer in snapshot.layers if fnmatchcase(layer.name, options.layers))
        if not layers:
            raise AccelsimError(f"layers: must match a layer of the trace, got {options.layers}")
        return _written(options.out, _exported(replace(snapshot, layers=layers), trace, options.format))


def _exported(snapshot: Snapshot, trace: Trace, format: str) -> Iterator[tuple[str, str]]:
    if format == "timeloop":
        from accelsim.workload.exporters.timeloop import problems

        yield from problems(snapshot)
    elif format == "scalesim":
        from accelsim.workload.exporters.scalesim import topology

        yield f"{trace.network.replace('/', '-')}.csv", topology(snapshot)
    else:
        raise AccelsimError(f"format: must be timeloop or scalesim, got {format}")


def _written(folder: Path, files: Iterable[tuple[str, str]]) -> str:
    count = 0
    with staged(folder) as stage:
        for name, text in files:
            (stage / name).parent.mkdir(exist_ok=True)
            (stage / name).write_text(text, encoding="utf-8")
            count += 1
    return f"{folder}: {count} files\n"
