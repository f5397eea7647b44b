"""What the PE array moves. A job is a channel of a filter group, or a pair of blocks of the weight gradient.

Activations are spread over the PEs, a tile each; weights go to every PE. Every activation of a part meets every weight
of the other, so one of the two must fit its buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from accelsim.hardware.accelerators.pe_array.mapping import Mapping
from accelsim.hardware.lines import tensor_on
from accelsim.hardware.movement.traffic import Traffic, joined, measured
from accelsim.workload.lowering import Convolution

# A block of more values than these is moved in bands.
BAND_VALUES = 1 << 16
# A plan takes about a kilobyte a job: channels of a layer with more jobs are moved several at a time.
MOST_JOBS = 1 << 18


def of_convolution(
    conv: Convolution,
    jobs: np.ndarray,
    weights: np.ndarray,
    used: tuple[int, int],
    per_group: int,
    *,
    spilled_per_channel: int = 0,
    block: int = 1,
) -> Traffic:
    """Forward pass and input gradient: ``weights`` is bool[groups, C, R·S, K], ``used`` the rows and columns of PEs
    that own a part of the map. Jobs: samples × groups × filter groups × (blocks of channels, and the halo exchange)."""
    groups, channels, _, filters = weights.shape
    firsts, blocks = range(0, filters, per_group), -(-channels // block)
    shape = (conv.samples, groups, len(firsts), blocks + 1)
    sample, group, filter_group, number = np.indices(shape)
    halo = number == blocks
    held = conv.stored.reshape(conv.samples * groups, channels, -1)
    activation = np.where(halo, -1, (sample * groups + group) * blocks + number).ravel()
    weight = np.where(halo, -1, (group * len(firsts) + filter_group) * blocks + number).ravel()
    of_groups = (of_group[..., k : k + per_group] for of_group in weights for k in firsts)
    counts = np.array([min(per_group, filters - k) for k in firsts])
    places = conv.geometry.output[0] * conv.geometry.output[1]
    return Traffic(
        jobs,
        (
            measured(
                tensor_on(conv.which, "input"), "activation", _in_blocks(held, block), activation,
                units=used[0] * used[1],
            ),
            measured("weight", "weight", _in_blocks(of_groups, block), weight, copies=used[0] * used[1]),
        ),
        np.where(halo, counts[filter_group] * places, 0).ravel(),
        # After a group's last channel they are results.
        np.where(number < blocks - 1, spilled_per_channel, 0).ravel(),
        crossed=True,
        sample=sample.ravel(),
    )  # fmt: skip


def together(jobs: np.ndarray, channels: int) -> tuple[np.ndarray, int]:
    """Jobs of single channels, with each filter group's exchange behind them, as those of blocks; and channels in each.

    One, unless there are more than MOST_JOBS.
    """
    block = -(-jobs.size // MOST_JOBS)
    firsts = [*range(0, channels, block), channels]
    return np.add.reduceat(jobs.reshape(-1, channels + 1), firsts, axis=1).ravel(), block


def _in_blocks(values: Iterable[np.ndarray], block: int) -> Iterator[np.ndarray]:
    """Each (channels, …) in blocks of so many channels, the last one with what is left."""
    for of_channels in values:
        whole = len(of_channels) // block * block
        if whole:
            yield of_channels[:whole].reshape(whole // block, -1)
        if whole < len(of_channels):
            yield of_channels[whole:].reshape(1, -1)


def of_weight_grad(array: Mapping, conv: Convolution, jobs: np.ndarray, used: tuple[int, int]) -> Traffic:
    """The weight gradient, group by group: taps × channel blocks × filter blocks × bands; in the end the reduction.

    A pair of blocks walks the places of every PE's tile. Where a block is large its rows come in bands, the same share
    of each PE's tile at a time, and so do the cycles.
    """
    samples, filters = conv.kernel.shape[1], len(conv.kernel) // conv.groups
    taps = conv.geometry.output[0] * conv.geometry.output[1]
    blocks = array.weight_grad_blocks(len(conv.input), filters)
    per_group, pes = (jobs.size - 1) // conv.groups, used[0] * used[1]
    traffics = []
    for g in range(conv.groups):
        operands = conv.stored[:, g * samples : (g + 1) * samples], conv.kernel[g * filters : (g + 1) * filters]
        counts = [-(-len(values) // size) for values, size in zip(operands, blocks, strict=True)]
        largest = max(values[:size].size for values, size in zip(operands, blocks, strict=True))
        bands = min(-(-largest // BAND_VALUES), -(-conv.kernel.shape[2] // array.pe_rows))
        shape = (taps, *counts, bands)
        _, *of, band = np.indices(shape)
        names = ("activation", "activation"), ("gradient", "weight")
        moved = [
            measured(*name, _bands(values, size, bands, array.pe_rows), (block * bands + band).ravel(), units=pes)
            for name, values, size, block in zip(names, operands, blocks, of, strict=True)
        ]
        cycles = jobs[g * per_group : (g + 1) * per_group].reshape(*shape[:3], 1)
        cuts = cycles * np.arange(bands + 1) // bands
        sizes = [
            np.minimum(size, len(values) - block * size)
            for values, size, block in zip(operands, blocks, of, strict=True)
        ]
        result = np.where(band == bands - 1, sizes[0] * sizes[1], 0).ravel()
        traffics.append(Traffic(np.diff(cuts).ravel(), tuple(moved), result, np.zeros_like(result), crossed=True))
    return _with_reduction(joined(traffics), jobs[-1])


def _bands(values: np.ndarray, size: int, bands: int, pe_rows: int) -> Iterator[np.ndarray]:
    """Each block of channels or filters, band by band: rows at the same share of every PE's tile."""
    height = values.shape[2]
    tile = max(1, -(-height // pe_rows))  # memory holds nothing of what is padding alone
    of_row = np.arange(height) % tile * bands // tile
    for k in range(0, len(values), size):
        for band in range(bands):
            yield values[k : k + size, :, of_row == band].reshape(1, -1)


def _with_reduction(traffic: Traffic, cycles: int) -> Traffic:
    """A last job that reads nothing."""
    operands = tuple(replace(o, part=np.append(o.part, -1)) for o in traffic.operands)
    nothing = np.append(traffic.spilled, 0)
    return Traffic(
        np.append(traffic.job_cycles, cycles), operands, np.append(traffic.result, 0), nothing, traffic.crossed
    )
