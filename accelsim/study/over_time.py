"""A whole training run on a machine, from a few of its steps: what it costs, and how well that is known.

A few steps of a run are simulated. Between them the cycles, energy and waiting of each layer and pass follow

- a *line*: straight from one simulated step to the next; before the first and after the last they stay; or
- the *densities*: y = c(t) · d_a^α · d_b^β, d the densities of the pass's two operands: of the stored samples, which
  the trace has, where c, α and β are fitted, and of the whole batch, which a series says of every step, where y is
  wanted. α and β are the machine's, one pair a pass, and c(t) is a straight line,

whichever foretells the simulated steps better when each is left out in turn. The same leaving out says how well the
total is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from accelsim.errors import AccelsimError
from accelsim.ledger import CYCLES, ENERGY, TOP_K
from accelsim.workload.lowering import READS
from accelsim.workload.metadata import STANDS_IN
from accelsim.workload.series import Series
from accelsim.workload.trace import Trace

Numbers = np.ndarray
Densities = dict[tuple[str, str, str], float]
COLUMNS = (CYCLES.column, ENERGY.column, "stalls", "top_k")
LEAST_DENSITY = 1e-6
LARGEST_POWER = 1.5


@dataclass(frozen=True)
class OverTime:
    """One run on one machine. Counts are of the whole training batch.

    Parameters
    ----------
    label : str
        The run: its algorithm and sparsity.
    how : "line" or "densities"
    steps : ndarray
        Every iteration, from 0.
    counts : dict of str to ndarray
        ``cycles``, ``energy_pj`` (NaN where not known), ``stalls`` and ``top_k`` cycles of each.
    simulated : DataFrame
        A row for each simulated step, with what it was foretold to be without itself (``left_out``; NaN at both ends).
    errors : dict of str to float
        Of each way of filling in: the mean error of a step left out, as a share.
    total_error : float
        Of the run's cycles, as a share: see ``_total_error``.
    """

    label: str
    how: str
    steps: Numbers
    counts: dict[str, Numbers]
    simulated: pd.DataFrame
    errors: dict[str, float]
    total_error: float
    notes: dict[str, dict[int, float]] = field(default_factory=dict)

    def total(self, count: str = CYCLES.column) -> float:
        """Over the whole run."""
        return float(self.counts[count].sum())

    def until(self, step: int, count: str = CYCLES.column) -> float:
        """Up to and with an iteration."""
        return float(self.counts[count][self.steps <= step].sum())

    def reached(self, accuracy: float) -> int | None:
        """The first step with at least that accuracy, where the series has any; None if there is none."""
        noted = self.notes.get("accuracy", {})
        return next((step for step in sorted(noted) if noted[step] >= accuracy), None)


def densities_of(trace: Trace, names: Iterable[str]) -> Densities:
    """The share of non-zeros of every stored tensor, by snapshot, layer and tensor."""
    chosen = {*names}
    return {
        (s.name, layer.name, tensor): layer.density(tensor)
        for s in trace.snapshots
        if s.name in chosen
        for layer in s.layers
        for tensor in layer.tensors
    }


def runs_of(
    table: pd.DataFrame,
    series: Iterable[Series] = (),
    steps: int | None = None,
    densities: Densities | None = None,
) -> list[OverTime]:
    """Every run that a machine's records are of.

    Parameters
    ----------
    table : DataFrame
        From ``results.frame``, of one machine. Snapshots of one algorithm and sparsity are steps of one run.
    series : iterable of Series
        Each of the run whose algorithm and sparsity it says.
    steps : int, optional
        Iterations of the run; by default those that the series has, or up to the last simulated one.
    densities : dict, optional
        From ``densities_of``; without them a series is of no use.

    Raises
    ------
    AccelsimError
        If a run has but one step.
    """
    told = {(s.header.get("algorithm"), s.header.get("sparsity")): s for s in series}
    found = []
    groups: Any = table.groupby(["algorithm", "sparsity"], sort=False)
    for (algorithm, sparsity), rows in groups:
        found.append(
            _one(rows, _label(algorithm, sparsity), told.pop((algorithm, sparsity), None), steps, densities or {})
        )
    for missing in told.values():
        of = f"{missing.header.get('algorithm')} at {missing.header.get('sparsity')}"
        raise AccelsimError(f"{missing.path}: must be of a run of the trace, is of {of}")
    return found


def dense_steps(table: pd.DataFrame, selves: pd.DataFrame) -> dict[str, float]:
    """Cycles of a step of each run on the machine's dense self, of the batch; ``selves`` from ``dense_selves``."""
    cycles = (selves[CYCLES.column] * selves["batch"] / selves["samples"]).groupby(selves["snapshot"]).sum()
    found = {}
    groups: Any = table.groupby(["algorithm", "sparsity"], sort=False)
    for (algorithm, sparsity), rows in groups:
        if rows["snapshot"].iloc[0] in cycles:
            found[_label(algorithm, sparsity)] = float(cycles[rows["snapshot"].iloc[0]])
    return found


def _label(algorithm: str, sparsity: float) -> str:
    return f"{algorithm} {100 * sparsity:g} %" if sparsity else algorithm


def _one(rows: pd.DataFrame, label: str, series: Series | None, steps: int | None, densities: Densities) -> OverTime:
    known = _Known.of(rows, label, densities)
    last = max(int(known.steps[-1]), series.steps[-1].step if series else 0)
    every = np.arange(steps or last + 1)
    ways: dict[str, _Line] = {"line": _Line()}
    if series is not None:
        ways["densities"] = _Follow(series)
    left_out = {name: known.left_out(way) for name, way in ways.items()}
    cycles = known.whole(CYCLES.column)
    errors = {n: float(np.mean(np.abs(p[1:-1] / cycles[1:-1] - 1))) if len(p) > 2 else 0.0 for n, p in left_out.items()}
    how = min(errors, key=lambda name: errors[name])
    counts = {name: ways[how].filled(known, name, every).sum(0) for name in COLUMNS}
    simulated = pd.DataFrame({"step": known.steps, **{n: known.whole(n) for n in COLUMNS}, "left_out": left_out[how]})
    notes: dict[str, dict[int, float]] = {}
    for each in series.steps if series else ():
        for name, value in each.notes.items():
            notes.setdefault(name, {})[each.step] = value
    error = _total_error(known.steps, cycles, left_out[how], every)
    return OverTime(label, how, every, counts, simulated, errors, error, notes)


def _total_error(steps: Numbers, cycles: Numbers, left_out: Numbers, every: Numbers) -> float:
    """How far the total may be off, as a share.

    Each simulated step stands for the iterations about it. What a step left out was missed by counts for as many: their
    sum, were all errors of one sign by chance, and twice their root of squares, the larger of the two. That is with
    half as many steps known about each, so it is above what to expect.
    """
    edges = np.concatenate([[every[0]], (steps[1:] + steps[:-1]) / 2, [every[-1] + 1]])
    weights = np.diff(np.clip(edges, every[0], every[-1] + 1))
    missed = np.nan_to_num((left_out - cycles) * weights)
    whole = float((cycles * weights).sum())
    return float(max(abs(missed.sum()), 2 * np.sqrt((missed**2).sum()))) / whole if whole else 0.0


@dataclass(frozen=True)
class _Known:
    """What was simulated: by count an array of layer-and-pass × step; ``logs`` of operand densities, operand × step."""

    steps: Numbers
    keys: list[tuple[str, str]]
    counts: dict[str, Numbers]
    logs: dict[tuple[str, str], Numbers | None]

    @classmethod
    def of(cls, rows: pd.DataFrame, label: str, densities: Densities) -> _Known:
        scale = rows["batch"] / rows["samples"]
        stalls = rows[CYCLES.column] - rows["compute_cycles"]
        rows = rows.assign(stalls=stalls, top_k=rows[TOP_K.column] / rows["multipliers"])
        rows = rows.assign(**{name: rows[name] * scale for name in COLUMNS})
        steps = np.sort(rows["step"].unique())
        if len(steps) < 2:
            raise AccelsimError(f"{label}: must have at least two steps in the trace, has step {steps[0]} only")
        counts = {}
        for name in COLUMNS:
            wide = rows.pivot_table(index=["layer", "pass"], columns="step", values=name, sort=False, dropna=False)
            counts[name] = wide.reindex(columns=steps).to_numpy(float)
        names = rows.drop_duplicates("step").set_index("step")["snapshot"][steps]
        keys = list(wide.index)
        logs = {key: _logs([{(la, t): d for (s, la, t), d in densities.items() if s == n} for n in names], *key)
                for key in keys}  # fmt: skip
        return cls(steps, keys, counts, logs)

    def whole(self, name: str) -> Numbers:
        """Of each simulated step."""
        total: Numbers = self.counts[name].sum(0)
        return total

    def without(self, index: int) -> _Known:
        """All but one of the steps."""
        counts = {name: np.delete(values, index, 1) for name, values in self.counts.items()}
        logs = {key: None if each is None else np.delete(each, index, 1) for key, each in self.logs.items()}
        return _Known(np.delete(self.steps, index), self.keys, counts, logs)

    def left_out(self, way: _Line) -> Numbers:
        """The cycles of each step, foretold from the others; NaN at both ends, which nothing is beyond."""
        foretold = np.full(len(self.steps), np.nan)
        for index in range(1, len(self.steps) - 1):
            at = self.steps[index : index + 1]
            own = {key: None if each is None else each[:, index : index + 1] for key, each in self.logs.items()}
            foretold[index] = way.filled(self.without(index), CYCLES.column, at, own).sum()
        return foretold


Logs = dict[tuple[str, str], Numbers | None]


class _Line:
    """Straight lines from step to step."""

    def filled(self, known: _Known, name: str, every: Numbers, own: Logs | None = None) -> Numbers:
        """Of each layer and pass, in each of these steps; ``own`` are the logarithms of their densities, if known."""
        return np.array([np.interp(every, known.steps, values) for values in known.counts[name]])


class _Follow(_Line):
    """As the densities of the operands go."""

    def __init__(self, series: Series):
        self._at = np.array([s.step for s in series.steps])
        self._steps = [s.densities for s in series.steps]
        self._cache: Logs = {}

    def filled(self, known: _Known, name: str, every: Numbers, own: Logs | None = None) -> Numbers:
        """Of each layer and pass; where densities are not known a straight line."""
        plain = super().filled(known, name, every)
        there = own if own is not None else {key: self._between(key, every) for key in known.keys}
        for which in READS:
            places = [
                i
                for i, key in enumerate(known.keys)
                if key[1] == which
                and known.logs[key] is not None
                and there[key] is not None
                and np.all(known.counts[name][i] > 0)
            ]
            if places:
                here = np.array([known.logs[known.keys[i]] for i in places])  # layer × operand × step
                values = np.log(known.counts[name][places])
                powers = _powers(values, here)
                rest = values - np.einsum("o,los->ls", powers, here)
                between = np.array([np.interp(every, known.steps, row) for row in rest])
                wanted = np.array([there[known.keys[i]] for i in places])
                plain[places] = np.exp(between + np.einsum("o,los->ls", powers, wanted))
        return plain

    def _between(self, key: tuple[str, str], every: Numbers) -> Numbers | None:
        if key not in self._cache:
            self._cache[key] = _logs(self._steps, *key)
        found = self._cache[key]
        return None if found is None else np.array([np.interp(every, self._at, row) for row in found])


def _logs(steps: list[dict[tuple[str, str], float]], layer: str, which: str) -> Numbers | None:
    """Logarithms of the densities of a pass's operands in each step; None where one is not known."""
    names = ("gradient", "backward_weight") if which == "input_grad" else READS[which]
    found = [[of.get((layer, n), of.get((layer, STANDS_IN.get(n, n)))) for of in steps] for n in names]
    if any(each is None for row in found for each in row):
        return None
    logs: Numbers = np.log(np.maximum(np.array(found, float), LEAST_DENSITY))
    return logs


def _powers(values: Numbers, logs: Numbers) -> Numbers:
    """α and β: least squares of all layers' changes about their means, each between 0 and ``LARGEST_POWER``."""
    changes = (values - values.mean(1, keepdims=True)).ravel()
    causes = (logs - logs.mean(2, keepdims=True)).transpose(1, 0, 2).reshape(logs.shape[1], -1)
    # A little weight on "not at all", lest what hardly changes gets any power at all.
    grip = 1e-9 + 1e-3 * np.trace(causes @ causes.T) / len(causes)
    solved = np.linalg.solve(causes @ causes.T + grip * np.eye(len(causes)), causes @ changes)
    return np.clip(solved, 0, LARGEST_POWER)
