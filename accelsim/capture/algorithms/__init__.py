"""Sparse training algorithms by name: what SWAT's paper compares itself with (Table 1, section 2), and its variants.

Each is a file, from its publication's rule, on the same layers as SWAT's (``capture.algorithm``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from accelsim.capture.algorithm import Algorithm
from accelsim.capture.algorithms.dsg import Dsg
from accelsim.capture.algorithms.dsr import Dsr
from accelsim.capture.algorithms.dst import Dst
from accelsim.capture.algorithms.evolutionary import Set
from accelsim.capture.algorithms.gradual import GradualPruning
from accelsim.capture.algorithms.masked import Masked
from accelsim.capture.algorithms.rigl import RigL
from accelsim.capture.algorithms.sensitivity import ForwardTopK
from accelsim.capture.algorithms.snfs import Snfs
from accelsim.capture.algorithms.srste import SrSte
from accelsim.capture.swat import Swat, SwatConfig
from accelsim.errors import AccelsimError


@dataclass(frozen=True)
class Known:
    """An algorithm: what traces call it, what makes it, and options that are not the maker's defaults."""

    title: str
    make: Callable[..., Algorithm]
    options: Mapping[str, Any]

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of its options, besides the sparsity and the steps."""
        if self.make in (_swat, _meprop):
            fixed = ("sparsity", "gradient_sparsity") if self.make is _meprop else ("sparsity",)
            return tuple(f.name for f in fields(SwatConfig) if f.name not in fixed)
        own = [*inspect.signature(self.make).parameters.values()]
        if any(p.kind is p.VAR_KEYWORD for p in own):
            own += inspect.signature(Masked).parameters.values()
        return tuple(p.name for p in own if p.kind is p.KEYWORD_ONLY and p.name != "steps")


def _swat(model: nn.Module, sparsity: float, **options: Any) -> Swat:
    return Swat(model, SwatConfig(sparsity, **options))


def _meprop(model: nn.Module, sparsity: float, **options: Any) -> Swat:
    return Swat(model, SwatConfig(0.0, gradient_sparsity=sparsity, **options))


ALGORITHMS: dict[str, Known] = {
    "swat-u": Known("SWAT-U", _swat, {}),
    "swat-erk": Known("SWAT-ERK", _swat, {"distribution": "erk"}),
    "swat-m": Known("SWAT-M", _swat, {"distribution": "momentum"}),
    "swat-structured": Known("SWAT-U (structured)", _swat, {"structure": "channel"}),
    "swat-masked": Known("SWAT-U, masked updates", _swat, {"masked_update": True}),
    "saw": Known("SAW", _swat, {"sparse_forward": False}),
    "meprop": Known("meProp", _meprop, {}),
    "gmp": Known("gradual magnitude pruning", GradualPruning, {}),
    "set": Known("SET", Set, {}),
    "dsr": Known("DSR", Dsr, {}),
    "snfs": Known("SNFS", Snfs, {}),
    "rigl": Known("RigL", RigL, {}),
    "dst": Known("DST", Dst, {}),
    "dsg": Known("DSG", Dsg, {}),
    "sr-ste": Known("N:M by SR-STE", SrSte, {}),
    "forward-topk": Known("forward Top-K", ForwardTopK, {}),
}


def known(name: str) -> Known:
    """An algorithm by name; AccelsimError if there is none."""
    if name not in ALGORITHMS:
        raise AccelsimError(f"algorithm: must be one of {', '.join(ALGORITHMS)}, got {name}")
    return ALGORITHMS[name]


def build(
    name: str, model: nn.Module, sparsity: float, *, steps: int, options: Mapping[str, Any] | None = None
) -> Algorithm:
    """Convert a model to train by an algorithm.

    Parameters
    ----------
    name : str
        Of ``ALGORITHMS``.
    model : Module
    sparsity : float
    steps : int
        Iterations of the training, which some schedules need.
    options : mapping, optional
        Others than the algorithm's defaults.

    Raises
    ------
    AccelsimError
        If it has no such option, a value makes no sense, or the model cannot be converted.
    """
    of = known(name)
    check_options(name, options or {})
    given = {**of.options, **(options or {})}
    if "steps" in inspect.signature(of.make).parameters:
        given["steps"] = steps
    return of.make(model, sparsity, **given)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises AccelsimError if the algorithm has no such option."""
    takes = known(name).takes
    for option in options:
        if option not in takes:
            raise AccelsimError(f"algorithm {name}: option must be one of {', '.join(takes)}, got {option}")
