"""How far a synthetic layer is from the real one: densities, neighbours, and the work that both operands leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from accelsim.errors import TraceError
from accelsim.workload.lowering import PASSES, lower
from accelsim.workload.mask_model import pair_density
from accelsim.workload.shares import of_pass
from accelsim.workload.trace import Layer


@dataclass(frozen=True)
class TensorLikeness:
    """One tensor, real and synthetic.

    Attributes
    ----------
    layer, tensor : str
    real, synthetic : float
        Densities.
    first_error, second_error : float
        Root mean square over the indices of axis 0 (filters, samples) and of axis 1 (channels) of the difference of
        their densities.
    real_pairs, synthetic_pairs : (float, float)
        How often two places one below the other, and side by side, are both non-zero.
    """

    layer: str
    tensor: str
    real: float
    synthetic: float
    first_error: float
    second_error: float
    real_pairs: tuple[float, float]
    synthetic_pairs: tuple[float, float]


@dataclass(frozen=True)
class WorkLikeness:
    """Multiplications with two non-zero operands of one pass of one layer, real and synthetic."""

    layer: str
    which: str
    real: int
    synthetic: int


def compare(real: Layer, synthetic: Layer) -> Iterator[TensorLikeness]:
    """Tensor by tensor; what only one of them has is left out.

    Raises
    ------
    TraceError
        If the layers have different shapes.
    """
    _check(real, synthetic)
    for name in real.tensors:
        if name in synthetic.tensors:
            masks = [layer.tensor(name) != 0 for layer in (real, synthetic)]
            first_error, second_error = (
                _distance(*(mask.mean(axis=axes) for mask in masks)) for axes in ((1, 2, 3), (0, 2, 3))
            )
            real_pairs, synthetic_pairs = ((pair_density(mask, 2), pair_density(mask, 3)) for mask in masks)
            real_density, synthetic_density = (float(mask.mean()) for mask in masks)
            yield TensorLikeness(
                real.name, name, real_density, synthetic_density, first_error, second_error, real_pairs, synthetic_pairs
            )


def compare_work(real: Layer, synthetic: Layer) -> Iterator[WorkLikeness]:
    """Pass by pass: what an ideal machine would have to do."""
    _check(real, synthetic)
    for which in PASSES:
        both = (of_pass(layer, which) for layer in (real, synthetic))
        counts = [sum(conv.effectual for conv in lower(layer, which)) for layer in both]
        if any(counts):
            yield WorkLikeness(real.name, which, *counts)


def _check(real: Layer, synthetic: Layer) -> None:
    if (real.geometry, real.samples, real.part) != (synthetic.geometry, synthetic.samples, synthetic.part):
        raise TraceError(f"{real.origin}{real.name}: must have the shape of what it is compared with")


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))
