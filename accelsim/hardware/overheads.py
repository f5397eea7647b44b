"""What sparse training costs besides multiplying: weights rotated, thresholds searched, sparse formats converted.

The paper leaves them out, and so does a machine without an ``overheads`` section. All PEs wait meanwhile: nothing
overlaps, which bounds the cost from above. docs/energy.md states each rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from accelsim import ledger
from accelsim.hardware.parameters import Parameters, integer, option
from accelsim.workload.trace import Layer, Snapshot


@dataclass(frozen=True)
class Tensors:
    """What one pass of one layer handles, in values; of weights, the stored samples' share of the training batch.

    Parameters
    ----------
    which : str
        The pass.
    weights, activations, results : int
        Values of the weights, of the layer's input and of its output, zeros included.
    selected : tuple of str
        Those that Top-K made sparse: "weight", "activation".
    value_bits : int
    """

    which: str
    weights: int
    activations: int
    results: int
    selected: tuple[str, ...]
    value_bits: int


def tensors_of(layer: Layer, which: str, snapshot: Snapshot, *, saved: bool, value_bits: int) -> Tensors:
    """What a pass of a layer of a snapshot handles; ``saved``: whether Top-K made its saved activation another one.

    Weights are rotated, searched and converted once a batch, of which some samples are stored; a matmul layer has
    none.
    """
    geometry, selected = layer.geometry, []
    if snapshot.sparsity and which == "fwd" and layer.kind != "matmul":
        selected += ["weight"] if not np.all(layer.tensor("weight")) else []
        selected += ["activation"] if saved else []
    weights = -(-prod(geometry.weight_shape) * layer.samples // layer.batch) if layer.kind != "matmul" else 0
    activations, results = (
        prod(shape) for shape in (geometry.activation_shape(layer.samples), geometry.gradient_shape(layer.samples))
    )
    return Tensors(which, weights, activations, results, tuple(selected), value_bits)


@dataclass(frozen=True)
class Cost:
    """Cycles in which all PEs wait, by cause, and actions that cost energy, both named as in ``accelsim.ledger``."""

    cycles: dict[str, int]
    actions: dict[str, int]

    def __post_init__(self) -> None:
        ledger.checked(self.cycles, ledger.rows("slots", source="overheads"), "overheads' cycles")
        ledger.checked(self.actions, (row for row in ledger.rows("actions") if not row.always), "overheads' actions")


class RotateWeights(Parameters):
    """Weights turned by 180°, filters and channels swapped, before the input gradient."""

    bytes_per_cycle: int = integer(1, 1 << 30, "read from the weight memory and written to it", unit="bytes/cycle")


class TopK(Parameters):
    """The threshold of each layer's weights and saved activations, and their comparison with it."""

    period: int = integer(1, 1 << 30, "training iterations from one search to the next", unit="iterations")
    search_comparisons: int = integer(0, 1000, "comparisons for each value in a search", unit="comparisons/value")
    threshold_comparisons: int = integer(
        0, 1000, "comparisons for each value in every iteration; 0: done while values are written",
        unit="comparisons/value",
    )  # fmt: skip
    comparisons_per_cycle: int = integer(1, 1 << 30, "comparators", unit="comparisons/cycle")

    def comparisons(self, values: int) -> int:
        """Comparisons of an iteration, on average over the period."""
        return values * self.threshold_comparisons - (-values * self.search_comparisons // self.period)


class FormatConversion(Parameters):
    """Sparse formats, written when a tensor is produced and read when it is used."""

    values_per_cycle: int = integer(1, 1 << 30, "dense values that are encoded or decoded", unit="values/cycle")
    weight: bool = option("weights are stored in a sparse format")
    activation: bool = option("activations are stored in a sparse format")
    gradient: bool = option("output gradients are stored in a sparse format")

    def values(self, tensors: Tensors) -> int:
        """Values decoded and encoded in a pass."""
        inputs, outputs = tensors.activations, tensors.results
        if tensors.which == "fwd":
            # Written: the output, the weights once Top-K has chosen, and what it keeps of the input for the backward.
            saved = inputs if "activation" in tensors.selected else 0
            return self.weight * tensors.weights + self.activation * (inputs + saved + outputs)
        if tensors.which == "input_grad":
            return self.weight * tensors.weights + self.gradient * (outputs + inputs)
        return self.activation * inputs + self.gradient * outputs


class Overheads(Parameters):
    """The ``overheads`` section of a machine file, or a file that the section names; each may be left out."""

    rotate_weights: RotateWeights | None = option("rotating weights for the input gradient", default=None)
    top_k: TopK | None = option("searching and applying the Top-K thresholds", default=None)
    format_conversion: FormatConversion | None = option("encoding and decoding sparse formats", default=None)

    def cost(self, tensors: Tensors) -> Cost:
        """What one pass of one layer costs besides multiplying."""
        cycles: dict[str, int] = {}
        actions: dict[str, int] = {}
        if self.rotate_weights and tensors.which == "input_grad":
            moved = -(-tensors.weights * tensors.value_bits // 8)
            cycles["rotate"] = -(-2 * moved // self.rotate_weights.bytes_per_cycle)
            actions |= {ledger.moved("weight_memory", way): moved for way in ("read", "write")}
        if self.top_k and tensors.which == "fwd":
            chosen = {"weight": tensors.weights, "activation": tensors.activations}
            comparisons = sum(self.top_k.comparisons(chosen[name]) for name in tensors.selected)
            cycles["top_k"] = -(-comparisons // self.top_k.comparisons_per_cycle)
            actions["comparisons"] = comparisons
        if self.format_conversion:
            values = self.format_conversion.values(tensors)
            cycles["format"] = -(-values // self.format_conversion.values_per_cycle)
        return Cost(cycles, actions)
