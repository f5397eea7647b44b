"""Results of a run as SCALE-Sim's reports, for scripts that read those.

One folder for each snapshot and pass, as SCALE-Sim has one for each run. Percentages as SCALE-Sim computes them, with a
multiplication that is executed for useful work; bandwidths in words a cycle. SCALE-Sim's reads from DRAM by operand are
not among our counts: these cells are ``nan``, and the sum has a column of its own.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from accelsim.errors import AccelsimError

COMPUTE = "LayerID, Total Cycles, Stall Cycles, Overall Util %, Mapping Efficiency %, Compute Util %,"
BANDWIDTH = (
    "LayerID, Avg IFMAP SRAM BW, Avg FILTER SRAM BW, Avg OFMAP SRAM BW, "
    "Avg IFMAP DRAM BW, Avg FILTER DRAM BW, Avg OFMAP DRAM BW, Avg DRAM Read BW,"
)
NEEDED = (
    "snapshot", "layer", "pass", "multipliers", "cycles", "compute_cycles", "effectual_slots", "ineffectual_slots",
    "edge_slots", "activation_memory_read_bytes", "weight_memory_read_bytes", "activation_memory_write_bytes",
    "offchip_read_bytes", "offchip_write_bytes",
)  # fmt: skip


def reports(folder: Path) -> Iterator[tuple[str, str]]:
    """Names of files, SNAPSHOT_PASS/COMPUTE_REPORT.csv and so on, and their texts.

    Parameters
    ----------
    folder : Path
        What ``accelsim run --out`` wrote.

    Raises
    ------
    AccelsimError
        If layers.csv or run.json is missing there, or not what a run writes.
    """
    table, word_bytes = _read(Path(folder))
    for (snapshot, which), rows in table.groupby(["snapshot", "pass"], sort=False):
        place = f"{snapshot}_{which}"
        layers = rows[rows["cycles"] > 0].to_dict("records")
        yield f"{place}/COMPUTE_REPORT.csv", _text(COMPUTE, map(_compute, layers))
        yield f"{place}/BANDWIDTH_REPORT.csv", _text(BANDWIDTH, (_bandwidth(layer, word_bytes) for layer in layers))
        yield f"{place}/LAYER_NAMES.csv", _text("LayerID, Layer name,", ([layer["layer"]] for layer in layers))


def _read(folder: Path) -> tuple[pd.DataFrame, float]:
    try:
        table = pd.read_csv(folder / "layers.csv")
        machine = json.loads((folder / "run.json").read_text(encoding="utf-8"))["provenance"]["machines"][0]
        memory = machine.get("memory") or {}
        word_bytes = float(memory.get("value_bits", 16)) / 8
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        text = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        text = " ".join(text.split())[:200]
        raise AccelsimError(f"{folder}: must be a folder of accelsim run --out: {text}") from error
    missing = [column for column in NEEDED if column not in table.columns]
    if missing:
        raise AccelsimError(f"{folder / 'layers.csv'}: must have the column {missing[0]}")
    return table, word_bytes


def _text(header: str, rows: Iterable[Iterable[object]]) -> str:
    lines = [", ".join(map(str, [number, *row])) + "," for number, row in enumerate(rows)]
    return "\n".join([header, *lines]) + "\n"


def _compute(row: Mapping[Hashable, Any]) -> list[float]:
    slots, busy = row["cycles"] * row["multipliers"], row["effectual_slots"] + row["ineffectual_slots"]
    mapped = row["compute_cycles"] * row["multipliers"]
    shares = busy / slots, 1 - row["edge_slots"] / mapped, busy / mapped
    return [row["cycles"], row["cycles"] - row["compute_cycles"], *(100 * share for share in shares)]


def _bandwidth(row: Mapping[Hashable, Any], word_bytes: float) -> list[float]:
    def words(column: str) -> float:
        return float(row[column] / word_bytes / row["cycles"])

    on_chip = [words(f"{name}_bytes") for name in ("activation_memory_read", "weight_memory_read")]
    nan = float("nan")
    stored = words("activation_memory_write_bytes")
    return [*on_chip, stored, nan, nan, words("offchip_write_bytes"), words("offchip_read_bytes")]
