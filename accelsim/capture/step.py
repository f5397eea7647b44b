"""One recorded step: what each call of each layer multiplied, seen where it happens and written at once.

A :class:`Tap` stands in for a layer's ``forward`` while a step is recorded. It watches ``conv2d`` and ``linear`` being
called in there, so that it sees the weight after parametrization, the input after explicit padding, and what a subclass
of the layer made of both. The :class:`Step` writes it, and asks the graph for the gradient of the convolution's output.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from accelsim.capture.calls import Call, as_map, conv_call, linear_call, own_call
from accelsim.errors import TraceError
from accelsim.workload.metadata import FIRST_LAYER, PASSES
from accelsim.workload.npz import blame
from accelsim.workload.trace_writer import TraceWriter

STORED = (torch.float16, torch.bfloat16, torch.float32)  # floating-point numbers that a trace holds as they are
_MISSING = object()


class Attached(Protocol):
    """What is attached to a model while a step is recorded."""

    def remove(self) -> None:
        """Leave it as it was."""


class Keeper(Protocol):
    """What a step asks of the recorder that keeps it."""

    samples: Any
    values: bool
    calls: int | None
    allow_nan: bool
    provenance: dict[str, Any]
    recorded: list[str]
    under_way: Step | None

    def find_layers(self) -> dict[str, torch.nn.Module]:
        """The layers to record, by name."""

    def writer(self) -> TraceWriter:
        """The trace, open."""

    def end_step(self) -> None:
        """The step under way is complete."""

    def abandon_step(self) -> None:
        """What was recorded of the step under way is forgotten."""


class Tap:
    """Stands in for ``module.forward``, and tells ``see`` of each convolution that runs in it.

    Parameters
    ----------
    module : Module
    see : callable
        Called as ``see(make)`` when a convolution is done, where ``make()`` gives the :class:`Call` or raises.
    open_taps : list
        Shared by the taps of a model: of layers within layers only the innermost sees.
    """

    def __init__(self, module: torch.nn.Module, see: Callable[[Callable[[], Call]], None], open_taps: list[Tap]):
        self._module, self._see, self._open_taps = module, see, open_taps
        self._forward: Callable[..., torch.Tensor] = module.forward
        self._before = module.__dict__.get("forward", _MISSING)

    def attach(self) -> None:
        """Take the place of ``forward``."""
        self._module.__dict__["forward"] = self

    def remove(self) -> None:
        """Give it back, unless somebody else has taken it since."""
        if self._module.__dict__.get("forward") is self:
            _restore(self._module, "forward", self._before)

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._open_taps.append(self)
        try:
            if getattr(self._module, "record", _MISSING) is None:
                return self._handed_over(*args, **kwargs)
            with _Operations(self._watch):
                return self._forward(*args, **kwargs)
        finally:
            self._open_taps.pop()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[torch.nn.Module, str]]:
        # A copy or a pickle of the model made during the step gets the layer's own forward, and is not recorded.
        return getattr, (self._module, "forward")

    def _watch(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor
    ) -> None:
        if self._open_taps[-1] is self:
            make: Callable[..., Call] = conv_call if func is F.conv2d else linear_call
            self._see(lambda: make(output, *args, **kwargs))

    def _handed_over(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        handed: dict[str, torch.Tensor] = {}
        late: dict[str, torch.Tensor] = {}
        before = self._module.__dict__.get("record", _MISSING)

        def record(name: str, tensor: torch.Tensor) -> None:
            (late if name == "gradient" else handed).setdefault(name, tensor)

        self._module.__dict__["record"] = record
        try:
            output = self._forward(*args, **kwargs)
        finally:
            _restore(self._module, "record", before)
        input = args[0] if args else next(iter(kwargs.values()))
        self._see(lambda: own_call(self._module, handed, late, input, output))
        return output


class _Operations(TorchFunctionMode):
    """Calls ``see(func, args, kwargs, output)`` after each ``conv2d`` and ``linear``."""

    def __init__(self, see: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any], torch.Tensor], None]):
        super().__init__()
        self._see_operation = see

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is F.conv2d or func is F.linear:
            self._see_operation(func, args, kwargs, output)
        return output


class Step:
    """One training step; in a ``with`` block, it ends with it. Made by :meth:`Recorder.step`.

    Attributes
    ----------
    records : bool
        Whether it is recorded.
    """

    def __init__(self, recorder: Keeper, entry: dict[str, Any], records: bool):
        self.records = records
        self._recorder, self._entry, self._name = recorder, entry, entry["name"]
        self._attached: list[Attached] = []  # taps, hooks in the graph, and the like: what has remove()
        self._counts: dict[str, int] = {}  # calls of each layer
        self._graphless: set[str] = set()  # layers called without autograd
        self._due: set[str] = set()  # layers of the trace whose gradient may come
        self._came: set[str] = set()
        self._writer: TraceWriter | None = None  # once the snapshot has begun
        self._batch, self._samples = 0, recorder.samples
        self._error: Exception | None = None
        self._lock = threading.Lock()  # of several devices each runs its backward pass in a thread

    def attach(self) -> None:
        """Watch the model's layers, if the step is recorded."""
        if not self.records:
            return
        self._attached.append(Uncompiled())
        open_taps: list[Tap] = []
        for name, module in self._recorder.find_layers().items():
            self._counts[name] = 0
            tap = Tap(module, partial(self._guard, self._see, name), open_taps)
            self._attached.append(tap)
            tap.attach()

    def end(self) -> None:
        """The step is complete; raises what went wrong."""
        if self._error is None and self.records:
            self._error = self._lacks()
        if self._error is not None:
            error, self._error = self._error, None
            self.abandon()
            raise error
        if self.records:
            idle = [name for name, count in self._counts.items() if not count]
            self._recorder.provenance["recorder"]["not_called"][self._name] = idle
            self._recorder.recorded.append(self._name)
        self._detach()

    def abandon(self) -> None:
        """Forget what was recorded of the step."""
        self._detach()
        if self._writer is not None:
            self._writer.abandon_snapshot()
            self._writer = None

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._recorder.under_way is self:  # and was not ended before
            self._recorder.end_step() if kind is None else self._recorder.abandon_step()

    def _detach(self) -> None:
        self.records = False
        while self._attached:
            self._attached.pop().remove()

    def _lacks(self) -> TraceError | None:
        if self._writer is None:
            hint = "the model that the Recorder was given must run in the step"
            return TraceError(f"{self._name}: no layer was called; {hint}")
        if self._due and not self._came:
            return TraceError(f"{self._name}: no gradient came; backward() must run in the step")
        return None

    def _guard(self, function: Callable[..., None], *args: Any) -> None:
        """Run it; what goes wrong is raised when the step ends, and nothing more is recorded till then."""
        with self._lock, torch.no_grad():
            if not self.records or self._error is not None:
                return
            try:
                function(*args)
            except Exception as error:
                self._error = error.with_traceback(None)  # which would keep tensors alive

    def _see(self, name: str, make: Callable[[], Call]) -> None:
        """A convolution ran in the layer of that name."""
        with blame(f"{self._name}/{name}"):
            call = make()
            if torch._C._current_graph_task_id() != -1:  # within a backward pass: checkpointing computes it again
                if name in self._graphless and call.output.requires_grad:
                    raise TraceError("must not be in a reentrant checkpoint; use_reentrant=False can be recorded")
                return
            self._counts[name] += 1
            count = self._counts[name]
            if self._recorder.calls is not None and count > self._recorder.calls:
                return
            writer = self._check_batch(call)
        layer = name if count == 1 else f"{name}#{count}"
        passes = PASSES if call.input_grad else FIRST_LAYER
        writer.layer(layer, kind=call.kind, geometry=call.geometry, passes=passes)
        for tensor in call.tensors:
            self._write(writer, layer, tensor, call.stored(tensor, self._samples))
        # The node, and not the tensor: it stays the convolution's when the output is changed in place.
        node = call.output.grad_fn
        if node is None:
            self._graphless.add(name)
            return
        self._due.add(layer)
        take = partial(self._guard, self._take_gradient, writer, layer, call.kind, call.output.output_nr, call.late)
        if call.late is None:
            self._attached.append(node.register_prehook(take))
        else:  # the layer says in its backward pass what it uses
            self._attached.append(node.register_hook(lambda _, gradients: take(gradients)))

    def _check_batch(self, call: Call) -> TraceWriter:
        """The trace, where the call's batch is that of the first layer."""
        if self._writer is None:
            writer, samples = self._recorder.writer(), self._samples
            if not isinstance(samples, slice) and max(samples) >= call.batch:
                raise TraceError(f"samples: must be below the batch's size {call.batch}, got {max(samples)}")
            count = len(range(call.batch)[samples]) if isinstance(samples, slice) else len(samples)
            writer.snapshot(**self._entry, batch=call.batch, samples=count)
            self._writer, self._batch = writer, call.batch
        if call.batch != self._batch:
            hint = "skip= leaves a layer out, calls=1 further calls"
            raise TraceError(f"batch must be {self._batch} as in the first layer, got {call.batch}; {hint}")
        return self._writer

    def _take_gradient(
        self,
        writer: TraceWriter,
        layer: str,
        kind: str,
        index: int,
        late: dict[str, torch.Tensor] | None,
        gradients: Sequence[torch.Tensor | None],
    ) -> None:
        gradient = (late or {}).pop("gradient", gradients[index])
        if gradient is not None and layer not in self._came:
            self._came.add(layer)
            self._write(writer, layer, "gradient", as_map(kind, gradient.detach()[self._samples]))

    def _write(self, writer: TraceWriter, layer: str, name: str, tensor: torch.Tensor) -> None:
        with blame(f"{self._name}/{layer}/{name}"):
            if tensor.is_complex() or tensor.layout is not torch.strided:
                raise TraceError(f"must be dense and real, got {tensor.dtype}, {tensor.layout}")
            if not self._recorder.allow_nan and tensor.amin().isnan():
                raise TraceError("must be numbers, has NaN, which is not zero; allow_nan=True records it")
        array, bfloat16 = as_array(tensor, self._recorder.values)
        writer.tensor(name, array, layer=layer, bfloat16=bfloat16)


class Uncompiled:
    """While it is attached, what torch.compile made runs as it was written, so that its layers can be watched."""

    def __init__(self) -> None:
        # Before torch._dynamo is imported nothing is compiled. Calling set_stance sets it, leaving it sets it back.
        self._stance = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else None

    def remove(self) -> None:
        """Go back to what was."""
        if self._stance is not None:
            self._stance.__exit__(None, None, None)


def as_array(tensor: torch.Tensor, values: bool) -> tuple[np.ndarray, bool]:
    """A mask, or the values, for :meth:`TraceWriter.tensor`, and whether these are the bits of bfloat16 numbers."""
    if not values:
        return (tensor != 0).contiguous().cpu().numpy(), False
    if tensor.is_floating_point() and tensor.dtype not in STORED:
        tensor = tensor.float()
    tensor = tensor.contiguous().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16), True
    return tensor.numpy(), False


def _restore(module: torch.nn.Module, name: str, value: object) -> None:
    if value is _MISSING:
        module.__dict__.pop(name, None)
    else:
        module.__dict__[name] = value
