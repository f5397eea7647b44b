"""``accelsim reproduce``: the paper's computational figures, computed, beside the paper's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from accelsim.commands import training
from accelsim.commands.shared import Commands, add_format, cores, jobs, names, progress, show_as


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "reproduce",
        parents=[common],
        help="compute the paper's figures and compare them with what the paper prints",
        description="Ours, the paper's, the difference, and a verdict with its tolerance. Exit code 1 when a figure "
        "differs that should agree.",
    )
    add = command.add_argument
    add("figures", nargs="*", metavar="FIGURE", help="e.g. table3, eq7, all (default: list them)")
    add("--trace", default="resnet50.npz", metavar="FILE", help="captured run for Tables 2, 3 and 6 (resnet50.npz)")
    add("--layers", type=names, default=["*"], metavar="GLOB,…", help="simulate only these, e.g. 'layer4.*'")
    add("--jobs", type=jobs, metavar="N", help="layers simulated at once (default: one per core)")
    add("--measure", action="store_true", help="measure Table 9 here instead of showing a recorded run")
    add("--out", type=Path, metavar="DIR", help="write reproduction.csv, .md, .html and .json")
    training.add_options(command)
    add_format(command)
    add("--quiet", action="store_true", help="no progress bar, and the comparisons only")
    command.set_defaults(command=reproduce)


def reproduce(options: argparse.Namespace) -> int:
    """Figures by name → comparisons; 1 if one fails that should hold."""
    from accelsim.study import export
    from accelsim.study.reproduction import catalogue, page
    from accelsim.study.reproduction.session import Session

    if training.is_asked(options):
        training.run(options)
        return 0
    known = {name: what for name, (what, _) in catalogue.FIGURES.items()} | training.FIGURES
    if not options.figures:
        show_as(options, page.listing(known), known)
        return 0
    catalogue.check(options.figures)
    if options.out:
        export.check_writable(options.out)
    with progress(options) as tell:
        session = Session(options.trace, options.layers, options.jobs or cores(), options.measure, tell)
        figures = catalogue.reproduce(options.figures, session)
        with session.trace() as trace:
            origin = export.provenance(trace, session.machines(), options.command_line)
    if options.out:
        page.write(options.out, figures, origin)
    show_as(options, page.text(figures, not options.quiet), page.report(figures, origin))
    return int(any(figure.failures for figure in figures))
