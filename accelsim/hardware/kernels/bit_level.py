"""Inner loops of the bit-level machines: how long lanes take, and when columns end their steps."""

import numpy as np
import numpy.typing as npt

from accelsim.hardware.kernels.jit import Int64s, kernel

Words32 = npt.NDArray[np.uint32]
_ONE = np.uint64(1)


@kernel
def term_cycles(words: Words32, reach: int) -> Int64s:
    """Cycles in which lanes that share a shift drop their powers of two, lowest first, one a lane and cycle.

    Parameters
    ----------
    words : uint32[n, lanes]
        Bit k: the lane has to multiply with ±2^k.
    reach : int
        A lane drops its lowest where that is less than so far above the lowest of all lanes: 2^(bits of the first
        stage).

    Returns
    -------
    int64[n]
        At least 1.
    """
    n, lanes = words.shape
    cycles = np.empty(n, np.int64)
    left = np.empty(lanes, np.uint32)
    for i in range(n):
        for lane in range(words.shape[1]):  # to assign a row takes seconds to compile
            left[lane] = words[i, lane]
        cycles[i] = max(1, drop(left, reach))
    return cycles


@kernel
def drop(left: Words32, reach: int) -> int:
    """Cycles until no lane has anything left, in words below 2^17, for a reach of at most 16; empties ``left``."""
    cycles = 0
    while True:
        together = np.uint64(0)
        for lane in range(left.size):
            together |= np.uint64(left[lane])
        if not together:
            return cycles
        lowest = together & (~together + _ONE)
        beyond = lowest << np.uint64(reach)
        for lane in range(left.size):
            own = np.uint64(left[lane])
            own &= ~own + _ONE
            if own < beyond:
                left[lane] = np.uint32(np.uint64(left[lane]) ^ own)
        cycles += 1


@kernel
def dearest_products(columns: Int64s, rows: Int64s, tiles: int) -> Int64s:
    """The largest product of terms that meet in a step.

    Parameters
    ----------
    columns : int64[visits, lines, lanes]
        The most terms that a value of the columns has.
    rows : int64[sets, lines, lanes]
        The most that a value of the rows of a set has.
    tiles : int
        Sets of a round.

    Returns
    -------
    int64[visits, rounds, lines]
        At least 1.
    """
    visits, lines, lanes = columns.shape
    sets = len(rows)
    cycles = np.ones((visits, (sets + tiles - 1) // tiles, lines), np.int64)
    for v in range(visits):
        for s in range(sets):
            for t in range(lines):
                for lane in range(lanes):
                    cycles[v, s // tiles, t] = max(cycles[v, s // tiles, t], columns[v, t, lane] * rows[s, t, lane])
    return cycles


@kernel
def in_step(costs: Int64s, steps: Int64s, registers: int) -> Int64s:
    """Cycles of each visit and round, where columns may run ahead of each other by ``registers`` steps.

    Parameters
    ----------
    costs : int64[visits, rounds, most steps, columns]
        Cycles that a column takes for a step.
    steps : int64[rounds]
        Steps of a round.
    registers : int
        0: all columns end a step together. Else a column begins its next step when it has ended this one and all have
        ended the one so many before.

    Returns
    -------
    int64[visits, rounds]
        From the end of the last step before to the end of the last of these, whichever column is the last.
    """
    visits, rounds, _, columns = costs.shape
    ends = np.zeros(columns, np.int64)
    all_ended = np.zeros(registers + 1, np.int64)  # of the last steps, a ring
    times = np.zeros((visits, rounds), np.int64)
    last, i = np.int64(0), 0
    for v in range(visits):
        for r in range(rounds):
            before = last
            for t in range(steps[r]):
                free = all_ended[i % (registers + 1)]  # of step i − 1 − registers
                latest = np.int64(0)
                for j in range(columns):
                    ends[j] = max(ends[j], free) + costs[v, r, t, j]
                    latest = max(latest, ends[j])
                all_ended[i % (registers + 1)] = latest
                last = latest
                i += 1
            times[v, r] = last - before
    return times


@kernel
def in_turn(costs: Int64s, steps: Int64s, places: int) -> Int64s:
    """Cycles of each round of a linear layer whose steps are dealt to ``places`` in turn, one begun a cycle at most.

    ``costs`` : int64[rounds, most steps]; ``steps`` as above. Returns int64[rounds], each from the latest end so far.
    """
    ends = np.zeros(places, np.int64)
    times = np.zeros(len(costs), np.int64)
    begun, last, i = np.int64(-1), np.int64(0), 0
    for r in range(len(costs)):
        before = last
        for t in range(steps[r]):
            begun = max(begun + 1, ends[i % places])
            ends[i % places] = begun + costs[r, t]
            last = max(last, ends[i % places])
            i += 1
        times[r] = last - before
    return times
