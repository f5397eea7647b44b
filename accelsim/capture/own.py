"""Layers that say themselves what they multiply, as SWAT's do: their weight, activation and saved activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from accelsim.capture.calls import Frame
from accelsim.capture.events import Events
from accelsim.capture.pairing import IN_FUNCTION, Record
from accelsim.capture.products import Convolution, Form, Keep, NoForm, Product, convolution_form, matrix_form
from accelsim.capture.samples import Rows, reshaped
from accelsim.errors import TraceError
from accelsim.workload.metadata import STANDS_IN, WEIGHTS
from accelsim.workload.npz import blame


def check(handed: dict[str, torch.Tensor]) -> None:
    """Raises TraceError unless a trace has a place for all of it."""
    needed = {"weight", "activation"}
    if not needed <= handed.keys() <= needed | STANDS_IN.keys():
        got = ", ".join(sorted(handed)) or "nothing"
        raise TraceError(f"must record weight, activation and maybe {', '.join(STANDS_IN)}, nothing else; got {got}")


def rows_of(
    handed: dict[str, torch.Tensor], find: Callable[[torch.Tensor], Rows | None], input: torch.Tensor
) -> Rows | None:
    """The samples of the activation, those of a linear layer with its axes but the last as one."""
    activation, weight = handed["activation"], handed["weight"]
    found = find(activation) or (find(input) if input.ndim == activation.ndim else None)
    if found is None or weight.ndim > 2:
        return found
    return reshaped(found, activation.shape, (activation[..., 0].numel(), activation.shape[-1]))


def form_of(module: torch.nn.Module, handed: dict[str, torch.Tensor], rows: Rows | None, keep: Keep) -> Form:
    """In the shape that the layer's attributes tell.

    Raises
    ------
    NoForm
        If the samples are not known.
    """
    activation, weight = handed["activation"], handed["weight"]
    if weight.ndim == 2:
        product = Product("own", activation.flatten(0, -2), weight.t(), IN_FUNCTION)
        return matrix_form(product, rows, None, keep)
    if not isinstance(module, torch.nn.Conv2d):
        raise NoForm("neither Conv2d nor linear")
    stride, dilation = module.stride, module.dilation
    how = Convolution.of(2, [stride, (0,), dilation, False, (0,), module.groups])
    plain = convolution_form(Product("own", activation, weight, IN_FUNCTION, how), rows, None, keep)
    return replace(plain, geometry=replace(plain.geometry, padding=sides(module, weight.shape[2:])))


def sides(module: torch.nn.Conv2d, kernel: Sequence[int]) -> tuple[int, int, int, int]:
    """Zeros around the input: top, bottom, left, right. Any other padding is in the activation already."""
    padding = module.padding if module.padding_mode == "zeros" else 0
    if padding == "same":  # what is odd goes to the bottom and to the right
        rows, columns = (d * (k - 1) for d, k in zip(module.dilation, kernel, strict=True))
        return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2
    if isinstance(padding, int | str):
        padding = (0, 0)
    rows, columns = padding
    return rows, rows, columns, columns


def stored(form: Form, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that was handed over, in the trace's form."""
    is_linear = form.kind == "linear"
    if name in WEIGHTS:
        return form.takes[1](tensor.t() if is_linear else tensor)
    take = form.takes[2 if name == "gradient" else 0]
    return take(tensor.flatten(0, -2) if is_linear else tensor)


def addresses(
    handed: dict[str, torch.Tensor], address: Callable[[torch.Tensor], int | None]
) -> tuple[int | None, int | None]:
    """Of what its weight gradient and its input gradient read."""
    return address(handed.get("saved_activation", handed["activation"])), address(
        handed.get("backward_weight", handed["weight"])
    )


class OwnLayers:
    """Writes what such layers hand over in a step of that name."""

    def __init__(self, events: Events, step: str, guard: Callable[..., None]):
        self._events, self._step, self._guard = events, step, guard

    def handed_over(self, frame: Frame, input: torch.Tensor, output: torch.Tensor) -> None:
        name = f"{frame.name}:recomputed" if frame.task != -1 else f"{frame.name}"
        record = Record(name, "own", IN_FUNCTION, 0)
        seen = sum(n for _, n in frame.products)
        try:
            with blame(f"{self._step}/{frame.name}"):
                check(frame.handed)
            reason = self._events.book.reason_against(name)
            if reason:
                raise NoForm(reason)
            with blame(f"{self._step}/{frame.name}"):
                rows = rows_of(frame.handed, self._events.lineage.find, input)
                keep, (plain,) = self._events.lineage.keep(rows)
                whole = form_of(frame.module, frame.handed, plain, keep)
                form = self._events.lineage.thinned(whole)
        except NoForm as error:
            record.reason = str(error)
            for operation, n in frame.products:
                self._events.book.leave(record.reason, operation, n)
        else:
            record.form, record.multiplications = form, whole.multiplications
            if not seen:
                self._events.book.multiplications += whole.multiplications
            self._events.book.leave("besides what the layer handed over", "own", max(0, seen - whole.multiplications))
            record.layer = self._events.book.begin(name, form, keep.batch, "fwd")
            for tensor, value in frame.handed.items():
                self._events.book.write(record.layer, tensor, stored(form, tensor, value))
        record.operands = addresses(frame.handed, self._events.lineage.address)
        self._await(frame, record, output)

    def _await(self, frame: Frame, record: Record, output: torch.Tensor) -> None:
        for _, records in frame.nodes:
            records.append(record)
        node = frame.nodes[-1][0] if frame.nodes else output.grad_fn
        if node is None:
            return
        self._events.due = True
        rows = self._events.lineage.find(output)

        def take(gradients: Sequence[torch.Tensor | None]) -> None:
            gradient = frame.late.pop("gradient", gradients[0] if frame.nodes else gradients[output_nr])
            self._guard(self._take_own, record, gradient, rows)

        output_nr = output.output_nr
        self._events.hooks.append(node.register_hook(lambda _, gradients: take(gradients)))

    def _take_own(self, record: Record, gradient: torch.Tensor | None, rows: Rows | None) -> None:
        if gradient is None:
            return
        self._events.came = True
        if record.form is not None and record.layer:
            self._events.book.write(record.layer, "gradient", stored(record.form, "gradient", gradient))
