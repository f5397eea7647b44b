"""What the PE array reads, multiplies and adds up: docs/model.md and docs/actions.md."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np

from .lowering import Problem
from .moved import Moved, Operand, Part, one_after_another

BAND_VALUES = 65536


def up(a: int, b: int) -> int:
    return -(-a // b)


def pe_array(machine: dict, problem: Problem) -> Moved:
    """All three passes, of `pe_array` and of `scnn`."""
    if problem.which == "weight_grad":
        return _weight_grad(machine, problem)
    return _convolution(machine, problem)


def _share(machine, sizes) -> tuple[int, int]:
    return up(sizes[0], machine["pe_rows"]), up(sizes[1], machine["pe_columns"])


def _used(machine, sizes) -> int:
    """PEs that own a part of a map."""
    tile = _share(machine, sizes)
    return up(sizes[0], tile[0]) * up(sizes[1], tile[1])


def _convolution(machine, problem) -> Moved:
    """Samples × groups × filter groups × parts of the channels, and a halo exchange that reads nothing."""
    samples, groups = len(problem.padded), problem.groups
    filters, channels = len(problem.kernel) // groups, problem.kernel.shape[1]
    together, used, without = _layout(machine, problem)
    all_places = problem.places[0] * problem.places[1]
    first = "activation" if problem.which == "fwd" else "gradient"
    acts, weights = Operand(first, "activation", used, 1), Operand("weight", "weight", 1, used)
    moved = Moved([acts, weights], [], [], True, {}, [])
    pairs = products = 0
    blocks = [
        problem.kernel[g * filters + k : g * filters + min(k + together, filters)]
        for g in range(groups) for k in range(0, filters, together)
    ]  # fmt: skip
    per_part = max(1, 256 // (together * problem.taps[0] * problem.taps[1])) if machine["model"] == "scnn" else 1
    parts = [range(channels)[c : c + per_part] for c in range(0, channels, per_part)]
    weights.parts = [Part.of(block[:, part].transpose(1, 2, 3, 0)) for block in blocks for part in parts]
    acts.parts = [
        Part.of(problem.held[n, [g * channels + c for c in part]])
        for n, g, part in product(range(samples), range(groups), parts)
    ]
    per_group = len(blocks) // groups
    for n, g, k in product(range(samples), range(groups), range(per_group)):
        block = blocks[g * per_group + k]
        for number, part in enumerate(parts):
            acts.uses.append((n * groups + g) * len(parts) + number)
            weights.uses.append((g * per_group + k) * len(parts) + number)
            moved.results.append(0)
            moved.spilled.append(without if number < len(parts) - 1 else 0)
            for c in part:
                of_pair = _pairs(machine, problem, problem.padded[n, g * channels + c], block[:, c])
                pairs, products = pairs + of_pair[0], products + of_pair[1]
        for operand in moved.operands:
            operand.uses.append(None)
        moved.results.append(len(block) * all_places)
        moved.spilled.append(0)
        moved.sample += [n] * (len(parts) + 1)
    moved.counts = _counts(machine, pairs, products, _effectual(problem))
    return moved


def _layout(machine, problem) -> tuple[int, int, int]:
    """Filters of a group, PEs with a part of the map, partial sums that spill."""
    places = _share(machine, problem.places)
    if machine["model"] == "scnn":
        rows, columns = (
            tile + (taps - 1) * d // st
            for tile, taps, d, st in zip(places, problem.taps, problem.dilation, problem.stride, strict=True)
        )
        filters = len(problem.kernel) // problem.groups
        together = min(machine["group_filters"], machine["accumulators"] // (rows * columns), filters)
        return max(1, together), _used(machine, problem.places), 0
    without = max(0, places[0] * places[1] - machine["accumulators"]) * _used(machine, problem.places)
    return machine["accumulators"] // (places[0] * places[1]) or 1, _used(machine, problem.padded.shape[2:]), without


def _owners(machine, problem, channel, place) -> tuple[int, int]:
    """The PE that has a place of the padded input."""
    if machine["model"] == "pe_array":
        return tuple(at // tile for at, tile in zip(place, _share(machine, channel.shape), strict=True))
    found = []
    for at, size, out, tile, st in zip(
        place, channel.shape, problem.places, _share(machine, problem.places), problem.stride, strict=True
    ):
        before = (up(size, st) - out) // 2
        found.append(min(max((at // st - before) // tile, 0), up(out, tile) - 1))
    return tuple(found)


def _pairs(machine, problem, channel, weights) -> tuple[int, int]:
    """Of a channel in all PEs: pairs of vectors, and products."""
    st = problem.stride if machine.get("stride_phases", True) else (1, 1)
    acts = Counter(
        (*_owners(machine, problem, channel, (x, y)), x % st[0], y % st[1]) for x, y in np.argwhere(channel).tolist()
    )
    there: Counter[tuple[int, int]] = Counter()
    for _, r, s in np.argwhere(weights).tolist():
        there[r * problem.dilation[0] % st[0], s * problem.dilation[1] % st[1]] += 1
    pairs = products = 0
    for (_, _, *phase), own in acts.items():
        met = there[tuple(phase)]
        pairs += up(own, machine["activation_width"]) * up(met, machine["weight_width"])
        products += own * met
    return pairs, products


def _effectual(problem) -> int:
    """Products of two non-zeros that an output takes."""
    total, filters = 0, len(problem.kernel) // problem.groups
    for (p, q), (r, s) in product(problem.every_place(), problem.every_tap()):
        element = problem.element(p, q, r, s)
        for g in range(problem.groups):
            kernel = problem.kernel[g * filters : (g + 1) * filters, :, r, s]
            own = element[:, g * kernel.shape[1] : (g + 1) * kernel.shape[1]]
            total += int(own.sum(axis=0) @ kernel.sum(axis=0))
    return total


def _counts(machine, pairs, products, updates) -> dict[str, int]:
    return {
        "multiplications": products,
        "accumulator_updates": updates,
        "activation_buffer_reads": pairs * machine["activation_width"],
        "weight_buffer_reads": pairs * machine["weight_width"],
    }


def _multiple(size: int, width: int) -> int:
    """The largest multiple up to a size, or the size where that is none."""
    return size // width * width or size


def _blocks(machine, channels, filters) -> tuple[int, int]:
    side = min(channels, _multiple(int(np.sqrt(machine["accumulators"])), machine["activation_width"]))
    of_filters = min(filters, _multiple(machine["accumulators"] // side, machine["weight_width"]))
    return min(channels, _multiple(machine["accumulators"] // of_filters, machine["activation_width"])), of_filters


def _weight_grad(machine, problem) -> Moved:
    """Groups × taps × channel blocks × filter blocks × bands; in the end a reduction that reads nothing."""
    groups, used = problem.groups, _used(machine, problem.places)
    channels, filters = problem.held.shape[1] // groups, problem.gradient.shape[1] // groups
    block_c, block_k = _blocks(machine, channels, filters)
    all_moved = []
    for g in range(groups):
        held = problem.held[:, g * channels : (g + 1) * channels].swapaxes(0, 1)
        gradient = problem.gradient[:, g * filters : (g + 1) * filters].swapaxes(0, 1)
        of_c = [held[c : c + block_c] for c in range(0, channels, block_c)]
        of_k = [gradient[k : k + block_k] for k in range(0, filters, block_k)]
        rows = up(problem.places[0], machine["pe_rows"])
        bands = min(up(max(of_c[0].size, of_k[0].size), BAND_VALUES), rows)
        acts, grads = Operand("activation", "activation", used, 1), Operand("gradient", "weight", used, 1)
        for operand, blocks in ((acts, of_c), (grads, of_k)):
            operand.parts = [Part.of(_band(machine, block, band, bands)) for block in blocks for band in range(bands)]
        moved = Moved([acts, grads], [], [], True, {})
        pairs = products = 0
        for (r, s), c, k in product(problem.every_tap(), range(len(of_c)), range(len(of_k))):
            for band in range(bands):
                acts.uses.append(c * bands + band)
                grads.uses.append(k * bands + band)
                moved.results.append(len(of_c[c]) * len(of_k[k]) if band == bands - 1 else 0)
                moved.spilled.append(0)
            for p, q in problem.every_place():
                first = g * channels + c * block_c
                a = problem.element(p, q, r, s)[:, first : first + len(of_c[c])].sum(axis=1)
                b = of_k[k][:, :, p, q].sum(axis=0)
                pairs += int((up(a, machine["activation_width"]) * up(b, machine["weight_width"])).sum())
                products += int(a @ b)
        moved.counts = _counts(machine, pairs, products, products)
        all_moved.append(moved)
    whole = one_after_another(all_moved)
    for operand in whole.operands:
        operand.uses.append(None)
    whole.results.append(0)
    whole.spilled.append(0)
    return whole


def _band(machine, block, band, bands) -> np.ndarray:
    """Of every PE's tile the rows at the same share of its height."""
    tile = up(block.shape[2], machine["pe_rows"])
    return block[:, :, [x for x in range(block.shape[2]) if x % tile * bands // tile == band]]
