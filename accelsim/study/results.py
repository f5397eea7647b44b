"""Records as a tidy table, and the ratios that a summary shows. All pandas is in ``accelsim.study``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import lcm
from typing import TYPE_CHECKING, Any

import pandas as pd

from accelsim import ledger
from accelsim.errors import MachineError
from accelsim.ledger import CYCLES, DENSE, EFFECTUAL, ENERGY, Count, Group, Record
from accelsim.pipeline import simulate_records
from accelsim.workload.filled import filled
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.trace import Trace

if TYPE_CHECKING:
    from accelsim.hardware.machine import Machine

COLUMNS = ("fwd", "input_grad", "weight_grad", "backward", "step")
SUMS = {"backward": ("input_grad", "weight_grad"), "step": ("fwd", "input_grad", "weight_grad")}
SNAPSHOT = ("snapshot", "sparsity")
EXACT = 1 << 63  # counts below are exact, in tables and in files; those that are not are refused
# The fields of a record that hold counts by name, and what one that is not there is.
GROUPS: dict[Group, int | None] = {"slots": 0, "actions": 0, "energy": None}


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per snapshot × layer × machine × pass, one column for each count of ``accelsim.ledger``.

    Counts are integers, pJ NaN where not known. ``which`` becomes ``pass``.
    """
    own = [field.name for field in fields(Record) if field.name not in GROUPS]
    counts = [(group, row, missing) for group, missing in GROUPS.items() for row in ledger.rows(group)]
    rows = [
        [getattr(record, name) for name in own]
        + [getattr(record, group).get(row.name, missing) for group, row, missing in counts]
        for record in map(_exact, records)
    ]
    table = pd.DataFrame(rows, columns=[*own, *(row.column for _, row, _ in counts)])
    table = table.astype(dict.fromkeys(ledger.columns("energy"), float)).rename(columns={"which": "pass"})
    totals = {
        total.column: table[[part.column for part in total.parts]].sum(axis=1, skipna=False)
        for total in ledger.rows("total")
    }
    return table.assign(**totals)


def evened(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of as many samples in all rows of a snapshot: of the least number that each layer's samples divide.

    A layer's counts grow with its samples, so those of the batch that a trace holds stand for others. Where all layers
    hold as many, nothing changes; integers stay integers. A table without samples is as it was.
    """
    if "samples" not in table or table["samples"].nunique() < 2:
        return table
    samples = table["samples"]
    own = samples.groupby(table["snapshot"]) if "snapshot" in table else samples.groupby(samples * 0)
    even = own.transform(lambda each: lcm(*each.unique()))
    grows = [row.column for row in ledger.rows() if row.adds_up != "most" and row.column in table]
    times = even // samples
    for name in grows:
        largest = table[name].max()
        if pd.api.types.is_integer_dtype(table[name]) and int(largest) * int(times.max()) >= EXACT:
            raise MachineError(
                f"{name}: must be below 2^63 for {even.max()} samples to be exact, is {largest} for fewer"
            )
    return table.assign(**table[grows].mul(times, axis=0), samples=even)


def fold(table: pd.DataFrame, keys: list[str], counts: Iterable[Count] | None = None) -> pd.DataFrame:
    """Rows of equal keys as one, in the order of their first: every count added up as its row of the ledger says.

    Runs, comparisons, reports and sweeps add up here and nowhere else. Of what a table has besides keys and counts
    nothing is left; ``counts`` are by default all. A sum with a part that is not known is not known: NaN. Where rows
    hold different numbers of samples, sums are of ``evened`` ones.
    """
    table = evened(table)
    groups = table.groupby(keys, sort=False)
    known = {row.column: row for row in (ledger.rows() if counts is None else counts)}
    counts = [known[column] for column in table.columns if column in known]
    _check_sums(table, [row.column for row in counts])
    folded = groups[[row.column for row in counts]].sum()
    for row in counts:
        if row.adds_up == "most":
            folded[row.column] = groups[row.column].max()
        if table[row.column].isna().any():
            folded[row.column] = folded[row.column].where(groups[row.column].count() == groups.size())
    return folded.reset_index()


def _check_sums(table: pd.DataFrame, columns: list[str]) -> None:
    """Sums of 64 bits would wrap around in silence; no sum of some rows is above that of all."""
    for name in columns:
        if pd.api.types.is_integer_dtype(table[name]) and len(table) * int(table[name].max() or 0) >= EXACT:
            _below_limit(name, sum(map(int, table[name])))


def _below_limit(name: str, whole: int | float) -> int | float:
    if isinstance(whole, int) and whole >= EXACT:
        raise MachineError(f"{name}: a sum must be below 2^63 to be exact, is {whole}")
    return whole


def _exact(record: Record) -> Record:
    """A record, if a table can hold its counts. Raises MachineError."""
    counts = {"cycles × multipliers": record.cycles * record.multipliers, **record.slots, **record.actions}
    for name, count in counts.items():
        if count >= EXACT:
            where = f"{record.machine}: {record.snapshot}/{record.layer}: {record.which}"
            raise MachineError(f"{where}: {name}: must be below 2^63 to be exact, is {count}")
    return record


def total(table: pd.DataFrame, *counts: Count) -> Any:
    """The sum of counts over all rows; None where one of them is not known. Raises MachineError beyond 2^63."""
    if table.empty:
        return 0
    whole = fold(table.assign(all=0), ["all"], counts)
    parts = [plain(whole[row.column].iloc[0]) for row in counts]
    known = [part for part in parts if part is not None]
    names = " + ".join(row.column for row in counts)
    return _below_limit(names, sum(known)) if len(known) == len(parts) else None


def slots_of(table: pd.DataFrame) -> int:
    """Multiplier slots of all rows: cycles × multipliers."""
    table = evened(table)
    return sum(int(cycles) * int(n) for cycles, n in zip(table[CYCLES.column], table["multipliers"], strict=True))


@dataclass(frozen=True)
class Summary:
    """The ratios of one run, one row per snapshot: each a list of {"snapshot", "sparsity", "fwd", …, "step"}.

    A pass that was not simulated, and a speedup that has nothing to compare with, is None.

    Parameters
    ----------
    machine, multipliers, baseline, baseline_multipliers
        The machine, and the one it is compared with, if any.
    layers : str
        What it is over: "convolutions", "linear layers", or both.
    speedup
        Over the first snapshot with sparsity 0, on the same machine, per sample. None where that snapshot has other
        layers.
    speedup_over_baseline
        Over the baseline machine, on the same snapshot.
    fewer_effectual
        Effectual multiplications at sparsity 0 over those of the snapshot. No bound on ``speedup``: a machine that
        wastes less of its time on the sparser snapshot gains more.
    per_multiplier
        Over a dense machine of as many multipliers, or as many as a bit-serial one is worth, that is always busy:
        ``gain`` × ``shape``. Empty, as the two, where the machine's dense self was not simulated.
    worth : int
        The multipliers of that dense machine.
    gain
        Over the machine's dense self, which multiplies the same layers without a zero: what sparsity buys.
    shape
        Of the dense self over the machine that is always busy: what sizes that do not fit, and waiting, cost.
    utilization
        Effectual multiplications over cycles × multipliers.
    cycles, baseline_cycles
        Counts.
    energy
        None where the machine has no energy table.
    overheads
        The share of the simulated passes' cycles that each overhead has.
    steps
        Of a series (``is_series``) the step of each snapshot, else empty. A series has no speedup over a snapshot.
    """

    machine: str
    multipliers: int
    baseline: str | None
    baseline_multipliers: int | None
    layers: str
    speedup: list[dict[str, Any]]
    speedup_over_baseline: list[dict[str, Any]]
    fewer_effectual: list[dict[str, Any]]
    per_multiplier: list[dict[str, Any]]
    worth: int
    gain: list[dict[str, Any]]
    shape: list[dict[str, Any]]
    utilization: list[dict[str, Any]]
    cycles: list[dict[str, Any]]
    baseline_cycles: list[dict[str, Any]]
    energy: Energy | None
    overheads: list[dict[str, Any]]
    steps: dict[str, int]


@dataclass(frozen=True)
class Energy:
    """The energy of one run: rows as those of ``Summary``, None where it is not known without a memory.

    Parameters
    ----------
    energy_pj
        Of all stored samples. ``compute_pj`` is that of computing alone, known without a memory too.
    saving
        How many times less than the first snapshot with sparsity 0, on the same machine, per sample.
    saving_over_baseline
        How many times less than the baseline machine, on the same snapshot.
    energy_delay_js
        Energy-delay product in J·s: of a sample's energy and a sample's time.
    components
        pJ of each component over all simulated passes: {"snapshot", "sparsity", "multipliers", …}.
    """

    energy_pj: list[dict[str, Any]]
    compute_pj: list[dict[str, Any]]
    saving: list[dict[str, Any]]
    saving_over_baseline: list[dict[str, Any]]
    energy_delay_js: list[dict[str, Any]]
    components: list[dict[str, Any]]


def summarize(
    table: pd.DataFrame,
    machine: str,
    baseline: str | None = None,
    *,
    dense: pd.DataFrame | None = None,
    worth: int | None = None,
) -> Summary:
    """The ratios of one machine, and over a baseline machine, from the rows of a table from ``frame``.

    Give it only the rows that are to count; ``convolutions`` picks those of the paper's Table 6. ``dense`` has the
    machine's rows of ``dense_selves``; ``worth`` is its ``baseline_multipliers``, by default its multipliers.
    """
    own, other = table[table["machine"] == machine], table[table["machine"] == baseline]
    cycles, effectual = _totals(own, CYCLES), _totals(own, EFFECTUAL)
    multipliers = int(own["multipliers"].iloc[0])
    slots = [row | {c: row[c] and row[c] * multipliers for c in COLUMNS} for row in cycles]
    kinds = {"conv": "convolutions", "linear": "linear layers", "matmul": "products of activations"}
    others = _totals(other, CYCLES)
    selves = [] if dense is None else _totals(dense[dense["machine"] == machine], CYCLES)
    products = _totals(own, DENSE) if selves else []
    busy = [row | {c: row[c] and row[c] / (worth or multipliers) for c in COLUMNS} for row in products]
    return Summary(
        machine=machine,
        multipliers=multipliers,
        baseline=baseline,
        baseline_multipliers=int(other["multipliers"].iloc[0]) if baseline else None,
        layers=" and ".join(kinds[kind] for kind in own["kind"].unique()),
        speedup=_gains(cycles, own),
        speedup_over_baseline=_ratios(others, cycles) if baseline else [],
        fewer_effectual=_gains(effectual, own),
        per_multiplier=_ratios(busy, cycles if busy else []),
        worth=worth or multipliers,
        gain=_ratios(selves, cycles if selves else []),
        shape=_ratios(busy, selves),
        utilization=_ratios(effectual, slots),
        cycles=cycles,
        baseline_cycles=others,
        energy=_energy(own, other, cycles) if own[_known()].notna().all(axis=None) else None,
        overheads=_overheads(own),
        steps=steps_of(own) if is_series(own) else {},
    )


def is_series(table: pd.DataFrame) -> bool:
    """Whether snapshots are one network at several steps, all of one sparsity: none is what others are faster than."""
    known = "step" in table and table["sparsity"].nunique() == 1
    return known and len(set(steps_of(table).values())) > 1


def steps_of(table: pd.DataFrame) -> dict[str, int]:
    """The step of each snapshot, in order of steps."""
    first = table.drop_duplicates("snapshot").sort_values("step", kind="stable")
    return dict(zip(first["snapshot"], map(int, first["step"]), strict=True))


def _energy(own: pd.DataFrame, other: pd.DataFrame, cycles: list[dict[str, Any]]) -> Energy:
    """What a machine's rows cost, and how much less that is than another's."""
    totals = _totals(own, ENERGY)
    computing = own.assign(**{ENERGY.column: own[_known()].sum(axis=1, skipna=False)})
    hertz = 1e6 * int(own["clock_mhz"].iloc[0])
    products = [
        {key: energy[key] for key in SNAPSHOT}
        | {
            c: None if energy[c] is None else energy[c] * 1e-12 * count[c] / hertz / energy["samples"] ** 2
            for c in COLUMNS
        }
        for energy, count in zip(totals, cycles, strict=True)
    ]
    return Energy(
        energy_pj=totals,
        compute_pj=_totals(computing, ENERGY),
        saving=_gains(totals, own),
        saving_over_baseline=_ratios(_totals(other, ENERGY), totals) if len(other) else [],
        energy_delay_js=products,
        components=[
            {"snapshot": row["snapshot"], "sparsity": float(row["sparsity"])}
            | {component.name: plain(row[component.column]) for component in ledger.rows("energy")}
            for _, row in fold(own, list(SNAPSHOT)).iterrows()
        ],
    )


def _known() -> list[str]:
    """The components whose energy is known without a memory too."""
    return ledger.columns("energy", needs_memory=False)


def _overheads(own: pd.DataFrame) -> list[dict[str, Any]]:
    """The share of the simulated passes' cycles in which PEs wait for each overhead, per snapshot."""
    rows = []
    groups: Any = own.groupby(list(SNAPSHOT), sort=False)
    for (snapshot, sparsity), group in groups:
        slots = slots_of(group)
        causes = ledger.rows("slots", source="overheads")
        shares = {cause.name: total(group, cause) / slots if slots else None for cause in causes}
        rows.append({"snapshot": snapshot, "sparsity": float(sparsity), **shares})
    return rows


def dense_selves(
    machines: Iterable[Machine],
    trace: Trace | SyntheticTrace,
    *,
    snapshots: str | Iterable[str] | None = None,
    **how: Any,
) -> pd.DataFrame:
    """The table of machines that multiply a trace's layers without a zero, snapshot by snapshot as the trace has them.

    ``how`` is as for ``simulate_records``. Snapshots of equal layers are simulated once.
    """
    full, names = filled(trace, snapshots)
    table = frame(simulate_records(machines, full, **how))
    return pd.concat(
        [
            table[table["snapshot"] == names[s.name]].assign(snapshot=s.name, sparsity=s.sparsity)
            for s in trace.snapshots
            if s.name in names
        ],
        ignore_index=True,
    )


def convolutions(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of convolutions, which the paper's Table 6 is over; all where there are none, or attention is."""
    rows = table[table["kind"] == "conv"]
    return table if rows.empty or (table["kind"] == "matmul").any() else rows


def covers(table: pd.DataFrame, trace: Trace | SyntheticTrace) -> bool:
    """Whether no convolution of the table's snapshots was left out: only then does the paper's Table 6 compare."""
    seen = set(zip(table["snapshot"], table["layer"], strict=True))
    names = set(table["snapshot"])
    wanted = (
        (s.name, layer.name) for s in trace.snapshots if s.name in names for layer in s.layers if layer.kind == "conv"
    )
    return all(layer in seen for layer in wanted)


def _totals(table: pd.DataFrame, count: Count) -> list[dict[str, Any]]:
    """Per snapshot the sums of a count by pass, and of the passes together; None for a pass that is not there."""
    rows = []
    groups: Any = table.groupby(list(SNAPSHOT), sort=False)
    for (snapshot, sparsity), group in groups:
        group = evened(group)
        sums = fold(group[["pass", count.column]], ["pass"]).set_index("pass")[count.column]
        row: dict[str, Any] = {which: plain(sums[which]) if which in sums else None for which in COLUMNS[:3]}
        for name, parts in SUMS.items():
            row[name] = None if any(row[part] is None for part in parts) else sum(row[part] for part in parts)
        samples = int(group["samples"].iloc[0])
        rows.append({"snapshot": snapshot, "sparsity": float(sparsity), "samples": samples, **row})
    return rows


def plain(number: Any) -> int | float | None:
    """A number of a table as Python's own; None for one that is not known."""
    return None if pd.isna(number) else number if isinstance(number, int | float) else number.item()


def _gains(rows: list[dict[str, Any]], table: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each snapshot over the first with sparsity 0, if that has the same layers, per sample. Of a series none."""
    layers = {name: set(group["layer"]) for name, group in table.groupby("snapshot")}
    dense = None if is_series(table) else next((row for row in rows if row["sparsity"] == 0), None)
    nothing = dict.fromkeys(COLUMNS, None) | {"samples": 1}
    references = [dense if dense and layers[dense["snapshot"]] == layers[row["snapshot"]] else nothing for row in rows]
    return _ratios(references, rows)


def _ratios(over: list[dict[str, Any]], under: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Row by row, column by column, per sample; None where a side is missing or nothing was done."""
    return [
        {key: b[key] for key in SNAPSHOT}
        | {c: a[c] * b["samples"] / (b[c] * a["samples"]) if a[c] is not None and b[c] else None for c in COLUMNS}
        for a, b in zip(over, under, strict=True)
    ]
