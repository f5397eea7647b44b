"""Accuracy against joules, of every algorithm, on some machines."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from accelsim.ledger import ENERGY
from accelsim.study.plots import DPI, STYLE
from accelsim.study.reproduction.algorithms import Found, Run

MARKS = ("o", "s", "^", "v", "D", "P", "X", "*")
SHADES = ("black", "#999999")


def draw(folder: Path, found: Found, machines: list[str]) -> None:
    """Writes algorithms.png and algorithms.svg: a panel for each machine."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(10.5, 7.5), layout="constrained")
        figure.suptitle("Accuracy against energy spent, to the end of each run")
        panels = figure.subplots(2, 2, sharey=True).ravel()
        for axes, machine in zip(panels, machines, strict=False):
            for number, run in enumerate(found.runs):
                _line(axes, run, machine, number)
            axes.set_title(machine)
            axes.set_xlabel("joules")
            axes.set_xlim(left=0)
            axes.axhline(100 * found.target, color="#bbbbbb", linewidth=0.6)
        for axes in panels[len(machines) :]:
            axes.set_visible(False)
        for axes in panels[::2]:
            axes.set_ylabel("accuracy, %")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=6)
        figure.savefig(folder / "algorithms.png", dpi=DPI, metadata={"Software": None})
        figure.savefig(folder / "algorithms.svg", metadata={"Date": None, "Creator": None})


def _line(axes: matplotlib.axes.Axes, run: Run, machine: str, number: int) -> None:
    """What came before in grey, the end as a mark."""
    of = run.over[machine]
    steps = sorted(run.accuracy)
    so_far = np.cumsum(of.counts[ENERGY.column]) * 1e-12
    joules = [so_far[step] for step in steps]
    accuracy = [100 * run.accuracy[step] for step in steps]
    axes.plot(joules, accuracy, color="#c0c0c0", linewidth=0.5, zorder=1)
    mark, shade = MARKS[number % len(MARKS)], SHADES[number // len(MARKS) % len(SHADES)]
    filled = shade if number < len(MARKS) * len(SHADES) else "white"
    (point,) = axes.plot(joules[-1:], accuracy[-1:], mark, label=run.name, color=shade, markersize=4)
    point.set_markerfacecolor(filled)
