"""Operators of a TensorFlow Lite model as tables: what they are given, their options, the numbers of their tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import LARGEST_TENSOR
from accelsim.workload.importers.flatbuffer import Table

# By the number of a type in TensorFlow Lite's schema.
DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "|u1", 4: "<i8", 6: "|b1", 7: "<i2", 9: "|i1", 10: "<f8"}

Shape = tuple[int, ...]
Read = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Operator:
    """An operator of a graph.

    Parameters
    ----------
    code : int
        Its number in TensorFlow Lite's schema.
    inputs : list of Table or None
        Tensors; None where one is left away.
    output : Table
    options : Table or None
    buffers : list of Table
        Of the model: its constants.
    """

    code: int
    inputs: list[Table | None]
    output: Table
    options: Table | None
    buffers: list[Table]

    @classmethod
    def of(cls, table: Table, codes: list[int], tensors: list[Table], buffers: list[Table]) -> Operator:
        """From its table. Raises ImportFormatError where it names what is not there."""
        number, inputs, outputs = table.number(0, 4), table.numbers(1), table.numbers(2)
        if number >= len(codes) or not outputs or not all(-1 <= n < len(tensors) for n in (*inputs, *outputs)):
            raise ImportFormatError("operator: must name an operator's code and tensors of its graph")
        given = [tensors[n] if n >= 0 else None for n in inputs]
        return cls(codes[number], given, tensors[max(outputs[0], 0)], table.table(4), buffers)

    def option(self, field: int, size: int = 4, default: int = 1) -> int:
        """A number among the options."""
        return self.options.number(field, size, default) if self.options else default

    def has(self, number: int) -> bool:
        """Whether an input is given."""
        return number < len(self.inputs) and self.inputs[number] is not None

    def shape(self, number: int) -> Shape:
        """An input's. Raises ImportFormatError where it is not given, or not fixed."""
        tensor = self.inputs[number] if self.has(number) else None
        if tensor is None:
            raise ImportFormatError(f"input {number}: must be given, is missing")
        return shape_of(tensor)

    def numbers(self, number: int) -> Read | None:
        """Reads an input, quantised numbers less their zero points, in the file's order; None where it has none."""
        tensor = self.inputs[number] if self.has(number) else None
        if tensor is None:
            return None
        shape, dtype, buffer = shape_of(tensor), DTYPES.get(tensor.number(1, 1)), tensor.number(2, 4)
        start, length = self.buffers[buffer].span(0) if buffer < len(self.buffers) else (0, 0)
        if dtype is None or length != prod(shape) * np.dtype(dtype).itemsize or prod(shape) > LARGEST_TENSOR:
            return None
        how = tensor.table(4)
        zeros = np.array(how.numbers(3, 8) if how else [], np.float32)
        axis = how.number(6, 4) if how else 0
        content = tensor.buffer

        def read() -> np.ndarray:
            values = np.frombuffer(content, dtype, prod(shape), start).reshape(shape).astype(np.float32)
            if zeros.size == 1:
                values = values - zeros
            elif zeros.size > 1 and axis < len(shape) and zeros.size == shape[axis]:
                values = values - zeros.reshape([-1 if n == axis else 1 for n in range(len(shape))])
            return values

        return read


def shape_of(tensor: Table) -> Shape:
    """Its shape. Raises ImportFormatError where it is not fixed."""
    shape = tuple(tensor.numbers(0))
    if not shape or min(shape) < 1 or prod(shape) > 1 << 40:
        raise ImportFormatError(f"{tensor.text(3)[:60]}: must have a fixed shape, has {shape}")
    return shape
