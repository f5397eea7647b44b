"""TensorDash's dynamic front-end: the lines that a tile executes, scheduled as they stream through its window.

All PEs of a tile share one clock and, line by line and lane by lane, do the same steps in the same order. So a machine
word here is one lane of one line with a bit for each PE: a step of the schedule takes a few operations for up to 64
PEs. Tiles look at the same lines one after another, whichever they drop, so those of a set go through them together:
the innermost loops run along the words of many tiles, and the compiler takes several at a time. Mahmoud et al., MICRO
2020, section 3.
"""

import numpy as np

from accelsim.hardware.kernels.jit import Int64s, Words, kernel

_NONE, _ONE, _ALL = np.uint64(0), np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)
AT_ONCE = 256  # words of tiles that go together: the lines in sight stay in the first cache


@kernel
def executed_lines(
    rows: Words, columns: Words, ahead: Int64s, aside: Int64s, order: Int64s, dropped: int, free_start: bool,
    source: Int64s,
) -> Int64s:  # fmt: skip
    """Lines that each set of rows executes with each group of columns.

    Parameters
    ----------
    rows : uint8…64[sets, row_words, lines, lanes]
        Bit b of a word: the PE b of the word has a non-zero value on this lane of its row's line.
    columns : uint8…64[groups, column_words, lines, lanes]
        The same for its column's line. A tile has row_words · column_words words of PEs: PE b of the pair (i, j) finds
        its operands in bit b of row word i and column word j.
    ahead, aside : int64[candidates]
        The search map, sorted: an empty lane l at line t may take the pair at (t + ahead, (l + aside) mod lanes).
    order : int64[lanes]
        The order in which lanes take.
    dropped : int
        The most empty lines dropped in succession.
    free_start : bool
        Whether empty lines are dropped before the first that is executed.
    source : int64[words, bits, lines, lanes]
        For one set and one group: filled with the place, line·lanes + lane, of the pair that each slot of each PE
        executes, −1 where the slot stays empty; −2 in all of a skipped line. Of size 0: nothing is recorded.

    Returns
    -------
    int64[groups, sets]
    """
    sets, row_words, lines, lanes = rows.shape
    groups, column_words = columns.shape[:2]
    lookahead = 0
    for j in range(ahead.size):
        lookahead = max(lookahead, ahead[j])
    executed = np.zeros((groups, sets), np.int64)
    tiles = min(groups * sets, max(1, AT_ONCE // (row_words * column_words)))
    words = row_words * tiles * column_words  # in this order
    # The lines in sight, line t in slot t mod (lookahead + 1).
    window = np.empty((lookahead + 1, lanes, words), rows.dtype)
    acting, wanting = np.empty(words, rows.dtype), np.empty(words, rows.dtype)
    slots, skipped = np.empty(ahead.size, np.int64), np.empty(tiles, np.int64)
    for first in range(0, groups * sets, tiles):
        some = min(tiles, groups * sets - first)
        skipped[:] = 0 if free_start else dropped
        for t in range(-lookahead, lines):
            _enter(window, rows, columns, first, some, t + lookahead)
            if t >= 0:
                slot = t % (lookahead + 1)
                _act(window, slot, some, column_words, dropped, skipped, acting)
                for tile in range(some):
                    executed[(first + tile) % groups, (first + tile) // groups] += acting[tile * column_words] != _NONE
                for j in range(ahead.size):
                    slots[j] = (t + ahead[j]) % (lookahead + 1)
                if source.size:
                    _record_own(window, slot, acting[0], t, source)
                _fill(window, slot, slots, t, ahead, aside, order, acting, wanting, source)
    return executed


@kernel
def _enter(window: Words, rows: Words, columns: Words, first: int, some: int, t: int) -> None:
    """Line t comes into sight, of a set's tiles one group after another; past the end lines are empty."""
    slot, row_words, (groups, column_words) = t % window.shape[0], rows.shape[1], columns.shape[:2]
    across = window.shape[2] // row_words
    for i in range(row_words):
        for tile in range(some):
            s, g = (first + tile) // groups, (first + tile) % groups
            for j in range(column_words):
                word = i * across + tile * column_words + j
                for lane in range(window.shape[1]):
                    both = _NONE
                    if t < rows.shape[2]:
                        both = rows[s, i, t, lane] & columns[g, j, t, lane]
                    window[slot, lane, word] = both


@kernel
def _act(window: Words, slot: int, some: int, column_words: int, dropped: int, skipped: Int64s, acting: Words) -> None:
    """Which tiles execute the line: all ones in their words, else 0. Others drop it, since it is empty."""
    acting[:] = _NONE
    for lane in range(window.shape[1]):
        for word in range(window.shape[2]):
            acting[word] |= window[slot, lane, word]
    across = skipped.size * column_words
    for tile in range(some):
        filled = _NONE
        for j in range(tile * column_words, (tile + 1) * column_words):
            for word in range(j, window.shape[2], across):
                filled |= acting[word]
        drops = filled == _NONE and skipped[tile] < dropped
        skipped[tile] = skipped[tile] + 1 if drops else 0
        for j in range(tile * column_words, (tile + 1) * column_words):
            for word in range(j, window.shape[2], across):
                acting[word] = _NONE if drops else _ALL


@kernel
def _fill(
    window: Words, slot: int, slots: Int64s, t: int, ahead: Int64s, aside: Int64s, order: Int64s, acting: Words,
    wanting: Words, source: Int64s,
) -> None:  # fmt: skip
    """In a fixed order, each lane that is empty in a PE of a tile that acts takes its first candidate there."""
    lanes, words = window.shape[1], window.shape[2]
    for lane in order:
        for word in range(words):
            wanting[word] = ~window[slot, lane, word] & acting[word]
        for j in range(slots.size):
            other, there = lane + aside[j], slots[j]
            if other >= lanes:
                other -= lanes
            if source.size:
                for word in range(words):
                    taken = wanting[word] & window[there, other, word]
                    _record(taken, (t + ahead[j]) * lanes + other, t, lane, source[word])
            for word in range(words):
                taken = wanting[word] & window[there, other, word]
                window[there, other, word] ^= taken
                wanting[word] ^= taken


@kernel
def _record_own(window: Words, slot: int, acting: np.uint64, t: int, source: Int64s) -> None:
    source[:, :, t] = -1 if acting else -2
    for word in range(source.shape[0]):
        for lane in range(window.shape[1]):
            _record(window[slot, lane, word], t * window.shape[1] + lane, t, lane, source[word])


@kernel
def _record(pes: np.uint64, place: int, t: int, lane: int, source: Int64s) -> None:
    for bit in range(source.shape[0]):
        if (pes >> np.uint64(bit)) & _ONE:
            source[bit, t, lane] = place
