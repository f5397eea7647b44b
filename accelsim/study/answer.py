"""What ``accelsim ask`` says: a comparison in sentences, for whom hardware is not the point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.text import Text

from accelsim.hardware.machine import Machine
from accelsim.study.compare import Comparison, records
from accelsim.study.describe import zeros_of
from accelsim.study.layout import new_table
from accelsim.study.tables import HEADINGS as PASSES_IN_WORDS
from accelsim.study.tables import percent, times
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
    The best machine for each multiplier comes first.
    """
    words = {machine.name: machine.description for machine in machines}
    rows = records(comparison.rows)
    passes = list(comparison.contenders[0].skips)
    columns = [*passes, "step"] if len(passes) == 3 else passes
    found = []
    for snapshot in trace.snapshots:
        own = [row for row in rows if row["snapshot"] == snapshot.name]
        if own and (snapshots is None or snapshot.name in snapshots):
            found.append(_of_snapshot(snapshot, own, words, columns))
    return {
        "network": trace.network,
        "dataset": trace.dataset,
        "passes": passes,
        "layers": comparison.layers,
        "snapshots": found,
        "left_out": comparison.refused,
    }


def _of_snapshot(
    snapshot: Snapshot, rows: list[dict[str, Any]], words: Mapping[str, str], columns: list[str]
) -> dict[str, Any]:
    machines = [
        {
            "machine": row["machine"],
            "description": words[row["machine"]],
            "multipliers": row["baseline_multipliers"],
            "fewer": {column: row[f"{column}_gain"] for column in columns},
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
        name = f", {snapshot['name']}" if len(answer["snapshots"]) > 1 else ""
        yield Text(f"{answer['network']}{name}: {_zeros(snapshot['zeros'], columns)} are zeros.", style="bold")
        best = snapshot["machines"][0]
        for column in dict.fromkeys((columns[0], columns[-1])):
            yield Text("  " + _sentence(column, best, snapshot["all_skipped"]))
        yield Text()
        yield _table(snapshot, columns, f"{name.removeprefix(', ')}, over {answer['layers']}".removeprefix(", "))
    yield from map(Text, _meaning(answer["snapshots"][0]["machines"], columns))
    for machine, reason in answer["left_out"].items():
        yield Text(f"{machine} is left out: it cannot run this ({reason.removeprefix(f'{machine}: ')})")


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
