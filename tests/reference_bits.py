"""The bit-level machines from their rules, a value at a time: a forward pass of one sample and one group of integers.

Plain Python, sharing nothing with the package: docs/model.md in other words.
"""

from functools import cache
from itertools import product

import numpy as np
import reference


def ceil(a, b):
    return -(-a // b)


def length(x):
    return max(1, x.bit_length())


def trailing(x):
    return (x & -x).bit_length() - 1


@cache
def terms(x, booth):
    """Positions of the powers of two of x ≥ 0; with Booth's digits walked from bit 15 down."""
    if not booth:
        return [k for k in range(17) if x >> k & 1]
    found, on = [], False
    for k in range(15, -1, -1):
        bit, below = x >> k & 1, (x << 2 >> k) & 3
        if not on:
            if bit and below == 3:
                found.append(k + 1)
                on = True
            elif bit:
                found.append(k)
        elif not bit:
            found.append(k)
        elif below == 0:
            found.append(k)
            on = False
    return found


def slices(x, width, count, is_magnitude):
    x = abs(x) if is_magnitude else x & ((1 << (width * count)) - 1)
    return [x >> (width * i) & ((1 << width) - 1) for i in range(count)]


def group_width(words, width, signed, minor):
    """``words``: (slice, whether it is the one with the sign)."""
    lengths = [length(2**width - 1 - x if signed and top and x >> (width - 1) else x) for x, top in words]
    zeros = [trailing(x) for x, _ in words if x]
    return signed + max(lengths) - (min(zeros, default=0) if minor else 0)


def dropping(values, stage):
    """Cycles of Bit-Pragmatic's lanes: ``values`` are lists of positions."""
    left, cycles = [sorted(v) for v in values], 0
    while any(left):
        lowest = min(v[0] for v in left if v)
        left = [v[1:] if v and v[0] < lowest + 2**stage else v for v in left]
        cycles += 1
    return max(1, cycles)


def streams(conv, lanes):
    """Filters and windows as lines of lanes: positions r, then s, then blocks of channels."""
    (K, C, R, S), (P, Q) = conv.kernel.shape, conv.geometry.output
    top, bottom, left, right = conv.padding
    image = np.pad(conv.input[0], [(0, 0), (top, bottom), (left, right)])
    blocks = ceil(C, lanes)
    places = [(r, s, [b * lanes + i for i in range(lanes)]) for r, s, b in product(range(R), range(S), range(blocks))]

    def line(at):
        return [[int(at(r, s, c)) if c < C else 0 for c in cs] for r, s, cs in places]

    filters = [line(lambda r, s, c, k=k: conv.kernel[k, c, r, s]) for k in range(K)]
    (st, su), (dr, ds) = conv.stride, conv.dilation
    windows = [
        line(lambda r, s, c, p=p, q=q: image[c, p * st + r * dr, q * su + s * ds])
        for p, q in product(range(P), range(Q))
    ]
    return filters, windows


def cycles(machine, conv):
    """Of a machine of this package, whose keys it reads; the convolution as lowered, without space to depth."""
    filters, windows = streams(conv, machine.lanes)
    linear = conv.input.shape[2:] == (1, 1) == conv.kernel.shape[2:] == conv.geometry.output
    tensors = [[int(x) for x in tensor.ravel()] for tensor in conv.operands]
    steps, together = stepped(machine, [filters], windows, tensors, linear, conv.geometry.output[1])
    costs = [own + [0] * (together - len(own)) for own, _ in steps]
    if linear and machine.staggered_linear:
        return staggered(costs, machine.columns // slices_of(machine, tensors, linear)[0])
    return in_step(costs, getattr(machine, "column_registers", 0), together)


def needed(values, bits, by_layer):
    """Bits of a value that are worked on."""
    low, high = min([0, *values]), max([0, *values])
    own = max((-low - 1).bit_length(), high.bit_length(), 1) + 1 if low < 0 else length(high)
    return own if by_layer else bits


def bits_of(m, tensors, linear):
    """Of what is on the columns and on the rows, ``tensors``: the layer's whole ones. A difference takes one more."""
    w_serial = m.model == "laconic" or (m.model == "loom" and (m.precision == "layer" or m.dynamic_weights))
    by_layer = m.precision == "layer"
    on_columns = needed(tensors[0], m.column_bits, by_layer) + (getattr(m, "differential", False) and not linear)
    return min(on_columns, m.column_bits), needed(tensors[1], m.row_bits, by_layer and w_serial)


def slices_of(m, tensors, linear):
    """Columns of a window and rows of a filter."""
    return [ceil(bits, m.pe_width) for bits in bits_of(m, tensors, linear)]


def stepped(m, blocks, windows, tensors, linear, map_width):
    """Of each step what each column with a window costs, and the lanes of rows that hold a value; and the columns.

    ``blocks``: filters that share no tile, (T, lanes) each; ``windows`` likewise; lanes that fill up lines are None in
    filters. ``tensors``: the whole ones on columns and rows; ``map_width``: windows in a row of the map.
    """
    kind = m.model
    pa, pw = bits_of(m, tensors, linear)
    W, (na, nw) = m.pe_width, slices_of(m, tensors, linear)
    sa, sw = (int(min([0, *values]) < 0) for values in tensors)
    if getattr(m, "differential", False) and not linear:
        Q, sa = map_width, 1
        pairs = [zip(own, windows[i - 1] if i % Q else nothing(own), strict=True) for i, own in enumerate(windows)]
        windows = [[[x - y for x, y in zip(*lines, strict=True)] for lines in pair] for pair in pairs]
    cw, fw, T = m.columns // na, m.rows // nw, len(windows[0])
    is_magnitude = kind in ("pragmatic", "laconic", "tcle")
    sliced_a = [[[slices(x, W, na, is_magnitude) for x in line] for line in window] for window in windows]
    held = [filters[i : i + fw] for filters in blocks for i in range(0, len(filters), fw)]
    sets = [[[[x or 0 for x in line] for line in own] for own in of_set] for of_set in held]
    sets_w = [[[[slices(x, W, nw, is_magnitude) for x in line] for line in own] for own in of_set] for of_set in sets]
    shown, filled = scheduled(m, sets) if kind.startswith("tcl") else ([[None] * T for _ in sets], None)
    if filled is None:
        filled = [[sum(x is not None for own in of_set for x in own[j]) for j in range(T)] for of_set in held]

    def column_costs(first, group, j):
        """Of each column (window, slice) the dearest tile."""
        columns = [(v, i) for v in range(first, min(first + cw, len(windows))) for i in range(na)]
        tiles = [s for s in range(group, min(group + m.tiles, len(sets))) if j < len(shown[s])]

        def words(v, i, places=None):
            whole = sliced_a[v][j] if places is None else [sliced_a[v][t][lane] for t, lane in places]
            return [(x[i], i == na - 1) for x in whole]

        def grouped(columns, places, size):
            costs = []
            for at in range(0, len(columns), size):
                own = columns[at : at + size]
                together = [word for v, i in own for word in words(v, i, places)]
                costs += [group_width(together, W, sa, m.minor_bit) if together else 1] * len(own)
            return costs

        if kind == "stripes":
            return [min(pa, W)] * len(columns)
        if kind == "shapeshifter":
            return grouped(columns, None, m.group_size)
        if kind == "pragmatic":
            return [
                dropping([terms(x, m.booth_encoding) for x, _ in words(v, i)], m.bits_first_stage) for v, i in columns
            ]
        if kind == "loom":
            a = ceil(max(grouped(columns, None, m.group_size)), m.pe_serial_bits)
            dearest = 0
            for s in tiles:
                rows = [[(x[i], i == nw - 1) for x in own[j]] for own in sets_w[s] for i in range(nw)]
                groups = [
                    [x for row in rows[at : at + m.group_size] for x in row] for at in range(0, len(rows), m.group_size)
                ]
                widths = [group_width(words, W, sw, m.minor_bit) for words in groups]
                dearest = max(dearest, max(widths) if m.dynamic_weights else min(pw, W))
            return [a * dearest] * len(columns)
        if kind == "laconic":
            most = max(
                len(terms(x, m.booth_encoding)) * len(terms(y, m.booth_encoding))
                for v, i in columns for s in tiles for own in sets_w[s] for lane in range(m.lanes)
                for x in [sliced_a[v][j][lane][i]] for y in own[j][lane]
            )  # fmt: skip
            return [max(1, most)] * len(columns)
        if kind == "tclp":
            of_tiles = [grouped(columns, [p for row in shown[s][j] for p in row if p], m.group_size) for s in tiles]
        else:
            of_tiles = [
                [
                    max(
                        dropping(
                            [terms(x, m.booth_encoding) for x, _ in words(v, i, [p for p in row if p])],
                            m.bits_first_stage,
                        )
                        for row in shown[s][j]
                    )
                    for v, i in columns
                ]
                for s in tiles
            ]
        return [max(costs) for costs in zip(*of_tiles, strict=True)]

    steps = [
        (
            column_costs(first, group, j),
            nw * sum(own[j] for own in filled[group : group + m.tiles] if j < len(own)),
        )
        for first in range(0, len(windows), cw)
        for group in range(0, len(sets), m.tiles)
        for j in range(max(len(lines) for lines in shown[group : group + m.tiles]))
    ]
    return steps, cw * na


def nothing(window):
    return [[0] * len(line) for line in window]


def staggered(steps, places):
    begin, ends = [], []
    for i, step in enumerate(steps):
        begin.append(max(begin[i - 1] + 1 if i else 0, ends[i - places] if i >= places else 0))
        ends.append(begin[i] + max(step))
    return max(ends, default=0)


def in_step(steps, registers, columns):
    e, M = [0] * columns, []
    for i, step in enumerate(steps):
        free = M[i - 1 - registers] if i - 1 - registers >= 0 else 0
        e = [max(own, free) + cost for own, cost in zip(e, step, strict=True)]
        M.append(max(e))
    return M[-1] if M else 0


def scheduled(machine, sets):
    """Of each set its executed lines: per row and lane the (line, lane) whose activation is presented, or None.

    And how many slots of each line have a weight.
    """
    found, filled = [], []
    for filters in sets:
        weights = np.array(filters).swapaxes(0, 1) != 0
        found.append([])
        filled.append([])
        for t, sources in reference.scheduled_lines(weights, machine.lookahead_h, machine.search_map):
            filled[-1].append(sum(source is not None for row in sources for source in row))
            # A slot that got no weight shows its own activation, unless its weight went elsewhere.
            own = [[None if has_weight else (t, lane) for lane, has_weight in enumerate(row)] for row in weights[t]]
            silent = machine.empty_slots == "silent"
            found[-1].append(
                [
                    [source or (None if silent else mine) for source, mine in zip(*rows, strict=True)]
                    for rows in zip(sources, own, strict=True)
                ]
            )
    return found, filled
