"""DSR, Dynamic Sparse Reparameterization: H. Mostafa, X. Wang, ICML 2019, arXiv:1902.05967, algorithm 1.

Masks are random at first. Every P iterations all layers lose the weights whose magnitude is below one global threshold.
If that were more than (1 + δ) of the number wanted, the threshold is halved for the next time; if fewer than (1 − δ),
doubled. As many as went come back as zeros at random places, spread over layers in proportion to the active weights
that each has left. Only active weights get a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from accelsim.capture.algorithms.masked import Masked, shared_out


class Dsr(Masked):
    """See the module. Further parameters are those of :class:`Masked`.

    Parameters
    ----------
    drop : float
        The number wanted, as a share of all active weights (N_p).
    threshold : float
        H at first.
    tolerance : float
        δ.
    """

    def __init__(
        self, model: nn.Module, sparsity: float, *, drop: float = 0.01, threshold: float = 1e-3,
        tolerance: float = 0.1, **how: Any,
    ):  # fmt: skip
        self.drop, self.threshold, self.tolerance = drop, threshold, tolerance
        super().__init__(model, sparsity, **how)
        for state in self.states.values():
            state.masked_update = True

    def change(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Prune by the threshold, adapt it, and grow where most is left."""
        layers = self.sparse
        before = {name: int(mask.sum()) for name, (_, mask) in layers.items()}
        left = {name: mask & (weight.detach().abs() >= self.threshold) for name, (weight, mask) in layers.items()}
        remaining = {name: int(mask.sum()) for name, mask in left.items()}
        gone, wanted = sum(before.values()) - sum(remaining.values()), self.drop * sum(before.values())
        if gone < (1 - self.tolerance) * wanted:
            self.threshold *= 2
        elif gone > (1 + self.tolerance) * wanted:
            self.threshold /= 2
        room = {name: mask.numel() - remaining[name] for name, mask in left.items()}
        for name, count in shared_out(gone, {n: float(r) for n, r in remaining.items()}, room).items():
            self.states[name].mask = self.grown_at_random(left[name], count)

    def state_dict(self) -> dict[str, Any]:
        """With the threshold."""
        return super().state_dict() | {"threshold": self.threshold}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the other one was."""
        super().load_state_dict(state)
        self.threshold = state["threshold"]
