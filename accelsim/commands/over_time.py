"""``accelsim run --over-time``: a whole training run on one machine, from the steps that a trace holds of it."""

from __future__ import annotations

import argparse

from accelsim.commands.shared import at_least_one, cores, names, progress, settings_of, show_as
from accelsim.errors import AccelsimError

SECTIONS = ("memory", "energy", "overheads")


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of ``run`` that make it over time."""
    add = command.add_argument_group("over time", "a whole training run").add_argument
    add("--over-time", nargs="?", const=[], type=names, metavar="FILE,…",
        help="the run that the trace's snapshots are steps of, filled in between them; with FILE, the series that "
        "Recorder(series=…) kept of it, as its densities go")  # fmt: skip
    add("--steps", type=at_least_one, metavar="N", help="iterations of the run (default: up to the last one known)")
    add("--target", type=float, metavar="A", help="what it costs up to this accuracy, 0 to 1, noted in the series")


def is_asked(options: argparse.Namespace) -> bool:
    """Whether the run is over time; AccelsimError where options do not go together."""
    if options.over_time is None:
        for name in ("steps", "target"):
            if getattr(options, name) is not None:
                raise AccelsimError(f"--{name}: must come with --over-time")
        return False
    for name in ("timeline", "explain"):
        if getattr(options, name) is not None:
            raise AccelsimError(f"--{name}: must be left out with --over-time")
    if options.target is not None and not 0 <= options.target <= 1:
        raise AccelsimError(f"--target: must be an accuracy from 0 to 1, got {options.target:g}")
    return True


def run(options: argparse.Namespace) -> None:
    """Trace × machine, and series → totals of the run, with their errors."""
    from accelsim import open_trace
    from accelsim.hardware.machine import load_machine
    from accelsim.pipeline import simulate_records
    from accelsim.workload.series import Series

    series = [Series.open(path) for path in options.over_time]
    settings = settings_of(options)
    how = {name: getattr(options, name) for name in SECTIONS} | {"allow_code": options.allow_code}
    machine = load_machine(options.config, settings=settings, **how)
    periods = {s.header["top_k_period"] for s in series if s.header.get("top_k_period")}
    if machine.overheads and machine.overheads.top_k and len(periods) == 1:
        # What was trained decides, before what the machine's file says.
        settings = {"overheads.top_k.period": periods.pop(), **settings}
        machine = load_machine(options.config, settings=settings, **how)

    from accelsim.study import export, over_time, over_time_tables
    from accelsim.study.results import dense_selves, frame

    for folder in filter(None, (options.out, options.plots)):
        export.check_writable(folder)
    with open_trace(options.trace) as trace, progress(options) as tell:
        origin = export.provenance(trace, [machine], options.command_line)
        records = simulate_records(
            machine, trace, passes=options.passes, layers=options.layers, snapshots=options.snapshots,
            jobs=options.jobs or cores(), progress=tell,
        )  # fmt: skip
        table = frame(records)
        how = {"passes": options.passes, "layers": options.layers, "snapshots": options.snapshots}
        selves = dense_selves([machine], trace, **how, jobs=options.jobs or cores(), refused={})
        densities = over_time.densities_of(trace, table["snapshot"]) if series else None
    runs = over_time.runs_of(table, series, options.steps, densities)
    dense = over_time.dense_steps(table, selves)
    length = next((s.header["steps_per_epoch"] for s in series if s.header.get("steps_per_epoch")), None)
    parts: list[object] = [*over_time_tables.tables(runs, machine, length, options.target, dense)]
    found = {"over_time": over_time_tables.data(runs, machine), "provenance": origin}
    if options.plots:
        from accelsim.study.plots import write_over_time

        write_over_time(options.plots, runs, machine, origin)
    if options.out:
        over_time_tables.write(options.out, runs, found)
    show_as(options, parts, found)
