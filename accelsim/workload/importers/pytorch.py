"""Weights of PyTorch: a state_dict (.pt, .pth, .bin; by PyTorch, executing no pickle), or safetensors (needs nothing).

A state_dict knows no strides and no sizes of maps, so they come from a topology: any other file that can be imported,
such as a trace, an ONNX model or a SCALE-Sim topology. Layers are matched by name, or, where names differ, by a
shape that occurs once, never by order.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import LARGEST_TENSOR, Imported, ImportedLayer, blame
from accelsim.workload.patterns import Stored

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # under which training scripts keep a state_dict
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
SUFFIX = ".weight"
# Endings of masks, and of the weights that each is of.
MASKS = {
    ".weight_mask": ".weight_orig", ".mask": ".weight", ".weight.mask": ".weight",
    ".parametrizations.weight.0.mask": ".parametrizations.weight.original",
}  # fmt: skip
LARGEST_HEADER = 100_000_000  # bytes, safetensors' own rule
DTYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
    "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class _Weight:
    """One tensor of a file: its shape, and what reads it."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def read(path: str | os.PathLike[str], topology: Imported | None = None) -> Imported:
    """Read weights, and put them into the layers of a topology.

    Raises
    ------
    ImportFormatError
        One line that names the file, if it cannot be read or does not fit the topology, or there is no topology.
    """
    path = Path(path)
    if topology is None:
        rule = "weights alone know no strides and no sizes of maps: give a --topology"
        raise ImportFormatError(f"{path}: {rule} (SCALE-Sim .csv, .onnx, or a trace)")
    if not path.is_file():
        raise ImportFormatError(f"{path}: no such file")
    found = _safetensors(path) if path.suffix.lower() == ".safetensors" else _state_dict(path)
    weights = {
        name.removesuffix(SUFFIX): weight
        for name, weight in _masked(_unprefixed(found)).items()
        if name.endswith(SUFFIX) and len(weight.shape) in (2, 3, 4)
    }
    layers = _by_name(path, topology, weights) or _by_shape(path, topology, weights)
    return replace(topology, path=path, format="pytorch", layers=tuple(layers))


def _unprefixed(tensors: dict[str, _Weight]) -> dict[str, _Weight]:
    for prefix in PREFIXES * 2:  # either may be around the other
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: weight for name, weight in tensors.items()}
    return tensors


# ---- which weight is of which layer


def _by_name(path: Path, topology: Imported, weights: dict[str, _Weight]) -> list[ImportedLayer] | None:
    if not all(layer.name in weights for layer in topology.layers):
        return None
    return [_filled(path, layer, layer.name, weights[layer.name]) for layer in topology.layers]


def _by_shape(path: Path, topology: Imported, weights: dict[str, _Weight]) -> list[ImportedLayer]:
    """Each layer's only weight of its shape; never by order, which two files need not share."""
    layers = []
    for layer in topology.layers:
        wanted = layer.geometry.weight_shape
        fits = [name for name, weight in weights.items() if _is_shape(weight.shape, wanted)]
        rivals = [other for other in topology.layers if other.geometry.weight_shape == wanted]
        if layer.name in weights:
            fits, rivals = [layer.name], [layer]
        if len(fits) != 1 or len(rivals) != 1:
            counts = f"{len(weights)} weights for {len(topology.layers)} layers"
            rule = (
                f"no weight {layer.name}{SUFFIX}, and {counts}; {len(fits)} have shape {wanted} of {len(rivals)} layers"
            )
            raise ImportFormatError(f"{path}: must fit {topology.path} by names or by shapes that occur once: {rule}")
        layers.append(_filled(path, layer, fits[0], weights[fits[0]]))
    return layers


def _is_shape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return shape == wanted[: len(shape)] and prod(wanted[len(shape) :]) == 1


def _masked(tensors: dict[str, _Weight]) -> dict[str, _Weight]:
    """Weights times the masks that lie beside them, as torch.nn.utils.prune and torch.ao.pruning keep both."""
    found = dict(tensors)
    for name, mask in tensors.items():
        for ending, own in MASKS.items():
            base = name.removesuffix(ending)
            weight = tensors.get(f"{base}{own}") if name.endswith(ending) else None
            if weight is not None and weight.shape == mask.shape:
                found[f"{base}{SUFFIX}"] = _Weight(weight.shape, partial(_product, weight, mask))
    return found


def _product(weight: _Weight, mask: _Weight) -> np.ndarray:
    return np.asarray(weight.read() * (mask.read() != 0))


def _filled(path: Path, layer: ImportedLayer, name: str, weight: _Weight) -> ImportedLayer:
    wanted = layer.geometry.weight_shape
    if prod(weight.shape) != prod(wanted) or weight.shape[:2] != wanted[:2]:
        raise ImportFormatError(f"{path}: {name}{SUFFIX}: must have shape {wanted} of {layer.name}, got {weight.shape}")
    stored = Stored(lambda: weight.read().reshape(wanted))
    return replace(layer, tensors={**layer.tensors, "weight": stored})


# ---- files


def _state_dict(path: Path) -> dict[str, _Weight]:
    try:
        import torch
    except ImportError as error:
        rule = "a state_dict needs PyTorch: pip install 'accelsim[torch]', or save it as .safetensors"
        raise ImportFormatError(f"{path}: {rule}") from error
    if tarfile.is_tarfile(path):  # before 2.6, PyTorch executed the pickles in these whatever it was told
        raise ImportFormatError(f"{path}: refused: a tar archive of PyTorch 0.1; save it anew as a state_dict")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything
        text = " ".join(str(error).split())
        if "weights_only" in text or "GLOBAL" in text:
            text = "refused: a pickle with more than tensors, which would run code; save the state_dict alone"
        raise ImportFormatError(f"{path}: must be a state_dict by torch.save: {text[:200]}") from error
    while isinstance(content, dict):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), dict)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, dict) or not content:
        raise ImportFormatError(f"{path}: must hold a state_dict, tensors by name, holds {type(content).__name__}")
    return {
        name: _Weight(tuple(value.shape), partial(_numbers, value))
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor) and value.layout is torch.strided
    }


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value.detach().float().numpy())


def _safetensors(path: Path) -> dict[str, _Weight]:
    """The file's own layout: length of the header, the header in JSON, the numbers."""
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
        return {name: _entry(path, name, entry, start, size - start) for name, entry in header.items()}


def _entry(path: Path, name: str, entry: object, start: int, size: int) -> _Weight:
    """One tensor, checked before anything of it is read."""
    fields = entry if isinstance(entry, dict) else {}
    dtype: Any = fields.get("dtype")
    shape: Any = fields.get("shape")
    span: Any = fields.get("data_offsets")
    sizes = [*shape, *span] if isinstance(shape, list) and isinstance(span, list) and len(span) == 2 else [None]
    if not isinstance(dtype, str) or not all(type(n) is int and n >= 0 for n in sizes) or len(sizes) > 12:
        raise ImportFormatError(f"{name[:60]}: must have dtype, shape and two data_offsets, got {str(entry)[:80]!r}")
    begin, end = span
    width = np.dtype(DTYPES.get(dtype, "|u1")).itemsize
    fits = end <= size and end - begin == prod(shape) * width and prod(shape) <= LARGEST_TENSOR
    if dtype in DTYPES and not fits:  # a dtype that we don't know may still be of a tensor that nobody reads
        raise ImportFormatError(f"{name[:60]}: {dtype} {shape} must lie in the file, lies in {begin}…{end} of {size}")

    def read() -> np.ndarray:
        if dtype not in DTYPES:
            raise ImportFormatError(
                f"{path}: {name[:60]}: dtype must be one of {', '.join(DTYPES)}; got {dtype[:20]!r}"
            )
        array = np.memmap(path, DTYPES[dtype], "r", start + begin, tuple(shape))
        if dtype == "BF16":
            return np.asarray((array.astype(np.uint32) << 16).view(np.float32))
        return np.asarray(array)

    return _Weight(tuple(shape), read)
