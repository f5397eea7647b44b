"""The PE array's schedule executed with numbers, product by product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.pe_array.mapping import Mapping, bank, operands, used_pes
from accelsim.workload.lowering import Convolution, pad


def replay_convolution(array: Mapping, conv: Convolution, film: Film | None) -> tuple[np.ndarray, int]:
    """Steps 1 to 4 of docs/model.md, "The PE array", one vector pair after another."""
    g, phases, tile = conv.geometry, array.phases(conv), array.tile(conv)
    filters, channels, per_group = len(conv.kernel) // conv.groups, conv.kernel.shape[1], array.filters_per_group(conv)
    out = np.zeros((conv.samples, g.filters, *g.output), np.result_type(conv.input, conv.kernel))
    padded = pad(conv.input, conv.padding)
    cycles = 0
    for n, group in np.ndindex(conv.samples, conv.groups):
        for first in range(0, filters, per_group):
            numbers = range(group * filters + first, group * filters + min(filters, first + per_group))
            for c in range(channels):
                own: dict[tuple[int, int], list[_Pair]] = {(i, j): [] for i, j in np.ndindex(*array.grid)}
                for i, j in own:
                    rows, columns = (
                        range(at * t, min((at + 1) * t, size))
                        for at, t, size in zip((i, j), tile, g.padded, strict=True)
                    )
                    for phase in np.ndindex(*phases):
                        acts = [
                            (x, y, padded[n, group * channels + c, x, y])
                            for x in rows for y in columns
                            if padded[n, group * channels + c, x, y] and (x % phases[0], y % phases[1]) == phase
                        ]  # fmt: skip
                        weights = [
                            (r * conv.dilation[0], s * conv.dilation[1], k, conv.kernel[k, c, r, s])
                            for r, s in np.ndindex(*g.kernel) for k in numbers
                            if conv.kernel[k, c, r, s]
                            and (r * conv.dilation[0] % phases[0], s * conv.dilation[1] % phases[1]) == phase
                        ]  # fmt: skip
                        for a in range(0, len(acts), array.activation_width):
                            for w in range(0, len(weights), array.weight_width):
                                pair = _multiply(
                                    array, conv, acts[a : a + array.activation_width],
                                    weights[w : w + array.weight_width], out[n],
                                )  # fmt: skip
                                own[i, j].append(pair)
                took = int(array.drained(np.array(max(sum(pair.cycles for pair in pairs) for pairs in own.values()))))
                cycles += took
                if film is not None:
                    note = f"channel {c} of {channels}, filters {numbers[0]}–{numbers[-1]}, sample {n}"
                    _shoot(film, array, used_pes(g.padded, tile), took, own, note)
            exchanged = array.halo_cycles(conv, len(numbers))
            cycles += exchanged
            if film is not None:
                film.shoot(exchanged, array.multipliers, cause="exchange", note="the halo goes to the neighbours")
    return out, cycles


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two vectors multiplied: the cycles that the banks need, and which products land, (activations, weights)."""

    cycles: int
    lands: np.ndarray


def _shoot(
    film: Film,
    array: Mapping,
    used: tuple[int, int],
    cycles: int,
    own: dict[tuple[int, int], list[_Pair]],
    note: str,
) -> None:
    """Films what lies between two barriers."""
    grid = *array.grid, array.activation_width, array.weight_width
    shot = film.shoot(cycles, *grid, cause="edge", note=note)
    shot[:, : used[0], : used[1]] = film["barrier"]
    for pe, pairs in own.items():
        cycle = 0
        for pair in pairs:
            shot[cycle : cycle + pair.cycles, pe[0], pe[1]] = film["bank_conflict"]
            shoot_pair(film, shot[cycle, pe[0], pe[1]], pair.lands)
            cycle += pair.cycles


def shoot_pair(film: Film, slots: np.ndarray, lands: np.ndarray) -> None:
    """Films a cycle of a PE, (activation_width, weight_width): products that an output takes, others, and none."""
    slots[:] = film["imbalance"]
    slots[: lands.shape[0], : lands.shape[1]] = np.where(lands, film["effectual"], film["ineffectual"])


def _multiply(
    array: Mapping,
    conv: Convolution,
    acts: list[tuple[int, int, Any]],
    weights: list[tuple[int, int, int, Any]],
    out: np.ndarray,
) -> _Pair:
    """All products of two vectors into their accumulators."""
    loads, lands = [0] * array.banks, np.zeros((len(acts), len(weights)), bool)
    for i, (x, y, activation) in enumerate(acts):
        for j, (r, s, k, weight) in enumerate(weights):
            (p, beside_p), (q, beside_q) = divmod(x - r, conv.stride[0]), divmod(y - s, conv.stride[1])
            if not beside_p and not beside_q and 0 <= p < out.shape[1] and 0 <= q < out.shape[2]:
                out[k, p, q] += activation * weight
                loads[bank(k, p, q) % array.banks] += 1
                lands[i, j] = True
    return _Pair(max(1, max(loads) * array.update_cycles), lands)


def replay_weight_grad(array: Mapping, conv: Convolution, film: Film | None) -> tuple[np.ndarray, int]:
    """The weight gradient of docs/model.md: outer products at each place, barriers as ``run`` has them."""
    groups, cycles, reduction = [], 0, 0
    places, tile = conv.kernel.shape[2:], array.share(conv.kernel.shape[2:])
    used = used_pes(places, tile)
    for activations, gradients in operands(conv):
        out = np.zeros(
            (len(activations), len(gradients), *conv.geometry.output), np.result_type(conv.input, conv.kernel)
        )
        block_c, block_k = array.weight_grad_blocks(len(activations), len(gradients))
        for r, s in np.ndindex(*conv.geometry.output):
            for c in range(0, len(activations), block_c):
                for k in range(0, len(gradients), block_k):
                    meetings = gradients.shape[1] if array.sample_barrier else 1
                    own: list[dict[tuple[int, int], list[_Pair]]] = [
                        {(i, j): [] for i, j in np.ndindex(*array.grid)} for _ in range(meetings)
                    ]
                    for n, p, q in np.ndindex(*gradients.shape[1:]):
                        x, y = p * conv.dilation[0] + r * conv.stride[0], q * conv.dilation[1] + s * conv.stride[1]
                        acts, grads = activations[c : c + block_c, n, x, y], gradients[k : k + block_k, n, p, q]
                        vectors = [np.flatnonzero(acts), np.flatnonzero(grads)]
                        for a in range(0, vectors[0].size, array.activation_width):
                            for b in range(0, vectors[1].size, array.weight_width):
                                of_c = vectors[0][a : a + array.activation_width]
                                of_k = vectors[1][b : b + array.weight_width]
                                out[np.ix_(c + of_c, k + of_k, [r], [s])] += np.outer(acts[of_c], grads[of_k])[
                                    ..., None, None
                                ]
                                lands = np.ones((of_c.size, of_k.size), bool)
                                own[n % meetings][p // tile[0], q // tile[1]].append(_Pair(1, lands))
                    for meeting in own:
                        took = int(array.drained(np.array(max(map(len, meeting.values())))))
                        cycles += took
                        if film is not None:
                            note = f"tap ({r}, {s}), channels from {c}, filters from {k}"
                            _shoot(film, array, used, took, meeting, note)
        reduction += array.reduction_cycles(conv, len(activations), len(gradients), used)
        groups.append(out)
    samples = conv.kernel.shape[1]
    reduction = -(-reduction * samples // max(samples, conv.batch))
    if film is not None:
        film.shoot(reduction, array.multipliers, cause="exchange", note="PEs add up their partial weight gradients")
    return np.concatenate(groups, axis=1), cycles + reduction
