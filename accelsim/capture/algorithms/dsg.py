"""DSG, Dynamic Sparse Graph: L. Liu et al., ICLR 2019, arXiv:1810.00859, section 2.

Neurons are dropped, not weights. Inputs and filters are projected to few dimensions by a sparse random matrix, of
entries ±√3 (each 1/6) and 0 (2/3); their products estimate each output. Of the first sample the (1 − sparsity)·n
greatest estimates stay, and the least of these is the threshold for the others of the batch. What does not stay is not
computed, forward or backward: the output and its gradient are zero there. A batch norm that follows gets the same mask
on its output ("double mask"), so that the next layer's input is sparse. Weights are dense, and the projection fixed.

Dense stay the last linear layer and grouped convolutions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from accelsim.capture.algorithm import Algorithm, dense_names
from accelsim.capture.operations import Convolve, Operation
from accelsim.capture.states import State
from accelsim.workload.sparsify import check_sparsity, kept

MASK = "dsg_mask"  # what a layer's output carries to its batch norm


class ProjectionState(State):
    """A layer that estimates its outputs first."""

    def __init__(self, name: str, sparsity: float, share: float, seed: int):
        super().__init__(name)
        self.sparsity, self.share, self.seed = sparsity, share, seed
        self.chosen: torch.Tensor | None = None
        self._matrix: torch.Tensor | None = None

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The projection: as many rows as dimensions, each in the shape of a filter."""
        if self._matrix is None or self._matrix.dtype != weight.dtype or self._matrix.device != weight.device:
            rows = max(1, math.ceil(self.share * weight[0].numel()))
            drawn = torch.randint(6, (rows, *weight.shape[1:]), generator=torch.Generator().manual_seed(self.seed))
            signs = (drawn == 0).to(weight) - (drawn == 1).to(weight)
            self._matrix = signs * math.sqrt(3 / rows)
        return self._matrix

    def estimate(self, x: torch.Tensor, weight: torch.Tensor, of: Operation) -> torch.Tensor:
        """Of each output, from the projections."""
        matrix = self.matrix(weight)
        inputs, filters = of.product(x, matrix, None), weight.flatten(1) @ matrix.flatten(1).T
        if isinstance(of, Convolve):
            return F.conv2d(inputs, filters[:, :, None, None])
        return F.linear(inputs, filters)

    def outputs(self, out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, of: Operation) -> torch.Tensor | None:
        """Where the estimate reaches the threshold of the first sample."""
        self.chosen = None
        if self.sparsity and not (isinstance(of, Convolve) and of.groups > 1):
            with torch.no_grad():
                estimate = self.estimate(x.detach(), weight, of)
                first = estimate[0].flatten()
                count = kept(first.numel(), self.sparsity)
                self.chosen = estimate >= first.kthvalue(first.numel() - count + 1).values
        return self.chosen


class Dsg(Algorithm):
    """See the module.

    Parameters
    ----------
    model : Module
    sparsity : float
        Of the outputs.
    share : float
        Dimensions after the projection, as a share of a filter's size.
    last_dense : bool
    seed : int
        Of the projections.
    """

    def __init__(
        self, model: nn.Module, sparsity: float, *, share: float = 0.2, last_dense: bool = True, seed: int = 0
    ):
        super().__init__(model)
        check_sparsity(sparsity)
        dense = dense_names(self.shapes, False, last_dense)
        self.states = {
            name: ProjectionState(self.label(name), 0.0 if name in dense else sparsity, share, seed + index)
            for index, name in enumerate(self.shapes)
        }
        self.convert(self.states)
        for name, layer in self.layers.items():
            self._handles.append(layer.register_forward_hook(_marks(self.states[name])))
        norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        self._handles += [norm.register_forward_hook(_second_mask) for norm in norms]


def _marks(state: ProjectionState) -> Any:
    def mark(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if state.chosen is not None:
            setattr(output, MASK, state.chosen.reshape(output.shape))

    return mark


def _second_mask(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
    chosen = getattr(inputs[0], MASK, None)
    return None if chosen is None else torch.where(chosen, output, 0)
