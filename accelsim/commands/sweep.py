"""``accelsim sweep``: a study's points, computed once each, in a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.commands.shared import Commands, add_code, add_format, bar, cores, jobs, show_as
from accelsim.errors import printable

if TYPE_CHECKING:
    from accelsim.sweeps.plan import Plan
    from accelsim.sweeps.sweep import Progress


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "sweep",
        parents=[common],
        help="simulate many machines, traces and sparsities, as a study file says; goes on where it was stopped",
        description="Simulates every point of a study that DIR does not have yet, then writes the table of all to it. "
        "Ctrl-C, or worse, loses nothing that was stored: the same command goes on.",
    )
    add = command.add_argument
    add("study", metavar="STUDY", help="study file, e.g. lookahead.yaml")
    add("--out", type=Path, metavar="DIR", help="points and table (default: the study's name, in the current folder)")
    add("--jobs", type=jobs, metavar="N", help="worker processes (default: one per core)")
    add(
        "--cluster",
        metavar="ADDRESS",
        help="Dask scheduler, tls://HOST:PORT, or local (needs accelsim-sparse[cluster])",
    )
    add_code(command)
    add_format(command)
    add("--quiet", action="store_true", help="no progress bar, and neither plan nor note on stderr")
    command.set_defaults(command=sweep)


def sweep(options: argparse.Namespace) -> int:
    """Study → a store of points and a table; 2 if no point could be computed."""
    from accelsim.sweeps import text as sweep_text
    from accelsim.sweeps.estimate import estimate
    from accelsim.sweeps.study import load_study
    from accelsim.sweeps.sweep import sweep

    study = load_study(options.study)
    out = options.out or Path(Path(options.study).stem)
    if out.is_file():  # a study without an ending would be its own folder
        out = out.with_name(f"{out.name}.sweep")
    workers = options.jobs or cores()

    def before(plan: Plan) -> None:
        if not options.quiet:
            guess = None if options.cluster else estimate(plan, workers)
            print(printable(f"accelsim: {sweep_text.plan_line(plan, guess, out)}"), file=sys.stderr, flush=True)

    with bar(options, _told, after="points{task.description}") as tell:
        how = {"jobs": workers, "cluster": options.cluster, "allow_code": options.allow_code}
        table = sweep(study, out, **how, before=before, progress=tell)
    fidelity = sweep_text.read_fidelity(out)
    parts = sweep_text.summary(table, fidelity, out)
    report = sweep_text.report(table, fidelity, out)
    show_as(options, parts, report)
    return 2 if table["error"].notna().all() else 0


def _told(p: Progress) -> dict[str, Any]:
    """Points done, and failed, for the bar."""
    failed = f", {p.failed} failed" if p.failed else ""
    return {"completed": p.found + p.done, "total": p.total, "description": failed}
