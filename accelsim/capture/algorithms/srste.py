"""N:M by SR-STE: A. Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021,
arXiv:2102.04010, equations 5–8.

Of every m consecutive input channels of a filter the n weights of greatest magnitude are multiplied, forward and for
the input gradient, chosen anew in each iteration. The weight gradient is dense and passes straight through; weights
that were not multiplied are drawn to zero besides: ∂W = ∂P + λ·(1 − M)⊙W.
"""

from __future__ import annotations

import torch
from torch import nn

from accelsim.capture.algorithm import Algorithm
from accelsim.capture.algorithms.masked import MaskState
from accelsim.errors import AccelsimError
from accelsim.workload.sparsify import check_sparsity


class PatternState(MaskState):
    """A layer whose mask is the n:m pattern of its weights; dense where m does not divide its input channels."""

    def __init__(self, name: str, n: int, m: int):
        super().__init__(name)
        self.n, self.m = n, m

    def active(self, weight: torch.Tensor) -> torch.Tensor | None:
        """The pattern."""
        self.mask = None if weight.shape[1] % self.m else pattern(weight.detach(), self.n, self.m)
        return self.mask


class SrSte(Algorithm):
    """See the module.

    Parameters
    ----------
    model : Module
    sparsity : float
        n is (1 − sparsity)·m, rounded, at least 1.
    m : int
    decay : float
        λ.
    """

    def __init__(self, model: nn.Module, sparsity: float, *, m: int = 4, decay: float = 2e-4):
        super().__init__(model)
        if type(m) is not int or m < 1:
            raise AccelsimError(f"m: must be an integer from 1, got {m!r}")
        self.n, self.m, self.decay = max(1, round((1 - check_sparsity(sparsity)) * m)), m, decay
        self.states = {name: PatternState(self.label(name), self.n, m) for name in self.shapes}
        self.convert(self.states)

    @torch.no_grad()
    def before_update(self, optimizer: torch.optim.Optimizer) -> None:
        """Weights that were not multiplied shrink."""
        for name, state in self.states.items():
            weight = self.layers[name].weight
            if weight.grad is not None and state.mask is not None:
                weight.grad += self.decay * torch.where(state.mask, 0, weight)


def pattern(weight: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """Of every m consecutive elements along the second axis the n of greatest magnitude; ties to the lowest index."""
    last = weight.abs().movedim(1, -1)
    groups = last.reshape(*last.shape[:-1], -1, m)
    order = groups.sort(dim=-1, descending=True, stable=True).indices[..., :n]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order, True)
    return mask.flatten(-2).movedim(-1, 1)
