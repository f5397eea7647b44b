"""RigL, Rigging the Lottery: U. Evci et al., ICML 2020, arXiv:1911.11134, algorithm 1.

Masks are random at first. Every ΔT iterations until T_end, in place of an update of the weights, each layer loses the
share f = α/2·(1 + cos(π·t/T_end)) of its active weights, those of least magnitude, and gets as many where the gradient
of that batch is greatest among all others, those that just went included; new ones start from zero. The gradient is
dense in those iterations only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from accelsim.capture.algorithms.masked import Masked, grown, pruned


class RigL(Masked):
    """See the module. Further parameters are those of :class:`Masked`.

    Parameters
    ----------
    steps : int
        Of the training.
    drop : float
        α.
    until : float
        T_end, as a share of the training.
    """

    def __init__(
        self, model: nn.Module, sparsity: float, *, steps: int, drop: float = 0.3, until: float = 0.75, **how: Any
    ):
        self.drop, self.last = drop, round(until * steps)
        super().__init__(model, sparsity, **how)
        self._announce()

    def share(self, step: int) -> float:
        """f of an iteration."""
        return self.drop * (1 + math.cos(math.pi * step / self.last)) / 2

    @property
    def due(self) -> bool:
        """Every ΔT, until T_end."""
        return super().due and self.iteration < self.last

    def before_update(self, optimizer: torch.optim.Optimizer) -> None:
        """In an iteration whose masks change nothing else does: without a gradient an optimizer leaves a weight."""
        if not self.due:
            return
        for name, (weight, mask) in self.sparse.items():
            count = int(self.share(self.iteration) * int(mask.sum()))
            if weight.grad is not None:
                self.states[name].mask = grown(pruned(mask, weight, count), weight.grad.abs(), count)
        self.apply(optimizer)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """An iteration is complete; the masks changed before, if at all."""
        self.clock.iteration += 1
        self.apply(optimizer)
        self._announce()

    def load_state_dict(self, state: Any) -> None:
        """Go on where the other one was."""
        super().load_state_dict(state)
        self._announce()

    def _announce(self) -> None:
        """The next iteration's gradients are dense only where it will read them."""
        for each in self.states.values():
            each.masked_update = not self.due
