"""Sparse Weight Activation Training of any model: its convolutions and linear layers become SWAT's, in place.

>>> with convert(model, SwatConfig(sparsity=0.9)) as swat:  # doctest: +SKIP
...     for inputs, targets in loader:
...         optimizer.zero_grad()
...         criterion(model(inputs), targets).backward()
...         optimizer.step()
...         swat.step(optimizer)

Algorithm 1 of the paper (section 3.3, appendix A.1), layer by layer:

==================  ========================================  =================================================
pass                multiplies                                by
==================  ========================================  =================================================
forward             the full activation                       the Top-K weight
input gradient      the full output gradient                  the Top-K weight
weight gradient     the full output gradient                  the Top-K activation, which is all that is saved
==================  ========================================  =================================================

The weight gradient is dense and updates every weight, so that an inactive one can come back. Bias gradients are dense;
every other layer, batch norm among them (A.8), stays what it was. Parameters, their names and an optimizer's hold on
them do not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from accelsim.capture.algorithm import Algorithm, check_momentum, dense_names, momentum_of
from accelsim.capture.states import LayerState
from accelsim.errors import AccelsimError
from accelsim.workload import sparsify

STRUCTURES = ("unstructured", "channel")


@dataclass(frozen=True)
class SwatConfig:
    """What to sparsify, how much, and how often to decide anew. The defaults are SWAT-U as on CIFAR-10.

    Parameters
    ----------
    sparsity : float
        Of the weights, in [0, 1).
    activation_sparsity : float, optional
        Of the activations that the weight gradient uses; by default as the weights, layer by layer.
    distribution : {"uniform", "erk", "momentum"}
        Over layers: :func:`accelsim.workload.sparsify.uniform`, ``erk``, ``momentum`` (section 3.3.2). The last one
        starts uniform over all layers, and is worked out anew, by :meth:`Swat.step`, for each refresh.
    structure : {"unstructured", "channel"}
        Of the weights; ``channel`` drops whole (filter, input channel) kernels by L1 norm (3.3.1).
    weight_scope, activation_scope : {"NCHW", "CHW", "HW"}
        Within what Top-K selects (A.5): the tensor, each filter or sample, each R×S kernel or H×W map. A linear layer
        has no maps: there HW means CHW. Output gradients follow the activations.
    period : int
        Thresholds are exact in every ``period``-th iteration and stay in use in between (3.3.3, A.6): 1 on CIFAR-10,
        1000 on ImageNet.
    first_dense, last_dense : bool
        Under the uniform distribution: leave the first convolution (the first layer where there is none), the last
        linear layer (the last layer) dense, as modules are registered.
    sparse_forward : bool
        False: the forward pass uses the full weight; only the backward pass is sparse. The paper's SAW (A.7).
    gradient_sparsity : float
        Of the output gradients, which SWAT leaves dense. With sparsity 0 this is meProp (A.7). Layers left dense keep
        theirs; the bias always gets the full gradient, and so does a Recorder.
    masked_update : bool
        Only active weights get a gradient (section 4.5, Figure 7).
    freeze_after : int, optional
        From this iteration on the set of active weights is fixed (section 4.5, Figure 8).

    Raises
    ------
    AccelsimError
        If a value is none of these.
    """

    sparsity: float
    activation_sparsity: float | None = None
    distribution: str = "uniform"
    structure: str = "unstructured"
    weight_scope: str = "NCHW"
    activation_scope: str = "NCHW"
    period: int = 1
    first_dense: bool = True
    last_dense: bool = False
    sparse_forward: bool = True
    gradient_sparsity: float = 0.0
    masked_update: bool = False
    freeze_after: int | None = None

    def __post_init__(self) -> None:
        for name in ("sparsity", "activation_sparsity", "gradient_sparsity"):
            if name != "activation_sparsity" or self.activation_sparsity is not None:
                sparsify.check_sparsity(getattr(self, name), name)
        options = {"distribution": sparsify.DISTRIBUTIONS, "structure": STRUCTURES}
        options |= dict.fromkeys(("weight_scope", "activation_scope"), tuple(sparsify.SCOPES))
        for name, known in options.items():
            if getattr(self, name) not in known:
                raise AccelsimError(f"{name}: must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name, least in (("period", 1), ("freeze_after", 0)):
            value = getattr(self, name)
            if (type(value) is not int or value < least) and not (name == "freeze_after" and value is None):
                raise AccelsimError(f"{name}: must be an integer from {least}, got {value!r}")
        for name in ("first_dense", "last_dense", "sparse_forward", "masked_update"):
            if type(getattr(self, name)) is not bool:
                raise AccelsimError(f"{name}: must be true or false, got {getattr(self, name)!r}")
        if self.structure == "channel" and self.weight_scope != "NCHW":
            raise AccelsimError("weight_scope: must be left out with structure channel, which selects in each filter")
        if self.last_dense and self.distribution != "uniform":
            raise AccelsimError(f"last_dense: must be left out with distribution {self.distribution}, which decides")


class Swat(Algorithm):
    """A converted model, see :class:`Algorithm`.

    Attributes
    ----------
    config : SwatConfig
    densities : dict of str to (float, float)
        What each layer is to keep of its weight and of its activation.
    """

    def __init__(self, model: nn.Module, config: SwatConfig):
        super().__init__(model, config.period)
        self.config = config
        self.clock.frozen = config.freeze_after == 0
        self.states = {
            name: LayerState(self.label(name), config, self.clock, maps=len(shape) > 2)
            for name, shape in self.shapes.items()
        }
        self._distribute(None)
        self.convert(self.states)

    @property
    def densities(self) -> dict[str, tuple[float, float]]:
        return {n: (s.weight.density, s.activation.density) for n, s in self.states.items()}

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """An iteration is complete: call it once after each ``optimizer.step()``.

        Parameters
        ----------
        optimizer : Optimizer, optional
            Needed by the momentum distribution, which reads its momentum (Adam's: the first moment).

        Raises
        ------
        AccelsimError
            If the momentum distribution gets no optimizer with momentum.
        """
        momentum = self.config.distribution == "momentum"
        if momentum:
            check_momentum(optimizer, "distribution momentum")
        super().step(optimizer)
        if self.iteration == self.config.freeze_after:
            self.freeze()
        if momentum and self.clock.due and not self.clock.frozen:
            self._distribute(self._momenta(optimizer))

    def freeze(self) -> None:
        """The active weights stay the same from the next forward pass on: the Top-K of what they then are."""
        self.clock.frozen = True

    def unfreeze(self) -> None:
        """Topology exploration goes on."""
        self.clock.frozen = False

    def sparsity(self) -> dict[str, dict[str, float | None]]:
        """As every algorithm's, with ``gradient`` where that is sparsified."""
        reached = super().sparsity()
        if self.config.gradient_sparsity:
            for name in reached:
                of = self.states[name].gradient
                reached[name]["gradient"] = 0.0 if of.density >= 1 else of.sparsity
        return reached

    def _distribute(self, momenta: dict[str, float] | None) -> None:
        """Give each layer its densities; without momenta as yet, the momentum distribution is uniform."""
        sparsity, other = self.config.sparsity, self.config.activation_sparsity
        weights = self._shares(sparsity, momenta)
        activations = weights if other is None else self._shares(other, momenta)
        for name, state in self.states.items():
            state.weight.density, state.activation.density = weights[name], activations[name]
            held = self.config.distribution == "uniform" and name in self._dense()
            state.gradient.density = 1.0 if held else 1 - self.config.gradient_sparsity

    def _shares(self, sparsity: float, momenta: dict[str, float] | None) -> dict[str, float]:
        if self.config.distribution == "uniform":
            return sparsify.uniform(self.shapes, sparsity, self._dense())
        if self.config.distribution == "erk":
            return sparsify.erk(self.shapes, sparsity)
        # A layer without momentum, a frozen one, has no say: it keeps the average.
        shares = sparsify.uniform(self.shapes, sparsity, ())
        shapes = {name: self.shapes[name] for name in momenta or ()}
        return shares | (sparsify.momentum(shapes, sparsity, momenta) if shapes and momenta else {})

    def _dense(self) -> set[str]:
        """Names of the layers that the uniform distribution leaves dense."""
        return dense_names(self.shapes, self.config.first_dense, self.config.last_dense)

    def _momenta(self, optimizer: torch.optim.Optimizer | None) -> dict[str, float]:
        """Mean |momentum| of the active weights of each layer that has momentum."""
        momenta = {}
        for name, module in self.layers.items():
            buffer = momentum_of(optimizer, module.weight)
            if buffer is not None:
                active = self.states[name].last_active
                buffer = buffer.detach().abs()
                chosen = buffer if active is None else buffer[active]
                momenta[name] = float(chosen.mean()) if chosen.numel() else 0.0
        return momenta


def convert(model: nn.Module, config: SwatConfig) -> Swat:
    """Make every ``Conv2d`` and ``Linear`` of a model train by SWAT, in place.

    What changes and what stays says :class:`Algorithm`.

    Parameters
    ----------
    model : Module
    config : SwatConfig

    Returns
    -------
    Swat
        Call its :meth:`~Swat.step` after each iteration; :meth:`~Swat.restore`, or leaving its ``with`` block, undoes
        the conversion.

    Raises
    ------
    AccelsimError
        If the model has no such layer, one that is lazy and has no shape yet, or is converted already. While training:
        if a weight or an activation holds NaN when its threshold is recomputed, or if a second derivative is asked for.

    Notes
    -----
    Autograd keeps the Top-K activation in place of the dense one; a ReLU before the layer still keeps its own output.
    Thresholds of activations scoped CHW or HW are, between refreshes, the mean over the samples of the last refresh.
    A module called several times in an iteration refreshes its activation threshold each time; the last stays.
    """
    return Swat(model, config)
