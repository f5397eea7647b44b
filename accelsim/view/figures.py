"""The page's charts, as the plain data that Plotly draws; causes have the names and colours of the plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelsim import ledger
from accelsim.view.points import LayerAccount, Point, front

INK, LINE, MARK = "#1b1f24", "#d0d7de", "#c2410c"
# What hatches of matplotlib, which the ledger names, are called in Plotly.
HATCHES = {"/": "/", "\\": "\\", "|": "|", "-": "-", "x": "x", "+": "+", ".": ".", "*": "x", "o": "."}
MANY = 10.0  # times as much: then an axis is logarithmic


def pareto(points: Sequence[Point], chosen: int | None) -> dict[str, Any]:
    """Cycles against energy, multipliers as size and colour; the front as a line, what is chosen ringed.

    Where the energy of a point is not known, multipliers take its place.
    """
    has_energy = all(point.energy_mj is not None for point in points)
    cycles = [point.cycles for point in points]
    height = [point.energy_mj if has_energy else point.multipliers for point in points]
    most = max((point.multipliers for point in points), default=1)
    on_front = [i for i in front(list(points)) if chosen is None or points[i].group == points[chosen].group]
    dots = {
        "type": "scatter", "mode": "markers", "x": cycles, "y": height,
        "text": [_said(point) for point in points], "hovertemplate": "%{text}<extra></extra>", "name": "points",
        "customdata": list(range(len(points))),
        "marker": {
            "size": [9 + 21 * (point.multipliers / most) ** 0.5 for point in points], "opacity": 0.85,
            "color": [point.multipliers for point in points], "colorscale": "Viridis", "showscale": len(points) > 1,
            "colorbar": {"title": {"text": "multipliers"}, "thickness": 12},
            "line": {"width": [3 if i == chosen else 1 for i in range(len(points))],
                     "color": [MARK if i == chosen else INK for i in range(len(points))]},
        },
    }  # fmt: skip
    line = {
        "type": "scatter", "mode": "lines", "x": [points[i].cycles for i in on_front], "name": "Pareto front",
        "y": [height[i] for i in on_front], "line": {"color": INK, "width": 1, "dash": "dot"}, "hoverinfo": "skip",
    }  # fmt: skip
    axes = {"xaxis": _axis("cycles", cycles), "yaxis": _axis("energy, mJ" if has_energy else "multipliers", height)}
    return {"data": [line, dots], "layout": _layout(300) | axes | {"showlegend": False, "hovermode": "closest"}}


def layers(accounts: Sequence[LayerAccount], chosen: str | None) -> dict[str, Any]:
    """A bar a layer: its cycles, by what their slots were used for or lost to."""
    names = [account.name for account in accounts]
    data = [
        {
            "type": "bar", "name": row.words, "x": list(range(len(names))),
            "y": [account.slots.get(row.name, 0) / account.multipliers for account in accounts],
            "customdata": names, "marker": _look(row),
            "hovertemplate": "%{customdata}: " + row.words + " %{y:,.0f} cycles<extra></extra>",
        }
        for row in ledger.rows("slots") if any(row.name in account.slots for account in accounts)
    ]  # fmt: skip
    ticks = {"tickvals": list(range(len(names))), "ticktext": [_short(name) for name in names], "tickangle": -60,
             "automargin": True, "tickfont": {"size": 10}, "fixedrange": True}  # fmt: skip
    shapes = [] if chosen not in names else [
        {"type": "rect", "x0": names.index(chosen) - 0.48, "x1": names.index(chosen) + 0.48, "y0": 0, "y1": 1,
         "yref": "paper", "line": {"color": MARK, "width": 2}},
    ]  # fmt: skip
    layout = _layout(430) | {"barmode": "stack", "xaxis": ticks, "yaxis": _axis("cycles", [0]), "shapes": shapes}
    layout["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"}
    return {"data": data, "layout": layout | {"bargap": 0.15}}


def _look(row: ledger.Count) -> dict[str, Any]:
    """A cause's fill, hatched as in the plots."""
    bar = row.bar or ledger.Bar(row.words)
    look: dict[str, Any] = {"color": bar.fill, "line": {"width": 0}}
    if bar.hatch:
        look["pattern"] = {"shape": HATCHES[bar.hatch[0]], "fgcolor": bar.ink, "bgcolor": bar.fill, "size": 6,
                           "solidity": 0.3, "fillmode": "replace"}  # fmt: skip
    return look


def _axis(title: str, values: Sequence[Any]) -> dict[str, Any]:
    positive = [float(value) for value in values if value]
    is_wide = len(positive) == len(values) and max(positive, default=1) / min(positive, default=1) > MANY
    return {"title": {"text": title}, "type": "log" if is_wide else "linear", "gridcolor": LINE,
            "zeroline": False, "automargin": True, "fixedrange": True}  # fmt: skip


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": height, "margin": {"l": 10, "r": 10, "t": 10, "b": 10}, "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "font": {"color": INK, "size": 12, "family": "system-ui, sans-serif"}, "uirevision": "kept", "autosize": True,
    }  # fmt: skip


def _said(point: Point) -> str:
    energy = "" if point.energy_mj is None else f"<br>{point.energy_mj:,.3g} mJ"
    return f"{plain(point.label)}<br>{point.cycles:,} cycles{energy}<br>{point.multipliers:,} multipliers"


def plain(text: str) -> str:
    """Plotly reads tags and entities in its texts; a name is a name."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _short(name: str) -> str:
    return plain(name if len(name) <= 26 else f"{name[:12]}…{name[-13:]}")
