"""What the formats of one sparse matrix share: a row is a filter, a column one of its weights.

Without a topology the matrix is a linear layer for ``--size tokens=N`` (default: 1). With one, the layer of the file's
name gets it, whose weights in the order C R S are the columns; so a convolution that was written comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import LARGEST_TENSOR, Imported, ImportedLayer, Names, product
from accelsim.workload.patterns import Stored

LARGEST_MATRIX = 1 << 28  # bytes of text


def imported(
    path: Path,
    format: str,
    shape: tuple[int, int],
    matrix: Callable[[], np.ndarray],
    topology: Imported | None,
    size: Mapping[str, int] | None,
) -> Imported:
    """The layer of a matrix.

    Parameters
    ----------
    path : Path
    format : str
    shape : (int, int)
        Rows and columns.
    matrix : callable
        Gives the numbers.
    topology : Imported, optional
    size : mapping of str to int, optional
        ``tokens``.

    Raises
    ------
    ImportFormatError
        If no layer of the topology has the file's name, or it has another shape.
    """
    if not 0 < prod(shape) <= LARGEST_TENSOR:
        raise ImportFormatError(f"{path}: must have 1…{LARGEST_TENSOR} elements, has {shape[0]}×{shape[1]}")
    if topology is None:
        geometry = product((size or {}).get("tokens", 1), shape[1], shape[0])
        layer = ImportedLayer(Names().add(path.stem), "linear", geometry)
        told = () if size and "tokens" in size else ("one token: --size tokens=N gives another number",)
        samples = 1
    else:
        layer, told = _of(path, topology), ()
        wanted = layer.geometry.weight_shape
        if shape != (wanted[0], prod(wanted[1:])):
            rule = f"must be {wanted[0]}×{prod(wanted[1:])}, the weights of {layer.name}"
            raise ImportFormatError(f"{path}: {rule}, is {shape[0]}×{shape[1]}")
        samples = topology.samples_of(layer)
    weights = layer.geometry.weight_shape
    layer = replace(layer, tensors={**layer.tensors, "weight": Stored(lambda: matrix().reshape(weights))})
    return Imported(path, format, path.stem, (layer,), samples, told=told, is_network=False)


def _of(path: Path, topology: Imported) -> ImportedLayer:
    """The layer of the file's name, a / in it written as -; a number before it counts for nothing."""
    name = path.stem.lstrip("0123456789").removeprefix("_")
    for layer in topology.layers:
        if layer.name.replace("/", "-") in (path.stem, name):
            return layer
    raise ImportFormatError(f"{path}: must have the name of a layer of {topology.path}, has none's")
