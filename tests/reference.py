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


def executed_lines(weights, lookahead, search_map):
    """Bit-Tactical's schedule of one set, (lines, rows, lanes) booleans, as docs/model.md words it."""
    lines, rows, lanes = weights.shape
    left = np.concatenate([weights, np.zeros((lookahead + 1, rows, lanes), bool)])
    executed = dropped = 0
    for t in range(lines):
        if not left[t].any() and dropped < lookahead:
            dropped += 1
            continue
        executed, dropped = executed + 1, 0
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
                line, other = candidates[lane][0]
                left[line, row, other] = False
                empty.remove(lane)
    return executed


def compressed_cycles(mask, lanes, window):
    """Cambricon-X's cycles of one filter: each takes the next ``lanes`` non-zeros among the next ``window`` inputs."""
    ahead, cycles = list(mask), 0
    while any(ahead):
        cycles += 1
        taken = [place for place, there in enumerate(ahead[:window]) if there][:lanes]
        del ahead[: taken[-1] + 1 if len(taken) == lanes else window]
    return cycles


def serial_cycles(source, rows, longest):
    """Bit-serial Bit-Tactical: each executed line of a set takes the longest value that its weights meet in a visit."""
    sets = [source[first : first + rows] for first in range(0, len(source), rows)]
    cycles, filled = np.zeros((2, len(sets), longest.shape[1]), int)
    for s, filters in enumerate(sets):
        for line in filters.swapaxes(0, 1):
            if (line != -2).all():
                places = line[line >= 0]
                for v in range(longest.shape[1]):
                    took = max([1, *longest[places, v].tolist()])
                    cycles[s, v] += took
                    filled[s, v] += took * places.size
    return cycles, filled
