"""What the comparison of training algorithms found: runs, what they cost on each machine, and back from their JSON.

The page is made of this and of nothing else, so that what docs/algorithms.json holds makes docs/algorithms.md again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan
from statistics import fmean, stdev
from typing import Any

from accelsim.study.reproduction.seeds import scatter

Counts = tuple[float, float]  # cycles and pJ


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


@dataclass(frozen=True)
class Cost:
    """What a run costs on a machine: cycles and pJ, of the whole batch.

    Parameters
    ----------
    step : (float, float)
        The last recorded step.
    run : (float, float)
    so_far : dict of int to (float, float)
        Up to and with each step after which accuracy was measured.
    error : float
        Of the run's cycles, as a share: what leaving out simulated steps lets expect.
    how : "line" or "densities"
        What the other steps are filled in by.
    """

    step: Counts
    run: Counts
    so_far: dict[int, Counts]
    error: float
    how: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data; what is filled in to five digits, which is more than is known."""
        so_far = {str(step): _plain(counts) for step, counts in self.so_far.items()}
        costs = {"step": _plain(self.step, 12), "run": _plain(self.run), "so_far": so_far}
        return costs | {"error": float(f"{self.error:.3g}"), "how": self.how}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Cost:
        """What ``as_dict`` made plain."""
        so_far = {int(step): _counts(counts) for step, counts in told["so_far"].items()}
        return cls(_counts(told["step"]), _counts(told["run"]), so_far, told["error"], told["how"])


@dataclass(frozen=True)
class Run:
    """One run, measured.

    Parameters
    ----------
    label, algorithm, title : str
    sparsity : float
    accuracies : tuple of dict of int to float
        By seed, by step.
    weights : float
        Share of non-zeros among the weights at the end.
    effectual : dict of str to float
        By pass, and "step": the share of multiplications of two non-zeros in the last recorded step.
    flops : float
        The paper's model (A.3) of that step, as a share of the dense network's.
    traits : Traits
    costs : dict of str to Cost
        By machine.
    """

    label: str
    algorithm: str
    title: str
    sparsity: float
    accuracies: tuple[dict[int, float], ...]
    weights: float
    effectual: dict[str, float]
    flops: float
    traits: Traits
    costs: dict[str, Cost]

    @property
    def name(self) -> str:
        """As people read it: the algorithm, or what the settings call the run."""
        is_entry = self.label not in (self.algorithm, f"{self.algorithm}{100 * self.sparsity:g}")
        of = self.label.removesuffix(f"{100 * self.sparsity:g}").rstrip("-") if is_entry else self.title
        return f"{of} {100 * self.sparsity:g} %" if self.sparsity else of

    @property
    def accuracy(self) -> dict[int, float]:
        """By step, the mean over seeds."""
        return {step: fmean(of[step] for of in self.accuracies) for step in self.accuracies[0]}

    @property
    def reached(self) -> float:
        """Accuracy at the end, the mean over seeds."""
        return self.accuracy[max(self.accuracy)]

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds of the accuracy at the end; None of one seed."""
        ends = [of[max(of)] for of in self.accuracies]
        return stdev(ends) if len(ends) > 1 else None

    def spent(self, machine: str, target: float) -> tuple[int, float, float] | None:
        """Step, cycles and pJ up to the first accuracy of at least the target; None if it was not reached."""
        step = next((s for s, accuracy in sorted(self.accuracy.items()) if accuracy >= target), None)
        return None if step is None else (step, *self.costs[machine].so_far[step])

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        keys = "label", "algorithm", "title", "sparsity", "accuracies", "weights", "effectual", "flops"
        plain = {key: getattr(self, key) for key in keys}
        costs = {machine: cost.as_dict() for machine, cost in self.costs.items()}
        return plain | {"traits": vars(self.traits), "costs": costs}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Run:
        """What ``as_dict`` made plain."""
        accuracies = tuple({int(step): value for step, value in of.items()} for of in told["accuracies"])
        costs = {machine: Cost.of(cost) for machine, cost in told["costs"].items()}
        more = {"accuracies": accuracies, "traits": Traits(**told["traits"]), "costs": costs}
        return cls(**{**told, **more})


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

    @property
    def seeds(self) -> int:
        """Trainings of each run."""
        return len(self.dense.accuracies)

    @property
    def scatter(self) -> float | None:
        """Of an accuracy at the end, see ``seeds.scatter``; None of one seed."""
        return scatter([[of[max(of)] for of in run.accuracies] for run in self.runs])

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        runs = [run.as_dict() for run in self.runs]
        return {"target": self.target, "machines": self.machines, "refused": self.refused, "runs": runs}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Found:
        """What ``as_dict`` made plain."""
        return cls([Run.of(run) for run in told["runs"]], told["machines"], told["refused"])


def _plain(counts: Counts, digits: int = 5) -> list[int | None]:
    """Whole cycles and pJ; JSON has no NaN."""
    return [None if isnan(value) else round(float(f"{value:.{digits}g}")) for value in counts]


def _counts(told: list[int | None]) -> Counts:
    cycles, energy = (float("nan") if value is None else value for value in told)
    return cycles, energy
