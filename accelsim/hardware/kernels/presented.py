"""Bit-Tactical's bit-serial back-ends: what the slots of a scheduled line present, and how long that takes."""

import numpy as np

from accelsim.hardware.kernels.bit_level import Words32
from accelsim.hardware.kernels.jit import Int32s, Int64s, kernel

_STRIP = 256  # columns at a time: what their lanes present stays in the first-level cache


@kernel
def presented_widths(
    presented: Int64s, executed: Int64s, tiles: int, high: Words32, low: Words32, sign_bits: int, skips_low: bool
) -> Int64s:
    """Cycles of the dearest tile in each step: the bits that the widest of the presented values has.

    Parameters
    ----------
    presented : int64[sets, filters, lines, lanes]
        The place, line·lanes + lane, whose value each slot presents; −1: none.
    executed : int64[sets]
        Lines that each set executes.
    tiles : int
        Sets of a round.
    high, low : uint32[places, groups]
        Bits that any column of a group has at a place, of negative values inverted; and as they stand.
    sign_bits : int
    skips_low : bool
        Whether zero bits below the lowest that is set are skipped.

    Returns
    -------
    int64[rounds, lines, groups]
        1 where nothing is presented, 0 where no tile has such a line.
    """
    sets, filters, lines, lanes = presented.shape
    groups = high.shape[1]
    cycles = np.zeros(((sets + tiles - 1) // tiles, lines, groups), np.int64)
    seen = np.full(high.shape[0], -1, np.int64)  # the last step that read a place
    top, bottom = np.empty(groups, np.uint32), np.empty(groups, np.uint32)
    for s in range(sets):
        for t in range(executed[s]):
            top[:], bottom[:] = 0, 0
            is_any = False
            for row in range(filters):
                for lane in range(lanes):
                    place = presented[s, row, t, lane]
                    if place >= 0 and seen[place] != s * lines + t:
                        seen[place] = s * lines + t
                        is_any = True
                        for g in range(groups):
                            top[g] |= high[place, g]
                            bottom[g] |= low[place, g]
            for g in range(groups):
                own = 1
                if is_any:
                    own = sign_bits + max(1, _length(top[g]))
                    if skips_low and bottom[g]:
                        own -= _length(bottom[g] & (~bottom[g] + np.uint32(1))) - 1
                cycles[s // tiles, t, g] = max(cycles[s // tiles, t, g], own)
    return cycles


@kernel
def _length(word: int) -> int:
    length = 0
    while word:
        word >>= 1
        length += 1
    return length


@kernel
def presented_terms(presented: Int64s, executed: Int64s, tiles: int, words: Words32, reach: int) -> Int64s:
    """Cycles of the dearest tile in each step: each filter drops the powers of two that its lanes present.

    ``words`` : uint32[places, columns], bit k for ±2^k; ``reach`` as in ``drop``; else as ``presented_widths``.
    Returns int64[rounds, lines, columns].
    """
    sets, filters, lines, lanes = presented.shape
    columns = words.shape[1]
    cycles = np.zeros(((sets + tiles - 1) // tiles, lines, columns), np.int64)
    for first in range(0, columns, _STRIP):
        strip = words[:, first : first + _STRIP]
        left = np.empty((lanes, strip.shape[1]), np.uint32)
        lowest, taken = np.empty(strip.shape[1], np.uint32), np.empty(strip.shape[1], np.int32)
        for s in range(sets):
            for t in range(executed[s]):
                own = cycles[s // tiles, t, first : first + _STRIP]
                own[:] = np.maximum(own, 1)
                for row in range(filters):
                    used = 0
                    for lane in range(lanes):
                        place = presented[s, row, t, lane]
                        if place >= 0:
                            left[used] = strip[place]
                            used += 1
                    _drop_together(left[:used], reach, lowest, taken)
                    for c in range(taken.size):
                        own[c] = max(own[c], taken[c])
    return cycles


@kernel
def _drop_together(left: Words32, reach: int, lowest: Words32, taken: Int32s) -> None:
    """``drop`` of many columns at once, (lanes, columns), into ``taken``; ``lowest`` is room to work in.

    The loops over columns become vector instructions, which needs contiguous arrays.
    """
    lanes, columns = left.shape
    taken[:] = 0
    while True:
        lowest[:] = 0
        for lane in range(lanes):
            for c in range(columns):
                lowest[c] |= left[lane, c]
        is_any = False
        for c in range(columns):
            taken[c] += lowest[c] != 0
            is_any |= lowest[c] != 0
            lowest[c] &= -lowest[c]
        if not is_any:
            return
        for lane in range(lanes):
            for c in range(columns):
                own = left[lane, c] & -left[lane, c]
                # Both are powers of two: own < lowest · 2^reach, without a product that 32 bits would not hold.
                if (own >> np.uint32(reach)) < lowest[c]:
                    left[lane, c] ^= own


@kernel
def presented_counts(presented: Int64s, executed: Int64s, tiles: int, counts: Int64s) -> Int64s:
    """The same where every lane reaches all its powers of two: the most that a presented value has.

    ``counts`` : int64[places, columns].
    """
    sets, filters, lines, lanes = presented.shape
    columns = counts.shape[1]
    cycles = np.zeros(((sets + tiles - 1) // tiles, lines, columns), np.int64)
    seen = np.full(counts.shape[0], -1, np.int64)
    for s in range(sets):
        for t in range(executed[s]):
            own = cycles[s // tiles, t]
            for c in range(columns):
                own[c] = max(own[c], 1)
            for row in range(filters):
                for lane in range(lanes):
                    place = presented[s, row, t, lane]
                    if place >= 0 and seen[place] != s * lines + t:
                        seen[place] = s * lines + t
                        for c in range(columns):
                            own[c] = max(own[c], counts[place, c])
    return cycles
