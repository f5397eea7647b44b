"""TensorFlow Lite models (.tflite): convolutions and fully connected layers, with their weights; needs no package.

Quantised weights are integers less their zero points. The batch is the first axis of each operator's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import (
    LARGEST_TENSOR,
    Imported,
    ImportedLayer,
    LeftOut,
    Names,
    blame,
    check_file,
    kind_of,
    product,
)
from accelsim.workload.importers.flatbuffer import Table
from accelsim.workload.patterns import Stored

LARGEST_MODEL = 1 << 30  # bytes
MAGIC = b"TFL3"  # after the first four bytes
DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "|u1", 4: "<i8", 6: "|b1", 7: "<i2", 9: "|i1", 10: "<f8"}
# Numbers of operators in TensorFlow Lite's schema.
CONV, DEPTHWISE, CONNECTED, TRANSPOSED = 3, 4, 9, 67
OTHERS = {126: "BATCH_MATMUL", 132: "CONV_3D", 16: "LSTM", 44: "UNIDIRECTIONAL_SEQUENCE_LSTM", 24: "RNN", 27: "SVDF",
          35: "UNIDIRECTIONAL_SEQUENCE_RNN", 52: "BIDIRECTIONAL_SEQUENCE_LSTM", 46: "BIDIRECTIONAL_SEQUENCE_RNN",
          133: "CONV_3D_TRANSPOSE"}  # fmt: skip
SAME = 0
CUSTOM = 32


@dataclass(frozen=True)
class _Operator:
    """An operator of the first graph: its number, tensors and options."""

    code: int
    inputs: list[Table | None]
    output: Table
    options: Table | None

    def option(self, field: int, size: int = 4, default: int = 1) -> int:
        return self.options.number(field, size, default) if self.options else default


def read(path: Path) -> Imported:
    """Read a model.

    Raises
    ------
    ImportFormatError
        One line that names the file and the operator, if it is damaged or has no layer.
    """
    check_file(path, LARGEST_MODEL)
    names = Names()
    layers: list[ImportedLayer] = []
    left_out: list[LeftOut] = []
    with blame(path):
        content = path.read_bytes()
        if content[4:8] != MAGIC:
            raise ImportFormatError(f"must be a model of TensorFlow Lite, has {content[4:8]!r} for {MAGIC!r}")
        model = Table.root(content)
        codes = [max(code.number(0, 1), code.number(3, 4)) for code in model.tables(1)]
        graphs, buffers = model.tables(2), model.tables(4)
        if not graphs:
            raise ImportFormatError("must have a graph, has none")
        tensors = graphs[0].tables(0)
        for table in graphs[0].tables(3):
            operator = _operator(table, codes, tensors)
            label = operator.output.text(3).partition(";")[0] or f"operator{len(layers)}"
            if operator.code == CUSTOM or operator.code in OTHERS:
                left_out.append(LeftOut(label, f"{OTHERS.get(operator.code, 'custom operator')}, which is not read"))
            elif operator.code in (CONV, DEPTHWISE, CONNECTED, TRANSPOSED):
                try:
                    layers.append(_layer(operator, names.add(label), buffers))
                except ImportFormatError as error:
                    left_out.append(LeftOut(label, str(error)))
    told = tuple(f"{len(graphs) - 1} graphs beside the first are passed over" for _ in graphs[1:2])
    samples = min((layer.samples or 1 for layer in layers), default=1)
    return Imported(path, "tflite", path.stem, tuple(layers), samples, left_out=tuple(left_out), told=told)


def _operator(table: Table, codes: list[int], tensors: list[Table]) -> _Operator:
    number, inputs, outputs = table.number(0, 4), table.numbers(1), table.numbers(2)
    if number >= len(codes) or not outputs or not all(-1 <= n < len(tensors) for n in (*inputs, *outputs)):
        raise ImportFormatError("operator: must name an operator's code and tensors of its graph")
    given = [tensors[n] if n >= 0 else None for n in inputs]
    return _Operator(codes[number], given, tensors[max(outputs[0], 0)], table.table(4))


def _layer(operator: _Operator, name: str, buffers: list[Table]) -> ImportedLayer:
    data, weight = (operator.inputs[n] if n < len(operator.inputs) else None for n in _order(operator.code))
    if data is None or weight is None:
        raise ImportFormatError("must have an input and a weight")
    shape, kernel = _shape(data), _shape(weight)
    spread = (1, 1)
    if operator.code == CONNECTED:
        if len(kernel) != 2 or prod(shape) % kernel[1]:
            raise ImportFormatError(f"must have a matrix for rows of the input, has {kernel} for {shape}")
        rows = prod(shape) // kernel[1]
        samples = shape[0] if len(shape) > 1 and rows % shape[0] == 0 else 1
        kind, geometry = "linear", product(rows // samples, kernel[1], kernel[0])
    else:
        if len(shape) != 4 or len(kernel) != 4:
            raise ImportFormatError(f"must have maps, has input {shape} and weight {kernel}")
        samples = shape[0]
        if operator.code == TRANSPOSED:
            geometry, spread = _transposed(operator, shape, kernel)
        else:
            geometry = _convolution(operator, shape, kernel)
        kind = "conv" if spread != (1, 1) else kind_of(geometry)
    source = _source(operator.code, weight, kernel, geometry, buffers)
    return ImportedLayer(name, kind, geometry, {"weight": source} if source else {}, samples=samples, spread=spread)


def _order(code: int) -> tuple[int, int]:
    """Which inputs are the data and the weight; a transposed convolution has the shape of its output first."""
    return (2, 1) if code == TRANSPOSED else (0, 1)


def _shape(tensor: Table) -> tuple[int, ...]:
    shape = tuple(tensor.numbers(0))
    if not shape or min(shape) < 1 or prod(shape) > 1 << 40:
        raise ImportFormatError(f"{tensor.text(3)[:60]}: must have a fixed shape, has {shape}")
    return shape


def _convolution(operator: _Operator, shape: tuple[int, ...], kernel: tuple[int, ...]) -> Geometry:
    """Maps lie N H W C, weights K R S C, those of a depthwise one 1 R S K."""
    channels, taps = shape[3], (kernel[1], kernel[2])
    is_depthwise = operator.code == DEPTHWISE
    filters = kernel[3] if is_depthwise else kernel[0]
    groups = channels if is_depthwise else channels // max(1, kernel[3])
    if filters % groups or (not is_depthwise and kernel[3] * groups != channels):
        raise ImportFormatError(f"must have filters for {channels} channels, has weight {kernel}")
    first = 5 if is_depthwise else 4
    stride, dilation = (operator.option(2), operator.option(1)), (operator.option(first + 1), operator.option(first))
    padding = [0, 0, 0, 0]
    if operator.option(0, 1, SAME) == SAME:
        for axis, (n, t, st, d) in enumerate(zip(shape[1:3], taps, stride, dilation, strict=True)):
            zeros = max(0, (-(-n // max(1, st)) - 1) * st + (t - 1) * d + 1 - n)
            padding[2 * axis : 2 * axis + 2] = zeros // 2, zeros - zeros // 2
    around = padding[0], padding[1], padding[2], padding[3]
    return Geometry(channels, shape[1], shape[2], filters, taps, stride, around, dilation, groups)


def _transposed(
    operator: _Operator, shape: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[Geometry, tuple[int, int]]:
    """A convolution on the map with zeros between its elements, for the output that the operator has."""
    stride, wanted = (operator.option(2), operator.option(1)), _shape(operator.output)
    if min(stride) < 1 or len(wanted) != 4 or kernel[3] != shape[3]:
        raise ImportFormatError(f"must be a transposed convolution, has weight {kernel} and output {wanted}")
    size = [(n - 1) * st + 1 for n, st in zip(shape[1:3], stride, strict=True)]
    around: list[int] = []
    for n, t, st, out, given in zip(size, kernel[1:3], stride, wanted[1:3], shape[1:3], strict=True):
        cut = max(0, (given - 1) * st + t - out) // 2
        before = t - 1 - cut
        around += [before, out + t - 1 - n - before]
    if min(around) < 0:
        raise ImportFormatError("transposed convolution that crops its input")
    pads = around[0], around[1], around[2], around[3]
    return Geometry(shape[3], size[0], size[1], kernel[0], (kernel[1], kernel[2]), (1, 1), pads), stride


def _source(
    code: int, weight: Table, kernel: tuple[int, ...], geometry: Geometry, buffers: list[Table]
) -> Stored | None:
    """The weight as K C R S, where the model has its numbers."""
    number, dtype = weight.number(2, 4), DTYPES.get(weight.number(1, 1))
    start, length = buffers[number].span(0) if number < len(buffers) else (0, 0)
    if dtype is None or length != prod(kernel) * np.dtype(dtype).itemsize or prod(kernel) > LARGEST_TENSOR:
        return None
    how = weight.table(4)
    zeros = np.array(how.numbers(3, 8) if how else [], np.float32)
    axis = how.number(6, 4) if how else 0
    content = weight.buffer

    def read() -> np.ndarray:
        values = np.frombuffer(content, dtype, prod(kernel), start).reshape(kernel).astype(np.float32)
        if zeros.size == 1:
            values = values - zeros
        elif zeros.size > 1 and axis < len(kernel) and zeros.size == kernel[axis]:
            values = values - zeros.reshape([-1 if n == axis else 1 for n in range(len(kernel))])
        if code == DEPTHWISE:
            values = values.transpose(3, 0, 1, 2)
        elif code != CONNECTED:
            values = values.transpose(0, 3, 1, 2)
        if code == TRANSPOSED:
            values = values[:, :, ::-1, ::-1]
        return np.ascontiguousarray(values).reshape(geometry.weight_shape)

    return Stored(read)
