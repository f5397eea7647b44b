"""Accuracy against cycles and joules, of every algorithm, on some machines."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

from accelsim.study.plots import DPI, STYLE
from accelsim.study.reproduction.algorithms_found import Found, Run

MARKS = ("o", "s", "^", "v", "D", "P", "X", "*")
SHADES = ("black", "#999999")


COUNTS = ("cycles", 1.0), ("joules", 1e-12)


def draw(folder: Path, found: Found, machines: list[str]) -> None:
    """Writes algorithms.png and algorithms.svg: a column for each machine, cycles above joules."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(3.2 * len(machines) + 2.4, 7.5), layout="constrained")
        figure.suptitle("Accuracy against cycles and energy spent, to the end of each run")
        panels = figure.subplots(2, len(machines), sharey=True, squeeze=False)
        for column, machine in zip(panels.T, machines, strict=True):
            column[0].set_title(machine)
            for place, axes in enumerate(column):
                for number, run in enumerate(found.runs):
                    _line(axes, run, machine, place, number)
                axes.set_xlabel(COUNTS[place][0])
                axes.set_xlim(left=0)
                axes.axhline(100 * found.target, color="#bbbbbb", linewidth=0.6)
        for axes in panels[:, 0]:
            axes.set_ylabel("accuracy, %")
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=6)
        figure.savefig(folder / "algorithms.png", dpi=DPI, metadata={"Software": None})
        figure.savefig(folder / "algorithms.svg", metadata={"Date": None, "Creator": None})


def _line(axes: matplotlib.axes.Axes, run: Run, machine: str, place: int, number: int) -> None:
    """What came before in grey, the end as a mark; against cycles, place 0, or joules."""
    so_far, reached = run.costs[machine].so_far, run.accuracy
    steps = sorted(reached)
    spent = [COUNTS[place][1] * so_far[step][place] for step in steps]
    accuracy = [100 * reached[step] for step in steps]
    axes.plot(spent, accuracy, color="#c0c0c0", linewidth=0.5, zorder=1)
    mark, shade = MARKS[number % len(MARKS)], SHADES[number // len(MARKS) % len(SHADES)]
    filled = shade if number < len(MARKS) * len(SHADES) else "white"
    (point,) = axes.plot(spent[-1:], accuracy[-1:], mark, label=run.name, color=shade, markersize=4)
    point.set_markerfacecolor(filled)
