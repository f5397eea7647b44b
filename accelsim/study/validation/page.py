"""Validations as text for a terminal, as a Markdown page, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from accelsim.files import staged
from accelsim.study import manifest
from accelsim.study.csv_file import write_csv
from accelsim.study.export import versions
from accelsim.study.json_file import to_json
from accelsim.study.reproduction.page import Block, laid_out, markdown
from accelsim.study.validation.check import AGREES, DIFFERS, KNOWN, SHOWN, Validation
from accelsim.version import __version__

HEADINGS = ("what", "ours", "theirs", "difference", "tolerance", "evidence", "seeds' spread", "verdict")
VERDICTS = (AGREES, KNOWN, DIFFERS, SHOWN)
INTRODUCTION = (
    "    accelsim validate        # all of them, in a minute or less\n    accelsim validate scnn   # one of them",
    "Each machine beside its own publication, on inputs and results that others published: what the command prints, "
    "and with `--out DIR` writes as a page, this one. The inputs ship with the package; no result "
    "of ours is typed in, and no machine is tuned to a figure. Where a publication does not describe a cost, the notes "
    "say what was assumed and what it is worth.",
    "Evidence: “exact” equals another program's counts to the cycle; “computed” comes from inputs that somebody else "
    "published, compared with their result, which may be known from secondary sources; “inputs are ours” shows no "
    "agreement. “DIFFERS” makes the command fail; “differs, as known” is outside the tolerance for a reason that is "
    "stated; “shown only” has no verdict.",
    "Not compared, because their inputs are not public: Bit-Tactical, TCLp and TCLe, Cambricon-X, the compressing DMA "
    "engine. Nor are TensorDash's, for which ours stand in. [machines.md](machines.md) says what bounds them.",
)


def overview(validations: Iterable[Validation]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: how many checks of each have which verdict."""
    rows = [(v.name, v.title, *(str(v.count(verdict) or "") for verdict in VERDICTS)) for v in validations]
    return ("name", "what", *VERDICTS), rows


def section(validation: Validation) -> Iterator[Block]:
    """One validation as blocks."""
    yield "subheading", validation.title
    yield "paragraph", f"`accelsim validate {validation.name}`"
    yield "paragraph", validation.how
    yield "paragraph", f"Source: {validation.source}"
    if validation.checks:
        yield "table", ("", HEADINGS, [check.cells() for check in validation.checks])
    for table in validation.tables:
        yield "table", (table.title, table.headings, table.rows)
    for note in _notes(validation):
        yield "bullet", note


def page(validations: list[Validation]) -> Iterator[Block]:
    """All of them as blocks, with an overview."""
    yield "heading", "Machines beside their publications"
    for text in INTRODUCTION:
        yield "paragraph", text
    yield "table", ("", *overview(validations))
    for validation in validations:
        yield from section(validation)


def text(validations: list[Validation], full: bool = True) -> Iterator[Table | Text]:
    """For a terminal; without ``full`` only what compares."""
    for validation in validations:
        yield Text(validation.title, style="bold")
        if full:
            yield Text(f"{validation.how}\nSource: {validation.source}\n")
        if validation.checks:
            yield laid_out("", HEADINGS, [check.cells() for check in validation.checks])
        for table in validation.tables:
            yield laid_out(table.title, table.headings, table.rows)
        if full:
            for note in _notes(validation):
                yield Text(f"  {note}")
        yield Text()
    yield laid_out("Verdicts", *overview(validations))


def report(validations: list[Validation], command: list[str]) -> dict[str, Any]:
    """The object that ``validate --json`` prints and ``validation.json`` holds."""
    origin = {"accelsim": __version__, "command": command, "versions": versions()}
    holds = not any(validation.failures for validation in validations)
    return {"holds": holds, "validations": [v.as_dict() for v in validations], "provenance": origin}


def write(folder: Path, validations: list[Validation], command: list[str]) -> None:
    """Writes validation.csv, .json and .md into a folder, all or none. Raises OutputError."""
    rows = [{"validation": v.name, **check.as_dict()} for v in validations for check in v.checks]
    with staged(folder) as stage:
        write_csv(pd.DataFrame(rows), stage / "validation.csv")
        (stage / "validation.json").write_text(to_json(report(validations, command)), encoding="utf-8")
        (stage / "validation.md").write_text(markdown(page(validations)), encoding="utf-8")
        manifest.write(stage)


def _notes(validation: Validation) -> Iterator[str]:
    """Its notes, and those of its checks."""
    yield from validation.notes
    yield from dict.fromkeys(check.note for check in validation.checks if check.note)
