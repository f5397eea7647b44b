"""The container of a trace, read with suspicion: a zip of .npy arrays.

``zipfile`` parses the directory, and writes (npz_writer.py). Arrays are inflated here: threads read at once, damage
must show in one way only, and nothing may be allocated on the word of a header. What a trace means is in trace.py.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import reprlib
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accelsim.errors import GeometryError, ImportFormatError, TraceError
from accelsim.workload.bits import packed_size, unpack

# How a tensor is stored, and the dtype of its array in the file. bfloat16 is the upper half of a float32.
ENCODINGS = {"bits": "|u1", "float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "int16": "<i2"}
CHUNK = 1 << 20  # positions converted at once; whole bytes of a mask
LARGEST_DOCUMENT = 1 << 26  # bytes of JSON
MAGIC = b"\x93NUMPY\x01\x00"
# As numpy writes it, and nothing else: evaluating a literal out of an untrusted file is not needed.
HEADER = re.compile(
    r"\{'descr': ?'([^']*)', ?'fortran_order': ?(True|False), ?"
    r"'shape': ?\(((?:[0-9]{1,20}, ?)*(?:[0-9]{1,20})?)\),? ?\} *\n?"
)
LONGEST_HEADER = 1024
# Deflate codes at most 258 bytes in 2 bits; what claims more is no deflate stream.
DEFLATE_RATIO = 1032
RAW_STEP = 1 << 16
SIGNATURE = b"PK\x03\x04"  # of a member in a zip, and so of an .npz
# The same, flags, method, length of the name, length of the extra field; sizes are those of the directory.
LOCAL_HEADER = struct.Struct("<4s2xHH16xHH")
# What zipfile, zlib, json and numpy raise on bytes that make no sense.
MALFORMED = (
    OSError, ValueError, OverflowError, RuntimeError, MemoryError, EOFError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


@contextmanager
def blame(label: object) -> Iterator[None]:
    """Put `label` before what goes wrong inside, which leaves as a TraceError of one line, whatever it was."""
    try:
        yield
    except (TraceError, GeometryError, ImportFormatError) as error:
        raise TraceError(f"{label}: {error}") from error
    except MALFORMED as error:
        raise TraceError(f"{label}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What an exception says, in one line."""
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


@dataclass(frozen=True)
class Member:
    """One array of the file. `start`, `packed_bytes`: its compressed bytes; `size`: bytes inflated, header included."""

    start: int
    packed_bytes: int
    size: int
    crc: int
    deflated: bool


class NpzReader:
    """An open .npz: the directory is checked, arrays are read piece by piece. Threads may read at once.

    Raises
    ------
    TraceError
        Always and only, here and in each method, in one line that begins with the array's name; a caller puts the path
        before it.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._lock = threading.Lock()
        with blame("cannot read"):
            is_file = stat.S_ISREG(os.stat(path).st_mode)
            if is_file:  # opening a pipe would wait for ever
                self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)
        if not is_file:
            raise TraceError("must be a file, is a folder or a device")
        try:
            self.members = self._directory(os.fstat(self._file.fileno()).st_size)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def digest(self) -> str:
        """SHA-256 of the whole file, in hexadecimal."""
        sha, at = hashlib.sha256(), 0
        with blame("cannot read"):
            while piece := self.read_at(at, 1 << 20):
                sha.update(piece)
                at += len(piece)
        return sha.hexdigest()

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end of the file."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)

    def _directory(self, file_size: int) -> dict[str, Member]:
        """Members by name, without the suffix .npy."""
        with blame("must be a whole .npz file"):
            first = self.read_at(0, len(SIGNATURE))
            if first != SIGNATURE:
                raise TraceError(f"begins with {first!r}" if first else "is empty")
            infos = zipfile.ZipFile(self._file).infolist()
        members, end = {}, 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            name = info.filename.removesuffix(".npy")
            with blame(name if name.isprintable() and len(name) < 900 else reprlib.repr(name)):
                if name == info.filename or info.filename != info.orig_filename:
                    raise TraceError(f"must be a plain name that ends in .npy, got {reprlib.repr(info.orig_filename)}")
                if name in members:
                    raise TraceError("must occur once in the file, occurs twice")
                if info.header_offset < end:
                    raise TraceError(f"must begin at byte {end} or later, begins at {info.header_offset}")
                members[name] = self._member(info)
                end = members[name].start + info.compress_size
                if end > file_size:
                    raise TraceError(f"must end within the file's {file_size} bytes, ends at {end}")
        return members

    def _member(self, info: zipfile.ZipInfo) -> Member:
        if info.flag_bits & 0x61:
            raise TraceError("must not be encrypted or a patch")
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        if not deflated and info.compress_type != zipfile.ZIP_STORED:
            raise TraceError(f"compression must be 0 (none) or 8 (deflate), got {info.compress_type}")
        if info.file_size > info.compress_size * (DEFLATE_RATIO if deflated else 1):
            raise TraceError(f"{info.compress_size} compressed bytes can't hold {info.file_size} bytes")
        local = self.read_at(info.header_offset, LOCAL_HEADER.size).ljust(LOCAL_HEADER.size, b"\0")
        signature, flags, method, name_length, extra_length = LOCAL_HEADER.unpack(local)
        if signature != SIGNATURE or method != info.compress_type:
            raise TraceError("the zip's own header of this array is damaged")
        name = self.read_at(info.header_offset + LOCAL_HEADER.size, name_length)
        if name.decode("utf-8" if flags & 0x800 else "cp437") != info.filename:
            raise TraceError(f"the zip has two names for this array, the other is {reprlib.repr(name)}")
        start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
        return Member(start, info.compress_size, info.file_size, info.CRC, deflated)

    def document(self, name: str) -> object:
        """The JSON text in a 1-D array of uint8, as Python objects."""
        with self.array(name) as (descr, shape, stream):
            if descr != "|u1" or shape != (stream.left,) or stream.left > LARGEST_DOCUMENT:
                raise TraceError(
                    f"must be at most {LARGEST_DOCUMENT} bytes of dtype '|u1', got shape {reprlib.repr(shape)}"
                )
            return _parse_json(stream.read(stream.left))

    def check(self, name: str, encoding: str, shape: tuple[int, ...]) -> None:
        """Read just enough of a tensor to know that it is there, and has this encoding and shape."""
        with self._tensor(name, encoding, shape, raw_step=1 << 11):
            pass

    def tensor(self, name: str, encoding: str, shape: tuple[int, ...]) -> np.ndarray:
        """Read a tensor: bool for bits, float32 for bfloat16, else what the file holds."""
        dtype = {"bits": bool, "bfloat16": np.float32}.get(encoding, ENCODINGS[encoding])
        with self._tensor(name, encoding, shape) as stream:
            array = np.empty(shape, dtype)
            flat = array.reshape(-1)
            for start in range(0, flat.size, CHUNK):
                part = flat[start : start + CHUNK]
                part[:] = _decode(stream.read(_stored_bytes(encoding, part.size)), encoding, part.size)
        return array

    @contextmanager
    def _tensor(self, name: str, encoding: str, shape: tuple[int, ...], raw_step: int = RAW_STEP) -> Iterator[_Stream]:
        size = _stored_bytes(encoding, math.prod(shape))
        is_mask = encoding == "bits"
        rule = f"must be a {shape} mask of {size} bytes" if is_mask else f"must be {shape} {encoding} of {size} bytes"
        with self.array(name, raw_step) as (descr, got, stream):
            if descr != ENCODINGS[encoding]:
                raise TraceError(f"must have dtype {ENCODINGS[encoding]!r} for {encoding}, got {descr[:60]!r}")
            if got != ((size,) if is_mask else shape):
                raise TraceError(f"{rule}, got {got[0] if is_mask and len(got) == 1 else reprlib.repr(got)}")
            if stream.left != size:
                raise TraceError(f"{rule}, got {stream.left} bytes")
            yield stream

    @contextmanager
    def array(self, name: str, raw_step: int = RAW_STEP) -> Iterator[tuple[str, tuple[int, ...], _Stream]]:
        """The dtype and shape that an array claims, for the caller to check, and the stream of its C-ordered bytes."""
        with blame(name):
            if name not in self.members:
                raise TraceError("must be in the file, is missing")
            stream = _Stream(self.read_at, self.members[name], raw_step)
            yield *_npy_header(stream), stream


class _Stream:
    """The bytes of a member, inflated as they are asked for."""

    def __init__(self, read_at: Callable[[int, int], bytes], member: Member, raw_step: int):
        self._read_at, self._member, self._raw_step = read_at, member, raw_step
        self._decoder = zlib.decompressobj(-15) if member.deflated else None
        self._at, self._pending, self._crc = member.start, b"", 0
        self.left = member.size

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; with the last of them the checksum must be right."""
        if size > self.left:
            raise TraceError(f"must hold {size - self.left} bytes more than its {self._member.size}")
        self.left -= size
        pieces = []
        while size:
            piece = self._inflate(size)
            if not piece and self._at_end:
                raise TraceError(f"compressed data must give {self._member.size} bytes, ends {size + self.left} early")
            self._crc = zlib.crc32(piece, self._crc)
            size -= len(piece)
            pieces.append(piece)
        if not self.left:
            self._finish()
        return b"".join(pieces)

    @property
    def _raw_left(self) -> int:
        return self._member.start + self._member.packed_bytes - self._at

    @property
    def _at_end(self) -> bool:
        return (self._decoder is not None and self._decoder.eof) or not (self._pending or self._raw_left)

    def _inflate(self, size: int) -> bytes:
        """At most `size` bytes; none when more input is needed, or there is no more."""
        if not self._pending and self._raw_left:
            self._pending = self._read_at(self._at, min(self._raw_step, self._raw_left))
            if not self._pending:
                raise TraceError("the file has become shorter since it was opened")
            self._at += len(self._pending)
        if self._decoder is None:
            piece, self._pending = self._pending[:size], self._pending[size:]
            return piece
        piece = self._decoder.decompress(self._pending, size)
        self._pending = self._decoder.unconsumed_tail
        return piece

    def _finish(self) -> None:
        more = self._inflate(1)  # once in any case: the end of the last block may still be in the decoder
        while not more and not self._at_end:
            more = self._inflate(1)
        ended = self._decoder is None or (self._decoder.eof and not self._decoder.unused_data)
        if more or not ended or self._raw_left:
            raise TraceError(f"compressed data must end after {self._member.size} bytes, does not")
        if self._crc != self._member.crc:
            raise TraceError(f"checksum must be {self._member.crc:08x}, got {self._crc:08x}")


def _npy_header(stream: _Stream) -> tuple[str, tuple[int, ...]]:
    """Dtype string and shape. Fortran order, pickles and anything but format 1.0 are refused."""
    start = stream.read(min(10, stream.left))
    length = int.from_bytes(start[8:], "little")
    if len(start) < 10 or start[:8] != MAGIC or length > min(LONGEST_HEADER, stream.left):
        raise TraceError(f"must be an array in .npy format 1.0, begins with {start!r}")
    header = stream.read(length)
    match = HEADER.fullmatch(header.decode("latin-1"))
    if not match:
        raise TraceError(f"must have a header as numpy writes it for a plain array, got {header[:60]!r}")
    descr, fortran, sizes = match.groups()
    if "O" in descr:
        raise TraceError(f"must not be a pickled array, has dtype {descr[:60]!r}")
    if fortran == "True":
        raise TraceError("must be in C order, is in Fortran order")
    return descr, tuple(int(size) for size in sizes.split(",") if size.strip())


def json_bytes(content: object) -> bytes:
    """JSON as a reader takes it.

    Raises
    ------
    TraceError
        If there is anything in it that JSON does not know.
    """
    try:
        text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TraceError(f"must be plain JSON: {reason(error)}") from error
    _parse_json(text)  # keys 1 and "1" are one key in JSON
    return text


def _parse_json(text: bytes) -> object:
    """JSON without what Python lets pass: a key twice, NaN, infinities, integers of any length."""
    with blame("must be JSON in UTF-8"):
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object_of,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_number,
        )


def _object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise TraceError(f"key {reprlib.repr(key)} must occur once, occurs twice")
        found[key] = value
    return found


def _number(digits: str) -> int | float:
    value = int(digits) if len(digits) <= 20 and digits.lstrip("-").isdigit() else float(digits)
    if not math.isfinite(value):
        raise TraceError(f"numbers must be finite, got {reprlib.repr(digits)}")
    return value


def _stored_bytes(encoding: str, count: int) -> int:
    return packed_size(count) if encoding == "bits" else count * np.dtype(ENCODINGS[encoding]).itemsize


def _decode(raw: bytes, encoding: str, count: int) -> np.ndarray:
    stored = np.frombuffer(raw, ENCODINGS[encoding])
    if encoding == "bits":
        return unpack(stored, (count,))
    if encoding == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored
