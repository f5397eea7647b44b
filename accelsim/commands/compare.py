"""``accelsim compare``: one trace on many machines, multiplier for multiplier."""

from __future__ import annotations

import argparse
from pathlib import Path

from accelsim.commands.shared import Commands, add_code, add_format, cores, jobs, names, progress, show_as
from accelsim.workload.lowering import PASSES


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "compare",
        parents=[common],
        help="simulate a trace on many machines and compare them, multiplier for multiplier",
        description="Speedup over as many multipliers that are always busy, and its two factors: the gain over the "
        "machine's own dense self, which sparsity buys, and that self's share of the time, which shape costs; bytes, "
        "energy, and which zeros each machine can skip. A machine that cannot run the trace is listed with its reason.",
    )
    add = command.add_argument
    add("--trace", required=True, metavar="FILE", help="trace, e.g. resnet50.npz")
    add("--machines", type=names, metavar="FILE,…", help="e.g. pe16x16.yaml,tensordash.yaml (default: all that ship)")
    text = "another value for a key, e.g. accelerator.lanes=8, on all machines that have it, or, with its name before, "
    text += "tensordash:accelerator.lanes=8, on one; repeatable"
    add("--set", dest="settings", action="append", default=[], metavar="[NAME:]KEY=VALUE", help=text)
    add_code(command)
    add("--passes", type=names, default=list(PASSES), metavar="P,…", help=f"of {','.join(PASSES)}")
    add("--layers", type=names, default=["*"], metavar="GLOB,…", help="layers, e.g. 'layer1.*,conv1'")
    add("--snapshots", type=names, metavar="NAME,…", help="snapshots of the trace (default: all)")
    add("--jobs", type=jobs, metavar="N", help="layers simulated at once (default: one per core)")
    add("--out", type=Path, metavar="DIR", help="write machines.csv, machines.parquet, compare.json, summary.txt")
    add("--plot", type=_picture, metavar="FILE", help="draw the speedups: .png or .svg")
    add_format(command)
    add("--quiet", action="store_true", help="no progress bar, and the tables without what explains them")
    command.set_defaults(command=compare)


def compare(options: argparse.Namespace) -> None:
    """Trace × machines × passes → a table per snapshot, and files where asked for."""
    from accelsim import open_trace
    from accelsim.files import shipped
    from accelsim.hardware.machine import load_machine, with_settings

    files = sorted(shipped("configs").glob("*.yaml")) if options.machines is None else options.machines
    machines = [load_machine(file, allow_code=options.allow_code) for file in files]
    machines = with_settings(machines, options.settings, allow_code=options.allow_code)

    # After the machines are known to be some: pandas takes its time.
    from accelsim.study import compare, export, layout, tables

    if options.out:
        export.check_writable(options.out)
    if options.plot:
        export.check_writable(options.plot.parent)
    with open_trace(options.trace) as trace, progress(options) as tell:
        comparison = compare.compare(
            machines, trace, passes=options.passes, layers=options.layers, snapshots=options.snapshots,
            jobs=options.jobs or cores(), progress=tell,
        )  # fmt: skip
        origin = export.provenance(trace, machines, options.command_line)
        title = f"{trace.network} on {trace.dataset}"
        covered = list(tables.coverage_notes(trace.snapshots, options.snapshots))
    parts = [*compare.shown(comparison, notes=not options.quiet), *covered]
    data = compare.report(comparison, origin)
    if options.out:
        compare.write(options.out, comparison, data, layout.rendered(parts))
    if options.plot:
        from accelsim.study.compare_plot import write_plot

        write_plot(options.plot, comparison, title, origin)
    show_as(options, parts, data)


def _picture(text: str) -> Path:
    """A file whose ending says what it is to be."""
    if Path(text).suffix.lower() not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"must end in .png or .svg, got {text[-40:]}")
    return Path(text)
