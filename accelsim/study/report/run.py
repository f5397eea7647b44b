"""What a report shows of one run: findings, the summary beside the paper's figures, layers, machine, provenance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from accelsim import ledger
from accelsim.ledger import CYCLES, EFFECTUAL, OFFCHIP_MOVED, Count
from accelsim.study.report.common import (
    PASSES,
    chart_html,
    coverage_html,
    filter_html,
    guidance_html,
    pass_words,
    provenance_html,
)
from accelsim.study.report.drawing import machine_html
from accelsim.study.report.folders import Run, read_run
from accelsim.study.report.page import Cell, Page, Section, count, details, downloads, esc, mj, percent, table, times
from accelsim.study.results import COLUMNS, convolutions, is_series, slots_of, total
from accelsim.study.tables import FEWER, factors, series

PAPER = 'the paper: Table 6 of "Sparse Weight Activation Training", whose backward pass is the input gradient'


def page_of(folder: Path) -> Page:
    """The page of a folder that ``accelsim run --out`` wrote. Raises ResultsError."""
    run = read_run(folder)
    data, trace = run.data, run.data["provenance"]["trace"]
    over = f", compared with {data['baseline']}" if data["baseline"] else ""
    sections = [
        Section("findings", "Findings", _cards(run) + coverage_html(trace)),
        Section("summary", "Summary", _summary(data)),
        Section("slots", "Where the slots went", _slots(run)),
        Section("guidance", "What limits it, and what to change", guidance_html(data.get("guidance"))),
        Section("charts", "Layer by layer", _charts(run)),
        Section("layers", "Table of layers", _layers(run)),
        Section("machine", "The machine", machine_html(data["provenance"])),
        Section("provenance", "Provenance", provenance_html(data["provenance"])),
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
    lost = {cause: share for cause, share in _shares(run, rows).items() if cause.column != EFFECTUAL.column}
    if lost:
        worst = max(lost, key=lambda cause: lost[cause])
        cards.append((f"largest loss: {worst.words}", f"{100 * lost[worst]:.1f} %", [worst.meaning]))
    items = "".join(
        f"<li><h3>{esc(name)}</h3><p class='big'>{esc(big)}</p>{''.join(f'<p>{esc(note)}</p>' for note in notes)}</li>"
        for name, big, notes in cards
    )
    return f'<p>At {esc(_label(speedup))}, over {esc(data["layers"])}:</p><ul class="cards">{items}</ul>'


def _summary(data: dict[str, Any]) -> str:
    """Table 6 with the paper's figures, or of a series its steps; then what it is made of."""
    whole = table(
        {"snapshot": "", **PASSES},
        _parts(data),
        name="comparison",
        caption=f"What it is made of, over {data['layers']}",
    )
    if not data.get("steps"):
        return _table6(data) + whole
    show = times if data["gain"] else count
    rows = [[f"{row['at']:,} ({row['snapshot']})", *(show(row[column]) for column in COLUMNS)] for row in series(data)]
    what = "Gain over its dense self" if data["gain"] else "Cycles a sample"
    steps = table({"at": "step", **PASSES}, rows, name="series", caption=f"{what}, by step, over {data['layers']}")
    return chart_html("series", f"{what}, by step") + steps + whole


def _table6(data: dict[str, Any]) -> str:
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
    return first + note


def _parts(data: dict[str, Any]) -> Iterator[list[Any]]:
    """Rows of the table below Table 6."""
    linear = data["with_linear"]
    parts = [
        (
            f"speedup over {data['baseline']}, {data['baseline_multipliers'] or 0:,} multipliers",
            data["speedup_over_baseline"],
            times,
        ),
        *((words, rows, times) for words, rows in factors(data)),
        (FEWER, data["fewer_effectual"], times),
        (f"utilization of {data['multipliers']:,} multipliers", data["utilization"], percent),
        ("cycles", data["cycles"], count),
        ("with the linear layers as well: speedup", linear["speedup"], times),
        ("with the linear layers as well: cycles", linear["cycles"], count),
    ]
    for name, rows, show in parts if linear["cycles"] != data["cycles"] else parts[:-2]:
        if not any(row[column] is not None for row in rows for column in COLUMNS):
            continue
        yield [name]
        for row in rows:
            yield [_label(row), *(show(row[column]) for column in COLUMNS)]


# Slots and layers --------------------------------------------------------------------------------------------------


def _slots(run: Run) -> str:
    """The account of all layers: a chart, the same in figures, and what the causes mean."""
    causes = _seen(run, "slots")
    groups = run.table.groupby(["snapshot", "pass"], sort=False)
    rows = [
        [snapshot, pass_words(which), *(percent(shares[cause]) for cause in causes)]
        for (snapshot, which), group in groups
        if (shares := _shares(run, group))
    ]
    headings = {"snapshot": "snapshot", "pass": "pass"} | {cause.name: cause.words for cause in causes}
    meanings = "".join(f"<dt>{esc(cause.words)}</dt><dd>{esc(cause.meaning)}</dd>" for cause in causes)
    return (
        "<p>Each multiplier in each cycle is a slot, and each slot has one cause; all layers together.</p>"
        '<div class="chart" id="chart-slots"></div>'
        + details("What the causes mean", f"<dl>{meanings}</dl>")
        + details("The same in figures", table(headings, rows, name="slot-table", caption="Share of slots by cause"))
    )


def _charts(run: Run) -> str:
    """Places for the charts, and what is chosen for all of them; ``page.js`` fills them."""
    passes = {which: pass_words(which) for which in run.table["pass"].unique()}
    names = {"": "all passes"} | passes if len(passes) > 1 else passes
    snapshots = {row["snapshot"]: _label(row) for row in run.data["cycles"]}
    last = run.data["cycles"][-1]["snapshot"]
    chosen = _select("snapshot", "snapshot", snapshots, last) + _select("pass", "pass", names, next(iter(names)))
    charts = [
        ("causes", "Multiplier slots by cause", _select("unit", "as", {"share": "share", "count": "slots"})),
        ("cycles", "Cycles", ""),
        ("speedup", "Speedup", _select("over", "over", _references(run))),
    ]
    places = _places(run)
    if places:
        choices = {place: words for place, (words, _) in places.items()}
        charts.append(("bytes", "Bytes moved", _select("place", "of", choices)))
    if _seen(run, "energy"):
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
    return found | ({"baseline": run.data["baseline"]} if ledger.of_baseline(CYCLES) in run.table else {})


def _dense(rows: pd.DataFrame) -> str | None:
    """The snapshot that speedups are over, as in ``results.summarize``."""
    dense = rows.loc[(rows["sparsity"] == 0) & (not is_series(rows)), "snapshot"]
    return None if dense.empty else str(dense.iloc[0])


def _layers(run: Run) -> str:
    """Every row with work in it, to sort and to filter."""
    rows = run.table[run.table[CYCLES.column] > 0].reset_index(drop=True)
    headings = {"layer": "layer", "snapshot": "snapshot", "pass": "pass", "kind": "kind", "cycles": "cycles"}
    columns: list[Iterable[object]] = [rows["layer"], rows["snapshot"], rows["pass"].map(pass_words), rows["kind"]]
    columns.append(rows[CYCLES.column].map(count))
    if (dense := _dense(rows)) is not None:
        headings["speedup"] = "over 0 %"
        columns.append(_over_dense(rows, dense).map(lambda v: times(None if pd.isna(v) else v)))
    if (baseline := ledger.of_baseline(CYCLES)) in rows:
        headings["over_baseline"] = f"over {run.data['baseline']}"
        columns.append((rows[baseline] / rows[CYCLES.column]).map(times))
    slots = rows[CYCLES.column] * rows["multipliers"]
    headings["utilization"] = "utilization"
    columns.append((rows[EFFECTUAL.column] / slots).map(percent))
    headings |= {"loss": "largest loss", "loss_share": "its share"}
    causes = [cause for cause in run.rows("slots") if cause.column != EFFECTUAL.column]
    shares = rows[[cause.column for cause in causes]].div(slots, axis=0)
    words = {cause.column: cause.words for cause in causes}
    worst = [shares.idxmax(axis=1).map(words), shares.max(axis=1).map(percent)]
    columns += worst if causes else [["–"] * len(rows)] * 2
    offchip = [row.column for row in run.rows("actions") if row.unit == "bytes" and row.level == OFFCHIP_MOVED.level]
    energy = [row.column for row in run.rows("total")]
    if offchip and rows[offchip].any(axis=None):
        headings["offchip"] = "off-chip bytes"
        columns.append(rows[offchip].sum(axis=1, skipna=False).map(count))
    if energy and rows[energy].any(axis=None):
        headings["energy"] = "energy, mJ"
        columns.append(rows[energy].sum(axis=1, skipna=False).map(lambda pj: mj(None if pd.isna(pj) else pj)))
    whole = table(headings, zip(*columns, strict=True), name="layer-table", caption="Layers", sortable=True)
    return (
        filter_html("layer4 forward", len(rows))
        + "<p class='note screen'>A layer's name opens its picture.</p>"
        + f'{whole}<p class="unprinted">More than 100 rows are not printed: filter them first.</p>'
        '<dialog id="picture" aria-labelledby="picture-title"><h3 id="picture-title"></h3>'
        '<p class="note">Cycles of the layer, by what the multipliers did in them.</p>'
        '<div class="chart" id="chart-picture"></div><div id="picture-said"></div>'
        '<form method="dialog"><button>close</button></form></dialog>'
    )


def _over_dense(rows: pd.DataFrame, dense: str) -> pd.Series:
    """Speedup of each row over the same layer and pass of a snapshot, per sample; NaN where it has none."""
    keys = ["layer", "pass"]
    reference = rows[rows["snapshot"] == dense].drop_duplicates(keys)
    each = (reference["cycles"] / reference["samples"]).set_axis(pd.MultiIndex.from_frame(reference[keys]))
    over = each.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy()
    return pd.Series(over * rows["samples"].to_numpy() / rows["cycles"].to_numpy(), rows.index)


def _shares(run: Run, rows: pd.DataFrame) -> dict[Count, float]:
    """Share of the slots of all rows by cause; nothing where no cycle passed."""
    slots = slots_of(rows)
    return {cause: (total(rows, cause) or 0) / slots for cause in run.rows("slots")} if slots else {}


# What the charts are drawn from ------------------------------------------------------------------------------------


def _chart_data(run: Run) -> dict[str, Any]:
    """Columns of the table, with names numbered; columns without a count are left out."""
    rows, baseline = run.table, ledger.of_baseline(CYCLES)
    data: dict[str, Any] = {
        "machine": run.data["machine"],
        "baseline": run.data["baseline"] if baseline in rows else None,
        "dense": _dense(rows),
        "passes": {which: pass_words(which) for which in rows["pass"].unique()},
        "rows": {name: rows[name].tolist() for name in (CYCLES.column, "samples", "multipliers")},
        "names": {},
    }
    for name in ("snapshot", "layer", "pass"):
        codes, names = pd.factorize(rows[name])
        data["rows"][name], data["names"][name] = codes.tolist(), list(names)
    if data["baseline"] is not None:
        data["rows"]["baseline_cycles"] = rows[baseline].tolist()
    data["slots"] = [_series(run, cause, cause.words) for cause in _seen(run, "slots")]
    data["effectual"] = rows[EFFECTUAL.column].tolist()
    data["places"] = {at: [_series(run, row, row.way) for row in moved] for at, (_, moved) in _places(run).items()}
    data["energy"] = [_series(run, component, component.words) for component in _seen(run, "energy")]
    advice = (run.data.get("guidance") or {}).get("advice", [])
    if run.data.get("steps"):
        what = "times fewer cycles" if run.data["gain"] else "cycles a sample"
        data["charts"] = [_over_steps(series(run.data), what)]
    data["advice"] = [[each["layer"], each["sentence"]] for each in advice if each["layer"] is not None]
    return data


def _over_steps(rows: list[dict[str, Any]], what: str) -> dict[str, Any]:
    """A line a pass, of what ``series`` has."""
    passes = [column for column in COLUMNS if any(row[column] is not None for row in rows)]
    lines = {
        PASSES[column]: {
            "x": [row["at"] for row in rows],
            "y": [row[column] for row in rows],
            "said": [f"{PASSES[column]}, step {row['at']:,}: {row[column] or 0:,.4g}" for row in rows],
        }
        for column in passes
    }
    return {"name": "series", "scatter": lines, "x": "step", "y": what, "lines": True}


def _series(run: Run, row: Count, words: str) -> dict[str, Any]:
    """A count of every row of the table, null where it is not known, what it is called, and its looks."""
    numbers = run.table[row.column]
    values = numbers.astype(object).where(numbers.notna(), None).tolist()
    return {"words": words, "colour": list(row.colour), "values": values}


def _seen(run: Run, group: ledger.Group) -> list[Count]:
    """The counts of a group that are not zero, or unknown, all over."""
    return [row for row in run.rows(group) if run.table[row.column].any()]


def _places(run: Run) -> dict[str, tuple[str, list[Count]]]:
    """Where bytes move → what that is called, and what is done there; off chip first."""
    found: dict[str, tuple[str, list[Count]]] = {}
    for row in _seen(run, "actions"):
        if row.unit == "bytes":
            found.setdefault(row.place, (ledger.spelled(row.place), []))[1].append(row)
    return dict(sorted(found.items(), key=lambda item: item[1][1][0].level != OFFCHIP_MOVED.level))


def _label(row: dict[str, Any]) -> str:
    return f"{100 * row['sparsity']:g} % ({row['snapshot']})"
