"""The sensitivity analysis of SWAT's paper (section 3.2, Figure 1): Top-K in the forward pass only.

Weights or activations are sparsified to be multiplied, and are what they were in the backward pass. Figure 2's other
half is SWAT's ``sparse_forward=False`` and ``gradient_sparsity``.
"""

from __future__ import annotations

import torch
from torch import nn

from accelsim.capture.algorithm import Algorithm, dense_names
from accelsim.capture.states import State
from accelsim.capture.topk import TopK
from accelsim.workload.sparsify import check_sparsity


class ForwardState(State):
    """A layer whose forward pass alone is sparse."""

    sparse_backward = False

    def __init__(self, name: str, weights: float, activations: float):
        super().__init__(name)
        self.weight, self.activation = TopK(1 - weights), TopK(1 - activations, samples=True)

    def active(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Top-K of the weight, which the forward pass multiplies."""
        return None if self.weight.density >= 1 else self.weight.mask(weight.detach(), refresh=True)

    def multiplied(self, x: torch.Tensor) -> torch.Tensor:
        """Top-K of the activation."""
        return self.activation(x, refresh=True)


class ForwardTopK(Algorithm):
    """See the module; the first convolution stays dense.

    Parameters
    ----------
    model : Module
    sparsity : float
        Of the weights.
    activations : float
        Sparsity of the activations.
    """

    def __init__(self, model: nn.Module, sparsity: float, *, activations: float = 0.0):
        super().__init__(model)
        given = check_sparsity(sparsity), check_sparsity(activations, "activations")
        dense = dense_names(self.shapes, True, False)
        self.convert(
            {name: ForwardState(self.label(name), *(0.0, 0.0) if name in dense else given) for name in self.shapes}
        )
