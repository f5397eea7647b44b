"""Naive twins: the definitions as loops that anyone can check, slow on purpose. Tests compare against these."""

from __future__ import annotations

import numpy as np


def convolve(input, kernel, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """O[n, k, p, q] = Σ I[n, c, p·st + r·d − pad, …]·W[k, c, r, s], by its definition."""
    samples, channels, height, width = input.shape
    filters, group, taps_r, taps_s = kernel.shape
    top, bottom, left, right = padding
    padded = np.zeros((samples, channels, height + top + bottom, width + left + right), np.result_type(input, kernel))
    padded[:, :, top : top + height, left : left + width] = input
    out_p = (padded.shape[2] - (taps_r - 1) * dilation[0] - 1) // stride[0] + 1
    out_q = (padded.shape[3] - (taps_s - 1) * dilation[1] - 1) // stride[1] + 1
    out = np.zeros((samples, filters, out_p, out_q), padded.dtype)
    for n, k, c, r, s, p, q in np.ndindex(samples, filters, group, taps_r, taps_s, out_p, out_q):
        channel = k // (filters // groups) * group + c
        x, y = p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]
        out[n, k, p, q] += padded[n, channel, x, y] * kernel[k, c, r, s]
    return out


def input_grad(geometry, gradient, weight):
    """dA: every product of the forward pass, with the gradient of its output instead of its input."""
    g = geometry
    samples = gradient.shape[0]
    out = np.zeros((samples, g.channels, *g.padded), np.result_type(gradient, weight))
    for n, k, c, r, s, p, q in np.ndindex(samples, *g.weight_shape, *g.output):
        channel = k // (g.filters // g.groups) * (g.channels // g.groups) + c
        x, y = p * g.stride[0] + r * g.dilation[0], q * g.stride[1] + s * g.dilation[1]
        out[n, channel, x, y] += gradient[n, k, p, q] * weight[k, c, r, s]
    top, _, left, _ = g.padding
    return out[:, :, top : top + g.height, left : left + g.width]


def weight_grad(geometry, activation, gradient):
    """dW: every product of the forward pass, with the gradient of its output instead of its weight."""
    g = geometry
    top, bottom, left, right = g.padding
    padded = np.pad(activation, ((0, 0), (0, 0), (top, bottom), (left, right)))
    out = np.zeros(g.weight_shape, np.result_type(activation, gradient))
    for n, k, c, r, s, p, q in np.ndindex(activation.shape[0], *g.weight_shape, *g.output):
        channel = k // (g.filters // g.groups) * (g.channels // g.groups) + c
        x, y = p * g.stride[0] + r * g.dilation[0], q * g.stride[1] + s * g.dilation[1]
        out[k, c, r, s] += padded[n, channel, x, y] * gradient[n, k, p, q]
    return out


def scheduled_lines(weights, lookahead, search_map, ports=None):
    """Bit-Tactical's schedule of one set, (lines, rows, lanes) booleans, as docs/model.md words it.

    Of each executed line its number, and of each of its slots, (rows, lanes), where the weight came from: (line, lane),
    or None. ``ports``: the window moves on by so many lines at most.
    """
    most = min(lookahead, (ports or 1 + lookahead) - 1)
    lines, rows, lanes = weights.shape
    left = np.concatenate([weights, np.zeros((lookahead + 1, rows, lanes), bool)])
    executed, dropped = [], 0
    for t in range(lines):
        if not left[t].any() and dropped < most:
            dropped += 1
            continue
        dropped = 0
        sources = [[(t, lane) if left[t, row, lane] else None for lane in range(lanes)] for row in range(rows)]
        executed.append((t, sources))
        for row in range(rows):
            empty = [lane for lane in range(lanes) if not left[t, row, lane]]
            while True:
                candidates = {
                    lane: [
                        (t + dh, (lane + dl) % lanes) for dh, dl in search_map if left[t + dh, row, (lane + dl) % lanes]
                    ]
                    for lane in empty
                }
                lane = max(empty, key=lambda lane: (len(candidates[lane]), -lane), default=None)
                if lane is None or not candidates[lane]:
                    break
                line, other = sources[row][lane] = candidates[lane][0]
                left[line, row, other] = False
                empty.remove(lane)
    return executed


def executed_lines(weights, lookahead, search_map, ports=None):
    """How many lines that are."""
    return len(scheduled_lines(weights, lookahead, search_map, ports))


def dynamic_schedule(pairs, lookahead, lookaside, search_map, free_start=True, ports=None):
    """TensorDash's schedule of one tile, (lines, PEs, lanes) booleans, as docs/model.md words it.

    The lines executed, and what each slot executes, (PEs, lines, lanes): line·lanes + lane, −1 for nothing, −2 in a
    skipped line. Without ``free_start`` the first line is executed whatever it holds. ``ports``: the window
    moves on by so many lines at most.
    """
    most = min(lookahead, (ports or 1 + lookahead) - 1)
    lines, pes, lanes = pairs.shape
    order = []
    while len(order) < lanes:
        first = lane = min(set(range(lanes)) - set(order))
        order.append(first)
        while lookaside and lane + lookaside < min(lanes, lanes - lookaside + first):
            lane += lookaside
            order.append(lane)
    left = np.concatenate([pairs, np.zeros((lookahead + 1, pes, lanes), bool)])
    sources = np.full((pes, lines, lanes), -1)
    executed = skipped = 0
    for t in range(lines):
        if not left[t].any() and skipped < most and (executed or free_start):
            skipped += 1
            sources[:, t] = -2
            continue
        executed, skipped = executed + 1, 0
        for pe, lane in ((pe, lane) for pe in range(pes) for lane in order):
            places = [(t, lane)] + [(t + dh, (lane + dl) % lanes) for dh, dl in search_map]
            for line, other in places:
                if left[line, pe, other]:
                    sources[pe, t, lane] = line * lanes + other
                    left[line, pe, other] = line == t  # a value of this line is no one else's candidate
                    break
    return executed, sources


def training_streams(layer, which, lanes):
    """The streams (T, lanes) of each part of a pass that a tiled machine computes, from the pass's definition.

    Yields, for each group and stride phase, blocks of streams of the first operand (in the order of ``READS``), and one
    block of the second that each of them meets.
    """
    g, tensor = layer.geometry, {name: value != 0 for name, value in layer.tensors.items()}
    (top, bottom, left, right), (st_p, st_q), (d_r, d_s) = g.padding, g.stride, g.dilation
    around = (0, 0), (0, 0), (top, bottom), (left, right)
    saved = which == "weight_grad" and "saved_activation" in tensor
    activation = np.pad(tensor["saved_activation" if saved else "activation"], around)
    weight, gradient = tensor["weight"], tensor["gradient"]
    taps, places, samples = list(np.ndindex(*g.kernel)), list(np.ndindex(*g.output)), range(layer.samples)

    def stream(parts):
        """Each part fills lines of its own."""
        cut = [part[i : i + lanes] for part in parts for i in range(0, len(part), lanes)]
        return np.array([np.pad(line, (0, lanes - len(line))) for line in cut])

    def at(n, k, x, y, r, s):
        """The gradient of the output that input (x, y) feeds through tap (r, s)."""
        (p, beside_p), (q, beside_q) = divmod(x + top - r * d_r, st_p), divmod(y + left - s * d_s, st_q)
        inside = 0 <= p < g.output[0] and 0 <= q < g.output[1]
        return gradient[n, k, p, q] if inside and not beside_p and not beside_q else np.zeros(len(k), bool)

    def reached(size, begin, st, d, count, outputs, phase):
        """Input positions of a strided layer's phase, from the first to the last that any output's tap reads."""
        if g.stride == (1, 1):
            return range(size)
        read = {p * st + r * d - begin for p in range(outputs) for r in range(count)}
        read = [x for x in read if 0 <= x < size and (x + begin) % st == phase]
        return range(min(read), max(read) + 1, st) if read else range(0)

    for group in range(g.groups):
        channels = np.arange(g.channels // g.groups) + group * (g.channels // g.groups)
        filters = np.arange(g.filters // g.groups) + group * (g.filters // g.groups)
        if which == "fwd":
            yield (
                [
                    [
                        stream([activation[n, channels, p * st_p + r * d_r, q * st_q + s * d_s] for r, s in taps])
                        for p, q in places
                    ]
                    for n in samples
                ],
                [stream([weight[k, :, r, s] for r, s in taps]) for k in filters],
            )
        if which == "weight_grad":
            yield (
                [
                    [
                        stream([np.array([activation[n, c, p * st_p + r * d_r, q * st_q + s * d_s]
                                          for n in samples for p, q in places])])
                        for c in channels
                    ]
                    for r, s in taps
                ],
                [stream([gradient[:, k].ravel()]) for k in filters],
            )  # fmt: skip
        for i, j in np.ndindex(st_p, st_q) if which == "input_grad" else ():
            own = [(r, s) for r, s in reversed(taps) if r * d_r % st_p == i and s * d_s % st_q == j]
            rows = reached(g.height, top, st_p, d_r, g.kernel[0], g.output[0], i)
            columns = reached(g.width, left, st_q, d_s, g.kernel[1], g.output[1], j)
            if own and rows and columns:
                yield (
                    [
                        [stream([at(n, filters, x, y, r, s) for r, s in own]) for x in rows for y in columns]
                        for n in samples
                    ],
                    [stream([weight[filters, c, r, s] for r, s in own]) for c in range(len(channels))],
                )


def tensordash_cycles(layer, which, machine, first_on_rows):
    """Cycles of a pass on a TensorDash with stride phases and without space_to_depth, tile after tile."""
    search = machine.lookahead_h, machine.lookaside_d, machine.search_map
    cycles = 0

    def schedule(own, visit):
        pairs = own if machine.skipping == "one_sided" else np.concatenate(own[:, None] & visit)
        return dynamic_schedule(pairs.swapaxes(0, 1), *search, machine.free_skip_at_start, machine.window_ports)[0]

    for firsts, second in training_streams(layer, which, machine.lanes):
        blocks, repeats = (firsts, [second]) if first_on_rows else ([second], firsts)
        # Samples run one after another; taps of a weight gradient share the tiles.
        runs = blocks if which != "weight_grad" else [[stream for block in blocks for stream in block]]
        visits = [
            np.array(block[i : i + machine.columns]) for block in repeats for i in range(0, len(block), machine.columns)
        ]
        for run in runs:
            size = len(blocks[0])  # streams of different blocks never share a tile
            starts = [b + i for b in range(0, len(run), size) for i in range(0, size, machine.rows)]
            sets = [np.array(run[i : min(i + machine.rows, i // size * size + size)]) for i in starts]
            took = [[schedule(own, visit) for own in sets] for visit in visits]
            for visit in took:
                slowest = [max(visit[i : i + machine.tiles]) for i in range(0, len(visit), machine.tiles)]
                cycles += sum(slowest) + machine.pipeline_drain_cycles * sum(most > 0 for most in slowest)
    return cycles


def compressed_cycles(mask, lanes, window):
    """Cambricon-X's cycles of one filter: each takes the next ``lanes`` non-zeros among the next ``window`` inputs."""
    ahead, cycles = list(mask), 0
    while any(ahead):
        cycles += 1
        taken = [place for place, there in enumerate(ahead[:window]) if there][:lanes]
        del ahead[: taken[-1] + 1 if len(taken) == lanes else window]
    return cycles


def banks_with_queues(pairs, depth, update_cycles=1):
    """Cycles until the products of all pairs of vectors are in their banks; each pair is its products for each bank.

    A cycle: if none of the last pair's products waits outside, the next pair is multiplied. Each bank takes one, the
    head of its queue or else what has just come, in the last of the ``update_cycles`` that each costs it. What is left
    enters its queue while that holds fewer than ``depth``.
    """
    waiting, outside, queues, busy, cycles = [list(pair) for pair in pairs], [], [], [], 0
    while waiting or any(outside) or any(queues):
        if waiting and not any(outside):
            outside = waiting.pop(0)
            queues, busy = queues or [0] * len(outside), busy or [0] * len(outside)
        for bank in range(len(queues)):
            busy[bank] += queues[bank] + outside[bank] > 0
            if busy[bank] == update_cycles:
                (queues if queues[bank] else outside)[bank] -= 1
                busy[bank] = 0
            while outside[bank] and queues[bank] < depth:
                outside[bank] -= 1
                queues[bank] += 1
        cycles += 1
    return cycles
