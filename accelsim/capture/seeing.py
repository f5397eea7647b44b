"""Every operation of a step, seen below autograd, where each product of whatever layer arrives as one of a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.autograd.function import _SingleLevelFunction
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

# What multiplies, and in how far nobody counts; and words that are found in the names of others that do.
OPAQUE_PARTS = ("rnn", "cdist", "sparse", "_mm", "trilinear", "linalg", "einsum", "attention", "int8", "lstm_cell_")
NOT_OPAQUE = ("linalg_vector_norm", "linalg_cross", "sparse_coo_tensor", "_sparse_semi_structured_tile")

BACKENDS = ("CPU", "CUDA")

See = Callable[[Any, str, Sequence[Any], dict[str, Any], Any], None]


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells ``see(func, name, args, kwargs, output)`` of every operation, and ``before()`` before it runs."""

    def __init__(self, see: See, before: Callable[[], None], is_busy: Callable[[], bool]):
        super().__init__()  # type: ignore[no-untyped-call]
        self._see, self._before, self._is_busy = see, before, is_busy
        self._composite: dict[Any, bool] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._is_busy():
            return func(*args, **kwargs)
        if any(t not in (torch.Tensor, torch.nn.Parameter) and _wraps(t) for t in types):
            return NotImplemented  # DTensor and its like call what they are made of, which is seen then
        self._before()
        if torch.is_inference_mode_enabled() and self._is_composite(func):
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        self._see(func, func._schema.name.removeprefix("aten::"), args, kwargs, output)
        return output

    def _is_composite(self, func: Any) -> bool:
        if func not in self._composite:
            has_kernel = partial(torch._C._dispatch_has_kernel_for_dispatch_key, func.name())
            # One with a kernel of its own may round otherwise than what it is made of.
            self._composite[func] = has_kernel("CompositeImplicitAutograd") and not any(map(has_kernel, BACKENDS))
        return self._composite[func]

    def begin(self) -> None:
        """Watch this thread."""
        self.__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """No longer."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    @property
    def is_on(self) -> bool:
        """Whether this thread is watched."""
        return self in _get_current_dispatch_mode_stack()


def _wraps(kind: type) -> bool:
    return kind.__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl  # type: ignore[attr-defined]


class Functions:
    """While attached, tells ``begins()`` and ``ends(output)`` of every call of a custom autograd Function."""

    def __init__(self, begins: Callable[[], None], ends: Callable[[Any], None]):
        self._begins, self._ends = begins, ends

    def attach(self) -> None:
        """Stand in for what Python's ``Function.apply`` calls; ``apply`` itself may have been taken before."""
        begins, ends = self._begins, self._ends

        def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
            begins()
            output = None
            try:
                output = super(_SingleLevelFunction, cls).apply(*args, **kwargs)  # type: ignore[misc]
            finally:
                ends(output)
            return output

        _SingleLevelFunction.apply = classmethod(apply)  # type: ignore[attr-defined]

    def remove(self) -> None:
        """Leave it as it was."""
        if "apply" in _SingleLevelFunction.__dict__:
            del _SingleLevelFunction.apply  # type: ignore[attr-defined]


def is_opaque(name: str) -> bool:
    """Whether an operation may multiply, and is none that is known."""
    return any(part in name for part in OPAQUE_PARTS) and name not in NOT_OPAQUE
