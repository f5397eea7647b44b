"""Shape arithmetic of a convolution.

Letters as in docs/model.md: N batch, C input channels, H×W input, K filters, R×S kernel, P×Q output. A linear layer is
a 1×1 convolution on a 1×1 map.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property

from accelsim.errors import GeometryError

# No real layer comes near; a size beyond it is a corrupt file, not a workload.
LARGEST_SIZE = 1 << 24


@dataclass(frozen=True)
class Geometry:
    """The shape of one layer, batch aside. Pairs are (height, width).

    Parameters
    ----------
    channels, filters : int
        C and K.
    height, width : int
        H and W of the input, before padding.
    kernel : (int, int)
        (R, S).
    stride, dilation : (int, int)
    padding : (int, int, int, int)
        Rows and columns of zeros (top, bottom, left, right).
    groups : int
        Divides C and K; filter k meets the C/groups channels of its own group only.

    Raises
    ------
    GeometryError
        If a size is no positive integer (padding: no non-negative one), groups does not divide C and K, or the padded
        input is smaller than the dilated kernel.
    """

    channels: int
    height: int
    width: int
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            count = {"kernel": 2, "stride": 2, "dilation": 2, "padding": 4}.get(field.name)
            least = 0 if field.name == "padding" else 1
            values = (value,) if count is None else value
            if count is not None and (not isinstance(value, tuple) or len(value) != count):
                raise GeometryError(f"{field.name}: must be {count} integers, got {value!r}")
            for v in values:
                if type(v) is not int or not least <= v <= LARGEST_SIZE:
                    raise GeometryError(f"{field.name}: must be an integer in {least}…{LARGEST_SIZE}, got {v!r}")
        if self.channels % self.groups or self.filters % self.groups:
            raise GeometryError(
                f"groups: must divide channels {self.channels} and filters {self.filters}, got {self.groups}"
            )
        for axis in (0, 1):
            if self.padded[axis] < self.kernel_extent[axis]:
                raise GeometryError(
                    f"kernel: the dilated kernel {self.kernel_extent} must fit the padded input {self.padded}"
                )

    @cached_property
    def kernel_extent(self) -> tuple[int, int]:
        """Rows and columns that the dilated kernel spans: (R−1)·dilation + 1, likewise S."""
        rows, columns = ((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        return rows, columns

    @cached_property
    def padded(self) -> tuple[int, int]:
        """(H', W'): the input with its padding."""
        top, bottom, left, right = self.padding
        return self.height + top + bottom, self.width + left + right

    @cached_property
    def output(self) -> tuple[int, int]:
        """(P, Q)."""
        rows, columns = (
            (size - extent) // stride + 1
            for size, extent, stride in zip(self.padded, self.kernel_extent, self.stride, strict=True)
        )
        return rows, columns

    def activation_shape(self, samples: int) -> tuple[int, int, int, int]:
        """N C H W."""
        return samples, self.channels, self.height, self.width

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """K C/groups R S."""
        return self.filters, self.channels // self.groups, *self.kernel

    def gradient_shape(self, samples: int) -> tuple[int, int, int, int]:
        """N K P Q: the shape of the output and of its gradient."""
        return samples, self.filters, *self.output

    @property
    def multiplications(self) -> int:
        """Multiplications of one sample with nothing skipped, padding zeros included: K·(C/groups)·R·S·P·Q."""
        k, c, r, s = self.weight_shape
        return k * c * r * s * self.output[0] * self.output[1]

    def as_dict(self) -> dict[str, int | list[int]]:
        """Plain lists and integers, for a file."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
