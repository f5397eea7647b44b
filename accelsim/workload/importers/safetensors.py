"""Safetensors, by the file's own layout: length of the header, the header in JSON, the numbers. Needs no package."""

from __future__ import annotations

import json
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import LARGEST_TENSOR, blame
from accelsim.workload.importers.tensors import DTYPES, MOST_AXES, Tensor, decoded

LARGEST_HEADER = 100_000_000  # bytes, safetensors' own rule


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; ImportFormatError if it is damaged."""
    size = path.stat().st_size
    with blame(path), open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise ImportFormatError(f"must be a safetensors file, claims a header of {length} bytes")
        header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ImportFormatError("header: must be an object")
        header.pop("__metadata__", None)
        start = 8 + length
        found = {name: _entry(path, name, entry, start, size - start) for name, entry in header.items()}
        _check_spans({name: entry["data_offsets"] for name, entry in header.items()}, size - start)
        return found


def _entry(path: Path, name: str, entry: object, start: int, size: int) -> Tensor:
    """One tensor, checked before anything of it is read."""
    fields = entry if isinstance(entry, dict) else {}
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    span: Any = fields.get("data_offsets")
    sizes = [*shape, *span] if isinstance(shape, list) and isinstance(span, list) and len(span) == 2 else [None]
    whole = all(type(n) is int and n >= 0 for n in sizes) and len(sizes) <= MOST_AXES + 2
    if not isinstance(dtype, str) or not whole:
        raise ImportFormatError(f"{name[:60]}: must have dtype, shape and two data_offsets, got {str(entry)[:80]!r}")
    begin, end = span
    width = np.dtype(DTYPES.get(dtype, "|u1")).itemsize
    fits = end <= size and end - begin == prod(shape) * width and prod(shape) <= LARGEST_TENSOR
    if dtype in DTYPES and not fits:  # a dtype that we don't know may still be of a tensor that nobody reads
        raise ImportFormatError(f"{name[:60]}: {dtype} {shape} must lie in the file, lies in {begin}…{end} of {size}")
    return Tensor(tuple(shape), partial(_read, path, name, dtype, start + begin, tuple(shape)))


def _check_spans(spans: dict[str, list[int]], size: int) -> None:
    """The format's own rule: tensors lie one behind the other, to the end of the file."""
    at = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != at:
            raise ImportFormatError(f"{name[:60]}: must begin where the tensor before it ends, {at}, begins at {begin}")
        at = end
    if at != size:
        raise ImportFormatError(f"must end with its last tensor, {at} bytes after the header, has {size}")


def _read(path: Path, name: str, dtype: str, start: int, shape: tuple[int, ...]) -> np.ndarray:
    if dtype not in DTYPES:
        rule = f"dtype must be one of {', '.join(DTYPES)}"
        raise ImportFormatError(f"{path}: {name[:60]}: {rule}; got {dtype[:20]!r}")
    return decoded(np.memmap(path, DTYPES[dtype], "r", start, shape), dtype)
