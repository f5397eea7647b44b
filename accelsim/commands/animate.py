"""``accelsim animate``: a small layer on a machine, cycle by cycle, as one HTML file."""

from __future__ import annotations

import argparse
from math import isfinite
from pathlib import Path

from accelsim.commands.shared import Commands, add_code, add_settings, settings_of, show
from accelsim.errors import ConfigError
from accelsim.workload.metadata import PASSES


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "animate",
        parents=[common],
        help="show a small layer on a machine cycle by cycle, as one HTML file",
        description="What each multiplier does in each cycle of one pass of one layer: a made-up one, or a cut of a "
        "layer of a trace. The schedule is the one that is counted; the page's totals are those of run.",
    )
    command.add_argument("--config", required=True, metavar="FILE", help="machine, e.g. tensordash.yaml")
    text = "a made-up layer: samples, channels, filters, height, width, kernel, stride, padding, groups, zeros, seed"
    command.add_argument("--toy", type=sizes, metavar="KEY=N,…", help=text)
    command.add_argument("--trace", metavar="FILE", help="a layer of this trace instead, with --layer")
    command.add_argument("--layer", metavar="NAME", help="the layer of the trace")
    command.add_argument("--snapshot", metavar="NAME", help="the snapshot of the trace (default: the last)")
    text = "how much of the trace's layer: its first samples, groups, channels and filters (of a group), height, width"
    command.add_argument("--cut", type=sizes, metavar="KEY=N,…", help=text)
    command.add_argument("--pass", dest="which", choices=PASSES, default="fwd", help="pass (default: fwd)")
    text = "memory section of the machine: of this file instead, or none, e.g. ddr4.yaml"
    command.add_argument("--memory", metavar="FILE", help=text)
    add_settings(command)
    add_code(command)
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page to write, e.g. toy.html")
    command.set_defaults(command=animate)


def animate(options: argparse.Namespace) -> None:
    """A machine and a layer → a page."""
    from accelsim import open_trace
    from accelsim.hardware.machine import load_machine
    from accelsim.workload.toy import cut, of_trace, toy

    given = [name for name in ("layer", "snapshot", "cut") if getattr(options, name)]
    if options.trace and options.toy:
        raise ConfigError("--toy: makes a layer up, --trace takes one from a file: one of the two")
    if options.trace and not options.layer:
        raise ConfigError("--layer: must name a layer of the trace")
    if not options.trace and given:
        raise ConfigError(f"--{given[0]}: needs a --trace")
    how = {"memory": options.memory, "allow_code": options.allow_code}
    machine = load_machine(options.config, settings=settings_of(options), **how)

    from accelsim.study.animation import share, write_animation

    if options.trace:
        with open_trace(options.trace) as trace:
            layer = cut(of_trace(trace, options.layer, options.snapshot), options.cut or {})
    else:
        layer = toy(options.toy)
    shown = write_animation(machine, layer, options.which, options.out)
    slots = sorted(shown.slots(), key=lambda cause: -share(shown, cause))
    causes = ", ".join(f"{100 * share(shown, cause):.0f} % {cause.replace('_', ' ')}" for cause in slots[:3])
    show(f"{options.out}: {shown.record.cycles:,} cycles of {shown.film.multipliers:,} multipliers\n{causes}\n")


def sizes(text: str) -> dict[str, float]:
    """``channels=8,zeros=0.5`` as numbers."""
    found: dict[str, float] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        try:
            found[key] = float(value)
        except ValueError:
            found[key] = float("nan")
        if not equals or not isfinite(found[key]) or abs(found[key]) > 1 << 24:
            raise argparse.ArgumentTypeError(f"must be KEY=NUMBER,…, got {part[:30]}")
    return found
