"""The paper's figures about convergence, drawn from one's own runs: a panel for each."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.axes
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from accelsim.study.plots import DPI, STYLE
from accelsim.study.reproduction.convergence import Curves, representative

LINES = ("-", "--", ":", "-.")
# What each line is called and its runs: by sparsity, or one by step where the figure shows training.
FIGURE1 = {
    "weights": {s: f"fig1-weights{s}" for s in (50, 80, 90)},
    "activations": {s: f"fig1-activations{s}-0" for s in (50, 80, 90)},
}
FIGURE2 = {
    "weights and activations (SAW)": {s: f"fig2-saw{s}" for s in (50, 80, 90)},
    "output gradients (meProp)": {s: f"fig2-meprop{s}" for s in (30, 50, 80, 90)},
}
FIGURE7 = {
    "all weights": {s: f"fig7-unmasked{s}" for s in (80, 90)},
    "active weights only": {s: f"fig7-masked{s}" for s in (80, 90)},
}
FIGURE8 = {"never": "fig7-unmasked90", **{f"step {at}": f"fig8-frozen-at-{at}-90" for at in (600, 300, 100)}}
FIGURE11 = {
    "SAW 80 %": "fig2-saw80", "meProp 30 %": "fig2-meprop30", "meProp 50 %": "fig2-meprop50", "dense": "dense",
}  # fmt: skip


def draw(folder: Path, curves: Curves) -> None:
    """Writes convergence.png and convergence.svg."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(10.5, 12), layout="constrained")
        of1, of2, of4, of7, of8, of10, of11, rest = figure.subplots(4, 2).ravel()
        _by_sparsity(of1, "Figure 1: Top-K in the forward pass", FIGURE1, curves)
        _by_sparsity(of2, "Figure 2: Top-K in the backward pass", FIGURE2, curves)
        _over_steps(of4, "Figure 4: threshold of weights, 90 %", representative(curves.thresholds))
        of4.set_ylim(bottom=0)
        _by_sparsity(of7, "Figure 7: what is updated", FIGURE7, curves)
        _by_step(of8, "Figure 8: topology frozen, 90 %", FIGURE8, curves)
        _over_steps(of10, f"Figure 10: share of zeros, Top-K every {curves.period} steps", curves.zeros)
        _by_step(of11, "Figure 11: meProp and SAW", FIGURE11, curves)
        rest.set_visible(False)
        figure.savefig(folder / "convergence.png", dpi=DPI, metadata={"Software": None})
        figure.savefig(folder / "convergence.svg", metadata={"Date": None, "Creator": None})


def _by_sparsity(axes: matplotlib.axes.Axes, title: str, lines: dict[str, dict[int, str]], curves: Curves) -> None:
    """Accuracy at the end against sparsity; a point for each seed, a line through the means."""
    if "dense" in curves.accuracies:
        axes.axhline(100 * curves.reached("dense"), color="#bbbbbb", linewidth=0.6, label="dense")
    for (name, runs), style in zip(lines.items(), LINES, strict=False):
        there = {s: run for s, run in runs.items() if run in curves.accuracies}
        axes.plot([*there], [100 * curves.reached(run) for run in there.values()], style, color="black", label=name)
        for s, run in there.items():
            ends = [100 * of[max(of)] for of in curves.accuracies[run]]
            axes.plot([s] * len(ends), ends, ".", color="#888888", markersize=3)
    _titled(axes, title, "sparsity, %", "accuracy at the end, %")


def _by_step(axes: matplotlib.axes.Axes, title: str, runs: dict[str, str], curves: Curves) -> None:
    """Accuracy against the step, the mean over seeds."""
    for number, (name, run) in enumerate(runs.items()):
        if run in curves.accuracies:
            seeds = curves.accuracies[run]
            steps = sorted(seeds[0])
            means = [100 * sum(of[step] for of in seeds) / len(seeds) for step in steps]
            axes.plot(steps, means, LINES[number % 4], color=str(0.2 * (number % 4)), label=name)
    _titled(axes, title, "step", "accuracy, %")


def _over_steps(axes: matplotlib.axes.Axes, title: str, lines: dict[str, tuple[float, ...]]) -> None:
    for number, (name, of) in enumerate(lines.items()):
        axes.plot(np.arange(len(of)), of, LINES[number % 4], color=str(0.2 * (number % 4)), label=name, linewidth=0.8)
    _titled(axes, title, "step", "")


def _titled(axes: matplotlib.axes.Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6)
