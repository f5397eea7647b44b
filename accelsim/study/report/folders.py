"""Reads a folder of results, which anybody may have written or changed: what is not as it must be is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from accelsim.errors import ResultsError
from accelsim.study.results import COLUMNS

# Types by key; a list of one type holds any number of it. Keys that are not here may be there too.
_NUMBER, _MAYBE, _TEXT = (int, float), (int, float, type(None)), (str,)
_RATIOS = [{"snapshot": _TEXT, "sparsity": _NUMBER, **dict.fromkeys(COLUMNS, _MAYBE)}]
_SUMMARY = {
    "machine": _TEXT,
    "multipliers": (int,),
    "baseline": (str, type(None)),
    "baseline_multipliers": (int, type(None)),
    "layers": _TEXT,
    "speedup": _RATIOS,
    "speedup_over_baseline": _RATIOS,
    "bound": _RATIOS,
    "utilization": _RATIOS,
    "cycles": _RATIOS,
}
_RUN = {
    **_SUMMARY,
    "with_linear": _SUMMARY,
    "paper": [{}],
    "provenance": {
        "accelsim": _TEXT,
        "command": [_TEXT],
        "machines": [{"name": _TEXT}],
        "trace": {"network": _TEXT, "dataset": _TEXT, "sha256": _TEXT},
        "versions": {},
    },
}
_TEXT_COLUMNS = ("snapshot", "layer", "kind", "pass", "machine")
LARGEST = 1e300  # of any number
_COLUMNS = (*_TEXT_COLUMNS, "sparsity", "samples", "multipliers", "cycles", "effectual_slots")


@dataclass(frozen=True, eq=False)
class Run:
    """What ``accelsim run --out`` wrote: run.json, the rows of layers.csv, and every file of it as it is."""

    data: dict[str, Any]
    table: pd.DataFrame
    files: dict[str, bytes]


def read_run(folder: Path) -> Run:
    """Reads and checks run.json and layers.csv; layers.parquet and summary.txt are taken along where they are.

    Raises
    ------
    ResultsError
        With the file, the key or column, and the rule, in one line.
    """
    files = {name: _bytes(folder / name) for name in ("run.json", "layers.csv")}
    for name in ("layers.parquet", "summary.txt"):
        if (folder / name).is_file():
            files[name] = _bytes(folder / name)
    data = _object(folder / "run.json", files["run.json"])
    _check(data, _RUN, f"{folder / 'run.json'}: ")
    rows, papers = len(data["speedup"]), data["paper"]
    for key in ("speedup", "bound", "utilization", "cycles", "paper"):
        if len(data[key]) != rows or not rows:
            raise ResultsError(f"{folder / 'run.json'}: {key}: must have one entry for each snapshot")
    for figure in (figure for paper in papers for figure in paper.values()):
        _check(figure, _NUMBER, f"{folder / 'run.json'}: paper.")
    return Run(data, _table(folder / "layers.csv", data["machine"]), files)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(f"{path}: cannot read: {error.strerror}") from error


def _object(path: Path, content: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: must be JSON, but is damaged: {error}") from error
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _check(value: Any, rule: Any, where: str) -> None:
    """Whether plain data has the keys and types of a rule. ``where`` begins the text of the error."""
    if isinstance(rule, tuple):
        fine = isinstance(value, rule) and not isinstance(value, bool)
        if not fine or (isinstance(value, int | float) and not abs(value) < LARGEST):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in rule)
            raise ResultsError(f"{where.rstrip('.')}: must be {names}")
        return
    if not isinstance(value, type(rule)):
        what = "an object" if isinstance(rule, dict) else "a list"
        raise ResultsError(f"{where.rstrip('.: ')}: must be {what}")
    for key, inner in rule.items() if isinstance(rule, dict) else ():
        if key not in value:
            raise ResultsError(f"{where}{key}: must be given")
        _check(value[key], inner, f"{where}{key}.")
    for i, item in enumerate(value if isinstance(rule, list) else ()):
        _check(item, rule[0], f"{where.rstrip('.')}[{i}].")


def _table(path: Path, machine: str) -> pd.DataFrame:
    """The rows of one machine; names as they are written, all other columns numbers where they are."""
    text = dict.fromkeys((*_TEXT_COLUMNS, "algorithm", "trace_sha256"), str)
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={}, encoding="utf-8")
    except (ValueError, OSError) as error:
        raise ResultsError(f"{path}: must be CSV, but is damaged: {error}") from error
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise ResultsError(f"{path}: has no column {', '.join(missing)}")
    if table.empty:
        raise ResultsError(f"{path}: must have a row for each layer and pass, but has none")
    for name in table.columns.difference(list(text)):
        counts = name in _COLUMNS or name == "baseline_cycles" or name.endswith(("_slots", "_bytes", "_pj"))
        numbers = pd.to_numeric(table[name].replace("", 0), errors="coerce")
        if counts and not (numbers.between(0, LARGEST)).all():
            raise ResultsError(f"{path}: column {name} must hold numbers from 0, not {_odd(table[name], numbers)}")
        table[name] = numbers
    if (table["multipliers"] < 1).any() or (table["samples"] < 1).any():
        raise ResultsError(f"{path}: columns multipliers and samples must be at least 1")
    others = [name for name in table["machine"].unique() if name != machine]
    if others:
        raise ResultsError(f"{path}: machine must be that of run.json, {machine}, got {others[0]}")
    return table


def _odd(column: pd.Series, numbers: pd.Series) -> str:
    """The first value that is no count."""
    return str(column[~numbers.between(0, LARGEST)].iloc[0])[:40]
