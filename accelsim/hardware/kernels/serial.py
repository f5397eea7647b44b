"""Bit-Tactical's bit-serial back-ends: a line takes as long as the longest value that its tile works on."""

import numpy as np

from accelsim.hardware.kernels.jit import Bytes, Int64s, kernel


@kernel
def serial_cycles(source: Int64s, rows: int, longest: Bytes) -> tuple[Int64s, Int64s]:
    """Cycles of each set of filters for each visit to the columns.

    Parameters
    ----------
    source : int64[filters, lines, lanes]
        Of one block, as ``promotion.executed_lines`` records it.
    rows : int
        Filters in a set.
    longest : uint8[places, visits]
        Bits of the longest value that the columns of a visit hold at each place, line·lanes + lane.

    Returns
    -------
    cycles : int64[sets, visits]
    filled : int64[sets, visits]
        The same with each line counted once for each of its slots that holds a weight.
    """
    filters, lines, lanes = source.shape
    visits = longest.shape[1]
    sets = (filters + rows - 1) // rows
    cycles, filled = np.zeros((sets, visits), np.int64), np.zeros((sets, visits), np.int64)
    seen = np.full(longest.shape[0], -1, np.int64)  # the last line that read a place
    took = np.empty(visits, np.uint8)
    for s in range(sets):
        for t in range(lines):
            if source[s * rows, t, 0] == -2:
                continue
            took[:] = 1
            slots = 0
            for row in range(s * rows, min(filters, (s + 1) * rows)):
                for lane in range(lanes):
                    place = source[row, t, lane]
                    if place >= 0:
                        slots += 1
                        if seen[place] != s * lines + t:
                            seen[place] = s * lines + t
                            for v in range(visits):
                                took[v] = max(took[v], longest[place, v])
            for v in range(visits):
                cycles[s, v] += took[v]
                filled[s, v] += slots * np.int64(took[v])
    return cycles, filled
