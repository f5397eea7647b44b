"""Operators of TensorFlow Lite that multiply, as layers: convolutions, matrix products, recurrent cells.

Maps lie N H W C. Each reader of ``READERS`` gives the operator's layers, and what a trace cannot hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import ImportedLayer, LeftOut, kind_of, product
from accelsim.workload.importers.tflite_graph import Operator, Read, Shape, shape_of
from accelsim.workload.patterns import Stored

Found = list[ImportedLayer | LeftOut]
# Numbers of operators in TensorFlow Lite's schema.
CONV, DEPTHWISE, CONNECTED, TRANSPOSED, BATCHED, CONV_3D = 3, 4, 9, 67, 126, 132
LSTM, LSTM_SEQUENCE, LSTM_BOTH_WAYS, RNN, RNN_SEQUENCE, RNN_BOTH_WAYS, SVDF = 16, 44, 52, 24, 35, 46, 27
SAME = 0


def _layer(
    name: str, geometry: Geometry, samples: int, read: Read | None, arrange: Callable[[np.ndarray], np.ndarray],
    kind: str = "", spread: tuple[int, int] = (1, 1),
) -> ImportedLayer:  # fmt: skip
    """With its weight, where the model has it; ``arrange`` makes K C R S of the file's order."""
    tensors = {}
    if read is not None:
        stored = read
        tensors["weight"] = Stored(lambda: np.ascontiguousarray(arrange(stored())).reshape(geometry.weight_shape))
    return ImportedLayer(name, kind or kind_of(geometry), geometry, tensors, samples=samples, spread=spread)


# ---- convolutions


def _convolution(operator: Operator, name: str) -> Found:
    """Weights K R S C, those of a depthwise one 1 R S K."""
    shape, kernel = _maps(operator, 0, 1, axes=4)
    channels, taps = shape[3], (kernel[1], kernel[2])
    is_depthwise = operator.code == DEPTHWISE
    filters = kernel[3] if is_depthwise else kernel[0]
    groups = channels if is_depthwise else channels // max(1, kernel[3])
    if filters % groups or (not is_depthwise and kernel[3] * groups != channels):
        raise ImportFormatError(f"must have filters for {channels} channels, has weight {kernel}")
    first = 5 if is_depthwise else 4
    stride, dilation = (operator.option(2), operator.option(1)), (operator.option(first + 1), operator.option(first))
    top, bottom, left, right = _padding(operator, shape[1:3], taps, stride, dilation)
    around = top, bottom, left, right
    geometry = Geometry(channels, shape[1], shape[2], filters, taps, stride, around, dilation, groups)
    order = (3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2)
    return [_layer(name, geometry, shape[0], operator.numbers(1), lambda a: a.transpose(order))]


def _maps(operator: Operator, data: int, weight: int, axes: int) -> tuple[Shape, Shape]:
    shape, kernel = operator.shape(data), operator.shape(weight)
    if len(shape) != axes or len(kernel) != axes:
        raise ImportFormatError(f"must have maps of {axes} axes, has input {shape} and weight {kernel}")
    return shape, kernel


def _padding(
    operator: Operator, sizes: Sequence[int], taps: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Zeros before and behind each axis; an odd one stands behind."""
    if operator.option(0, 1, SAME) != SAME:
        return [0] * (2 * len(sizes))
    around = []
    for n, t, st, d in zip(sizes, taps, stride, dilation, strict=True):
        zeros = max(0, (-(-n // max(1, st)) - 1) * st + (t - 1) * d + 1 - n)
        around += [zeros // 2, zeros - zeros // 2]
    return around


def _convolution_3d(operator: Operator, name: str) -> Found:
    """Maps N D H W C, weights D R S C K: depth of the kernel is channels, depth of the output samples."""
    shape, kernel = _maps(operator, 0, 1, axes=5)
    stride = [operator.option(field) for field in (1, 3, 2)]
    dilation = [operator.option(field) for field in (5, 7, 6)]
    if shape[4] % kernel[3] or min(stride) < 1 or kernel[4] % (shape[4] // kernel[3]):
        raise ImportFormatError(f"must have filters for {shape[4]} channels, has weight {kernel}")
    groups = shape[4] // kernel[3]
    padding = _padding(operator, shape[1:4], kernel[:3], stride, dilation)
    depth = (shape[1] + padding[0] + padding[1] - (kernel[0] - 1) * dilation[0] - 1) // stride[0] + 1
    top, bottom, left, right = padding[2:]
    geometry = Geometry(
        kernel[0] * shape[4], shape[2], shape[3], kernel[4], (kernel[1], kernel[2]), (stride[1], stride[2]),
        (top, bottom, left, right), (dilation[1], dilation[2]), groups,
    )  # fmt: skip
    return [_layer(name, geometry, shape[0] * depth, operator.numbers(1), lambda a: a.transpose(4, 3, 0, 1, 2))]


def _transposed(operator: Operator, name: str) -> Found:
    """A convolution on the map with zeros between its elements, for the output that the operator has."""
    shape, kernel = _maps(operator, 2, 1, axes=4)
    stride, wanted = (operator.option(2), operator.option(1)), shape_of(operator.output)
    if min(stride) < 1 or len(wanted) != 4 or kernel[3] != shape[3]:
        raise ImportFormatError(f"must be a transposed convolution, has weight {kernel} and output {wanted}")
    size = [(n - 1) * st + 1 for n, st in zip(shape[1:3], stride, strict=True)]
    around: list[int] = []
    for n, t, st, out, given in zip(size, kernel[1:3], stride, wanted[1:3], shape[1:3], strict=True):
        cut = max(0, (given - 1) * st + t - out) // 2
        before = t - 1 - cut
        around += [before, out + t - 1 - n - before]
    if min(around) < 0:
        return [LeftOut(name, "transposed convolution that crops its input", prod(shape) * prod(kernel[:3]))]
    top, bottom, left, right = around
    padding = top, bottom, left, right
    geometry = Geometry(shape[3], size[0], size[1], kernel[0], (kernel[1], kernel[2]), (1, 1), padding)

    def arrange(weight: np.ndarray) -> np.ndarray:
        return weight.transpose(0, 3, 1, 2)[:, :, ::-1, ::-1]

    kind = "" if stride == (1, 1) else "conv"
    return [_layer(name, geometry, shape[0], operator.numbers(1), arrange, kind, stride)]


# ---- matrix products


def _connected(operator: Operator, name: str) -> Found:
    """Weights K C."""
    shape, kernel = operator.shape(0), operator.shape(1)
    if len(kernel) != 2 or prod(shape) % kernel[1]:
        raise ImportFormatError(f"must have a matrix for rows of the input, has {kernel} for {shape}")
    rows = prod(shape) // kernel[1]
    samples = shape[0] if len(shape) > 1 and rows % shape[0] == 0 else 1
    return [_linear(name, rows // samples, kernel, samples, operator.numbers(1))]


def _linear(name: str, tokens: int, kernel: Shape, samples: int, read: Read | None) -> ImportedLayer:
    return _layer(name, product(tokens, kernel[1], kernel[0]), samples, read, np.asarray, "linear")


def _batched(operator: Operator, name: str) -> Found:
    """One matrix of the model's on the right is a weight; of what else there is none, or one for each sample."""
    left, right = operator.shape(0), operator.shape(1)
    if len(left) < 2 or len(right) < 2:
        raise ImportFormatError(f"must have matrices, has {left} and {right}")
    is_turned = operator.option(0, 1, 0), operator.option(1, 1, 0)
    rows, inner = left[:-3:-1] if is_turned[0] else left[-2:]
    below, columns = right[:-3:-1] if is_turned[1] else right[-2:]
    try:
        count = prod(np.broadcast_shapes(left[:-2], right[:-2])) * rows * inner * columns
    except ValueError as error:
        raise ImportFormatError(f"must have as many matrices on both sides, has {left} and {right}") from error
    if inner != below:
        raise ImportFormatError(f"must have as many columns as rows, has {left} and {right}")
    data, weight = operator.numbers(0), operator.numbers(1)
    if data is None and weight is not None and prod(right[:-2]) == 1:
        samples = left[0] if len(left) > 2 else 1
        kernel, stored = (columns, inner), weight

        def filters() -> np.ndarray:
            matrix = stored().reshape(right[-2:])
            return matrix if is_turned[1] else matrix.T

        return [_linear(name, prod(left[:-2]) * rows // samples, kernel, samples, filters)]
    what = (
        "product of two activations" if data is weight is None else "product with matrices of the model's, one for each"
    )
    return [LeftOut(name, what, count)]


# ---- recurrent cells


def _sequence(operator: Operator, time_major: int | None) -> tuple[int, int]:
    """Steps and batch of a cell's input, whose first axis are the steps if ``time_major``; None: there is one step."""
    shape = operator.shape(0)
    if len(shape) != (2 if time_major is None else 3):
        raise ImportFormatError(f"must be a sequence of rows, has input {shape}")
    if time_major is None:
        return 1, shape[0]
    return (shape[0], shape[1]) if time_major else (shape[1], shape[0])


def _gates(operator: Operator, name: str, numbers: Sequence[int], steps: int, batch: int) -> list[ImportedLayer]:
    """The matrices of a cell's gates that meet the same rows, one below the other; a cell may have no input gate."""
    given = [number for number in numbers if operator.has(number)]
    shapes = [operator.shape(number) for number in given]
    if not shapes or any(len(shape) != 2 or shape[1] != shapes[0][1] for shape in shapes):
        raise ImportFormatError(f"{name}: must have matrices of as many columns, has {shapes}")
    parts = [operator.numbers(number) for number in given]
    known = [part for part in parts if part is not None]

    def below() -> np.ndarray:
        return np.concatenate([read() for read in known])

    rows = sum(shape[0] for shape in shapes)
    return [_linear(name, steps, (rows, shapes[0][1]), batch, below if len(known) == len(parts) else None)]


def _lstm(operator: Operator, name: str) -> Found:
    """W, of the inputs, and R, of the states, both with four gates; P where the output is projected."""
    time_major = {LSTM: None, LSTM_SEQUENCE: operator.option(3, 1, 0), LSTM_BOTH_WAYS: operator.option(4, 1, 1)}
    steps, batch = _sequence(operator, time_major[operator.code])
    both = operator.code == LSTM_BOTH_WAYS
    if both and any(operator.has(number) for number in range(39, 48)):
        raise ImportFormatError("LSTM both ways with auxiliary inputs")
    found: Found = []
    for way, first in enumerate((1, 18) if both else (1,)):
        ending = str(way) if both else ""
        found += _gates(operator, f"{name}/W{ending}", range(first, first + 4), steps, batch)
        found += _gates(operator, f"{name}/R{ending}", range(first + 4, first + 8), steps, batch)
        projection = first + 15
        if operator.has(projection):
            found += _gates(operator, f"{name}/P{ending}", [projection], steps, batch)
    return found


def _rnn(operator: Operator, name: str) -> Found:
    """W, of the inputs, and R, of the states."""
    time_major = None if operator.code == RNN else operator.option(0, 1, 0)
    steps, batch = _sequence(operator, time_major)
    both = operator.code == RNN_BOTH_WAYS
    if both and any(operator.has(number) for number in range(9, 12)):
        raise ImportFormatError("RNN both ways with auxiliary inputs")
    found: Found = []
    for way, first in enumerate((1, 5) if both else (1,)):
        ending = str(way) if both else ""
        found += _gates(operator, f"{name}/W{ending}", [first], steps, batch)
        found += _gates(operator, f"{name}/R{ending}", [first + 1], steps, batch)
    return found


def _svdf(operator: Operator, name: str) -> Found:
    """A matrix of features, and for each row of it a filter over what it gave in the last steps, a group each."""
    steps, batch = _sequence(operator, None)
    features, times = operator.shape(1), operator.shape(2)
    if len(features) != 2 or len(times) != 2 or features[0] != times[0]:
        raise ImportFormatError(f"must have a row of times for each of features, has {features} and {times}")
    over_time = Geometry(prod(times), 1, 1, times[0], (1, 1), groups=times[0])
    return [
        *_gates(operator, f"{name}/features", [1], steps, batch),
        _layer(f"{name}/times", over_time, batch, operator.numbers(2), np.asarray),
    ]


READERS: dict[int, Callable[[Operator, str], Found]] = {
    CONV: _convolution, DEPTHWISE: _convolution, TRANSPOSED: _transposed, CONV_3D: _convolution_3d,
    CONNECTED: _connected, BATCHED: _batched, LSTM: _lstm, LSTM_SEQUENCE: _lstm, LSTM_BOTH_WAYS: _lstm,
    RNN: _rnn, RNN_SEQUENCE: _rnn, RNN_BOTH_WAYS: _rnn, SVDF: _svdf,
}  # fmt: skip
