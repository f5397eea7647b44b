"""One self-contained HTML file: what is put together from parts, escaped; it asks for nothing from anywhere."""

from __future__ import annotations

import base64
import json
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError, printable
from accelsim.study.tables import short

HERE = Path(__file__).parent
KINDS = {".csv": "text/csv", ".json": "application/json", ".txt": "text/plain"}
# Nothing is fetched, whatever gets into the page: the browser refuses.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)
NOTHING = "–"
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist = 2, 20

SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{generator}">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}
</style>
</head>
<body>
<header>{header}</header>
<main>
{main}
</main>
<footer><p>{footer}</p></footer>
<script id="data" type="application/json">{data}</script>
{scripts}
</body>
</html>
"""
HEADER = """
<button id="theme" type="button" hidden>theme</button>
<h1>{title}</h1>
<p class="lead">{lead}</p>
<nav aria-label="sections">{links}</nav>
"""


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading; ``html`` is as it goes in, its text escaped."""

    name: str
    title: str
    html: str


@dataclass(frozen=True)
class Page:
    """What a report shows.

    Parameters
    ----------
    title, lead : str
        As text.
    sections : list of Section
    data : dict
        What the charts are drawn from, for ``page.js``.
    generator : str
        Which program made it, as text.
    """

    title: str
    lead: str
    sections: list[Section]
    data: dict[str, Any] = field(default_factory=dict)
    generator: str = "accelsim"


def to_html(page: Page) -> str:
    """The file. Raises AccelsimError where Plotly is not installed."""
    links = "".join(f'<a href="#{esc(s.name)}">{esc(s.title)}</a>' for s in page.sections)
    sections = "\n".join(
        f'<section id="{esc(s.name)}"><h2>{esc(s.title)}</h2>\n{s.html}\n</section>' for s in page.sections
    )
    return document(
        page.title,
        HEADER.format(title=esc(page.title), lead=esc(page.lead), links=links),
        sections,
        page.data,
        generator=page.generator,
        footer=page.generator,
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        scripts=[_plotly(), (HERE / "page.js").read_text(encoding="utf-8")],
    )


def document(
    title: str, header: str, main: str, data: Any, *, generator: str, footer: str, style: str, scripts: Iterable[str]
) -> str:
    """A file that fetches nothing: ``header`` and ``main`` are HTML, title, generator and footer are text.

    ``data`` is what the scripts draw from.
    """
    return SHELL.format(
        policy=esc(POLICY),
        generator=esc(generator),
        title=esc(title),
        style=style,
        header=header,
        main=main,
        footer=esc(footer),
        data=script_json(data),
        scripts="\n".join(f"<script>\n{script}\n</script>" for script in scripts),
    )


def _plotly() -> str:
    """Plotly's library, as its package ships it for this."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise AccelsimError("report needs Plotly: pip install 'accelsim-sparse[report]'") from error
    return str(get_plotlyjs())


def esc(text: Any) -> str:
    """Text for HTML, in an element or an attribute: what comes from files is untrusted."""
    return escape(printable(str(text)))


def script_json(data: Any) -> str:
    """JSON that no HTML parser takes for a tag."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})


@dataclass(frozen=True)
class Cell:
    """A number in a table, with what it is sorted by."""

    text: str
    value: float | None = None
    note: str = ""


def table(
    headings: dict[str, str], rows: Iterable[Iterable[Any]], *, name: str, caption: str, sortable: bool = False
) -> str:
    """A table that scrolls in its own box where it is wider than the page.

    ``headings``: key → text. Cells are text or a ``Cell``; a row of one text is a heading over those below. The first
    cell of a row names it.
    """
    cells = [list(row) for row in rows]
    numeric = {i for row in cells for i, cell in enumerate(row) if isinstance(cell, Cell)}
    heads = [
        f'<th scope="col" class="{"n" if i in numeric else "t"}" data-key="{esc(key)}">{esc(text)}</th>'
        for i, (key, text) in enumerate(headings.items())
    ]
    body = "\n".join(f"<tr>{_cells(row, len(heads))}</tr>" for row in cells)
    box, kind = ("scroll tall", ' class="sortable"') if sortable else ("scroll", "")
    return (
        f'<div class="{box}" tabindex="0" role="region" aria-label="{esc(caption)}">'
        f'<table id="{esc(name)}"{kind}><caption>{esc(caption)}</caption>\n'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cells(row: list[Any], width: int) -> str:
    if len(row) == 1:
        return f'<th scope="colgroup" colspan="{width}" class="part">{esc(row[0])}</th>'
    first, *others = row
    return f'<th scope="row">{esc(first)}</th>' + "".join(map(_cell, others))


def _cell(cell: Any) -> str:
    if not isinstance(cell, Cell):
        return f"<td>{esc(cell)}</td>"
    value = "" if cell.value is None else f' data-v="{cell.value:.17g}"'
    kind = f' class="n {esc(cell.note)}"' if cell.note else ' class="n"'
    return f"<td{kind}{value}>{esc(cell.text)}</td>"


def flat(value: Any, path: str = "", depth: int = 8) -> Iterator[list[Any]]:
    """Nested keys as rows of a table, [path, value]; what lies deeper than ``depth`` is cut short."""
    if not isinstance(value, dict):
        yield [path, _SHORT.repr(value) if isinstance(value, list) else value]
    elif not depth:
        yield [path, _SHORT.repr(value)]
    else:
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else key, depth - 1)


def times(value: float | None, note: str = "") -> Cell:
    """A ratio."""
    return Cell(NOTHING if value is None else f"{value:.2f}×", value, note)


def percent(value: float | None) -> Cell:
    """A share."""
    return Cell(NOTHING if value is None else f"{100 * value:.1f} %", value)


def count(value: float | None) -> Cell:
    """A count."""
    return Cell(NOTHING if value is None else f"{value:,.0f}", value)


def mj(energy_pj: float | None) -> Cell:
    """Energy: mJ, of pJ."""
    value = None if energy_pj is None else energy_pj * 1e-9
    return Cell(short(value), value)


def downloads(files: dict[str, bytes]) -> str:
    """Links that save files, which are inside the page."""
    links = []
    for name, content in files.items():
        kind = KINDS.get(Path(name).suffix, "application/octet-stream")
        data = base64.b64encode(content).decode()
        links.append(
            f'<li><a download="{esc(name)}" href="data:{kind};base64,{data}">{esc(name)}</a> '
            f"<small>{len(content):,} bytes</small></li>"
        )
    return f'<ul class="files">{"".join(links)}</ul>'


def details(title: str, html: str) -> str:
    """What unfolds on a click."""
    return f"<details><summary>{esc(title)}</summary>\n{html}\n</details>"
