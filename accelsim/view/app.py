"""Connects the page: what a choice or a slider changes, and what of it is counted anew."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import flask
from dash import Dash, Input, Output, State, ctx, no_update

from accelsim.errors import AccelsimError, printable
from accelsim.view import figures, layout
from accelsim.view.live import FACTORS, Counted, Live, Setting, bandwidth_of, lookahead_of
from accelsim.view.points import LayerAccount, Point
from accelsim.view.results import Results

MOST_KEPT = 60  # points of a page
SLIDERS = ("sparsity", "pes", "lookahead", "bandwidth")


class View:
    """The page of some sources: traces that are counted, and results that were."""

    def __init__(self, live: Live, results: Mapping[str, Results]):
        self.live, self.results = live, dict(results)
        self._settings: list[Setting] = []  # what points were counted for; a page names them by number
        self._lock = threading.Lock()

    def app(self, prefix: str) -> Dash:
        """The application below an address, ``/token/``."""
        app = Dash(
            "accelsim", url_base_pathname=prefix, serve_locally=True, title="accelsim view", update_title=None,
            assets_folder=str(Path(__file__).parent / "assets"), show_undo_redo=False,
        )  # fmt: skip
        app.layout = layout.page([*self.live.traces, *self.results], list(self.live.machines))
        said = [Output(f"{name}-said", "children") for name in SLIDERS]
        given = [Input(name, "value") for name in ("machine", *SLIDERS)]
        app.callback(*said, Output("lookahead", "disabled"), Output("bandwidth", "disabled"), *given)(self.said)
        app.callback(Output("sparsity", "value"), Input("source", "value"))(self.started)
        app.callback(Output("lookahead", "value"), Input("machine", "value"))(self.own_lookahead)
        app.callback(
            Output("points", "data"), Output("chosen", "data"), Output("status", "children"), Output("live", "hidden"),
            *(Input(name, "value") for name in ("source", "machine", "which", *SLIDERS, "everything")),
            Input("clear", "n_clicks"), State("points", "data"), State("chosen", "data"),
        )(self.counted)  # fmt: skip
        app.callback(
            Output("pareto", "figure"), Output("point", "options"), Output("point", "value"),
            Output("figures", "children"), Input("points", "data"), Input("chosen", "data"),
        )(self.points)  # fmt: skip
        choosing = Output("chosen", "data", allow_duplicate=True)
        app.callback(choosing, Input("pareto", "clickData"), prevent_initial_call=True)(self.clicked_point)
        app.callback(choosing, Input("point", "value"), State("chosen", "data"), prevent_initial_call=True)(self.listed)
        app.callback(
            Output("layer", "options"), Output("layer", "value"),
            Input("chosen", "data"), Input("points", "data"), Input("layers", "clickData"), State("source", "value"),
            State("layer", "value"),
        )(self.layers)  # fmt: skip
        app.callback(
            Output("layers", "figure"), Output("account", "children"), Input("layer", "value"),
            Input("layer", "options"), State("chosen", "data"), State("points", "data"), State("source", "value"),
        )(self.account)  # fmt: skip
        app.server.route(f"{prefix}corner/<int:number>/<int:layer>")(self.corner)
        self._prefix = prefix
        return app

    # What sliders say ------------------------------------------------------------------------------------------------

    def said(self, machine: str, sparsity: Any, pes: Any, lookahead: Any, bandwidth: Any) -> tuple[Any, ...]:
        """What each slider stands for, and which the machine does not have."""
        chosen = self.live.machine(machine)
        own, rate = lookahead_of(chosen), bandwidth_of(chosen)
        ahead = "none on this machine" if own is None else f"{lookahead} lines"
        ahead += " (its own)" * (own == int(lookahead))
        size = round(chosen.accelerator.multipliers * FACTORS[int(pes)])
        channels = chosen.memory.offchip.channels if chosen.memory else 0
        speed = f"{rate * channels * FACTORS[int(bandwidth)] / 1000:,.0f} GB/s" if rate else "unlimited"
        return (
            f"{int(sparsity)} %", f"{FACTORS[int(pes)]:g}×, {size:,} multipliers", ahead, speed, own is None, not rate,
        )  # fmt: skip

    def started(self, source: str) -> Any:
        """The sparsest snapshot of a trace."""
        if source not in self.live.traces:
            return no_update
        return round(100 * max(snapshot.sparsity for snapshot in self.live.traces[source].snapshots))

    def own_lookahead(self, machine: str) -> int:
        """A machine's own."""
        return lookahead_of(self.live.machine(machine)) or 0

    # Points ----------------------------------------------------------------------------------------------------------

    def counted(
        self, source: str, machine: str, which: str, sparsity: Any, pes: Any, lookahead: Any, bandwidth: Any,
        everything: list[str], _: Any, points: list[dict[str, Any]], chosen: int | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        """The points of a source: those of a folder, or one more for where the sliders stand."""
        if source in self.results:
            known = enumerate(self.results[source].points)
            found = [asdict(point) | {"number": number, "source": source} for number, point in known]
            return found, 0, f"{len(found):,} points of {source}", True
        own = lookahead_of(self.live.machine(machine))
        ahead = None if own is None or int(lookahead) == own else int(lookahead)
        setting = Setting(source, machine, which, int(sparsity), int(pes), int(bandwidth), ahead, bool(everything))
        try:
            counted = self.live.count(setting)
        except AccelsimError as error:
            return no_update, no_update, printable(str(error.lines[0])), False
        number = self._number(setting)
        kept = [] if ctx.triggered_id == "clear" else points
        kept = [point for point in kept if point["source"] == source and point["number"] != number][-MOST_KEPT + 1 :]
        kept.append(asdict(counted.point) | {"number": number, "source": source})
        return kept, len(kept) - 1, _status(counted), False

    def _number(self, setting: Setting) -> int:
        with self._lock:
            if setting not in self._settings:
                self._settings.append(setting)
            return self._settings.index(setting)

    def points(self, points: list[dict[str, Any]], chosen: int | None) -> tuple[Any, ...]:
        """The chart of points, their list, and the figures of the one chosen."""
        if not points:
            return no_update, [], None, []
        at = min(chosen or 0, len(points) - 1)
        shown = [_point(point) for point in points]
        options = [{"label": point.label, "value": i} for i, point in enumerate(shown)]
        return figures.pareto(shown, at), options, at, layout.cards(shown[at])

    def clicked_point(self, click: dict[str, Any] | None) -> Any:
        """The point that was clicked."""
        found = click["points"][0].get("customdata") if click else None
        return no_update if found is None else found

    def listed(self, value: int | None, chosen: int | None) -> Any:
        """The point that was chosen from the list."""
        return no_update if value is None or value == chosen else value

    # Layers ----------------------------------------------------------------------------------------------------------

    def accounts(self, source: str, point: dict[str, Any]) -> list[LayerAccount]:
        """The layers of a point."""
        if source in self.results:
            return self.results[source].layers(point["number"])
        return list(self.live.count(self._settings[point["number"]]).layers)

    def layers(
        self,
        chosen: int | None,
        points: list[dict[str, Any]],
        click: dict[str, Any] | None,
        source: str,
        layer: str | None,
    ) -> tuple[Any, ...]:
        """The list of layers of a point; the layer stays, if the point has it, else it is the one of most cycles."""
        if not points:
            return [], None
        found = self.accounts(source, points[min(chosen or 0, len(points) - 1)])
        names = [account.name for account in found]
        if ctx.triggered_id == "layers" and click:
            layer = click["points"][0].get("customdata")
        most = max(found, key=lambda account: account.cycles, default=None)
        return names, layer if layer in names else most and most.name

    def account(
        self, layer: str | None, _: list[str], chosen: int | None, points: list[dict[str, Any]], source: str
    ) -> tuple[Any, ...]:
        """The chart of layers, and the account of the one chosen."""
        if not points:
            return no_update, []
        point = points[min(chosen or 0, len(points) - 1)]
        found = self.accounts(source, point)
        own = [i for i, account in enumerate(found) if account.name == layer]
        picture = f"{self._prefix}corner/{point['number']}/{own[0]}" if own and source in self.live.traces else None
        return figures.layers(found, layer), layout.account(found[own[0]], picture) if own else []

    def corner(self, number: int, layer: int) -> Any:
        """The animation of a corner of a layer of a point."""
        from accelsim.study.animation import animated, to_html
        from accelsim.study.animation.filming import fitting_cut

        if number >= len(self._settings):
            flask.abort(404)
        counted = self.live.count(self._settings[number])
        if layer >= len(counted.layers):
            flask.abort(404)
        account = counted.layers[layer]
        try:
            small = fitting_cut(counted.machine, self.live.layer(counted, account), account.which)
            return to_html(animated(counted.machine, small, account.which))
        except AccelsimError as error:
            return flask.Response(printable(f"{error}\n"), 409, mimetype="text/plain")


def _point(point: dict[str, Any]) -> Point:
    return Point(**{key: value for key, value in point.items() if key not in ("number", "source")})


def _status(counted: Counted) -> str:
    layers = f"{len(counted.snapshot.layers)} layers"
    if counted.left_out:
        layers += f" ({counted.left_out} more are left out)"
    return f"{layers}, counted in {counted.seconds:.2f} s"
