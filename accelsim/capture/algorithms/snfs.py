"""SNFS, Sparse Networks from Scratch: T. Dettmers, L. Zettlemoyer, 2019, arXiv:1907.04840, algorithm 1.

Masks are random at first. At the end of each epoch a layer loses the share p of its active weights of least magnitude;
p falls along a half cosine to the end of the training. As many as went in all come back, spread over layers in
proportion to the mean magnitude of momentum of their active weights, at the inactive places where it is greatest, from
zero. So the gradient is dense in every iteration, and the momentum of inactive weights is kept.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from accelsim.capture.algorithm import check_momentum, momentum_of
from accelsim.capture.algorithms.masked import Masked, grown, pruned, shared_out


class Snfs(Masked):
    """See the module. Further parameters are those of :class:`Masked`; ``every`` is the epoch.

    Parameters
    ----------
    steps : int
        Of the training.
    drop : float
        p at first.
    """

    def __init__(self, model: nn.Module, sparsity: float, *, steps: int, drop: float = 0.5, **how: Any):
        self.steps, self.drop = steps, drop
        super().__init__(model, sparsity, **how)

    def rate(self, step: int) -> float:
        """p of an iteration."""
        return self.drop * (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2

    def change(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Prune by magnitude, grow by momentum."""
        check_momentum(optimizer, "SNFS")
        layers, rate = self.sparse, self.rate(self.iteration)
        velocity = {name: momentum_of(optimizer, weight) for name, (weight, _) in layers.items()}
        moving = {name: v.abs() for name, v in velocity.items() if v is not None}
        scores = {name: float(v[layers[name][1]].mean()) for name, v in moving.items()}
        left, gone = {}, 0
        for name in moving:
            weight, mask = layers[name]
            count = math.ceil(rate * int(mask.sum()))
            left[name], gone = pruned(mask, weight, count), gone + count
        room = {name: int((~mask).sum()) for name, mask in left.items()}
        for name, count in shared_out(gone, scores, room).items():
            self.states[name].mask = grown(left[name], moving[name], count)

    @torch.no_grad()
    def apply(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Weights outside the masks become zero; their momentum decides who grows."""
        for weight, mask in self.sparse.values():
            weight.masked_fill_(~mask, 0)
