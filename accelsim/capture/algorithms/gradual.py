"""Gradual magnitude pruning: M. Zhu, S. Gupta, "To prune, or not to prune", 2017, arXiv:1710.01878, equation 1.

Training begins dense. Every Δt iterations from t₀ on, n times, each layer masks its weights of least magnitude, until
its sparsity is s(t) = s_f + (s_i − s_f)·(1 − (t − t₀)/(n·Δt))³. Masked weights get no gradient and keep their values,
which are compared with the others at the next change. After the last one the masks stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from accelsim.capture.algorithm import momentum_of
from accelsim.capture.algorithms.masked import Masked, pruned
from accelsim.errors import AccelsimError
from accelsim.workload.sparsify import kept


class GradualPruning(Masked):
    """See the module. Further parameters are those of :class:`Masked`.

    Parameters
    ----------
    steps : int
        Of the training.
    begin_at, end_at : float
        First and last change, as shares of the training.
    initial : float
        The sparsity before, s_i.
    """

    def __init__(
        self, model: nn.Module, sparsity: float, *, steps: int, begin_at: float = 0.0, end_at: float = 0.75,
        initial: float = 0.0, **how: Any,
    ):  # fmt: skip
        if not 0 <= begin_at < end_at <= 1:
            raise AccelsimError(f"begin_at, end_at: must be 0 ≤ begin < end ≤ 1, got {begin_at:g}, {end_at:g}")
        self._range, self._initial = (round(begin_at * steps), round(end_at * steps)), initial
        self._held: dict[str, torch.Tensor] = {}
        super().__init__(model, sparsity, **how)

    def begin(self) -> None:
        """Dense, or at the initial sparsity."""
        for state in self.states.values():
            state.masked_update = True
        if self._initial:
            self._mask(self._initial)

    def sparsity_at(self, step: int) -> float:
        """s(t), as a share of each layer's final one."""
        first, last = self._range
        done = min(1.0, max(0.0, (step - first) / max(1, last - first)))
        return self.target + (self._initial - self.target) * float((1 - done) ** 3)

    @property
    def due(self) -> bool:
        """Every Δt, between the first and the last change."""
        first, last = self._range
        return first <= self.iteration <= last and (self.iteration % self.every == 0 or self.iteration == last)

    def change(self, optimizer: torch.optim.Optimizer | None) -> None:
        """The least weights, as many as s(t) says."""
        self._mask(self.sparsity_at(self.iteration))

    def _mask(self, sparsity: float) -> None:
        for name, density in self.densities.items():
            if density < 1 and self.target:
                share = min(1 - density, sparsity * (1 - density) / self.target)
                weight = self.layers[name].weight
                everything = torch.ones_like(weight, dtype=torch.bool)
                drop = weight.numel() - kept(weight.numel(), share)
                self.states[name].mask = pruned(everything, weight, drop)

    def before_update(self, optimizer: torch.optim.Optimizer) -> None:
        """Masked weights are held, against weight decay and momentum too."""
        self._held = {name: weight.detach().clone() for name, (weight, _) in self.sparse.items()}

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """What was masked is as it was; then the masks may change."""
        with torch.no_grad():
            for name, (weight, mask) in self.sparse.items():
                if name in self._held:
                    weight.copy_(torch.where(mask, weight, self._held[name]))
        self._held = {}
        super().step(optimizer)

    @torch.no_grad()
    def apply(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Masked weights keep their values, and lose their momentum."""
        for weight, mask in self.sparse.values():
            momentum = momentum_of(optimizer, weight)
            if momentum is not None:
                momentum.masked_fill_(~mask, 0)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the other one was."""
        super().load_state_dict(state)
        self._held = {}
