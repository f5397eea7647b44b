"""What every importer gives: layers, their shapes, of their tensors what the file holds, and what was left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accelsim.errors import AccelsimError, GeometryError, ImportFormatError, TraceError, printable
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import PATH
from accelsim.workload.npz import MALFORMED, reason
from accelsim.workload.synthetic import Source

LARGEST_TENSOR = 1 << 28  # elements of what is read as a whole; what is drawn has no limit
LARGEST_TEXT = 1 << 24  # bytes of a description
LONGEST_LIST = 1 << 16  # layers; no network comes near
LONGEST_NAME = 240  # a number may have to follow
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


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
    words : mapping of str to str
        Of these tensors what was read, where it is more than "from the file".
    samples : int, optional
        N of this layer, where it is not that of the others.
    spread : (int, int)
        Steps between the elements of a drawn input: all others are zero, as in a transposed convolution.
    """

    name: str
    kind: str
    geometry: Geometry
    tensors: Mapping[str, Source] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    samples: int | None = None
    spread: tuple[int, int] = (1, 1)

    @property
    def multiplications(self) -> int:
        """Of the forward pass of one sample: zeros between the elements of the input are multiplied by nobody."""
        if self.spread == (1, 1):
            return self.geometry.multiplications
        g = self.geometry
        elements = -(-g.height // self.spread[0]) * -(-g.width // self.spread[1])
        return elements * g.kernel[0] * g.kernel[1] * g.channels * g.filters // g.groups


@dataclass(frozen=True)
class LeftOut:
    """What a file holds and a trace cannot.

    Parameters
    ----------
    name : str
    what : str
        Why it cannot be, such as "product of two activations".
    multiplications : int, optional
        Of all samples; None where the file does not tell.
    """

    name: str
    what: str
    multiplications: int | None = None


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
        N, of every layer that says no other.
    batch : int, optional
        Samples of the training batch, where the file says.
    left_out : tuple of LeftOut
    told : tuple of str
        What a user must know of how the file was read: what was rounded, ignored, guessed or chosen.
    is_network : bool
        Whether the first layer is a network's first, which is never sparsified and whose input needs no gradient.

    Raises
    ------
    ImportFormatError
        If there is no layer.
    """

    path: Path
    format: str
    network: str
    layers: tuple[ImportedLayer, ...]
    samples: int = 1
    batch: int | None = None
    left_out: tuple[LeftOut, ...] = ()
    told: tuple[str, ...] = ()
    is_network: bool = True

    def __post_init__(self) -> None:
        if not self.layers:
            reasons = "; ".join(f"{part.name}: {part.what}" for part in self.left_out[:3])
            rule = "must describe a layer, describes none"
            raise ImportFormatError(f"{self.path}: {rule}{f' that can be read ({reasons})' if reasons else ''}")

    def samples_of(self, layer: ImportedLayer) -> int:
        """N of a layer."""
        return layer.samples or self.samples

    @property
    def multiplications(self) -> int:
        """Of the forward pass of all layers that were read and all samples, nothing skipped."""
        return sum(layer.multiplications * self.samples_of(layer) for layer in self.layers)

    @property
    def share_read(self) -> float | None:
        """Of all multiplications of the file; None where not all are known."""
        counts = [part.multiplications for part in self.left_out]
        if None in counts:
            return None
        return self.multiplications / (self.multiplications + sum(filter(None, counts)))


@contextmanager
def blame(where: object) -> Iterator[None]:
    """Put `where` before what goes wrong inside, which leaves as an ImportFormatError of one line."""
    try:
        yield
    except (ImportFormatError, TraceError, GeometryError) as error:
        raise ImportFormatError(printable(f"{where}: {error}")) from error
    except (*MALFORMED, RecursionError) as error:
        raise ImportFormatError(printable(f"{where}: {reason(error)}")) from error


@contextmanager
def blame_all(where: object, rule: str = "") -> Iterator[None]:
    """Like :func:`blame`, where a foreign library reads the file and may raise anything."""
    try:
        yield
    except AccelsimError as error:
        raise ImportFormatError(printable(f"{where}: {error}")) from error
    except Exception as error:
        text = f"{rule}{reason(error)}" if str(error) else f"{rule}{type(error).__name__}"
        raise ImportFormatError(printable(f"{where}: {text}")) from error


def check_file(path: Path, most: int | None = None) -> None:
    """ImportFormatError if there is no such file, or it has more bytes than that."""
    if not path.is_file():
        raise ImportFormatError(f"{path}: no such file")
    with blame(path):
        size = path.stat().st_size
        if most is not None and size > most:
            raise ImportFormatError(f"must have at most {most} bytes, has {size}")


def read_text(path: str | os.PathLike[str], most: int = LARGEST_TEXT) -> str:
    """A text of at most so many bytes: UTF-8, UTF-16 with its mark, or else Latin-1.

    Raises
    ------
    ImportFormatError
        If there is no such file, it is too long for a description, or no text.
    """
    path = Path(path)
    check_file(path, most)
    with blame(path):
        content = path.read_bytes()
        mark = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
        try:
            text = content.decode(mark or "utf-8")
        except UnicodeDecodeError:
            if mark:
                raise
            text = content.decode("latin-1")
        if "\0" in text:
            raise ImportFormatError("must be a text, holds binary data")
        return text


def integer(text: str, what: str, least: int = 1) -> int:
    """A number in a text file; ImportFormatError if it is none, or too small. Largest sizes are Geometry's rule."""
    text = text.strip()
    digits = text.removeprefix("-").removeprefix("+")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18) or int(text) < least:
        raise ImportFormatError(f"{what}: must be an integer of {least} or more, got {text[:40]!r}")
    return int(text)


class Names:
    """Names of layers, fit for a trace: without what begins or ends with /, numbered where one occurs again."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}

    def add(self, text: str) -> str:
        """The name for a layer that the file calls so; ImportFormatError if it makes none."""
        name = "/".join(part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".", ".."))
        rule, is_good = PATH
        if not is_good(name) or len(name) > LONGEST_NAME:
            raise ImportFormatError(f"layer name: must be {rule}, got {text[:40]!r}")
        unique = name
        while unique in self._taken:
            self._last[name] = self._last.get(name, 1) + 1
            unique = f"{name}#{self._last[name]}"
        self._taken.add(unique)
        if len(self._taken) > LONGEST_LIST:
            raise ImportFormatError(f"must describe at most {LONGEST_LIST} layers")
        return unique


def kind_of(geometry: Geometry) -> str:
    """Linear, for a plain 1×1 convolution on a map of one column, which are tokens; else conv."""
    tokens = Geometry(geometry.channels, geometry.height, 1, geometry.filters, (1, 1))
    return "linear" if geometry == tokens else "conv"


def product(tokens: int, channels: int, filters: int) -> Geometry:
    """Of M×K times K×N: N filters over M tokens of K values."""
    return Geometry(channels, tokens, 1, filters, (1, 1))
