"""Reads a folder of results, which anybody may have written or changed: what is not as it must be is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from accelsim import ledger
from accelsim.errors import AccelsimError, ResultsError
from accelsim.ledger import CYCLES, EFFECTUAL, Count
from accelsim.study import manifest
from accelsim.study.csv_file import unquoted
from accelsim.study.results import COLUMNS

# Types by key; a list of one type holds any number of it. Keys that are not here may be there too.
NUMBER, MAYBE, TEXT = (int, float), (int, float, type(None)), (str,)
_RATIOS = [{"snapshot": TEXT, "sparsity": NUMBER, **dict.fromkeys(COLUMNS, MAYBE)}]
_SUMMARY = {
    "machine": TEXT,
    "multipliers": (int,),
    "baseline": (str, type(None)),
    "baseline_multipliers": (int, type(None)),
    "layers": TEXT,
    "speedup": _RATIOS,
    "speedup_over_baseline": _RATIOS,
    "fewer_effectual": _RATIOS,
    "per_multiplier": _RATIOS,
    "gain": _RATIOS,
    "shape": _RATIOS,
    "utilization": _RATIOS,
    "cycles": _RATIOS,
}
ORIGIN = {
    "accelsim": TEXT,
    "command": [TEXT],
    "machines": [{"name": TEXT}],
    "trace": {"network": TEXT, "dataset": TEXT, "sha256": TEXT},
    "versions": {},
}
_RUN = {**_SUMMARY, "with_linear": _SUMMARY, "paper": [{}], "provenance": ORIGIN}
# What ``accelsim.study.guidance.report`` makes.
GUIDANCE = {"snapshot": TEXT, "advice": [{"which": TEXT, "layer": (str, type(None)), "sentence": TEXT}]}
_TEXT_COLUMNS = ("snapshot", "layer", "kind", "pass", "machine")
LARGEST = 1e300  # of any number
SHOWN = ("run.json", "layers.csv", "layers.parquet", "summary.txt")
_COLUMNS = (*_TEXT_COLUMNS, "sparsity", "samples", "multipliers", CYCLES.column, EFFECTUAL.column)
# What run.json says of each count.
_COUNT = dict.fromkeys(("name", "meaning", "group", "unit", "source", "place", "words", "way"), TEXT)


@dataclass(frozen=True, eq=False)
class Run:
    """What ``accelsim run --out`` wrote: run.json, the rows of layers.csv, and every file of it as it is.

    ``counts`` are the table's, as the run's ledger had them, which may be another than ours.
    """

    data: dict[str, Any]
    table: pd.DataFrame
    files: dict[str, bytes]
    counts: tuple[Count, ...]

    def rows(self, group: ledger.Group) -> list[Count]:
        """The counts of a group that the table has."""
        return [row for row in self.counts if row.group == group and row.column in self.table]


def read_run(folder: Path) -> Run:
    """Reads and checks run.json and layers.csv; layers.parquet and summary.txt are taken along where they are.

    Each must be as its digest in the manifest says.

    Raises
    ------
    ResultsError
        With the file, the key or column, and the rule, in one line.
    """
    files = manifest.read(folder, ("run.json", "layers.csv"))
    data = parsed(folder / "run.json", files["run.json"])
    check(data, _RUN, f"{folder / 'run.json'}: ")
    rows, papers = len(data["speedup"]), data["paper"]
    for key in ("speedup", "fewer_effectual", "utilization", "cycles", "paper"):
        if len(data[key]) != rows or not rows:
            raise ResultsError(f"{folder / 'run.json'}: {key}: must have one entry for each snapshot")
    for figure in (figure for paper in papers for figure in paper.values()):
        check(figure, NUMBER, f"{folder / 'run.json'}: paper.")
    if data.get("worth") is not None:  # runs of before do not say
        check(data["worth"], (int,), f"{folder / 'run.json'}: worth")
    if data.get("steps"):
        check(data["steps"], {row["snapshot"]: (int,) for row in data["cycles"]}, f"{folder / 'run.json'}: steps.")
    if data.get("guidance") is not None:
        check(data["guidance"], GUIDANCE, f"{folder / 'run.json'}: guidance.")
    counts = tuple(_counts(data.get("counts"), folder / "run.json"))
    table = _table(folder / "layers.csv", files["layers.csv"], data["machine"], counts)
    return Run(data, table, {name: files[name] for name in SHOWN if name in files}, counts)


def read_json(
    folder: Path, name: str, rule: Any, others: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A folder's JSON file, checked by a rule, and it and the other files as they are. Raises ResultsError."""
    files = manifest.read(folder, (name, *others))
    data = parsed(folder / name, files[name])
    check(data, rule, f"{folder / name}: ")
    return data, {file: content for file, content in files.items() if Path(file).suffix != ".parquet"}


def _counts(told: Any, path: Path) -> Iterator[Count]:
    """What a run says that it counted; ours where it says nothing."""
    if told is None:
        yield from ledger.rows()
        return
    check({"counts": told}, {"counts": [_COUNT | {"colour": [TEXT]}]}, f"{path}: ")
    for row in told:
        try:
            yield Count(**{key: row[key] for key in _COUNT}, colour=tuple(row["colour"]))
        except AccelsimError as error:
            raise ResultsError(f"{path}: counts: {error}") from error


def parsed(path: Path, content: bytes) -> dict[str, Any]:
    """A JSON object of a file. Raises ResultsError with the file."""
    try:
        found: dict[str, Any] = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: must be JSON, but is damaged: {error}") from error
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def check(value: Any, rule: Any, where: str) -> None:
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
        check(value[key], inner, f"{where}{key}.")
    for i, item in enumerate(value if isinstance(rule, list) else ()):
        check(item, rule[0], f"{where.rstrip('.')}[{i}].")


def _table(path: Path, content: bytes, machine: str, counts: tuple[Count, ...]) -> pd.DataFrame:
    """The rows of one machine; names as they are written, all other columns numbers where they are."""
    text = dict.fromkeys((*_TEXT_COLUMNS, "algorithm", "trace_sha256"), str)
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=text, keep_default_na=False, na_values={}, encoding="utf-8")
    except (ValueError, OSError) as error:
        raise ResultsError(f"{path}: must be CSV, but is damaged: {error}") from error
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise ResultsError(f"{path}: has no column {', '.join(missing)}")
    if table.empty:
        raise ResultsError(f"{path}: must have a row for each layer and pass, but has none")
    counted = {*_COLUMNS, ledger.of_baseline(CYCLES), *(row.column for row in counts)}
    may_be_unknown = {row.column for row in counts if row.unit == "pJ"}
    for name in table.columns.difference(list(text)):
        unknown = table[name].astype(str) == ""
        numbers = pd.to_numeric(table[name].mask(unknown), errors="coerce")
        fine = numbers.between(0, LARGEST) | (unknown & (name in may_be_unknown))
        if name in counted and not fine.all():
            odd = str(table[name][~fine].iloc[0])[:40] or "nothing"
            raise ResultsError(f"{path}: column {name} must hold numbers from 0, not {odd}")
        if name in counted - may_be_unknown - {"sparsity"} and numbers.dtype != "int64":
            raise ResultsError(f"{path}: column {name} must hold whole numbers below 2^63")
        table[name] = numbers
    if (table["multipliers"] < 1).any() or (table["samples"] < 1).any():
        raise ResultsError(f"{path}: columns multipliers and samples must be at least 1")
    for name in table.columns.intersection(list(text)):
        table[name] = table[name].map(unquoted)
    others = [name for name in table["machine"].unique() if name != machine]
    if others:
        raise ResultsError(f"{path}: machine must be that of run.json, {machine}, got {others[0]}")
    _check_slots(path, table, [row.column for row in counts if row.group == "slots" and row.column in table])
    return table


def _check_slots(path: Path, table: pd.DataFrame, causes: list[str]) -> None:
    """Where every slot went must add up to cycles × multipliers, in each row, to the last one."""
    for number, row in enumerate(table[[CYCLES.column, "multipliers", *causes]].itertuples(index=False), start=2):
        cycles, multipliers, *slots = map(int, row)
        if sum(slots) != cycles * multipliers:
            rule = f"slots must add up to cycles × multipliers, {cycles * multipliers}"
            raise ResultsError(f"{path}: line {number}: {rule}, got {sum(slots)}")
