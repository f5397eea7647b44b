"""What sparsity does to training: the paper's Figures 1, 2, 4, 7, 8, 10 and 11, small, each claim with a verdict.

The verdicts are computed, from the accuracies of runs that differ in one thing and were trained with the same seeds, or
from what a series has of thresholds and densities:

- *above*: the mean over seeds of one is above that of the other by more than twice the standard error of a difference
  (``seeds.apart``); the other way round is contrary; between, they are not told apart;
- *at most*: a number of ours is at most the one that stands for "almost constant" here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from accelsim.study.reproduction.seeds import apart, scatter

AS_PAPER, CONTRARY, OPEN = "as in the paper", "contrary to the paper", "not told apart"
IN_PART, MIXED, MISSING = "in part as in the paper", "in part contrary to the paper", "not trained"
STEP_CHANGE, HALF_RANGE, OFF_TARGET = 1.0, 1.25, 1.0  # %, a factor, percentage points
LEAST = 1e-9  # a threshold or a deviation of zero is none that something can be divided by
Curve = dict[int, float]  # by step


@dataclass(frozen=True)
class Curves:
    """What was trained: all that the verdicts, the page and the picture are made of.

    Parameters
    ----------
    accuracies : dict of str to tuple of dict of int to float
        By run, by seed, by step.
    thresholds : dict of str to tuple of float
        Of each layer's weights, by step, of the run that Figure 4 is of.
    zeros : dict of str to tuple of float
        "weight" and "activation": the share, mean over the layers that Top-K selects in, by step; of Figure 10's run.
    epoch, period : int
        Steps of an epoch, and from one search for thresholds to the next in Figure 10's run.
    target : float
        Sparsity of that run.
    """

    accuracies: dict[str, tuple[Curve, ...]]
    thresholds: dict[str, tuple[float, ...]] = field(default_factory=dict)
    zeros: dict[str, tuple[float, ...]] = field(default_factory=dict)
    epoch: int = 1
    period: int = 1
    target: float = 0.9

    @property
    def seeds(self) -> int:
        """Trainings of each run."""
        return len(next(iter(self.accuracies.values())))

    @property
    def scatter(self) -> float:
        """Of an accuracy at the end, see ``seeds.scatter``; 0 of one seed."""
        return scatter([[of[max(of)] for of in seeds] for seeds in self.accuracies.values()]) or 0.0

    def reached(self, run: str) -> float:
        """Accuracy at the end, the mean over seeds."""
        return fmean(of[max(of)] for of in self.accuracies[run])

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        rounded = {name: [round(value, 6) for value in of] for name, of in self.thresholds.items()}
        zeros = {name: [round(value, 5) for value in of] for name, of in self.zeros.items()}
        return vars(self) | {"thresholds": rounded, "zeros": zeros}

    @classmethod
    def of(cls, told: dict[str, Any]) -> Curves:
        """What ``as_dict`` made plain."""
        accuracies = {
            run: tuple({int(step): value for step, value in of.items()} for of in seeds)
            for run, seeds in told["accuracies"].items()
        }
        thresholds, zeros = ({key: tuple(of) for key, of in told[n].items()} for n in ("thresholds", "zeros"))
        return cls(accuracies, thresholds, zeros, told["epoch"], told["period"], told["target"])


@dataclass(frozen=True)
class Claim:
    """One thing that a figure says, with ours and the verdict."""

    what: str
    ours: str
    rule: str
    verdict: str


@dataclass(frozen=True)
class Shown:
    """One of the paper's figures.

    Parameters
    ----------
    name, title : str
    paper : str
        What the paper found.
    size : str
        What to expect of a network and a training this small, written before they were trained.
    claims : tuple of Claim
    """

    name: str
    title: str
    paper: str
    size: str
    claims: tuple[Claim, ...]

    @property
    def verdict(self) -> str:
        """Of all claims together."""
        found = {claim.verdict for claim in self.claims} - {MISSING}
        if not found:
            return MISSING
        if CONTRARY in found:
            return CONTRARY if found == {CONTRARY} else MIXED
        return next(iter(found)) if len(found) == 1 else IN_PART


def above(curves: Curves, what: str, more: str, less: str) -> Claim:
    """Whether one run ends with a higher accuracy than another."""
    if more not in curves.accuracies or less not in curves.accuracies:
        return Claim(what, "–", "–", MISSING)
    difference, far = curves.reached(more) - curves.reached(less), apart(curves.scatter, curves.seeds)
    ours = f"{100 * curves.reached(more):.1f} % against {100 * curves.reached(less):.1f} %, {100 * difference:+.1f}"
    verdict = AS_PAPER if difference > far else CONTRARY if -difference > far else OPEN
    return Claim(what, ours, f"above by more than {100 * far:.1f}", verdict)


def at_most(what: str, value: float, bound: float, unit: str) -> Claim:
    """Whether a number of ours is as small as the figure says."""
    verdict = AS_PAPER if value <= bound else CONTRARY
    return Claim(what, f"{value:.2f}{unit}", f"at most {bound:.2f}{unit}", verdict)


def figures(curves: Curves) -> Iterator[Shown]:
    """All of them."""
    sparsities = (50, 80, 90)
    yield Shown(
        "fig1", "Figure 1: sparse operands in the forward pass",
        "Top-K of the weights harms less than Top-K of the activations, which harms more the sparser they are.",
        "The order should show at 90 %; at 50 % both should be within what seeds scatter.",
        (
            *(above(curves, f"weights above activations, {s} %", f"fig1-weights{s}", f"fig1-activations{s}-0")
              for s in sparsities),
            above(curves, "activations at 50 % above those at 90 %", "fig1-activations50-0", "fig1-activations90-0"),
        ),
    )  # fmt: skip
    yield Shown(
        "fig2", "Figure 2: sparse operands in the backward pass",
        "Sparse weights and activations (SAW) hardly harm; sparse output gradients (meProp) do.",
        "The order should show from 80 % on: what a gradient loses is lost in each step.",
        tuple(above(curves, f"SAW above meProp, {s} %", f"fig2-saw{s}", f"fig2-meprop{s}") for s in sparsities),
    )  # fmt: skip
    yield Shown(
        "fig4", "Figure 4: the threshold of weights against the iteration",
        "In four layers the K-th magnitude is almost constant while training.",
        "From step to step it should hardly change; over some epochs it should move with the learning rate and settle.",
        tuple(_thresholds(curves)),
    )  # fmt: skip
    yield Shown(
        "fig7", "Figure 7: updates of active weights only",
        "Masking the gradients of weights that are not active harms.",
        "Who may never come back matters from the first steps on, so it should show at 90 %.",
        tuple(above(curves, f"all updated above masked, {s} %", f"fig7-unmasked{s}", f"fig7-masked{s}")
              for s in (80, 90)),
    )  # fmt: skip
    yield Shown(
        "fig8", "Figure 8: the topology frozen early",
        "The earlier the set of active weights is fixed, the lower the accuracy.",
        "Only the earliest, in the first epoch, may be told apart: the network has few epochs to explore at all.",
        (
            *(above(curves, f"never frozen above frozen at step {at}", "fig7-unmasked90", f"fig8-frozen-at-{at}-90")
              for at in (100, 300, 600)),
            above(curves, "frozen at 600 above frozen at 100", "fig8-frozen-at-600-90", "fig8-frozen-at-100-90"),
        ),
    )  # fmt: skip
    yield Shown(
        "fig10", "Figure 10: sparsity under a periodic Top-K",
        "With thresholds found every 100 iterations the sparsity stays about its target, closer as training goes on.",
        "As in the paper, for it follows from Figure 4 once thresholds settle.",
        tuple(_periods(curves)),
    )  # fmt: skip
    yield Shown(
        "fig11", "Figure 11: meProp and SAW",
        "SAW at 80 % converges; meProp does at 30 %, and not at 50 %.",
        "SAW at 80 % and meProp at 30 % should be about dense; that meProp at 50 % falls behind may need more.",
        (
            above(curves, "SAW at 80 % above meProp at 50 %", "fig2-saw80", "fig2-meprop50"),
            above(curves, "meProp at 30 % above meProp at 50 %", "fig2-meprop30", "fig2-meprop50"),
        ),
    )  # fmt: skip


def _thresholds(curves: Curves) -> Iterator[Claim]:
    found = representative(curves.thresholds)
    for layer, of in found.items():
        after = np.maximum(of[min(curves.epoch, len(of) // 2) :], LEAST)
        change = 100 * float(np.median(np.abs(after[1:] / after[:-1] - 1)))
        yield at_most(f"{layer}: change a step, median from the first epoch on", change, STEP_CHANGE, " %")
        half = np.maximum(of[len(of) // 2 :], LEAST)
        yield at_most(f"{layer}: greatest over least, second half", float(half.max() / half.min()), HALF_RANGE, "")
    if not found:
        yield Claim("the threshold is almost constant", "–", "–", MISSING)


def representative(thresholds: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """Four layers, from the first to the last."""
    names = list(thresholds)
    chosen = {} if not names else dict.fromkeys(names[round(i * (len(names) - 1) / 3)] for i in range(4))
    return {name: thresholds[name] for name in chosen}


def _periods(curves: Curves) -> Iterator[Claim]:
    windows = {
        what: [of[i : i + curves.period] for i in range(0, len(of) - curves.period + 1, curves.period)]
        for what, of in curves.zeros.items()
    }
    windows = {what: of for what, of in windows.items() if len(of) > 1}
    for what, of in windows.items():
        off = 100 * abs(fmean(x for window in of[1:] for x in window) - curves.target)
        yield at_most(f"{what}s: mean sparsity off its target, after the first period", off, OFF_TARGET, " points")
        spread = pstdev(of[-1]) / max(pstdev(of[0]), LEAST)
        yield at_most(f"{what}s: deviation in the last period over the first", spread, 1.0, "")
    if not windows:
        yield Claim("sparsity stays about its target", "–", "–", MISSING)


def overview(shown: Iterable[Shown]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: each figure's verdict, and how many claims have which."""
    kinds = (AS_PAPER, OPEN, CONTRARY, MISSING)
    rows = []
    for figure in shown:
        counts = [sum(claim.verdict == kind for claim in figure.claims) for kind in kinds]
        rows.append((figure.title, figure.verdict, *(str(count or "") for count in counts)))
    return ("figure", "verdict", *kinds), rows
