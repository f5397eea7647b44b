"""Results of a run as SCALE-Sim's reports, for scripts that read those.

One folder for each snapshot and pass, as SCALE-Sim has one for each run. Percentages as SCALE-Sim computes them, with a
multiplication that is executed for useful work; bandwidths in words a cycle. SCALE-Sim's reads from DRAM by operand are
not among our counts: these cells are ``nan``, and the sum has a column of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from accelsim import ledger
from accelsim.errors import ResultsError
from accelsim.ledger import COMPUTE_CYCLES, CYCLES, EDGE, EFFECTUAL, INEFFECTUAL
from accelsim.study.csv_file import quoted
from accelsim.study.report.folders import read_run
from accelsim.workload.exporters.names import stem

COMPUTE = "LayerID, Total Cycles, Stall Cycles, Overall Util %, Mapping Efficiency %, Compute Util %,"
BANDWIDTH = (
    "LayerID, Avg IFMAP SRAM BW, Avg FILTER SRAM BW, Avg OFMAP SRAM BW, "
    "Avg IFMAP DRAM BW, Avg FILTER DRAM BW, Avg OFMAP DRAM BW, Avg DRAM Read BW,"
)
# What moves, in the order of the report's columns that we can tell.
READ = [ledger.moved(place, "read") for place in ("activation_memory", "weight_memory")]
STORED = ledger.moved("activation_memory", "write")
OFFCHIP = [ledger.moved("offchip", way) for way in ("write", "read")]
NEEDED = (
    "snapshot", "layer", "pass", "multipliers",
    *(row.column for row in (CYCLES, COMPUTE_CYCLES, EFFECTUAL, INEFFECTUAL, EDGE)), *READ, STORED, *OFFCHIP,
)  # fmt: skip


def reports(folder: Path) -> Iterator[tuple[str, str]]:
    """Names of files, SNAPSHOT_PASS/COMPUTE_REPORT.csv and so on, and their texts.

    Parameters
    ----------
    folder : Path
        What ``accelsim run --out`` wrote.

    Raises
    ------
    ResultsError
        If layers.csv or run.json is missing there, or not what a run wrote.
    """
    table, word_bytes = _read(Path(folder))
    for (snapshot, which), rows in table.groupby(["snapshot", "pass"], sort=False):
        place = f"{stem(str(snapshot), unique=True)}_{which}"
        layers = rows[rows[CYCLES.column] > 0].to_dict("records")
        yield f"{place}/COMPUTE_REPORT.csv", _text(COMPUTE, map(_compute, layers))
        yield f"{place}/BANDWIDTH_REPORT.csv", _text(BANDWIDTH, (_bandwidth(layer, word_bytes) for layer in layers))
        yield f"{place}/LAYER_NAMES.csv", _text("LayerID, Layer name,", ([_cell(layer["layer"])] for layer in layers))


def _read(folder: Path) -> tuple[pd.DataFrame, float]:
    run = read_run(folder)
    missing = [column for column in NEEDED if column not in run.table.columns]
    if missing:
        raise ResultsError(f"{folder / 'layers.csv'}: must have the column {missing[0]}")
    machines = run.data["provenance"]["machines"] or [{}]
    memory = machines[0].get("memory") or {}
    bits = memory.get("value_bits", 16) if isinstance(memory, dict) else None
    if type(bits) is not int or not 1 <= bits <= 64:
        raise ResultsError(f"{folder / 'run.json'}: provenance.machines[0].memory.value_bits: must be in 1…64")
    return run.table, bits / 8


def _text(header: str, rows: Iterable[Iterable[object]]) -> str:
    lines = [", ".join(map(str, [number, *row])) + "," for number, row in enumerate(rows)]
    return "\n".join([header, *lines]) + "\n"


def _cell(name: str) -> str:
    """A name as a cell: with quotes where it has a comma or a quote in it, and no formula."""
    text = str(quoted(name))
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text


def _compute(row: Mapping[Hashable, Any]) -> list[float]:
    cycles, computing = row[CYCLES.column], row[COMPUTE_CYCLES.column]
    slots, busy = cycles * row["multipliers"], row[EFFECTUAL.column] + row[INEFFECTUAL.column]
    mapped = computing * row["multipliers"]
    shares = busy / slots, 1 - row[EDGE.column] / mapped, busy / mapped
    return [cycles, cycles - computing, *(100 * share for share in shares)]


def _bandwidth(row: Mapping[Hashable, Any], word_bytes: float) -> list[float]:
    def words(column: str) -> float:
        return float(row[column] / word_bytes / row[CYCLES.column])

    nan = float("nan")
    return [*map(words, READ), words(STORED), nan, nan, *map(words, OFFCHIP)]
