"""Which algorithm on which accelerator: trained runs, what their traces say they are, and what they cost.

Training is ``accelsim.capture.comparison``'s; here are its traces and series, simulated. The paper's Table 1 says which
algorithms have which passes sparse: here the traces do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd

from accelsim.hardware.machine import Machine
from accelsim.ledger import CYCLES, DENSE, EFFECTUAL, ENERGY
from accelsim.pipeline import simulate_records
from accelsim.study.over_time import OverTime, densities_of, runs_of
from accelsim.study.results import evened, frame
from accelsim.workload.series import Series
from accelsim.workload.trace import Snapshot, Trace

SPARSER = 0.9  # of what the dense run has: below that a pass's operand is sparse by the algorithm
GROWS = 0.25  # from the first recorded step to the last: then it is gradual
MOVES = 0.2  # of a layer's share of the weights, in mean shares: by more than that between two steps, it is not fixed
COUNTS_ON = "ideal"  # any machine's records have the effectual multiplications; this one takes every trace


@dataclass(frozen=True)
class Traits:
    """What Table 1 asks, as a trace answers it.

    Parameters
    ----------
    across : "fixed" or "variable"
        Whether each layer keeps its share of the weights.
    fwd, input_grad, weight_grad : "yes", "gradual" or "no"
        Whether the algorithm makes an operand of the pass sparse; gradual: more and more.
    network : "unstructured", "structured" or "dense"
        Structured: kernels go whole.
    """

    across: str
    fwd: str
    input_grad: str
    weight_grad: str
    network: str


class Trained(Protocol):
    """A run of ``accelsim.capture.comparison``."""

    @property
    def label(self) -> str: ...

    @property
    def algorithm(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def sparsity(self) -> float: ...

    @property
    def accuracy(self) -> dict[int, float]: ...

    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True)
class Run:
    """One trained run, measured.

    Parameters
    ----------
    label, algorithm, title : str
    sparsity : float
    accuracy : dict of int to float
        By step.
    weights : float
        Share of non-zeros among the weights at the end.
    effectual : dict of str to float
        By pass, and "step": the share of multiplications of two non-zeros in the last recorded step.
    flops : float
        The paper's model (A.3) of that step, as a share of the dense network's.
    traits : Traits
    over : dict of str to OverTime
        By machine.
    last : dict of str to (float, float)
        By machine: cycles and pJ of the last recorded step, of the whole batch.
    """

    label: str
    algorithm: str
    title: str
    sparsity: float
    accuracy: dict[int, float]
    weights: float
    effectual: dict[str, float]
    flops: float
    traits: Traits
    over: dict[str, OverTime]
    last: dict[str, tuple[float, float]]
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """As people read it: the algorithm, or what the settings call the run."""
        is_entry = self.label not in (self.algorithm, f"{self.algorithm}{100 * self.sparsity:g}")
        of = self.label.removesuffix(f"{100 * self.sparsity:g}").rstrip("-") if is_entry else self.title
        return f"{of} {100 * self.sparsity:g} %" if self.sparsity else of

    @property
    def reached(self) -> float:
        """Accuracy at the end."""
        return self.accuracy[max(self.accuracy)]

    def spent(self, machine: str, target: float) -> tuple[int, float, float] | None:
        """Step, cycles and pJ up to the first accuracy of at least the target; None if it was not reached."""
        step = next((s for s in sorted(self.accuracy) if self.accuracy[s] >= target), None)
        if step is None:
            return None
        of = self.over[machine]
        return step, of.until(step), of.until(step, ENERGY.column)


@dataclass
class Found:
    """All runs, and machines that could not take them."""

    runs: list[Run]
    machines: list[str]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def dense(self) -> Run:
        """The run that the others are compared with."""
        return next(run for run in self.runs if not run.sparsity)

    @property
    def target(self) -> float:
        """Nine tenths of the dense run's accuracy: what "as good" means for time and energy up to it."""
        return 0.9 * self.dense.reached


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
    trained, refused, runs = list(trained), dict[str, str](), list[Run]()
    natural: dict[tuple[str, str], float] = {}
    for number, one in enumerate(trained):
        label = one.label
        with Trace.open(folder / f"{label}.npz") as trace:
            able = [machine for machine in machines if machine.name not in refused]
            table = frame(simulate_records(able, trace, refused=refused))
            densities = densities_of(trace, [s.name for s in trace.snapshots])
            snapshots = list(trace.snapshots)
            natural = natural or _operands(snapshots[-1])
            traits = _traits(snapshots, natural)
            flops, weights = _flops(snapshots[-1]), _weights(snapshots[-1])
        series = Series.open(folder / f"{one.label}.series")
        table = table[~table["machine"].isin(refused)]
        over = {
            str(name): runs_of(rows, [series], None, densities)[0]
            for name, rows in table.groupby("machine", sort=False)
        }
        last = {name: _last(of) for name, of in over.items()}
        told = {key: getattr(one, key) for key in ("label", "algorithm", "title", "sparsity", "accuracy", "seconds")}
        shares = _effectual(table[table["machine"] == _counting(over)], snapshots[-1].name)
        runs.append(Run(**told, weights=weights, effectual=shares, flops=flops, traits=traits, over=over, last=last))
        tell(number + 1, len(trained))
    return Found(runs, [m.name for m in machines if m.name not in refused], refused)


def _last(of: OverTime) -> tuple[float, float]:
    return float(of.simulated[CYCLES.column].iloc[-1]), float(of.simulated[ENERGY.column].iloc[-1])


def _counting(over: dict[str, OverTime]) -> str:
    return COUNTS_ON if COUNTS_ON in over else next(iter(over))


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

    shares = [[of[la, "weight"] / mean(of, "weight") for la in inner] for of in map(_operands, snapshots)]
    moves = max(max(of_layer) - min(of_layer) for of_layer in zip(*shares, strict=True))
    return Traits(
        across="variable" if moves > MOVES else "fixed",
        fwd=sparse("weight", "activation"),
        input_grad=sparse("backward_weight", "gradient"),
        weight_grad=sparse("saved_activation", "gradient"),
        network=_network(snapshots[-1], inner),
    )


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
