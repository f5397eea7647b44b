"""Values as bit-level machines see them: integers of a few bits, cut into slices, as bits or as powers of two.

Integers are taken as they are. Numbers become integers in fixed point, by the greatest magnitude of the whole tensor,
or bfloat16, whose significand is worked on bit by bit while the exponent only says where the product is added.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from accelsim.errors import MachineError

WORD = 16  # bits of a value, at most
SIGNIFICAND = 8  # bits of bfloat16's, the leading one included


def fixed_point(values: np.ndarray, whole: np.ndarray, bits: int, key: str) -> np.ndarray:
    """Integers of at most ``bits`` bits, sign included.

    Parameters
    ----------
    values : ndarray
        Integers, or booleans, stay. Of other numbers, the greatest magnitude of ``whole`` becomes 2^(bits−1) − 1 and
        the others in proportion; one that would round to 0 becomes ±1: what is effectual does not depend on the format.
    whole : ndarray
        The layer's tensor that they are from: what a lowered pass happens to read of it does not change the scale.
    bits : int
    key : str
        The machine's key that says how many bits there are, for errors.

    Raises
    ------
    MachineError
        If an integer needs more bits, or a number is none.
    """
    if values.dtype.kind in "biu":
        needed = bits_needed(values)
        if needed > bits:
            raise MachineError(f"accelerator.{key}: must hold the integers of the trace, {needed} bits, got {bits}")
        return values.astype(np.int32)
    greatest = float(np.abs(whole.astype(float)).max(initial=0))
    if not np.isfinite(greatest):
        raise MachineError(f"accelerator.{key}: the values must be finite to be quantised, got NaN or infinity")
    numbers = values.astype(float)
    scaled = np.abs(numbers) * (((1 << (bits - 1)) - 1) / (greatest or 1.0))
    magnitude = np.where(numbers != 0, np.maximum(np.rint(scaled), 1), 0)
    return np.asarray(np.copysign(magnitude, numbers).astype(np.int32))


def significands(values: np.ndarray, key: str) -> np.ndarray:
    """Of bfloat16, rounded to even: 128…255 with the number's sign; 0 for 0.

    Raises
    ------
    MachineError
        If a number is none.
    """
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise MachineError(f"accelerator.{key}: the values must be finite to be bfloat16, got NaN or infinity")
    fraction, _ = np.frexp(numbers)
    rounded = np.rint(np.abs(fraction) * (1 << SIGNIFICAND))
    rounded = np.where(rounded == 1 << SIGNIFICAND, 1 << (SIGNIFICAND - 1), rounded)
    return np.copysign(rounded, numbers).astype(np.int32)


def is_signed(integers: np.ndarray) -> bool:
    """Whether any is negative."""
    return bool((integers < 0).any())


def bits_needed(integers: np.ndarray) -> int:
    """Bits of the widest of them: at least one of magnitude, as ``lengths`` finds, and a sign where any is negative."""
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    return max(1, high.bit_length(), (-low - 1).bit_length()) + 1 if low < 0 else max(1, high.bit_length())


def sliced(words: np.ndarray, width: int, slices: int) -> np.ndarray:
    """The ``width`` bits of each of so many slices, the lowest first: (n, …) → (n, slices, …), uint32.

    Negative words are taken in two's complement.
    """
    mask = (1 << width) - 1
    if slices == 1:
        return (words & mask).astype(np.uint32)[:, None]
    return np.stack([(words >> (width * i)) & mask for i in range(slices)], axis=1).astype(np.uint32)


def lengths(words: np.ndarray) -> np.ndarray:
    """Position of the highest bit set, and 1; 1 for 0."""
    return np.maximum(np.frexp(words.astype(np.float64))[1], 1).astype(np.int64)


def zeros_below(words: np.ndarray) -> np.ndarray:
    """Trailing zeros of each word that is not 0; 0 for 0."""
    words = words.astype(np.int64)
    return np.asarray(np.where(words != 0, np.frexp((words & -words).astype(np.float64))[1] - 1, 0)).astype(np.int64)


def powers(words: np.ndarray, recoded: bool) -> np.ndarray:
    """Which powers of two make up each word below 2^16, as a word with bit k for ±2^k.

    ``recoded``: with subtraction, as DNNsim's Booth encoding has it, which is not always the shortest.
    """
    if not recoded:
        return words.astype(np.uint32)
    plus, minus = recoding()
    return np.asarray((plus | minus)[words])


def counts(words: np.ndarray, recoded: bool) -> np.ndarray:
    """How many powers of two each word has, uint8."""
    return np.asarray(_recoded_counts()[words] if recoded else np.bitwise_count(words))


@cache
def _recoded_counts() -> np.ndarray:
    plus, minus = recoding()
    return np.asarray(np.bitwise_count(plus | minus))


@cache
def recoding() -> tuple[np.ndarray, np.ndarray]:
    """Powers of two added, and subtracted, for each word below 2^16, uint32: the word is their difference.

    From the highest bit down. Three ones in a row begin a run: the power above is added, and the zeros of the run are
    subtracted; a one followed by two zeros ends it, and is subtracted.
    """
    words = np.arange(1 << WORD, dtype=np.int64)
    plus, minus = np.zeros((2, words.size), np.int64)
    inside = np.zeros(words.size, bool)
    for k in reversed(range(WORD)):
        bit = (words >> k) & 1 == 1
        below = (words << 2 >> k) & 3
        begins, ends = ~inside & bit & (below == 3), inside & bit & (below == 0)
        plus |= np.where(begins, 2 << k, np.where(~inside & bit, 1 << k, 0))
        minus |= np.where((inside & ~bit) | ends, 1 << k, 0)
        inside = (inside | begins) & ~ends
    return plus.astype(np.uint32), minus.astype(np.uint32)
