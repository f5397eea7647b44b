"""What algorithms that train under a mask have in common: weights outside it are zero until the mask changes.

The forward pass and the input gradient multiply by what the mask leaves, the weight gradient by dense operands. Whether
it is used densely, or only where the mask is, each algorithm says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from accelsim.capture.algorithm import Algorithm, dense_names, momentum_of
from accelsim.capture.states import State
from accelsim.errors import AccelsimError
from accelsim.workload import sparsify


class MaskState(State):
    """A layer under a mask; None: a dense one."""

    mask: torch.Tensor | None = None

    def active(self, weight: torch.Tensor) -> torch.Tensor | None:
        """The mask."""
        if self.mask is not None and self.mask.device != weight.device:
            self.mask = self.mask.to(weight.device)
        return self.mask

    @property
    def zeros(self) -> dict[str, float | None]:
        """Of the mask; activations are as they come."""
        return {"weight": 0.0 if self.mask is None else 1 - float(self.mask.float().mean()), "activation": 0.0}

    def state_dict(self) -> dict[str, Any]:
        """The mask."""
        return {"mask": self.mask}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on under that mask."""
        self.mask = state["mask"]


class Masked(Algorithm):
    """Weights under masks that change every so many iterations.

    Parameters
    ----------
    model : Module
    sparsity : float
        Of the weights, in [0, 1).
    every : int
        Iterations from one change of the masks to the next.
    distribution : {"uniform", "erk"}
        Of the sparsity over layers.
    first_dense, last_dense : bool
        Under the uniform distribution: leave the first convolution, the last linear layer dense.
    seed : int
        Of what is chosen at random.
    """

    def __init__(
        self, model: nn.Module, sparsity: float, *, every: int = 100, distribution: str = "uniform",
        first_dense: bool = True, last_dense: bool = False, seed: int = 0,
    ):  # fmt: skip
        super().__init__(model)
        if type(every) is not int or every < 1:
            raise AccelsimError(f"every: must be an integer from 1, got {every!r}")
        self.every, self.target = every, sparsify.check_sparsity(sparsity)
        self.generator = torch.Generator().manual_seed(seed)
        self.states = {name: MaskState(self.label(name)) for name in self.shapes}
        self.densities = self._shares(distribution, first_dense, last_dense)
        self.convert(self.states)
        self.begin()

    def _shares(self, distribution: str, first_dense: bool, last_dense: bool) -> dict[str, float]:
        if distribution == "erk":
            return sparsify.erk(self.shapes, self.target)
        if distribution != "uniform":
            raise AccelsimError(f"distribution: must be uniform or erk, got {distribution!r}")
        return sparsify.uniform(self.shapes, self.target, dense_names(self.shapes, first_dense, last_dense))

    def begin(self) -> None:
        """The first masks: at random, exactly as many as each layer is to keep; the other weights become zero."""
        for name, density in self.densities.items():
            if density < 1:
                mask = torch.zeros(self.shapes[name], dtype=torch.bool)
                self.states[name].mask = self.grown_at_random(mask, sparsify.kept(mask.numel(), 1 - density))
        self.apply(None)

    @property
    def sparse(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Weight and mask of each layer that has one."""
        found = {n: (layer.weight, self.states[n].active(layer.weight)) for n, layer in self.layers.items()}
        return {name: (weight, mask) for name, (weight, mask) in found.items() if mask is not None}

    @property
    def due(self) -> bool:
        """Whether the masks change in this iteration."""
        return self.iteration > 0 and self.iteration % self.every == 0

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """An iteration is complete; where it is time the masks change."""
        super().step(optimizer)
        if self.due:
            self.change(optimizer)
        self.apply(optimizer)

    def change(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Choose the masks anew."""

    @torch.no_grad()
    def apply(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Weights outside the masks become zero, and their momentum."""
        for weight, mask in self.sparse.values():
            weight.masked_fill_(~mask, 0)
            momentum = momentum_of(optimizer, weight)
            if momentum is not None:
                momentum.masked_fill_(~mask, 0)

    def state_dict(self) -> dict[str, Any]:
        """With the random numbers to come."""
        return super().state_dict() | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the other one was."""
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])

    def grown_at_random(self, mask: torch.Tensor, count: int) -> torch.Tensor:
        """The mask with so many more, each inactive one as likely as any other."""
        scores = torch.rand(mask.numel(), generator=self.generator, dtype=torch.float64).reshape(mask.shape)
        return grown(mask, scores.to(mask.device), count)


def grown(mask: torch.Tensor, scores: torch.Tensor, count: int) -> torch.Tensor:
    """The mask with the ``count`` inactive ones of greatest score; of equal ones the lowest index."""
    flat = torch.where(mask, -torch.inf, scores.double()).flatten()
    chosen = flat.sort(descending=True, stable=True).indices[: min(count, int((~mask).sum()))]
    result = mask.flatten().clone()
    result[chosen] = True
    return result.reshape(mask.shape)


def pruned(mask: torch.Tensor, weight: torch.Tensor, count: int) -> torch.Tensor:
    """The mask without the ``count`` active ones of least magnitude; of equal ones the lowest index goes."""
    flat = torch.where(mask, weight.detach().abs().double(), torch.inf).flatten()
    gone = flat.sort(stable=True).indices[: min(count, int(mask.sum()))]
    result = mask.flatten().clone()
    result[gone] = False
    return result.reshape(mask.shape)


def shared_out(total: int, scores: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """``total`` by layer in proportion to scores, whole numbers, none above its room; what does not fit goes on.

    Remainders go to the layers that miss most. All is given as far as there is room.
    """
    given = dict.fromkeys(room, 0)
    while total > 0:
        open_ones = {name: scores[name] for name in room if given[name] < room[name]}
        if not open_ones:
            break
        whole = sum(open_ones.values())
        wanted = {n: total * s / whole if whole > 0 else total / len(open_ones) for n, s in open_ones.items()}
        parts = {n: min(math.floor(w), room[n] - given[n]) for n, w in wanted.items()}
        if not any(parts.values()):
            first = sorted(open_ones, key=lambda n: -wanted[n])[: min(total, len(open_ones))]
            parts = dict.fromkeys(first, 1)
        for name, part in parts.items():
            given[name] += part
        total -= sum(parts.values())
    return given
