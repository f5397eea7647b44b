"""A layer of which a trace holds a part of the places: some tokens, or a band of the map, standing for all of them.

A part is a smaller layer. Tokens, the rows of a product, do not touch one another: a choice of them is a shorter map.
Of a convolution a band is kept: some rows of its output (or places, of one axis) and the inputs that they need, which
the forward pass and the weight gradient read. The input gradient is computed where the band's gradients are all that
reach it; that is a narrower band of the input. What a pass counts is scaled by the share of the places that it has.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from fractions import Fraction

from accelsim.errors import TraceError
from accelsim.workload.geometry import Geometry


@dataclass(frozen=True)
class Part:
    """Which places of a layer are stored; how many is what the layer's geometry says.

    Parameters
    ----------
    axis : int
        Of the map, along which they were chosen: 0, its height, or 1, its width.
    input, output : int
        Places of the whole input and output along that axis.
    first : int or None
        Where the band of the output begins; None for places chosen one by one, of a 1×1 convolution without padding.
    """

    axis: int
    input: int
    output: int
    first: int | None

    def check(self, geometry: Geometry) -> None:
        """TraceError if it is no part of which the geometry could be."""
        stored = geometry.output[self.axis]
        plain = Geometry(
            geometry.channels, geometry.height, geometry.width, geometry.filters, (1, 1), groups=geometry.groups
        )
        if self.first is None and (geometry != plain or self.input != self.output):
            raise TraceError("part: must be a band, with first, where the layer is no plain 1×1 convolution")
        if not stored + (self.first or 0) <= self.output or stored == self.output:
            raise TraceError(f"part: must be fewer places than all {self.output}, got {stored} from {self.first or 0}")
        if self.first is not None and stored < least_band(geometry, self.axis):
            least = least_band(geometry, self.axis)
            raise TraceError(f"part: must be a band of {least} places at least, which reach an input, got {stored}")
        sizes = [_sizes(g)[self.axis] for g in (geometry, self.reached(geometry))]
        if self.first is not None and not 1 <= min(sizes) <= max(sizes) <= self.input:
            raise TraceError(f"part: must be 1…{self.input} inputs, got {sizes[0]}, of which it reaches {sizes[1]}")

    def as_dict(self) -> dict[str, int | None]:
        """For a file."""
        return asdict(self)

    def reached(self, geometry: Geometry) -> Geometry:
        """The inputs that no other place reaches than those of the band, as a convolution that gives the band."""
        axis, stride = self.axis, geometry.stride[self.axis]
        sides = geometry.padding[2 * axis], geometry.padding[2 * axis + 1]
        cut = bool(self.first), (self.first or 0) + geometry.output[axis] < self.output
        beyond = max(0, geometry.kernel_extent[axis] - stride)  # of the kernel, over the band's edge
        before, after = (beyond if is_cut else side for is_cut, side in zip(cut, sides, strict=True))
        whole = geometry.output[axis] * stride + beyond if cut[1] else _sizes(geometry)[axis] + sum(sides)
        return _along(geometry, axis, whole - before - after, (before, after))

    def ends(self, geometry: Geometry) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Channels and places of the whole input and output."""
        input, output = [*_sizes(geometry)], [*geometry.output]
        input[self.axis], output[self.axis] = self.input, self.output
        return (geometry.channels, input[0], input[1]), (geometry.filters, output[0], output[1])

    def share(self, geometry: Geometry, which: str) -> Fraction:
        """Of the places of a pass: those of the output, or of the input for its gradient."""
        if which == "input_grad" and self.first is not None:
            return Fraction(_sizes(self.reached(geometry))[self.axis], self.input)
        return Fraction(geometry.output[self.axis], self.output)


def band(geometry: Geometry, axis: int, first: int, count: int) -> tuple[Geometry, slice]:
    """``count`` places of the output from ``first`` on, as a convolution; and the inputs that it reads."""
    size = _sizes(geometry)[axis]
    begin = first * geometry.stride[axis] - geometry.padding[2 * axis]
    end = begin + (count - 1) * geometry.stride[axis] + geometry.kernel_extent[axis]
    padding = max(0, -begin), max(0, end - size)
    begin, end = max(0, begin), min(size, end)
    return _along(geometry, axis, end - begin, padding), slice(begin, end)


def least_band(geometry: Geometry, axis: int) -> int:
    """So many places of the output reach an input that no other place reaches."""
    return -(-geometry.kernel_extent[axis] // geometry.stride[axis])


def _sizes(geometry: Geometry) -> tuple[int, int]:
    return geometry.height, geometry.width


def _along(geometry: Geometry, axis: int, size: int, sides: tuple[int, int]) -> Geometry:
    """With another size and padding along an axis."""
    padding = geometry.padding
    if axis == 0:
        return replace(geometry, height=size, padding=(*sides, *padding[2:]))
    return replace(geometry, width=size, padding=(*padding[:2], *sides))
