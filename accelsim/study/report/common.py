"""What reports of several kinds of folder show alike: what limits a machine, coverage, provenance, bars."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from accelsim.study.report.page import details, esc, flat, table
from accelsim.study.results import COLUMNS
from accelsim.study.tables import HEADINGS

PASSES = {name: " ".join(HEADINGS[name].split()) for name in COLUMNS}


def pass_words(which: object) -> str:
    """A pass in words."""
    return PASSES.get(str(which), str(which))


def paragraphs(lines: Iterable[str]) -> str:
    """Lines of text."""
    return "".join(f"<p>{esc(line)}</p>" for line in lines if line)


def bullets(lines: Iterable[str]) -> str:
    """Lines of text as a list; nothing of none."""
    items = "".join(f"<li>{esc(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def guidance_html(guidance: Mapping[str, Any] | None) -> str:
    """What limits a machine, pass by pass, the layers below each; or how to have it."""
    if guidance is None:
        return "<p>Not asked for: <code>accelsim run --explain</code> simulates changes of the machine.</p>"
    said = f"<p>Changes were simulated on the layers with most cycles of snapshot {esc(guidance['snapshot'])}.</p>"
    for _, advice in groupby(guidance["advice"], lambda each: each["which"]):
        whole, *layers = advice
        said += f"<p>{esc(whole['sentence'])}</p>" + bullets(each["sentence"] for each in layers)
    return said


def coverage_html(trace: Mapping[str, Any]) -> str:
    """What of the step's multiplications the trace holds, where that was counted."""
    told = trace.get("coverage")
    if not isinstance(told, dict) or not told:
        return ""
    lines = (f"{name}: {of['text']}" for name, of in told.items() if isinstance(of, dict) and "text" in of)
    return "<h3>What the trace holds of the step</h3>" + bullets(lines)


def provenance_html(origin: dict[str, Any]) -> str:
    """Where it comes from; the command as it can be run again."""
    known = {
        "command": shlex.join(origin["command"]),
        "accelsim": origin["accelsim"],
        **{f"trace: {key}": value for key, value in origin["trace"].items() if key not in ("provenance", "coverage")},
        **{f"{name} holds": told["text"] for name, told in origin["trace"].get("coverage", {}).items()},
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


def filter_html(example: str, rows: int) -> str:
    """What filters the rows of a sortable table, above it."""
    return (
        f'<div class="bar"><label>filter <input type="search" id="filter" placeholder="e.g. {esc(example)}" '
        f'autocomplete="off"></label><span id="shown" role="status">{rows:,} rows</span></div>'
        "<p class='note screen'>Rows that hold every word. A heading sorts. The address keeps both, as a link.</p>"
    )


def chart_html(name: str, title: str) -> str:
    """A place for a chart."""
    place = f'<div class="chart" id="chart-{esc(name)}"></div>'
    return f"<figure><figcaption><h3>{esc(title)}</h3></figcaption>{place}</figure>"


def bars(name: str, labels: list[str], series: Mapping[str, list[float | None]], suffix: str = "") -> dict[str, Any]:
    """What ``page.js`` draws in that place: a group of bars a label, a bar a series."""
    return {"name": name, "labels": labels, "series": dict(series), "suffix": suffix}
