"""Data sets that are arrays of pixels: CIFAR as published, and .npz files.

Files are untrusted: no pickle is executed, sizes are checked before anything is allocated.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import AccelsimError, TraceError
from accelsim.workload.npz import NpzReader

SPLITS = ("train", "test")
LARGEST_PICKLE = 1 << 30  # bytes; CIFAR's largest has 155 MB


Read = Callable[[int, "np.random.Generator | None"], np.ndarray]
# Name, number of classes, labels, how to read an image, and its shape (channels, height, width).
Source = tuple[str, int, "np.ndarray | list[int]", Read, tuple[int, int, int]]


def _from_arrays(name: str, classes: int, images: np.ndarray, labels: np.ndarray) -> Source:
    height, width, channels = images.shape[1:]

    def read(index: int, rng: np.random.Generator | None) -> np.ndarray:
        image: np.ndarray = images[index]
        if rng is None:
            return image
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        top, left = rng.integers(0, 9, 2)
        image = padded[top : top + height, left : left + width]
        return image[:, ::-1] if rng.random() < 0.5 else image

    return name, classes, labels, read, (channels, height, width)


def stored_array(reader: NpzReader, name: str) -> np.ndarray:
    """An array of numbers or truth values out of an open .npz, of the dtype and shape that its header says.

    Raises
    ------
    TraceError
        If it is missing, damaged, or claims another size than its bytes have.
    """
    with reader.array(name) as (descr, shape, stream):
        dtype = np.dtype(descr)
        if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != stream.left:
            raise TraceError(f"must be numbers, {stream.left} bytes of them, claims {shape} of {descr!r}")
        return np.frombuffer(stream.read(stream.left), dtype).reshape(shape)


def from_npz(path: Path, split: str) -> Source:
    """The arrays x and y of a file: name, number of classes, labels, how to read an image, and its shape."""
    if split != "train":
        raise AccelsimError(f"{path}: an .npz has one part; give the file of the {split} images itself, as train")
    try:
        with closing(NpzReader(path)) as reader:
            images, labels = stored_array(reader, "x"), stored_array(reader, "y")
    except TraceError as error:
        raise AccelsimError(f"{path}: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape[1:]:
        raise AccelsimError(f"{path}: x must be uint8 of shape (N, H, W, C), got {images.dtype} {images.shape}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise AccelsimError(f"{path}: y must be {len(images)} integers, got {labels.dtype} of shape {labels.shape}")
    labels = labels.astype(np.int64)
    return _from_arrays(str(path), int(labels.max(initial=0)) + 1, images, labels)


BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
# Name, folder in the published archive, files of the two splits, classes, and where the label is: the number of label
# bytes before each image, of which the last counts, or the key in the pickle.
CIFAR = (
    ("CIFAR-10", "cifar-10-batches-bin", tuple(f"{name}.bin" for name in BATCHES), ("test_batch.bin",), 10, 1),
    ("CIFAR-100", "cifar-100-binary", ("train.bin",), ("test.bin",), 100, 2),
    ("CIFAR-10", "cifar-10-batches-py", BATCHES, ("test_batch",), 10, "labels"),
    ("CIFAR-100", "cifar-100-python", ("train",), ("test",), 100, "fine_labels"),
)


def from_cifar(path: Path, split: str) -> Source | None:
    """CIFAR in this folder or in the published folder inside; those training files that are there. As ``from_npz``."""
    for name, inner, *files, classes, place in CIFAR:
        for folder in (path, path / inner):
            if not any((folder / file).is_file() for file in (*files[0], *files[1])):
                continue
            wanted = files[SPLITS.index(split)]
            there = [folder / file for file in wanted if (folder / file).is_file()]
            if not there:
                raise AccelsimError(f"{folder}: must hold {wanted[0]} for the {split} images of {name}")
            parts = [_binary(file, place) if isinstance(place, int) else _pickled(file, place) for file in there]
            images = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            count = "" if len(there) == len(wanted) else f", {len(there)} of {len(wanted)} files"
            labels = np.concatenate([part[1] for part in parts])
            return _from_arrays(f"{folder} ({name} {split}{count})", classes, images, labels)
    return None


def _binary(file: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    size = label_bytes + 3072
    if not file.stat().st_size or file.stat().st_size % size:
        raise AccelsimError(f"{file}: must be images of {size} bytes each, has {file.stat().st_size} bytes")
    rows = np.fromfile(file, np.uint8).reshape(-1, size)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _pickled(file: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    if file.stat().st_size > LARGEST_PICKLE:
        raise AccelsimError(f"{file}: must be at most {LARGEST_PICKLE} bytes, has {file.stat().st_size}")
    try:
        content = _PlainUnpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        content = {name.decode() if isinstance(name, bytes) else name: value for name, value in content.items()}
        images, labels = content["data"].array, np.array([int(label) for label in content[key]], np.int64)
    except Exception as error:  # a damaged pickle raises anything; a malicious one, UnpicklingError
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise AccelsimError(f"{file}: must be a pickled dictionary with data and {key} as CIFAR's: {text}") from error
    if images.ndim != 2 or images.shape != (len(labels), 3072):
        raise AccelsimError(f"{file}: data must have shape ({len(labels)}, 3072) for its labels, got {images.shape}")
    return images, labels


class _Bytes:
    """Stands for numpy's dtype in a pickle: there is but one that CIFAR has."""

    def __new__(cls, code: object, *_: object) -> _Bytes:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"must be an array of bytes, got {code!r}")
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, of which bytes have none."""


class _Array:
    """Stands for numpy's ndarray, its scalars of construction ignored; the state says it all."""

    def __new__(cls, *_: object) -> _Array:
        return super().__new__(cls)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, raw = state
        if not isinstance(dtype, _Bytes):
            raise pickle.UnpicklingError("must be an array of bytes")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if is_fortran else "C")


STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Bytes,
    ("_codecs", "encode"): str.encode,
}


class _PlainUnpickler(pickle._Unpickler):
    """Calls nothing that a pickle names but these. It is Python's own, for C's allocates what a number in it says."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"refused, since loading it would run {module}.{name}")
        return STAND_INS[module, name]
