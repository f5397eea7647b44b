"""What several seeds let accuracies say: how far one scatters, and when two means are told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def scatter(ends: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation of an accuracy, of run × seed, once the run's mean and the seed's are taken out.

    All runs of a seed begin with the same weights and see the same batches: what a seed does to all of them tells
    nothing about two of them. None of one seed, or of one run.
    """
    of = np.array(ends, float)
    runs, seeds = of.shape
    if runs < 2 or seeds < 2:
        return None
    rest = of - of.mean(1, keepdims=True) - of.mean(0) + of.mean()
    return float(np.sqrt((rest**2).sum() / ((runs - 1) * (seeds - 1))))


def apart(deviation: float, seeds: int) -> float:
    """From which difference on two means are told apart: twice its standard error."""
    return 2 * deviation * math.sqrt(2 / seeds)
