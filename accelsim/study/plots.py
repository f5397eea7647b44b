"""Pictures of a run: cycles by cause, roofline, speedup; readable in greyscale. All matplotlib is here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from accelsim import ledger
from accelsim.errors import MachineError
from accelsim.files import staged
from accelsim.hardware.machine import Machine
from accelsim.ledger import CYCLES, DENSE, EFFECTUAL, OFFCHIP_MOVED, Bar, Count
from accelsim.study.over_time import OverTime
from accelsim.study.results import evened, fold, is_series, steps_of

# What users set for themselves does not count, and the same run gives the same file.
STYLE = {
    "font.size": 8, "axes.titlesize": 9, "figure.titlesize": 10, "text.parse_math": False, "hatch.linewidth": 0.6,
    "svg.hashsalt": "accelsim", "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "figure.constrained_layout.w_pad": 0.1,
}  # fmt: skip
DPI, LARGEST_PIXELS = 110, 30_000
ROW_INCHES, PANEL_INCHES = 0.17, 3.6
LONGEST_LABEL = 40
HEADINGS = {"fwd": "forward", "input_grad": "input gradient", "weight_grad": "weight gradient"}
MARKERS = {"fwd": "o", "input_grad": "s", "weight_grad": "^"}


def write_plots(folder: Path, table: pd.DataFrame, machine: Machine, origin: dict[str, Any]) -> list[str]:
    """Draws a run and writes each picture as PNG and SVG into a folder, all or none; returns what could not be drawn.

    Parameters
    ----------
    folder : Path
    table : DataFrame
        From ``accelsim.study.results.frame``; rows of other machines don't count.
    machine : Machine
    origin : dict
        Provenance; the pictures' titles and descriptions are made from it.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    with matplotlib.style.context(["default", STYLE]):
        figures, notes = draw(table, machine, _titled(machine, origin))
        _save(folder, figures, origin)
    return notes


def write_over_time(folder: Path, runs: Iterable[OverTime], machine: Machine, origin: dict[str, Any]) -> None:
    """Draws runs over time, cycles and waiting and energy by step, as over_time.png and .svg. Raises OutputError."""
    with matplotlib.style.context(["default", STYLE]):
        _save(folder, {"over_time": over_time(runs, _titled(machine, origin))}, origin)


def over_time(runs: Iterable[OverTime], title: str) -> Figure:
    """Of each run a line for cycles, dashed for waiting, and points where a step was simulated."""
    figure = Figure(figsize=(2 * PANEL_INCHES, 1.6 * PANEL_INCHES), layout="constrained")
    figure.suptitle(title)
    above, below = figure.subplots(2, 1, sharex=True)
    runs = list(runs)
    for number, run in enumerate(runs):
        shade = str(0.7 * number / max(1, len(runs) - 1))
        above.plot(run.steps, run.counts["cycles"], color=shade, label=run.label, linewidth=1)
        above.plot(run.simulated["step"], run.simulated["cycles"], "o", color=shade, markersize=3)
        if run.total("stalls"):
            above.plot(run.steps, run.counts["stalls"], "--", color=shade, linewidth=0.8)
        below.plot(run.steps, np.cumsum(run.counts[ledger.ENERGY.column]) * 1e-12, color=shade, linewidth=1)
    above.set_ylabel("cycles of a step (dashed: waiting)")
    above.legend(fontsize=6)
    below.set_ylabel("joules so far")
    below.set_xlabel("step")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
    return figure


def _titled(machine: Machine, origin: dict[str, Any]) -> str:
    return f"{machine.name}, {origin['trace']['network']} on {origin['trace']['dataset']}"


def _save(folder: Path, figures: dict[str, Figure], origin: dict[str, Any]) -> None:
    """Each as PNG and SVG, all or none."""
    trace = origin["trace"]
    about = f"accelsim {origin['accelsim']}; trace {trace['sha256']}; {' '.join(origin['command'])}"
    with staged(folder) as stage:
        for name, figure in figures.items():
            dpi = figure.dpi = min(DPI, LARGEST_PIXELS / max(figure.get_size_inches()))
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # once for both files: it takes most of the time
            text = {"Title": figure.get_suptitle(), "Description": about}
            figure.savefig(stage / f"{name}.png", dpi=dpi, metadata=text | {"Software": None})
            figure.savefig(stage / f"{name}.svg", metadata=text | {"Date": None, "Creator": None})


def draw(table: pd.DataFrame, machine: Machine, title: str) -> tuple[dict[str, Figure], list[str]]:
    """The figures by file name, and a line for each that there is nothing for."""
    rows = table[table["machine"] == machine.name]
    figures, notes = {}, []
    by_snapshot: Any = rows.groupby("snapshot", sort=False)
    for snapshot, of_snapshot in by_snapshot:
        safe = re.sub(r"[^\w.-]", "_", snapshot, flags=re.ASCII)
        while f"cycles-{safe}" in figures:
            safe += "_"
        figures[f"cycles-{safe}"] = cycles_by_cause(of_snapshot, f"{title}, snapshot {_short(snapshot)}")
    if machine.memory:
        figures["roofline"] = roofline(rows, machine, title)
    else:
        notes.append("no roofline: the machine has no memory")
    gains = speedups(rows)
    if is_series(rows):
        figures["series"] = over_steps(rows, title)
    elif gains.empty:
        notes.append("no picture of speedups: they need a snapshot with Top-K sparsity 0 % and another one")
    else:
        figures["speedup"] = speedup_by_layer(gains, title)
    return figures, notes


def cycles_by_cause(rows: pd.DataFrame, title: str) -> Figure:
    """Stacked bars, a row a layer, a panel a pass; the bars of a layer add up to its cycles."""
    figure, panels = _layer_panels(rows, f"Cycles by cause: {title}")
    shown: dict[Bar, Patch] = {}
    for which, axes in panels.items():
        of_pass = rows[rows["pass"] == which].set_index("layer").reindex(pd.unique(rows["layer"]))
        left = np.zeros(len(of_pass))
        for bar, causes in bars().items():
            slots = of_pass[[cause.column for cause in causes]].sum(axis=1)
            cycles = (slots / of_pass["multipliers"]).fillna(0).to_numpy()
            if cycles.any():
                style: dict[str, Any] = {"facecolor": bar.fill, "hatch": bar.hatch, "edgecolor": bar.ink, "lw": 0}
                _boxes(axes, left, left + cycles, 0.8, **style, label=bar.label)
                shown[bar] = Patch(**style, label=bar.label)
            left = left + cycles
        axes.set_xlabel("cycles")
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.tick_params("x", labelbottom=True)
    panels[next(iter(panels))].set_xlim(0, 1.03 * max(1, rows[CYCLES.column].max()))
    handles = [shown[bar] for bar in bars() if bar in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=1 + 2 * len(panels), frameon=False)
    return figure


def bars() -> dict[Bar, list[Count]]:
    """What a legend may show, and the slots that each of it stands for."""
    found: dict[Bar, list[Count]] = {}
    for cause in ledger.rows("slots"):
        found.setdefault(cause.bar or Bar(cause.words), []).append(cause)
    return found


def roofline(rows: pd.DataFrame, machine: Machine, title: str) -> Figure:
    """Each layer and pass against what multipliers and off-chip memory allow; large marks are whole passes.

    Operations are effectual multiplications, bytes those of off-chip memory. A layer may lie above the slope: its data
    may come while the one before it runs.
    """
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    axes = figure.subplots()
    figure.suptitle(f"Roofline: {title}")
    snapshots = list(pd.unique(rows["snapshot"]))
    shades = _shades(len(snapshots))
    whole = fold(rows, ["snapshot", "pass"])
    seen = []
    for size, points in ((22, rows), (130, whole)):
        groups: Any = points.groupby(["snapshot", "pass"], sort=False)
        for (snapshot, which), group in groups:
            x, y = _intensity(group)
            style: dict[str, Any] = {
                "marker": MARKERS[which],
                "color": shades[snapshots.index(snapshot)],
                "edgecolor": "black",
            }
            axes.scatter(x, y, size, linewidth=0.5 if points is rows else 1.8, zorder=3, **style)
            seen += [*x]
    if machine.memory is None:
        raise MachineError(f"{machine.name}: memory: must be given for a roofline")
    offchip, peak = machine.memory.offchip, machine.accelerator.multipliers
    rate = offchip.channels * offchip.megabytes_per_second / machine.clock_mhz
    low, high = min([1, *seen]) / 2, max([1, *seen, peak / rate if rate else 1]) * 2
    x = np.geomspace(low, high, 200)
    axes.plot(x, np.minimum(peak, x * rate) if rate else np.full_like(x, peak), color="black", lw=1.2)
    slope = f", slope: {rate:,.4g} bytes/cycle" if rate else ", off-chip memory unlimited"
    axes.set(xscale="log", yscale="log", xlim=(low, high), xlabel="effectual multiplications per off-chip byte")
    axes.set_ylabel("effectual multiplications per cycle")
    above = "; a layer above it had its data come while another ran" if rate else ""
    axes.set_title(f"roof: {peak:,} multipliers{slope}{above}", fontsize=8)
    axes.grid(color="#dddddd", lw=0.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_thousands))
    passes = [which for which in MARKERS if which in set(rows["pass"])]
    handles: list[Artist] = [
        Line2D([], [], marker=MARKERS[p], ls="", mfc="white", mec="black", label=HEADINGS[p]) for p in passes
    ]
    handles += [Patch(fc=shade, ec="black", label=_short(s)) for s, shade in zip(snapshots, shades, strict=True)]
    handles.append(Line2D([], [], marker="o", ls="", ms=11, mew=1.8, mfc="white", mec="black", label="all layers"))
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


def speedups(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each layer and pass over the first snapshot with sparsity 0, in cycles and in effectual work, per sample."""
    keys = ["layer", "pass"]
    counts = {"speedup": CYCLES.column, "fewer": EFFECTUAL.column}
    rows = rows[["snapshot", "sparsity", "step", "samples", *keys, *counts.values()]]
    dense = rows[(rows["sparsity"] == 0) & (not is_series(rows))]
    dense = dense[dense["snapshot"] == dense["snapshot"].iloc[0]] if len(dense) else dense
    others = rows[~rows["snapshot"].isin(dense["snapshot"])]
    both = others.merge(dense, on=keys, suffixes=("", "_dense"))
    both = both[(both[[*counts.values()]] > 0).all(axis=1)]
    for name, column in counts.items():
        both[name] = both[f"{column}_dense"] * both["samples"] / (both[column] * both["samples_dense"])
    return both[["snapshot", *keys, "speedup", "fewer"]]


def speedup_by_layer(gains: pd.DataFrame, title: str) -> Figure:
    """A mark for each speedup, a line from there to that of effectual work; a row a layer, a panel a pass."""
    figure, panels = _layer_panels(gains, f"Speedup against Top-K 0 %: {title}")
    layers, snapshots = list(pd.unique(gains["layer"])), list(pd.unique(gains["snapshot"]))
    shades = _shades(len(snapshots) + 1)[1:]
    for which, axes in panels.items():
        for number, (snapshot, shade) in enumerate(zip(snapshots, shades, strict=True)):
            group = gains[(gains["pass"] == which) & (gains["snapshot"] == snapshot)]
            y = np.array([layers.index(layer) for layer in group["layer"]]) + 0.8 * (
                (number + 0.5) / len(snapshots) - 0.5
            )
            axes.hlines(y, group["speedup"], group["fewer"], color="#888888", lw=0.6)
            axes.plot(group["fewer"], y, ls="", marker="|", ms=5, mew=1.2, color="black")
            axes.scatter(group["speedup"], y, 20, color=shade, marker="oDv^s"[number % 5], edgecolor="black", lw=0.5)
        axes.set(xscale="log", xlabel="speedup")
        axes.axvline(1, color="black", lw=0.8, zorder=0)
        axes.grid(axis="x", color="#dddddd", lw=0.5)
        axes.xaxis.set_major_locator(LogLocator(2))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.tick_params("x", labelbottom=True)
    handles = [
        Line2D([], [], marker="oDv^s"[number % 5], ls="", mfc=shade, mec="black", label=_short(snapshot))
        for number, (snapshot, shade) in enumerate(zip(snapshots, shades, strict=True))
    ]
    fewer = Line2D([], [], marker="|", ls="", mew=1.2, color="black", label="times fewer effectual multiplications")
    figure.legend(handles=[*handles, fewer], loc="outside lower center", ncols=1 + 2 * len(panels), frameon=False)
    return figure


def over_steps(rows: pd.DataFrame, title: str) -> Figure:
    """A series: cycles of a sample by step, a line a pass; beside it the share of products that are effectual."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(f"Over training: {title}")
    left, right = figure.subplots(1, 2)
    steps, even = steps_of(rows), evened(rows)
    whole = fold(even, ["snapshot", "pass"]).assign(step=lambda t: t["snapshot"].map(steps)).sort_values("step")
    samples = whole["snapshot"].map(even.groupby("snapshot")["samples"].first())
    whole = whole.assign(each=whole[CYCLES.column] / samples, share=whole[EFFECTUAL.column] / whole[DENSE.column])
    for which, marker in MARKERS.items():
        own = whole[whole["pass"] == which]
        for axes, column in ((left, "each"), (right, "share")):
            style = {"marker": marker, "color": "black", "mfc": "white", "label": HEADINGS[which]}
            axes.plot(own["step"], own[column], **style) if len(own) else None
    left.set(xlabel="step", ylabel="cycles a sample", ylim=(0, None))
    right.set(xlabel="step", ylabel="effectual of all multiplications", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(color="#dddddd", lw=0.5)
        axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _intensity(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Effectual multiplications per off-chip byte and per cycle, of the rows that have all three."""
    moved = rows[[part.column for part in OFFCHIP_MOVED.parts]].sum(axis=1)
    both = (moved > 0) & (rows[EFFECTUAL.column] > 0)
    rows, moved = rows[both], moved[both]
    done = rows[EFFECTUAL.column]
    return (done / moved).to_numpy(), (done / rows[CYCLES.column]).to_numpy()


def _layer_panels(rows: pd.DataFrame, title: str) -> tuple[Figure, dict[str, Axes]]:
    """A panel a pass, side by side, with a row a layer, the first on top."""
    layers = pd.unique(rows["layer"])
    passes = [which for which in HEADINGS if which in set(rows["pass"])]
    size = PANEL_INCHES * len(passes) + 2.2, ROW_INCHES * len(layers) + 1.8
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    panels = dict(zip(passes, figure.subplots(1, len(passes), sharex=True, sharey=True, squeeze=False)[0], strict=True))
    for which, axes in panels.items():
        axes.set_title(HEADINGS[which])
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.tick_params("y", length=0, labelsize=7)
        odd = np.arange(len(layers)) % 2
        _boxes(axes, odd * 0, odd, 1, color="#f4f4f4", lw=0, zorder=0, transform=axes.get_yaxis_transform())
    panels[passes[0]].set_yticks(range(len(layers)), [_short(layer) for layer in layers])
    return figure, panels


def _boxes(axes: Axes, left: np.ndarray, right: np.ndarray, height: float, **style: Any) -> None:
    """A box a row, as one artist: a bar each takes seconds where there are many."""
    low, high = np.arange(len(left)) - height / 2, np.arange(len(left)) + height / 2
    corners = np.stack([*zip((left, right, right, left), (low, low, high, high), strict=True)])
    axes.add_collection(PolyCollection([*corners.transpose(2, 0, 1)], **style), autolim=False)


def _shades(number: int) -> list[str]:
    """Greys from light to dark; a colour would say no more."""
    return [str(shade) for shade in np.linspace(0.95, 0.15, number).round(3)] if number > 1 else ["0.5"]


def _short(name: str) -> str:
    """A name as a label: a trace's names are any length, and in any script."""
    name = name.encode("ascii", "backslashreplace").decode()
    return name if len(name) <= LONGEST_LABEL else f"…{name[1 - LONGEST_LABEL :]}"


def _thousands(value: float, _: object) -> str:
    for unit, sign in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{sign}"
    return f"{value:g}"
