"""How many bits or terms of a value a bit-serial multiplier works through: TCLp's and TCLe's view of activations."""

from __future__ import annotations

import numpy as np

from accelsim.errors import MachineError


def fixed_point(values: np.ndarray, bits: int) -> np.ndarray:
    """Magnitudes in fixed point, int64: the greatest of the tensor becomes 2^(bits−1) − 1, the others in proportion.

    A non-zero value that would round to 0 becomes 1: what is effectual does not depend on the format.
    """
    magnitude = np.abs(values.astype(float))
    greatest = magnitude.max(initial=0)
    if not np.isfinite(greatest):
        raise MachineError("accelerator.value_bits: the values must be finite to be quantised, got NaN or infinity")
    scale = ((1 << (bits - 1)) - 1) / (greatest or 1.0)
    return np.asarray(np.where(magnitude > 0, np.maximum(np.rint(magnitude * scale), 1), 0)).astype(np.int64)


def precision(values: np.ndarray, bits: int) -> np.ndarray:
    """Bits from the highest that is set to the lowest of the format, and one more for a negative sign; 0 for 0."""
    return np.asarray(np.frexp(fixed_point(values, bits))[1] + (values < 0)).astype(np.uint8)


def terms(values: np.ndarray, bits: int, booth: bool) -> np.ndarray:
    """Powers of two that add up to the value: the bits set, or, with subtraction allowed, as few as possible.

    The digits of the shortest signed form of x are those in which x and 3x differ.
    """
    magnitude = fixed_point(values, bits)
    return np.asarray(np.bitwise_count(magnitude ^ 3 * magnitude if booth else magnitude)).astype(np.uint8)
