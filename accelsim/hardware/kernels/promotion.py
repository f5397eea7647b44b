"""Bit-Tactical's static front-end: the lines of weights that are executed once later ones have filled empty lanes.

A line is one machine word, bit l for lane l; every step of the fill is arithmetic on whole words. Delmas Lascorz et
al., ASPLOS 2019, sections 3 and 5.
"""

import numpy as np

from accelsim.hardware.kernels.jit import Int64s, Words, kernel

_ONE = np.uint64(1)


@kernel
def executed_lines(
    words: Words, rows: int, lanes: int, dropped: int, ahead: Int64s, aside: Int64s, source: Int64s
) -> Int64s:
    """Lines that each set of filters executes.

    Parameters
    ----------
    words : uint64[blocks, filters, lines]
        Bit l of a word: the weight of lane l is non-zero. A set is ``rows`` consecutive filters of one block.
    rows, lanes, dropped : int
        Filters in a set, lanes in a line (at most 64), the most empty lines dropped in succession.
    ahead, aside : int64[candidates]
        The search map, sorted: an empty lane l at line t may take the weight at (t + ahead, (l + aside) mod lanes).
    source : int64[blocks, filters, lines, lanes]
        Filled with the place, line·lanes + lane, of the weight executed in each slot, −1 where the slot stays empty;
        −2 in all of a dropped line. Of size 0: nothing is recorded.

    Returns
    -------
    int64[blocks · sets]
    """
    blocks, filters, lines = words.shape
    sets = (filters + rows - 1) // rows
    executed = np.zeros(blocks * sets, np.int64)
    # Lines past the end are empty: the window may look there freely.
    window = np.zeros((rows, lines + (ahead.max() if ahead.size else 0)), np.uint64)
    candidates = np.zeros(ahead.size, np.uint64)
    planes = np.zeros(1, np.uint64)  # of the bit-sliced counters: as many as the number of candidates has bits
    while ahead.size >> planes.size:
        planes = np.zeros(planes.size + 1, np.uint64)
    nothing = np.empty(0, np.int64)
    full = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - lanes)
    for block in range(blocks):
        for s in range(sets):
            first = s * rows
            used = min(rows, filters - first)
            for row in range(used):
                for t in range(lines):  # to assign a row takes seconds to compile
                    window[row, t] = words[block, first + row, t]
                window[row, lines:] = 0
            passed = 0
            for t in range(lines):
                if passed < dropped and _is_empty(window, used, t):
                    passed += 1
                    if source.size:
                        source[block, first : first + used, t] = -2
                    continue
                passed = 0
                executed[block * sets + s] += 1
                for row in range(used):
                    recorded = nothing
                    if source.size:
                        recorded = source[block, first + row, t]
                        _record_own(window[row, t], t, lanes, recorded)
                    _fill(window[row], t, lanes, full, ahead, aside, candidates, planes, recorded)
    return executed


@kernel
def _is_empty(window: Words, rows: int, t: int) -> bool:
    for row in range(rows):  # noqa: SIM110 (Numba knows no generators)
        if window[row, t]:
            return False
    return True


@kernel
def _record_own(word: np.uint64, t: int, lanes: int, recorded: Int64s) -> None:
    for lane in range(lanes):
        recorded[lane] = t * lanes + lane if (word >> np.uint64(lane)) & _ONE else -1


@kernel
def _fill(
    row: Words,
    t: int,
    lanes: int,
    full: np.uint64,
    ahead: Int64s,
    aside: Int64s,
    candidates: Words,
    planes: Words,
    recorded: Int64s,
) -> None:
    """Promotes weights into the empty lanes of line t: the lane with most candidates first, its first candidate."""
    empty, last_lane = full & ~row[t], np.uint64(lanes - 1)
    while empty:
        reachable = np.uint64(0)
        planes[:] = 0
        for j in range(ahead.size):
            word, turn = row[t + ahead[j]], np.uint64(aside[j])
            # A turn of the lanes; shifted in two steps, for a shift by all 64 bits is none.
            found = ((word >> turn) | ((word << _ONE) << (last_lane - turn))) & empty
            candidates[j] = found
            reachable |= found
            # Adds one to the bit-sliced counters of the lanes that have this candidate.
            for plane in range(planes.size):
                carry = planes[plane] & found
                planes[plane] ^= found
                found = carry
        if not reachable:
            return
        most = reachable
        for plane in range(planes.size - 1, -1, -1):
            if most & planes[plane]:
                most &= planes[plane]
        lane_bit = most & (~most + _ONE)
        for j in range(ahead.size):
            if candidates[j] & lane_bit:
                turn = np.uint64(aside[j])
                taken = ((lane_bit << turn) | ((lane_bit >> _ONE) >> (last_lane - turn))) & full
                row[t + ahead[j]] &= ~taken
                if recorded.size:
                    recorded[_index(lane_bit)] = (t + ahead[j]) * lanes + _index(taken)
                break
        empty &= ~lane_bit


@kernel
def _index(bit: np.uint64) -> int:
    """Position of the only bit set."""
    index = 0
    while bit > _ONE:
        bit >>= _ONE
        index += 1
    return index
