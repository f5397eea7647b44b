"""The files that PyTorch writes: a zip with data.pkl and the numbers, or, before version 1.6, pickles one by one."""

from __future__ import annotations

import tarfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import LARGEST_TEXT, blame_all
from accelsim.workload.importers.tensors import DTYPES
from accelsim.workload.importers.torch_pickle import Storage, load, loads

MAGIC = 0x1950A86A20F9469CFC6C  # with which files before 1.6 begin
NO_STORAGE = "must hold no tensors here"


def content(path: Path) -> Any:
    """What the file holds: containers, tensors and husks.

    Raises
    ------
    ImportFormatError
        If it is none of PyTorch's.
    """
    with blame_all(path, "must be a file by torch.save: "):
        if zipfile.is_zipfile(path):
            return _zipped(path)
        if tarfile.is_tarfile(path):
            raise ImportFormatError("refused: a tar archive of PyTorch 0.1; save it anew as a state_dict")
        return _one_by_one(path)


def _zipped(path: Path) -> Any:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as file:
        members = {info.filename: info for info in file.infolist()}
        pickles = [name for name in members if name.endswith("data.pkl") and name.count("/") <= 1]
        if len(pickles) != 1:
            raise ImportFormatError(f"must be a zip by torch.save with one data.pkl, has {len(pickles)}")
        folder = pickles[0].removesuffix("data.pkl")
        if members[pickles[0]].file_size > LARGEST_TEXT * 4:
            raise ImportFormatError(f"data.pkl: must have at most {LARGEST_TEXT * 4} bytes")
        order = file.read(f"{folder}byteorder") if f"{folder}byteorder" in members else b"little"
        if order.strip() != b"little":
            raise ImportFormatError(f"byteorder: must be little, got {order[:20]!r}")
        text = file.read(pickles[0])

    def storage(words: tuple[Any, ...]) -> Storage:
        dtype, key = _checked(words)
        info = members.get(f"{folder}data/{key}")
        if info is None:
            raise ImportFormatError(f"data/{key[:40]}: must be in the file, is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise ImportFormatError(f"data/{key[:40]}: must be stored as it is, is compressed")
        return Storage(dtype, info.file_size, partial(_member, path, info.filename))

    return loads(text, storage)


def _member(path: Path, name: str, start: int, length: int) -> bytes:
    with blame_all(path), zipfile.ZipFile(path) as file, file.open(name) as member:
        member.seek(start)
        return member.read(length)


def _checked(words: tuple[Any, ...]) -> tuple[str, str]:
    """Type and name of a storage."""
    dtype, key = words[:2]
    if not isinstance(dtype, str) or dtype not in DTYPES or not isinstance(key, str):
        raise ImportFormatError(f"storage: must be of a type that PyTorch has, got {str(words)[:60]}")
    return dtype, key


def _one_by_one(path: Path) -> Any:
    places: dict[str, tuple[int, int]] = {}
    with open(path, "rb") as file:

        def nothing(words: tuple[Any, ...]) -> Storage:
            raise ImportFormatError(NO_STORAGE)

        def storage(words: tuple[Any, ...]) -> Storage:
            dtype, key = _checked(words)
            count, view = words[3], words[4] if len(words) > 4 else None
            width = np.dtype(DTYPES[dtype]).itemsize
            skip = int(view[1]) * width if view else 0
            count = int(view[2] if view else count)
            found[key] = width
            if skip < 0 or not 0 <= count <= path.stat().st_size:
                raise ImportFormatError(f"storage: must have a size within the file, got {str(words)[:60]}")
            return Storage(dtype, count * width, partial(_piece, path, places, key, skip))

        found: dict[str, int] = {}
        if load(file, nothing) != MAGIC:
            raise ImportFormatError("begins with another number than PyTorch's")
        load(file, nothing), load(file, nothing)  # version of the protocol, and of the machine that wrote it
        whole, keys = load(file, storage), load(file, nothing)
        _place(file, keys, found, places, path.stat().st_size)
    return whole


def _place(file: Any, keys: Any, widths: dict[str, int], places: dict[str, tuple[int, int]], size: int) -> None:
    """Where the numbers of each storage are: after their count, one after another."""
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        start = file.tell()
        length = count * widths.get(key, 0)
        if key not in widths or start + length > size:
            raise ImportFormatError(f"storage {str(key)[:40]}: must lie within the file's {size} bytes")
        places[key] = start, length
        file.seek(start + length)


def _piece(path: Path, places: dict[str, tuple[int, int]], key: str, skip: int, start: int, length: int) -> bytes:
    first, most = places.get(key, (0, 0))
    if skip + start + length > most:
        raise ImportFormatError(f"{path}: storage {key[:40]}: must have {skip + start + length} bytes, has {most}")
    with blame_all(path), open(path, "rb") as file:
        file.seek(first + skip + start)
        return file.read(length)
