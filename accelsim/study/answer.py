"""What ``accelsim ask`` says: a comparison in sentences, for whom hardware is not the point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from accelsim import ledger
from accelsim.hardware.machine import Machine
from accelsim.ledger import CYCLES
from accelsim.study import guidance
from accelsim.study.compare import Comparison, records
from accelsim.study.describe import zeros_of
from accelsim.study.export import write_files
from accelsim.study.json_file import to_json
from accelsim.study.layout import new_table
from accelsim.study.results import fold
from accelsim.study.tables import HEADINGS as PASSES_IN_WORDS
from accelsim.study.tables import percent, times
from accelsim.workload.lowering import PASSES
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.trace import Snapshot, Trace

# The machine that is nobody's: every multiplication by zero skipped, no multiplier waiting.
ALL_SKIPPED = "ideal"


def facts(
    comparison: Comparison, trace: Trace | SyntheticTrace, machines: Iterable[Machine], snapshots: Iterable[str] | None
) -> dict[str, Any]:
    """The answer as plain data, snapshot by snapshot.

    ``zeros`` are shares of what is stored of each tensor; ``fewer`` says of each machine how many times fewer cycles a
    pass takes than on the same machine without a zero, and ``all_skipped`` the same of the machine that skips every
    zero and never waits. Each is by pass, "step" where all three ran, and None where a machine has no dense self.
    ``cycles`` are those of the samples stored, ``cycles_without_zeros`` what the dense self takes. The best machine for
    each multiplier comes first. ``not_counted`` says what of the network is in none of the figures.
    """
    words = {machine.name: machine.description for machine in machines}
    rows = records(comparison.rows)
    passes = list(comparison.contenders[0].skips)
    columns = [*passes, "step"] if len(passes) == 3 else passes
    found = []
    for snapshot in trace.snapshots:
        own = [row for row in rows if row["snapshot"] == snapshot.name]
        if own and (snapshots is None or snapshot.name in snapshots):
            counted = _cycles(comparison, snapshot.name)
            found.append(_of_snapshot(snapshot, own, words, columns, counted) | {"limit": None})
    return {
        "network": trace.network,
        "dataset": trace.dataset,
        "passes": passes,
        "layers": comparison.layers,
        "snapshots": found,
        "left_out": comparison.refused,
        "not_counted": list(_not_counted(comparison, trace)),
    }


def _cycles(comparison: Comparison, snapshot: str) -> dict[tuple[str, str], int]:
    """Of a snapshot, by machine and pass, and by machine and "step"."""
    own = comparison.records[comparison.records["snapshot"] == snapshot]
    found: dict[tuple[str, str], int] = {}
    for row in fold(own, ["machine", "pass"], [CYCLES]).to_dict("records"):
        for column in (row["pass"], "step"):
            key = row["machine"], column
            found[key] = found.get(key, 0) + int(row[CYCLES.column])
    return found


def _without(gain: float | None, cycles: int | None) -> int | None:
    """What the dense self takes."""
    return None if gain is None or cycles is None else round(gain * cycles)


def add_limits(
    answer: dict[str, Any],
    comparison: Comparison,
    trace: Trace | SyntheticTrace,
    machines: Iterable[Machine],
    **how: Any,
) -> None:
    """What limits the best machine of each snapshot, as ``guidance.report`` has it, pass by pass.

    ``how`` is as for ``guidance.guide``.
    """
    known = {machine.name: machine for machine in machines}
    for snapshot in answer["snapshots"]:
        if snapshot["machines"]:
            best = known[snapshot["machines"][0]["machine"]]
            found = guidance.guide(best, trace, comparison.records, snapshot=snapshot["name"], **how)
            whole = {advice.which: advice for advice in found.advice if advice.layer is None}
            told = {which: guidance.limit(advice) for which, advice in whole.items()}
            cycles = snapshot["machines"][0]["cycles"]
            most = max(whole, key=lambda which: cycles[which])
            if len(answer["passes"]) == len(PASSES):
                told["step"] = guidance.limit(whole[most], f" of {NAMES[most]}, where most of its cycles are,")
            snapshot["limit"] = guidance.report(found) | {"sentences": told}


def _not_counted(comparison: Comparison, trace: Trace | SyntheticTrace) -> Iterator[str]:
    """What is in none of the figures."""
    counted = set(comparison.records["layer"])
    names = set(comparison.records["snapshot"])
    work = {
        layer.name: layer.geometry.multiplications
        for snapshot in trace.snapshots
        if snapshot.name in names
        for layer in snapshot.layers
    }
    missing = [name for name in work if name not in counted]
    if missing:
        share = sum(work[name] for name in missing) / sum(work.values())
        what = missing[0] if len(missing) == 1 else f"{len(missing)} layers, {missing[0]} to {missing[-1]}"
        shown = percent(share) if share >= 0.0005 else "less than 0.1 %"
        yield f"{what}: {shown} of the multiplications read; the figures are over {comparison.layers}"
    yield "what does not multiply tensors by each other: normalisation, activation functions, pooling, the optimizer"
    without = [row.words for row in ledger.rows("slots", source="overheads")]
    yield f"what the machines' files leave out ({', '.join(without)}), unless they have overheads; docs/energy.md"


def _of_snapshot(
    snapshot: Snapshot,
    rows: list[dict[str, Any]],
    words: Mapping[str, str],
    columns: list[str],
    counted: Mapping[tuple[str, str], int],
) -> dict[str, Any]:
    machines = [
        {
            "machine": row["machine"],
            "description": words[row["machine"]],
            "multipliers": row["baseline_multipliers"],
            "fewer": {column: row[f"{column}_gain"] for column in columns},
            "cycles": (cycles := {column: counted.get((row["machine"], column)) for column in columns}),
            "cycles_without_zeros": {column: _without(row[f"{column}_gain"], cycles[column]) for column in columns},
            "per_multiplier": {column: row[f"{column}_speedup"] for column in columns},
        }
        for row in rows
    ]
    last = columns[-1]
    machines.sort(key=lambda machine: -(machine["per_multiplier"][last] or 0))
    everything = next((machine["fewer"] for machine in machines if machine["machine"] == ALL_SKIPPED), None)
    return {
        "name": snapshot.name,
        "sparsity": snapshot.sparsity,
        "zeros": zeros_of(snapshot),
        "all_skipped": everything,
        "machines": [machine for machine in machines if machine["machine"] != ALL_SKIPPED],
    }


# In words -----------------------------------------------------------------------------------------------------------


def sentences(answer: Mapping[str, Any]) -> Iterator[object]:
    """For a person: what the zeros are, what they buy on the best machine and on the others, and the limit."""
    columns = [*answer["passes"], "step"] if len(answer["passes"]) == 3 else answer["passes"]
    for snapshot in answer["snapshots"]:
        first, *others = about(answer, snapshot)
        yield Text(first, style="bold")
        yield from (Text(f"  {line}") for line in others)
        yield Text()
        name = f"{snapshot['name']}, " if len(answer["snapshots"]) > 1 else ""
        yield _table(snapshot, columns, f"{name}over {answer['layers']}")
    yield from map(Text, _meaning(answer["snapshots"][0]["machines"], columns))
    for machine, reason in answer["left_out"].items():
        yield Text(f"{machine} is left out: it cannot run this ({reason.removeprefix(f'{machine}: ')})")
    yield from (Text(line) for line in ("", "Not counted:"))
    yield from (Text(f"  {line}") for line in answer["not_counted"])


def about(answer: Mapping[str, Any], snapshot: Mapping[str, Any]) -> Iterator[str]:
    """What is said of a snapshot: its zeros; what they buy for inference and training, and what limits that."""
    columns = [*answer["passes"], "step"] if len(answer["passes"]) == len(PASSES) else answer["passes"]
    name = f", {snapshot['name']}" if len(answer["snapshots"]) > 1 else ""
    yield f"{answer['network']}{name}: {_zeros(snapshot['zeros'], columns)} are zeros."
    best = snapshot["machines"][0]
    for column in dict.fromkeys((columns[0], columns[-1])):
        yield _sentence(column, best, snapshot["all_skipped"])
        if snapshot["limit"] and column in snapshot["limit"]["sentences"]:  # a pass that costs nothing has none
            yield f"On {best['machine']} {snapshot['limit']['sentences'][column]}."


NAMES = {
    "fwd": "inference (the forward pass)",
    "input_grad": "the input gradient",
    "weight_grad": "the weight gradient",
    "step": "a training step",
}
HEADINGS = PASSES_IN_WORDS | {"fwd": "inference"}


def _zeros(zeros: Mapping[str, float | None], columns: list[str]) -> str:
    words = {"weight": "of the weights", "activation": "of the activations"}
    if columns != ["fwd"]:
        words["gradient"] = "of the output gradients"
    parts = [f"{percent(zeros[name])} {text}" for name, text in words.items() if zeros.get(name) is not None]
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def _sentence(column: str, best: Mapping[str, Any], everything: Mapping[str, float | None] | None) -> str:
    gain = best["fewer"][column]
    name = NAMES[column][0].upper() + NAMES[column][1:]
    if gain is None:
        return f"{name}: what {best['machine']} would take without the zeros could not be simulated."
    buys = f"takes {times(gain)} fewer cycles" if gain >= 1.005 else "takes no fewer cycles"
    text = f"{name} {buys} on {best['machine']} than on the same machine without a zero"
    if best["cycles_without_zeros"][column] is not None:
        text += f" ({best['cycles'][column]:,} instead of {best['cycles_without_zeros'][column]:,})"
    if everything and everything[column]:
        skipped = times(everything[column])
        return f"{text}; if every multiplication by zero were skipped and no multiplier waited, {skipped}."
    return f"{text}."


def _table(snapshot: Mapping[str, Any], columns: list[str], over: str) -> object:
    table = new_table(f"Times fewer cycles than without a zero, {over}")
    table.add_column("machine", no_wrap=True)
    for column in columns:
        table.add_column(HEADINGS[column], justify="right")
    table.add_column("for each\nmultiplier", justify="right")
    for machine in snapshot["machines"]:
        shown = [times(machine["fewer"][column]) for column in columns]
        table.add_row(machine["machine"], *shown, times(machine["per_multiplier"][columns[-1]]))
    if snapshot["all_skipped"]:
        table.add_section()
        table.add_row("all skipped", *(times(snapshot["all_skipped"][column]) for column in columns), "")
    return table


def _meaning(machines: Iterable[Mapping[str, Any]], columns: list[str]) -> Iterator[str]:
    what = HEADINGS[columns[-1]].replace("\n", " ")
    yield (
        f"for each multiplier: {what}, over as many multipliers that multiply zeros too and never wait; below 1 the "
        "machine's shape costs more than the zeros buy"
    )
    for machine in machines:
        yield f"{machine['machine']}: {machine['description']}"


def write(folder: Path, comparison: Comparison, data: dict[str, Any], text: str) -> None:
    """Writes answer.json, machines.csv, machines.parquet and summary.txt into a folder, all or none.

    Raises
    ------
    OutputError
        If the folder cannot be written, or the disk is full.
    """
    documents = {"answer.json": to_json(data), "summary.txt": text}
    write_files(folder, "machines", comparison.rows, data["provenance"], documents)
