"""How the paper counted, found out: every combination of what its words leave open, against every row it prints.

Appendix A.3 gives formulas, but not whether the first layer's input gradient, the linear layer or batch norm are in,
and its figures for strided networks need one backward pass counted at input positions and the other at output
positions. The search tries all and keeps the combination that reaches most figures: ``accelsim reproduce counting``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Generic, TypeVar

from accelsim.errors import AccelsimError
from accelsim.study.paper import FLOPS_TABLES, STRUCTURED, TABLE2, TABLE3, TABLE4, TABLE5, TABLE7, Row
from accelsim.study.reproduction import flops
from accelsim.study.reproduction.flops import Columns, Counting, Saving, Scheme
from accelsim.workload.networks import Network, network

Choice = TypeVar("Choice", Counting, Saving, float)
# Percentage points. The paper prints one digit, some of them cut off rather than rounded.
TOLERANCES = {
    "weight": 0.1, "activation": 1.0, "training": 0.1, "saved": 0.4, "compression": 0.1, "inference": 0.1,
}  # fmt: skip
FLOPS_COLUMNS = ("training", "inference")
# What ReLU leaves, by data set: the two numbers that are fitted, each to the activation columns of the SWAT-ERK rows.
NATURAL_ZEROS = {"ImageNet": 0.4, "CIFAR-10": 0.55}
ZEROS_TRIED = tuple(n / 20 for n in range(15))
# Of the paper's methods those whose densities follow from shapes; the rest depend on a training run.
FROM_SHAPES = ("SWAT-U", "SWAT-ERK", STRUCTURED, "RigL", "SET")

COUNTINGS = tuple(
    Counting(of_input, of_weight, *flags)
    for of_input, of_weight in product(("output", "input"), repeat=2)
    for flags in product((True, False), repeat=4)
)
SAVINGS = tuple(Saving(*flags) for flags in product((True, False), repeat=4))


@cache
def table(name: str) -> Network:
    """The layer table of a network, built once."""
    return network(name)


def scheme(
    row: Row,
    natural_zeros: float | None = None,
    whole_channels: bool = False,
    default_zeros: float = flops.DEFAULT_ZEROS,
) -> Scheme | None:
    """The densities that a row's method gives its network; None where they depend on a training run.

    Parameters
    ----------
    row : Row
    natural_zeros : float, optional
        In place of that of :data:`NATURAL_ZEROS`. Only SWAT-ERK's rows have zeros of ReLU in them: of SWAT-U the paper
        prints the target, even where ReLU leaves more zeros.
    whole_channels : bool
        Whether structured SWAT keeps whole channels, as it does, or the target's exact share, as the paper counts.
    default_zeros : float
        Of the activations of RigL and SET.
    """
    net = table(row.network)
    zeros = NATURAL_ZEROS[net.dataset] if natural_zeros is None else natural_zeros
    if row.method in ("SWAT-U", STRUCTURED):
        channel = row.method == STRUCTURED and whole_channels
        return flops.swat(net, row.sparsity, "uniform", "channel" if channel else "unstructured")
    if row.method == "SWAT-ERK":
        return flops.swat(net, row.sparsity, "erk", natural_zeros=zeros)
    if row.method == "RigL":
        return flops.sparse_weights(net, row.sparsity, [net.layers[0].name], default_zeros)
    if row.method == "SET":  # "do not sparsify downsampling layers" (4.2); that the first is sparse, its inference says
        return flops.sparse_weights(
            net, row.sparsity, [n for n in net.weight_shapes if "downsample" in n], default_zeros
        )
    return None


def densities(
    row: Row,
    natural_zeros: float | None = None,
    whole_channels: bool = False,
    default_zeros: float = flops.DEFAULT_ZEROS,
) -> Scheme:
    """``scheme`` of a row whose method gives its densities; AccelsimError for another."""
    found = scheme(row, natural_zeros, whole_channels, default_zeros)
    if found is None:
        raise AccelsimError(f"{row.label}: must be one of {', '.join(FROM_SHAPES)}, depends on a training run")
    return found


@dataclass(frozen=True)
class Fit(Generic[Choice]):
    """How many of the figures compared one combination reaches, and its mean distance from them, in points."""

    choice: Choice
    reached: int
    compared: int
    distance: float


def rows(methods: Iterable[str] = FROM_SHAPES) -> Iterator[Row]:
    """The rows of Tables 2–5 whose methods are among these."""
    wanted = set(methods)
    return (row for of in (TABLE2, TABLE3, TABLE4, TABLE5) for row in of if row.method in wanted)


def kind(row: Row, column: str) -> str:
    """What it is worth that ours of a row's column is within the tolerance: of ``figure.KINDS``.

    The way to count was picked with all rows in view. It is no choice made for a row if it comes first without the rows
    of the row's network too.
    """
    if column == "weight" or (column == "activation" and row.method in ("SWAT-U", STRUCTURED)):
        return "identity"  # the target that went in
    if column in ("activation", "saved") and row.method == "SWAT-ERK":
        return "chosen"  # ReLU's zeros are fitted to these
    if column == "saved":
        return "computed" if savings(row.network)[0].choice == savings()[0].choice else "chosen"
    if column in FLOPS_COLUMNS:
        return "computed" if countings(row.network)[0].choice == countings()[0].choice else "chosen"
    return "computed"


@cache
def countings(without: str | None = None) -> list[Fit[Counting]]:
    """All ways to count FLOPs, best first, over both FLOP columns of all rows that follow from shapes.

    ``without`` leaves out the rows of a network.
    """
    schemes = [(row, densities(row)) for row in rows() if row.network != without]
    fits = []
    for counting in COUNTINGS:
        ours = ((row, flops.columns(s, counting)) for row, s in schemes)
        misses = [miss for row, c in ours for miss in _misses(row, c, FLOPS_COLUMNS)]
        fits.append(_fit(counting, misses, TOLERANCES["training"]))
    return sorted(fits, key=_worth)


@cache
def savings(without: str | None = None) -> list[Fit[Saving]]:
    """All ways to count "Act ↓", best first, over the SWAT-U rows, whose densities nothing is fitted to.

    ``without`` leaves out the rows of a network.
    """
    schemes = [(row, densities(row, 0.0)) for row in rows(("SWAT-U", STRUCTURED)) if row.network != without]
    fits = []
    for saving in SAVINGS:
        ours = ((row, flops.columns(s, None, saving)) for row, s in schemes)
        misses = [miss for row, c in ours for miss in _misses(row, c, ("saved",))]
        fits.append(_fit(saving, misses, TOLERANCES["saved"]))
    return sorted(fits, key=_worth)


@cache
def natural_zeros(dataset: str) -> list[Fit[float]]:
    """Shares of zeros that ReLU may leave, best first, over the activation columns of a data set's SWAT-ERK rows."""
    of = [r for r in (*rows(), *TABLE7) if r.method == "SWAT-ERK"]
    chosen = [r for r in of if table(r.network).dataset == dataset]
    fits = []
    for zeros in ZEROS_TRIED:
        ours = ((row, flops.columns(densities(row, zeros))) for row in chosen)
        misses = [miss for row, c in ours for miss in _misses(row, c, ("activation", "saved"))]
        fits.append(_fit(zeros, misses, TOLERANCES["activation"]))
    return sorted(fits, key=lambda fit: fit.distance)


def unreached() -> list[tuple[str, Row, str, float, Counting]]:
    """FLOP figures that no counting at all reaches: table, row, column, the nearest of ours, and by which counting."""
    found = []
    for name, of in FLOPS_TABLES.items():
        for row in of:
            s = scheme(row)
            for column in FLOPS_COLUMNS:
                paper = getattr(row, column)
                if s is None or paper is None:
                    continue
                ours = [(getattr(flops.columns(s, c), column), c) for c in COUNTINGS]
                nearest, counting = min(ours, key=lambda pair: abs(pair[0] - paper))
                if abs(nearest - paper) > TOLERANCES[column]:
                    found.append((name, row, column, nearest, counting))
    return found


def describe(counting: Counting) -> str:
    """A counting in words."""
    parts = [
        f"input gradient at {counting.input_grad_at} positions",
        f"weight gradient at {counting.weight_grad_at} positions",
        f"first layer's input gradient {'in' if counting.first_input_grad else 'out'}",
        f"linear layers {'in' if counting.linear else 'out'}",
        f"batch norm {'in' if counting.batch_norm else 'out'}",
        f"zeros of ReLU {'skipped' if counting.natural_zeros else 'not skipped'}",
    ]
    return ", ".join(parts)


def _misses(row: Row, ours: Columns, names: Iterable[str]) -> list[float]:
    return [abs(getattr(ours, n) - getattr(row, n)) for n in names if getattr(row, n) is not None]


def _fit(choice: Choice, misses: list[float], tolerance: float) -> Fit[Choice]:
    return Fit(choice, sum(miss <= tolerance for miss in misses), len(misses), sum(misses) / len(misses))


def _worth(fit: Fit[Any]) -> tuple[int, float]:
    return -fit.reached, fit.distance
