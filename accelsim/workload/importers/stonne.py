"""STONNE's command lines, one a layer: ``stonne -CONV -R=3 -S=3 -C=6 -G=1 -K=6 -N=1 -X=20 -Y=20 -num_ms=64 …``

As STONNE has it: X and Y are the map's with its padding, C and K are those of one group, M×K times K×N is stationary in
M, so that M is the filters; sparsities are in per cent. Hardware and tiles are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import Imported, ImportedLayer, Names, blame, integer, kind_of, product, read_text
from accelsim.workload.mask_model import MaskModel
from accelsim.workload.patterns import Thinned
from accelsim.workload.synthetic import Source

OPERATION = re.compile(r"(?:^|\s)-(CONV|FC|DenseGEMM|SparseGEMM|SparseDense)(?=\s|$)")
PARAMETER = re.compile(r"-(\w+)=\"?([\w.]+)\"?")


def read(path: Path) -> Imported:
    """Read the lines of a script that call STONNE.

    Raises
    ------
    ImportFormatError
        One line that names the file, the line and the parameter.
    """
    names = Names()
    layers: list[ImportedLayer] = []
    text = read_text(path).replace("\\\n", " ")
    for number, line in enumerate(text.splitlines(), start=1):
        operation = OPERATION.search(line.partition("#")[0])
        if operation:
            with blame(f"{path}: line {number}"):
                given = dict(PARAMETER.findall(line))
                name = names.add(given.get("layer_name", f"{operation[1]}_{len(layers)}"))
                layers.append(_layer(name, operation[1], given))
    samples = min((layer.samples or 1 for layer in layers), default=1)
    return Imported(path, "stonne", path.stem, tuple(layers), samples)


def tells(path: Path) -> bool:
    """Whether a line calls STONNE."""
    try:
        return path.is_file() and any(OPERATION.search(line) for line in read_text(path).splitlines())
    except ImportFormatError:
        return False


def _layer(name: str, operation: str, given: Mapping[str, str]) -> ImportedLayer:
    def size(key: str, default: int | None = None) -> int:
        if key not in given and default is None:
            raise ImportFormatError(f"-{key}: must be given, is missing")
        return integer(given.get(key, str(default)), f"-{key}")

    if operation != "CONV":
        tensors, words = _sparsities(given)
        return ImportedLayer(name, "linear", product(size("N"), size("K"), size("M")), tensors, words)
    groups, taps = size("G", 1), (size("R"), size("S"))
    stride = (size("strides", 1),) * 2
    extent = size("X"), size("Y")
    rows, columns = ((n - t) // st * st + t for n, t, st in zip(extent, taps, stride, strict=True))
    geometry = Geometry(size("C") * groups, rows, columns, size("K") * groups, taps, stride, groups=groups)
    return ImportedLayer(name, kind_of(geometry), geometry, samples=size("N", 1))


def _sparsities(given: Mapping[str, str]) -> tuple[dict[str, Source], dict[str, str]]:
    tensors: dict[str, Source] = {}
    words = {}
    for key, tensor in (("MK_sparsity", "weight"), ("KN_sparsity", "activation")):
        if key in given:
            share = integer(given[key], f"-{key}", 0)
            if share > 99:
                raise ImportFormatError(f"-{key}: must be in 0…99 per cent, got {share}")
            density = 1 - share / 100
            tensors[tensor] = Thinned(density) if tensor == "weight" else MaskModel.uniform(density)
            words[tensor] = f"drawn, density {density:g} as the file says"
    return tensors, words
