"""A 2D array of PEs with a multiplier array and weight, activation and accumulation buffers each: the Table 6 machine.

The PE forms the Cartesian product of a vector of non-zero activations with a vector of non-zero weights and scatters
the products to accumulator banks (Parashar et al., "SCNN", ISCA 2017, sections 3 and 4). Planar tiles of the input stay
in their PEs; a channel's weights are broadcast, and all PEs meet at a barrier after each channel. docs/model.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from accelsim.hardware.accelerators.base import Activity
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.pe_array.mapping import (
    Mapping,
    operands,
    phase_of_taps,
    scattered,
    tile_edges,
    used_pes,
    vectors_of,
)
from accelsim.hardware.accelerators.pe_array.replay import replay_convolution, replay_weight_grad
from accelsim.hardware.accelerators.pe_array.traffic import of_convolution, of_weight_grad, together
from accelsim.hardware.movement.traffic import Traffic
from accelsim.workload.lowering import Convolution, pad


class PEArray(Mapping):
    """pe_rows × pe_columns PEs of activation_width × weight_width multipliers; ``Mapping`` has the parameters."""

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        if conv.which == "weight_grad":
            return self._weight_grad(conv)
        return self._convolution(conv)

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        if conv.which == "weight_grad":
            return replay_weight_grad(self, conv, film)
        return replay_convolution(self, conv, film)

    def dense_cycles(self, conv: Convolution) -> int:
        """Cycles of this array with nothing skipped and no bank conflicts; forward pass and input gradient only."""
        phases = self.phases(conv)
        filters, per_group = len(conv.kernel) // conv.groups, self.filters_per_group(conv)
        tap_phase = phase_of_taps(conv, phases)
        rows, columns = (
            (np.arange(n * size) % st).reshape(n, -1)
            for n, size, st in zip(self.grid, self.tile(conv), phases, strict=True)
        )
        total = 0
        for first in range(0, filters, per_group):
            count = min(per_group, filters - first)
            cycles = np.zeros(self.grid, np.int64)
            for phase in range(phases[0] * phases[1]):
                acts = np.outer((rows == phase // phases[1]).sum(1), (columns == phase % phases[1]).sum(1))
                weights = count * int((tap_phase == phase).sum())
                cycles += vectors_of(acts, self.activation_width) * vectors_of(weights, self.weight_width)
            total += int(self.drained(cycles.max())) * conv.kernel.shape[1] + self.halo_cycles(conv, count)
        return total * conv.samples * conv.groups

    def _convolution(self, conv: Convolution) -> Activity:
        g, tile, per_group = conv.geometry, self.tile(conv), self.filters_per_group(conv)
        filters = len(conv.kernel) // conv.groups
        halo = [self.halo_cycles(conv, min(per_group, filters - k)) for k in range(0, filters, per_group)]
        used, edges = used_pes(g.padded, tile), tile_edges(g.padded, tile)
        weights = scattered(conv, self.phases(conv), self.banks).weights
        cycles_of, totals = [], np.zeros(3, np.int64)
        for n, group in np.ndindex(conv.samples, conv.groups):
            cycles, seen = self.scatter_cycles(conv, n, group, edges)
            cycles_of.append(np.column_stack([self.drained(cycles), halo]).ravel())
            totals += seen
        exchanged = sum(halo) * conv.samples * conv.groups
        jobs = np.concatenate(cycles_of)
        pairs, own, products = totals.tolist()
        return self._activity(
            conv,
            jobs,
            pairs,
            own,
            products,
            exchanged,
            used,
            lambda: self._moved(conv, jobs, weights, used),
        )

    def scatter_cycles(
        self, conv: Convolution, n: int, group: int, edges: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cycles of (filter group, channel) of a sample and group, of the slowest of the PEs between these edges.

        And over all of them pairs of vectors, cycles, products.
        """
        from accelsim.hardware.kernels.cartesian import activation_vectors, channel_cycles

        phases = self.phases(conv)
        s = scattered(conv, phases, self.banks, self.update_cycles)
        channels, filters = s.weights.shape[1], s.weights.shape[3]
        acts = pad(conv.input[n, group * channels : (group + 1) * channels], conv.padding) != 0
        vectors = activation_vectors(acts, edges, s.classes, phases, s.counters, self.activation_width)
        cycles, totals = channel_cycles(
            *vectors, s.weights[group], group * filters, self.filters_per_group(conv), s.tap_phase, s.slot_mask,
            s.turn_bit, (self.activation_width, self.weight_width),
        )  # fmt: skip
        return cycles, totals

    def _moved(self, conv: Convolution, jobs: np.ndarray, weights: np.ndarray, used: tuple[int, int]) -> Traffic:
        per_group, spilled = self.filters_per_group(conv), self.spilled_per_channel(conv)
        jobs, block = (jobs, 1) if spilled else together(jobs, weights.shape[1])
        return of_convolution(conv, jobs, weights, used, per_group, spilled_per_channel=spilled, block=block)

    def _weight_grad(self, conv: Convolution) -> Activity:
        places, samples = conv.kernel.shape[2:], conv.kernel.shape[1]
        tile, steps = self.share(places), (conv.dilation[0], conv.stride[0], conv.dilation[1], conv.stride[1])
        used = used_pes(places, tile)
        cycles_of, total, reduction = [], 0, 0
        for activations, gradients in operands(conv):
            blocks = self.weight_grad_blocks(len(activations), len(gradients))
            first, second = (
                np.add.reduceat(operand != 0, range(0, len(operand), size), axis=0, dtype=np.int64)
                for operand, size in zip((activations, gradients), blocks, strict=True)
            )
            cycles, own = self._outer_products(first, second, tile, used, steps, conv.geometry.output)
            cycles_of.append(cycles.ravel())
            total += own
            reduction += self.reduction_cycles(conv, len(activations), len(gradients), used)
        # The batch is summed up in the accumulators, so its samples share one reduction.
        reduction = -(-reduction * samples // max(samples, conv.batch))
        jobs = np.concatenate([*cycles_of, [reduction]])
        return self._activity(
            conv, jobs, total, total, conv.effectual, reduction, used, lambda: of_weight_grad(self, conv, jobs, used)
        )

    def _outer_products(
        self,
        first: np.ndarray,
        second: np.ndarray,
        tile: tuple[int, int],
        used: tuple[int, int],
        steps: tuple[int, int, int, int],
        taps: tuple[int, int],
    ) -> tuple[np.ndarray, int]:
        """``outer_product_cycles`` of what lies between two barriers, added up: of all samples, or of each."""
        from accelsim.hardware.kernels.cartesian import outer_product_cycles

        widths, together = (self.activation_width, self.weight_width), 1 if self.sample_barrier else first.shape[1]
        counted = []
        for n in range(0, first.shape[1], together):
            some = [np.ascontiguousarray(operand[:, n : n + together]) for operand in (first, second)]
            counted.append(outer_product_cycles(some[0], some[1], tile, used, steps, taps, widths))
        return np.sum([self.drained(cycles) for cycles, _ in counted], axis=0), sum(own for _, own in counted)

    def _activity(
        self,
        conv: Convolution,
        jobs: np.ndarray,
        pairs: int,
        own: int,
        products: int,
        exchanged: int,
        used: tuple[int, int],
        traffic: Callable[[], Traffic],
    ) -> Activity:
        """Slots by cause from counts over all PEs: pairs of vectors, cycles that each was busy, products executed.

        A pair of vectors reads both from their buffers; products without an output update no accumulator.
        """
        pe = self.activation_width * self.weight_width
        working = used[0] * used[1]
        cycles = int(jobs.sum()) - exchanged
        return Activity(
            self.multipliers,
            jobs,
            {
                "effectual": conv.effectual,
                "ineffectual": products - conv.effectual,
                "edge": cycles * (self.pe_rows * self.pe_columns - working) * pe,
                "imbalance": pairs * pe - products,
                "barrier": (cycles * working - own) * pe,
                "bank_conflict": (own - pairs) * pe,
                "exchange": exchanged * self.multipliers,
            },
            {
                "multiplications": products,
                "activation_buffer_reads": pairs * self.activation_width,
                "weight_buffer_reads": pairs * self.weight_width,
                "accumulator_updates": conv.effectual,
            },
            traffic,
        )
