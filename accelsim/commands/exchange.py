"""``accelsim import`` and ``accelsim export``: files of other tools."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.commands.shared import Commands, shape, show
from accelsim.errors import AccelsimError, OutputError, TraceError
from accelsim.files import find, staged
from accelsim.workload.formats import ENOUGH, OPTIONS, listed, named, readers, writers

if TYPE_CHECKING:
    pass


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds both commands and their arguments."""
    _add_import(commands, common)
    _add_export(commands, common)


def _add_import(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "import",
        parents=[common],
        help=f"make a trace of another tool's file: {', '.join(row.name for row in readers())}",
        description="Reads layers, and weights and activations where the file holds them, and writes a trace. What the "
        "file does not hold is drawn from a seed: at given densities, or like a real trace. Which is which is printed "
        f"and kept in the trace. Formats: {listed(readers())}.",
    )
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="a file of one of the formats, or a folder with one for each layer")
    names = ", ".join(row.name for row in readers())
    add("--format", default="auto", metavar="NAME", help=f"one of {names} (default: by the file's name and content)")
    add("--out", required=True, type=Path, metavar="FILE", help="the trace (.npz)")
    add("--force", action="store_true", help="replace the trace if it exists")
    add("--strict", action="store_true", help=f"fail if less than {100 * ENOUGH:g} %% of the multiplications is read")
    add("--sparsity", type=_numbers, default=(0.0,), metavar="S,…", help="a snapshot for each, e.g. 0,0.8,0.9 (0)")
    add("--density-activation", type=float, default=0.5, metavar="X", help="of activations that are drawn (0.5)")
    add("--density-gradient", type=float, default=1.0, metavar="X", help="of output gradients that are drawn (1)")
    add("--like", metavar="TRACE", help="draw masks like those of a real trace, e.g. resnet50.npz")
    for name, (metavar, text) in OPTIONS.items():
        takers = ", ".join(row.name for row in readers() if name in row.options)
        kinds: dict[str, Callable[[str], Any]] = {"size": _sizes, "batch_axis": int, "map": _pairs}
        add(f"--{name.replace('_', '-')}", metavar=metavar, type=kinds.get(name, str), help=f"{text}; {takers}")
    text = "a PyTorch model in place of a --topology: one of accelsim capture's, or your own package.module:factory"
    add("--model", metavar="NAME", help=text)
    add("--input", type=shape, default=(1, 3, 224, 224), metavar="N,C,…", help="of the --model (1,3,224,224)")
    add("--allow-code", action="store_true", help="import a --model of your own, which runs its code")
    add(
        "--batch",
        type=int,
        metavar="N",
        help="samples of the training batch (default: as in the file or in --like, or 1)",
    )
    add("--nm", metavar="N:M", help="leave N of each M weights, the greatest, as SR-STE and ASP do, e.g. 2:4")
    add("--axis", choices=("channels", "filters"), default="channels", help="along which --nm groups them (channels)")
    add("--seed", type=int, default=0, metavar="N", help="of what is drawn (0)")
    parser.set_defaults(command=lambda options: show(_import(options)))


def _import(options: argparse.Namespace) -> str:
    """Another tool's file → a trace, and lines about it."""
    from accelsim.workload.importers import read, said, to_trace
    from accelsim.workload.importers.nm import Pattern
    from accelsim.workload.synthetic import write
    from accelsim.workload.trace import Trace

    if options.out.exists() and not options.force:
        raise OutputError(f"{options.out}: exists; --force replaces it")
    given = {name: getattr(options, name) for name in OPTIONS}
    given["topology"] = given["topology"] and _found(Path(given["topology"]))
    if options.model:
        from accelsim.capture.shapes import topology

        given["topology"] = topology(options.model, options.input, allow_code=options.allow_code)
    imported = read(_found(options.file), options.format, **given)
    if options.strict:
        said.check_enough(imported)
    how = {"density_activation": options.density_activation, "density_gradient": options.density_gradient}
    how |= {"batch": options.batch, "seed": options.seed}
    if options.nm:
        how["pattern"] = Pattern.parse(options.nm, options.axis)
    if options.like:
        with Trace.open(find(options.like, "traces", TraceError)) as like:
            trace = to_trace(imported, options.sparsity, like=like, **how)
    else:
        trace = to_trace(imported, options.sparsity, **how)
    write(trace, options.out)
    count = f"{len(imported.layers)} layers × {len(trace.snapshots)} snapshots of {imported.network}"
    seed = f"; what is drawn is with seed {options.seed}"
    first = f"{options.out}: {count}, from {imported.path.name} ({imported.format}){seed}"
    return "\n".join([first, *said.lines(imported, trace.provenance["tensors"])]) + "\n"


def _found(path: Path) -> Path:
    """A file as given, or a shipped trace of that name."""
    return find(path, "traces", TraceError) if path.suffix == ".npz" else path


def _sizes(text: str) -> dict[str, int]:
    """``B=4,H=8`` as numbers by name."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and size.isascii() and size.isdecimal() and int(size[:9]) for name, _, size in pairs):
        raise argparse.ArgumentTypeError(f"must be NAME=N with commas between, got {text[:40]}")
    return {name.strip(): int(size[:9]) for name, _, size in pairs}


def _pairs(text: str) -> dict[str, str]:
    """``conv1=stem.0.weight,…`` as names by name."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and other.strip() for name, _, other in pairs):
        raise argparse.ArgumentTypeError(f"must be LAYER=TENSOR with commas between, got {text[:40]}")
    return {name.strip(): other.strip() for name, _, other in pairs}


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
        help=f"write a trace or results as files of another tool: {', '.join(row.name for row in writers())}",
        description="A trace as files of another tool; the results of accelsim run --out as SCALE-Sim's reports.",
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--trace", metavar="FILE", help="trace, e.g. resnet50.npz")
    what.add_argument("--results", type=Path, metavar="DIR", help="folder of accelsim run --out")
    names = ", ".join(row.name for row in writers())
    add("--format", required=True, metavar="NAME", help=f"of a trace: {names}; of results: scalesim")
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
        row = named(options.format, writers())
        if row is None:
            raise AccelsimError(f"format: must be one of {listed(writers())}; got {options.format}")
        from accelsim.workload.exporters import files

        return _written(options.out, files(row, replace(snapshot, layers=layers), trace.network))


def _written(folder: Path, files: Iterable[tuple[str, str]]) -> str:
    count = 0
    with staged(folder) as stage:
        for name, text in files:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).write_text(text, encoding="utf-8")
            count += 1
    return f"{folder}: {count} files\n"
