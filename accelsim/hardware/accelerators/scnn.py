"""SCNN as its publication has it: queues before the accumulator banks, and PEs that meet where a filter group ends.

Parashar et al., "SCNN: An Accelerator for Compressed-sparse Convolutional Neural Networks", ISCA 2017. A PE owns a
tile of the output map and forms Cartesian products of its non-zero activations with a group's non-zero weights, channel
after channel without waiting for the others. ``pe_array`` is the machine of Table 6 with DNNsim's rules. docs/model.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from accelsim.hardware.accelerators.base import (
    STRIDED_INPUT_GRAD,
    Activity,
    DrainParameters,
    Unused,
)
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.pe_array.mapping import (
    CartesianPEs,
    bank,
    scattered,
    used_pes,
)
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.accelerators.pe_array.replay import shoot_pair
from accelsim.hardware.accelerators.pe_array.traffic import of_convolution
from accelsim.hardware.movement.traffic import Traffic
from accelsim.hardware.parameters import check, integer, option
from accelsim.workload.lowering import Convolution, pad

# Weights that come together, about what a PE's FIFO of 50 vectors of 4 holds.
FIFO_VALUES = 256


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two vectors that a PE multiplies: products for each bank, and which of them land, (activations, weights)."""

    banks: np.ndarray
    lands: np.ndarray


@dataclass(frozen=True, eq=False)
class _Cycle:
    """Of a PE: the pair that it multiplies, None where it waits, and products that are left in front of its banks."""

    pair: _Pair | None
    waiting: np.ndarray


class SCNN(CartesianPEs, DrainParameters):
    """pe_rows × pe_columns PEs of activation_width × weight_width multipliers that scatter products to queues."""

    model: Literal["scnn"]
    accumulators: int = integer(1, 1 << 24, "partial sums that a PE holds, halo included", unit="partial sums")
    group_filters: int = integer(1, 1 << 16, "filters of a group, Kc, at most; PEs meet where a group ends")
    queue_depth: int = integer(0, 126, "products that wait in front of a bank", unit="products")
    strided_input_grad: Literal["phase", "dilate"] = option(STRIDED_INPUT_GRAD)
    reduction_width: int = integer(
        0, 1 << 16, "partial weight gradients that a PE passes on per cycle when PEs add theirs up; 0: free",
        unit="partial sums/cycle",
    )  # fmt: skip
    sample_barrier: bool = option(
        "in the weight gradient PEs wait for each other at the end of each sample too, as pe_array's", default=False
    )

    @check
    def _counters_fit_a_byte(self) -> SCNN:
        if (self.activation_width * self.weight_width + self.queue_depth) * self.update_cycles > 127:
            raise ValueError(
                "(activation_width × weight_width + queue_depth) × update_cycles must be at most 127, "
                f"got ({self.activation_width} × {self.weight_width} + {self.queue_depth}) × {self.update_cycles}"
            )
        return self

    @property
    def outer_products(self) -> PEArray:
        """The same PEs as ``pe_array`` has them: what computes the weight gradient, whose products never collide."""
        return PEArray(
            model="pe_array", pe_rows=self.pe_rows, pe_columns=self.pe_columns,
            activation_width=self.activation_width, weight_width=self.weight_width, accumulators=self.accumulators,
            banks=self.banks, stride_phases=True, halo_exchange=False, strided_input_grad=self.strided_input_grad,
            reduction_width=self.reduction_width, sample_barrier=self.sample_barrier,
            pipeline_drain_cycles=self.pipeline_drain_cycles, update_cycles=self.update_cycles,
        )  # fmt: skip

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        if conv.which == "weight_grad":
            return self.outer_products.run(conv)
        edges, weights = self.edges(conv), scattered(conv, conv.stride, self.banks).weights
        cycles_of, work_of, totals = [], [], np.zeros(3, np.int64)
        for n, group in np.ndindex(conv.samples, conv.groups):
            cycles, work, seen = self.scatter_cycles(conv, n, group, edges)
            cycles_of.append(self.drained(cycles))
            work_of.append(work)
            totals += seen
        jobs = np.concatenate(cycles_of)
        return self._activity(conv, jobs, np.concatenate(work_of), weights, totals.tolist())

    def scatter_cycles(
        self, conv: Convolution, n: int, group: int, edges: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cycles of each filter group of a sample and group, of the slowest of the PEs between these edges.

        And what ``queued_cycles`` counts besides: their work channel by channel, and totals.
        """
        from accelsim.hardware.kernels.cartesian import activation_vectors
        from accelsim.hardware.kernels.queued import queued_cycles

        s = scattered(conv, conv.stride, self.banks, self.update_cycles)
        channels, filters = s.weights.shape[1], s.weights.shape[3]
        acts = pad(conv.input[n, group * channels : (group + 1) * channels], conv.padding) != 0
        vectors = activation_vectors(acts, edges, s.classes, conv.stride, s.counters, self.activation_width)
        cycles, work, totals = queued_cycles(
            *vectors, s.weights[group], group * filters, self.filters_per_group(conv), s.tap_phase, s.slot_mask,
            s.turn_bit, (self.activation_width, self.weight_width), self.queue_depth * self.update_cycles,
        )  # fmt: skip
        return cycles, work, totals

    def _activity(
        self, conv: Convolution, jobs: np.ndarray, work: np.ndarray, weights: np.ndarray, totals: list[int]
    ) -> Activity:
        """Slots by cause from counts over all PEs: pairs of vectors, cycles that each was busy, products executed."""
        pairs, own, products = totals
        pe, used = self.activation_width * self.weight_width, used_pes(conv.geometry.output, self.tile(conv))
        cycles, working = int(jobs.sum()), used[0] * used[1]
        slots = {
            "effectual": conv.effectual,
            "ineffectual": products - conv.effectual,
            "edge": cycles * (self.pe_rows * self.pe_columns - working) * pe,
            "imbalance": pairs * pe - products,
            "barrier": (cycles * working - own) * pe,
            "bank_conflict": (own - pairs) * pe,
        }
        accesses = {
            "multiplications": products,
            "activation_buffer_reads": pairs * self.activation_width,
            "weight_buffer_reads": pairs * self.weight_width,
            "accumulator_updates": conv.effectual,
        }
        return Activity(self.multipliers, jobs, slots, accesses, lambda: self._traffic(conv, jobs, work, weights))

    def _traffic(self, conv: Convolution, jobs: np.ndarray, work: np.ndarray, weights: np.ndarray) -> Traffic:
        """A filter group comes in blocks of channels, as many as fill a FIFO of weights; its cycles go by PEs' work.

        There is no exchange at the end of a group: it hides behind the next one.
        """
        per_group = self.filters_per_group(conv)
        block = max(1, FIFO_VALUES // (per_group * weights.shape[2]))
        done = np.cumsum(np.add.reduceat(work, range(0, work.shape[1], block), axis=1), axis=1)
        ends = jobs[:, None] * done // np.maximum(1, done[:, -1:])
        cycles = np.column_stack([np.diff(ends, axis=1, prepend=0), np.zeros_like(jobs)]).ravel()
        used = used_pes(conv.geometry.output, self.tile(conv))
        return of_convolution(conv, cycles, weights, used, per_group, block=block)

    def unused(self, conv: Convolution) -> Unused | None:
        """PEs that own no part of the output map; see ``Accelerator``."""
        return self.idle_pes(conv.kernel.shape[2:] if conv.which == "weight_grad" else conv.geometry.output)

    def tile(self, conv: Convolution) -> tuple[int, int]:
        """Rows and columns of the output map that a PE owns."""
        places = conv.geometry.output
        return -(-places[0] // self.pe_rows), -(-places[1] // self.pe_columns)

    def edges(self, conv: Convolution) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the padded input where the PEs' tiles begin, and its end.

        The tiles of the output are laid in the middle of the input, folded by the stride; what lies around belongs to
        the PEs at the border.
        """
        g = conv.geometry
        rows, columns = (
            np.concatenate([[0], (-(-size // st) - out) // 2 * st + np.arange(tile, out, tile) * st, [size]])
            for size, st, out, tile in zip(g.padded, conv.stride, g.output, self.tile(conv), strict=True)
        )
        return rows, columns

    def filters_per_group(self, conv: Convolution) -> int:
        """Filters whose partial sums a PE holds at once, Kc: at most ``group_filters``.

        Partial sums are those of the tile and its halo. One filter is taken also where they do not fit.
        """
        extents = [
            tile + (extent - 1) // st
            for tile, extent, st in zip(self.tile(conv), conv.geometry.kernel_extent, conv.stride, strict=True)
        ]
        filters = len(conv.kernel) // conv.groups
        return max(1, min(self.group_filters, filters, self.accumulators // (extents[0] * extents[1])))

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers, the queues cycle by cycle; see ``Accelerator``."""
        if conv.which == "weight_grad":
            return self.outer_products.replay(conv, film)
        g, per_group, (rows, columns) = conv.geometry, self.filters_per_group(conv), self.edges(conv)
        filters = len(conv.kernel) // conv.groups
        out = np.zeros((conv.samples, g.filters, *g.output), np.result_type(conv.input, conv.kernel))
        cycles = 0
        for n, group, first in np.ndindex(conv.samples, conv.groups, -(-filters // per_group)):
            numbers = range(filters)[first * per_group : (first + 1) * per_group]
            ks = [group * filters + k for k in numbers]
            own: dict[tuple[int, int], list[_Cycle]] = {}
            for i, j in np.ndindex(rows.size - 1, columns.size - 1):
                tile = range(rows[i], rows[i + 1]), range(columns[j], columns[j + 1])
                own[i, j] = list(self._replay_banks(self._replay_pe(conv, n, group, ks, tile, out[n])))
            took = int(self.drained(np.array(max(map(len, own.values())))))
            cycles += took
            if film is not None:
                self._shoot(film, took, own, f"filters {ks[0]}–{ks[-1]} of sample {n}")
        return out, cycles

    def _replay_pe(
        self, conv: Convolution, n: int, group: int, ks: list[int], tile: tuple[range, range], out: np.ndarray
    ) -> list[_Pair]:
        """Every pair of vectors that a PE multiplies for a filter group."""
        channels, padded = conv.kernel.shape[1], pad(conv.input, conv.padding)
        (st, st2), (d, d2) = conv.stride, conv.dilation
        pairs = []
        for c, phase in np.ndindex(channels, st * st2):
            plane = padded[n, group * channels + c]
            acts = [
                (x, y, plane[x, y])
                for x in tile[0] for y in tile[1] if plane[x, y] and (x % st, y % st2) == divmod(phase, st2)
            ]  # fmt: skip
            weights = [
                (r * d, s * d2, k, conv.kernel[k, c, r, s])
                for r, s in np.ndindex(*conv.geometry.kernel) for k in ks
                if conv.kernel[k, c, r, s] and (r * d % st, s * d2 % st2) == divmod(phase, st2)
            ]  # fmt: skip
            for a in range(0, len(acts), self.activation_width):
                for w in range(0, len(weights), self.weight_width):
                    chosen = acts[a : a + self.activation_width], weights[w : w + self.weight_width]
                    pairs.append(self._multiply(*chosen, conv.stride, out))
        return pairs

    def _multiply(
        self,
        acts: list[tuple[int, int, Any]],
        weights: list[tuple[int, int, int, Any]],
        stride: tuple[int, int],
        out: np.ndarray,
    ) -> _Pair:
        """All products of two vectors into their accumulators."""
        pair = _Pair(np.zeros(self.banks, np.int64), np.zeros((len(acts), len(weights)), bool))
        for i, (x, y, activation) in enumerate(acts):
            for j, (r, s, k, weight) in enumerate(weights):
                p, q = (x - r) // stride[0], (y - s) // stride[1]
                if 0 <= p < out.shape[1] and 0 <= q < out.shape[2]:
                    out[k, p, q] += activation * weight
                    pair.banks[bank(k, p, q) % self.banks] += 1
                    pair.lands[i, j] = True
        return pair

    def _replay_banks(self, pairs: list[_Pair]) -> Iterator[_Cycle]:
        """Until all products are in their banks: a latch behind the multipliers, then a queue for each bank."""
        latch, queue, busy = np.zeros((3, self.banks), np.int64)
        fed = 0
        while fed < len(pairs) or latch.any() or queue.any():
            pair = None
            if fed < len(pairs) and not latch.any():
                pair = pairs[fed]
                latch = pair.banks.copy()
                fed += 1
            # Each bank is at one, for update_cycles: the head of its queue, or what has just been multiplied.
            busy = np.where(latch + queue > 0, busy + 1, 0)
            ends = busy == self.update_cycles
            latch -= ends & (queue == 0)
            queue -= ends & (queue > 0)
            busy[ends] = 0
            enter = np.minimum(latch, self.queue_depth - queue)
            latch, queue = latch - enter, queue + enter
            yield _Cycle(pair, queue + latch)

    def _shoot(self, film: Film, cycles: int, own: dict[tuple[int, int], list[_Cycle]], note: str) -> None:
        """Films a filter group: what each PE multiplies, and what waits in front of its banks."""
        pes = self.pe_rows * self.pe_columns
        shot = film.shoot(cycles, pes, self.activation_width, self.weight_width, cause="edge", note=note)
        waiting = np.zeros((cycles, pes, 1, self.banks), np.uint8)
        for (i, j), of_pe in own.items():
            pe = i * self.pe_columns + j
            shot[:, pe] = film["barrier"]
            for cycle, happens in enumerate(of_pe):
                waiting[cycle, pe, 0] = happens.waiting
                if happens.pair is None:
                    shot[cycle, pe] = film["bank_conflict"]
                else:
                    shoot_pair(film, shot[cycle, pe], happens.pair.lands)
        film.watch("products in front of each bank of a PE", waiting)
