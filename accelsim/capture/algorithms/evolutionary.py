"""SET, Sparse Evolutionary Training: D. C. Mocanu et al., Nature Communications 9, 2383, 2018, algorithm 1.

Masks are random at first. At the end of each epoch a layer loses the share ζ of its positive weights that is nearest to
zero, and the same share of its negative ones, and gets as many new ones at random places, from zero, as in the authors'
code. Only active weights get a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from accelsim.capture.algorithms.masked import Masked, pruned
from accelsim.errors import AccelsimError


class Set(Masked):
    """See the module. Further parameters are those of :class:`Masked`; ``every`` is the epoch.

    Parameters
    ----------
    drop : float
        ζ.
    """

    def __init__(self, model: nn.Module, sparsity: float, *, drop: float = 0.3, **how: Any):
        if not 0 <= drop < 1:
            raise AccelsimError(f"drop: must be in [0, 1), got {drop:g}")
        self.drop = drop
        super().__init__(model, sparsity, **how)
        for state in self.states.values():
            state.masked_update = True

    def change(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Of each sign those nearest to zero go, and others come at random."""
        for name, (weight, mask) in self.sparse.items():
            left = without_nearest_zero(mask, weight, self.drop)
            self.states[name].mask = self.grown_at_random(left, int(mask.sum() - left.sum()))


def without_nearest_zero(mask: torch.Tensor, weight: torch.Tensor, share: float) -> torch.Tensor:
    """The mask without a share of the positive, and of the negative weights. An active zero counts as positive."""
    left = mask
    for of_sign in (mask & (weight >= 0), mask & (weight < 0)):
        count = int(share * int(of_sign.sum()))
        left = left & ~(of_sign & ~pruned(of_sign, weight, count))
    return left
