"""The operators of ONNX that multiply: what product each is, in shapes, and how its weight lies."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import LeftOut, product
from accelsim.workload.importers.onnx_graph import Graph, Shape
from accelsim.workload.patterns import Stored

Arrange = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Product:
    """One product of an operator.

    Parameters
    ----------
    name, kind, geometry, samples, spread
        As in :class:`ImportedLayer`.
    weight : str
        The value that is the weight.
    arrange : callable
        Its numbers as K C R S.
    zero_point : str
        The value that stands for zero in them, where they are quantised.
    told : tuple of str
    """

    name: str
    kind: str
    geometry: Geometry
    samples: int
    weight: str
    arrange: Arrange
    zero_point: str = ""
    told: tuple[str, ...] = ()
    spread: tuple[int, int] = (1, 1)

    def source(self, graph: Graph) -> Stored:
        """The weight, read when it is asked for."""

        def read() -> np.ndarray:
            array = graph.value(self.weight)
            if self.zero_point:
                zero = graph.value(self.zero_point).astype(np.float32)
                if (
                    zero.size > 1
                ):  # one for each filter, which are the first axis of a convolution, the last of a matrix
                    zero = zero.reshape(-1, *(1,) * (array.ndim - 1)) if self.kind == "conv" else zero
                array = array.astype(np.float32) - (zero if zero.size > 1 else zero.reshape(()))
            return np.ascontiguousarray(self.arrange(array)).reshape(self.geometry.weight_shape)

        return Stored(read)


Found = Product | LeftOut


def label(graph: Graph, node: Any, weight: int = 1) -> str:
    """The weight's name, as PyTorch exports it, or the node's, or its result's."""
    name = node.input[weight] if len(node.input) > weight else ""
    roots = [name, *(graph.origins(name)[0] if name else [])]
    for root in roots:
        for ending in (".weight", ".weight_orig"):
            if root.endswith(ending):
                return root.removesuffix(ending)
    result = next((output for output in node.output if output), "")
    return (node.name or result).strip("/") or node.op_type


def _attributes(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for a in node.attribute:
        found[a.name] = list(a.ints) or (a.s.decode("utf-8", "replace") if a.s else a.i)
    return found


def _inputs(node: Any, *numbers: int) -> list[str]:
    names = [node.input[n] if n < len(node.input) else "" for n in numbers]
    if not all(names):
        raise ImportFormatError(f"{node.op_type}: must have inputs {', '.join(map(str, numbers))}")
    return names


# ---- convolutions


def _conv(graph: Graph, node: Any) -> list[Found]:
    return _convolution(graph, node, 0, 1, "")


def _conv_integer(graph: Graph, node: Any) -> list[Found]:
    return _convolution(graph, node, 0, 1, node.input[3] if len(node.input) > 3 else "")


def _qlinear_conv(graph: Graph, node: Any) -> list[Found]:
    return _convolution(graph, node, 0, 3, _inputs(node, 5)[0])


def _convolution(graph: Graph, node: Any, data: int, weight: int, zero_point: str) -> list[Found]:
    names = _inputs(node, data, weight)
    shape, kernel = graph.shape(names[0]), graph.shape(names[1])
    axes = len(shape) - 2
    if axes not in (1, 2, 3) or len(kernel) != len(shape):
        raise ImportFormatError(f"must be a convolution of 1 to 3 dimensions, has input {shape} and weight {kernel}")
    given = _attributes(node)
    taps, stride, dilation, pads = _windows(given, shape[2:], kernel[2:])
    groups = int(given.get("group", 1)) or 1
    if kernel[1] * groups != shape[1]:
        raise ImportFormatError(f"weight: must have {shape[1]} channels over {groups} groups, has {kernel[1]}")
    name = label(graph, node, weight)
    if names[1] not in graph.inputs and graph.depends_on_input(names[1]):
        places = [_outputs(*axis) for axis in zip(shape[2:], taps, stride, dilation, pads, strict=True)]
        return [LeftOut(name, "convolution of two activations", shape[0] * prod(kernel) * prod(places))]
    samples, channels = shape[0], shape[1]
    if axes == 3:  # kernel depth folds into channels, output depth into samples
        samples *= _outputs(shape[2], taps[0], stride[0], dilation[0], pads[0])
        channels *= taps[0]
        shape, taps, stride, dilation, pads = shape[:2] + shape[3:], taps[1:], stride[1:], dilation[1:], pads[1:]
    geometry = _geometry(channels, kernel[0], shape[2:], taps, stride, dilation, pads, groups)
    told = ("of three dimensions: depth of the kernel is channels, depth of the output samples",) if axes == 3 else ()
    weights = geometry.weight_shape
    return [
        Product(name, "conv", geometry, samples, names[1], lambda a: a.reshape(weights), zero_point, told)
    ]  # fmt: skip


def _geometry(
    channels: int, filters: int, size: Shape, taps: Shape, stride: Shape, dilation: Shape,
    pads: tuple[tuple[int, int], ...], groups: int,
) -> Geometry:  # fmt: skip
    if len(size) == 1:  # a map of one column
        size, taps, stride, dilation, pads = (*size, 1), (*taps, 1), (*stride, 1), (*dilation, 1), (*pads, (0, 0))
    height, width = size
    (top, bottom), (left, right) = pads
    pairs = [(int(a), int(b)) for a, b in (taps, stride, dilation)]
    return Geometry(channels, height, width, filters, pairs[0], pairs[1], (top, bottom, left, right), pairs[2], groups)


def _windows(
    given: dict[str, Any], size: Shape, taps: Shape
) -> tuple[Shape, Shape, Shape, tuple[tuple[int, int], ...]]:
    """Taps, strides, dilations and zeros before and after, axis by axis."""
    axes = len(size)
    stride, dilation = (_sizes(given.get(name), (1,) * axes) for name in ("strides", "dilations"))
    pads = _sizes(given.get("pads"), (0,) * 2 * axes)
    auto = given.get("auto_pad") or "NOTSET"
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ImportFormatError(f"auto_pad: must be one that ONNX knows, got {str(auto)[:40]!r}")
    if min(*stride, *dilation, *taps) < 1:
        raise ImportFormatError(f"strides, dilations and kernel: must be 1 or more, got {stride}, {dilation}, {taps}")
    if auto.startswith("SAME"):
        pairs = [_same(*axis, auto == "SAME_LOWER") for axis in zip(size, taps, stride, dilation, strict=True)]
    elif auto == "VALID":
        pairs = [(0, 0)] * axes
    else:
        pairs = list(zip(pads[:axes], pads[axes:], strict=True))
    return taps, stride, dilation, tuple(pairs)


def _sizes(values: object, default: Shape) -> Shape:
    sizes = tuple(values) if isinstance(values, list) else default
    if len(sizes) != len(default):
        raise ImportFormatError(f"must have {len(default)} sizes, got {sizes}")
    return sizes


def _outputs(size: int, taps: int, stride: int, dilation: int, pads: tuple[int, int]) -> int:
    places = (size + sum(pads) - (taps - 1) * dilation - 1) // stride + 1
    if places < 1:
        raise ImportFormatError(f"must have an output, has {places} places along an axis of {size}")
    return places


def _same(n: int, taps: int, stride: int, dilation: int, lower: bool) -> tuple[int, int]:
    """Zeros at the begin and the end, for ⌈size / stride⌉ outputs; the odd one at the end unless ``lower``."""
    zeros = max(0, (-(-n // stride) - 1) * stride + (taps - 1) * dilation + 1 - n)
    less, more = zeros // 2, zeros - zeros // 2
    return (more, less) if lower else (less, more)


def _conv_transpose(graph: Graph, node: Any) -> list[Found]:
    """The input gradient of a convolution, run forward: a convolution on the map with zeros between its elements."""
    data, weight = _inputs(node, 0, 1)
    shape, kernel = graph.shape(data), graph.shape(weight)
    axes = len(shape) - 2
    if axes not in (1, 2) or len(kernel) != len(shape) or kernel[0] != shape[1]:
        raise ImportFormatError(f"transposed: must have 1 or 2 dimensions, has input {shape} and weight {kernel}")
    given, groups = _attributes(node), int(_attributes(node).get("group", 1)) or 1
    taps, stride, dilation, pads = _windows({**given, "auto_pad": "NOTSET"}, shape[2:], kernel[2:])
    more = _sizes(given.get("output_padding"), (0,) * axes)
    name, filters = label(graph, node), kernel[1] * groups
    wanted = graph.known(node.output[0])
    size = tuple((n - 1) * st + 1 for n, st in zip(shape[2:], stride, strict=True))
    extents = [(t - 1) * d for t, d in zip(taps, dilation, strict=True)]
    zeros = [(e - a, e - b + o) for e, (a, b), o in zip(extents, pads, more, strict=True)]
    if wanted and len(wanted) == len(shape):  # output_shape and auto_pad decide what inference knows
        for axis, n in enumerate(wanted[2:]):
            lacking = n - (size[axis] + sum(zeros[axis]) - extents[axis])
            zeros[axis] = zeros[axis][0], zeros[axis][1] + lacking
    count = shape[0] * prod(kernel) * prod(shape[2:])
    if min(min(pair) for pair in zeros) < 0 or shape[1] % groups:
        return [LeftOut(name, "transposed convolution that crops its input", count)]
    geometry = _geometry(shape[1], filters, size, taps, (1,) * axes, dilation, tuple(zeros), groups)

    def arrange(array: np.ndarray) -> np.ndarray:
        grouped = array.reshape(groups, shape[1] // groups, kernel[1], *kernel[2:])
        turned = np.flip(grouped, tuple(range(3, 3 + axes)))
        return turned.swapaxes(1, 2)

    told = (f"a transposed convolution, as one on the map with {'×'.join(map(str, stride))} − 1 zeros in between",)
    spread = (stride[0], stride[1] if axes == 2 else 1)
    return [Product(name, "conv", geometry, shape[0], weight, arrange, told=told, spread=spread)]


# ---- matrix products


def _gemm(graph: Graph, node: Any) -> list[Found]:
    a, b = _inputs(node, 0, 1)
    given = _attributes(node)
    left, right = graph.shape(a), graph.shape(b)
    if len(left) != 2 or len(right) != 2:
        raise ImportFormatError(f"must have matrices, has {left} and {right}")
    rows, inner = left[::-1] if given.get("transA") else left
    columns = right[0] if given.get("transB") else right[1]
    sides = _Sides(a, b, rows, inner, columns, bool(given.get("transA")), bool(given.get("transB")))
    return _matrix(graph, node, sides, b in graph.inputs)


@dataclass(frozen=True)
class _Sides:
    """Two matrices, rows×inner and inner×columns; either may lie transposed, and either may be the weight."""

    a: str
    b: str
    rows: int
    inner: int
    columns: int
    a_turned: bool = False
    b_turned: bool = False


def _matrix(graph: Graph, node: Any, sides: _Sides, b_is_weight: bool = False, zero_points: Shape = ()) -> list[Found]:
    is_weight = [not graph.depends_on_input(name) for name in (sides.a, sides.b)]
    is_weight[1] |= b_is_weight and not is_weight[0]
    if is_weight[1] and not is_weight[0]:
        weight, tokens, filters, turned, number = sides.b, sides.rows, sides.columns, sides.b_turned, 1
    elif is_weight[0] and not is_weight[1]:  # filters are the rows of what stands to the left
        weight, tokens, filters, turned, number = sides.a, sides.columns, sides.rows, not sides.a_turned, 0
    else:
        what = "product of two constants" if all(is_weight) else "product of two activations"
        count = sides.rows * sides.inner * sides.columns
        return [] if all(is_weight) else [LeftOut(label(graph, node), what, count)]
    arrange: Arrange = np.asarray if turned else np.transpose
    zero = node.input[zero_points[number]] if zero_points and len(node.input) > zero_points[number] else ""
    position = next(i for i, name in enumerate(node.input) if name == weight)
    return [_linear(graph, label(graph, node, position), tokens, sides.inner, filters, weight, arrange, zero)]


def _linear(
    graph: Graph, name: str, tokens: int, channels: int, filters: int, weight: str, arrange: Arrange, zero: str = ""
) -> Product:
    """Rows that are no samples are tokens; where the batch does not divide them all are tokens of one sample."""
    samples = graph.batch if tokens % graph.batch == 0 else 1
    told = () if tokens % graph.batch == 0 else (f"{tokens} rows are no multiple of the batch, taken as one sample's",)
    return Product(name, "linear", product(tokens // samples, channels, filters), samples, weight, arrange, zero, told)


def _matmul(graph: Graph, node: Any) -> list[Found]:
    a, b = _inputs(node, 0, 1)
    return _batched(graph, node, a, b)


def _matmul_integer(graph: Graph, node: Any) -> list[Found]:
    a, b = _inputs(node, 0, 1)
    return _batched(graph, node, a, b, zero_points=(2, 3))


def _qlinear_matmul(graph: Graph, node: Any) -> list[Found]:
    a, b = _inputs(node, 0, 3)
    return _batched(graph, node, a, b, zero_points=(2, 5))


def _batched(graph: Graph, node: Any, a: str, b: str, zero_points: Shape = ()) -> list[Found]:
    left, right = graph.shape(a), graph.shape(b)
    if not left or not right:
        raise ImportFormatError(f"must have matrices, has {left} and {right}")
    left, right = left if len(left) > 1 else (1, *left), right if len(right) > 1 else (*right, 1)
    if left[-1] != right[-2]:
        raise ImportFormatError(f"must have as many columns as rows, has {left} and {right}")
    many = prod(np.broadcast_shapes(left[:-2], right[:-2]))
    if graph.depends_on_input(a) == graph.depends_on_input(b):
        if not graph.depends_on_input(a):
            return []
        count = many * left[-2] * left[-1] * right[-1]
        return [LeftOut(label(graph, node), "product of two activations", count)]
    constant, other = (right, left) if graph.depends_on_input(a) else (left, right)
    if prod(constant[:-2]) > 1:
        count = many * left[-2] * left[-1] * right[-1]
        return [LeftOut(label(graph, node), f"product with {prod(constant[:-2])} matrices, one for each", count)]
    rows = prod(other[:-2]) * other[-2] if other is left else left[-2]
    columns = right[-1] if other is left else prod(other[:-2]) * other[-1]
    return _matrix(graph, node, _Sides(a, b, rows, left[-1], columns), zero_points=zero_points)


def _einsum(graph: Graph, node: Any) -> list[Found]:
    equation = str(_attributes(node).get("equation", "")).replace(" ", "")
    name, shapes = label(graph, node), [graph.shape(part) for part in node.input]
    terms, _, result = equation.partition("->")
    parts = terms.split(",")
    if (
        "." in equation
        or len(parts) != len(shapes)
        or any(len(p) != len(s) for p, s in zip(parts, shapes, strict=True))
    ):
        raise ImportFormatError(f"equation: must name each axis of {len(shapes)} inputs, got {equation[:60]!r}")
    sizes = {
        letter: n for part, shape in zip(parts, shapes, strict=True) for letter, n in zip(part, shape, strict=True)
    }
    count = prod(sizes.values())
    if not result and "->" not in equation:
        result = "".join(sorted(letter for letter in sizes if terms.count(letter) == 1))
    depends = [graph.depends_on_input(part) for part in node.input]
    if len(parts) != 2 or sum(depends) != 1:
        what = "product of two activations" if sum(depends) > 1 else "sum over one operand"
        return [LeftOut(name, f"Einsum {equation[:40]}, {what}", count)] if len(parts) > 1 and any(depends) else []
    weight, data = (parts[1], parts[0]) if depends[0] else (parts[0], parts[1])
    shared, own = [x for x in weight if x in data], [x for x in weight if x not in data]
    plain = (
        len({*weight}) == len(weight)
        and len({*data}) == len(data)
        and not {*shared} & {*result}
        and {*own} <= {*result}
    )
    if not plain or not shared:
        return [LeftOut(name, f"Einsum {equation[:40]}, no plain product with a weight", count)]
    tokens = prod(sizes[x] for x in data if x not in shared)
    order = [weight.index(x) for x in (*own, *shared)]
    filters, channels = prod(sizes[x] for x in own), prod(sizes[x] for x in shared)

    def arrange(array: np.ndarray) -> np.ndarray:
        return array.transpose(order)

    number = 1 if depends[0] else 0
    named = label(graph, node, number)
    return [_linear(graph, named, tokens, channels, filters, node.input[number], arrange)]


# ---- recurrent cells


def _recurrent(graph: Graph, node: Any) -> list[Found]:
    """A cell's two matrix products for each direction: of the inputs, and of the states, step by step."""
    data, inputs, states = _inputs(node, 0, 1, 2)
    shape, weight = graph.shape(data), graph.shape(inputs)
    hidden = graph.shape(states)
    if len(shape) != 3 or len(weight) != 3 or len(hidden) != 3:
        raise ImportFormatError(f"must have three axes each, has {shape}, {weight}, {hidden}")
    steps, batch = (shape[1], shape[0]) if _attributes(node).get("layout") else (shape[0], shape[1])
    name = (node.name or node.output[0] or node.op_type).strip("/") or node.op_type
    found: list[Found] = []
    for direction in range(weight[0]):
        for part, value, sizes in (("W", inputs, weight), ("R", states, hidden)):
            geometry = product(steps, sizes[2], sizes[1])
            ending = f"{part}{direction}" if weight[0] > 1 else part
            found.append(Product(f"{name}/{ending}", "linear", geometry, batch, value, operator.itemgetter(direction)))
    return found


READERS: dict[str, Callable[[Graph, Any], list[Found]]] = {
    "Conv": _conv, "FusedConv": _conv, "ConvInteger": _conv_integer, "QLinearConv": _qlinear_conv,
    "ConvTranspose": _conv_transpose, "Gemm": _gemm, "FusedGemm": _gemm, "MatMul": _matmul, "FusedMatMul": _matmul,
    "MatMulInteger": _matmul_integer, "QLinearMatMul": _qlinear_matmul, "Einsum": _einsum,
    "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent,
}  # fmt: skip
# Operators that make several products at once, or in a way of their own: named, not read.
ENTIRE = {
    "Attention", "BiasedMatMul", "DeformConv", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "FlexAttention",
    "GroupQueryAttention", "LinearAttention", "LongformerAttention", "MatMulNBits", "MoE", "MultiHeadAttention",
    "PackedAttention", "QAttention", "QGemm", "QMoE", "SparseAttention", "STFT", "TransposeMatMul", "DFT",
}  # fmt: skip
# Of other domains, what only adds, scales or selects.
HARMLESS = {
    "BiasAdd", "BiasGelu", "BiasSplitGelu", "EmbedLayerNormalization", "FastGelu", "Gelu", "GroupNorm", "Inverse",
    "NhwcMaxPool", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu",
    "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QuickGelu", "RotaryEmbedding", "SimplifiedLayerNormalization",
    "SkipGroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "QuantizeLinear",
    "DequantizeLinear", "GatherND", "Trilu", "Unique", "CropAndResize", "GridSample",
}  # fmt: skip
