"""SCALE-Sim topology files, in the dialects that its versions read and its users write.

One layer a line, after a header, cells with commas between, or tabs; a comma may end a line or not; blank lines are
skipped, and so is what follows a #.

=========  ============================================================================================
version 1  Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
version 2  the same, or Stride height, Stride width, in place of Strides; for ``-i gemm``: Layer, M, N, K
version 3  the same with Sparsity, N:M of the weights, or with Batch Size
=========  ============================================================================================

As SCALE-Sim computes it: the output has ⌈(H − R + stride) / stride⌉ rows, so that where the stride does not divide
H − R zeros stand below and to the right; a layer with DP in its name is depthwise; M×K times K×N is a linear layer for
M tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import (
    Imported,
    ImportedLayer,
    blame,
    integer,
    kind_of,
    layer_name,
    read_text,
)
from accelsim.workload.synthetic import Blocks

# Each column, and how the tool's own files spell it.
SPELLINGS = {
    "name": ("layer name", "layer", "layers", "name"),
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


def read(path: str | os.PathLike) -> Imported:
    """Read a topology file.

    Raises
    ------
    ImportFormatError
        One line that names file, line and column, if it is none, or a layer makes no sense.
    """
    path = Path(path)
    layers: dict[str, ImportedLayer] = {}
    batches: set[int] = set()
    for number, cells in _rows(path):
        with blame(f"{path}: line {number}"):
            layer = _product(cells) if "m" in cells else _convolution(cells)
            name = layer_name(cells["name"], layers)
            layers[name] = ImportedLayer(name, *layer, _pattern(cells.get("sparsity", "")))
            batches.add(integer(cells["batch"], "batch") if cells.get("batch") else 1)
    if len(batches) > 1:
        raise ImportFormatError(
            f"{path}: batch: must be the same for all layers, got {min(batches)} and {max(batches)}"
        )
    return Imported(path, "scalesim", path.stem, tuple(layers.values()), *batches)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers, and cells by column."""
    text = read_text(path)
    columns: list[str] | None = None
    comma = "," if "," in text else "\t"
    for number, line in enumerate(text.splitlines(), start=1):
        cells = [cell.strip() for cell in line.split("#")[0].rstrip(", \t").split(comma)]
        if cells == [""]:
            continue
        with blame(f"{path}: line {number}"):
            if columns is None:
                columns = _header(cells)
                continue
            row = _cells(cells, columns)
        yield number, row


def _header(cells: list[str]) -> list[str]:
    spelled = [" ".join(cell.lower().replace("_", " ").split()) for cell in cells]
    columns = [COLUMNS.get(name, "") for name in spelled]
    needed = PRODUCT if "m" in columns else CONVOLUTION
    missing = [SPELLINGS[column][0] for column in needed if column not in columns]
    if missing:
        raise ImportFormatError(f"header: must have the column {missing[0]!r}, got {', '.join(cells)[:80]!r}")
    if "" in columns:
        raise ImportFormatError(f"header: column {cells[columns.index('')][:40]!r} is not known")
    twice = [name for name, column in zip(spelled, columns, strict=True) if columns.count(column) > 1]
    if twice:
        raise ImportFormatError(f"header: column {twice[-1]!r} must occur once")
    return columns


def _cells(cells: list[str], columns: list[str]) -> dict[str, str]:
    row = dict(zip(columns, cells, strict=False))
    extra = cells[len(columns) :]
    if len(extra) == 2 and columns[-1] == "stride width":  # what version 3 writes: N and M without a header
        row["sparsity"] = ":".join(extra)
    elif extra:
        raise ImportFormatError(f"must have at most {len(columns)} cells, has {len(cells)}")
    for column in PRODUCT if "m" in columns else CONVOLUTION:
        if not row.get(column):
            raise ImportFormatError(f"{SPELLINGS[column][0]}: must be given, is missing")
    return row


def _size(cells: dict[str, str], column: str) -> int:
    return integer(cells[column], SPELLINGS[column][0])


def _product(cells: dict[str, str]) -> tuple[str, Geometry]:
    tokens, filters, channels = (_size(cells, column) for column in ("m", "n", "k"))
    return "linear", Geometry(channels, tokens, 1, filters, (1, 1))


def _convolution(cells: dict[str, str]) -> tuple[str, Geometry]:
    height, width, channels, filters = (_size(cells, name) for name in ("height", "width", "channels", "filters"))
    kernel = _size(cells, "filter height"), _size(cells, "filter width")
    stride = _size(cells, "stride"), _size(cells, "stride width" if cells.get("stride width") else "stride")
    for size, taps, side in ((height, kernel[0], "height"), (width, kernel[1], "width")):
        if taps > size:
            raise ImportFormatError(f"filter {side}: must be at most that of the IFMAP, {size}; got {taps}")
    below, right = (
        max(0, -(-(size - taps) // st) * st + taps - size)
        for size, taps, st in zip((height, width), kernel, stride, strict=True)
    )
    depthwise = "DP" in cells["name"]
    geometry = Geometry(
        channels, height, width, channels * filters if depthwise else filters, kernel, stride,
        (0, below, 0, right), groups=channels if depthwise else 1,
    )  # fmt: skip
    return kind_of(geometry), geometry


def _pattern(text: str) -> dict[str, Blocks]:
    """N:M of the weights, where it is not 1:1."""
    if not text:
        return {}
    parts = text.split(":")
    if len(parts) != 2:
        raise ImportFormatError(f"sparsity: must be N:M, got {text[:40]!r}")
    kept, size = (integer(part, "sparsity") for part in parts)
    if not kept <= size <= 1 << 16:
        raise ImportFormatError(f"sparsity: must be N:M with N ≤ M ≤ {1 << 16}, got {text[:40]!r}")
    return {} if kept == size else {"weight": Blocks(kept, size)}
