"""Workloads of ZigZag and Stream in YAML: operators with an equation over loop dimensions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import Imported, ImportedLayer, LeftOut, Names, blame, read_text
from accelsim.workload.importers.projections import Axes, Term, layer
from accelsim.workload.importers.yaml_text import parse

OPERAND = re.compile(r"([A-Za-z]\w*)((?:\[\s*\w+\s*\])*)")
RELATION = re.compile(r"(\w+)=([\w*+]+)")
TERM = re.compile(r"(?:(\d{1,9})\*)?([A-Za-z]\w*)")
NO_PRODUCT = ("pool", "add", "relu", "softmax", "norm", "concat", "split", "flatten", "reshape", "transpose")


def read(path: Path) -> Imported:
    """Read a workload.

    Raises
    ------
    ImportFormatError
        One line that names the file and the operator.
    """
    content = parse(path)
    operators = content.get("operators", content.get("layers")) if isinstance(content, dict) else content
    if not isinstance(operators, list) or not operators:
        raise ImportFormatError(f"{path}: must be a list of operators, is none")
    names, others = Names(), []
    layers: list[ImportedLayer] = []
    left_out: list[LeftOut] = []
    for number, operator in enumerate(operators):
        with blame(f"{path}: operator {number}"):
            if not isinstance(operator, dict):
                raise ImportFormatError(f"must be keys and values, got {str(operator)[:60]}")
            kind = str(operator.get("operator_type", "Conv"))
            if any(word in kind.lower() for word in NO_PRODUCT) or "*" not in str(operator.get("equation", "*")):
                others.append(kind)
                continue
            found = _operator(operator, str(operator.get("name", f"{kind}_{operator.get('id', number)}")), names)
            if isinstance(found, LeftOut):
                left_out.append(found)
            else:
                layers.append(found)
    told = [f"operators that do not multiply are passed over: {', '.join(sorted(set(others)))}"] if others else []
    samples = min((part.samples or 1 for part in layers), default=1)
    return Imported(path, "zigzag", path.stem, tuple(layers), samples, left_out=tuple(left_out), told=tuple(told))


def tells(path: Path) -> bool:
    """Whether a file has loop dimensions and sizes."""
    try:
        text = read_text(path) if path.is_file() else ""
    except ImportFormatError:
        return False
    return "loop_dims" in text and "equation" in text


def _operator(operator: Mapping[str, Any], label: str, names: Names) -> ImportedLayer | LeftOut:
    equation = str(operator.get("equation", ""))
    left, sign, right = equation.replace(" ", "").partition("+=")
    operands = {name: re.findall(r"\w+", axes) for name, axes in OPERAND.findall(right)}
    output = OPERAND.fullmatch(left)
    if not sign or output is None or len(operands) != 2 or right.count("*") != 1:
        raise ImportFormatError(f"equation: must be O[…]+=W[…]*I[…], got {equation[:80]!r}")
    sizes = _sizes(operator)
    relations = _relations(operator.get("dimension_relations") or [])
    weight = "W" if "W" in operands else sorted(operands)[-1]
    other = next(name for name in operands if name != weight)
    axes = [_axes(part, relations) for part in (operands[weight], operands[other], re.findall(r"\w+", output[2]))]
    name = names.add(label)
    sources = operator.get("operand_source")
    source = sources.get(weight) if isinstance(sources, dict) else None
    if source is not None and source != operator.get("id") and not isinstance(source, list):
        return LeftOut(name, "product of two activations", prod(sizes.values()))
    kind, geometry, samples = layer(axes[0], axes[1], axes[2], sizes, lambda term: term.dimension.endswith("y"))
    return ImportedLayer(name, kind, _padded(geometry, operator, relations), samples=samples)


def _sizes(operator: Mapping[str, Any]) -> dict[str, int]:
    dims, sizes = operator.get("loop_dims"), operator.get("loop_sizes")
    if not isinstance(dims, list) or not isinstance(sizes, list) or len(dims) != len(sizes):
        raise ImportFormatError("loop_dims and loop_sizes: must be lists as long as each other")
    for name, size in zip(dims, sizes, strict=True):
        if type(size) is not int or size < 1:
            raise ImportFormatError(
                f"loop_sizes: {str(name)[:40]}: must be an integer of 1 or more, got {str(size)[:40]}"
            )
    return {str(name).lower(): size for name, size in zip(dims, sizes, strict=True)}


def _relations(texts: Any) -> dict[str, tuple[Term, ...]]:
    """``ix=2*ox+1*fx`` as ix: 2·ox + 1·fx."""
    found = {}
    for text in texts if isinstance(texts, list) else [texts]:
        match = RELATION.fullmatch(str(text).replace(" ", "").lower())
        terms = [TERM.fullmatch(part) for part in match[2].split("+")] if match else [None]
        if match is None or None in terms:
            raise ImportFormatError(f"dimension_relations: must be ix=S*ox+D*fx, got {str(text)[:60]!r}")
        found[match[1]] = tuple(Term(t[2], int(t[1] or 1), "step") for t in terms if t)
    return found


def _axes(names: list[str], relations: Mapping[str, tuple[Term, ...]]) -> Axes:
    return tuple(relations.get(name.lower(), (Term(name.lower()),)) for name in names)


def _padded(geometry: Geometry, operator: Mapping[str, Any], relations: Mapping[str, Any]) -> Geometry:
    """The map without the zeros around it, where the file says how many there are."""
    dims, zeros = operator.get("pr_loop_dims"), operator.get("padding")
    if not isinstance(dims, list) or not isinstance(zeros, list) or len(dims) != len(zeros):
        return geometry
    around = {}
    for dim, pair in zip(dims, zeros, strict=True):
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int and n >= 0 for n in pair):
            raise ImportFormatError(f"padding: must be two numbers for each of pr_loop_dims, got {str(pair)[:40]}")
        around[str(dim).lower()[-1:]] = pair
    (top, bottom), (left, right) = (tuple(around.get(axis, (0, 0))) for axis in "yx")
    height, width = geometry.height - top - bottom, geometry.width - left - right
    if height < 1 or width < 1:
        raise ImportFormatError(f"padding: must leave a map, leaves {height}×{width}")
    return replace(geometry, height=height, width=width, padding=(top, bottom, left, right))
