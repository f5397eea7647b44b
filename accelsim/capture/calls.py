"""Which module is running, with what inputs, and what SWAT's layers and their like hand over themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

_call = torch.nn.Module.__call__


@dataclass(eq=False)
class Frame:
    """A module that is running.

    Parameters
    ----------
    module : Module
    name : str or None
        Its path in the model; None of a module that is none of the model's.
    task : int
        The backward pass that it runs in, −1 for none.
    handed, late : dict of str to Tensor
        What it handed over, in its forward and in its backward pass, where it is a layer that does.
    products : list of (str, int)
        Operation and multiplications of the products in it that the layer stands for.
    nodes : list
        Autograd nodes of Functions in it, and the records that each gets.
    """

    module: torch.nn.Module
    name: str | None
    task: int
    is_own: bool = False
    handed: dict[str, torch.Tensor] = field(default_factory=dict)
    late: dict[str, torch.Tensor] = field(default_factory=dict)
    products: list[tuple[str, int]] = field(default_factory=list)
    nodes: list[tuple[Any, list[Any]]] = field(default_factory=list)

    def record(self, name: str, tensor: torch.Tensor) -> None:
        """What such a layer calls."""
        (self.late if name == "gradient" else self.handed).setdefault(name, tensor)


class Calls:
    """A stack of the modules that run, kept by standing in for ``torch.nn.Module.__call__`` while it is attached.

    Parameters
    ----------
    model : Module
    entered : callable
        Told of each call of one of the model's modules, and whether it is an outermost one:
        ``entered(name, args, kwargs, outermost)``.
    left : callable
        Told of the end of each: ``left(frame, args, kwargs, output)``.
    """

    def __init__(
        self, model: torch.nn.Module, entered: Callable[..., None], left: Callable[[Frame, Any, Any, Any], None]
    ):
        self._names = {id(module): _clean(name) or type(module).__name__ for name, module in model.named_modules()}
        self._entered, self._left = entered, left
        self.stack: list[Frame] = []
        self.called: set[str] = set()

    def attach(self) -> None:
        """Watch."""
        stand_in = self

        def call(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            return stand_in._run(module, args, kwargs)

        torch.nn.Module.__call__ = call  # type: ignore[method-assign]

    def remove(self) -> None:
        """Leave everything as it was."""
        torch.nn.Module.__call__ = _call  # type: ignore[method-assign]

    @property
    def frame(self) -> Frame | None:
        """The innermost of the model's modules that is running."""
        return next((frame for frame in reversed(self.stack) if frame.name is not None), None)

    @property
    def own(self) -> Frame | None:
        """The layer that is running and hands its tensors over itself."""
        return self.stack[-1] if self.stack and self.stack[-1].is_own else None

    @property
    def is_foreign(self) -> bool:
        """Whether modules are running, and none is the model's."""
        return bool(self.stack) and self.frame is None

    def _run(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        name = self._names.get(id(module))
        frame = Frame(module, name, torch._C._current_graph_task_id())
        if name is not None:
            self.called.add(name)
            self._entered(name, args, kwargs, self.frame is None)
            frame.is_own = getattr(module, "record", "absent") is None
        self.stack.append(frame)
        before = module.__dict__.get("record", frame)
        if frame.is_own:
            module.__dict__["record"] = frame.record
        fused = _step_by_step(module)
        try:
            output = _call(module, *args, **kwargs)
        finally:
            if fused is not None:
                _set_fused(*fused)
            if frame.is_own:
                if before is frame:
                    module.__dict__.pop("record", None)
                else:
                    module.__dict__["record"] = before
            self.stack.remove(frame)
        if name is not None:
            self._left(frame, args, kwargs, output)
        return output


def _clean(name: str) -> str:
    for wrapper in ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"):
        name = name.replace(f"{wrapper}.", "").removesuffix(f".{wrapper}")
    return "" if name in ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module") else name


def _step_by_step(module: torch.nn.Module) -> tuple[bool, bool] | None:
    """Recurrent layers are one operation in libraries; step by step their products are seen. Gives what was set."""
    if not isinstance(module, torch.nn.RNNBase):
        return None
    before = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    _set_fused(False, False)
    return before


def _set_fused(mkldnn: bool, cudnn: bool) -> None:
    torch._C._set_mkldnn_enabled(mkldnn)
    torch._C._set_cudnn_enabled(cudnn)


def is_recomputing() -> bool:
    """Whether activation checkpointing is running a forward pass again, within a backward pass."""
    if torch._C._current_graph_task_id() == -1 or not torch.is_grad_enabled():
        return False
    frame = inspect.currentframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.endswith("autograd/graph.py") and frame.f_code.co_name == "_engine_run_backward":
            return False
        if file.endswith("utils/checkpoint.py"):
            return True
        frame = frame.f_back
    return False
