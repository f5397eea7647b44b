"""One recorded step: every product that ran in it, seen where it happens, named, paired and written at once.

A dispatch mode (``seeing``) sees each product; the module that was running (``calls``) and the parameter it came from
name it; the samples of its operands (``lineage``) say which part is stored; its autograd node (``pairing``) tells which
gradients were computed of it. ``book`` writes it down and counts all, stored or not.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from accelsim.capture import attention
from accelsim.capture.attention import Shadow
from accelsim.capture.book import Book, Keeper
from accelsim.capture.calls import Calls, Frame, is_recomputing
from accelsim.capture.densities import Counting
from accelsim.capture.events import Events
from accelsim.capture.lineage import Lineage
from accelsim.capture.own import OwnLayers
from accelsim.capture.products import (
    PRODUCTS,
    product_of,
)
from accelsim.capture.samples import tensors_in
from accelsim.capture.seeing import Functions, Watch, is_opaque
from accelsim.errors import TraceError


class Attached(Protocol):
    """What is attached while a step is recorded."""

    def remove(self) -> None:
        """Leave it as it was."""


class Step:
    """One training step; in a ``with`` block, it ends with it. Made by :meth:`Recorder.step`.

    Attributes
    ----------
    records : bool
        Whether it is recorded.
    """

    def __init__(self, recorder: Keeper, entry: dict[str, Any], records: bool, counting: Counting | None = None):
        self.records, self.notes = records, dict[str, float]()
        self._counting, self._entry = counting, entry
        self._recorder, self._name = recorder, entry["name"]
        self._attached: list[Attached] = []
        self._error: Exception | None = None
        self._lock = threading.RLock()  # of several devices each runs its backward pass in a thread
        if not records:
            return
        book = self._book = Book(recorder, entry)
        self._lineage = Lineage(recorder.model, recorder.keep, entry["step"])
        self._calls = Calls(recorder.model, self._entered, self._left)
        self._watch = Watch(self._saw, lambda: self._events.settle(), lambda: self._busy)
        parts = book, self._lineage, self._calls, self._watch
        self._events = Events(*parts, self._guard)
        self._shadow, self._own = Shadow(self._events), OwnLayers(self._events, self._name, self._guard)
        self._busy = False
        self._opaque: set[str] = set()
        self._found_inf: list[torch.Tensor] = []

    def attach(self) -> None:
        """Watch, if the step is recorded."""
        if not self.records:
            return
        torch.clear_autocast_cache()  # casts of before have no lineage
        functions = Functions(lambda: self._events.functions.append([]), self._events.function_ended)
        self._attached += [_Uncompiled(), _SlowAttention(), self._calls, functions]
        self._calls.attach()
        functions.attach()
        self._watch.begin()

    def end(self) -> None:
        """The step is complete; raises what went wrong."""
        if self._counting is not None:
            counting, self._counting = self._counting, None
            counting.remove()
            if counting.counts:
                self._recorder.series_file(self._entry).step(self._entry["step"], counting.counts, self.notes)
        if not self.records:
            return
        self._events.settle()
        overflowed = any(bool(found.item()) for found in self._found_inf)
        if overflowed:  # the scaler skips the step, and so do we
            self._recorder.provenance["recorder"].setdefault("skipped", []).append(self._name)
            self.abandon()
            return
        if self._error is None:
            self._error = self._lacks()
        if self._error is not None:
            error, self._error = self._error, None
            self.abandon()
            raise error
        self._detach()
        self._recorder.provenance["recorder"]["not_called"][self._name] = self._idle()
        self._book.complete(sorted(self._opaque))
        self._recorder.recorded.append(self._name)

    def abandon(self) -> None:
        """Forget what was recorded of the step."""
        if self._counting is not None:
            self._counting.remove()
            self._counting = None
        if self.records:
            self._detach()
            self._book.abandon()

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._recorder.under_way is self:  # and was not ended before
            self._recorder.end_step() if kind is None else self._recorder.abandon_step()

    def _detach(self) -> None:
        self.records = False
        if self._watch.is_on:
            self._watch.end()
        while self._attached:
            self._attached.pop().remove()
        for hook in self._events.hooks:
            hook.remove()
        self._events.pending = None

    def _lacks(self) -> TraceError | None:
        if not self._book.multiplications:
            hint = "the model that the Recorder was given must run in the step"
            return TraceError(f"{self._name}: no layer was called; {hint}")
        if self._book.is_empty:
            why = ", ".join(self._book.not_stored)
            return TraceError(f"{self._name}: no product could be stored: {why}")
        if self._events.due and not self._events.came:
            return TraceError(f"{self._name}: no gradient came; backward() must run in the step")
        return None

    def _idle(self) -> list[str]:
        """Layers of the model that had no part in the step."""
        return [
            name
            for name, parameters in self._recorder_layers()
            if name not in self._calls.called and not self._events.used.intersection(parameters)
        ]

    def _recorder_layers(self) -> list[tuple[str, set[str]]]:
        found = []
        for name, module in self._recorder.model.named_modules():
            own_ones = {f"{name}.{p}".lstrip(".") for p, w in module.named_parameters(recurse=False) if w.ndim > 1}
            if own_ones and ".parametrizations" not in f".{name}":
                found.append((name.replace("_orig_mod.", "") or type(module).__name__, own_ones))
        return found

    def _guard(self, function: Callable[..., None], *args: Any) -> None:
        """Run it; what goes wrong is raised when the step ends, and nothing more is recorded till then."""
        with self._lock:
            if not self.records or self._error is not None or self._busy:
                return
            self._busy = True
            try:
                with torch.no_grad():
                    function(*args)
            except Exception as error:
                self._error = error.with_traceback(None)  # which would keep tensors alive
            finally:
                self._busy = False

    # What is told by the mode, the modules and the nodes

    def _entered(self, name: str, args: Any, kwargs: Any, outermost: bool) -> None:
        if torch._C._functorch.peek_interpreter_stack() is not None:
            self._guard(self._refuse_transforms, name)
        if outermost:
            tensors = [t for t in tensors_in(args) + tensors_in(kwargs) if t.ndim]
            self._guard(self._lineage.seed, tensors, self._recorder.batch_dim)

    def _left(self, frame: Frame, args: Any, kwargs: Any, output: Any) -> None:
        self._events.settle()  # a backward pass may begin before anything else runs
        if frame.is_own:
            input = args[0] if args else next(iter(kwargs.values()))
            self._guard(self._own.handed_over, frame, input, output)

    def _saw(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        if name == "_amp_foreach_non_finite_check_and_unscale_":  # also where the overflow is why nothing is recorded
            self._found_inf.append(args[1])
        grad = torch.is_grad_enabled()
        recomputing = is_recomputing() if name in PRODUCTS else False
        self._guard(self._seen, func, name, args, kwargs, output, grad, recomputing)

    def _seen(
        self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], output: Any, grad: bool, again: bool
    ) -> None:
        backward = torch._C._current_graph_task_id() != -1
        if name in PRODUCTS:
            self._events.product(product_of(name, args), output, backward, grad, again)
        elif name == "convolution_backward":
            self._events.convolution_backward(args, output, grad)
        elif name in attention.FORWARD:
            self._shadow.forward(attention.Attention.of(func, args, kwargs), name, output)
        elif name in attention.BACKWARD:
            self._shadow.backward(attention.Attention.of(func, args, kwargs), name)
        elif is_opaque(name):
            self._opaque.add(name)
        else:
            self._book.grids.saw(func, name, args, kwargs)
        if not backward or grad or self._events.is_twice or name in ("t", "transpose", "detach"):
            self._lineage.follow(func, args, kwargs, output)

    def _refuse_transforms(self, layer: str) -> None:
        rule = "must not run under torch.func's grad or vmap, where products are hidden"
        raise TraceError(f"{self._name}/{layer}: {rule}")


class _Uncompiled:
    """While it is attached, what torch.compile made runs as it was written, so that its modules can be watched."""

    def __init__(self) -> None:
        # Before torch._dynamo is imported nothing is compiled. Calling set_stance sets it, leaving it sets it back.
        self._stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else None

    def remove(self) -> None:
        """Go back to what was."""
        if self._stance is not None:
            self._stance.__exit__(None, None, None)


class _SlowAttention:
    """While it is attached, ``MultiheadAttention`` is not one operation without gradients."""

    def __init__(self) -> None:
        self._before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)

    def remove(self) -> None:
        """Go back to what was."""
        torch.backends.mha.set_fastpath_enabled(self._before)
