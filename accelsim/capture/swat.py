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
from typing import cast

import torch
from torch import nn

from accelsim.capture.swat_layers import Clock, LayerState, SwatConv2d, SwatLayer, SwatLinear
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
        False: the forward pass uses the full weight; only the backward pass is sparse. The paper's SAW (A.7). A
        Recorder refuses it, since a trace has one weight for both.
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


class Swat:
    """A converted model. As a context manager it restores the model at the end, in whatever way that comes.

    Attributes
    ----------
    config : SwatConfig
    layers : dict of str to Module
        The SWAT layers by name; the model itself has the name "".
    skipped : dict of str to str
        Convolutions and linear layers that were left alone, and why.
    densities : dict of str to (float, float)
        What each layer is to keep of its weight and of its activation.
    """

    def __init__(self, model: nn.Module, config: SwatConfig):
        self.config = config
        found, self.skipped = _find(model)
        self._classes = {name: type(module) for name, module in found.items()}
        self._clock = Clock(config.period, frozen=config.freeze_after == 0)
        states = {
            name: LayerState(name or type(model).__name__, config, self._clock, maps=isinstance(module, nn.Conv2d))
            for name, module in found.items()
        }
        self._shapes = {name: tuple(module.weight.shape) for name, module in found.items()}
        self._distribute(states, None)
        self.layers: dict[str, SwatLayer] = {}
        for name, module in found.items():
            layer: nn.Module = module
            layer.__class__ = _swat_class(type(module))
            self.layers[name] = cast(SwatLayer, layer)
            self.layers[name].swat = states[name]

    @property
    def iteration(self) -> int:
        """Calls of :meth:`step` so far."""
        return self._clock.iteration

    @property
    def densities(self) -> dict[str, tuple[float, float]]:
        return {n: (m.swat.weight.density, m.swat.activation.density) for n, m in self.layers.items()}

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
        groups = getattr(optimizer, "param_groups", [])
        if momentum and not any(group.get("momentum") or "betas" in group for group in groups):
            raise AccelsimError("distribution momentum: step() must get the optimizer, and that have momentum")
        self._clock.iteration += 1
        if self.iteration == self.config.freeze_after:
            self.freeze()
        if momentum and self._clock.due and not self._clock.frozen:
            states = {name: module.swat for name, module in self.layers.items()}
            self._distribute(states, self._momenta(optimizer))

    def freeze(self) -> None:
        """The active weights stay the same from the next forward pass on: the Top-K of what they then are."""
        self._clock.frozen = True

    def unfreeze(self) -> None:
        """Topology exploration goes on."""
        self._clock.frozen = False

    def sparsity(self) -> dict[str, dict[str, float | None]]:
        """Fraction of zeros reached, by layer: ``weight``, ``activation`` (as saved), ``gradient`` (if sparsified).

        Of the last forward and backward pass; natural zeros count; None before the first.
        """
        reached: dict[str, dict[str, float | None]] = {}
        for name, module in self.layers.items():
            state = module.swat
            dense = state.weight.density >= 1
            reached[name] = {
                "weight": 0.0 if dense else state.weight.sparsity,
                "activation": state.activation.sparsity,
            }
            if self.config.gradient_sparsity:
                reached[name]["gradient"] = 0.0 if state.gradient.density >= 1 else state.gradient.sparsity
        return reached

    def restore(self) -> None:
        """Make the layers what they were; their parameters keep what they have learned."""
        for name, layer in self.layers.items():
            module: nn.Module = layer
            module.__class__ = self._classes[name]
            for attribute in ("swat", "record"):
                module.__dict__.pop(attribute, None)
        self.layers = {}

    def __enter__(self) -> Swat:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    def _distribute(self, states: dict[str, LayerState], momenta: dict[str, float] | None) -> None:
        """Give each layer its densities; without momenta as yet, the momentum distribution is uniform."""
        sparsity, other = self.config.sparsity, self.config.activation_sparsity
        weights = self._shares(sparsity, momenta)
        activations = weights if other is None else self._shares(other, momenta)
        for name, state in states.items():
            state.weight.density, state.activation.density = weights[name], activations[name]
            held = self.config.distribution == "uniform" and name in self._dense()
            state.gradient.density = 1.0 if held else 1 - self.config.gradient_sparsity

    def _shares(self, sparsity: float, momenta: dict[str, float] | None) -> dict[str, float]:
        if self.config.distribution == "uniform":
            return sparsify.uniform(self._shapes, sparsity, self._dense())
        if self.config.distribution == "erk":
            return sparsify.erk(self._shapes, sparsity)
        # A layer without momentum, a frozen one, has no say: it keeps the average.
        shares = sparsify.uniform(self._shapes, sparsity, ())
        shapes = {name: self._shapes[name] for name in momenta or ()}
        return shares | (sparsify.momentum(shapes, sparsity, momenta) if shapes and momenta else {})

    def _dense(self) -> set[str]:
        """Names of the layers that the uniform distribution leaves dense."""
        names = list(self._shapes)
        first = next((name for name in names if len(self._shapes[name]) > 2), names[0])
        last = next((name for name in reversed(names) if len(self._shapes[name]) == 2), names[-1])
        return {name for name, dense in ((first, self.config.first_dense), (last, self.config.last_dense)) if dense}

    def _momenta(self, optimizer: torch.optim.Optimizer | None) -> dict[str, float]:
        """Mean |momentum| of the active weights of each layer that has momentum."""
        momenta = {}
        for name, module in self.layers.items():
            state: dict[str, torch.Tensor] = {} if optimizer is None else optimizer.state.get(module.weight, {})
            buffer = next((b for b in map(state.get, ("momentum_buffer", "exp_avg")) if b is not None), None)
            if buffer is not None:
                active = module.swat.last_active
                buffer = buffer.detach().abs()
                chosen = buffer if active is None else buffer[active]
                momenta[name] = float(chosen.mean()) if chosen.numel() else 0.0
        return momenta


def convert(model: nn.Module, config: SwatConfig) -> Swat:
    """Make every ``Conv2d`` and ``Linear`` of a model train by SWAT, in place.

    Layers change their class, and nothing else: parameters, the keys of the state_dict, hooks and an optimizer built
    before or after stay valid. Parametrized layers are converted too. Left alone, and listed in ``Swat.skipped``: a
    subclass with a forward of its own, the output projection of ``MultiheadAttention`` (which runs it by its own code),
    a layer of complex numbers.

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


def _find(model: nn.Module) -> tuple[dict[str, nn.Conv2d | nn.Linear], dict[str, str]]:
    """Layers to convert, and those left alone with the reason."""
    found: dict[str, nn.Conv2d | nn.Linear] = {}
    skipped: dict[str, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        if isinstance(module, SwatLayer):
            raise AccelsimError(f"model: must not be converted yet, but {name or 'it'} is; restore it first")
        if isinstance(module, nn.modules.lazy.LazyModuleMixin):
            raise AccelsimError(f"{name}: a lazy layer must get its shape first; run the model once")
        if _has_own_forward(module):
            skipped[name] = f"{type(module).__name__} has a forward of its own"
        elif isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            skipped[name] = "run by MultiheadAttention without its forward"
        elif module.weight.is_complex():
            skipped[name] = "complex numbers"
        else:
            found[name] = module
    if not found:
        also = f" but {next(iter(skipped.values()))}" if skipped else ""
        raise AccelsimError(f"model: must have a Conv2d or Linear, {type(model).__name__} has none{also}")
    return found, skipped


def _has_own_forward(module: nn.Conv2d | nn.Linear) -> bool:
    """Whether a subclass computes something else."""
    if isinstance(module, nn.Linear):
        return type(module).forward is not nn.Linear.forward
    kind = type(module)
    return kind.forward is not nn.Conv2d.forward or kind._conv_forward is not nn.Conv2d._conv_forward


def _swat_class(kind: type[nn.Module]) -> type[SwatLayer]:
    """The class of a converted layer; a subclass, a parametrized one say, keeps what it adds."""
    base = SwatConv2d if issubclass(kind, nn.Conv2d) else SwatLinear
    return base if kind in (nn.Conv2d, nn.Linear) else type(f"Swat{kind.__name__}", (base, kind), {})
