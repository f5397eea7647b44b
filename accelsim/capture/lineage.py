"""Where the tensors of a step come from: of which parameter, and along which axis their samples lie.

Facts are kept by storage, those about samples by view. A weak reference to the storage keeps its address from being
given to another, and nothing alive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from accelsim.capture.places import thinned
from accelsim.capture.products import Form, Keep, NoForm
from accelsim.capture.samples import ANY, Rows, as_before, follow, tensors_in
from accelsim.capture.selection import Selection

BATCH_BITS = 24  # a label is a sample's index and, above these bits, the number of the batch that it is of
Key = tuple[int, tuple[int, ...], tuple[int, ...]]


class Lineage:
    """Facts about the tensors of one step.

    Parameters
    ----------
    model : Module
        Whose parameters are known by their names.
    selection : Selection
        Which samples to keep.
    step : int
        Its number.
    """

    def __init__(self, model: torch.nn.Module, selection: Selection, step: int):
        self._selection, self._step = selection, step
        self._refs: dict[int, StorageWeakRef] = {}
        self._parameters: dict[int, str] = {}
        self._rows: dict[int, dict[Key, Rows]] = {}
        self.batches: list[int] = []
        for name, parameter in model.named_parameters():
            address = self.address(parameter)
            if address is not None:
                self._parameters[address] = name.replace("_orig_mod.", "")

    def address(self, tensor: torch.Tensor) -> int | None:
        """What tells storages apart while the step runs; None of a tensor that has none."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return None
        address: int = storage._cdata
        if address not in self._refs:
            self._refs[address] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        return address

    def find(self, tensor: torch.Tensor) -> Rows | None:
        """The samples of a tensor, if they are known."""
        try:
            views = self._rows.get(tensor.untyped_storage()._cdata)
        except (NotImplementedError, RuntimeError):
            return None
        return None if views is None else views.get(_key(tensor))

    def parameter(self, tensor: torch.Tensor) -> str | None:
        """The parameter that it is, or was computed from together with constants alone."""
        try:
            return self._parameters.get(tensor.untyped_storage()._cdata)
        except (NotImplementedError, RuntimeError):
            return None

    def put(self, tensor: torch.Tensor, rows: Rows) -> None:
        """Say which samples a tensor has."""
        address = self.address(tensor)
        if address is not None:
            self._rows.setdefault(address, {})[_key(tensor)] = rows

    def seed(self, tensors: list[torch.Tensor], axis: int | None) -> None:
        """Inputs of a model: their samples lie along ``axis``; None: they are all of one sample."""
        if axis is None:
            if all(self.find(t) is None for t in tensors):
                self.batches.append(1)
            for tensor in tensors:
                number = (len(self.batches) - 1) << BATCH_BITS
                if self.find(tensor) is None:
                    self.put(tensor, Rows(0, np.full(len(tensor), number)))
            return
        tensors = [t for t in tensors if -t.ndim <= axis < t.ndim]
        if not tensors:
            return
        size = tensors[0].shape[axis]
        if size >= 1 << BATCH_BITS:
            return
        if all(self.find(t) is None for t in tensors):
            self.batches.append(size)
        for tensor in tensors:
            if tensor.shape[axis] == size and self.find(tensor) is None and self.batches[-1] == size:
                self.put(tensor, self.all_rows(axis % tensor.ndim, size))

    def all_rows(self, axis: int, size: int) -> Rows:
        """The samples of the last batch, one after another."""
        return Rows(axis, ((len(self.batches) - 1) << BATCH_BITS) + np.arange(size))

    def follow(self, func: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """What an operation makes of the facts."""
        args = as_before(func, args, kwargs)
        inputs = tensors_in(args) + tensors_in(kwargs)
        labelled = any(self.find(t) is not None for t in inputs)
        parameter = None
        if not labelled:
            parameter = next((p for p in map(self.parameter, inputs) if p is not None), None)
            if parameter is None:
                return
        for tensor in tensors_in([output]):
            if parameter is not None:
                address = self.address(tensor)
                if address is not None:
                    self._parameters.setdefault(address, parameter)
                continue
            rows = follow(func, args, kwargs, tensor, self.find)
            if rows is not None:
                self.put(tensor, rows)

    def keep(self, *operands: Rows | None) -> tuple[Keep, list[Rows | None]]:
        """Which samples to store of the batch that the operands are of, and their samples in it.

        Raises
        ------
        TraceError
            If one of the samples asked for is not in the step's first batch.
        NoForm
            If they are of several batches, or none of the samples asked for is in it.
        """
        known = [rows.labels[rows.labels != ANY] >> BATCH_BITS for rows in operands if rows is not None]
        numbers = np.unique(np.concatenate(known)) if known else np.zeros(0, int)
        if len(numbers) != 1:
            raise NoForm("samples of several batches" if len(numbers) else "samples not known")
        batch = self.batches[numbers[0]]
        if numbers[0] == 0:
            self._selection.check_batch(batch)
        chosen = self._selection.of(batch, self._step)
        if not chosen:
            raise NoForm("none of the samples in its batch")
        mask = (1 << BATCH_BITS) - 1
        plain: list[Rows | None] = [
            None if rows is None else Rows(rows.axis, np.where(rows.labels == ANY, ANY, rows.labels & mask))
            for rows in operands
        ]
        return Keep(batch, chosen), plain

    def thinned(self, form: Form) -> Form:
        """A form with the places of each sample that are kept."""
        return thinned(form, self._selection, self._step)


def _key(tensor: torch.Tensor) -> Key:
    return int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()
