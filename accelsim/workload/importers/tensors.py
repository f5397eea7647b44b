"""Tensors that a file of weights holds: their shapes at once, their numbers when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import LARGEST_TENSOR

# How a file's words for a type are read; bfloat16 is the upper half of a float32, and 8-bit floats have a table each.
DTYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8",
    "U64": "<u8", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8", "F8_E4M3": "|u1", "F8_E5M2": "|u1",
    "F8_E4M3FNUZ": "|u1", "F8_E5M2FNUZ": "|u1",
}  # fmt: skip
MOST_AXES = 10


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Parameters
    ----------
    shape : tuple of int
    read : callable
        Gives its numbers anew each time; quantised ones without their scale, which makes nothing zero.
    parts : tuple of str
        Names of the file's tensors that it was made of; none where it is one itself.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    parts: tuple[str, ...] = ()


def check_size(shape: tuple[int, ...]) -> None:
    """ImportFormatError if it is no shape, or of more numbers than are read as a whole."""
    if len(shape) > MOST_AXES or not all(type(n) is int and n >= 0 for n in shape) or prod(shape) > LARGEST_TENSOR:
        rule = f"must have a shape of at most {LARGEST_TENSOR} elements"
        raise ImportFormatError(f"{rule}, got {str(shape)[:60]}")


def decoded(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers of what is stored with one of DTYPES."""
    if dtype == "BF16":
        return np.asarray((raw.astype(np.uint32) << 16).view(np.float32))
    if dtype.startswith("F8"):
        return np.asarray(_float8(dtype)[raw])
    return np.asarray(raw)


@cache
def _float8(dtype: str) -> np.ndarray:
    """The 256 numbers of an 8-bit float, as the OCP specification (E4M3, E5M2) and its FNUZ variants have them."""
    exponent_bits, bias = (4, 7) if "E4M3" in dtype else (5, 15)
    fraction_bits = 7 - exponent_bits
    bits = np.arange(256)
    exponent = bits >> fraction_bits & (1 << exponent_bits) - 1
    fraction = (bits & (1 << fraction_bits) - 1) / (1 << fraction_bits)
    bias += dtype.endswith("FNUZ")
    size = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    found = np.where(bits < 128, size, -size).astype(np.float32)
    if dtype.endswith("FNUZ"):
        found[128] = np.nan
    elif "E4M3" in dtype:
        found[[127, 255]] = np.nan
    else:
        found[exponent == 31] = np.nan
        found[[0x7C, 0xFC]] = np.inf, -np.inf
    return found
