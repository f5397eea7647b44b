"""Tables and lines as text: for a terminal as wide as it is, for a file, or as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import os
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from accelsim.study.csv_file import quoted

# Wider than any table: what is piped or written takes the width that it needs.
UNBOUNDED = 10_000
LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$", "–": "--",
    "−": "$-$", "≠": r"$\neq$", "≤": r"$\leq$", "≥": r"$\geq$", "µ": r"\textmu{}", "°": r"\textdegree{}",
}  # fmt: skip


def rendered(parts: Iterable[object], form: str = "table", terminal: bool = False) -> str:
    """Tables and lines as text.

    Parameters
    ----------
    parts
        rich's tables and texts, or strings.
    form
        "table", "markdown", "csv" or "latex".
    terminal
        Whether a person sees it on one: then nothing is wider than it is, and there may be colours.
    """
    if form == "table":
        return _for_terminal(parts) if terminal else _unbounded(parts)
    write = WRITERS[form]
    pieces = (write(_plain(p)) if isinstance(p, Table) else _note(p, form) for p in parts)
    return "\n".join(piece for piece in pieces if piece).strip("\n") + "\n"


def _unbounded(parts: Iterable[object]) -> str:
    text, console = _console(UNBOUNDED)
    for part in parts:
        console.print(part, soft_wrap=True)
    return _stripped(text)


def _for_terminal(parts: Iterable[object]) -> str:
    width = shutil.get_terminal_size().columns
    text, console = _console(width, colours="NO_COLOR" not in os.environ)
    for part in parts:
        if isinstance(part, Table):
            for number, piece in enumerate(stacked(part, console)):
                if number:
                    console.print()
                console.print(piece)
        else:
            console.print(_wrapped(part, width), soft_wrap=True)
    return _stripped(text)


def _console(width: int, colours: bool = False) -> tuple[io.StringIO, Console]:
    text = io.StringIO()
    how = {"legacy_windows": False, "highlight": False, "markup": False, "emoji": False}
    return text, Console(file=text, width=width, force_terminal=colours, no_color=not colours, **how)  # type: ignore[arg-type]


def _stripped(text: io.StringIO) -> str:
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _wrapped(part: object, width: int) -> Text:
    """A line broken between words, what follows under its first letter."""
    plain = part.plain if isinstance(part, Text) else str(part)
    style = part.style if isinstance(part, Text) else ""
    lines = []
    for line in plain.splitlines() or [""]:
        indent = line[: len(line) - len(line.lstrip())]
        how = {"subsequent_indent": indent, "break_on_hyphens": False}
        lines += textwrap.wrap(line, max(width, len(indent) + 20), **how) or [""]  # type: ignore[arg-type]
    return Text("\n".join(lines), style=style)


def new_table(title: str = "") -> Table:
    """An empty table in the style of all."""
    return Table(title=title or None, title_justify="left", title_style="bold", header_style="", box=SIMPLE_HEAD)


def stacked(table: Table, console: Console) -> Iterator[Table]:
    """A table, or where the console is too narrow for it, its columns in several, one below the other.

    The columns of words with which it begins come again in each. A row is never folded, unless those columns and one
    more are wider than the console: then words are.
    """
    if _width(table, console) <= console.width:
        yield table
        return
    names = next((i for i, column in enumerate(table.columns) if column.justify == "right"), 1) or 1
    names = min(names, 2)
    if _width(_with_columns(table, range(names)), console) > console.width // 2:
        names = 1
    left = list(range(names, len(table.columns)))
    title = table.title
    while left:
        taken = 1
        while taken < len(left):
            wider = _with_columns(table, [*range(names), *left[: taken + 1]])
            if _width(wider, console) > console.width:
                break
            taken += 1
        piece = _with_columns(table, [*range(names), *left[:taken]])
        piece.title, title = title, None
        if _width(piece, console) > console.width:
            for column in piece.columns:
                column.no_wrap, column.overflow = False, "fold"
        yield piece
        left = left[taken:]


def _width(table: Table, console: Console) -> int:
    """Of its rows; a title is folded."""
    unbounded = console.options.update(width=UNBOUNDED)
    return Measurement.get(console, unbounded, _with_columns(table, range(len(table.columns)))).maximum


def _with_columns(table: Table, chosen: Iterable[int]) -> Table:
    """Some of its columns in the same style, without the title."""
    chosen = list(chosen)
    part = Table(
        title_justify=table.title_justify, title_style=table.title_style, header_style=table.header_style,
        box=table.box, collapse_padding=table.collapse_padding,
    )  # fmt: skip
    for i in chosen:
        of = table.columns[i]
        part.add_column(
            of.header, justify=of.justify, style=of.style, no_wrap=True, max_width=of.max_width, overflow=of.overflow
        )
    cells = [list(column.cells) for column in table.columns]
    for number, row in enumerate(table.rows):
        part.add_row(*(cells[i][number] for i in chosen), style=row.style, end_section=row.end_section)
    return part


# Other forms --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """A table as letters: its title, headings without line breaks, whether each is a number's, and cells."""

    title: str
    headings: list[str]
    numbers: list[bool]
    rows: list[list[str]]


def _plain(table: Table) -> Plain:
    cells = [[_letters(cell) for cell in column.cells] for column in table.columns]
    rows = [list(row) for row in zip(*cells, strict=True)] if table.rows else []
    headings = [_letters(column.header) for column in table.columns]
    return Plain(_letters(table.title or ""), headings, [c.justify == "right" for c in table.columns], rows)


def _letters(cell: object) -> str:
    text = cell.plain if isinstance(cell, Text) else str(cell)
    return text.replace("-\n", "").replace("\n", " ").strip()


def _note(part: object, form: str) -> str:
    """A line beside the tables: a paragraph, or a comment where the form has data only."""
    text = (part.plain if isinstance(part, Text) else str(part)).strip()
    if not text:
        return ""
    mark = {"markdown": "", "csv": "# ", "latex": "% "}[form]
    return "".join(f"{mark}{line.strip()}\n" for line in text.splitlines())


def _markdown(table: Plain) -> str:
    title = [f"**{table.title}**", ""] if table.title else []
    rule = ["--:" if number else "---" for number in table.numbers]
    return "\n".join([*title, *markdown_rows((table.headings, rule, *table.rows)), ""])


def markdown_rows(rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Lines of a table of Markdown; the second row is the rule."""
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _csv(table: Plain) -> str:
    text = io.StringIO()
    text.write(f"# {table.title}\n" if table.title else "")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([quoted(cell) for cell in row] for row in (table.headings, *table.rows))
    return text.getvalue()


def _latex(table: Plain) -> str:
    """In the commands of the package booktabs."""
    columns = "".join("r" if number else "l" for number in table.numbers)
    body = [" & ".join("".join(LATEX.get(c, c) for c in cell) for cell in row) + r" \\" for row in table.rows]
    head = " & ".join("".join(LATEX.get(c, c) for c in cell) for cell in table.headings) + r" \\"
    title = [f"% {table.title}"] if table.title else []
    lines = [*title, f"\\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


WRITERS: dict[str, Callable[[Plain], str]] = {"markdown": _markdown, "csv": _csv, "latex": _latex}
