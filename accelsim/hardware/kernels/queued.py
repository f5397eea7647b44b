"""A PE whose accumulator banks have queues: products wait there, and the multipliers go on until a queue is full.

The products of a pair of vectors per bank are the bytes of four words, one for each k modulo 4, as ``cartesian`` counts
them; here they stay in the queues from one pair to the next, so every pair is gone through, in order.
"""

import numpy as np

from accelsim.hardware.kernels.cartesian import Pair, _larger_bytes, _list_weights
from accelsim.hardware.kernels.jit import Bools, Int32s, Int64s, Words, kernel

_HIGH = np.uint64(0x8080808080808080)
_BELOW = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONES = np.uint64(0x0101010101010101)
_SEVEN = np.uint64(7)
SLOTS = 4  # words of bank counters


@kernel
def queued_cycles(
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
    depth: int,
) -> tuple[Int64s, Int64s, Int64s]:
    """Cycles of each filter group: those of its slowest PE, which goes through the channels without waiting.

    A product counts as many cycles of its bank as ``words`` say, which is 1 where a bank takes one in each cycle.

    Parameters
    ----------
    counts, names, words, weights, first_filter, per_group, phase_of_tap, slot_mask, turn_bit, widths
        As those of ``cartesian.channel_cycles``.
    depth : int
        Cycles that a bank takes for the products that its queue holds.

    Returns
    -------
    cycles : int64[filter groups]
    work : int64[filter groups, C]
        Cycles that all PEs together are busy with a channel; the last channel's with what is then left in the queues.
    totals : int64[3]
        Over all PEs: pairs of vectors, cycles, products.
    """
    channels, taps, filters = weights.shape
    pes, phases = counts.shape[1], counts.shape[2]
    groups = (filters + per_group - 1) // per_group
    cycles, work = np.zeros(groups, np.int64), np.zeros((groups, channels), np.int64)
    totals = np.zeros(3, np.int64)
    room = min(filters, per_group) * taps + 1  # one to spare: zeros are written too, and then overwritten
    listed, bounds = np.empty(room, np.int64), np.zeros(phases + 1, np.int64)
    firsts = np.zeros(phases + 1, np.int64)
    vectors_most = room // widths[1] + phases
    term_of = np.empty((vectors_most, widths[1]), np.int64)
    slot_of = np.empty((vectors_most, widths[1]), np.int64)
    terms, loads = np.zeros(2 * taps + 1, np.uint64), np.zeros((vectors_most, SLOTS), np.uint64)
    queues, times = np.zeros((pes, SLOTS), np.uint64), np.zeros(pes, np.int64)
    visits, of_channel = _visits(counts, widths[0])
    for g in range(groups):
        queues[:] = 0
        times[:] = 0
        for c in range(channels):
            _list_weights(
                weights[c], g * per_group, min(filters, (g + 1) * per_group), first_filter, phase_of_tap, bounds, listed
            )
            if not bounds[phases]:
                continue
            _cut(listed, bounds, taps, slot_mask, turn_bit, firsts, term_of, slot_of)
            for visit in range(of_channel[c], of_channel[c + 1]):
                pe, phase, at, vectors = visits[visit, 0], visits[visit, 1], visits[visit, 2], visits[visit, 3]
                start, stop = firsts[phase], firsts[phase + 1]
                if start == stop:
                    continue
                spent = np.int64(0)
                for v in range(at, at + vectors):
                    _spread(words, names[v], term_of, slot_of, start, stop, terms, loads)
                    spent += _retire(loads, stop - start, queues, pe, depth)
                times[pe] += spent
                work[g, c] += spent
                totals[0] += vectors * (stop - start)
                totals[2] += counts[c, pe, phase] * (bounds[phase + 1] - bounds[phase])
        for pe in range(pes):
            left = _most(queues[pe, 0], queues[pe, 1], queues[pe, 2], queues[pe, 3])
            work[g, channels - 1] += left
            cycles[g] = max(cycles[g], times[pe] + left)
        totals[1] += work[g].sum()
    return cycles, work, totals


@kernel
def _visits(counts: Int64s, width: int) -> tuple[Int64s, Int64s]:
    """Where there are activations: PE, phase, first vector and vectors, a row each; of each channel, and the end."""
    channels, pes, phases = counts.shape
    visits, of_channel = np.empty((counts.size, 4), np.int64), np.zeros(channels + 1, np.int64)
    number = at = 0
    for c in range(channels):
        for pe in range(pes):
            for phase in range(phases):
                vectors = (counts[c, pe, phase] + width - 1) // width
                if vectors:
                    visits[number, 0], visits[number, 1], visits[number, 2], visits[number, 3] = pe, phase, at, vectors
                    number += 1
                    at += vectors
        of_channel[c + 1] = number
    return visits[:number], of_channel


@kernel
def _cut(
    listed: Int64s, bounds: Int64s, taps: int, slot_mask: int, turn_bit: int, firsts: Int64s, term_of: Int64s,
    slot_of: Int64s,
) -> None:  # fmt: skip
    """Cuts each phase's weights into vectors, one a row: what each weight adds, by ``_spread``, and to which word.

    ``firsts`` are the rows where phases begin, and the end.
    """
    width = term_of.shape[1]
    row = 0
    for phase in range(bounds.size - 1):
        firsts[phase] = row
        for start in range(bounds[phase], bounds[phase + 1], width):
            for i in range(width):
                term_of[row, i], slot_of[row, i] = 2 * taps, 0
                if start + i < bounds[phase + 1]:
                    weight = listed[start + i]
                    term_of[row, i] = (weight >> 32) * 2 + (weight & turn_bit != 0)
                    slot_of[row, i] = weight & slot_mask
            row += 1
    firsts[-1] = row


@kernel
def _spread(
    words: Words, name: int, term_of: Int64s, slot_of: Int64s, start: int, stop: int, terms: Words, loads: Words
) -> None:
    """Products of an activation vector for each bank, with each of the weight vectors start…stop−1.

    What a weight can add: 2·tap, the counters of its tap; 2·tap + 1, these with their halves exchanged (k & 4);
    2·taps, nothing.
    """
    for tap in range(words.shape[1]):
        counters = words[name, tap]
        terms[2 * tap] = counters
        terms[2 * tap + 1] = (counters << np.uint64(32)) | (counters >> np.uint64(32))
    for w in range(stop - start):
        for slot in range(SLOTS):
            loads[w, slot] = 0
        for i in range(term_of.shape[1]):
            loads[w, slot_of[start + w, i]] += terms[term_of[start + w, i]]


@kernel
def _retire(loads: Words, vectors: int, queues: Words, pe: int, depth: int) -> np.int64:
    """Cycles in which a PE gets rid of its pairs' products, but for those that its queues can hold.

    Each bank takes one a cycle. The next pair comes when no bank has more than ``depth`` left, and after a cycle.
    """
    full = (np.uint64(126) - np.uint64(depth)) * _ONES  # sets the high bit of a byte above depth + 1
    a, b, c, d = queues[pe, 0], queues[pe, 1], queues[pe, 2], queues[pe, 3]
    cycles = np.int64(0)
    for w in range(vectors):
        a += loads[w, 0]
        b += loads[w, 1]
        c += loads[w, 2]
        d += loads[w, 3]
        if ((a + full) | (b + full) | (c + full) | (d + full)) & _HIGH:
            passed = _most(a, b, c, d) - depth
            a, b, c, d = _less(a, passed), _less(b, passed), _less(c, passed), _less(d, passed)
            cycles += passed
        else:
            a -= ((a + _BELOW) & _HIGH) >> _SEVEN
            b -= ((b + _BELOW) & _HIGH) >> _SEVEN
            c -= ((c + _BELOW) & _HIGH) >> _SEVEN
            d -= ((d + _BELOW) & _HIGH) >> _SEVEN
            cycles += 1
    queues[pe, 0], queues[pe, 1], queues[pe, 2], queues[pe, 3] = a, b, c, d
    return cycles


@kernel
def _less(word: np.uint64, by: np.int64) -> np.uint64:
    """Byte by byte max(0, byte − by); bytes below 128."""
    rest = (word | _HIGH) - np.uint64(by) * _ONES
    kept = rest & _HIGH
    return rest & (kept - (kept >> _SEVEN))


@kernel
def _most(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64) -> np.int64:
    """The largest byte of four words; bytes below 128."""
    byte = _larger_bytes(_larger_bytes(a, b), _larger_bytes(c, d))
    byte = _larger_bytes(byte, byte >> np.uint64(32))
    byte = _larger_bytes(byte, byte >> np.uint64(16))
    byte = _larger_bytes(byte, byte >> np.uint64(8))
    return np.int64(byte & np.uint64(0xFF))
