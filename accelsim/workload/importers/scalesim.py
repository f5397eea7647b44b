"""SCALE-Sim topology files, in the dialects that its versions read and its users write.

One layer a line, after a header, cells with commas between, or tabs; a comma may end a line or not; blank lines are
skipped, and so are what follows a #, lines with a name and no sizes, and headers that come again. Or a sheet (.xlsx).

=========  ============================================================================================
version 1  Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
version 2  the same, or Stride height, Stride width, in place of Strides; for ``-i gemm``: Layer, M, N, K
version 3  the same with Sparsity, N:M of the weights, or with Batch Size
=========  ============================================================================================

Columns are found by the header's words, or, where these are doubled or lacking, by SCALE-Sim's own order.

As SCALE-Sim computes it: the output has ⌈(H − R + stride) / stride⌉ rows, so that where the stride does not divide
H − R zeros stand below and to the right; a layer with DP in its name is depthwise; M×K times K×N is a linear layer for
M tokens. A map of one channel whose kernel is as wide or as high as the map does not slide that way: this axis is the
channels, so that a GEMM written as such a convolution is that GEMM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import Imported, ImportedLayer, Names, blame, integer, kind_of, product
from accelsim.workload.importers.scalesim_config import Sparsity, read_config
from accelsim.workload.importers.sheets import rows
from accelsim.workload.patterns import LARGEST_BLOCK, Blocks

# Each column, and how the tool's own files spell it.
SPELLINGS = {
    "name": ("layer name", "layer", "layers", "name", "l"),
    "height": ("ifmap height", "ifmap h", "input height"),
    "width": ("ifmap width", "ifmap w", "input width"),
    "filter height": ("filter height", "filter h", "kernel height"),
    "filter width": ("filter width", "filter w", "kernel width"),
    "channels": ("channels", "channel", "num channels", "input channels"),
    "filters": ("num filter", "num filters", "filters", "number of filters"),
    "stride": ("strides", "stride", "stride height", "stride h"),
    "stride width": ("stride width", "stride w"),
    "sparsity": ("sparsity", "sparsity ratio"),
    "batch": ("batch size", "batch"),
    "m": ("m",),
    "n": ("n",),
    "k": ("k",),
}
COLUMNS = {spelling: column for column, spellings in SPELLINGS.items() for spelling in spellings}
CONVOLUTION = ("name", "height", "width", "filter height", "filter width", "channels", "filters", "stride")
PRODUCT = ("name", "m", "n", "k")


@dataclass
class _Told:
    """What the user must know, gathered layer by layer."""

    notes: list[str] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def of(self, text: str, item: str) -> None:
        """One more layer or line that this is to be said of."""
        self.lists.setdefault(text, []).append(item)

    def all(self) -> Iterator[str]:
        yield from self.notes
        for text, items in self.lists.items():
            more = f" and {len(items) - 4} more" if len(items) > 4 else ""
            yield f"{text}: {', '.join(items[:4])}{more}"


def read(path: Path, topology: Imported | None = None, size: Mapping[str, int] | None = None) -> Imported:
    """Read a topology file; or a configuration (.cfg), which says the sparsity of a topology.

    Parameters
    ----------
    path : Path
    topology : Imported, optional
        For a configuration.
    size : mapping of str to int, optional
        Of sizes that the file leaves open, by their letters.

    Raises
    ------
    ImportFormatError
        One line that names file, line and column, if it is none, or a layer makes no sense.
    """
    if path.suffix.lower() == ".cfg":
        return _configured(path, topology)
    if topology is not None:
        raise ImportFormatError(f"{path}: topology: is for a configuration (.cfg), and this is a topology itself")
    told, names, layers = _Told(), Names(), []
    for number, cells in _rows(path, told):
        with blame(f"{path}: line {number}"):
            sizes = _sizes(cells, size or {})
            name = names.add(cells["name"])
            kind, geometry = _product(sizes) if "m" in cells else _convolution(name, cells["name"], sizes, told)
            batch = integer(cells["batch"], "batch") if cells.get("batch") else 1
            layers.append(ImportedLayer(name, kind, geometry, *_pattern(cells.get("sparsity", "")), samples=batch))
    samples = min((layer.samples or 1 for layer in layers), default=1)
    return Imported(path, "scalesim", path.stem, tuple(layers), samples, told=tuple(told.all()))


def tells(path: Path) -> bool:
    """Whether it is SCALE-Sim's: any table, and a configuration that has its sections."""
    if path.suffix.lower() != ".cfg":
        return path.is_file()
    try:
        return read_config(path) is not None
    except ImportFormatError:
        return False


# ---- lines


def _rows(path: Path, told: _Told) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers, and cells by column."""
    columns: list[str] | None = None
    header: list[str] = []
    for number, cells in rows(path, lambda cells: COLUMNS.get(_spelled(cells[0])) == "name"):
        with blame(f"{path}: line {number}"):
            if columns is None:
                columns, header = _header(cells, told), cells
                if not _is_headless(cells):
                    continue
            if len(cells) == 1 or (cells == header and not _is_headless(cells)):
                told.of("lines without sizes are skipped", cells[0][:40])
                continue
            row = _cells(cells, columns, told)
        yield number, row


def _is_headless(cells: list[str]) -> bool:
    """Whether a first line is a layer already: a name and sizes; numbers alone are a trace's."""
    return (
        len(cells) > 3
        and not cells[0].isdecimal()
        and all(cell.isdecimal() for cell in cells[1 : 8 if len(cells) > 7 else 4])
    )


def _header(cells: list[str], told: _Told) -> list[str]:
    if _is_headless(cells):
        told.notes.append("there is no header: the first line, which SCALE-Sim would skip, is read as a layer")
        return list(CONVOLUTION if len(cells) > 7 else PRODUCT)
    spelled = [_spelled(cell) for cell in cells]
    columns = [COLUMNS.get(name, "") for name in spelled]
    known = [column for column in columns if column]
    needed = PRODUCT if "m" in columns else CONVOLUTION
    missing = [SPELLINGS[column][0] for column in needed if column not in columns]
    if any("intraline" in name for name in spelled):
        raise ImportFormatError("a layout of SCALE-Sim has no layers: its topology has")
    if missing or len(set(known)) < len(known):
        # Words of which most are others' are no topology's: its numbers would be taken for sizes.
        is_another_s = len(missing) > len(needed) // 2
        if is_another_s or len(cells) < len(needed) or columns[0] != "name" or "m" in columns:
            raise ImportFormatError(f"header: must have the column {(missing or spelled)[0]!r}, {_got(cells)}")
        told.notes.append(f"columns are read by SCALE-Sim's own order, since the header {_got(cells)}")
        columns = [*CONVOLUTION, *(column if column not in CONVOLUTION else "" for column in columns[8:])]
    for name, column in zip(spelled, columns, strict=True):
        if not column:
            told.of("columns that are not known are ignored", repr(name[:40]))
    return columns


def _spelled(cell: str) -> str:
    return " ".join(cell.lower().replace("_", " ").split())


def _got(cells: list[str]) -> str:
    return f"got {', '.join(cells)[:80]!r}"


def _cells(cells: list[str], columns: list[str], told: _Told) -> dict[str, str]:
    row = {column: cell for column, cell in zip(columns, cells, strict=False) if column}
    extra = [cell for cell in cells[len(columns) :] if cell]
    if len(extra) == 2 and columns[-1] == "stride width":  # what version 3 writes: N and M without a header
        row["sparsity"] = ":".join(extra)
    elif len(extra) == 1 and ":" in extra[0] and not row.get("sparsity"):
        row["sparsity"] = extra[0]
    elif extra:
        told.of("cells beyond the header's columns are ignored", f"{', '.join(extra)[:40]} of {cells[0][:40]}")
    needed = PRODUCT if "m" in columns else CONVOLUTION
    numbers = " ".join(cells[1:]).split()
    if "" in cells and len(numbers) == len(needed) - 1 and columns[: len(needed)] == list(needed):
        told.of("a comma in the wrong place", f"{', '.join(cells)[:60]}")
        row = dict(zip(needed, [cells[0], *numbers], strict=True))
    for column in needed:
        if not row.get(column):
            raise ImportFormatError(f"{SPELLINGS[column][0]}: must be given, is missing")
    return row


# ---- layers


def _sizes(cells: Mapping[str, str], given: Mapping[str, int]) -> dict[str, int]:
    """The numbers of a line; a letter is one that the user gives."""
    found = {}
    for column in ("m", "n", "k") if "m" in cells else (*CONVOLUTION[1:], "stride width"):
        text = cells.get(column, "")
        if text in given:
            found[column] = given[text]
        elif text or column != "stride width":
            what = SPELLINGS[column][0]
            if text.isidentifier():
                what = f"{what}: is open (--size {text}=N gives it)"
            found[column] = integer(text, what)
    return found


def _product(sizes: Mapping[str, int]) -> tuple[str, Geometry]:
    return "linear", product(sizes["m"], sizes["k"], sizes["n"])


def _convolution(name: str, label: str, sizes: Mapping[str, int], told: _Told) -> tuple[str, Geometry]:
    size = sizes["height"], sizes["width"]
    kernel = sizes["filter height"], sizes["filter width"]
    stride = sizes["stride"], sizes.get("stride width", sizes["stride"])
    channels, filters = sizes["channels"], sizes["filters"]
    for side, extent, taps in zip(("height", "width"), size, kernel, strict=True):
        if taps > extent:
            raise ImportFormatError(f"filter {side}: must be at most that of the IFMAP, {extent}; got {taps}")
    spanned = [axis for axis in (0, 1) if size[axis] == kernel[axis] > 1]
    if channels == 1 and len(spanned) == 2:
        return "linear", product(1, size[0] * size[1], filters)
    if channels == 1 and spanned:
        return _spanned(name, spanned[0], size, kernel, stride, filters, told)
    below, right = (_zeros(*axis) for axis in zip(size, kernel, stride, strict=True))
    depthwise = "DP" in label
    geometry = Geometry(
        channels, *size, channels * filters if depthwise else filters, kernel, stride,
        (0, below, 0, right), groups=channels if depthwise else 1,
    )  # fmt: skip
    if depthwise:
        told.of("taken as depthwise, as SCALE-Sim does for the DP in the name", name)
    _tell_rounding(name, geometry, told)
    return kind_of(geometry), geometry


def _spanned(
    name: str,
    axis: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    filters: int,
    told: _Told,
) -> tuple[str, Geometry]:
    """A kernel that spans an axis of a map of one channel: the axis is the channels, the other one the rows."""
    rows, taps, step = size[1 - axis], kernel[1 - axis], stride[1 - axis]
    if taps == 1:  # rows between the strides meet no filter
        return "linear", product((rows - 1) // step + 1 + bool(_zeros(rows, 1, step)), size[axis], filters)
    geometry = Geometry(size[axis], rows, 1, filters, (taps, 1), (step, 1), (0, _zeros(rows, taps, step), 0, 0))
    _tell_rounding(name, geometry, told)
    return kind_of(geometry), geometry


def _zeros(size: int, taps: int, stride: int) -> int:
    """Zeros after the map that SCALE-Sim's rounding up needs."""
    return max(0, -(-(size - taps) // stride) * stride + taps - size)


def _tell_rounding(name: str, geometry: Geometry, told: _Told) -> None:
    if any(geometry.padding):
        p, q = geometry.output
        told.of(
            "outputs rounded up as SCALE-Sim does, with zeros below and to the right",
            f"{name} has {p}×{q} for {p - bool(geometry.padding[1])}×{q - bool(geometry.padding[3])}",
        )


def _pattern(text: str) -> tuple[dict[str, Blocks], dict[str, str]]:
    """N:M of the weights, where it is not 1:1, and that in words."""
    if not text:
        return {}, {}
    parts = text.split(":")
    if len(parts) != 2:
        raise ImportFormatError(f"sparsity: must be N:M, got {text[:40]!r}")
    kept, size = (integer(part, "sparsity") for part in parts)
    if not kept <= size <= LARGEST_BLOCK:
        raise ImportFormatError(f"sparsity: must be N:M with N ≤ M ≤ {LARGEST_BLOCK}, got {text[:40]!r}")
    return _blocks(Blocks(kept, size), f"drawn, {kept}:{size} as the file says")


def _blocks(blocks: Blocks, words: str) -> tuple[dict[str, Blocks], dict[str, str]]:
    return ({}, {}) if blocks.kept == blocks.size else ({"weight": blocks}, {"weight": words})


# ---- a configuration


def _configured(path: Path, topology: Imported | None) -> Imported:
    sparsity = read_config(path)
    if sparsity is None:
        raise ImportFormatError(f"{path}: must have SCALE-Sim's section [architecture_presets] or [sparsity]")
    if topology is None:
        raise ImportFormatError(f"{path}: a configuration has no layers: give them with --topology")
    layers = []
    for layer in topology.layers:
        tensors, words = _under(sparsity, layer)
        layers.append(ImportedLayer(layer.name, layer.kind, layer.geometry, tensors, words, layer.samples))
    told = [*topology.told, sparsity.said]
    return Imported(
        path, "scalesim", topology.network, tuple(layers), topology.samples, topology.batch, topology.left_out,
        tuple(told), topology.is_network,
    )  # fmt: skip


def _under(sparsity: Sparsity, layer: ImportedLayer) -> tuple[dict[str, Any], dict[str, str]]:
    """A layer's tensors as the configuration wants them."""
    tensors, words = dict(layer.tensors), dict(layer.words)
    if sparsity.size:
        how = f"drawn, N of each filter 1…{sparsity.size // 2} of {sparsity.size} as SCALE-Sim draws it"
        return tensors | {"weight": Blocks(None, sparsity.size, sparsity.seed)}, words | {"weight": how}
    if not sparsity.is_on and isinstance(tensors.get("weight"), Blocks):
        del tensors["weight"], words["weight"]
    return tensors, words
