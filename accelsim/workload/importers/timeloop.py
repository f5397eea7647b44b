"""Timeloop's problems, in the spellings of versions 0.3 and 0.4; the axes are told by projection, not by name.

The weight is the tensor that is called so; of a product of matrices the one whose density is structured, or else the
first. Timeloop knows no padding: the input is as large as what the windows cover.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import Imported, ImportedLayer, LeftOut, Names, blame, read_text
from accelsim.workload.importers.projections import Axes, Term, layer
from accelsim.workload.importers.yaml_text import parse
from accelsim.workload.mask_model import MaskModel
from accelsim.workload.patterns import Thinned
from accelsim.workload.synthetic import Source

PASS = re.compile(r"\.(fwd|weight_grad|input_grad)$")
WEIGHT = re.compile("weight|filter|kernel|^w$", re.IGNORECASE)
# Timeloop's shape for problems that name no other.
CNN_LAYER = {
    "data_spaces": [
        {"name": "Weights", "projection": [[["C"]], [["K"]], [["R"]], [["S"]]]},
        {
            "name": "Inputs",
            "projection": [
                [["N"]],
                [["C"]],
                [["R", "Wdilation"], ["P", "Wstride"]],
                [["S", "Hdilation"], ["Q", "Hstride"]],
            ],
        },
        {"name": "Outputs", "projection": [[["N"]], [["K"]], [["Q"]], [["P"]]], "read_write": True},
    ],
}


def read(path: Path) -> Imported:
    """Read a problem; of a folder of problems each is a layer, and only forward passes where they say their pass.

    Raises
    ------
    ImportFormatError
        One line that names the file and the tensor or dimension.
    """
    told: list[str] = []
    with blame(path):
        found = _layer(path, parse(path), told)
    left_out = (found,) if isinstance(found, LeftOut) else ()
    layers = () if isinstance(found, LeftOut) else (found,)
    return Imported(path, "timeloop", path.stem, layers, left_out=left_out, told=tuple(told), is_network=False)


def tells(path: Path) -> bool:
    """Whether a file has a problem."""
    try:
        return path.is_file() and re.search(r"^\s*['\"]?problem['\"]?\s*:", read_text(path), re.MULTILINE) is not None
    except ImportFormatError:
        return False


def chosen(files: list[Path]) -> list[Path]:
    """Of a folder's files those that are layers of the forward pass."""
    forward = [file for file in files if PASS.search(file.stem) and file.stem.endswith(".fwd")]
    return forward or files


def _layer(path: Path, content: Any, told: list[str]) -> ImportedLayer | LeftOut:
    problem = content.get("problem") if isinstance(content, dict) else None
    if not isinstance(problem, dict):
        raise ImportFormatError("problem: must be given, is missing")
    shape = problem.get("shape", CNN_LAYER)
    if isinstance(shape, str):
        if "cnn" not in shape.lower() and "conv" not in shape.lower():
            raise ImportFormatError(f"shape: must be written out or Timeloop's CNN layer, is {shape[:40]!r}")
        shape = CNN_LAYER
    spaces = _either(shape, "data_spaces", "data-spaces") if isinstance(shape, dict) else None
    if not isinstance(shape, dict) or not isinstance(spaces, list):
        raise ImportFormatError("shape: data_spaces: must be a list, is none")
    instance = problem.get("instance", problem)
    if not isinstance(instance, dict):
        raise ImportFormatError("instance: must be sizes by name, is none")
    steps = {term.name for space in spaces for axis in _axes(space, {}) for term in axis if term.name}
    sizes = _sizes(shape, steps, instance, told)
    axes = {_name(space): _axes(space, sizes) for space in spaces}
    written = [_name(space) for space in spaces if _either(space, "read_write", "read-write")]
    read_ = [name for name in axes if name not in written]
    if len(written) != 1 or len(read_) != 2 or len(axes) != len(spaces):
        raise ImportFormatError(
            f"data_spaces: must be two that are read and one that is written, are {', '.join(axes)[:80]}"
        )
    densities = _either(instance, "densities", "data_densities") or _either(problem, "densities", "data_densities")
    weight = _weight(read_, densities, told)
    other = next(name for name in read_ if name != weight)
    tensors, words = {}, {}
    used = {term.dimension for space in axes.values() for axis in space for term in axis}
    dims = {name: sizes[name] for name in used & sizes.keys()}
    kind, geometry, samples = layer(axes[weight], axes[other], axes[written[0]], dims, _is_height)
    for tensor, name in (("weight", weight), ("activation", other)):
        if (density := _density(name, densities, told)) is not None:
            source: Source = Thinned(density) if tensor == "weight" else MaskModel.uniform(density)
            tensors[tensor], words[tensor] = source, f"drawn, density {density:g} as the file says"
    name = Names().add(PASS.sub("", re.sub(r"^\d{1,4}_", "", path.stem)))
    return ImportedLayer(name, kind, geometry, tensors, words, samples)


def _either(mapping: Any, *keys: str) -> Any:
    return next((mapping[key] for key in keys if isinstance(mapping, dict) and key in mapping), None)


def _name(space: Any) -> str:
    name = space.get("name") if isinstance(space, dict) else None
    if not isinstance(name, str) or not name:
        raise ImportFormatError(f"data_spaces: must have a name each, got {str(space)[:60]}")
    return name


def _sizes(shape: Mapping[str, Any], steps: set[str], instance: Mapping[Any, Any], told: list[str]) -> dict[str, int]:
    """Of dimensions and coefficients, these by default as the shape says; ``steps``: those that projections name."""
    found: dict[str, Any] = {}
    coefficients = shape.get("coefficients") or []
    for part in coefficients if isinstance(coefficients, list) else []:
        if isinstance(part, dict) and isinstance(part.get("name"), str):
            found[part["name"]] = part.get("default", 1)
    lower = {name.lower(): name for name in (*steps, *found)}
    for name, size in instance.items():
        if isinstance(name, str) and type(size) is int:
            found[name] = size
            known = lower.get(name.lower(), name)
            if known != name:  # HStride for Hstride, as in published problems
                told.append(f"{name} is taken for {known}")
                found[known] = size
    told += [f"{name} is given nowhere, and taken for 1" for name in sorted(steps - found.keys())]
    for name, size in found.items():
        if type(size) is not int or size < 0 or (size < 1 and "pad" not in name.lower()):
            raise ImportFormatError(f"{name[:40]}: must be an integer of 1 or more, got {str(size)[:40]}")
    return found


def _axes(space: Mapping[str, Any], sizes: Mapping[str, int]) -> Axes:
    projection = space.get("projection")
    if not isinstance(projection, list):
        rule = "projection: must be a list of axes, each a list of [dimension] or [dimension, coefficient]"
        raise ImportFormatError(f"{_name(space)[:40]}: {rule}, got {str(projection)[:60]}")
    axes = []
    for axis in projection:
        terms = axis if isinstance(axis, list) and axis and all(isinstance(term, list) for term in axis) else [axis]
        axes.append(tuple(_term(term, sizes) for term in terms))
    return tuple(axes)


def _term(term: Any, sizes: Mapping[str, int]) -> Term:
    if not isinstance(term, list) or not 1 <= len(term) <= 2 or not isinstance(term[0], str):
        raise ImportFormatError(
            f"projection: must be made of [dimension] or [dimension, coefficient], got {str(term)[:60]}"
        )
    step = term[1] if len(term) == 2 else 1
    if isinstance(step, str):
        return Term(term[0], sizes.get(step, 1), step)
    if type(step) is not int:
        raise ImportFormatError(
            f"projection: coefficient of {term[0][:40]}: must be a name or a number, got {str(step)[:40]}"
        )
    return Term(term[0], step)


def _is_height(term: Term) -> bool:
    return term.name.lower().startswith("h")


def _weight(names: list[str], densities: Any, told: list[str]) -> str:
    """Which of the tensors that are read is the weight."""
    called = [name for name in names if WEIGHT.search(name)]
    if len(called) == 1:
        return called[0]
    inputs = [name for name in names if re.search("input|activation|ifmap", name, re.IGNORECASE)]
    if len(inputs) == 1:
        return next(name for name in names if name not in inputs)
    structured = [name for name in names if "structured" in str(_either(_either(densities, name), "distribution"))]
    weight = structured[0] if len(structured) == 1 else names[0]
    told.append(f"{weight} is taken as the weight, which the file does not say")
    return weight


def _density(name: str, densities: Any, told: list[str]) -> float | None:
    """Of one tensor, if the file says."""
    said = _either(densities, name)
    if said is None:
        return None
    density = _either(said, "density") if isinstance(said, dict) else said
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0 < density <= 1:
        told.append(f"density of {name}: {str(said)[:80]} is not read")
        return None
    how = str(_either(said, "distribution") or "")
    if how and not how.startswith(("hyper", "uniform")):
        told.append(f"density of {name}: {how[:40]} is drawn without its structure")
    return float(density)
