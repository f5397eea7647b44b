"""Bounds: a machine that executes nothing but the products that it may not skip, all multipliers busy to the last.

No machine's own: what skipping the zeros of one operand, or of both, could give at most. Every other model here lies
at or above the bound of the operands that it skips; "both" is the effectual work.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from accelsim import ledger
from accelsim.hardware.accelerators.base import (
    STRIDED_INPUT_GRAD,
    AcceleratorParameters,
    Activity,
    Summation,
)
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.tiled_traffic import moved_once
from accelsim.hardware.lines import to_lines
from accelsim.hardware.parameters import integer, option
from accelsim.workload.lowering import READS, Convolution


class Ideal(AcceleratorParameters):
    """ceil(products / multipliers) cycles per convolution; a product with a zero of a skipped operand is none."""

    model: Literal["ideal"]
    multipliers: int = integer(1, 1 << 40, "multiplications in a cycle")
    fwd_skips: Literal["neither", "activation", "weight", "both"] = option(
        "operands of the forward pass whose zeros cost nothing"
    )
    input_grad_skips: Literal["neither", "gradient", "weight", "both"] = option(
        "operands of the input gradient whose zeros cost nothing"
    )
    weight_grad_skips: Literal["neither", "activation", "gradient", "both"] = option(
        "operands of the weight gradient whose zeros cost nothing; the activation is the saved one"
    )
    strided_input_grad: Literal["phase", "dilate"] = option(STRIDED_INPUT_GRAD)

    @property
    def summation(self) -> Summation:
        """A register for each multiplier: nothing is said of its adders; see ``Accelerator``."""
        return Summation(additions="accumulator_updates", partial_sums=1)

    def skips(self, which: str) -> dict[str, str]:
        """As its keys say; see ``Accelerator``."""
        skipped = getattr(self, f"{which}_skips")
        return {name: "zeros" for name in READS[which] if skipped in (name.removeprefix("saved_"), "both")}

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        products = self._charged(conv).effectual
        cycles = -(-products // self.multipliers)
        slots = {
            "effectual": conv.effectual,
            "ineffectual": products - conv.effectual,
            "edge": cycles * self.multipliers - products,
        }
        reads = dict.fromkeys(ledger.names("reads", always=True), products)
        accesses = reads | {"multiplications": products, "accumulator_updates": products}
        return Activity(
            self.multipliers,
            np.array([cycles]),
            slots,
            accesses,
            lambda: moved_once(to_lines(conv, 1, "kernel"), cycles),
        )

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the products with numbers, as many as there are multipliers at a time; see ``Accelerator``."""
        groups, products = [], 0
        made: list[np.ndarray] = []
        pairs = (to_lines(c, 1, "kernel") for c in (conv, self._charged(conv)))
        for lines, charged in zip(*pairs, strict=True):
            rows, columns = (values[..., 0] for values in (lines.rows(), lines.columns()))
            costs = np.einsum("bse,rwe->bsrwe", charged.rows()[..., 0] != 0, charged.columns()[..., 0] != 0)
            executed = np.einsum("bse,rwe->bsrwe", rows, columns) * costs
            groups.append(lines.place(executed.sum(axis=-1)))
            products += int(costs.sum())
            if film is not None:
                both = np.einsum("bse,rwe->bsrwe", rows != 0, columns != 0)[costs]
                made.append(np.where(both, film["effectual"], film["ineffectual"]))
        cycles = -(-products // self.multipliers)
        if film is not None:
            film.shoot(cycles, self.multipliers, cause="edge").reshape(-1)[:products] = np.concatenate(made)
        return np.concatenate(groups, axis=1), cycles

    def _charged(self, conv: Convolution) -> Convolution:
        """The convolution with ones for the zeros that cost, padding among them."""
        first, second = (name.removeprefix("saved_") for name in READS[conv.which])
        skips = getattr(self, f"{conv.which}_skips")
        if skips not in (first, "both"):
            ones = np.ones((*conv.input.shape[:2], *conv.geometry.padded), bool)
            conv = replace(conv, input=ones, padding=(0, 0, 0, 0))
        if skips not in (second, "both"):
            conv = replace(conv, kernel=np.ones(conv.kernel.shape, bool))
        return conv
