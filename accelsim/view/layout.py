"""What stands on the page before anything is counted: choices, sliders, charts, a layer's account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import dcc, html

from accelsim import ledger
from accelsim.study.animation.page import PASSES
from accelsim.view.live import FACTORS
from accelsim.view.points import LayerAccount, Point

WHICH = PASSES | {"all": "all three"}
CONFIG = {"displayModeBar": False, "displaylogo": False, "responsive": True, "scrollZoom": False}
EMPTY: dict[str, Any] = {"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}}
HELP = (
    "A slider that moves simulates again, on one sample. Each setting leaves a point. Choose a point or a layer in its "
    "chart or in its list; points of one workload are on one front."
)


def page(sources: Sequence[str], machines: Sequence[str]) -> Any:
    """All of it."""
    return html.Div(
        [
            html.Header([html.H1("accelsim view"), html.P(HELP, className="lead")]),
            html.Main([html.Div([_choices(sources, machines), _shown()], className="columns"), _account()]),
            dcc.Store(id="points", data=[]),
            dcc.Store(id="chosen", data=None),
        ]
    )


def _choices(sources: Sequence[str], machines: Sequence[str]) -> Any:
    start = "tensordash.yaml" if "tensordash.yaml" in machines else machines[0]
    return html.Section(
        [
            html.H2("What is counted"),
            _list("source", "trace, run or sweep", sources, sources[0]),
            html.Div(
                [
                    _list("machine", "machine", machines, start),
                    html.Fieldset(
                        [
                            html.Legend("pass"),
                            dcc.RadioItems(id="which", options=WHICH, value="fwd", className="radios"),
                        ]
                    ),
                    slider("sparsity", "zeros", 0, 98, 90),
                    slider("pes", "PEs", 0, len(FACTORS) - 1, 2),
                    slider("lookahead", "lookahead", 0, 12, 2),
                    slider("bandwidth", "bandwidth off chip", 0, len(FACTORS) - 1, 2),
                    dcc.Checklist(id="everything", options={"all": "all layers, however long it takes"}, value=[]),
                    html.Button("forget other points", id="clear", type="button"),
                ],
                id="live",
            ),
            html.P(id="status", className="status", role="status"),
        ],
        className="choices",
    )


def _list(name: str, title: str, options: Sequence[str], value: str) -> Any:
    chooser = dcc.Dropdown(id=name, options=list(options), value=value, clearable=False, className="list")
    return html.Div([html.Label(title, htmlFor=name), chooser])


def slider(name: str, title: str, least: int, most: int, value: int) -> Any:
    """A native slider, which keys move and a screen reader reads, with what it stands for."""
    moved = dcc.Input(id=name, type="range", min=least, max=most, step=1, value=value, className="range")
    return html.Div([html.Label([title, " ", html.Output(id=f"{name}-said", htmlFor=name)], htmlFor=name), moved])


def _shown() -> Any:
    return html.Section(
        [
            html.H2("Points: cycles, energy, multipliers"),
            html.Ul(id="figures", className="cards"),
            dcc.Graph(id="pareto", config=CONFIG, figure=EMPTY, style={"height": "300px"}),
            html.Label("point", htmlFor="point"),
            dcc.Dropdown(id="point", options=[], clearable=False, className="list"),
        ],
        className="shown",
    )


def _account() -> Any:
    return html.Section(
        [
            html.H2("Layers"),
            dcc.Graph(id="layers", config=CONFIG, figure=EMPTY, style={"height": "430px"}),
            html.Label("layer", htmlFor="layer"),
            dcc.Dropdown(id="layer", options=[], clearable=False, className="list"),
            html.Div(id="account"),
        ]
    )


def cards(point: Point) -> list[Any]:
    """Its figures."""
    told = {
        "cycles": f"{point.cycles:,}",
        "energy": "not known" if point.energy_mj is None else f"{point.energy_mj:,.3g} mJ",
        "multipliers": f"{point.multipliers:,}",
        "utilization": f"{100 * point.utilization:.1f} %",
        "over as many busy multipliers": "–" if point.per_multiplier is None else f"{point.per_multiplier:.2f}×",
    }
    return [html.Li([html.H3(name), html.P(text, className="big")]) for name, text in told.items()]


def account(layer: LayerAccount, picture: str | None) -> Any:
    """A layer's slots by cause, and where its picture is."""
    whole = layer.cycles * layer.multipliers
    rows = [
        html.Tr(
            [
                html.Th(row.words, scope="row"),
                html.Td(f"{layer.slots[row.name]:,}", className="n"),
                html.Td(f"{100 * layer.slots[row.name] / whole:.1f} %", className="n"),
                html.Td(row.meaning),
            ]
        )
        for row in ledger.rows("slots")
        if row.name in layer.slots
    ]
    heads = [html.Th(text, scope="col") for text in ("cause", "slots", "share", "what it is")]
    energy = "" if layer.energy_pj is None else f", {layer.energy_pj * 1e-6:,.3g} µJ"
    caption = f"{layer.name}: {layer.cycles:,} cycles of {layer.multipliers:,} multipliers{energy}"
    table = html.Table([html.Caption(caption), html.Thead(html.Tr(heads)), html.Tbody(rows)])
    parts = [html.Div(table, className="scroll", tabIndex="0", role="region", **{"aria-label": caption})]
    if picture is not None:
        words = "a corner of this layer on this machine, cycle by cycle"
        parts.append(html.P(html.A(words, href=picture, target="_blank", rel="noopener", id="picture")))
    return parts
