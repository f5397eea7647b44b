"""Many machines on one trace: multiplier for multiplier, what sparsity buys and what shape costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from accelsim import ledger
from accelsim.errors import AccelsimError, ConfigError
from accelsim.hardware.accelerators.base import SKIPS
from accelsim.hardware.area import gmacs_per_mm2
from accelsim.hardware.machine import Machine
from accelsim.ledger import CYCLES, DENSE, EFFECTUAL, ENERGY, OFFCHIP_MOVED, ONCHIP_MOVED
from accelsim.pipeline import simulate_records
from accelsim.study.export import write_files
from accelsim.study.json_file import to_json
from accelsim.study.layout import new_table
from accelsim.study.results import COLUMNS, Summary, convolutions, dense_selves, frame, slots_of, summarize, total
from accelsim.study.tables import HEADINGS, NOTHING, count, short, times
from accelsim.workload.lowering import PASSES
from accelsim.workload.trace import Trace

LETTERS = {"activation": "A", "saved_activation": "A", "weight": "W", "backward_weight": "W", "gradient": "G"}


@dataclass(frozen=True)
class Contender:
    """A machine that was compared.

    Parameters
    ----------
    machine : str
    multipliers, baseline_multipliers : int
        Its own, and those of a dense machine that it is worth.
    skips : dict
        Of each pass that was simulated, the tensors whose zeros save time, and how (``SKIPS``).
    formats : dict or None
        Of each tensor how it is stored, which says whose zeros save bytes; None without a memory.
    """

    machine: str
    multipliers: int
    baseline_multipliers: int
    skips: dict[str, dict[str, str]]
    formats: dict[str, str] | None


@dataclass(frozen=True)
class Comparison:
    """Machines on a trace.

    Parameters
    ----------
    layers : str
        What it is over: "convolutions", or "linear layers" of a trace that has no other.
    contenders : list of Contender
        Machines that could run it, in the order given.
    refused : dict
        Of each other machine the reason.
    rows : DataFrame
        A row per snapshot × machine, in each snapshot the least time per multiplier first. Speedups, by pass, are over
        a dense machine of as many multipliers that is always busy; each is gain × shape, see ``Summary``. Bytes and pJ
        are over the passes simulated and all samples stored, and missing where not modelled; ``gmacs_per_mm2`` too,
        where the machine's area is not known.
    records : DataFrame
        What the rows are made of: a row per snapshot, layer, machine and pass (``results.frame``).
    """

    layers: str
    contenders: list[Contender]
    refused: dict[str, str]
    rows: pd.DataFrame
    records: pd.DataFrame


def compare(
    machines: Iterable[Machine],
    trace: Trace,
    *,
    passes: str | Iterable[str] = PASSES,
    layers: str | Iterable[str] = "*",
    snapshots: str | Iterable[str] | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Simulates all machines in one go, so that each tensor is read once; then their dense selves.

    Parameters are those of ``simulate_records``.

    Raises
    ------
    AccelsimError
        As ``simulate_records``, if two machines have one name, or if no machine can run the trace.
    """
    machines = list(machines)
    for number, machine in enumerate(machines):
        if machine.name in [other.name for other in machines[:number]]:
            raise ConfigError(f"machines: names must differ, got {machine.name} twice")
    refused: dict[str, str] = {}
    passes = (passes,) if isinstance(passes, str) else tuple(passes)
    snapshots = (snapshots,) if isinstance(snapshots, str) else snapshots and tuple(snapshots)
    how: dict[str, Any] = {"passes": passes, "layers": layers, "jobs": jobs, "refused": refused}
    table = convolutions(frame(simulate_records(machines, trace, snapshots=snapshots, progress=progress, **how)))
    running = [machine for machine in machines if machine.name not in refused]
    dense = convolutions(dense_selves(running, trace, snapshots=snapshots, **how)) if running else table
    contenders, kinds = [], []
    rows: list[dict[str, Any]] = []
    for machine in machines:
        if machine.name in refused:
            continue
        worth = machine.accelerator.baseline_multipliers
        of_machine = summarize(table, machine.name, dense=dense, worth=worth)
        kinds.append(of_machine.layers)
        contenders.append(_contender(machine, [which for which in PASSES if which in passes]))
        rows += _rows(of_machine, machine, table[table["machine"] == machine.name])
    if not contenders:
        raise AccelsimError(next(iter(refused.values()), "machines: must name at least one"))
    refused = {machine.name: refused[machine.name] for machine in machines if machine.name in refused}
    return Comparison(kinds[0], contenders, refused, _sorted(rows), table)


def _contender(machine: Machine, passes: list[str]) -> Contender:
    accelerator = machine.accelerator
    return Contender(
        machine=machine.name,
        multipliers=accelerator.multipliers,
        baseline_multipliers=accelerator.baseline_multipliers,
        skips={which: accelerator.skips(which) for which in passes},
        formats=machine.memory.formats.model_dump() if machine.memory else None,
    )


def _rows(summary: Summary, machine: Machine, table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """A machine's rows, snapshot by snapshot. ``table`` has its records."""
    by_snapshot = dict(iter(table.groupby("snapshot", sort=False)))
    mm2 = machine.area.mm2 if machine.area else None
    ratios = summary.per_multiplier, summary.gain, summary.shape, summary.cycles
    for row, gain, shape, cycles in zip(*ratios, strict=True):
        group = by_snapshot[row["snapshot"]]
        slots, taken = slots_of(group), total(group, CYCLES)
        work = total(group, DENSE) / taken if taken else None
        yield {
            "machine": summary.machine,
            "snapshot": row["snapshot"],
            "sparsity": row["sparsity"],
            "samples": cycles["samples"],
            "multipliers": summary.multipliers,
            "baseline_multipliers": machine.accelerator.baseline_multipliers,
            **{f"{column}_speedup": row[column] for column in COLUMNS},
            **{f"{column}_gain": gain[column] for column in COLUMNS},
            **{f"{column}_shape": shape[column] for column in COLUMNS},
            "utilization": total(group, EFFECTUAL) / slots if slots else None,
            CYCLES.column: taken,
            **{moved.column: total(group, *moved.parts) if machine.memory else None for moved in ledger.rows("moved")},
            ENERGY.column: total(group, ENERGY),
            "area_mm2": mm2,
            "gmacs_per_mm2": gmacs_per_mm2(work, machine.clock_mhz, mm2) if mm2 and work else None,
        }


def _sorted(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Snapshots in the trace's order, machines by the speedup of the step, or of the last pass that there is."""
    table = pd.DataFrame(rows).convert_dtypes()
    place = {name: number for number, name in enumerate(pd.unique(table["snapshot"]))}
    speedups = table[[f"{column}_speedup" for column in COLUMNS]].astype(float)
    keys = {"place": table["snapshot"].map(place), "speedup": speedups.ffill(axis=1).iloc[:, -1]}
    order = pd.DataFrame(keys).sort_values(["place", "speedup"], ascending=[True, False], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def shown(comparison: Comparison, notes: bool = True) -> Iterator[Table | Text]:
    """A table per snapshot; below them, with ``notes``, what the columns mean, and always who could not run."""
    contenders = {contender.machine: contender for contender in comparison.contenders}
    passes = list(comparison.contenders[0].skips)
    columns = [*passes, "step"] if len(passes) == len(PASSES) else passes
    energy = [ENERGY.column] if comparison.rows[ENERGY.column].notna().any() else []
    area = ["gmacs_per_mm2"] if comparison.rows["gmacs_per_mm2"].notna().any() else []
    groups: Any = comparison.rows.groupby(["snapshot", "sparsity"], sort=False)
    for (snapshot, sparsity), rows in groups:
        over = f"{comparison.layers}, Top-K {100 * sparsity:g} % ({snapshot})"
        table = new_table(f"Speedup over as many multipliers that are always busy, over {over}")
        table.collapse_padding = True
        table.add_column("machine", no_wrap=True)
        headings = ["multi-\npliers", *(HEADINGS[column] for column in columns), "= gain", "× shape", "off-chip\nMB"]
        headings += ["on-chip\nMB", *("energy\nmJ" for _ in energy), *("GMAC/s\n/mm²" for _ in area)]
        for heading in headings:
            table.add_column(heading, justify="right")
        table.add_column("skips:\ntime", no_wrap=True)
        table.add_column("\nbytes")
        for row in records(rows):
            contender = contenders[row["machine"]]
            table.add_row(
                row["machine"], count(row["baseline_multipliers"]),
                *(times(row[f"{column}_speedup"]) for column in columns),
                times(row[f"{columns[-1]}_gain"]), times(row[f"{columns[-1]}_shape"]),
                _scaled(row, OFFCHIP_MOVED.column, 1e6), _scaled(row, ONCHIP_MOVED.column, 1e6),
                *(_scaled(row, column, 1e9) for column in energy), *(short(row[column]) for column in area),
                time_code(contender), traffic_code(contender),
            )  # fmt: skip
        yield table
    if notes:
        yield from map(Text, _legend(comparison))
    for machine, reason in comparison.refused.items():
        yield Text(f"{machine} is left out: it cannot run the trace ({reason.removeprefix(f'{machine}: ')})")


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Python's own numbers; None for what is missing."""
    return [{str(key): None if pd.isna(x) else x for key, x in row.items()} for row in rows.to_dict(orient="records")]


def _scaled(row: dict[str, Any], column: str, unit: float) -> str:
    """Of a sample; with two digits, for of a small network 0.0 would say nothing."""
    if row[column] is None:
        return NOTHING
    value = row[column] / row["samples"] / unit
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def time_code(contender: Contender) -> str:
    """Whose zeros save time, pass by pass: ``AW GW AG``."""
    codes = [_code(skips) for skips in contender.skips.values()]
    return " ".join(codes) if any(code != NOTHING for code in codes) else NOTHING


def _code(skips: dict[str, str]) -> str:
    signs = {"zeros": "{}", "sparser": "{}", "bits": "{}°", "pattern": "{}*"}
    between = "|" if "sparser" in skips.values() else ""
    return between.join(signs[how].format(LETTERS[name]) for name, how in skips.items()) or NOTHING


def traffic_code(contender: Contender) -> str:
    """Whose zeros save bytes."""
    stored = contender.formats or {}
    return "".join(LETTERS[name] for name, form in stored.items() if form != "dense") or NOTHING


def _legend(comparison: Comparison) -> Iterator[str]:
    """What the columns mean, as far as they are there."""
    yield "speedup: over as many multipliers that do a product, of zeros too, in every cycle; as many as the machine"
    yield "  has, of a bit-serial one as many as it is worth"
    yield "gain: over the machine's dense self, which has the same layers without a zero: what sparsity buys"
    yield "shape: its dense self over the multipliers that are always busy: what its sizes, and waiting, cost"
    if comparison.rows["gmacs_per_mm2"].notna().any():
        yield "GMAC/s/mm²: multiplications, of zeros too, by time and by the area that a machine file gives"
    yield "MB, mJ: per sample, over the passes shown; on chip: read from and written to the memories there"
    yield "skips: zeros of activations (A), weights (W) and gradients (G) that save time, pass by pass, or bytes"
    seen = {how for c in comparison.contenders for skips in c.skips.values() for how in skips.values()}
    for sign, how in (("A|W", "sparser"), ("A°", "bits"), ("W*", "pattern")):
        if how in seen:
            yield f"  {sign}: {SKIPS[how]}"


def report(comparison: Comparison, origin: dict[str, Any]) -> dict[str, Any]:
    """The object that ``compare --json`` prints and ``compare.json`` holds."""
    return facts(comparison) | {"provenance": origin}


def facts(comparison: Comparison) -> dict[str, Any]:
    """What was compared, as plain data."""
    return {
        "layers": comparison.layers,
        "machines": [asdict(contender) for contender in comparison.contenders],
        "refused": comparison.refused,
        "rows": records(comparison.rows),
    }


def write(folder: Path, comparison: Comparison, data: dict[str, Any], text: str) -> None:
    """Writes machines.csv, machines.parquet, compare.json and summary.txt into a folder, all or none.

    Raises
    ------
    OutputError
        If the folder cannot be written, or the disk is full.
    """
    codes = {c.machine: (time_code(c), traffic_code(c)) for c in comparison.contenders}
    table = comparison.rows.assign(
        skips_time=[codes[name][0] for name in comparison.rows["machine"]],
        skips_traffic=[codes[name][1] for name in comparison.rows["machine"]],
    )
    write_files(folder, "machines", table, data["provenance"], {"compare.json": to_json(data), "summary.txt": text})
