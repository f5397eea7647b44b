"""What a report shows of one run: findings, the summary beside the paper's figures, layers, machine, provenance."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from accelsim.hardware.accelerators.base import CAUSES
from accelsim.study.report.drawing import machine_html
from accelsim.study.report.folders import Run, read_run
from accelsim.study.report.page import Cell, Page, Section, count, details, downloads, esc, flat, percent, table, times
from accelsim.study.results import COLUMNS, convolutions
from accelsim.study.tables import HEADINGS

PASSES = {name: " ".join(HEADINGS[name].split()) for name in COLUMNS}
PAPER = 'the paper: Table 6 of "Sparse Weight Activation Training", whose backward pass is the input gradient'


def page_of(folder: Path) -> Page:
    """The page of a folder that ``accelsim run --out`` wrote. Raises ResultsError."""
    run = read_run(folder)
    data, trace = run.data, run.data["provenance"]["trace"]
    over = f", compared with {data['baseline']}" if data["baseline"] else ""
    sections = [
        Section("findings", "Findings", _cards(run)),
        Section("summary", "Summary", _summary(data)),
        Section("slots", "Where the slots went", _slots(run)),
        Section("charts", "Layer by layer", _charts(run)),
        Section("layers", "Table of layers", _layers(run)),
        Section("machine", "The machine", machine_html(data["provenance"])),
        Section("provenance", "Provenance", _provenance(data["provenance"])),
        Section("files", "Files", "<p>The results as they were written, inside this page:</p>" + downloads(run.files)),
    ]
    return Page(
        title=f"{data['machine']} on {trace['network']}, {trace['dataset']}",
        lead=f"Cycles of the convolutions of a training step on {data['machine']}, {data['multipliers']:,} "
        f"multipliers{over}; where every multiplier slot went, and why.",
        sections=sections,
        data=_chart_data(run),
        generator=f"accelsim {data['provenance']['accelsim']}",
    )


# Findings and summary ----------------------------------------------------------------------------------------------


def _cards(run: Run) -> str:
    """The figures of the sparsest snapshot."""
    data = run.data
    at = max(range(len(data["speedup"])), key=lambda i: (data["speedup"][i]["sparsity"], i))
    speedup, paper, used = data["speedup"][at], data["paper"][at], data["utilization"][at]
    over = data["speedup_over_baseline"][at] if at < len(data["speedup_over_baseline"]) else {}
    cards = []
    for column in ("fwd", "input_grad", "weight_grad", "step"):
        own, other = speedup[column], over.get(column)
        if own is None and other is None:
            continue
        big, notes = (f"{own:.2f}×", ["over Top-K 0 %"]) if own is not None else (f"{other:.2f}×", [])
        if column in paper:
            notes.append(f"the paper {paper[column]:g}×")
        if other is not None:
            notes.append(f"{other:.2f}× over {data['baseline']}" if own is not None else f"over {data['baseline']}")
        cards.append((PASSES[column], big, notes))
    last = next((column for column in reversed(COLUMNS) if used[column] is not None), None)
    if last:
        notes = [f"of slots do useful work, {PASSES[last]}"]
        if used is not data["utilization"][0]:
            notes.append(f"{100 * (data['utilization'][0][last] or 0):.1f} % at {_label(data['utilization'][0])}")
        cards.append(("utilization", f"{100 * used[last]:.1f} %", notes))
    rows = convolutions(run.table)
    rows = rows[rows["snapshot"] == speedup["snapshot"]]
    lost = {name: total for name, total in _shares(rows).items() if name != "effectual"}
    if lost:
        worst = max(lost, key=lambda name: lost[name])
        cards.append((f"largest loss: {_words(worst)}", f"{100 * lost[worst]:.1f} %", [CAUSES.get(worst, "of slots")]))
    items = "".join(
        f"<li><h3>{esc(name)}</h3><p class='big'>{esc(big)}</p>{''.join(f'<p>{esc(note)}</p>' for note in notes)}</li>"
        for name, big, notes in cards
    )
    return f'<p>At {esc(_label(speedup))}, over {esc(data["layers"])}:</p><ul class="cards">{items}</ul>'


def _summary(data: dict[str, Any]) -> str:
    """Table 6 with the paper's figures, then what it is made of."""
    beside = [column for column in COLUMNS if any(column in paper for paper in data["paper"])]
    headings = {"snapshot": "Top-K sparsity"}
    for column in COLUMNS:
        headings[column] = PASSES[column]
        if column in beside:
            headings[f"{column} paper"] = "the paper"
    rows = []
    for row, paper in zip(data["speedup"], data["paper"], strict=True):
        cells: list[Any] = [_label(row)]
        for column in COLUMNS:
            cells.append(times(row[column]))
            if column in beside:
                cells.append(Cell(f"{paper[column]:g}×" if column in paper else "–", paper.get(column), "paper"))
        rows.append(cells)
    caption = f"Speedup on {data['machine']} against Top-K 0 % on the same machine, over {data['layers']}"
    first = table(headings, rows, name="table6", caption=caption)
    note = f"<p class='note'>{esc(PAPER)}</p>" if beside else ""
    whole = table(
        {"snapshot": "", **PASSES},
        _parts(data),
        name="comparison",
        caption=f"What it is made of, over {data['layers']}",
    )
    return first + note + whole


def _parts(data: dict[str, Any]) -> Iterator[list[Any]]:
    """Rows of the table below Table 6."""
    linear = data["with_linear"]
    parts = [
        (
            f"speedup over {data['baseline']}, {data['baseline_multipliers'] or 0:,} multipliers",
            data["speedup_over_baseline"],
            times,
        ),
        ("bound on the speedup: effectual multiplications alone", data["bound"], times),
        (f"utilization of {data['multipliers']:,} multipliers", data["utilization"], percent),
        ("cycles", data["cycles"], count),
        ("with the linear layers as well: speedup", linear["speedup"], times),
        ("with the linear layers as well: cycles", linear["cycles"], count),
    ]
    for name, rows, show in parts if linear["cycles"] != data["cycles"] else parts[:4]:
        if rows:
            yield [name]
        for row in rows:
            yield [_label(row), *(show(row[column]) for column in COLUMNS)]


# Slots and layers --------------------------------------------------------------------------------------------------


def _slots(run: Run) -> str:
    """The account of all layers: a chart, the same in figures, and what the causes mean."""
    causes = [name for name in _ending(run.table, "_slots") if run.table[f"{name}_slots"].any()]
    groups = run.table.groupby(["snapshot", "pass"], sort=False)
    rows = [
        [snapshot, _pass(which), *(percent(shares.get(cause, 0.0)) for cause in causes)]
        for (snapshot, which), group in groups
        if (shares := _shares(group))
    ]
    headings = {"snapshot": "snapshot", "pass": "pass"} | {cause: _words(cause) for cause in causes}
    meanings = "".join(f"<dt>{esc(_words(c))}</dt><dd>{esc(CAUSES.get(c, ''))}</dd>" for c in causes)
    return (
        "<p>Each multiplier in each cycle is a slot, and each slot has one cause; all layers together.</p>"
        '<div class="chart" id="chart-slots"></div>'
        + details("What the causes mean", f"<dl>{meanings}</dl>")
        + details("The same in figures", table(headings, rows, name="slot-table", caption="Share of slots by cause"))
    )


def _charts(run: Run) -> str:
    """Places for the charts, and what is chosen for all of them; ``page.js`` fills them."""
    passes = {which: _pass(which) for which in run.table["pass"].unique()}
    names = {"": "all passes"} | passes if len(passes) > 1 else passes
    snapshots = {row["snapshot"]: _label(row) for row in run.data["cycles"]}
    last = run.data["cycles"][-1]["snapshot"]
    chosen = _select("snapshot", "snapshot", snapshots, last) + _select("pass", "pass", names, next(iter(names)))
    charts = [
        ("causes", "Multiplier slots by cause", _select("unit", "as", {"share": "share", "count": "slots"})),
        ("cycles", "Cycles", ""),
        ("speedup", "Speedup", _select("over", "over", _references(run))),
    ]
    places = _places(run.table)
    if places:
        charts.append(("bytes", "Bytes moved", _select("place", "of", {place: _words(place) for place in places})))
    if _energies(run.table):
        charts.append(("energy", "Energy", ""))
    figures = "".join(
        f'<figure><figcaption><h3>{esc(title)}</h3>{control}</figcaption><div class="chart" id="chart-{name}"></div>'
        "</figure>"
        for name, title, control in charts
        if name != "speedup" or _references(run)
    )
    hint = (
        "Tap or point at a bar for its figures; a name in a legend hides and shows its bars; "
        "with a mouse, drag to zoom and double-click to zoom out."
    )
    return (
        f'<noscript><p>The charts need JavaScript; the tables do not.</p></noscript><form class="bar">{chosen}</form>'
        f'<p class="note screen">{hint}</p>{figures}'
    )


def _select(name: str, label: str, options: dict[str, str], chosen: str | None = None) -> str:
    """A choice; ``options``: value → text."""
    items = "".join(
        f'<option value="{esc(value)}"{" selected" if value == chosen else ""}>{esc(text)}</option>'
        for value, text in options.items()
    )
    return f'<label>{esc(label)} <select data-choice="{esc(name)}">{items}</select></label>'


def _references(run: Run) -> dict[str, str]:
    """What a layer's cycles can be compared with."""
    found = {"": f"Top-K 0 % ({_dense(run.table)})"} if _dense(run.table) is not None else {}
    return found | ({"baseline": run.data["baseline"]} if "baseline_cycles" in run.table else {})


def _dense(rows: pd.DataFrame) -> str | None:
    """The snapshot that speedups are over, as in ``results.summarize``."""
    dense = rows.loc[rows["sparsity"] == 0, "snapshot"]
    return None if dense.empty else str(dense.iloc[0])


def _layers(run: Run) -> str:
    """Every row with work in it, to sort and to filter."""
    rows = run.table[run.table["cycles"] > 0].reset_index(drop=True)
    headings = {"layer": "layer", "snapshot": "snapshot", "pass": "pass", "kind": "kind", "cycles": "cycles"}
    columns: list[Iterable[object]] = [rows["layer"], rows["snapshot"], rows["pass"].map(_pass), rows["kind"]]
    columns.append(rows["cycles"].map(count))
    if (dense := _dense(rows)) is not None:
        headings["speedup"] = "over 0 %"
        columns.append(_over_dense(rows, dense).map(lambda v: times(None if pd.isna(v) else v)))
    if "baseline_cycles" in rows:
        headings["over_baseline"] = f"over {run.data['baseline']}"
        columns.append((rows["baseline_cycles"] / rows["cycles"]).map(times))
    headings["utilization"] = "utilization"
    columns.append((rows["effectual_slots"] / (rows["cycles"] * rows["multipliers"])).map(percent))
    headings |= {"loss": "largest loss", "loss_share": "its share"}
    losses = [max(_losses(row).items(), key=lambda item: item[1]) for _, row in rows.iterrows()]
    columns += [[_words(name) for name, _ in losses], [percent(share) for _, share in losses]]
    offchip = [name for name in map(str, rows) if name.startswith("offchip_") and name.endswith("_bytes")]
    for key, text, names in (
        ("offchip", "off-chip bytes", offchip),
        ("energy", "energy, pJ", [f"{name}_pj" for name in _energies(rows)]),
    ):
        if names:
            headings[key] = text
            columns.append(rows[names].sum(axis=1).map(count))
    whole = table(headings, zip(*columns, strict=True), name="layer-table", caption="Layers", sortable=True)
    return (
        '<div class="bar"><label>filter <input type="search" id="filter" placeholder="e.g. layer4 forward" '
        f'autocomplete="off"></label><span id="shown" role="status">{len(rows):,} rows</span></div>'
        "<p class='note screen'>Rows that hold every word. A heading sorts. The address keeps both, as a link.</p>"
        f'{whole}<p class="unprinted">More than 100 rows are not printed: filter them first.</p>'
    )


def _pass(which: object) -> str:
    """A pass in words."""
    return PASSES.get(str(which), str(which))


def _over_dense(rows: pd.DataFrame, dense: str) -> pd.Series:
    """Speedup of each row over the same layer and pass of a snapshot, per sample; NaN where it has none."""
    keys = ["layer", "pass"]
    reference = rows[rows["snapshot"] == dense].drop_duplicates(keys)
    each = (reference["cycles"] / reference["samples"]).set_axis(pd.MultiIndex.from_frame(reference[keys]))
    over = each.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy()
    return pd.Series(over * rows["samples"].to_numpy() / rows["cycles"].to_numpy(), rows.index)


def _losses(row: pd.Series) -> dict[str, float]:
    """Share of the slots of a row by cause, but for the useful ones."""
    total = row["cycles"] * row["multipliers"]
    causes = [name for name in row.index if name.endswith("_slots") and name != "effectual_slots"]
    return {name.removesuffix("_slots"): row[name] / total for name in causes} or {"–": 0.0}


def _shares(rows: pd.DataFrame) -> dict[str, float]:
    """Share of the slots of all rows by cause; nothing where no cycle passed."""
    sums = {name: float(rows[f"{name}_slots"].sum()) for name in _ending(rows, "_slots")}
    total = float((rows["cycles"] * rows["multipliers"]).sum())
    return {name: value / total for name, value in sums.items()} if total else {}


# What the charts are drawn from ------------------------------------------------------------------------------------


def _chart_data(run: Run) -> dict[str, Any]:
    """Columns of the table, with names numbered; columns without a count are left out."""
    rows = run.table
    data = {
        "machine": run.data["machine"],
        "baseline": run.data["baseline"] if "baseline_cycles" in rows else None,
        "dense": _dense(rows),
        "passes": {which: _pass(which) for which in rows["pass"].unique()},
        "meanings": CAUSES,
        "rows": {name: rows[name].tolist() for name in ("cycles", "samples", "multipliers")},
        "names": {},
    }
    for name in ("snapshot", "layer", "pass"):
        codes, names = pd.factorize(rows[name])
        data["rows"][name], data["names"][name] = codes.tolist(), list(names)
    if data["baseline"] is not None:
        data["rows"]["baseline_cycles"] = rows["baseline_cycles"].tolist()
    data["slots"] = {n: rows[f"{n}_slots"].tolist() for n in _ending(rows, "_slots") if rows[f"{n}_slots"].any()}
    data["places"] = {
        place: {text: rows[name].tolist() for text, name in columns.items()} for place, columns in _places(rows).items()
    }
    data["energy"] = {name: rows[f"{name}_pj"].tolist() for name in _energies(rows)}
    return data


def _ending(rows: pd.DataFrame, suffix: str) -> list[str]:
    """Beginnings of the columns that end so."""
    return [name.removesuffix(suffix) for name in map(str, rows) if name.endswith(suffix)]


def _places(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Where bytes move → what is done there → its column; off chip first."""
    found: dict[str, dict[str, str]] = {}
    for name in _ending(rows, "_bytes"):
        if rows[f"{name}_bytes"].any():
            place, _, verb = name.rpartition("_") if name.endswith(("_read", "_write")) else (name, "", "moved")
            found.setdefault(place, {})[verb] = f"{name}_bytes"
    return dict(sorted(found.items(), key=lambda item: not item[0].startswith("offchip")))


def _energies(rows: pd.DataFrame) -> list[str]:
    """Components of energy; a column that is the sum of the others is their total and no component."""
    names = [name for name in _ending(rows, "_pj") if rows[f"{name}_pj"].any()]
    together = rows[[f"{name}_pj" for name in names]].sum(axis=1)
    totals = [n for n in names if len(names) > 1 and ((together - 2 * rows[f"{n}_pj"]).abs() <= 1e-6 * together).all()]
    return [name for name in names if name not in totals]


def _label(row: dict[str, Any]) -> str:
    return f"{100 * row['sparsity']:g} % ({row['snapshot']})"


def _words(name: str) -> str:
    """``offchip_weight`` → ``off-chip weight``."""
    return name.replace("_", " ").replace("offchip", "off-chip").replace("onchip", "on-chip")


# Provenance --------------------------------------------------------------------------------------------------------


def _provenance(origin: dict[str, Any]) -> str:
    """Where it comes from; the command as it can be run again."""
    known = {
        "command": shlex.join(origin["command"]),
        "accelsim": origin["accelsim"],
        **{f"trace: {key}": value for key, value in origin["trace"].items() if key != "provenance"},
        "seed": origin.get("seed"),
        "versions": ", ".join(f"{name} {version}" for name, version in origin["versions"].items()),
    }
    told = list(flat(origin["trace"].get("provenance", {})))
    rows = [[key, "none" if value is None else value] for key, value in known.items()]
    first = table({"key": "key", "value": "value"}, rows, name="origin", caption="This run")
    if not told:
        return first
    second = table({"key": "key", "value": "value"}, told, name="trace-origin", caption="The trace")
    return first + details("Where the trace comes from, in its own words", second)
