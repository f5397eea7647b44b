"""Reproduced figures as text for a terminal, as a Markdown or HTML page, as CSV and as JSON."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from accelsim.files import staged
from accelsim.study import manifest
from accelsim.study.csv_file import write_csv
from accelsim.study.json_file import to_json
from accelsim.study.layout import markdown_rows, new_table
from accelsim.study.reproduction.figure import (
    AGREES,
    ALONE,
    DIFFERS,
    FITS,
    KINDS,
    KNOWN,
    NOT_COMPUTED,
    RESTATES,
    Comparison,
    Figure,
)

HEADINGS = ("row", "figure", "ours", "the paper", "difference", "tolerance", "kind", "verdict")
VERDICTS = (AGREES, FITS, RESTATES, KNOWN, DIFFERS, NOT_COMPUTED)
# From here on a page shows the paper's own columns instead of a line for each number.
MANY_COLUMNS = 4
INTRODUCTION = (
    "Every computational figure of Sparse Weight Activation Training (SWAT, Raihan and Aamodt, NeurIPS 2020), "
    "computed from layer shapes, the shipped trace and recorded measurements, beside the figure that the paper "
    "prints. Accuracies are no part of it. `accelsim reproduce all --out DIR` writes this page. The paper's figures "
    "are data in `accelsim/study/paper.py`; no result is typed in.",
    "“agrees” is within the tolerance and computed from inputs that others published. “fits, chosen so” is within it "
    "because a free choice of ours was made with this figure in view, and “restates” says an input again: neither is "
    "agreement. “differs, as known” is outside the tolerance for a reason that is stated below the table. "
    "“not computed” depends on a training run that nobody but the authors has. “DIFFERS” makes the command fail.",
)
# (kind, content): heading, subheading, paragraph and bullet have a text, a table (title, headings, rows), a picture
# what it shows and its file.
Block = tuple[str, Any]


def overview(figures: Iterable[Figure]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: how many comparisons of each figure have which verdict."""
    rows = [(f.name, f.title, *(str(f.count(v) or "") for v in VERDICTS)) for f in figures]
    return ("figure", "what", *VERDICTS), rows


def by_kind(figures: Iterable[Figure]) -> dict[str, dict[str, int]]:
    """Of each kind of comparison how many have which verdict; only "agrees" is agreement."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for figure in figures:
        for comparison in figure.comparisons:
            counts[comparison.kind][comparison.verdict] += 1
    every = (*VERDICTS, ALONE)
    return {kind: {verdict: count[verdict] for verdict in every if count[verdict]} for kind, count in counts.items()}


def section(figure: Figure) -> Iterator[Block]:
    """One figure as blocks."""
    yield "subheading", f"{figure.title}"
    yield "paragraph", f"`accelsim reproduce {figure.name}`"
    yield "paragraph", figure.how
    if len({c.column for c in figure.comparisons}) >= MANY_COLUMNS:
        yield "table", _pivoted(figure)
    elif figure.comparisons:
        yield "table", ("", HEADINGS, _grouped(figure))
    for note in figure.notes:
        yield "bullet", note
    for grid in figure.grids:
        yield "table", (grid.title, grid.headings, grid.rows)


def page(figures: list[Figure]) -> Iterator[Block]:
    """All figures as blocks, with an overview."""
    yield "heading", "The paper's figures, reproduced"
    for text in INTRODUCTION:
        yield "paragraph", text
    yield "table", ("", *overview(figures))
    for figure in figures:
        yield from section(figure)


def markdown(blocks: Iterable[Block]) -> str:
    """Blocks as Markdown."""
    done = list(blocks)
    parts = []
    for (kind, content), following in pairwise([*done, ("end", None)]):
        if kind == "table":
            title, headings, rows = content
            lines = [f"*{title}*\n"] if title else []
            lines += markdown_rows((headings, ["---"] * len(headings), *rows))
            parts.append("\n".join(lines) + "\n")
        elif kind == "bullet":
            parts.append(f"- {content}" + ("" if following[0] == "bullet" else "\n"))
        elif kind == "picture":
            parts.append("![{}]({})\n".format(*content))
        else:
            parts.append({"heading": "# ", "subheading": "## "}.get(kind, "") + content + "\n")
    return "\n".join(parts)


def as_text(blocks: Iterable[Block]) -> Iterator[Table | Text]:
    """Blocks for a terminal, which shows no pictures."""
    for kind, content in blocks:
        if kind == "table":
            title, headings, rows = content
            yield laid_out(title, headings, rows)
            yield Text()
        elif kind in ("heading", "subheading"):
            yield Text(content, style="bold")
        elif kind != "picture":
            yield Text(f"  {content}" if kind == "bullet" else f"{content}\n")


def as_html(blocks: Iterable[Block]) -> str:
    """Blocks as a page that needs nothing else."""
    parts = ["<!doctype html><meta charset='utf-8'><title>accelsim reproduce</title>", f"<style>{STYLE}</style>"]
    tags = {"heading": "h1", "subheading": "h2", "paragraph": "p", "bullet": "p"}
    for kind, content in blocks:
        if kind == "table":
            title, headings, rows = content
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headings)
            body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
            caption = f"<caption>{html.escape(title)}</caption>" if title else ""
            parts.append(f"<table>{caption}<tr>{head}</tr>{body}</table>")
        else:
            inner = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(content))
            parts.append(f"<{tags[kind]}>{'• ' if kind == 'bullet' else ''}{inner}</{tags[kind]}>")
    return "\n".join(parts) + "\n"


STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}"
    "th,td{border-bottom:1px solid #ddd;padding:.2em .8em .2em 0;text-align:left;vertical-align:top}"
    "caption{text-align:left;font-style:italic}"
)


def text(figures: list[Figure], full: bool = True) -> Iterator[Table | Text]:
    """Figures for a terminal; without ``full`` only what compares with the paper."""
    for figure in figures:
        yield Text(figure.title, style="bold")
        if full:
            yield Text(f"{figure.how}\n")
        if figure.comparisons:
            yield laid_out("", HEADINGS, _grouped(figure))
        if full:
            for note in figure.notes:
                yield Text(f"  {note}")
            for grid in figure.grids:
                yield Text()
                yield laid_out(grid.title, grid.headings, grid.rows)
        yield Text()
    yield laid_out("Verdicts", *overview(figures))
    if full:
        for kind, counts in by_kind(figures).items():
            if counts:
                shown = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
                yield Text(f"  {kind}: {shown}")


def listing(figures: dict[str, str]) -> Iterator[Table | Text]:
    """Names and what they are, for a terminal."""
    yield laid_out("What accelsim reproduce knows", ("figure", "what"), [*figures.items(), ("all", "all of them")])


def frame(figures: Iterable[Figure]) -> pd.DataFrame:
    """One row per comparison."""
    return pd.DataFrame([{"figure": f.name, **c.as_dict()} for f in figures for c in f.comparisons])


def report(figures: list[Figure], origin: dict[str, Any]) -> dict[str, Any]:
    """The object that ``reproduce --json`` prints and ``reproduction.json`` holds."""
    holds = not any(f.failures for f in figures)
    return {
        "holds": holds,
        "kinds": by_kind(figures),
        "figures": [f.as_dict() for f in figures],
        "provenance": origin,
    }


def write(folder: Path, figures: list[Figure], origin: dict[str, Any]) -> None:
    """Writes reproduction.csv, .json, .md and .html into a folder, all or none. Raises OutputError."""
    blocks = list(page(figures))
    with staged(folder) as stage:
        write_csv(frame(figures), stage / "reproduction.csv")
        (stage / "reproduction.json").write_text(to_json(report(figures, origin)), encoding="utf-8")
        (stage / "reproduction.md").write_text(markdown(blocks), encoding="utf-8")
        (stage / "reproduction.html").write_text(as_html(blocks), encoding="utf-8")
        manifest.write(stage)


def _grouped(figure: Figure) -> list[list[str]]:
    """Rows of cells; a label is not repeated below itself."""
    rows = [c.cells() for c in figure.comparisons]
    labels = [None, *(row[0] for row in rows)]
    return [["" if row[0] == above else row[0], *row[1:]] for row, above in zip(rows, labels, strict=False)]


def _pivoted(figure: Figure) -> tuple[str, list[str], list[list[str]]]:
    """A page's table with the paper's own rows and columns; the paper's figures in parentheses."""
    of: dict[str, list[Comparison]] = {}
    for c in figure.comparisons:
        of.setdefault(c.row, []).append(c)
    columns = {c.column: c for c in max(of.values(), key=lambda row: sum(c.difference is not None for c in row))}
    cells = {(c.row, c.column): c for c in figure.comparisons}
    headings = [
        "row",
        *(f"{name} ± {c.cells()[5]}" if c.difference is not None else name for name, c in columns.items()),
    ]
    rows = []
    for label in of:
        rows.append([label, *(_cell(cells.get((label, name))) for name in columns)])
    return (
        "Ours (the paper's); c: fits, chosen so; i: restates an input; ≠: outside the tolerance, –: not computed",
        headings,
        rows,
    )


def _cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    _, _, ours, paper, *_ = comparison.cells()
    marks = {KNOWN: " ≠", DIFFERS: " ≠", FITS: " c", RESTATES: " i"}
    return f"{ours} ({paper})" + marks.get(comparison.verdict, "")


def laid_out(title: str, headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table for a terminal."""
    table = new_table(title)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
