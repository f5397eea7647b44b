"""Which algorithm on which accelerator: trained runs, what their traces say they are, and what they cost.

Training is ``accelsim.capture.comparison``'s; here are its traces and series, simulated. The paper's Table 1 says which
algorithms have which passes sparse: here the traces do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from accelsim.hardware.machine import Machine
from accelsim.ledger import CYCLES, DENSE, EFFECTUAL, ENERGY
from accelsim.pipeline import simulate_records
from accelsim.study.over_time import OverTime, densities_of, runs_of
from accelsim.study.reproduction.algorithms_found import Cost, Found, Run, Traits
from accelsim.study.results import evened, frame
from accelsim.workload.series import Series
from accelsim.workload.trace import Snapshot, Trace

SPARSER = 0.9  # of what the dense run has: below that a pass's operand is sparse by the algorithm
GROWS = 0.25  # from the first recorded step to the last: then it is gradual
MOVES = 0.2  # of a layer's density over the mean one: by more than that between two steps, it is not fixed
GAINS = 0.01  # of a layer's weights: it has more by that than at first while the network has not, so others gave them
COUNTS_ON = "ideal"  # any machine's records have the effectual multiplications; this one takes every trace


class Trained(Protocol):
    """A training of ``accelsim.capture.comparison``."""

    @property
    def label(self) -> str: ...

    @property
    def algorithm(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def sparsity(self) -> float: ...

    @property
    def seed(self) -> int: ...

    @property
    def accuracy(self) -> dict[int, float]: ...


def measure(
    folder: Path, trained: Iterable[Trained], machines: list[Machine], tell: Callable[[int, int], None]
) -> Found:
    """Simulates every run's recorded steps on every machine, and fills in the others.

    Parameters
    ----------
    folder : Path
        With LABEL.npz and LABEL.series of each.
    trained : iterable of Trained
    machines : list of Machine
    tell : callable
        Told of runs done and runs in all.

    Raises
    ------
    AccelsimError
        If no machine takes a trace.
    """
    labels: dict[str, list[Trained]] = {}
    for one in trained:
        labels.setdefault(one.label, []).append(one)
    refused, runs = dict[str, str](), list[Run]()
    natural: dict[tuple[str, str], float] = {}
    for number, (label, seeds) in enumerate(labels.items()):
        with Trace.open(folder / f"{label}.npz") as trace:
            able = [machine for machine in machines if machine.name not in refused]
            table = frame(simulate_records(able, trace, refused=refused))
            densities = densities_of(trace, [s.name for s in trace.snapshots])
            snapshots = list(trace.snapshots)
            natural = natural or _operands(snapshots[-1])
            traits = _traits(snapshots, natural)
            flops, weights = _flops(snapshots[-1]), _weights(snapshots[-1])
        series, first = Series.open(folder / f"{label}.series"), seeds[0]
        table = table[~table["machine"].isin(refused)]
        costs = {
            str(name): _cost(runs_of(rows, [series], None, densities)[0], first.accuracy)
            for name, rows in table.groupby("machine", sort=False)
        }
        shares = _effectual(table[table["machine"] == _counting(costs)], snapshots[-1].name)
        accuracies = tuple(dict(one.accuracy) for one in seeds)
        of_run = (label, first.algorithm, first.title, first.sparsity, accuracies)
        runs.append(Run(*of_run, weights, shares, flops, traits, costs))
        tell(number + 1, len(labels))
    return Found(runs, [m.name for m in machines if m.name not in refused], refused)


def _cost(of: OverTime, steps: Iterable[int]) -> Cost:
    columns = CYCLES.column, ENERGY.column
    last = of.simulated.iloc[-1]
    so_far = {step: (of.until(step, columns[0]), of.until(step, columns[1])) for step in steps}
    step, run = (float(last[columns[0]]), float(last[columns[1]])), (of.total(columns[0]), of.total(columns[1]))
    return Cost(step, run, so_far, of.total_error, of.how)


def _counting(costs: dict[str, Cost]) -> str:
    return COUNTS_ON if COUNTS_ON in costs else next(iter(costs))


def _effectual(rows: pd.DataFrame, snapshot: str) -> dict[str, float]:
    """By pass, and of the step, over all layers."""
    rows = evened(rows[rows["snapshot"] == snapshot])
    sums = rows.groupby("pass")[[EFFECTUAL.column, DENSE.column]].sum()
    shares = {which: float(sums.loc[which, EFFECTUAL.column] / sums.loc[which, DENSE.column]) for which in sums.index}
    whole = sums.sum()
    return shares | {"step": float(whole[EFFECTUAL.column] / whole[DENSE.column])}


def _weights(snapshot: Snapshot) -> float:
    sizes = [(layer.tensor("weight").size, layer.density("weight")) for layer in snapshot.layers]
    return sum(n * d for n, d in sizes) / sum(n for n, _ in sizes)


def _flops(snapshot: Snapshot) -> float:
    """Equations 4–6: by the density of the weight, and in the weight gradient by that of the saved activation."""
    left = whole = 0.0
    reads = {"fwd": "weight", "input_grad": "backward_weight", "weight_grad": "saved_activation"}
    for layer in snapshot.layers:
        for which in layer.passes:
            whole += layer.geometry.multiplications
            left += layer.geometry.multiplications * layer.density(reads[which])
    return left / whole


def _operands(snapshot: Snapshot) -> dict[tuple[str, str], float]:
    """Densities by layer and tensor, those that stand in included."""
    names = ("weight", "backward_weight", "activation", "saved_activation", "gradient")
    return {(layer.name, name): layer.density(name) for layer in snapshot.layers for name in names}


def _traits(snapshots: list[Snapshot], natural: dict[tuple[str, str], float]) -> Traits:
    """Held against what the dense run has by itself."""
    first, last = _operands(snapshots[0]), _operands(snapshots[-1])
    inner = [layer.name for layer in snapshots[-1].layers[1:]]

    def mean(of: dict[tuple[str, str], float], name: str) -> float:
        return sum(of[layer, name] for layer in inner) / len(inner)

    def sparse(*names: str) -> str:
        now, before = (any(mean(of, n) < SPARSER * mean(natural, n) for n in names) for of in (last, first))
        grew = any(mean(first, n) - mean(last, n) > GROWS for n in names)
        return "no" if not now else "gradual" if grew or not before else "yes"

    return Traits(
        across="variable" if _is_variable(snapshots, inner) else "fixed",
        fwd=sparse("weight", "activation"),
        input_grad=sparse("backward_weight", "gradient"),
        weight_grad=sparse("saved_activation", "gradient"),
        network=_network(snapshots[-1], inner),
    )


def _is_variable(snapshots: list[Snapshot], inner: list[str]) -> bool:
    """Whether layers take weights from each other: one gains some, or their densities part.

    Idle weights that a mask has let in but no gradient has moved are zeros too: they make a layer's weights fewer, and
    never more than its mask has.
    """
    counts = [{la.name: np.count_nonzero(la.tensor("weight")) for la in s.layers} for s in snapshots]
    counts = [{name: of[name] for name in inner} for of in counts]
    for now in counts[1:]:
        rise = max(0.0, sum(now.values()) / sum(counts[0].values()) - 1)
        if any(now[name] - counts[0][name] > 1 + (GAINS + rise) * counts[0][name] for name in inner):
            return True
    densities = [{name: _operands(s)[name, "weight"] for name in inner} for s in snapshots]
    shares = [[of[name] / (sum(of.values()) / len(inner)) for name in inner] for of in densities]
    return any(max(of_layer) - min(of_layer) > MOVES for of_layer in zip(*shares, strict=True))


def _network(snapshot: Snapshot, inner: list[str]) -> str:
    """Whether kernels of more than one weight are all there or all gone."""
    mixed = kernels = zeros = 0
    for layer in snapshot.layers:
        weight = layer.tensor("weight") != 0
        if layer.name in inner and weight[0, 0].size > 1:
            share = weight.mean((2, 3))
            mixed, kernels = mixed + int(((share > 0) & (share < 1)).sum()), kernels + share.size
            zeros += int((~weight).sum())
    if zeros < 0.01 * max(1, kernels):
        return "dense"
    return "structured" if mixed <= 0.01 * kernels else "unstructured"
