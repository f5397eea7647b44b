"""ONNX models: shapes, by ONNX's own shape inference, and weights. Needs the onnx package.

``Conv`` of one or two dimensions, ``Gemm``, and ``MatMul`` with a constant become layers; a product of two activations
has no weight and is left out. A batch size that the model leaves open is 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import Imported, ImportedLayer, LeftOut, Names, blame
from accelsim.workload.patterns import Stored

LARGEST_MODEL = 1 << 31  # bytes; no protocol buffer is larger
Shape = tuple[int, ...]


def read(path: str | os.PathLike[str]) -> Imported:
    """Read a model.

    Raises
    ------
    ImportFormatError
        One line that names the file and the node, if onnx is missing, the file is none, or a shape cannot be known.
    """
    path = Path(path)
    graph = _Graph(path)
    names, layers = Names(), []
    left_out, samples = [], 0
    for node in graph.nodes:
        if node.op_type in READERS:
            label = _label(node)
            with blame(f"{path}: {label}"):
                found = READERS[node.op_type](graph, node)
                if found is None:
                    left_out.append(LeftOut(label, "product of two activations"))
                    continue
                shape, geometry, weight = found
                samples = samples or shape[0]
                kind, geometry = geometry(samples, shape) if callable(geometry) else ("conv", geometry)
                if kind == "conv" and shape[0] != samples:
                    raise ImportFormatError(f"batch: must be {samples} as before, is {shape[0]}")
                layers.append(ImportedLayer(names.add(label), kind, geometry, weight))
    return Imported(path, "onnx", path.stem, tuple(layers), samples or 1, left_out=tuple(left_out))


class _Graph:
    """A model's nodes, the shapes of its values, and its constants."""

    def __init__(self, path: Path):
        try:
            import onnx
            from onnx import numpy_helper, shape_inference
        except ImportError as error:
            raise ImportFormatError(f"{path}: needs the onnx package: pip install 'accelsim[import]'") from error
        if not path.is_file():
            raise ImportFormatError(f"{path}: no such file")
        if path.stat().st_size > LARGEST_MODEL:
            raise ImportFormatError(f"{path}: must have at most {LARGEST_MODEL} bytes, has {path.stat().st_size}")
        try:
            model = onnx.load(path)
            _close_batch(model.graph)
            graph = shape_inference.infer_shapes(model).graph
        except Exception as error:  # protobuf's, onnx's, and C++'s
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise ImportFormatError(f"{path}: must be an ONNX model: {text}") from error
        self.nodes = graph.node
        self._array = numpy_helper.to_array
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            values = [a.t for a in node.attribute if a.name == "value" and a.HasField("t")]
            if node.op_type == "Constant" and values:
                self._constants[node.output[0]] = values[0]
        infos = [*graph.input, *graph.value_info, *graph.output]
        self._shapes = {info.name: info.type.tensor_type.shape.dim for info in infos}

    def shape(self, name: str) -> Shape:
        """Of a value; ImportFormatError if the model leaves it open."""
        if name in self._constants:
            return tuple(self._constants[name].dims)
        if name not in self._shapes:
            raise ImportFormatError(f"{name}: must have a shape that can be inferred, has none")
        sizes = tuple(dim.dim_value for dim in self._shapes[name])
        if not all(sizes):
            raise ImportFormatError(
                f"{name}: must have a fixed shape, has {sizes} where 0 is open; fix it and infer anew"
            )
        return sizes

    def weight(self, name: str, arrange: Callable[[np.ndarray], np.ndarray]) -> Mapping[str, Stored]:
        """The constant of that name, as K C R S; nothing where it is no constant, and so has to be drawn."""
        if name not in self._constants:
            return {}
        tensor = self._constants[name]
        return {"weight": Stored(lambda: arrange(self._array(tensor)))}

    def is_constant(self, name: str) -> bool:
        """Whether the model holds its numbers."""
        return name in self._constants


# The input's shape, the geometry (or what makes one for a number of samples), and what holds the weight.
Read = tuple[Shape, Any, Mapping[str, Stored]]


def _close_batch(graph: Any) -> None:
    """Inputs whose first size is open get 1."""
    constants = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and dims and not dims[0].dim_value:
            dims[0].dim_value = 1


def _label(node: Any) -> str:
    """The weight's name, as PyTorch exports it, or the node's, or its result's."""
    weight = str(node.input[1]) if len(node.input) > 1 else ""
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    return str((node.name or node.output[0]).strip("/") or node.op_type)


def _attributes(node: Any) -> dict[str, Any]:
    found = {}
    for a in node.attribute:
        found[a.name] = list(a.ints) or (a.s.decode("utf-8", "replace") if a.s else a.i)
    return found


def _conv(graph: _Graph, node: Any) -> Read:
    shape, weight = graph.shape(node.input[0]), graph.shape(node.input[1])
    if len(shape) not in (3, 4) or len(weight) != len(shape):
        raise ImportFormatError(f"must be a convolution of 1 or 2 dimensions, has input {shape} and weight {weight}")
    given, axes = _attributes(node), len(shape) - 2
    kernel = weight[2:]
    stride, dilation = (_sizes(given.get(name), (1,) * axes) for name in ("strides", "dilations"))
    pads = _sizes(given.get("pads"), (0,) * 2 * axes)
    auto = given.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ImportFormatError(f"auto_pad: must be one that ONNX knows, got {str(auto)[:40]!r}")
    if auto.startswith("SAME"):
        pads = _same(shape[2:], kernel, stride, dilation, auto == "SAME_LOWER")
    elif auto == "VALID":
        pads = (0,) * 2 * axes
    if axes == 1:  # a map of one column
        shape, kernel, stride, dilation = (*shape, 1), (*kernel, 1), (*stride, 1), (*dilation, 1)
        pads = pads[0], 0, pads[1], 0
    padding = pads[0], pads[2], pads[1], pads[3]
    (height, width), (down, right), (rows, columns) = shape[2:], stride, dilation
    groups = int(given.get("group", 1))
    geometry = Geometry(
        shape[1], height, width, weight[0], (kernel[0], kernel[1]), (down, right), padding, (rows, columns), groups
    )
    if weight[1] * groups != shape[1]:
        raise ImportFormatError(f"weight: must have {shape[1]} channels over {groups} groups, has {weight[1]}")
    return shape, geometry, graph.weight(node.input[1], lambda array: array.reshape(geometry.weight_shape))


def _sizes(values: object, default: Shape) -> Shape:
    sizes = tuple(values) if isinstance(values, list) else default
    if len(sizes) != len(default):
        raise ImportFormatError(f"must have {len(default)} sizes, got {sizes}")
    return sizes


def _same(size: Shape, kernel: Shape, stride: Shape, dilation: Shape, lower: bool) -> Shape:
    """Zeros at the begins, then at the ends, for ⌈size / stride⌉ outputs; the odd one at the end unless ``lower``."""
    begins, ends = [], []
    for n, taps, st, d in zip(size, kernel, stride, dilation, strict=True):
        zeros = max(0, (-(-n // st) - 1) * st + (taps - 1) * d + 1 - n)
        less, more = zeros // 2, zeros - zeros // 2
        begins.append(more if lower else less)
        ends.append(less if lower else more)
    return (*begins, *ends)


def _gemm(graph: _Graph, node: Any) -> Read:
    given = _attributes(node)
    shape, weight = graph.shape(node.input[0]), graph.shape(node.input[1])
    if given.get("transA"):
        shape = shape[::-1]
    arrange = np.asarray if given.get("transB") else np.transpose
    filters = weight[0] if given.get("transB") else weight[-1]
    return _product(graph, node, shape, filters, arrange)


def _matmul(graph: _Graph, node: Any) -> Read | None:
    if not graph.is_constant(node.input[1]) or len(graph.shape(node.input[1])) != 2:
        return None
    return _product(graph, node, graph.shape(node.input[0]), graph.shape(node.input[1])[1], np.transpose)


def _product(graph: _Graph, node: Any, shape: Shape, filters: int, arrange: Callable[[np.ndarray], np.ndarray]) -> Read:
    def geometry(samples: int, shape: Shape) -> tuple[str, Geometry]:
        """Rows that are no samples are tokens."""
        rows = prod(shape[:-1])
        if rows % samples:
            raise ImportFormatError(f"rows: must be a multiple of the batch of {samples}, are {rows}")
        return "linear", Geometry(shape[-1], rows // samples, 1, filters, (1, 1))

    return shape, geometry, graph.weight(node.input[1], lambda array: arrange(array)[..., None, None])


READERS = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
