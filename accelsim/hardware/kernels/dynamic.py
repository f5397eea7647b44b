"""TensorDash's dynamic front-end: the lines that a tile executes, scheduled as they stream through its window.

All PEs of a tile share one clock and, line by line and lane by lane, do the same steps in the same order. So a machine
word here is one lane of one line with a bit for each PE: a step of the schedule takes a few operations for up to 64
PEs. Mahmoud et al., MICRO 2020, section 3.
"""

import numpy as np

from accelsim.hardware.kernels.jit import Int64s, Words, kernel

_ONE = np.uint64(1)


@kernel
def executed_lines(
    rows: Words, columns: Words, ahead: Int64s, aside: Int64s, order: Int64s, dropped: int, free_start: bool,
    source: Int64s,
) -> Int64s:  # fmt: skip
    """Lines that each set of rows executes with each group of columns.

    Parameters
    ----------
    rows : uint64[sets, row_words, lines, lanes]
        Bit b of a word: the PE b of the word has a non-zero value on this lane of its row's line.
    columns : uint64[groups, column_words, lines, lanes]
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
    lookahead = ahead.max() if ahead.size else 0
    executed = np.zeros((groups, sets), np.int64)
    # The lines in sight, line t in slot t mod (lookahead + 1).
    window = np.empty((row_words * column_words, lookahead + 1, lanes), np.uint64)
    slots = np.empty(ahead.size, np.int64)
    nothing = np.empty((0, 0, 0), np.int64)
    for s in range(sets):
        for g in range(groups):
            skipped = 0 if free_start else dropped
            for t in range(-lookahead, lines):
                _enter(window, rows[s], columns[g], t + lookahead)
                if t < 0:
                    continue
                slot = t % (lookahead + 1)
                if skipped < dropped and _is_empty(window, slot):
                    skipped += 1
                    if source.size:
                        source[:, :, t] = -2
                    continue
                skipped = 0
                executed[g, s] += 1
                for j in range(ahead.size):
                    slots[j] = (t + ahead[j]) % (lookahead + 1)
                for word in range(window.shape[0]):
                    recorded = nothing
                    if source.size:
                        recorded = source[word]
                        _record_own(window[word, slot], t, recorded)
                    _fill(window[word], slot, slots, t, ahead, aside, order, recorded)
    return executed


@kernel
def _enter(window: Words, rows: Words, columns: Words, t: int) -> None:
    """Line t comes into sight; past the end lines are empty."""
    slot, column_words = t % window.shape[1], columns.shape[0]
    for i in range(rows.shape[0]):
        for j in range(column_words):
            for lane in range(window.shape[2]):
                both = np.uint64(0)
                if t < rows.shape[1]:
                    both = rows[i, t, lane] & columns[j, t, lane]
                window[i * column_words + j, slot, lane] = both


@kernel
def _is_empty(window: Words, slot: int) -> bool:
    some = np.uint64(0)
    for word in range(window.shape[0]):
        for lane in range(window.shape[2]):
            some |= window[word, slot, lane]
    return bool(some == 0)


@kernel
def _fill(
    window: Words, slot: int, slots: Int64s, t: int, ahead: Int64s, aside: Int64s, order: Int64s, source: Int64s
) -> None:
    """In a fixed order, each lane that is empty in a PE takes its first candidate there."""
    lanes = window.shape[1]
    for lane in order:
        wanting = ~window[slot, lane]
        for j in range(slots.size):
            other = lane + aside[j]
            if other >= lanes:
                other -= lanes
            taken = wanting & window[slots[j], other]
            window[slots[j], other] ^= taken
            wanting ^= taken
            if source.size:
                _record(taken, (t + ahead[j]) * lanes + other, t, lane, source)


@kernel
def _record_own(line: Words, t: int, source: Int64s) -> None:
    source[:, t] = -1
    for lane in range(line.size):
        _record(line[lane], t * line.size + lane, t, lane, source)


@kernel
def _record(pes: np.uint64, place: int, t: int, lane: int, source: Int64s) -> None:
    for bit in range(source.shape[0]):
        if (pes >> np.uint64(bit)) & _ONE:
            source[bit, t, lane] = place
