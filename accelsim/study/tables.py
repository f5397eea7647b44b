"""Summaries as text: the form of the paper's Table 6, then what it leaves out. All rich tables are made here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from accelsim import ledger
from accelsim.ledger import Count
from accelsim.study.describe import zeros_of
from accelsim.study.layout import new_table
from accelsim.study.results import COLUMNS, Energy, Summary, evened, fold, slots_of
from accelsim.workload.coverage import coverage_text, is_enough
from accelsim.workload.metadata import TENSORS
from accelsim.workload.trace import Snapshot

if TYPE_CHECKING:
    from accelsim.workload.synthetic import SyntheticTrace
    from accelsim.workload.trace import Trace

HEADINGS = {
    "fwd": "forward",
    "input_grad": "input\ngradient",
    "weight_grad": "weight\ngradient",
    "backward": "backward\n(both)",
    "step": "training\nstep",
}
NOTHING = "–"
# Streams of a weight gradient of so many places tell what those of a batch do: 32 samples of a map of 7 × 7.
PLACES = 1568
FEWER = "times fewer effectual multiplications than at Top-K 0 %"
FILLED = 0.01  # of all weights: so many zeros fewer than a checkpoint had are told


def summary(
    chosen: Summary,
    everything: Summary,
    table: pd.DataFrame,
    paper: list[dict[str, Any]],
    *,
    full: bool = True,
    explain: bool = False,
) -> Iterator[Table | Text]:
    """All that ``accelsim run`` prints: ``chosen`` is over convolutions, ``everything`` with linear layers too."""
    if chosen.steps:
        yield from series_table(chosen)
    else:
        yield from speedup_table(chosen, paper)
    if full:
        yield Text()
        if not chosen.steps:
            yield comparison_table(chosen)
        yield from size_note(chosen)
        yield from linear_note(chosen, everything)
        yield from energy_tables(chosen)
        yield from overhead_note(chosen)
    if explain:
        yield Text()
        yield from slot_tables(table, chosen.machine)
        yield from cause_notes(table, chosen.machine)


def speedup_table(chosen: Summary, papers: list[dict[str, Any]]) -> Iterator[Table | Text]:
    """The paper's Table 6: a row per Top-K sparsity, the paper's figure beside ours where it has one."""
    table = new_table(f"Speedup on {chosen.machine} against Top-K 0 % on the same machine, over {chosen.layers}")
    table.add_column("Top-K\nsparsity", no_wrap=True)
    for column in COLUMNS:
        table.add_column(HEADINGS[column], justify="right")
        if any(column in paper for paper in papers):
            table.add_column("the\npaper", justify="right", style="dim")
    for row, paper in zip(chosen.speedup, papers, strict=True):
        cells = []
        for column in COLUMNS:
            cells.append(times(row[column]))
            if any(column in other for other in papers):
                cells.append(f"{paper[column]:g}×" if column in paper else NOTHING)
        table.add_row(_label(row), *cells)
    yield table
    if any(papers):
        yield Text(
            'the paper: Table 6 of "Sparse Weight Activation Training", whose backward pass is the input gradient'
        )
    if all(row[column] is None for row in chosen.speedup for column in COLUMNS):
        yield Text("no speedup: no snapshot with Top-K sparsity 0 % and the same layers was simulated")


def series_table(chosen: Summary) -> Iterator[Table | Text]:
    """Snapshots of one network at several steps, in their order."""
    table = new_table(f"{chosen.machine} over {len(chosen.steps)} steps of a run, over {chosen.layers}")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(HEADINGS[column], justify="right")
    whole = asdict(chosen)
    over = (f"speedup over {chosen.baseline}", whole["speedup_over_baseline"])
    for words, rows in [over, *factors(whole)]:
        _steps(table, words, rows, times, chosen.steps)
    _steps(table, f"utilization of {chosen.multipliers:,} multipliers", chosen.utilization, percent, chosen.steps)
    _steps(table, "cycles a sample", _per_sample(chosen.cycles, 1), short, chosen.steps)
    yield table
    first, *_, last = series(whole)
    column = [column for column in COLUMNS if last[column] is not None][-1]
    if chosen.gain and first[column] is not None:
        ends = " and ".join(f"{times(row[column])} at step {row['at']:,}" for row in (first, last))
        yield Text(f"What zeros buy, {HEADINGS[column]}: {ends}".replace("\n", " "))
    yield Text("no speedup over a snapshot: all are of one sparsity, at different steps")


def series(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What zeros buy ``at`` each step of a series, or where that is not known cycles a sample; in order of steps."""
    steps = summary["steps"]
    rows = summary["gain"] or _per_sample(summary["cycles"], 1)
    return sorted((row | {"at": steps[row["snapshot"]]} for row in rows), key=lambda row: row["at"])


def _steps(
    table: Table, words: str, rows: list[dict[str, Any]], show: Callable[[Any], str], steps: Mapping[str, int]
) -> None:
    """A section with a row a step."""
    if rows:
        table.add_row(Text(words, style="italic"))
        for row in sorted(rows, key=lambda row: steps[row["snapshot"]]):
            label = f"  step {steps[row['snapshot']]:,} ({row['snapshot']})"
            table.add_row(label, *(show(row[c]) for c in COLUMNS))
        table.add_section()


def comparison_table(chosen: Summary) -> Table:
    """Below Table 6: against the dense baseline, against itself without zeros, effectual work, utilization, cycles."""
    table = new_table(f"What it is made of, over {chosen.layers}")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(HEADINGS[column], justify="right")
    if chosen.baseline:
        over = f"speedup over {chosen.baseline}, {chosen.baseline_multipliers:,} multipliers"
        _section(table, over, chosen.speedup_over_baseline, times)
    for words, rows in factors(asdict(chosen)):
        _section(table, words, rows, times)
    _section(table, FEWER, chosen.fewer_effectual, times)
    _section(table, f"utilization of {chosen.multipliers:,} multipliers", chosen.utilization, percent)
    _section(table, "cycles", chosen.cycles, count)
    return table


def factors(summary: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Speedup multiplier for multiplier and its two factors, in words; none without dense selves."""
    named = (
        ("speedup over as many multipliers, always busy: gain × shape", "per_multiplier"),
        ("gain over its dense self: what sparsity buys", "gain"),
        ("shape: its dense self over multipliers always busy", "shape"),
    )
    return [(words, summary[key]) for words, key in named if summary.get(key)]


def self_note(refused: Mapping[str, str]) -> Iterator[Text]:
    """Why a machine has no gain and shape: without zeros its tensors may be larger than what it can hold."""
    for machine, reason in refused.items():
        yield Text(f"no gain and shape of {machine}: without zeros it cannot run the trace ({reason})")


def size_note(chosen: Summary) -> Iterator[Text]:
    """That a baseline has another number of multipliers, and what is left of the speedup by each."""
    ours, theirs = chosen.multipliers, chosen.baseline_multipliers
    if not theirs or ours == theirs:
        return
    yield Text(f"{chosen.baseline} has {theirs:,} multipliers, {chosen.machine} {ours:,}. Over it, per multiplier:")
    for row in chosen.speedup_over_baseline:
        scaled = {c: row[c] and row[c] * theirs / ours for c in COLUMNS}
        parts = [f"{HEADINGS[c]} {times(scaled[c])}".replace("\n", " ") for c in COLUMNS if scaled[c] is not None]
        yield Text(f"  {_label(row)}: {', '.join(parts)}")


def linear_note(chosen: Summary, everything: Summary) -> Iterator[Text]:
    """What the linear layers add to the convolutions."""
    if everything.cycles == chosen.cycles:
        return
    yield Text("With the linear layers as well:")
    for row, without, both in zip(everything.speedup, chosen.cycles, everything.cycles, strict=True):
        last = next(c for c in reversed(COLUMNS) if both[c] is not None)
        share = 1 - without[last] * both["samples"] / (both[last] * without["samples"]) if both[last] else None
        parts = [f"{percent(share)} of the cycles are theirs"]
        parts += [f"{HEADINGS[c]} {times(row[c])}".replace("\n", " ") for c in COLUMNS if row[c] is not None]
        yield Text(f"  {_label(row)}: {', '.join(parts)}")


def samples_note(table: pd.DataFrame, trace: Trace | SyntheticTrace) -> Iterator[Text]:
    """Where layers store different numbers of samples, or parts of their places: of how many totals are."""
    even = evened(table)
    parts = {s.name for s in trace.snapshots if any(layer.part for layer in s.layers)}
    for snapshot, rows in table.groupby("snapshot", sort=False):
        few, most, of_all = rows["samples"].min(), rows["samples"].max(), even.loc[rows.index, "samples"].iloc[0]
        if str(snapshot) in parts:
            yield Text(
                f"{snapshot!s}: counts of a part of a layer's places are scaled to whole samples, of each pass by the "
                f"places that it has: layers' are of {few:,} to {most:,}, totals of {of_all:,} samples."
            )
        elif few < most:
            yield Text(
                f"{snapshot!s}: layers store {few:,} to {most:,} samples of a batch of {rows['batch'].iloc[0]:,}; "
                f"totals are of {of_all:,}, each layer's counts times {of_all:,} / its samples."
            )


def places_note(table: pd.DataFrame, trace: Trace | SyntheticTrace) -> Iterator[Text]:
    """Which weight gradients sum over fewer places than those of a batch would, where that distorts what they gain."""
    ran = table[(table["pass"] == "weight_grad") & (table["kind"] == "conv")]
    names = set(zip(ran["snapshot"], ran["layer"], strict=True))
    layers = [layer for s in trace.snapshots for layer in s.layers if (s.name, layer.name) in names]
    places = [layer.samples * prod(layer.geometry.output) for layer in layers]
    few = [
        (n, f"{layer.samples:,} of {layer.batch:,}")
        for n, layer in zip(places, layers, strict=True)
        if n < PLACES and (layer.samples < layer.batch or layer.part)
    ]
    if few:
        least, stored = min(few)
        yield Text()
        yield Text(
            f"{len(few):,} of {len(layers):,} weight gradients are sums over fewer than {PLACES:,} places, "
            f"{least:,} at least: {stored} samples are stored. What machines gain there is not what they gain over the "
            "batch."
        )


def energy_tables(chosen: Summary) -> Iterator[Table | Text]:
    """Energy by pass, and what it goes to; without a memory only that of computing is known."""
    if not chosen.energy:
        return
    known = any(row[column] is not None for row in chosen.energy.energy_pj for column in COLUMNS)
    table = new_table(f"Energy, over {chosen.layers}" if known else f"Energy of computing alone, over {chosen.layers}")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(HEADINGS[column], justify="right")
    if known:
        if not chosen.steps:
            _section(table, "times less than at Top-K 0 %", chosen.energy.saving, times)
        if chosen.baseline:
            _section(table, f"times less than {chosen.baseline}", chosen.energy.saving_over_baseline, times)
    totals = chosen.energy.energy_pj if known else chosen.energy.compute_pj
    _section(table, "mJ a sample", _per_sample(totals, 1e-9), short)
    if known:
        products = [row | {c: row[c] and 1e6 * row[c] for c in COLUMNS} for row in chosen.energy.energy_delay_js]
        _section(table, "energy-delay product a sample, µJ·s", products, short)
    yield Text()
    yield table
    if not known:
        yield Text("without a memory it is not known what moves: no energy of buffers and memories, and no total")
    yield Text()
    yield component_table(chosen.energy, chosen.layers)


def component_table(energy: Energy, layers: str) -> Table:
    """The share of each component in the energy that is known."""
    table = new_table(f"Where the energy goes, all simulated passes, over {layers}")
    table.add_column("component")
    parts = [part for part in ledger.rows("energy") if any(row[part.name] for row in energy.components)]
    cells: dict[str, list[str]] = {part.words: [] for part in parts}
    for row in energy.components:
        table.add_column(_label(row), justify="right")
        total = sum(row[part.name] or 0 for part in parts)
        for part in parts:
            known = row[part.name]
            cells[part.words].append(percent(known / total if total and known is not None else None))
    for words, shares in cells.items():
        table.add_row(words, *shares)
    return table


def overhead_note(chosen: Summary) -> Iterator[Text]:
    """What the transformations that the paper leaves out take, where the machine charges them."""
    known = ledger.rows("slots", source="overheads")
    causes = [cause for cause in known if any(row[cause.name] for row in chosen.overheads)]
    if not causes:
        return
    yield Text(f"Share of the cycles, all simulated passes, over {chosen.layers}, in which nothing is multiplied:")
    for row in chosen.overheads:
        parts = [f"{cause.words.replace(' ', '-')} {100 * (row[cause.name] or 0):.2g} %" for cause in causes]
        together = sum(row[cause.name] or 0 for cause in causes)
        yield Text(f"  {_label(row)}: {', '.join(parts)}; together {100 * together:.2g} %")


def slot_tables(table: pd.DataFrame, machine: str) -> Iterator[Table]:
    """Where every multiplier slot went, by snapshot and pass; the parts add up to cycles × multipliers exactly."""
    rows = evened(table[table["machine"] == machine])
    causes = _causes(rows)
    for snapshot, of_snapshot in rows.groupby("snapshot", sort=False):
        shown = new_table(
            f"Where the multiplier slots of {machine} went, snapshot {snapshot}, over all simulated layers"
        )
        shown.add_column("cause")
        cells = []
        for which, group in of_snapshot.groupby("pass", sort=False):
            shown.add_column(HEADINGS[str(which)], justify="right")
            shown.add_column("", justify="right", style="dim")
            (folded,) = fold(group, ["pass"]).to_dict("records")
            counts, total = [folded[cause.column] for cause in causes], slots_of(group)
            cells.append([(count(n), percent(n / total if total else None)) for n in [*counts, total]])
        for name, *parts in zip([cause.words for cause in causes], *cells, strict=False):
            shown.add_row(name, *chain.from_iterable(parts))
        shown.add_section()
        shown.add_row("cycles × multipliers", *chain.from_iterable(column[-1] for column in cells))
        yield shown


def cause_notes(table: pd.DataFrame, machine: str) -> Iterator[Text]:
    """What the causes in ``slot_table`` mean."""
    for cause in _causes(table[table["machine"] == machine]):
        yield Text(f"  {cause.words}: {cause.meaning}")


def _causes(rows: pd.DataFrame) -> list[Count]:
    """What slots of these rows went to."""
    return [cause for cause in ledger.rows("slots") if rows[cause.column].any()]


def coverage_notes(snapshots: Iterable[Snapshot], names: Iterable[str] | None = None) -> Iterator[Text]:
    """What share of the step each snapshot holds, where somebody counted; in red where too little."""
    for snapshot in snapshots:
        text = coverage_text(snapshot)
        if text and (names is None or snapshot.name in names):
            yield Text(f"{snapshot.name}: {text}", style="" if is_enough(snapshot) else "red")


def capture_tables(history: list[Any], trace: Trace, is_frozen: bool) -> Iterator[Table | Text]:
    """What ``accelsim capture`` recorded: each snapshot with the zeros that the trace has of it."""
    table = new_table(f"{trace.path}: {len(trace.snapshots)} recorded; zeros are the trace's")
    table.add_column("snapshot")
    of = ("zeros of\nweights", "of acti-\nvations", "of saved\nactivations", "of\ngradients")
    for heading in ("Top-K", "step", "loss", "accuracy", *of, "s/step"):
        table.add_column(heading, justify="right")
    recorded = {run.snapshot: run for run in history if run.recorded}
    filled = []
    for snapshot in trace.snapshots:
        run, zeros = recorded[snapshot.name], zeros_of(snapshot)
        numbers = f"{100 * run.sparsity:g} %", str(run.step), f"{run.loss:.3f}", percent(run.accuracy)
        shown = (percent(zeros[name]) for name in TENSORS if name != "backward_weight")
        table.add_row(snapshot.name, *numbers, *shown, f"{run.seconds:.2f}")
        if run.zeros_before - (zeros["weight"] or 0.0) > FILLED:
            filled.append((run, zeros["weight"]))
    yield table
    for file, lines in trace.provenance.get("checkpoints", {}).items():
        for line in lines:
            yield Text(f"{file}: {line}")
    if is_frozen:
        yield Text("the weights were not updated; a --learning-rate, or --no-frozen, trains them")
    for run, left in filled:
        words = f"{run.weights} came with {percent(run.zeros_before)} zeros among its weights, {run.snapshot} has"
        how = "training filled them" if not is_frozen else "the model multiplies by others"
        yield Text(f"{words} {percent(left)}: {how}", style="red")
    if any(run.images_skipped for run in history):
        yield Text(f"{history[-1].images_skipped} images did not open and were skipped")


def _section(table: Table, name: str, rows: list[dict[str, Any]], show: Callable[[Any], str]) -> None:
    table.add_row(Text(name, style="italic"))
    for row in rows:
        table.add_row(f"  {_label(row)}", *(show(row[c]) for c in COLUMNS))
    table.add_section()


def _per_sample(rows: list[dict[str, Any]], scale: float) -> list[dict[str, Any]]:
    return [row | {c: row[c] and row[c] * scale / row["samples"] for c in COLUMNS} for row in rows]


def _label(row: Mapping[str, Any]) -> str:
    return f"{100 * row['sparsity']:g} % ({row['snapshot']})"


def times(value: float | None) -> str:
    """A ratio."""
    return NOTHING if value is None else f"{value:.2f}×" if value >= 0.095 or not value else f"{value:.2g}×"


def percent(value: float | None) -> str:
    """A share."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def short(value: float | None) -> str:
    """Three digits, and no exponent where there are more before the point."""
    return NOTHING if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def count(value: int | None) -> str:
    """An integer."""
    return NOTHING if value is None else f"{value:,}"
