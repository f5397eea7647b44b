"""Plain text, tables and headings as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def escaped(text: str) -> str:
    """Plain text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|$~#])", r"\\\1", text)


def code(text: str) -> str:
    """Text as code, also where it holds a backtick or stands in a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", r"\|")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def toctree(names: Iterable[str], option: str) -> str:
    """The pages below this one."""
    return "\n".join(["```{toctree}", option, "", *names, "```"])


def joined(parts: Iterable[str]) -> str:
    """Paragraphs, lists and tables as one page."""
    return "\n\n".join(parts) + "\n"
