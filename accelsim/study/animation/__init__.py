"""``accelsim animate``: one pass of one small layer on a machine, cycle by cycle, as one HTML file."""

from __future__ import annotations

from pathlib import Path

from accelsim.files import staged_file
from accelsim.hardware.machine import Machine
from accelsim.study.animation.filming import Animation, animated, share
from accelsim.study.animation.page import to_html
from accelsim.workload.trace import Layer

__all__ = ["Animation", "animated", "share", "to_html", "write_animation"]


def write_animation(machine: Machine, layer: Layer, which: str, out: str | Path) -> Animation:
    """Films a pass of a layer and writes the page; one that is there is replaced.

    Parameters
    ----------
    machine : Machine
    layer : Layer
    which : str
        One of ``PASSES``.
    out : path

    Raises
    ------
    AccelsimError
        As ``animated`` says; OutputError if the file cannot be written.
    """
    animation = animated(machine, layer, which)
    with staged_file(Path(out)) as stage:
        stage.write_text(to_html(animation), encoding="utf-8")
    return animation
