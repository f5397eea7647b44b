"""What every training algorithm is: a model whose convolutions and linear layers ask it what to multiply.

>>> with RigL(model, 0.9, steps=10_000) as algorithm:  # doctest: +SKIP
...     optimizer.add_param_group({"params": algorithm.parameters()})
...     for inputs, targets in loader:
...         optimizer.zero_grad()
...         criterion(model(inputs), targets).backward()
...         algorithm.before_update(optimizer)
...         optimizer.step()
...         algorithm.step(optimizer)

A checkpoint of the training holds ``algorithm.state_dict()`` beside those of the model and of the optimizer; what is
resumed from the three goes on bit by bit as it would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, cast

import torch
from torch import nn

from accelsim.capture.states import Clock, State
from accelsim.capture.swat_layers import SwatConv2d, SwatLayer, SwatLinear
from accelsim.errors import AccelsimError


class Algorithm:
    """A converted model. As a context manager it restores the model at the end, in whatever way that comes.

    Layers change their class, and nothing else: parameters, the keys of the state_dict, hooks and an optimizer built
    before or after stay valid. Parametrized layers are converted too. Left alone, and listed in ``skipped``: a
    subclass with a forward of its own, the output projection of ``MultiheadAttention`` (which runs it by its own code),
    a layer of complex numbers.

    Parameters
    ----------
    model : Module
    period : int
        Of the clock that the layers see.

    Attributes
    ----------
    layers : dict of str to Module
        The converted layers by name; the model itself has the name "".
    skipped : dict of str to str
        Convolutions and linear layers that were left alone, and why.
    shapes : dict of str to tuple
        Of the weights.

    Raises
    ------
    AccelsimError
        If the model has no such layer, one that is lazy and has no shape yet, or is converted already.
    """

    def __init__(self, model: nn.Module, period: int = 1):
        self._found, self.skipped = _find(model)
        self._kind = type(model).__name__
        self._classes = {name: type(module) for name, module in self._found.items()}
        self.shapes = {name: tuple(module.weight.shape) for name, module in self._found.items()}
        self.clock = Clock(period)
        self.layers: dict[str, SwatLayer] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def convert(self, states: Mapping[str, State]) -> None:
        """Make the layers ask these. A subclass calls it once, with a state for each of ``shapes``."""
        for name, module in self._found.items():
            layer: nn.Module = module
            layer.__class__ = _swat_class(type(module))
            self.layers[name] = cast(SwatLayer, layer)
            self.layers[name].swat = states[name]
        self._found = {}

    def label(self, name: str) -> str:
        """What messages call a layer."""
        return name or self._kind

    @property
    def iteration(self) -> int:
        """Calls of :meth:`step` so far."""
        return self.clock.iteration

    def parameters(self) -> list[nn.Parameter]:
        """What it trains besides the model's own, for the optimizer."""
        return []

    def before_update(self, optimizer: torch.optim.Optimizer) -> None:
        """The gradients are there: call it once between ``backward()`` and ``optimizer.step()``."""

    def step(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """An iteration is complete: call it once after each ``optimizer.step()``."""
        self.clock.iteration += 1

    def sparsity(self) -> dict[str, dict[str, float | None]]:
        """Fraction of zeros reached, by layer: ``weight``, ``activation`` (as saved).

        Of the last forward and backward pass; natural zeros count; None before the first.
        """
        return {name: layer.swat.zeros for name, layer in self.layers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on, beside the model and the optimizer: schedule, masks, thresholds."""
        layers = {name: layer.swat.state_dict() for name, layer in self.layers.items()}
        return {"iteration": self.iteration, "frozen": self.clock.frozen, "layers": layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the other one was. Raises AccelsimError if its layers were others."""
        if state["layers"].keys() != self.layers.keys():
            raise AccelsimError(f"state: must be of layers {', '.join(self.layers)}; got {', '.join(state['layers'])}")
        self.clock.iteration, self.clock.frozen = state["iteration"], state["frozen"]
        for name, layer in self.layers.items():
            layer.swat.load_state_dict(state["layers"][name])

    def restore(self) -> None:
        """Make the layers what they were; their parameters keep what they have learned."""
        for name, layer in self.layers.items():
            module: nn.Module = layer
            module.__class__ = self._classes[name]
            for attribute in ("swat", "record", "watch"):
                module.__dict__.pop(attribute, None)
        self.layers = {}
        while self._handles:
            self._handles.pop().remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()


def dense_names(shapes: Mapping[str, tuple[int, ...]], first: bool, last: bool) -> set[str]:
    """The layers that a uniform distribution leaves dense: the first convolution, the last linear layer, if asked."""
    names = list(shapes)
    begins = next((name for name in names if len(shapes[name]) > 2), names[0])
    ends = next((name for name in reversed(names) if len(shapes[name]) == 2), names[-1])
    return {name for name, dense in ((begins, first), (ends, last)) if dense}


def momentum_of(optimizer: torch.optim.Optimizer | None, weight: torch.Tensor) -> torch.Tensor | None:
    """The momentum of a parameter (Adam's: the first moment), the very tensor; None where it has none."""
    state: dict[str, torch.Tensor] = {} if optimizer is None else optimizer.state.get(weight, {})
    return next((b for b in map(state.get, ("momentum_buffer", "exp_avg")) if b is not None), None)


def check_momentum(optimizer: torch.optim.Optimizer | None, what: str) -> None:
    """Raises AccelsimError unless the optimizer has momentum, which ``what`` needs."""
    groups = getattr(optimizer, "param_groups", [])
    if not any(group.get("momentum") or "betas" in group for group in groups):
        raise AccelsimError(f"{what}: step() must get the optimizer, and that have momentum")


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
