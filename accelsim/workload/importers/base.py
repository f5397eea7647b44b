"""What every importer gives: layers, their shapes, and of their tensors what the file holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from accelsim.errors import GeometryError, ImportFormatError, TraceError
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import PATH, TENSORS, tensor_shape
from accelsim.workload.npz import MALFORMED, reason
from accelsim.workload.synthetic import Source

LARGEST_TENSOR = 1 << 28  # elements; what is drawn or read takes some bytes for each
LARGEST_TEXT = 1 << 24  # bytes of a description


@dataclass(frozen=True, eq=False)
class ImportedLayer:
    """One layer of another tool's file.

    Parameters
    ----------
    name : str
    kind : "conv" or "linear"
    geometry : Geometry
    tensors : mapping of str to Source
        What the file says about the layer's tensors; the others are to be drawn.
    """

    name: str
    kind: str
    geometry: Geometry
    tensors: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Imported:
    """What a file holds.

    Parameters
    ----------
    path : Path
    format : str
    network : str
    layers : tuple of ImportedLayer
        In the order of the forward pass.
    samples : int
        N, of every layer.
    batch : int, optional
        Samples of the training batch, where the file says.
    left_out : tuple of str
        What is in the file and cannot be in a trace, such as a product of two activations.
    """

    path: Path
    format: str
    network: str
    layers: tuple[ImportedLayer, ...]
    samples: int = 1
    batch: int | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.layers:
            raise ImportFormatError(f"{self.path}: must describe a layer, describes none")
        for layer in self.layers:
            for tensor in TENSORS:
                shape = tensor_shape(layer.geometry, self.samples, tensor)
                if prod(shape) > LARGEST_TENSOR:
                    rule = f"must have at most {LARGEST_TENSOR} elements, has shape {shape}"
                    raise ImportFormatError(f"{self.path}: {layer.name}: {tensor}: {rule}")


@contextmanager
def blame(where: object) -> Iterator[None]:
    """Put `where` before what goes wrong inside, which leaves as an ImportFormatError of one line."""
    try:
        yield
    except (ImportFormatError, TraceError, GeometryError) as error:
        raise ImportFormatError(f"{where}: {error}") from error
    except (*MALFORMED, RecursionError) as error:
        raise ImportFormatError(f"{where}: {reason(error)}") from error


def read_text(path: str | os.PathLike) -> str:
    """A description, in UTF-8.

    Raises
    ------
    ImportFormatError
        If there is no such file, it is too long for a description, or no text.
    """
    path = Path(path)
    if not path.is_file():
        raise ImportFormatError(f"{path}: no such file")
    with blame(path):
        size = path.stat().st_size
        if size > LARGEST_TEXT:
            raise ImportFormatError(f"must have at most {LARGEST_TEXT} bytes, has {size}")
        return path.read_text(encoding="utf-8-sig")


def integer(text: str, what: str, least: int = 1) -> int:
    """A number in a text file; ImportFormatError if it is none, or too small. Largest sizes are Geometry's rule."""
    text = text.strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18) or int(text) < least:
        raise ImportFormatError(f"{what}: must be an integer of {least} or more, got {text[:40]!r}")
    return int(text)


def layer_name(text: str, taken: Mapping[str, object]) -> str:
    """A name fit for a trace: without what begins or ends with /, numbered where it occurs again."""
    name = "/".join(part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".", ".."))
    rule, is_good = PATH
    if not is_good(name):
        raise ImportFormatError(f"layer name: must be {rule}, got {text[:40]!r}")
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def kind_of(geometry: Geometry) -> str:
    """Linear, for a plain 1×1 convolution on a map of one place; else conv."""
    one = Geometry(geometry.channels, 1, 1, geometry.filters, (1, 1))
    return "linear" if geometry == one else "conv"
