"""Result files: tidy tables as CSV and Parquet, the summary, and provenance. Nothing is ever half-written."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from accelsim import ledger
from accelsim.files import staged
from accelsim.hardware.machine import Machine
from accelsim.hardware.yaml_file import to_yaml
from accelsim.ledger import CYCLES
from accelsim.study import manifest
from accelsim.study.csv_file import write_csv
from accelsim.study.json_file import to_json
from accelsim.study.results import Summary, fold
from accelsim.version import __version__
from accelsim.workload.coverage import coverage_text
from accelsim.workload.trace import Trace

if TYPE_CHECKING:
    from accelsim.workload.synthetic import SyntheticTrace

LIBRARIES = ("numpy", "numba", "pandas", "pyarrow", "pydantic")


def provenance(trace: Trace | SyntheticTrace, machines: list[Machine], command: list[str]) -> dict[str, Any]:
    """What a result was computed from: machines resolved, trace digest, versions, command. Nothing is random.

    A trace that was drawn is no file and has no digest: "".
    """
    return {
        "accelsim": __version__,
        "command": command,
        "machines": [machine.resolved() for machine in machines],
        "drawings": [drawing and asdict(drawing) for drawing in (machine.accelerator.drawing for machine in machines)],
        "trace": {
            "path": str(trace.path),
            "sha256": getattr(trace, "digest", ""),
            "network": trace.network,
            "dataset": trace.dataset,
            "provenance": trace.provenance,
            **_covered(trace),
        },
        "versions": versions(),
        "seed": None,
    }


def _covered(trace: Trace | SyntheticTrace) -> dict[str, Any]:
    """Of each snapshot, what of the step's multiplications the trace holds, where that was counted."""
    told = {s.name: {"text": coverage_text(s), **s.coverage} for s in trace.snapshots if s.coverage}
    return {"coverage": told} if told else {}


def versions() -> dict[str, str | None]:
    """Of Python, and of the libraries that count and write."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def report(
    summary: Summary, with_linear: Summary, table: pd.DataFrame, paper: list[dict[str, Any]], origin: dict[str, Any]
) -> dict[str, Any]:
    """The object that ``run --json`` prints and ``run.json`` holds.

    ``speedup`` is the paper's Table 6 as we count it, unrounded; ``paper`` what the paper prints, row by row;
    ``counts`` what each column of counts in the tables is.
    """
    keys = ["machine", "snapshot", "pass"]
    folded = fold(table, keys)
    return {
        **asdict(summary),
        "paper": paper,
        "with_linear": asdict(with_linear),
        "slots": folded[[*keys, CYCLES.column, *ledger.columns("slots")]].to_dict(orient="records"),
        "actions": folded[[*keys, *ledger.columns("actions")]].to_dict(orient="records"),
        "counts": [asdict(row) | {"column": row.column} for row in ledger.rows() if row.column in table],
        "provenance": origin,
    }


def write_results(folder: Path, table: pd.DataFrame, data: dict[str, Any], text: str, counts: dict[str, Any]) -> None:
    """Writes layers.csv, layers.parquet, run.json, summary.txt and action_counts.yaml into a folder, all or none.

    The tables have a row per snapshot × layer × pass of the machine; ``baseline_cycles`` are the baseline machine's.

    Raises
    ------
    OutputError
        If the folder cannot be written, or the disk is full.
    """
    rows = table[table["machine"] == data["machine"]].reset_index(drop=True)
    if data["baseline"]:
        others = table[table["machine"] == data["baseline"]].reset_index(drop=True)
        behind = rows.columns.get_loc(CYCLES.column) + 1
        rows.insert(behind, ledger.of_baseline(CYCLES), others[CYCLES.column])
    documents = {"run.json": to_json(data), "summary.txt": text, "action_counts.yaml": to_yaml(counts)}
    write_files(folder, "layers", rows, data["provenance"], documents)


def write_files(
    folder: Path, name: str, table: pd.DataFrame, origin: dict[str, Any], documents: dict[str, str]
) -> None:
    """Writes a table as NAME.csv and NAME.parquet, with its provenance, documents, and all their digests; all or none.

    Raises
    ------
    OutputError
        If the folder cannot be written, or the disk is full.
    """
    table = table.assign(trace_sha256=origin["trace"]["sha256"])
    table.attrs["provenance"] = json.dumps(origin)
    with staged(folder) as stage:
        write_csv(table, stage / f"{name}.csv")
        table.to_parquet(stage / f"{name}.parquet", index=False)
        for file, text in documents.items():
            (stage / file).write_text(text, encoding="utf-8")
        manifest.write(stage)


def check_writable(folder: Path) -> None:
    """Fails before an hour of simulation rather than after it, and leaves nothing behind. Raises OutputError."""
    with suppress(_OnlyTried), staged(folder):
        raise _OnlyTried


class _OnlyTried(Exception):
    """Leaves ``staged`` without writing."""
