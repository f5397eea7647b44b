"""Bit-packed masks: eight positions a byte, the first in the highest bit, C order, the last byte filled with zeros."""

from __future__ import annotations

from math import prod

import numpy as np

from accelsim.errors import TraceError


def packed_size(count: int) -> int:
    """Bytes that `count` positions take."""
    return (count + 7) // 8


def pack(mask: np.ndarray) -> np.ndarray:
    """Pack a mask.

    Parameters
    ----------
    mask : ndarray of bool, any shape

    Returns
    -------
    ndarray of uint8, shape (⌈mask.size / 8⌉,)
    """
    return np.packbits(np.asarray(mask, dtype=bool).ravel())


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo :func:`pack`.

    Parameters
    ----------
    packed : ndarray of uint8, shape (⌈prod(shape) / 8⌉,)
    shape : tuple of int

    Returns
    -------
    ndarray of bool, shape `shape`

    Raises
    ------
    TraceError
        If `packed` has another size or dtype, or the filling of its last byte is not zero: two files of one mask would
        differ, and a mask of another shape would pass for this one.
    """
    count = prod(shape)
    if packed.dtype != np.uint8 or packed.shape != (packed_size(count),):
        raise TraceError(
            f"must be a {tuple(shape)} mask of {packed_size(count)} bytes, got {packed.dtype} {packed.shape}"
        )
    if count % 8 and packed[-1] & (0xFF >> count % 8):
        raise TraceError(f"the last {8 - count % 8} bits must be zero, got byte 0x{packed[-1]:02x}")
    return np.unpackbits(packed, count=count).view(bool).reshape(shape)
