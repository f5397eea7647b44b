"""SCNN's PE as a circuit, with queues before its banks or without (the PE array's), and the jobs that it is given.

A job is what a PE does between two barriers: for SCNN all channels of a filter group, for the PE array one. The weight
gradient has none: by the rules of the count its products never meet in a bank, and in these banks they would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware.accelerators.pe_array.mapping import bank, tile_edges
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.accelerators.scnn import SCNN
from accelsim.hardware.machine import Machine
from accelsim.rtl.circuit import SUM_BITS, Circuit, value_bits
from accelsim.rtl.job import Job, as_bytes, numbers
from accelsim.workload.lowering import Convolution, pad

NEEDED, ITEM_WORDS = 256, 5  # a bit of an item that is there; words of 16 bits of an item
MOST_ENTRIES = 1 << 12
SLACK = 16  # a bank's addresses for each of its accumulators: halo, and halves of a tile's border


@dataclass(frozen=True, eq=False)
class Listed:
    """Non-zeros that a PE lists, with their coordinates: rows, columns, filters (of weights), values."""

    row: np.ndarray
    column: np.ndarray
    k: np.ndarray
    value: np.ndarray


class ScatterTwin:
    """A PE that multiplies vectors all with all and scatters the products; what SCNN and the PE array share."""

    def __init__(self, machine: Machine, accelerator: SCNN | PEArray):
        self.machine, self.accelerator, self.bits = machine, accelerator, value_bits(machine)

    @property
    def strided_input_grad(self) -> str:
        """As the machine has it."""
        return self.accelerator.strided_input_grad

    @property
    def _queue(self) -> int:
        return self.accelerator.queue_depth if isinstance(self.accelerator, SCNN) else 0

    @property
    def _drain(self) -> int:
        return self.accelerator.pipeline_drain_cycles

    @property
    def _entries(self) -> int:
        """Addresses of a bank, a power of two."""
        wanted = SLACK * max(1, self.accelerator.accumulators // self.accelerator.banks)
        return min(MOST_ENTRIES, 1 << (wanted - 1).bit_length())

    @property
    def circuit(self) -> Circuit:
        """What is built."""
        a = self.accelerator
        given: dict[str, int | str] = {
            "I": a.activation_width, "F": a.weight_width, "WIDTH": self.bits, "SUM": 2 * self.bits + SUM_BITS,
            "BANKS": a.banks, "BANK_BITS": a.banks.bit_length() - 1, "QUEUE": self._queue,
            "CYCLES": a.update_cycles, "ENTRIES": self._entries,
            "DRAIN": self._drain,
        }  # fmt: skip
        return Circuit(
            name=self.machine.name, tile="scnn_pe", files=("scnn_pe.sv", "bank.sv"), parameters=given,
            line_bits=(a.activation_width + a.weight_width) * 16 * ITEM_WORDS, ports=1,
            sum_bits=2 * self.bits + SUM_BITS, entry_bits=48, fetches=True, drain_cycles=self._drain,
        )  # fmt: skip

    def lacks(self, which: str) -> str:
        """The weight gradient, for what is counted of it no bank does."""
        if which != "weight_grad":
            return ""
        return "weight_grad has no circuit: by the rules of the count no two of its products meet in a bank"

    def count(self, conv: Convolution) -> int:
        """Jobs of a convolution; none of a weight gradient."""
        return 0 if self.lacks(conv.which) else int(np.prod(self.sizes(conv)))

    def _edges(self, conv: Convolution) -> tuple[np.ndarray, np.ndarray]:
        a = self.accelerator
        return a.edges(conv) if isinstance(a, SCNN) else tile_edges(conv.geometry.padded, a.tile(conv))

    def _phases(self, conv: Convolution) -> tuple[int, int]:
        return conv.stride if isinstance(self.accelerator, SCNN) else self.accelerator.phases(conv)

    def sizes(self, conv: Convolution) -> tuple[int, ...]:
        """Samples, groups, rows and columns of PEs, filter groups, and what of the channels a job has."""
        rows, columns = self._edges(conv)
        filters = len(conv.kernel) // conv.groups
        groups = -(-filters // self.accelerator.filters_per_group(conv))
        parts = 1 if isinstance(self.accelerator, SCNN) else conv.kernel.shape[1]
        return conv.samples, conv.groups, rows.size - 1, columns.size - 1, groups, parts

    def jobs(self, conv: Convolution, chosen: np.ndarray, rng: np.random.Generator) -> Iterator[Job]:
        """Those with these numbers; their cycles as the model counts them for this PE alone."""
        rows, columns = self._edges(conv)
        before, cycles = (-1,) * 4, np.empty(0)
        for at in np.stack(np.unravel_index(chosen, self.sizes(conv)), axis=1).tolist():
            n, group, i, j, filter_group, part = at
            if tuple(at[:4]) != before:
                before = n, group, i, j
                cycles = self.accelerator.scatter_cycles(conv, n, group, (rows[i : i + 2], columns[j : j + 2]))[0]
            took = int(cycles[filter_group] if cycles.ndim == 1 else cycles[filter_group, part])
            where = f"sample {n}, group {group}, PE {i},{j}, filter group {filter_group}"
            channels = range(conv.kernel.shape[1]) if cycles.ndim == 1 else range(part, part + 1)
            where += "" if cycles.ndim == 1 else f", channel {part}"
            tile = slice(rows[i], rows[i + 1]), slice(columns[j], columns[j + 1])
            yield self._job(conv, where, took, (n, group, filter_group), tile, channels, rng)

    def _job(
        self, conv: Convolution, where: str, cycles: int, at: tuple[int, int, int], tile: tuple[slice, slice],
        channels: range, rng: np.random.Generator,
    ) -> Job:  # fmt: skip
        n, group, filter_group = at
        per_group, filters = self.accelerator.filters_per_group(conv), len(conv.kernel) // conv.groups
        first = group * filters + filter_group * per_group
        last = group * filters + min(filters, (filter_group + 1) * per_group)
        padded = pad(conv.input[n, group * conv.kernel.shape[1] :][: conv.kernel.shape[1]], conv.padding)
        parts = []
        for c in channels:
            acts = numbers(padded[c, tile[0], tile[1]], self.bits, rng)
            weights = numbers(conv.kernel[first:last, c], self.bits, rng)
            parts += self._meetings(conv, acts, weights, (tile[0].start, tile[1].start), first)
        layout = _Layout.of(conv, tile, first, last)
        if layout.most > self._entries:
            raise MachineError(f"{self.machine.name}: {where}: a bank of the circuit has {self._entries} addresses, "
                               f"needed are {layout.most}")  # fmt: skip
        lines = [self._pairs(conv, *part, layout) for part in parts]
        width = (self.accelerator.activation_width + self.accelerator.weight_width) * ITEM_WORDS
        beats = np.concatenate([np.empty((0, width), np.int16), *lines])
        places, sums = layout.summed(conv, parts)
        entry = as_bytes(np.array([[*conv.geometry.output, layout.pitch]], np.int16))
        counts = [(part[0].value.size, part[1].value.size) for part in parts]
        return Job(where, cycles, as_bytes(beats), entry, places, sums, lambda: _shown(counts))

    def _meetings(
        self, conv: Convolution, acts: np.ndarray, weights: np.ndarray, corner: tuple[int, int], first: int
    ) -> list[tuple[Listed, Listed]]:
        """What meets what in a channel, phase by phase: activations row-major, weights in the order r, s, k."""
        phases, (d, d2) = self._phases(conv), conv.dilation
        x, y = np.nonzero(acts)
        r, s, k = np.nonzero(weights.transpose(1, 2, 0))
        values = weights.transpose(1, 2, 0)[r, s, k]
        of_acts = Listed(x + corner[0], y + corner[1], np.zeros_like(x), acts[x, y])
        of_weights = Listed(r * d, s * d2, k + first, values)
        meetings = []
        for phase in np.ndindex(*phases):
            met = [
                _of(listed, (listed.row % phases[0] == phase[0]) & (listed.column % phases[1] == phase[1]))
                for listed in (of_acts, of_weights)
            ]
            if met[0].value.size and met[1].value.size:
                meetings.append((met[0], met[1]))
        return meetings

    def _pairs(self, conv: Convolution, acts: Listed, weights: Listed, layout: _Layout) -> np.ndarray:
        """Every pair of vectors, activations outside, weights inside: (pairs, words)."""
        a = self.accelerator
        first = _vectors(_items(acts, conv.stride, layout.of_activations(conv, acts)), a.activation_width)
        second = _vectors(_items(weights, conv.stride, layout.of_weights(conv, weights)), a.weight_width)
        outside = first.repeat(len(second), axis=0)
        return np.concatenate([outside, np.tile(second, (len(first), 1))], axis=1)


@dataclass(frozen=True)
class _Layout:
    """Where partial sums of a job are in their banks: by halves of their coordinates, for a bank's number has the rest.

    An address is (k div 8)·area + (p div 2)·pitch + q div 2, each less its first.
    """

    first: int
    row: int
    column: int
    pitch: int
    area: int
    most: int

    @classmethod
    def of(cls, conv: Convolution, tile: tuple[slice, slice], first: int, last: int) -> _Layout:
        """Of the outputs that a tile of the padded input may reach."""
        spans = []
        for of_tile, extent, st, out in zip(
            tile, conv.geometry.kernel_extent, conv.stride, conv.geometry.output, strict=True
        ):
            low = min(out - 1, max(0, -(-(of_tile.start - extent + 1) // st)))
            high = min(out - 1, max(low, (of_tile.stop - 1) // st))
            spans.append((low // 2, high // 2))
        (row, last_row), (column, last_column) = spans
        pitch, rows = last_column - column + 1, last_row - row + 1
        return cls(first // 8, row, column, pitch, rows * pitch, (((last - 1) // 8) - first // 8 + 1) * rows * pitch)

    def of_activations(self, conv: Convolution, acts: Listed) -> np.ndarray:
        """Their part of the addresses."""
        x, y = acts.row // conv.stride[0], acts.column // conv.stride[1]
        part: np.ndarray = (x // 2 - self.row) * self.pitch + y // 2 - self.column
        return part

    def of_weights(self, conv: Convolution, weights: Listed) -> np.ndarray:
        """Theirs."""
        r, s = weights.row // conv.stride[0], weights.column // conv.stride[1]
        part: np.ndarray = (weights.k // 8 - self.first) * self.area - r // 2 * self.pitch - s // 2
        return part

    def summed(self, conv: Convolution, parts: list[tuple[Listed, Listed]]) -> tuple[np.ndarray, np.ndarray]:
        """The places of all partial sums that a product reaches, and what they must be."""
        places, products = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        out = conv.geometry.output
        for acts, weights in parts:
            (p, beside_p), (q, beside_q) = (
                np.divmod(of_acts[:, None] - of_weights, st)
                for of_acts, of_weights, st in zip(
                    (acts.row, acts.column), (weights.row, weights.column), conv.stride, strict=True
                )
            )
            needed = (beside_p == 0) & (beside_q == 0) & (p >= 0) & (p < out[0]) & (q >= 0) & (q < out[1])
            k = np.broadcast_to(weights.k, p.shape)[needed]
            p, q = p[needed], q[needed]
            address = (k // 8 - self.first) * self.area + (p // 2 - self.row) * self.pitch + q // 2 - self.column
            places.append(address * 32 + _bank(k, p, q))
            products.append((acts.value.astype(np.int64)[:, None] * weights.value)[needed])
        known, of = np.unique(np.concatenate(places), return_inverse=True)
        sums = np.zeros(known.size, np.int64)
        np.add.at(sums, of.ravel(), np.concatenate(products))
        return known.astype(np.int32), sums


def _bank(k: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """``bank`` of many filters too, which differ by what it gives with (0, 0)."""
    numbers: np.ndarray = ((k & 4) << 2) ^ (k & 3) ^ bank(0, p, q)
    return numbers


def _of(listed: Listed, chosen: np.ndarray) -> Listed:
    return Listed(listed.row[chosen], listed.column[chosen], listed.k[chosen], listed.value[chosen])


def _items(listed: Listed, stride: tuple[int, int], addresses: np.ndarray) -> np.ndarray:
    """Non-zeros as the PE reads them: (items, words)."""
    (x, beside_x), (y, beside_y) = np.divmod(listed.row, stride[0]), np.divmod(listed.column, stride[1])
    about = NEEDED | beside_x << 4 | beside_y | (listed.k & 7) << 9
    value = listed.value.astype(np.int64)
    return np.stack([value, x, y, about, addresses], axis=1).astype(np.int16)


def _vectors(items: np.ndarray, width: int) -> np.ndarray:
    """(items, words) → (vectors, width · words), what is missing of the last one not there."""
    whole = np.zeros((-(-len(items) // width) * width, ITEM_WORDS), np.int16)
    whole[: len(items)] = items
    return whole.reshape(-1, width * ITEM_WORDS)


def _shown(counts: list[tuple[int, int]]) -> str:
    return "\n".join(f"{acts:4} activations × {weights:4} weights" for acts, weights in counts)
