"""DST, Dynamic Sparse Training: J. Liu et al., ICLR 2020, arXiv:2005.06870, equations 1–7.

Each filter (row of a linear layer) has a threshold t that is trained, from 0. In use are the weights
P = W⊙S(abs(W) − t), S the unit step. Backward, the step's derivative is a long-tailed estimate H, so that weights and
thresholds get

    ∂W = ∂P ⊙ (M + W ⊙ H(abs(W) − t) ⊙ sign(W))        ∂t = −Σ ∂P ⊙ W ⊙ H(abs(W) − t)  −  α·exp(−t)

∂P is the dense weight gradient; the last term is of the loss α·Σ exp(−t), which drives the sparsity. There is no target
in the paper. So that it can be compared at one, here α rests while the network is sparser than ``sparsity``; with
``rests=False`` it never does. A layer masked but for 1 % gets its thresholds back to 0, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from accelsim.capture.algorithm import Algorithm, dense_names
from accelsim.capture.algorithms.masked import MaskState
from accelsim.workload.sparsify import check_sparsity

FEWEST = 0.01  # of a layer's weights


class ThresholdState(MaskState):
    """A layer whose mask follows its weights and its thresholds."""

    threshold: nn.Parameter | None = None

    def distance(self, weight: torch.Tensor) -> torch.Tensor | None:
        """abs(W) − t; None of a dense layer."""
        if self.threshold is None:
            return None
        t = self.threshold.detach().to(weight.device)
        return weight.detach().abs() - t.reshape(-1, *[1] * (weight.ndim - 1))

    def active(self, weight: torch.Tensor) -> torch.Tensor | None:
        """S(abs(W) − t)."""
        distance = self.distance(weight)
        self.mask = None if distance is None else distance > 0
        if self.mask is not None and self.threshold is not None and float(self.mask.float().mean()) <= FEWEST:
            with torch.no_grad():
                self.threshold.zero_()
            self.mask = weight.detach() != 0
        return self.mask


class Dst(Algorithm):
    """See the module.

    Parameters
    ----------
    model : Module
    sparsity : float
        Where α rests.
    alpha : float
    rests : bool
    first_dense, last_dense : bool
        Leave the first convolution, the last linear layer dense.
    """

    def __init__(
        self, model: nn.Module, sparsity: float, *, alpha: float = 1e-4, rests: bool = True,
        first_dense: bool = True, last_dense: bool = False,
    ):  # fmt: skip
        super().__init__(model)
        self.alpha, self.rests, self.target = alpha, rests, check_sparsity(sparsity)
        self.states = {name: ThresholdState(self.label(name)) for name in self.shapes}
        dense = dense_names(self.shapes, first_dense, last_dense)
        self.convert(self.states)
        for name, state in self.states.items():
            if name not in dense:
                state.threshold = nn.Parameter(self.layers[name].weight.new_zeros(self.shapes[name][0]))

    def parameters(self) -> list[nn.Parameter]:
        """The thresholds."""
        return [state.threshold for state in self.states.values() if state.threshold is not None]

    @property
    def reached(self) -> float:
        """The share of zeros among all weights that have thresholds, in the last forward pass."""
        masks = [state.mask for state in self.states.values() if state.mask is not None]
        return 1 - sum(int(m.sum()) for m in masks) / max(1, sum(m.numel() for m in masks))

    @torch.no_grad()
    def before_update(self, optimizer: torch.optim.Optimizer) -> None:
        """From the gradient of what was multiplied to those of weights and thresholds."""
        alpha = 0.0 if self.rests and self.reached >= self.target else self.alpha
        for name, state in self.states.items():
            weight, mask = self.layers[name].weight, state.mask
            distance = state.distance(weight)
            if state.threshold is None or weight.grad is None or mask is None or distance is None:
                continue
            through = weight.grad * weight * slope(distance)
            t = state.threshold
            t.grad = -through.flatten(1).sum(1).to(t.device) - alpha * torch.exp(-t)
            weight.grad = weight.grad * mask + through * weight.sign()

    def state_dict(self) -> dict[str, Any]:
        """With the thresholds."""
        return super().state_dict() | {"thresholds": [t.detach().clone() for t in self.parameters()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the other one was."""
        super().load_state_dict(state)
        with torch.no_grad():
            for own, other in zip(self.parameters(), state["thresholds"], strict=True):
                own.copy_(other)


def slope(x: torch.Tensor) -> torch.Tensor:
    """H, the long-tailed estimate: 2 − 4|x| up to 0.4, then 0.4 up to 1, then 0 (equation 4)."""
    x = x.abs()
    return torch.where(x <= 0.4, 2 - 4 * x, torch.where(x <= 1, 0.4, 0.0).to(x))
