"""A product of tensors by what indexes their axes, whatever the dimensions are called: as a layer.

=======================  =====================================
a dimension that is in   is
=======================  =====================================
weight, input            channels
weight, output           filters
input, output            samples, or tokens of a linear layer
all three                groups
=======================  =====================================

An axis of the input that is a sum of one dimension of the weight and one of the output is an axis of the map: the first
slides taps, whose step is the dilation, the second places, whose step is the stride.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import kind_of, product

BATCH = ("b", "batch")


@dataclass(frozen=True)
class Term:
    """A dimension in an axis, the step from one index to the next, and what the file calls the step."""

    dimension: str
    step: int = 1
    name: str = ""


Axes = tuple[tuple[Term, ...], ...]


@dataclass(frozen=True)
class _Side:
    """One axis of the map."""

    taps: int
    places: int
    dilation: int
    stride: int
    is_height: bool

    @property
    def size(self) -> int:
        return (self.places - 1) * self.stride + (self.taps - 1) * self.dilation + 1


def layer(
    weight: Axes, input: Axes, output: Axes, sizes: Mapping[str, int], is_height: Callable[[Term], bool]
) -> tuple[str, Geometry, int]:
    """Kind, shape and samples of a product; the input is as large as what the windows cover, without padding.

    Parameters
    ----------
    weight, input, output : tuple of tuple of Term
    sizes : mapping of str to int
        Of the dimensions.
    is_height : callable
        Whether a term of the output in an axis of the input goes along the map's height; where none does, or both do,
        the first axis is the width.

    Raises
    ------
    ImportFormatError
        If it is neither a convolution nor a matrix product.
    """
    of = {"weight": _dimensions(weight), "input": _dimensions(input), "output": _dimensions(output)}
    sides = [side for axis in input if (side := _side(axis, of, sizes, is_height))]
    inside = {term.dimension for axis in input if _is_side(axis, of) for term in axis}
    roles: dict[str, list[str]] = {"groups": [], "channels": [], "filters": [], "rows": []}
    for dimension in sorted(of["weight"] | of["input"] | of["output"]):
        if dimension not in sizes:
            raise ImportFormatError(f"{dimension[:40]}: must have a size, has none")
        if dimension not in inside:
            roles[_role(dimension, of, sizes)].append(dimension)
    counts = {role: prod(sizes[name] for name in names) for role, names in roles.items()}
    channels, filters = (counts[role] * counts["groups"] for role in ("channels", "filters"))
    if not sides:
        batch = [name for name in roles["rows"] if _is_batch(name, sizes)]
        samples = prod(sizes[name] for name in batch) if counts["groups"] == 1 else 1
        if counts["groups"] > 1:
            geometry = Geometry(channels, counts["rows"], 1, filters, (1, 1), groups=counts["groups"])
            return "conv", geometry, 1
        return "linear", product(counts["rows"] // samples, channels, filters), samples
    if len(sides) > 2:
        raise ImportFormatError(f"must have at most 2 axes of a map, has {len(sides)}")
    height, width = _ordered(sides)
    geometry = Geometry(
        channels, height.size, width.size, filters, (height.taps, width.taps), (height.stride, width.stride),
        dilation=(height.dilation, width.dilation), groups=counts["groups"],
    )  # fmt: skip
    return kind_of(geometry), geometry, counts["rows"]


def _dimensions(axes: Axes) -> set[str]:
    return {term.dimension for axis in axes for term in axis}


def _role(dimension: str, of: Mapping[str, set[str]], sizes: Mapping[str, int]) -> str:
    places = tuple(name for name, dimensions in of.items() if dimension in dimensions)
    known = {
        ("weight", "input", "output"): "groups",
        ("weight", "input"): "channels",
        ("weight", "output"): "filters",
        ("input", "output"): "rows",
    }
    if places in known:
        return known[places]
    if sizes[dimension] == 1:
        return "rows"
    raise ImportFormatError(f"{dimension[:40]}: must index two tensors or more, is in {places[0]} alone")


def _is_side(axis: tuple[Term, ...], of: Mapping[str, set[str]]) -> bool:
    return len(axis) > 1 or (axis[0].name != "" and axis[0].dimension in of["output"] - of["weight"])


def _side(
    axis: tuple[Term, ...], of: Mapping[str, set[str]], sizes: Mapping[str, int], is_height: Callable[[Term], bool]
) -> _Side | None:
    if not _is_side(axis, of):
        return None
    taps = [term for term in axis if term.dimension in of["weight"] - of["output"]]
    places = [term for term in axis if term.dimension in of["output"] - of["weight"]]
    if len(taps) + len(places) != len(axis) or len(taps) > 1 or len(places) != 1:
        names = " + ".join(term.dimension for term in axis)[:60]
        raise ImportFormatError(f"axis {names}: must be one dimension of the output and one of the weight")
    tap, place = taps[0] if taps else Term(""), places[0]
    count = sizes.get(tap.dimension, 1) if taps else 1
    if place.step < 1 or tap.step < 1:
        raise ImportFormatError(f"axis of {place.dimension[:40]}: strides and dilations must be 1 or more")
    return _Side(count, sizes.get(place.dimension, 1), tap.step, place.step, is_height(place))


def _ordered(sides: list[_Side]) -> tuple[_Side, _Side]:
    """Height and width; a map of one axis has one column."""
    if len(sides) == 1:
        return sides[0], _Side(1, 1, 1, 1, False)
    first, second = sides
    return (first, second) if first.is_height and not second.is_height else (second, first)


def _is_batch(name: str, sizes: Mapping[str, int]) -> bool:
    """N is the batch beside channels C, and columns beside M and K."""
    return name.lower() in BATCH or (name.lower() == "n" and "c" in {other.lower() for other in sizes})
