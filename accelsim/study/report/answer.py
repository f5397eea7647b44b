"""What a report shows of ``accelsim ask --out``: the answer in sentences, the table behind it, what was not counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelsim.errors import ResultsError
from accelsim.study import answer
from accelsim.study.report.common import bullets, coverage_html, guidance_html, paragraphs, provenance_html
from accelsim.study.report.comparison import RULE, charts, machines_html
from accelsim.study.report.folders import GUIDANCE, ORIGIN, TEXT, check, read_json
from accelsim.study.report.page import Page, Section, downloads, esc, table

_MACHINE = {
    "machine": TEXT,
    "description": TEXT,
    "fewer": {},
    "cycles": {},
    "cycles_without_zeros": {},
    "per_multiplier": {},
}
_SNAPSHOT = {"name": TEXT, "zeros": {}, "machines": [_MACHINE]}
_ANSWER = RULE | {
    "network": TEXT, "dataset": TEXT, "passes": [TEXT], "snapshots": [_SNAPSHOT], "told": [TEXT], "coverage": [TEXT],
    "not_counted": [TEXT], "provenance": ORIGIN,
}  # fmt: skip


def page_of(folder: Path) -> Page:
    """The page of a folder that ``accelsim ask --out`` wrote. Raises ResultsError."""
    path = folder / "answer.json"
    data, files = read_json(folder, path.name, _ANSWER, ("machines.csv", "summary.txt"))
    for snapshot in data["snapshots"]:
        if snapshot.get("limit") is not None:
            check(snapshot["limit"], GUIDANCE | {"sentences": {}}, f"{path}: snapshots.limit.")
    origin = data["provenance"]
    sections = [
        Section("answer", "The answer", paragraphs(_said(path, data))),
        Section("machines", "Machines", machines_html(data)),
        Section("guidance", "What limits it, and what to change", _limits(data)),
        Section("counted", "What was counted, and what not", _counted(data)),
        Section("provenance", "Provenance", _files(origin) + provenance_html(origin)),
        Section("files", "Files", "<p>The results as they were written, inside this page:</p>" + downloads(files)),
    ]
    return Page(
        title=f"What the zeros of {data['network']} buy",
        lead=f"{data['network']}, {data['dataset']}, over {data['layers']}: cycles counted, against the same machines "
        "without a zero.",
        sections=sections,
        data={"charts": list(charts(data))},
        generator=f"accelsim {origin['accelsim']}",
    )


def _files(origin: dict[str, Any]) -> str:
    """The digests of the files that were asked about."""
    rows = [[name, digest] for name, digest in origin.get("files", {}).items()]
    return table({"file": "file", "sha256": "SHA-256"}, rows, name="files-table", caption="Files that were read")


def _said(path: Path, data: dict[str, Any]) -> list[str]:
    """The sentences about each snapshot."""
    try:
        return [line for snapshot in data["snapshots"] for line in answer.about(data, snapshot)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ResultsError(f"{path}: snapshots: must be as `accelsim ask --out` wrote them: {error!r}") from error


def _limits(data: dict[str, Any]) -> str:
    parts = []
    for snapshot in data["snapshots"]:
        if snapshot.get("limit") is not None:
            parts.append(f"<h3>{esc(snapshot['limit'].get('machine', ''))}, {esc(snapshot['name'])}</h3>")
            parts.append(guidance_html(snapshot["limit"]))
    return "".join(parts) or "<p>No machine could run it.</p>"


def _counted(data: dict[str, Any]) -> str:
    """Where tensors come from, what of the step they are, and what is in no figure."""
    told = [line.strip() for line in data["told"] if line.strip() and not line.endswith(":")]
    where = "<h3>Where the tensors come from</h3>" + bullets(told) if told else ""
    trace = coverage_html(data["provenance"]["trace"])
    return where + trace + "<h3>Not counted</h3>" + bullets(data["not_counted"])
