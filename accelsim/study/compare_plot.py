"""The picture of ``accelsim compare``: speedups by machine and pass, readable in greyscale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from accelsim.files import staged_file
from accelsim.study.compare import Comparison

# What users set for themselves does not count, and the same comparison gives the same file.
STYLE = {
    "font.size": 8, "axes.titlesize": 9, "figure.titlesize": 10, "text.parse_math": False, "hatch.linewidth": 0.5,
    "svg.hashsalt": "accelsim", "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
}  # fmt: skip
DPI, LARGEST_PIXELS = 130, 30_000
PANELS = 3  # in a row
LONGEST_LABEL = 40
# Neighbours differ in lightness: label, fill, hatch.
BARS = {
    "fwd": ("forward", "#f2f2f2", ""),
    "input_grad": ("input gradient", "#a6a6a6", ""),
    "weight_grad": ("weight gradient", "#ffffff", "//////"),
    "step": ("training step", "#12355b", ""),
}


def write_plot(file: Path, comparison: Comparison, title: str, origin: dict[str, Any]) -> None:
    """Draws a comparison into a PNG or SVG file, as its ending says; never half of it.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    about = f"accelsim {origin['accelsim']}; trace {origin['trace']['sha256']}; {' '.join(origin['command'])}"
    undated = {"Software": None} if file.suffix.lower() == ".png" else {"Date": None, "Creator": None}
    with matplotlib.style.context(["default", STYLE]), staged_file(file) as stage:
        figure = draw(comparison, title)
        dpi = min(DPI, LARGEST_PIXELS / max(figure.get_size_inches()))
        text = {"Title": figure.get_suptitle(), "Description": about}
        figure.savefig(stage, dpi=dpi, metadata=text | undated)


def draw(comparison: Comparison, title: str) -> Figure:
    """A panel a snapshot, a group of bars a machine; a bar reaches from 1×, multipliers always busy, to the speedup."""
    rows = comparison.rows
    bars = [which for which in BARS if rows[f"{which}_speedup"].notna().any()]
    snapshots = list(rows.groupby(["snapshot", "sparsity"], sort=False))
    machines = list(snapshots[-1][1]["machine"])
    height = -(-len(snapshots) // PANELS)
    width = min(PANELS, len(snapshots))
    size = 1.6 + 3 * width, height * (0.9 + 0.12 * (1 + len(bars)) * len(machines)) + 0.6
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"Speedup over as many multipliers that are always busy: {_short(title)}, {comparison.layers}")
    panels = figure.subplots(height, width, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, (_, group) in zip(panels, snapshots, strict=False):
        sparsity, snapshot = float(group["sparsity"].iloc[0]), str(group["snapshot"].iloc[0])
        panel.set_title(f"Top-K {100 * sparsity:g} % ({_short(snapshot)})")
        _bars(panel, group.set_index("machine").reindex(machines), bars)
    for unused in panels[len(snapshots) :]:
        unused.set_visible(False)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(bars), frameon=False)
    return figure


def _bars(axes: Axes, rows: pd.DataFrame, bars: list[str]) -> None:
    """One snapshot's bars, the machines from top to bottom, the speedup written at the end of each group's last bar."""
    places, thick = np.arange(len(rows)), 0.8 / len(bars)
    for number, which in enumerate(bars):
        label, fill, hatch = BARS[which]
        gains = rows[f"{which}_speedup"].astype(float).to_numpy(na_value=np.nan)
        at = places + (number - (len(bars) - 1) / 2) * thick
        axes.barh(at, gains - 1, thick, left=1, color=fill, hatch=hatch, edgecolor="black", lw=0.5, label=label)
    for place, gain in zip(at, gains, strict=True):
        if np.isfinite(gain):
            side, shift = ("left", 3) if gain >= 1 else ("right", -3)
            axes.annotate(
                f"{gain:.2f}", (gain, place), xytext=(shift, 0), textcoords="offset points", va="center", ha=side,
                fontsize=6,
            )  # fmt: skip
    axes.set(xscale="log", ylim=(len(rows) - 0.4, -0.6))
    axes.margins(x=0.15)
    axes.set_yticks(places, [_short(name) for name in rows.index])
    axes.tick_params("y", length=0)
    axes.axvline(1, color="black", lw=0.9)
    axes.grid(axis="x", color="#dddddd", lw=0.5)
    axes.xaxis.set_major_locator(LogLocator(2))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.tick_params("x", labelbottom=True)


def _short(name: str) -> str:
    """A name as a label: a trace's names are any length, and in any script."""
    name = name.encode("ascii", "backslashreplace").decode()
    return name if len(name) <= LONGEST_LABEL else f"…{name[1 - LONGEST_LABEL :]}"
