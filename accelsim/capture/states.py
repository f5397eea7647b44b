"""What a layer asks of its algorithm, and what SWAT answers: which weights are active, what is multiplied and saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from accelsim.capture.operations import Operation
from accelsim.capture.topk import TopK
from accelsim.errors import AccelsimError


@dataclass
class Clock:
    """The iteration, shared by all layers."""

    period: int
    iteration: int = 0
    frozen: bool = False

    @property
    def due(self) -> bool:
        return self.iteration % self.period == 0


class Config(Protocol):
    """What a layer asks of ``SwatConfig``."""

    @property
    def structure(self) -> str: ...

    @property
    def weight_scope(self) -> str: ...

    @property
    def activation_scope(self) -> str: ...

    @property
    def sparse_forward(self) -> bool: ...

    @property
    def masked_update(self) -> bool: ...


class State:
    """What a layer asks of its algorithm. As it stands, the answers of dense training.

    Attributes
    ----------
    sparse_forward, sparse_backward : bool
        Whether the forward pass, and the input gradient, multiply by the active weights only.
    masked_update : bool
        Whether only the active weights get a gradient.
    """

    sparse_forward = sparse_backward = True
    masked_update = False

    def __init__(self, name: str):
        self.name = name

    def active(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Mask of the active weights; None where all are."""
        return None

    def multiplied(self, x: torch.Tensor) -> torch.Tensor:
        """The activation as the forward pass multiplies it."""
        return x

    def saved(self, x: torch.Tensor) -> torch.Tensor:
        """The activation as it is saved, and the weight gradient multiplies it."""
        return x

    def outputs(self, out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, of: Operation) -> torch.Tensor | None:
        """Mask of the outputs that are computed; None where all are."""
        return None

    def propagated(self, gradient: torch.Tensor) -> torch.Tensor:
        """The output gradient as both gradients multiply it; the very tensor where nothing is dropped."""
        return gradient

    @property
    def zeros(self) -> dict[str, float | None]:
        """Fraction of zeros of the last weight, and of the last saved activation; None where nobody looked."""
        return {"weight": 0.0, "activation": 0.0}

    def state_dict(self) -> dict[str, Any]:
        """What a later step depends on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class LayerState(State):
    """SWAT's, of one layer: its shares, its thresholds, the active weights."""

    def __init__(self, name: str, config: Config, clock: Clock, maps: bool):
        super().__init__(name)
        self.clock = clock
        self.channels = config.structure == "channel"
        self.sparse_forward, self.masked_update = config.sparse_forward, config.masked_update
        self.weight = TopK(1.0, "CHW" if self.channels else config.weight_scope)
        scope = "CHW" if config.activation_scope == "HW" and not maps else config.activation_scope
        self.activation, self.gradient = TopK(1.0, scope, samples=True), TopK(1.0, scope, samples=True)
        self._fixed: torch.Tensor | None = None
        self._mask: torch.Tensor | None = None
        self._of: tuple[int, bool, int, int] | None = None

    def active(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Mask of the active weights, worked out once an iteration; None where all are."""
        if not self.clock.frozen:
            self._fixed = None
        elif self._fixed is not None:
            self._fixed = self._fixed.to(weight.device)
            return self._fixed
        if self.weight.density >= 1:
            return None
        # A parameter that was changed without step() is seen by its version; a parametrized weight is new each time.
        version = 0 if weight.is_inference() else weight._version
        of = (self.clock.iteration, self.clock.frozen, version, weight.data_ptr())
        if self._mask is None or of != self._of or not isinstance(weight, nn.Parameter):
            # Out of inference mode, lest a mask made while evaluating be refused in training.
            with torch.inference_mode(False), torch.no_grad():
                self._mask, self._of = self._select(weight.detach()), of
        if self.clock.frozen:
            self._fixed = self._mask
        return self._mask

    @property
    def last_active(self) -> torch.Tensor | None:
        """The mask that the last forward pass used; None where all weights were active."""
        if self._fixed is not None:
            return self._fixed
        return None if self.weight.density >= 1 else self._mask

    def saved(self, x: torch.Tensor) -> torch.Tensor:
        """Its Top-K."""
        return self._blamed("activation", self.activation, x, self.clock.due)

    def propagated(self, gradient: torch.Tensor) -> torch.Tensor:
        """Its Top-K where that is asked for. An overflow under a loss scale is the scaler's to see, so NaN passes."""
        if self.gradient.density >= 1 or gradient.isnan().any():
            return gradient
        return self._blamed("gradient", self.gradient, gradient, self.clock.due)

    @property
    def zeros(self) -> dict[str, float | None]:
        """Of what Top-K last kept."""
        weight = 0.0 if self.weight.density >= 1 else self.weight.sparsity
        return {"weight": weight, "activation": self.activation.sparsity}

    def state_dict(self) -> dict[str, Any]:
        """Thresholds, shares, and the active weights where they are fixed."""
        kept = {which: getattr(self, which).state_dict() for which in ("weight", "activation", "gradient")}
        return kept | {"fixed": self._fixed, "mask": self._mask}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for which in ("weight", "activation", "gradient"):
            getattr(self, which).load_state_dict(state[which])
        self._fixed, self._mask, self._of = state["fixed"], state["mask"], None

    def _select(self, weight: torch.Tensor) -> torch.Tensor:
        refresh = self.clock.due or self.clock.frozen
        if not self.channels:
            return self._blamed("weight", self.weight.mask, weight, refresh)
        norms = weight.abs().flatten(2).sum(2, dtype=torch.float64) if weight.ndim > 2 else weight.abs()
        mask = self._blamed("weight", self.weight.mask, norms, refresh)
        return mask.reshape(*mask.shape, *[1] * (weight.ndim - 2)).expand_as(weight)

    def _blamed(
        self, which: str, function: Callable[[torch.Tensor, bool], torch.Tensor], values: torch.Tensor, refresh: bool
    ) -> torch.Tensor:
        try:
            return function(values, refresh)
        except AccelsimError as error:
            raise AccelsimError(f"{self.name}: {which} {error}") from None
