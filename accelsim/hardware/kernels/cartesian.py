"""A PE that multiplies every activation of a vector with every weight of another, and scatters the products to banks.

Cost follows from how products fall into accumulator banks, and that depends on positions modulo 4 only: an activation
contributes, for each tap, to one of 8 *places*, (bit 4, bits 3 and 2 of the bank number with filter 0); a weight of
filter k moves that place by (k & 4) and adds (k & 3). So an activation vector is, for each tap, eight counters — the
bytes of one word — and the load of the banks under a weight vector is a sum of words. Vectors with the same words cost
the same: each distinct one is counted once per channel, and not again while the weights stay the same.
"""

import numpy as np

from accelsim.hardware.kernels.jit import Bools, Int32s, Int64s, Words, int64, kernel, part

Pair = tuple[int, int]
Places = tuple[Int64s, Int64s]
_HIGH = np.uint64(0x8080808080808080)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_NONE, _ONE = np.uint64(0), np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
TERMS, LOAD, MOST = range(3)  # of what ``_cost`` keeps meanwhile


@kernel
def activation_vectors(
    acts: Bools, edges: Places, classes: Places, phases: Pair, counters: Words, width: int
) -> tuple[Int64s, Int32s, Words]:
    """Cuts each PE's non-zero activations into vectors and names the distinct ones.

    Parameters
    ----------
    acts : bool[C, H', W']
        One sample, padded.
    edges : (int64[PEs along H + 1], int64[PEs along W + 1])
        Rows and columns where the PEs' tiles begin, and where the last one ends.
    classes : (int64[H'], int64[W'])
        Rows and columns of a class act alike under every tap.
    phases : (int, int)
        Stride phases of rows and columns.
    counters : uint64[row classes, column classes, taps]
        What an activation adds to the word of a tap: one, in the byte of its place; 0 where its product is dropped.
    width : int
        Activations in a vector, I.

    Returns
    -------
    counts : int64[C, PEs, phases]
        Non-zero activations.
    names : int32[vectors]
        The distinct vector that each vector is; order channel, PE, phase, then row-major.
    words : uint64[distinct, taps]
        The counters of each distinct vector under each tap.
    """
    channels = acts.shape[0]
    rows, columns = edges
    across = columns.size - 1
    pes, taps = (rows.size - 1) * across, counters.shape[2]
    counts = np.zeros((channels, pes, phases[0] * phases[1]), np.int64)
    names = np.empty(acts.size // width + counts.size, np.int32)  # room for all, of which what is written takes memory
    found = np.empty((_widest(rows) * _widest(columns) + 1, 2), np.int64)
    words = np.zeros((64, taps + 1), np.uint64)  # the last word of a vector is its phase
    table = np.zeros(256, np.int64)
    known, at = int64(0), 0  # (0 alone is a type of its own: what takes it would be compiled twice)
    for c in range(channels):
        for pe in range(pes):
            top, bottom = rows[pe // across], rows[pe // across + 1]
            left, right = columns[pe % across], columns[pe % across + 1]
            for phase in range(phases[0] * phases[1]):
                count = 0
                for x in range(top + (phase // phases[1] - top) % phases[0], bottom, phases[0]):
                    for y in range(left + (phase % phases[1] - left) % phases[1], right, phases[1]):
                        found[count, 0] = classes[0][x]
                        found[count, 1] = classes[1][y]
                        count += acts[c, x, y]
                counts[c, pe, phase] = count
                for start in range(0, count, width):
                    # The row after the last known vector is the one in the making.
                    words[known] = 0
                    for i in range(start, min(start + width, count)):
                        for tap in range(taps):
                            words[known, tap] += counters[found[i, 0], found[i, 1], tap]
                    words[known, taps] = np.uint64(phase)
                    names[at] = _name(words, known, table)
                    known += names[at] == known
                    at += 1
                    if known == words.shape[0]:
                        words, table = _grow(words, table)
    return counts, names[:at], words[:known, :taps].copy()


@part
def _widest(edges: Int64s) -> int:
    """The most rows or columns of a tile. (NumPy's own ways take seconds to compile, here and below.)"""
    widest = 0
    for at in range(edges.size - 1):
        widest = max(widest, edges[at + 1] - edges[at])
    return widest


@part
def _name(words: Words, row: int, table: Int64s) -> int:
    """The earlier row equal to ``row``, or ``row`` itself, entered into the hash table of rows from 1 on."""
    mask = np.uint64(table.size - 1)
    h = _NONE
    for t in range(words.shape[1]):
        h = (h ^ words[row, t]) * _MIX
        h ^= h >> np.uint64(29)
    slot = h & mask
    while table[slot]:
        earlier, same = table[slot] - 1, True
        for t in range(words.shape[1]):
            same = same and words[earlier, t] == words[row, t]
        if same:
            return int(earlier)
        slot = (slot + _ONE) & mask
    table[slot] = row + 1
    return row


@part
def _grow(words: Words, table: Int64s) -> tuple[Words, Int64s]:
    """Twice the room; the hash table stays at most a quarter full."""
    known = words.shape[0]
    larger = np.zeros((2 * known, words.shape[1]), np.uint64)
    table = np.zeros(8 * known, np.int64)
    for row in range(known):
        for t in range(words.shape[1]):
            larger[row, t] = words[row, t]
        _name(larger, row, table)
    return larger, table


@kernel
def channel_cycles(
    counts: Int64s,
    names: Int32s,
    words: Words,
    weights: Bools,
    first_filter: int,
    per_group: int,
    phase_of_tap: Int64s,
    slot_mask: int,
    turn_bit: int,
    widths: Pair,
) -> tuple[Int64s, Int64s]:
    """Cycles of each filter group and channel: those of its slowest PE.

    Parameters
    ----------
    counts, names, words
        As ``activation_vectors`` returns them.
    weights : bool[C, R·S, K]
    first_filter : int
        The number that the layer gives to filter 0, for the banks.
    per_group : int
        Filters in a filter group, Kc.
    phase_of_tap : int64[R·S]
    slot_mask, turn_bit : int
        k & slot_mask chooses the word that a weight adds to; where k & turn_bit, the word's halves change places.
    widths : (int, int)
        I and F.

    Returns
    -------
    cycles : int64[filter groups, C]
    totals : int64[3]
        Over all PEs: pairs of vectors, cycles, products.
    """
    channels, taps, filters = weights.shape
    pes, phases = counts.shape[1], counts.shape[2]
    groups = (filters + per_group - 1) // per_group
    cycles = np.zeros((groups, channels), np.int64)
    totals = np.zeros(3, np.int64)
    room = min(filters, per_group) * taps + 1  # one to spare: zeros are written too, and then overwritten
    listed, listed_before = np.empty(room, np.int64), np.empty(room, np.int64)
    bounds = np.zeros(phases + 1, np.int64)
    room = room // widths[1] + phases
    term_of, keep = np.empty((widths[1], room), np.int64), np.empty((widths[1], room), np.uint64)
    scratch = np.empty((3, max(room, 2 * taps + 1)), np.uint64)
    costs, stamps = np.zeros(words.shape[0], np.int64), np.zeros(words.shape[0], np.int64)
    stamp = 0
    for g in range(groups):
        first, last = g * per_group, min(filters, (g + 1) * per_group)
        before = int64(-1)
        at = 0
        for c in range(channels):
            _list_weights(weights[c], first, last, first_filter, phase_of_tap, bounds, listed)
            if bounds[phases] != before or not _same(listed, listed_before, before):
                # Other weights than those of the previous channel: costs are counted anew, each when first met.
                stamp += 1
                _arrange(listed, bounds, taps, slot_mask, turn_bit, term_of, keep)
                before = int(bounds[phases])
                listed, listed_before = listed_before, listed
            slowest = 0
            for pe in range(pes):
                own = 0
                start = int64(0)
                for phase in range(phases):
                    here = bounds[phase + 1] - bounds[phase]
                    stop = start + (here + widths[1] - 1) // widths[1]
                    vectors = (counts[c, pe, phase] + widths[0] - 1) // widths[0]
                    if here:
                        for vector in range(at, at + vectors):
                            name = names[vector]
                            if stamps[name] != stamp:
                                stamps[name] = stamp
                                costs[name] = _cost(words, name, term_of, keep, start, stop, scratch)
                            own += costs[name]
                        totals[0] += vectors * (stop - start)
                        totals[2] += counts[c, pe, phase] * here
                    at += vectors
                    start = stop
                slowest = max(slowest, own)
                totals[1] += own
            cycles[g, c] = slowest
    return cycles, totals


@part
def _same(one: Int64s, other: Int64s, count: int) -> bool:
    """Whether the first so many are equal."""
    same, i = True, 0
    while same and i < count:
        same = one[i] == other[i]
        i += 1
    return same


@part
def _list_weights(
    weights: Bools, first: int, last: int, first_filter: int, phase_of_tap: Int64s, bounds: Int64s, listed: Int64s
) -> None:
    """Lists the non-zero weights of filters first…last−1 as tap·2³² + k: by phase, then in the order r, s, k."""
    count = 0
    for phase in range(bounds.size - 1):
        bounds[phase] = count
        for tap in range(weights.shape[0]):
            if phase_of_tap[tap] == phase:
                for k in range(first, last):
                    listed[count] = (tap << 32) + first_filter + k
                    count += weights[tap, k]
    bounds[-1] = count


@part
def _arrange(
    listed: Int64s, bounds: Int64s, taps: int, slot_mask: int, turn_bit: int, term_of: Int64s, keep: Words
) -> None:
    """Cuts each phase's weights into vectors, one a column, sorted by the word of counters that a weight adds to.

    ``term_of`` is what a weight adds, as ``_cost`` numbers it; ``keep`` is 0 where another word of counters begins,
    else all ones. Within a vector the order does not matter: its products fall into their banks in the same cycles.
    """
    width = term_of.shape[0]
    column = 0
    for phase in range(bounds.size - 1):
        for start in range(bounds[phase], bounds[phase + 1], width):
            at = 0
            for slot in range(slot_mask + 1):
                fresh = True
                for weight in listed[start : min(start + width, bounds[phase + 1])]:
                    if weight & slot_mask == slot:
                        term_of[at, column] = (weight >> 32) * 2 + (weight & turn_bit != 0)
                        keep[at, column] = _NONE if fresh else _ALL
                        fresh = False
                        at += 1
            term_of[at:, column] = 2 * taps
            keep[at:, column] = _ALL
            column += 1


@part
def _cost(words: Words, name: int, term_of: Int64s, keep: Words, start: int, stop: int, scratch: Words) -> np.int64:
    """Cycles of an activation vector against the weight vectors start…stop−1: max(1, most products in a bank) for each.

    What a weight can add: 2·tap, the counters of its tap; 2·tap + 1, these with their halves exchanged (k & 4);
    2·taps, nothing. The loops run along the weight vectors so that the compiler takes several at a time.
    """
    taps, vectors = words.shape[1], stop - start
    for tap in range(taps):
        counters = words[name, tap]
        scratch[TERMS, 2 * tap] = counters
        scratch[TERMS, 2 * tap + 1] = (counters << np.uint64(32)) | (counters >> np.uint64(32))
    scratch[TERMS, 2 * taps] = 0
    for w in range(vectors):
        scratch[LOAD, w] = scratch[TERMS, term_of[0, start + w]]
        scratch[MOST, w] = scratch[LOAD, w]
    for i in range(1, term_of.shape[0]):
        for w in range(vectors):
            load = (scratch[LOAD, w] & keep[i, start + w]) + scratch[TERMS, term_of[i, start + w]]
            scratch[LOAD, w] = load
            scratch[MOST, w] = _larger_bytes(scratch[MOST, w], load)
    cost = np.int64(0)
    for w in range(vectors):
        byte = scratch[MOST, w]
        byte = _larger_bytes(byte, byte >> np.uint64(32))
        byte = _larger_bytes(byte, byte >> np.uint64(16))
        byte = _larger_bytes(byte, byte >> np.uint64(8))
        cost += np.int64(max(_ONE, byte & np.uint64(0xFF)))
    return cost


@part
def _larger_bytes(a: np.uint64, b: np.uint64) -> np.uint64:
    """Byte by byte the larger of two; bytes below 128."""
    larger = ((a | _HIGH) - b) & _HIGH
    mask = larger | (larger - (larger >> np.uint64(7)))
    return b ^ ((a ^ b) & mask)


@kernel
def outer_product_cycles(
    first: Int64s, second: Int64s, tile: Pair, grid: Pair, steps: tuple[int, int, int, int], taps: Pair, widths: Pair
) -> tuple[Int64s, int]:
    """The weight gradient: at each output place every non-zero activation meets every non-zero gradient.

    Parameters
    ----------
    first : int64[channel blocks, N, H', W']
        Non-zero activations of a block at each padded position.
    second : int64[filter blocks, N, P, Q]
        Non-zero output gradients of a block at each output place.
    tile, grid : (int, int)
        Rows and columns of output places that a PE owns; PEs along P and Q that own one.
    steps : (int, int, int, int)
        Rows between output places, rows between taps; columns likewise.
    taps : (int, int)
        R and S.
    widths : (int, int)
        I and F.

    Returns
    -------
    cycles : int64[R·S, channel blocks, filter blocks]
        Of the slowest PE.
    total : int
        Cycles of all PEs.
    """
    samples, height, breadth = second.shape[1:]
    cycles = np.zeros((taps[0] * taps[1], first.shape[0], second.shape[0]), np.int64)
    own = np.zeros(grid[0] * grid[1], np.int64)
    total = 0
    for tap in range(taps[0] * taps[1]):
        x0, y0 = tap // taps[1] * steps[1], tap % taps[1] * steps[3]
        for cb in range(first.shape[0]):
            for kb in range(second.shape[0]):
                own[:] = 0
                for n in range(samples):
                    for p in range(height):
                        for q in range(breadth):
                            a = first[cb, n, x0 + p * steps[0], y0 + q * steps[2]]
                            b = second[kb, n, p, q]
                            pairs = ((a + widths[0] - 1) // widths[0]) * ((b + widths[1] - 1) // widths[1])
                            own[p // tile[0] * grid[1] + q // tile[1]] += pairs
                for pe in range(own.size):
                    cycles[tap, cb, kb] = max(cycles[tap, cb, kb], own[pe])
                    total += own[pe]
    return cycles, total
