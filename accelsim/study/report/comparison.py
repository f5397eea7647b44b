"""What a report shows of ``accelsim compare --out``: machines multiplier for multiplier, snapshot by snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from accelsim.ledger import ENERGY, OFFCHIP_MOVED, ONCHIP_MOVED
from accelsim.study.report.common import PASSES, bars, chart_html, coverage_html, provenance_html
from accelsim.study.report.drawing import machine_html
from accelsim.study.report.folders import MAYBE, NUMBER, ORIGIN, TEXT, read_json
from accelsim.study.report.page import Cell, Page, Section, count, downloads, esc, percent, table, times
from accelsim.study.results import COLUMNS
from accelsim.study.tables import short

MEANING = (
    "Speedup is over as many multipliers that do a product, of zeros too, in every cycle; it is gain × shape. Gain is "
    "over the machine's dense self, which has the same layers without a zero; shape is what its sizes, and waiting, "
    "cost. Bytes and energy are of a sample."
)
_ROW = {
    "machine": TEXT, "snapshot": TEXT, "sparsity": NUMBER, "samples": (int,), "baseline_multipliers": (int,),
    **{f"{column}_{what}": MAYBE for column in COLUMNS for what in ("speedup", "gain", "shape")},
    OFFCHIP_MOVED.column: MAYBE, ONCHIP_MOVED.column: MAYBE, ENERGY.column: MAYBE, "utilization": MAYBE,
    "gmacs_per_mm2": MAYBE,
}  # fmt: skip
RULE = {"layers": TEXT, "refused": {}, "rows": [_ROW]}


def page_of(folder: Path) -> Page:
    """The page of a folder that ``accelsim compare --out`` wrote. Raises ResultsError."""
    data, files = read_json(folder, "compare.json", RULE | {"provenance": ORIGIN}, ("machines.csv",))
    origin, trace = data["provenance"], data["provenance"]["trace"]
    sections = [
        Section("machines", "Machines", machines_html(data) + coverage_html(trace)),
        Section("first", "The first machine", machine_html(origin)),
        Section("provenance", "Provenance", provenance_html(origin)),
        Section("files", "Files", "<p>The results as they were written, inside this page:</p>" + downloads(files)),
    ]
    return Page(
        title=f"{len({row['machine'] for row in data['rows']})} machines on {trace['network']}, {trace['dataset']}",
        lead=f"Over {data['layers']}, multiplier for multiplier: what sparsity buys, and what a machine's shape costs.",
        sections=sections,
        data={"charts": list(charts(data))},
        generator=f"accelsim {origin['accelsim']}",
    )


def machines_html(data: dict[str, Any]) -> str:
    """A table and a chart a snapshot; what the columns mean, and who could not run."""
    last, passes = _columns(data)
    area = any(row["gmacs_per_mm2"] is not None for row in data["rows"])
    parts = [f"<p>{esc(MEANING)}</p>"]
    for number, (label, rows) in enumerate(_by_snapshot(data)):
        parts.append(chart_html(f"machines-{number}", f"{PASSES[last]}, {label}"))
        headings = {"machine": "machine", "multipliers": "multipliers"} | {column: PASSES[column] for column in passes}
        headings |= {"gain": "gain", "shape": "shape", "utilization": "utilization", "offchip": "off-chip MB"}
        headings |= {"onchip": "on-chip MB", "energy": "energy, mJ"} | ({"area": "GMAC/s/mm²"} if area else {})
        cells = [
            [
                row["machine"], count(row["baseline_multipliers"]),
                *(times(row[f"{column}_speedup"]) for column in passes),
                times(row[f"{last}_gain"]), times(row[f"{last}_shape"]), percent(row["utilization"]),
                _scaled(row, OFFCHIP_MOVED.column, 1e6), _scaled(row, ONCHIP_MOVED.column, 1e6),
                _scaled(row, ENERGY.column, 1e9),
                *([Cell(short(row["gmacs_per_mm2"]), row["gmacs_per_mm2"])] if area else []),
            ]
            for row in rows
        ]  # fmt: skip
        caption = f"Speedup over as many multipliers that are always busy, over {data['layers']}, {label}"
        parts.append(table(headings, cells, name=f"machines-table-{number}", caption=caption))
    parts += [f"<p>{esc(name)} is left out: {esc(reason)}</p>" for name, reason in data["refused"].items()]
    return "".join(parts)


def charts(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Speedup and gain of the step, or of the last pass, a chart a snapshot."""
    last, _ = _columns(data)
    for number, (_, rows) in enumerate(_by_snapshot(data)):
        series = {
            "speedup": [row[f"{last}_speedup"] for row in rows],
            "gain over its dense self": [row[f"{last}_gain"] for row in rows],
        }
        yield bars(f"machines-{number}", [row["machine"] for row in rows], series, "×")


def _columns(data: dict[str, Any]) -> tuple[str, list[str]]:
    """The step, or the last pass that there is; and what there is."""
    shown = [column for column in COLUMNS if column != "backward"]
    there = [column for column in shown if any(row[f"{column}_speedup"] is not None for row in data["rows"])]
    return (there or shown)[-1], there


def _by_snapshot(data: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for (name, sparsity), rows in groupby(data["rows"], lambda row: (row["snapshot"], row["sparsity"])):
        yield f"Top-K {100 * sparsity:g} % ({name})", list(rows)


def _scaled(row: dict[str, Any], column: str, unit: float) -> Cell:
    """Of a sample."""
    value = row[column]
    own = None if value is None else value / max(1, row["samples"]) / unit
    return Cell(short(own), own)
