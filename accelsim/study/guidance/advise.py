"""Simulates the layers that matter on the machine as it is and as it may be changed, and picks what helps most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import pandas as pd

from accelsim import ledger
from accelsim.ledger import CYCLES, EFFECTUAL
from accelsim.pipeline import Task, simulate_records
from accelsim.study.guidance.changes import SHARE, Change, changes
from accelsim.study.results import evened, fold, frame
from accelsim.workload.lowering import lower
from accelsim.workload.shares import of_pass

if TYPE_CHECKING:
    from accelsim.hardware.accelerators.base import Unused
    from accelsim.hardware.machine import Machine
    from accelsim.workload.synthetic import SyntheticTrace
    from accelsim.workload.trace import Trace

LAYERS = 5  # of each pass that changes are tried on
WORTH = 1.05  # times fewer, from which a change is told


@dataclass(frozen=True)
class WhatIf:
    """A changed machine on the same layers.

    Parameters
    ----------
    change : str
        In words.
    settings : dict
        Values of keys by path, as ``--set`` takes them.
    cycles, multipliers : int
        Its own.
    fewer_cycles : float
        How many times fewer cycles it takes.
    fewer_slots : float
        How many times fewer cycles × multipliers: fewer cycles for each multiplier, so that size alone gains nothing.
    cause_share : float
        What is left of the cause that is told: its share of the slots.
    """

    change: str
    settings: dict[str, Any]
    cycles: int
    multipliers: int
    fewer_cycles: float
    fewer_slots: float
    cause_share: float


@dataclass(frozen=True)
class Advice:
    """What limits a pass of a layer, or of all of them, and the changes that help most.

    Parameters
    ----------
    snapshot, which : str
    layer : str or None
        None: all layers of the pass; then changes were tried on ``tried_on`` of them.
    cycles_share : float
        Of the pass's cycles, those of the layer; of the whole, those of the layers that changes were tried on: the
        ones told, or where the pass waits for memories all.
    cause : str
        The largest loss, by its name in the ledger.
    cause_share : float
        Its share of the slots.
    shares : dict
        Of every cause, by name; effectual work is one.
    idle : str
        Which units the layer leaves without work, "" where the machine does not tell.
    cycles, multipliers : int
        Of the machine as it is, over the layers that changes were tried on.
    tried, tried_on : int
        How many changes, on how many layers.
    best : WhatIf or None
        The change with the fewest cycles × multipliers; None where none takes ``WORTH`` times fewer.
    same_size : WhatIf or None
        The change with the fewest cycles that needs no more multipliers, where it is another one.
    """

    snapshot: str
    which: str
    layer: str | None
    cycles_share: float
    cause: str
    cause_share: float
    shares: dict[str, float]
    idle: str
    cycles: int
    multipliers: int
    tried: int
    tried_on: int
    best: WhatIf | None
    same_size: WhatIf | None


@dataclass(frozen=True)
class Guidance:
    """All advice on one machine; passes in order, of each the whole first, then its layers by their cycles."""

    machine: str
    snapshot: str
    layers: int
    advice: list[Advice]


def guide(
    machine: Machine,
    trace: Trace | SyntheticTrace,
    table: pd.DataFrame,
    *,
    snapshot: str | None = None,
    most: int = LAYERS,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Guidance:
    """Tries changes on the layers with most cycles of a snapshot, pass by pass.

    Parameters
    ----------
    machine : Machine
    trace : Trace
        What the table was simulated from.
    table : DataFrame
        From ``results.frame``; rows of other machines don't count.
    snapshot : str, optional
        By default the sparsest of the table.
    most : int
        Layers of each pass.
    jobs : int
    progress : callable
        Called with layers done and layers in all, pass by pass.

    Raises
    ------
    AccelsimError
        As ``simulate_records``. A changed machine that cannot run a layer is left out.
    """
    own = table[table["machine"] == machine.name]
    name = snapshot or str(own["snapshot"].iloc[int(own["sparsity"].to_numpy().argmax())])
    own = own[(own["snapshot"] == name) & (own[CYCLES.column] > 0)]
    advice: list[Advice] = []
    by_pass: Any = evened(own).groupby("pass", sort=False)
    for which, rows in by_pass:
        cycles = rows.set_index("layer")[CYCLES.column].sort_values(ascending=False, kind="stable")
        share = cycles / cycles.sum()
        chosen = list(cycles.index[:most])
        whole, of_layer = _sums(rows, "pass")[which], _sums(rows, "layer")
        simulated = list(rows["layer"]) if _waits(whole) else chosen
        tried = changes(machine, _most(_shares(account) for account in [whole, *(of_layer[layer] for layer in chosen)]))
        counted = _simulated(machine, tried, trace, name, which, simulated, jobs, progress)
        advice.append(_advice(name, which, None, float(share[simulated].sum()), whole, counted, tried, ""))
        for layer in chosen:
            idle, rows_of = _idle(machine, trace, name, layer, which), counted[counted["layer"] == layer]
            advice.append(_advice(name, which, layer, float(share[layer]), of_layer[layer], rows_of, tried, idle))
    return Guidance(machine.name, name, most, advice)


def _simulated(
    machine: Machine, tried: list[Change], trace: Trace | SyntheticTrace, snapshot: str, which: str,
    layers: Iterable[str], jobs: int, progress: Callable[[int, int], None],
) -> pd.DataFrame:  # fmt: skip
    """The chosen layers on the machine, "", and with each change, "0", "1", …; without changes that cannot run them."""
    numbered = {"": machine} | {str(number): change.machine for number, change in enumerate(tried)}
    machines = [each.model_copy(update={"name": f"{number}."}) for number, each in numbered.items()]
    refused: dict[str, str] = {}
    names = [_exactly(layer) for layer in layers]
    records = simulate_records(
        machines, trace, passes=which, layers=names, snapshots=snapshot, jobs=jobs, progress=progress, refused=refused
    )
    table = frame(records)
    table["machine"] = table["machine"].str.removesuffix(".")
    return table[~table["machine"].isin([name.removesuffix(".") for name in refused])]


def _exactly(name: str) -> str:
    """A shell pattern that this name alone matches."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _sums(rows: pd.DataFrame, key: str) -> dict[str, dict[str, Any]]:
    """Counts of all layers together, by the value of a column."""
    records: list[dict[str, Any]] = fold(rows, [key, "multipliers"]).to_dict("records")  # type: ignore[assignment]
    return {row[key]: row for row in records}


def _shares(row: dict[str, Any]) -> dict[str, float]:
    """Of the slots, by cause that has any."""
    slots = int(row[CYCLES.column]) * int(row["multipliers"])
    return {cause.name: row[cause.column] / slots for cause in ledger.rows("slots") if row[cause.column]}


def _waits(row: dict[str, Any]) -> bool:
    """Whether a pass waits for memories: what a layer finds there others left, so that none is simulated alone."""
    waiting = {cause.name for cause in ledger.rows("slots", source="movement")}
    return sum(share for name, share in _shares(row).items() if name in waiting) >= SHARE


def _most(accounts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Of each cause the largest share that any account has."""
    largest: dict[str, float] = {}
    for name, share in chain.from_iterable(account.items() for account in accounts):
        largest[name] = max(share, largest.get(name, 0.0))
    return largest


def _advice(
    snapshot: str, which: str, layer: str | None, cycles_share: float, account: dict[str, Any], counted: pd.DataFrame,
    tried: list[Change], idle: str,
) -> Advice:  # fmt: skip
    """``account`` has the counts of the run, ``counted`` the rows of what was tried."""
    shares = _shares(account)
    lost = {name: share for name, share in shares.items() if name != EFFECTUAL.name}
    cause = max(lost, key=lambda name: lost[name]) if lost else ""
    sums = _sums(counted, "machine")
    base = sums.pop("")
    cycles, multipliers = int(base[CYCLES.column]), int(base["multipliers"])
    found = [_what_if(tried[int(number)], row, cycles, multipliers, cause) for number, row in sums.items()]
    best, same = _best(found, multipliers)
    return Advice(
        snapshot, which, layer, cycles_share, cause, lost.get(cause, 0.0), shares, idle if cause == "edge" else "",
        cycles, multipliers, len(found), counted["layer"].nunique(), best, same,
    )  # fmt: skip


def _what_if(change: Change, row: dict[str, Any], cycles: int, multipliers: int, cause: str) -> WhatIf:
    own, many = int(row[CYCLES.column]), int(row["multipliers"])
    fewer = cycles / own
    share = _shares(row).get(cause, 0.0)
    return WhatIf(str(change), change.settings, own, many, fewer, fewer * multipliers / many, share)


def _best(found: list[WhatIf], multipliers: int) -> tuple[WhatIf | None, WhatIf | None]:
    """The fewest cycles for each multiplier; of those about as good the fewest cycles. And those of no larger size."""
    worth = [each for each in found if each.fewer_slots >= WORTH]
    most = max((each.fewer_slots for each in worth), default=0.0)
    good = [each for each in worth if each.fewer_slots * WORTH >= most]
    best = max(good, key=lambda each: (each.fewer_cycles, each.fewer_slots), default=None)
    small = [each for each in found if each.multipliers <= multipliers and each.fewer_cycles >= WORTH]
    same = max(small, key=lambda each: (each.fewer_cycles, each.fewer_slots), default=None)
    return best, same if same != best else None


def _idle(machine: Machine, trace: Trace | SyntheticTrace, snapshot: str, name: str, which: str) -> str:
    """Which units a layer leaves without work, of the machine's own account."""
    of = next(each for each in trace.snapshots if each.name == snapshot)
    layer = next(layer for layer in of.layers if layer.name == name)
    worst = max(_unused(machine, Task(of, layer, 0, (which,))), key=lambda idle: idle.share, default=None)
    return str(worst) if worst else ""


def _unused(machine: Machine, task: Task) -> Iterator[Unused]:
    layer = replace(task.layer, tensors={tensor: task.layer.tensor(tensor) for tensor in task.reads})
    (which,) = task.passes
    for conv in lower(of_pass(layer, which), which, strided=machine.accelerator.strided_input_grad):
        if (idle := machine.accelerator.unused(conv)) is not None:
            yield idle
