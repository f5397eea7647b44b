"""``accelsim validate``: each machine beside its own publication."""

from __future__ import annotations

import argparse
from pathlib import Path

from accelsim.commands.shared import Commands, add_format, cores, jobs, show_as


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "validate",
        parents=[common],
        help="compare machines with their own publications, on published inputs",
        description="Ours, theirs, the difference, and a verdict with its tolerance. Exit code 1 when one differs that "
        "should agree.",
    )
    add = command.add_argument
    add("names", nargs="*", metavar="NAME", help="e.g. scnn, cnvlutin (default: all, in about a minute)")
    add("--jobs", type=jobs, metavar="N", help="layers simulated at once (default: one per core)")
    add("--out", type=Path, metavar="DIR", help="write validation.csv, .md and .json")
    add_format(command)
    add("--quiet", action="store_true", help="the comparisons only")
    command.set_defaults(command=validate)


def validate(options: argparse.Namespace) -> int:
    """Names → comparisons; 1 if one fails that should hold."""
    from accelsim.study import export
    from accelsim.study.validation import catalogue, page

    catalogue.check(options.names)
    if options.out:
        export.check_writable(options.out)
    validations = catalogue.validate(options.names, options.jobs or cores())
    if options.out:
        page.write(options.out, validations, options.command_line)
    show_as(options, page.text(validations, not options.quiet), page.report(validations, options.command_line))
    return int(any(validation.failures for validation in validations))
