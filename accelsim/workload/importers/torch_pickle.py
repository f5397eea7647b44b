"""Pickles of PyTorch, of which nothing is executed: tensors and containers are built, every other class is a husk.

So a checkpoint with the training script's own classes in it, a whole pickled model and TorchScript are read like a
state_dict, without PyTorch and without trust. A husk keeps what the pickle says of the object: its state and items.
"""

from __future__ import annotations

import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import IO, Any

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.tensors import DTYPES, Tensor, check_size, decoded

STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "QInt8Storage": "I8", "QUInt8Storage": "U8", "QInt32Storage": "I32",
    "UntypedStorage": "U8",
}  # fmt: skip
TYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
CONTAINERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict, ("builtins", "dict"): dict, ("builtins", "list"): list,
    ("builtins", "tuple"): tuple, ("builtins", "set"): set, ("torch", "Size"): tuple,
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """Numbers in a row.

    Parameters
    ----------
    dtype : str
        One of DTYPES.
    size : int
        How many bytes there are.
    read : callable
        From a first byte on so many.
    """

    dtype: str
    size: int
    read: Callable[[int, int], bytes]


class Husk(dict[Any, Any]):
    """What a pickle says of an object whose class is not built.

    Attributes
    ----------
    state : object
        What its class would have been given.
    """

    state: object = None

    def __new__(cls, *_: Any, **__: Any) -> Husk:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    def __setstate__(self, state: object) -> None:
        self.state = state

    def append(self, item: object) -> None:
        self[len(self)] = item

    def extend(self, items: list[object]) -> None:
        for item in items:
            self.append(item)

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def load(stream: IO[bytes], storage: Callable[[tuple[Any, ...]], Storage]) -> Any:
    """The next pickle of a stream.

    Parameters
    ----------
    stream : binary file
    storage : callable
        From the words that a tensor names its numbers with, after "storage", to them.

    Raises
    ------
    ImportFormatError
        If its places in memory are none. Damaged pickles raise anything.
    """
    start = stream.tell()
    for length, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        # The unpickler makes room for the largest place that is named.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(str(argument)) <= 2 * length + 256:
            raise ImportFormatError(f"must be a pickle, names place {argument} after {length} steps")
    stream.seek(start)
    return _Unpickler(stream, storage).load()


def loads(content: bytes, storage: Callable[[tuple[Any, ...]], Storage]) -> Any:
    """As :func:`load`, of bytes."""
    return load(BytesIO(content), storage)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: IO[bytes], storage: Callable[[tuple[Any, ...]], Storage]):
        super().__init__(stream, encoding="latin-1")
        self._storage = storage

    def persistent_load(self, words: Any) -> Storage:
        if not isinstance(words, tuple) or len(words) < 5 or words[0] != "storage":
            raise ImportFormatError(f"must name storages alone outside the pickle, names {str(words)[:60]}")
        return self._storage(words[1:])

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in CONTAINERS:
            return CONTAINERS[module, name]
        if module.split(".")[0] == "torch":
            if name in STORAGES:
                return STORAGES[name]
            if module == "torch" and name in TYPES:
                return TYPES[name]
            if name in BUILDERS:
                return BUILDERS[name]
            if module == "torch" and name.startswith(("per_", "sparse_")):
                return f"torch.{name}"
        return type(name[:60] or "Husk", (Husk,), {})


# ---- tensors


def _strided(storage: Storage, offset: int, shape: Any, stride: Any, *rest: Any) -> Tensor:
    """``_rebuild_tensor_v2`` and what is like it; a type among what follows is the numbers', not the storage's."""
    dtype = next((text for text in rest if isinstance(text, str) and text in DTYPES), storage.dtype)
    shape, stride = tuple(shape), tuple(stride)
    check_size(shape)
    width = np.dtype(DTYPES[dtype]).itemsize
    plain = len(stride) == len(shape) and all(type(n) is int and n >= 0 for n in (*stride, offset))
    extent = sum((n - 1) * step for n, step in zip(shape, stride, strict=False)) + 1 if 0 not in shape else 0
    if not plain or (offset + extent) * width > storage.size:
        rule = f"tensor of shape {shape}: must lie in its {storage.size} bytes"
        raise ImportFormatError(f"{rule}, has offset {str(offset)[:20]} and strides {str(stride)[:40]}")
    return Tensor(shape, partial(_read_strided, storage, dtype, offset * width, extent, shape, stride))


def _read_strided(
    storage: Storage, dtype: str, start: int, extent: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> np.ndarray:
    raw = np.frombuffer(storage.read(start, extent * np.dtype(DTYPES[dtype]).itemsize), DTYPES[dtype])
    if not extent:
        return np.zeros(shape)
    bytes_ = tuple(step * raw.itemsize for step in stride)
    return decoded(np.lib.stride_tricks.as_strided(raw, shape, bytes_, writeable=False), dtype)


def _quantised(storage: Storage, offset: int, shape: Any, stride: Any, how: Any, *_: Any) -> Tensor:
    """Integers less what stands for zero in them."""
    stored = _strided(storage, offset, shape, stride)
    scheme, *numbers = how
    if scheme == "torch.per_tensor_affine":
        zero = int(numbers[1])
        return Tensor(stored.shape, lambda: stored.read().astype(np.float32) - zero)
    zeros, axis = numbers[1], int(numbers[2])
    if not isinstance(zeros, Tensor) or not 0 <= axis < len(stored.shape) or zeros.shape != (stored.shape[axis],):
        raise ImportFormatError(f"quantised tensor: must have a zero for each filter, has {str(numbers)[:60]}")
    around = [-1 if number == axis else 1 for number in range(len(stored.shape))]
    return Tensor(stored.shape, lambda: stored.read().astype(np.float32) - zeros.read().reshape(around))


def _sparse(layout: Any, data: Any) -> Tensor:
    """Coordinates and numbers, or rows, columns and numbers."""
    *places, values, shape = [part for part in data if not isinstance(part, bool)]
    shape = tuple(shape)
    check_size(shape)
    if layout == "torch.sparse_coo" and len(places) == 1:
        return Tensor(shape, partial(_read_coo, places[0], values, shape))
    if layout in ("torch.sparse_csr", "torch.sparse_csc") and len(places) == 2 and len(shape) == 2:
        ends, columns = places
        return Tensor(shape, partial(_read_compressed, ends, columns, values, shape, layout == "torch.sparse_csc"))
    raise ImportFormatError(f"sparse tensor: must be COO, CSR or CSC, is {str(layout)[:40]}")


def _read_coo(indices: Tensor, values: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(shape, np.float32)
    np.add.at(found, tuple(indices.read().astype(np.int64)), values.read())  # what occurs twice is added
    return found


def _read_compressed(
    ends: Tensor, places: Tensor, values: Tensor, shape: tuple[int, ...], is_turned: bool
) -> np.ndarray:
    found = np.zeros(shape[::-1] if is_turned else shape, np.float32)
    rows = np.repeat(np.arange(found.shape[0]), np.diff(ends.read()))
    np.add.at(found, (rows, places.read()), values.read())
    return found.T if is_turned else found


def _first(data: Any, *_: Any) -> Any:
    return data


# How PyTorch's pickles build what is a tensor; a parameter is its tensor.
BUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _strided,
    "_rebuild_tensor_v2": _strided,
    "_rebuild_tensor_v3": _strided,
    "_rebuild_qtensor": _quantised,
    "_rebuild_sparse_tensor": _sparse,
    "_rebuild_sparse_csr_tensor": _sparse,
    "_rebuild_parameter": _first,
    "_rebuild_parameter_with_state": _first,
    "_get_layout": _first,
}


def named(content: object, most: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors in what a pickle holds, by the keys and attributes on the way to each.

    Raises
    ------
    ImportFormatError
        If there are more than that, or they lie too deep.
    """
    count = 0
    waiting: list[tuple[str, object, int]] = [("", content, 0)]
    while waiting:
        name, part, depth = waiting.pop()
        count += 1
        if count > most or depth > 40:
            raise ImportFormatError(f"must hold at most {most} things, one in another at most 40 deep")
        if isinstance(part, Tensor):
            yield name, part
        below = [(f"{name}.{key}" if name else key, value, depth + 1) for key, value in inside(part)]
        waiting += reversed(below)


def inside(part: object) -> list[tuple[str, object]]:
    """What is in a container or a husk, by name; what a module keeps has the module's own name."""
    if isinstance(part, list | tuple):
        return [(str(number), item) for number, item in enumerate(part)]
    found = [(str(key), value) for key, value in part.items()] if isinstance(part, dict) else []
    state = part.state if isinstance(part, Husk) else None
    if isinstance(state, dict):
        own = [state[key] for key in ("_parameters", "_buffers", "_modules") if isinstance(state.get(key), dict)]
        for group in own or [state]:
            found += [(str(key), value) for key, value in group.items()]
    return found
