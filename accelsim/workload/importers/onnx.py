"""ONNX models: shapes, by ONNX's own shape inference, and weights, evaluated where they are a constant expression.

Each operator that multiplies becomes a layer or is named among what is left out: onnx_operators.py reads them. The
batch is the first axis of the model's first input, or ``--batch-axis``; one that is left open is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import Imported, ImportedLayer, LeftOut, Names, blame_all
from accelsim.workload.importers.onnx_graph import Graph
from accelsim.workload.importers.onnx_operators import ENTIRE, HARMLESS, READERS, Found, Product, label

LARGEST_AXIS = 16


def read(path: Path, size: Mapping[str, int] | None = None, batch_axis: int | None = None) -> Imported:
    """Read a model.

    Parameters
    ----------
    path : Path
    size : mapping of str to int, optional
        Of sizes that the model leaves open, by their names.
    batch_axis : int, optional
        Of the first input, the axis of the samples; by default the first.

    Raises
    ------
    ImportFormatError
        One line that names the file, if onnx is missing, the file is none, or no operator can be read.
    """
    path = Path(path)
    if batch_axis is not None and not 0 <= batch_axis < LARGEST_AXIS:
        raise ImportFormatError(f"{path}: batch-axis: must be in 0…{LARGEST_AXIS - 1}, got {batch_axis}")
    graph = Graph(path, size or {}, batch_axis or 0)
    names, layers, left_out, told = Names(), [], [], []
    for node in graph.nodes:
        with blame_all(path):
            for found in _found(graph, node):
                if isinstance(found, LeftOut):
                    left_out.append(found)
                    continue
                layer, note = _layer(graph, found, names)
                layers.append(layer)
                told += [f"{layer.name}: {text}" for text in (*found.told, note) if text]
    return Imported(
        path, "onnx", path.stem or "model", tuple(layers), graph.batch, left_out=tuple(left_out), told=tuple(told)
    )


def _found(graph: Graph, node: Any) -> list[Found]:
    """The products of an operator; one that cannot be read is named."""
    if node.op_type in READERS:
        try:
            return READERS[node.op_type](graph, node)
        except ImportFormatError as error:
            return [LeftOut(label(graph, node), str(error))]
    inner = [part for attribute in node.attribute for part in (attribute.g, *attribute.graphs) if part.node]
    if inner:
        return [
            LeftOut(f"{label(graph, node)}/{label(graph, other)}", f"{other.op_type} in a branch of {node.op_type}")
            for part in inner
            for other in part.node
            if other.op_type in READERS or other.op_type in ENTIRE
        ]
    if node.op_type in ENTIRE:
        return [LeftOut(label(graph, node), f"{node.op_type}, several products in one")]
    if node.domain not in ("", "ai.onnx", "ai.onnx.ml") and node.op_type not in HARMLESS:
        return [LeftOut(label(graph, node), f"{node.op_type} of {node.domain[:40]}, which may multiply")]
    return []


def _layer(graph: Graph, found: Product, names: Names) -> tuple[ImportedLayer, str]:
    """The layer, with its weight where the model has the numbers; and what is to be said of it else."""
    name = names.add(found.name)
    roots, operators, why = graph.origins(found.weight)
    why = why or graph.missing(roots) or ""
    if why:
        note = "" if found.weight in graph.inputs else f"weight is drawn: {why}"
        return ImportedLayer(name, found.kind, found.geometry, samples=found.samples, spread=found.spread), note
    how = ", ".join(dict.fromkeys(operators[:6]))
    words = {"weight": f"from the file, after {how}"} if how else {}
    tensors = {"weight": found.source(graph)}
    return ImportedLayer(name, found.kind, found.geometry, tensors, words, found.samples, found.spread), ""
