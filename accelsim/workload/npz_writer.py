"""The container of a trace, written: array by array, whole or not at all. Its reader is npz.py."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from accelsim.durable import Temporary, replace, sweep_up
from accelsim.errors import OutputError, TraceError
from accelsim.workload.bits import pack, packed_size
from accelsim.workload.npz import CHUNK, ENCODINGS, LARGEST_DOCUMENT, MAGIC, json_bytes, reason
from accelsim.workload.tiles import Pieces

LARGE = 1 << 30  # bytes from which on a member is written as zip64


class NpzWriter:
    """Write an .npz array by array into a temporary file beside `path`, which it becomes with :meth:`commit`.

    Raises
    ------
    OutputError
        Here and in each method, if the system does not let us write.
    """

    def __init__(self, path: str | os.PathLike[str], level: int):
        self.path = Path(path)
        self._temporary: Temporary | None = None  # so once committed or discarded
        with self._blamed():
            if self.path.is_dir():
                raise IsADirectoryError(0, "is a folder")
            sweep_up(self.path.parent)
            self._temporary = Temporary(self.path.parent)
            self._file = open(self._temporary.path, "r+b")  # noqa: SIM115 (closed by commit or discard)
            self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=level)

    @property
    def closed(self) -> bool:
        """Whether it was committed or discarded."""
        return self._temporary is None

    @contextmanager
    def _writing(self) -> Iterator[Temporary]:
        if self._temporary is None:
            raise OutputError(f"{self.path}: cannot write: the trace is closed already")
        with self._blamed():
            yield self._temporary

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write: {reason(error)}") from error

    def document(self, name: str, content: object) -> None:
        """Write JSON as a 1-D array of uint8.

        Raises
        ------
        TraceError
            If it is no plain JSON, or larger than a reader takes.
        """
        text = json_bytes(content)
        if len(text) > LARGEST_DOCUMENT:
            raise TraceError(f"{self.path}: {name}: must be at most {LARGEST_DOCUMENT} bytes, got {len(text)}")
        self._add(name, "|u1", (len(text),), iter([np.frombuffer(text, np.uint8)]))

    def tensor(self, name: str, array: np.ndarray | Pieces, encoding: str, bfloat16: bool) -> None:
        """Write a tensor piece by piece; an array in another order than C is not copied whole."""
        if isinstance(array, Pieces):
            size = packed_size(math.prod(array.shape))
            return self._add(name, ENCODINGS[encoding], (size,), _packed(array))
        shape = (packed_size(array.size),) if encoding == "bits" else array.shape
        flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
        starts = range(0, array.size, CHUNK)
        pieces = (_encode(flat[start : start + CHUNK], encoding, bfloat16) for start in starts)
        self._add(name, ENCODINGS[encoding], shape, pieces)

    def _add(self, name: str, descr: str, shape: tuple[int, ...], pieces: Iterator[np.ndarray]) -> None:
        header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
        header += " " * (-(len(header) + 11) % 64) + "\n"
        large = math.prod(shape) * np.dtype(descr).itemsize > LARGE
        mark = self.mark()
        try:  # zipfile dates what it opens by name 1980, so the same arrays give the same file
            with self._writing(), self._zip.open(f"{name}.npy", "w", force_zip64=large) as member:
                member.write(MAGIC + len(header).to_bytes(2, "little") + header.encode())
                for piece in pieces:
                    member.write(piece.tobytes())
        except BaseException:  # an interrupted array must not stay in the file by half
            self.rewind(mark)
            raise

    def mark(self) -> int:
        """A place to :meth:`rewind` to."""
        return self._zip.start_dir

    def rewind(self, mark: int) -> None:
        """Forget all arrays written since `mark`."""
        with self._writing():
            for info in [info for info in self._zip.filelist if info.header_offset >= mark]:
                self._zip.filelist.remove(info)
                del self._zip.NameToInfo[info.filename]
            self._zip.start_dir = mark
            self._file.seek(mark)
            self._file.truncate()

    def commit(self) -> None:
        """Finish the file and move it to its place; if that fails, nothing is left and `path` is as it was."""
        try:
            with self._writing() as temporary:
                self._zip.close()
                self._file.close()
                replace(temporary.path, self.path)
                temporary.close()
        except BaseException:
            self.discard()
            raise
        self._temporary = None

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        if self._temporary is None:
            return
        self._zip.fp = None  # otherwise it would write its directory when collected
        with suppress(OSError):
            self._file.close()
        self._temporary.discard()
        self._temporary = None


def _encode(part: np.ndarray, encoding: str, bfloat16: bool) -> np.ndarray:
    if encoding == "bits":
        return pack((part & 0x7FFF if bfloat16 else part) != 0)  # −0.0 is zero
    return part.astype(ENCODINGS[encoding])


def _packed(mask: Pieces) -> Iterator[np.ndarray]:
    """Whole bytes; what is left over of a piece waits for the next."""
    rest = np.zeros(0, bool)
    for piece in mask.walk():
        bits = np.concatenate([rest, piece.reshape(-1)]) if rest.size else piece.reshape(-1)
        whole = bits.size // 8 * 8
        yield pack(bits[:whole])
        rest = bits[whole:]
    yield pack(rest)
