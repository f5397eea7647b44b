"""The products of a step as they come: named, stored or counted, and their gradients paired with them.

Nodes and modules tell at once; what a node made is known when the next operation runs, which is when it is tagged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from accelsim.capture.book import Book
from accelsim.capture.calls import Calls
from accelsim.capture.lineage import Lineage
from accelsim.capture.naming import product_name
from accelsim.capture.pairing import IN_FUNCTION, Record, operand_of, put_records, records_here, tag
from accelsim.capture.products import Convolution, Form, NoForm, Product, convolution_form, matrix_form
from accelsim.capture.samples import Rows, tensors_in
from accelsim.capture.seeing import Watch

RECURRENT = (torch.nn.RNNBase, torch.nn.RNNCellBase)
Guard = Callable[..., None]


class Events:
    """What products of a step are, one after another.

    Parameters
    ----------
    book : Book
    lineage : Lineage
    calls : Calls
    watch : Watch
    guard : callable
        Runs a function with arguments where a step is recorded, and keeps what goes wrong.

    Attributes
    ----------
    due, came : bool
        Whether a gradient may come, and did.
    hooks : list
        Handles of the hooks in the graph.
    """

    def __init__(self, book: Book, lineage: Lineage, calls: Calls, watch: Watch, guard: Guard):
        self.book, self.lineage, self.calls = book, lineage, calls
        self._watch, self._guard = watch, guard
        self.functions: list[list[Record]] = []  # products of the custom Functions that run
        self.pending: tuple[Record, torch.Tensor] | None = None
        self.due = self.came = False
        self.hooks: list[Any] = []
        self.is_twice = False  # a product of a backward pass may be differentiated
        self.used: set[str] = set()  # parameters
        self._threads: set[int] = set()  # that are watched for the length of a node

    def settle(self) -> None:
        """The product before has a node by now."""
        if self.pending is not None:
            self._guard(self._tag)

    def _tag(self) -> None:
        if self.pending is None:
            return
        (record, output), self.pending = self.pending, None
        record.rows = self.lineage.find(output)
        hooks = tag(output, record, self._node_begins, self._node_ends)
        self.due |= bool(hooks)
        self.hooks += hooks

    def function_ended(self, output: Any) -> None:
        records: list[Any] = self.functions.pop()
        tensor = next((t for t in tensors_in([output]) if t.grad_fn is not None), None)
        if tensor is None or tensor.grad_fn is None:
            return
        frame = self.calls.own
        if records or frame is not None:
            put_records(tensor.grad_fn, records)
            self.due = True
        if frame is not None:
            frame.nodes.append((tensor.grad_fn, records))

    def product(self, product: Product, output: torch.Tensor, backward: bool, grad: bool, again: bool) -> None:
        n = product.multiplications
        self.book.multiplications += n
        if backward and not again:
            self._gradient(product, output, grad)
            return
        if self.calls.own is not None:
            self.calls.own.products.append((product.operation, n))
            return
        record = self._begin(product, ":recomputed" if again else "")
        if self.functions and not grad:
            record.inputs = IN_FUNCTION
            self.functions[-1].append(record)
        else:
            self.pending = record, output

    def _begin(self, product: Product, suffix: str) -> Record:
        """A product with its record, written."""
        record = Record("", product.operation, product.inputs, product.multiplications)
        record.operands = self.lineage.address(product.first), self.lineage.address(product.second)
        record.name = self._named(product) + suffix
        self._store(record, product)
        return record

    def _named(self, product: Product) -> str:
        parameter = self.lineage.parameter(product.second) or self.lineage.parameter(product.first)
        if parameter is not None:
            self.used.add(parameter)
        return product_name(self.calls.frame, parameter, product)

    def _store(self, record: Record, product: Product, result: int = 2) -> None:
        """Write a product's operands and the pass that it is, or count it as not stored."""
        try:
            if self.calls.is_foreign:
                raise NoForm("outside the model")
            reason = self.book.reason_against(record.name)
            if reason:
                raise NoForm(reason)
            form, batch = self.form(product, result)
        except NoForm as error:
            record.reason = str(error)
            self.book.leave(record.reason, record.operation, record.multiplications)
            return
        record.form = form
        record.layer = self.book.begin(record.name, form, batch, form.computes(2))
        operands = [product.first, product.second]
        if result < 2:  # of a gradient the operands are the others, and what was computed is not read
            return
        for which in (0, 1):
            self.book.write(record.layer, form.names[which], form.takes[which](operands[which]))

    def _of_state(self, product: Product) -> Rows | None:
        """The initial state of a recurrent layer has a row for each sample."""
        frame = self.calls.frame
        is_state = frame is not None and isinstance(frame.module, RECURRENT) and bool(self.lineage.batches)
        if not is_state or len(product.first) != self.lineage.batches[-1]:
            return None
        return self.lineage.all_rows(0, len(product.first))

    def form(self, product: Product, result: int = 2) -> tuple[Form, int]:
        x, y = self.lineage.find(product.first), self.lineage.find(product.second)
        if x is None and y is None and not product.convolution:
            x = self._of_state(product)
        if x is None and y is None and None not in map(self.lineage.parameter, (product.first, product.second)):
            raise NoForm("of parameters alone")
        keep, (x, y) = self.lineage.keep(x, y)
        make = partial(convolution_form, result=result) if product.convolution else matrix_form
        form = make(product, x, y, keep)
        if form.multiplications != product.multiplications:
            raise NoForm("another number of multiplications as a layer")
        return self.lineage.thinned(form), keep.batch

    def _node_begins(self, record: Record, gradients: Sequence[torch.Tensor | None]) -> None:
        if not self._watch.is_on:  # a thread of the user's own
            self._watch.begin()
            self._threads.add(threading.get_ident())
        self.settle()
        self._guard(self._take_gradient, record, gradients[0])

    def _take_gradient(self, record: Record, gradient: torch.Tensor | None) -> None:
        if gradient is None:
            return
        self.came = True
        if record.rows is not None:
            self.lineage.put(gradient, record.rows)
        if record.held is not None:
            record.gradient = gradient
        elif record.form is not None and not record.ran and not record.is_loose:
            self.book.write(record.layer, record.form.names[2], record.form.takes[2](gradient))

    def _node_ends(self, record: Record, gradients: Sequence[torch.Tensor | None]) -> None:
        self.settle()
        self._guard(self._account, record, [gradients[i] is not None for i in record.inputs if i < len(gradients)])
        if threading.get_ident() in self._threads:
            self._threads.remove(threading.get_ident())
            self._watch.end()

    def _account(self, record: Record, wanted: list[bool]) -> None:
        """The gradients that a node computed are passes of its layer."""
        events, record.events, first, record.ran = record.events, [], not record.ran, True
        if not first or not events:
            return
        which = [k for k, is_there in enumerate(wanted) if is_there]
        if record.held is not None:
            self._second_order(record, which)
        for n in events:
            if which and record.form is not None and n == record.multiplications:
                self.book.ran(record.layer, record.form.computes(which.pop(0)))
            else:
                self.book.leave(record.reason or "not paired", record.operation, n)

    def _second_order(self, record: Record, which: list[int]) -> None:
        """A product of a backward pass was differentiated: a layer with the passes that this made."""
        product, gradient, record.held, record.gradient = record.held, record.gradient, None, None
        if product is None or gradient is None or not which:
            return
        try:
            form, batch = self.form(product)
        except NoForm as error:
            record.reason = str(error)
            return
        record.form = form
        record.layer = self.book.begin(record.name, form, batch, form.computes(which[0]))
        for k, tensor in enumerate((product.first, product.second, gradient)):
            self.book.write(record.layer, form.names[k], form.takes[k](tensor))

    def _gradient(self, product: Product, output: torch.Tensor, grad: bool) -> None:
        """A product of a backward pass: a gradient of the node's record, or a layer of its own."""
        records = records_here() or []
        n = product.multiplications
        if self.functions and not grad:  # a Function within a backward pass
            records = []
        if len(records) == 1 and records[0].inputs != IN_FUNCTION and not records[0].is_loose and not records[0].ran:
            records[0].events.append(n)
            self._maybe_second(records[0], product, output, grad)
            return
        addresses = self.lineage.address(product.first), self.lineage.address(product.second)
        for record in records:
            which = operand_of(record, addresses)
            if which is None or record.form is None or n != record.multiplications or record.ran:
                continue  # what ran had another gradient
            if self.book.ran(record.layer, record.form.computes(1 - which)):
                place = addresses.index(record.operands[which])
                gradient = product.second if place == 0 else product.first
                self._function_gradient(record, gradient.mT if which != place else gradient)
                return
        if records and records[0].form is None and records[0].reason:
            self.book.leave(records[0].reason, product.operation, n)
            return
        name = f"{records[0].name}:again" if records else "backward"
        self._alone(name, product)

    def _function_gradient(self, record: Record, gradient: torch.Tensor) -> None:
        """The gradient of a product within a Function, as its backward pass multiplied it."""
        if record.form is not None and record.operation != "own":  # which tells it itself
            self.came = True
            self.book.write(record.layer, record.form.names[2], record.form.takes[2](gradient))

    def _maybe_second(self, first: Record, product: Product, output: torch.Tensor, grad: bool) -> None:
        if grad:
            second = Record(f"{first.name}:second", product.operation, product.inputs, product.multiplications)
            second.held = product
            self.pending, self.is_twice = (second, output), True

    def _alone(self, name: str, product: Product, result: int = 2) -> None:
        record = Record(name, product.operation, product.inputs, product.multiplications)
        self._store(record, product, result)

    def convolution_backward(self, args: Sequence[Any], output: Sequence[torch.Tensor], grad: bool) -> None:
        gradient, input, weight = args[:3]
        convolution = Convolution.of(weight.ndim - 2, args[4:10])
        product = Product("convolution_backward", input, weight, (0, 1), convolution)
        records = records_here() or []
        record = records[0] if records else None
        for which in (0, 1):
            if not args[10][which]:
                continue
            self.book.multiplications += product.multiplications
            if record is None or record.ran or record.is_loose:
                self._gradient_alone(record, product, which, gradient)
            elif record.inputs == IN_FUNCTION or record.reason or len(records) > 1:
                self._of_function(records, product, which, gradient)
            else:
                record.events.append(product.multiplications)
        if record is not None and grad and not record.is_loose:
            second = Record(f"{record.name}:second", "convolution", (0, 1), product.multiplications, is_loose=True)
            tensor = next(t for t in output if t is not None)
            self.pending, self.is_twice = (second, tensor), True

    def _of_function(self, records: list[Record], product: Product, which: int, gradient: torch.Tensor) -> None:
        """A convolution's gradient within a custom Function."""
        for record in records:
            if record.form is None or record.multiplications != product.multiplications:
                continue
            if self.book.ran(record.layer, record.form.computes(which)):
                self._function_gradient(record, gradient)
                return
        reason = next((record.reason for record in records if record.reason), "not paired")
        self.book.leave(reason, product.operation, product.multiplications)

    def _gradient_alone(self, record: Record | None, product: Product, which: int, gradient: torch.Tensor) -> None:
        """A convolution's gradient that is a layer of its own."""
        name = "backward" if record is None else record.name if record.is_loose else f"{record.name}:again"
        alone = Record(name, product.operation, (0, 1), product.multiplications)
        if self.lineage.find(product.first) is None:
            rows = self.lineage.find(gradient)
            if rows is not None and rows.axis == 0:
                self.lineage.put(product.first, rows)
        self._store(alone, product, which)
        if alone.form is None:
            return
        kept = [product.first, product.second, gradient]
        kept.append(kept.pop(which))
        for k in (0, 1):
            self.book.write(alone.layer, alone.form.names[k], alone.form.takes[k](kept[k]))
