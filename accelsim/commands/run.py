"""``accelsim run``: one trace on one machine, against itself at Top-K 0 % and a dense machine of its size."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.commands import over_time
from accelsim.commands.shared import (
    Commands,
    add_code,
    add_format,
    add_settings,
    at_least_one,
    cores,
    jobs,
    names,
    progress,
    settings_of,
    show_as,
)  # fmt: skip
from accelsim.workload.lowering import PASSES

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.hardware.machine import Machine
    from accelsim.workload.trace import Trace

# Sections of a machine that ``run`` takes from another file, and one that is shipped.
SECTIONS = {"memory": "ddr4.yaml", "energy": "28nm.yaml", "overheads": "swat.yaml"}


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "run",
        parents=[common],
        help="simulate a trace on a machine and print its speedups as the paper's Table 6",
        description="Counts the cycles of each pass of each layer of a trace on a machine. FILE names without a path "
        "are looked up here, then among the files that accelsim ships.",
    )
    command.add_argument("--config", required=True, metavar="FILE", help="machine, e.g. pe16x16.yaml")
    command.add_argument("--trace", required=True, metavar="FILE", help="trace, e.g. resnet50.npz")
    command.add_argument("--passes", type=names, default=list(PASSES), metavar="P,…", help=f"of {','.join(PASSES)}")
    command.add_argument("--layers", type=names, default=["*"], metavar="GLOB,…", help="layers, e.g. 'layer1.*,conv1'")
    command.add_argument("--snapshots", type=names, metavar="NAME,…", help="snapshots of the trace (default: all)")
    command.add_argument(
        "--baseline", default="dadiannao", metavar="FILE",
        help="machine to compare with; by default a DaDianNao with as many multipliers; none: no comparison",
    )  # fmt: skip
    for section in SECTIONS:
        other = f"{section} section of both machines: of this file instead, or none"
        command.add_argument(f"--{section}", metavar="FILE", help=f"{other}, e.g. {SECTIONS[section]}")
    add_settings(command, ". A --baseline FILE keeps its own, the default baseline follows the machine")
    add_code(command)
    command.add_argument("--jobs", type=jobs, metavar="N", help="layers simulated at once (default: one per core)")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write tables, run.json, summary.txt, action_counts.yaml"
    )
    command.add_argument(
        "--plots", type=Path, metavar="DIR", help="write pictures (PNG, SVG): cycles, roofline, speedup"
    )
    command.add_argument(
        "--timeline", type=Path, metavar="FILE", help="write what happened when, for Perfetto: .json[.gz]"
    )
    command.add_argument(
        "--timeline-detail", choices=("layers", "auto", "jobs"), default="auto",
        help="auto: what 200,000 events can show; jobs: all, however much",
    )  # fmt: skip
    command.add_argument(
        "--explain", nargs="?", type=at_least_one, const=5, metavar="N",
        help="show where every multiplier slot went, and what to change: changes of the machine are simulated on the N "
        "layers with most cycles of each pass of the sparsest snapshot (5)",
    )  # fmt: skip
    over_time.add_options(command)
    add_format(command)
    command.add_argument("--quiet", action="store_true", help="no progress bar, and the speedup table only")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Trace × machine × passes → a table, and files where asked for."""
    if over_time.is_asked(options):
        over_time.run(options)
        return
    from accelsim import open_trace
    from accelsim.hardware.machine import baseline_of, load_machine
    from accelsim.pipeline import simulate_records

    how = {name: getattr(options, name) for name in SECTIONS} | {"allow_code": options.allow_code}
    machine = load_machine(options.config, settings=settings_of(options), **how)
    baseline = None
    if options.baseline != "none":
        named = options.baseline != "dadiannao"
        baseline = load_machine(options.baseline, **how) if named else baseline_of(machine)
    if baseline and baseline.name == machine.name:
        baseline = baseline.model_copy(update={"name": f"{baseline.name} (baseline)"})
    machines = [machine, baseline] if baseline else [machine]

    # After the machine is known to be one: pandas takes its time.
    from accelsim.study import export, layout, tables
    from accelsim.study.accelergy import action_counts
    from accelsim.study.paper import table6
    from accelsim.study.results import convolutions, covers, dense_selves, frame, summarize
    from accelsim.study.timeline import recording

    for folder in filter(None, (options.out, options.plots)):
        export.check_writable(folder)
    with open_trace(options.trace) as trace, progress(options) as tell:
        origin = export.provenance(trace, machines, options.command_line)
        replays = len(options.passes) * len(options.snapshots or trace.snapshots)
        how = {"detail": options.timeline_detail, "origin": origin}
        with recording(options.timeline, machine, replays, **how) if options.timeline else nullcontext() as timeline:
            records = simulate_records(
                machines, trace, passes=options.passes, layers=options.layers, snapshots=options.snapshots,
                jobs=options.jobs or cores(), progress=tell, timeline=timeline,
            )  # fmt: skip
            table = frame(records)
        dense = None
        refused: dict[str, str] = {}
        if baseline:
            dense = dense_selves(
                [machine], trace, passes=options.passes, layers=options.layers, snapshots=options.snapshots,
                jobs=options.jobs or cores(), refused=refused,
            )  # fmt: skip
            dense = None if refused else dense
        other = baseline.name if baseline else None
        worth = machine.accelerator.baseline_multipliers
        everything = summarize(table, machine.name, other, dense=dense, worth=worth)
        of_conv = None if dense is None else convolutions(dense)
        chosen = summarize(convolutions(table), machine.name, other, dense=of_conv, worth=worth)
        comparable = covers(table, trace)
        covered = list(tables.coverage_notes(trace.snapshots, options.snapshots))
        covered += tables.samples_note(table, trace)
        covered += [] if options.quiet else tables.places_note(table, trace)
        advice, advised = _advised(options, machine, trace, table) if options.explain else ([], None)
        paper = [table6(trace.network, trace.dataset, row["sparsity"]) if comparable else {} for row in chosen.speedup]
    shown = {"full": not options.quiet, "explain": advised is not None}
    covered += tables.self_note(refused)
    parts: list[object] = [*tables.summary(chosen, everything, table, paper, **shown), *covered, *advice]
    data = export.report(chosen, everything, table, paper, origin) | {"guidance": advised}
    if options.plots:
        from accelsim.study.plots import write_plots

        parts += write_plots(options.plots, table, machine, origin)
    if options.out:
        counts = action_counts(machine, table)
        export.write_results(options.out, table, data, layout.rendered(parts), counts)
    show_as(options, parts, data)


def _advised(
    options: argparse.Namespace, machine: Machine, trace: Trace, table: pd.DataFrame
) -> tuple[list[object], dict[str, Any]]:
    """What limits the machine, and what to change: as lines, and as plain data."""
    from accelsim.study import guidance

    with progress(options) as tell:
        found = guidance.guide(machine, trace, table, most=options.explain, jobs=options.jobs or cores(), progress=tell)
    return ["", *guidance.lines(found)], guidance.report(found)
