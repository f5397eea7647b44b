"""An ONNX model as a graph: shapes, by ONNX's own inference, and constants, by ONNX's own evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import LARGEST_TENSOR, blame_all, check_file

LARGEST_MODEL = 1 << 31  # bytes; no protocol buffer is larger
DEEPEST = 200  # operators between a constant and what is made of it
Shape = tuple[int, ...]
# Operators that are evaluated where all of their inputs are constants, and whose result is no larger than broadcasting
# makes it; those below may make more of less, and are evaluated where inference knows the shape of the result.
FOLDED = {
    "Abs", "Add", "And", "BitShift", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Constant", "DequantizeLinear",
    "Div", "Equal", "Erf", "Exp", "Flatten", "Floor", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual",
    "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "QuantizeLinear", "Reciprocal", "ReduceL1", "ReduceL2",
    "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round", "Shape", "Sigmoid", "Sign",
    "Size", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where", "Xor",
}  # fmt: skip
GROWING = {"ConstantOfShape", "Expand", "Gather", "GatherElements", "MatMul", "Pad", "ScatterND", "Tile", "TopK"}


class Graph:
    """A model's operators, the shapes of its values, and its constants.

    Parameters
    ----------
    path : Path
    size : mapping of str to int
        Of sizes that the model leaves open, by their names.
    batch_axis : int
        Of the first input: the axis of the samples.

    Raises
    ------
    ImportFormatError
        If onnx is missing, or the file is no model.
    """

    def __init__(self, path: Path, size: Mapping[str, int], batch_axis: int):
        try:
            import onnx
            from onnx import shape_inference
        except ImportError as error:
            raise ImportFormatError(f"{path}: needs the onnx package: pip install 'accelsim-sparse[import]'") from error
        self.path, self._onnx = path, onnx
        check_file(path, LARGEST_MODEL)
        with blame_all(path, "must be an ONNX model: "):
            model = onnx.load(path, load_external_data=False)
            _check_functions(model)
            if model.functions:
                from onnx import inliner

                model = inliner.inline_local_functions(model)
            self.batch = _close(model.graph, size, batch_axis)
            model = shape_inference.infer_shapes(model, data_prop=True)
        graph = model.graph
        if not graph.node:
            raise ImportFormatError(f"{path}: must be an ONNX model: has no operators")
        self.nodes = list(graph.node)
        self.opset = {entry.domain: entry.version for entry in model.opset_import}
        self.inputs = {value.name for value in graph.input}
        self._made = {name: node for node in self.nodes for name in node.output if name}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}
        infos = [*graph.input, *graph.value_info, *graph.output]
        self._dims = {info.name: info.type.tensor_type.shape.dim for info in infos if _has_shape(info)}

    def shape(self, name: str) -> Shape:
        """Of a value; ImportFormatError if the model leaves it open."""
        if name in self._tensors:
            return tuple(self._tensors[name].dims)
        if name in self._sparse:
            return tuple(self._sparse[name].dims)
        node = self._made.get(name)
        if node is not None and node.op_type == "Constant" and name not in self._dims:
            return tuple(self.value(name).shape)
        if name not in self._dims:
            raise ImportFormatError(f"{name[:60]}: must have a shape that can be inferred, has none")
        sizes = tuple(dim.dim_value for dim in self._dims[name])
        if not all(size > 0 for size in sizes):
            names = ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in self._dims[name])
            rule = "must have a fixed shape, has"
            raise ImportFormatError(f"{name[:60]}: {rule} ({names[:80]}); --size NAME=N,… gives what is open")
        return sizes

    def known(self, name: str) -> Shape | None:
        """Of a value, if the model tells."""
        try:
            return self.shape(name)
        except ImportFormatError:
            return None

    # ---- constants

    def origins(self, name: str) -> tuple[list[str], list[str], str]:
        """What a value is made of: names of constants, operators in between, and why it is no constant, or nothing."""
        roots: list[str] = []
        operators: list[str] = []
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            part = waiting.pop()
            if part in seen or not part:
                continue
            seen.add(part)
            if part in self._tensors or part in self._sparse:
                roots.append(part)
            elif part in self._made and len(seen) <= DEEPEST:
                node = self._made[part]
                if node.op_type != "Constant":
                    operators.append(node.op_type)
                if node.op_type not in FOLDED | GROWING or node.domain not in ("", "ai.onnx"):
                    return roots, operators, f"made by {node.op_type}, which is not evaluated"
                waiting += reversed(node.input)
            else:
                return roots, operators, "made of an input" if part in self.inputs else "made of what is not there"
        return roots, operators, ""

    def depends_on_input(self, name: str) -> bool:
        """Whether a value is made of an input of the model that has no numbers of its own."""
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            part = waiting.pop()
            if part in seen or not part:
                continue
            seen.add(part)
            if part in self.inputs and part not in self._tensors:
                return True
            if part in self._made and part not in self._tensors:
                waiting += self._made[part].input
        return False

    def missing(self, roots: list[str]) -> str | None:
        """The first of these constants whose numbers are in another file that is not there."""
        for name in roots:
            tensor = self._tensors.get(name)
            if tensor is not None and tensor.data_location == self._onnx.TensorProto.EXTERNAL:
                try:
                    self._external(tensor)
                except ImportFormatError as error:
                    return str(error)
        return None

    def value(self, name: str) -> np.ndarray:
        """The numbers of a constant expression; ImportFormatError if it is none, or too large."""
        with blame_all(name[:60]):
            return self._value(name, {})

    def _value(self, name: str, done: dict[str, np.ndarray]) -> np.ndarray:
        if name in done:
            return done[name]
        if len(done) > DEEPEST:
            raise ImportFormatError(f"must be made in at most {DEEPEST} steps")
        if name in self._tensors:
            done[name] = self._array(self._tensors[name])
        elif name in self._sparse:
            done[name] = self._dense(self._sparse[name])
        elif name in self._made:
            node = self._made[name]
            inputs = {part: self._value(part, done) for part in node.input if part}
            self._check_growth(node, inputs)
            done |= self._run(node, inputs)
        else:
            raise ImportFormatError("must be a constant, is none")
        return done[name]

    def _array(self, tensor: Any) -> np.ndarray:
        if prod(tensor.dims) > LARGEST_TENSOR:
            raise ImportFormatError(f"must have at most {LARGEST_TENSOR} elements, has shape {tuple(tensor.dims)}")
        if tensor.data_location == self._onnx.TensorProto.EXTERNAL:
            file, offset, length = self._external(tensor)
            copy = self._onnx.TensorProto()
            copy.CopyFrom(tensor)
            del copy.external_data[:]
            copy.data_location = self._onnx.TensorProto.DEFAULT
            with open(file, "rb") as content:
                content.seek(offset)
                copy.raw_data = content.read(length)
            tensor = copy
        array: np.ndarray = self._onnx.numpy_helper.to_array(tensor)
        return array

    def _external(self, tensor: Any) -> tuple[Path, int, int]:
        """File, offset and length of numbers outside the model: in its folder, and within the file."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        folder = self.path.absolute().parent
        file = Path(os.path.normpath(folder / location))
        if not location or folder not in file.parents or file.is_symlink() or not file.is_file():
            raise ImportFormatError(f"external data {location[:60]!r} is not there")
        size = file.stat().st_size
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size - offset)))
        if offset < 0 or length < 0 or offset + length > size:
            raise ImportFormatError(f"external data {location[:60]!r} has {size} bytes, {offset + length} are wanted")
        return file, offset, length

    def _dense(self, sparse: Any) -> np.ndarray:
        shape = tuple(sparse.dims)
        if not 0 < prod(shape) <= LARGEST_TENSOR:
            raise ImportFormatError(f"must have 1…{LARGEST_TENSOR} elements, has shape {shape}")
        values, indices = self._array(sparse.values), self._array(sparse.indices)
        array = np.zeros(shape, values.dtype)
        if indices.ndim == 1:
            array.reshape(-1)[indices] = values
        else:
            array[tuple(indices.T)] = values
        return array

    def _check_growth(self, node: Any, inputs: Mapping[str, np.ndarray]) -> None:
        """Before anything is allocated."""
        if node.op_type in GROWING:
            shape = self.shape(node.output[0])
        elif node.op_type in FOLDED and inputs and node.op_type not in ("Concat", "Reshape", "Slice", "Split"):
            shape = max((array.shape for array in inputs.values()), key=prod)
            with suppress(ValueError):  # where it is no operator that broadcasts
                shape = np.broadcast_shapes(*(array.shape for array in inputs.values()))
        elif node.op_type in FOLDED:
            shape = (sum(array.size for array in inputs.values()),)
        else:
            raise ImportFormatError(f"{node.op_type} is not evaluated")
        if prod(shape) > LARGEST_TENSOR:
            raise ImportFormatError(f"must have at most {LARGEST_TENSOR} elements, has shape {shape}")

    def _run(self, node: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One operator, evaluated; in its newest version where the evaluator does not know the model's."""
        from onnx.reference import ReferenceEvaluator

        helper = self._onnx.helper
        kind = self._onnx.TensorProto.FLOAT  # which the evaluator does not look at
        ins = [helper.make_tensor_value_info(name, kind, None) for name in inputs]
        outs = [helper.make_tensor_value_info(name, kind, None) for name in node.output if name]
        graph = helper.make_graph([node], "one", ins, outs)
        newest = self._onnx.defs.onnx_opset_version()
        for version in dict.fromkeys((self.opset.get("", newest), newest)):
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
            try:
                results = ReferenceEvaluator(model).run(None, dict(inputs))
            except Exception:
                if version == newest:
                    raise
            else:
                break
        return dict(zip([name for name in node.output if name], map(np.asarray, results), strict=True))


def _has_shape(info: Any) -> bool:
    return bool(info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape"))


def _close(graph: Any, size: Mapping[str, int], batch_axis: int) -> int:
    """Gives open sizes of inputs their values, the batch one of 1; returns the batch."""
    constants = {tensor.name for tensor in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    batch = 1
    first = True
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in constants:
            continue
        for axis, dim in enumerate(dims):
            if dim.dim_param in size:
                dim.dim_value = size[dim.dim_param]
            elif axis == batch_axis and not dim.dim_value:
                dim.dim_value = 1
        if first and len(dims) > batch_axis:
            batch, first = max(1, dims[batch_axis].dim_value), False
    return batch


def _check_functions(model: Any) -> None:
    """No local function may call itself: to inline one without end."""
    calls = {(f.domain, f.name): {(node.domain, node.op_type) for node in _all_nodes(f.node)} for f in model.functions}
    while free := [name for name, called in calls.items() if not called & calls.keys()]:
        for name in free:
            del calls[name]
    if calls:
        raise ImportFormatError(f"function {next(iter(calls))[1][:60]!r} calls itself")


def _all_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs]:
                yield from _all_nodes(graph.node)
