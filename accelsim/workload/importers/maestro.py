"""MAESTRO's networks (.m): layers with a type, strides and dimensions; dataflows are passed over.

As MAESTRO computes it: Y and X are the map with its padding, and outputs are ⌊(Y − R) / stride⌋ + 1. DSCONV is
depthwise, TRCONV a transposed convolution; NGCONV has C channels in G groups and K filters for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import Imported, ImportedLayer, Names, blame, integer, kind_of, product, read_text

COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
LAYER = re.compile(r"\bLayer\s+([^\s{}]+)\s*\{")
CONSTANT = re.compile(r"\bConstant\s+(\w+)\s*:?=?\s*(\d{1,18})\s*;")
PAIR = re.compile(r"([A-Za-z]\w*'?)\s*[:=]?\s*(\w+)")
TYPE = re.compile(r"\bType\s*:\s*(\w+)")
TYPES = ("CONV", "DSCONV", "TRCONV", "NGCONV", "FC", "GEMM")


def read(path: Path) -> Imported:
    """Read a network.

    Raises
    ------
    ImportFormatError
        One line that names the file and the layer.
    """
    text = COMMENT.sub(" ", read_text(path))
    constants = {name: int(value) for name, value in CONSTANT.findall(text)}
    names, layers, cut = Names(), [], []
    for label, body in _layers(path, text):
        with blame(f"{path}: {label[:60]}"):
            name = names.add(label)
            layer, is_cut = _layer(name, body, constants)
            layers.append(layer)
            cut += [name] if is_cut else []
    told = [f"rows or columns that no window meets are cut off: {', '.join(cut[:4])}"] if cut else []
    network = re.search(r"\bNetwork\s+([^\s{}]+)", text)
    samples = min((layer.samples or 1 for layer in layers), default=1)
    return Imported(path, "maestro", network[1] if network else path.stem, tuple(layers), samples, told=tuple(told))


def _layers(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """Names, and what stands between the braces."""
    for match in LAYER.finditer(text):
        depth, at = 1, match.end()
        for brace in re.finditer(r"[{}]", text[match.end() :]):
            depth += 1 if brace[0] == "{" else -1
            at = match.end() + brace.start()
            if not depth:
                break
        if depth:
            raise ImportFormatError(f"{path}: {match[1][:60]}: must end with a brace, does not")
        yield match[1], text[match.end() : at]


def _layer(name: str, body: str, constants: Mapping[str, int]) -> tuple[ImportedLayer, bool]:
    """The layer, and whether its map has rows or columns that are never read."""
    type_ = TYPE.search(body)
    kind = type_[1].upper() if type_ else "CONV"
    if kind not in TYPES:
        raise ImportFormatError(f"Type: must be one of {', '.join(TYPES)}; got {kind[:40]}")
    sizes, steps = _sizes(body, "Dimensions", constants), _sizes(body, "Stride", constants)
    if kind == "GEMM" or {"M", "N", "K"} == sizes.keys():
        m, n, k = (_size(sizes, key) for key in "MNK")
        return ImportedLayer(name, "linear", product(m, k, n)), False
    samples = sizes.get("N", 1)
    filters, channels = _size(sizes, "K"), _size(sizes, "C")
    size, taps = (_size(sizes, "Y"), _size(sizes, "X")), (sizes.get("R", 1), sizes.get("S", 1))
    stride = steps.get("Y", 1), steps.get("X", 1)
    groups = {"DSCONV": channels, "NGCONV": sizes.get("G", 1)}.get(kind, 1)
    if kind == "TRCONV":
        rows, columns = ((n - 1) * st + 1 for n, st in zip(size, stride, strict=True))
        around = taps[0] - 1, taps[0] - 1, taps[1] - 1, taps[1] - 1
        geometry = Geometry(channels, rows, columns, filters, taps, (1, 1), around)
        return ImportedLayer(name, "conv", geometry, samples=samples, spread=stride), False
    for axis, extent, t in zip("YX", size, taps, strict=True):
        if t > extent:
            raise ImportFormatError(f"{axis}: must be at least the kernel's {t}, got {extent}")
    rows, columns = ((n - t) // st * st + t for n, t, st in zip(size, taps, stride, strict=True))
    geometry = Geometry(channels, rows, columns, filters * groups, taps, stride, groups=groups)
    return ImportedLayer(name, kind_of(geometry), geometry, samples=samples), (rows, columns) != size


def _sizes(body: str, what: str, constants: Mapping[str, int]) -> dict[str, int]:
    block = re.search(rf"\b{what}\s*\{{([^{{}}]*)\}}", body)
    found = {}
    for key, value in PAIR.findall(block[1]) if block else ():
        found[key.upper()] = constants[value] if value in constants else integer(value, f"{what}: {key}")
    return found


def _size(sizes: Mapping[str, int], key: str) -> int:
    if key not in sizes:
        raise ImportFormatError(f"Dimensions: {key}: must be given, is missing")
    return sizes[key]
