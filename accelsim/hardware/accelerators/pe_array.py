"""A 2D array of PEs with a multiplier array and weight, activation and accumulation buffers each: the Table 6 machine.

The PE forms the Cartesian product of a vector of non-zero activations with a vector of non-zero weights and scatters
the products to accumulator banks (Parashar et al., "SCNN", ISCA 2017, sections 3 and 4). Planar tiles of the input stay
in their PEs; a channel's weights are broadcast, and all PEs meet at a barrier after each channel. docs/model.md.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware.accelerators.base import STRIDED_INPUT_GRAD, AcceleratorParameters, Activity
from accelsim.hardware.accelerators.pe_array_traffic import of_convolution, of_weight_grad
from accelsim.hardware.parameters import check, integer, option
from accelsim.workload.lowering import READS, Convolution, pad

BANKS = 32  # numbers that ``bank`` gives before the modulo


def bank(k, p, q):
    """Accumulator bank of output (p, q) of filter k, 0…31, before the modulo; from DNNsim's SCNN."""
    return (((k & 4) << 2) ^ ((p & 2) << 3) ^ ((q & 2) << 3)) + ((p & 1) << 3) + ((q & 1) << 2) + (k & 3)


class PEArray(AcceleratorParameters):
    """pe_rows × pe_columns PEs of activation_width × weight_width multipliers."""

    model: Literal["pe_array"]
    pe_rows: int = integer(1, 256, "PEs along the height of the map")
    pe_columns: int = integer(1, 256, "PEs along the width of the map")
    activation_width: int = integer(1, 64, "activations that a PE multiplies at once, I")
    weight_width: int = integer(1, 64, "weights that a PE multiplies at once, F")
    accumulators: int = integer(1, 1 << 24, "partial sums that a PE holds", unit="partial sums")
    banks: Literal[1, 2, 4, 8, 16, 32] = option("accumulator banks of a PE; each takes one product a cycle")
    stride_phases: bool = option(
        "split activations and weights of a strided layer by position modulo the stride, so that every product is "
        "needed; without, all meet all, and products between the strides use a multiplier but no bank"
    )
    halo_exchange: bool = option("charge for passing partial sums on tile borders to the neighbours")
    strided_input_grad: Literal["phase", "dilate"] = option(STRIDED_INPUT_GRAD)
    reduction_width: int = integer(
        0, 1 << 16, "partial weight gradients that a PE passes on per cycle when PEs add theirs up; 0: free",
        unit="partial sums/cycle",
    )  # fmt: skip
    spill_partial_sums: bool = option(
        "a filter with more partial sums than accumulators keeps the others in memory; without, it is refused",
        default=False,
    )

    @check
    def _counters_fit_a_byte(self):
        if self.activation_width * self.weight_width > 127:
            raise ValueError(
                "activation_width × weight_width must be at most 127 multipliers, "
                f"got {self.activation_width} × {self.weight_width}"
            )
        return self

    @property
    def multipliers(self) -> int:
        return self.pe_rows * self.pe_columns * self.activation_width * self.weight_width

    def skips(self, which: str) -> dict[str, str]:
        """Both operands; see ``Accelerator``."""
        return dict.fromkeys(READS[which], "zeros")

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        if conv.which == "weight_grad":
            return self._weight_grad(conv)
        return self._convolution(conv)

    def replay(self, conv: Convolution) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        if conv.which == "weight_grad":
            return _replay_weight_grad(self, conv)
        return _replay_convolution(self, conv)

    def dense_cycles(self, conv: Convolution) -> int:
        """Cycles of this array with nothing skipped and no bank conflicts; forward pass and input gradient only."""
        phases = self._phases(conv)
        filters, per_group = len(conv.kernel) // conv.groups, self.filters_per_group(conv)
        tap_phase = _phase_of_taps(conv, phases)
        rows, columns = (
            (np.arange(n * size) % st) for n, size, st in zip(self.grid, self.tile(conv), phases, strict=True)
        )
        rows, columns = rows.reshape(self.grid[0], -1), columns.reshape(self.grid[1], -1)
        total = 0
        for first in range(0, filters, per_group):
            count = min(per_group, filters - first)
            cycles = np.zeros(self.grid, np.int64)
            for phase in range(phases[0] * phases[1]):
                acts = np.outer((rows == phase // phases[1]).sum(1), (columns == phase % phases[1]).sum(1))
                weights = count * int((tap_phase == phase).sum())
                cycles += _vectors(acts, self.activation_width) * _vectors(weights, self.weight_width)
            total += int(cycles.max()) * conv.kernel.shape[1] + self.halo_cycles(conv, count)
        return total * conv.samples * conv.groups

    @property
    def grid(self) -> tuple[int, int]:
        """PEs along the height and the width of the map."""
        return self.pe_rows, self.pe_columns

    def tile(self, conv: Convolution) -> tuple[int, int]:
        """Rows and columns of the padded input that a PE owns."""
        return self._share(conv.geometry.padded)

    def filters_per_group(self, conv: Convolution) -> int:
        """Filters whose partial sums a PE holds at once, Kc."""
        places = self._share(conv.geometry.output)
        per_group = self.accumulators // (places[0] * places[1])
        if not per_group and self.spill_partial_sums:
            return 1
        if not per_group:
            raise MachineError(
                f"accelerator.accumulators: must hold one filter's {places[0]}×{places[1]} partial sums, "
                f"got {self.accumulators}"
            )
        return per_group

    def spilled_per_channel(self, conv: Convolution) -> int:
        """Partial sums of one filter that working PEs have no accumulator for: out and in again for each channel."""
        places = self._share(conv.geometry.output)
        without = max(0, places[0] * places[1] - self.accumulators)
        return without * int(np.prod(_used(conv.geometry.output, places)))

    def halo_cycles(self, conv: Convolution, filters: int) -> int:
        """Exchange of partial sums over tile borders, once a filter group: the largest of the 8 borders × filters."""
        if not self.halo_exchange:
            return 0
        sides = [
            (extent - 1 - begin, size, begin)
            for extent, size, begin in zip(
                conv.geometry.kernel_extent, self.tile(conv), (conv.padding[0], conv.padding[2]), strict=True
            )
        ]
        borders = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        return filters * max(sides[0][i] * sides[1][j] for i, j in borders)

    def _share(self, sizes) -> tuple[int, int]:
        return -(-sizes[0] // self.pe_rows), -(-sizes[1] // self.pe_columns)

    def _phases(self, conv: Convolution) -> tuple[int, int]:
        return conv.stride if self.stride_phases else (1, 1)

    def _convolution(self, conv: Convolution) -> Activity:
        from accelsim.hardware.kernels.cartesian import activation_vectors, channel_cycles

        g, phases, tile = conv.geometry, self._phases(conv), self.tile(conv)
        per_group, filters, channels = (
            self.filters_per_group(conv),
            len(conv.kernel) // conv.groups,
            conv.kernel.shape[1],
        )
        classes, counters = self._classes(conv)
        mask, turn = min(3, self.banks - 1), 4 if self.banks == BANKS else 0
        widths = self.activation_width, self.weight_width
        halo = [self.halo_cycles(conv, min(per_group, filters - k)) for k in range(0, filters, per_group)]
        used, tap_phase = _used(g.padded, tile), _phase_of_taps(conv, phases)
        by_group = conv.kernel.reshape(conv.groups, filters, channels, -1).transpose(0, 2, 3, 1)
        weights = np.ascontiguousarray(by_group) != 0
        jobs, totals = [], np.zeros(3, np.int64)
        for n, group in np.ndindex(conv.samples, conv.groups):
            acts = pad(conv.input[n, group * channels : (group + 1) * channels], conv.padding) != 0
            vectors = activation_vectors(acts, tile, used, classes, phases, counters, self.activation_width)
            cycles, seen = channel_cycles(
                *vectors, weights[group], group * filters, per_group, tap_phase, mask, turn, widths
            )
            jobs.append(np.column_stack([cycles, halo]).ravel())
            totals += seen
        exchanged = sum(halo) * conv.samples * conv.groups
        jobs = np.concatenate(jobs)
        return self._activity(
            conv, jobs, *totals.tolist(), exchanged, used, lambda: of_convolution(self, conv, jobs, weights, used)
        )

    def _classes(self, conv: Convolution):
        """Classes of rows and columns that act alike under every tap, and what each pair adds to a tap's counters.

        The place of an output (p, q) among a word's eight counters is its bank number with filter 0, divided by 4.
        """
        g = conv.geometry
        codes = [
            _outputs_modulo_4(size, taps, st, d, out)
            for size, taps, st, d, out in zip(g.padded, g.kernel, g.stride, g.dilation, g.output, strict=True)
        ]
        (rows, row_of), (columns, column_of) = (np.unique(c, axis=0, return_inverse=True) for c in codes)
        p, q = rows[:, None, :, None], columns[None, :, None, :]
        place = (bank(0, p, q) % self.banks // 4).astype(np.uint64)
        counters = np.where((p >= 0) & (q >= 0), np.uint64(1) << np.uint64(8) * place, np.uint64(0))
        counters = np.ascontiguousarray(counters.reshape(len(rows), len(columns), -1))
        return (row_of.ravel(), column_of.ravel()), counters

    def _weight_grad(self, conv: Convolution) -> Activity:
        from accelsim.hardware.kernels.cartesian import outer_product_cycles

        places, samples = conv.kernel.shape[2:], conv.kernel.shape[1]
        tile, steps = self._share(places), (conv.dilation[0], conv.stride[0], conv.dilation[1], conv.stride[1])
        used = _used(places, tile)
        jobs, total, reduction = [], 0, 0
        for activations, gradients in _operands(conv):
            blocks = self.weight_grad_blocks(len(activations), len(gradients))
            counts = (
                np.add.reduceat(operand != 0, range(0, len(operand), size), axis=0, dtype=np.int64)
                for operand, size in zip((activations, gradients), blocks, strict=True)
            )
            cycles, own = outer_product_cycles(
                *counts, tile, used, steps, conv.geometry.output, (self.activation_width, self.weight_width)
            )
            jobs.append(cycles.ravel())
            total += own
            reduction += self._reduction_cycles(conv, len(activations), len(gradients), used)
        # The batch is summed up in the accumulators, so its samples share one reduction.
        reduction = -(-reduction * samples // max(samples, conv.batch))
        jobs.append([reduction])
        jobs = np.concatenate(jobs)
        return self._activity(
            conv, jobs, total, total, conv.effectual, reduction, used, lambda: of_weight_grad(self, conv, jobs, used)
        )

    def weight_grad_blocks(self, channels: int, filters: int) -> tuple[int, int]:
        """Channels and filters of a block, Cc and Kc: near a square, Cc·Kc ≤ accumulators, filling whole vectors."""
        per_block = min(channels, _whole(int(np.sqrt(self.accumulators)), self.activation_width))
        filters_per_block = min(filters, _whole(self.accumulators // per_block, self.weight_width))
        return min(channels, _whole(self.accumulators // filters_per_block, self.activation_width)), filters_per_block

    def _reduction_cycles(self, conv, channels, filters, used) -> int:
        """PEs add up their partial weight gradients: down the columns and along one row, pipelined, block by block."""
        hops = used[0] + used[1] - 2
        if not self.reduction_width or not hops:
            return 0
        block_c, block_k = self.weight_grad_blocks(channels, filters)
        sizes_c = [min(block_c, channels - c) for c in range(0, channels, block_c)]
        sizes_k = [min(block_k, filters - k) for k in range(0, filters, block_k)]
        taps = conv.geometry.output[0] * conv.geometry.output[1]
        return taps * sum(_vectors(c * k, self.reduction_width) + hops for c in sizes_c for k in sizes_k)

    def _activity(self, conv, jobs, pairs, own, products, exchanged, used, traffic) -> Activity:
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


def _outputs_modulo_4(size, taps, stride, dilation, outputs) -> np.ndarray:
    """(size, taps): the output that a padded position feeds under each tap, modulo 4; −1 where it feeds none."""
    distance = np.arange(size)[:, None] - np.arange(taps) * dilation
    outputs_of = distance // stride
    fed = (distance % stride == 0) & (outputs_of >= 0) & (outputs_of < outputs)
    return np.where(fed, outputs_of % 4, -1)


def _phase_of_taps(conv, phases) -> np.ndarray:
    """(R·S): the stride phase whose activations a tap meets."""
    rows, columns = (
        np.arange(n) * d % ph for n, d, ph in zip(conv.geometry.kernel, conv.dilation, phases, strict=True)
    )
    return (rows[:, None] * phases[1] + columns).ravel()


def _operands(conv):
    """Of each group of a lowered weight gradient: activations (C, N, H', W') and output gradients (K, N, P, Q)."""
    samples, filters = conv.kernel.shape[1], len(conv.kernel) // conv.groups
    padded = pad(conv.input, conv.padding)
    for g in range(conv.groups):
        yield padded[:, g * samples : (g + 1) * samples], conv.kernel[g * filters : (g + 1) * filters]


def _used(sizes, tile) -> tuple[int, int]:
    """Rows and columns of PEs that own a part of the map; the others have nothing to do."""
    return -(-sizes[0] // tile[0]), -(-sizes[1] // tile[1])


def _vectors(elements, width):
    """Vectors of ``width`` that so many elements fill."""
    return -(-elements // width)


def _whole(size, width) -> int:
    """The largest multiple of ``width`` up to ``size``, or ``size`` where that is none."""
    return size // width * width or size


def _replay_convolution(array: PEArray, conv: Convolution) -> tuple[np.ndarray, int]:
    """Steps 1 to 4 of docs/model.md, "The PE array", one vector pair after another."""
    g, phases, tile = conv.geometry, array._phases(conv), array.tile(conv)
    filters, channels, per_group = len(conv.kernel) // conv.groups, conv.kernel.shape[1], array.filters_per_group(conv)
    out = np.zeros((conv.samples, g.filters, *g.output), np.result_type(conv.input, conv.kernel))
    padded = pad(conv.input, conv.padding)
    cycles = 0
    for n, group in np.ndindex(conv.samples, conv.groups):
        for first in range(0, filters, per_group):
            numbers = range(group * filters + first, group * filters + min(filters, first + per_group))
            for c in range(channels):
                slowest = 0
                for i, j in np.ndindex(*array.grid):
                    rows, columns = (
                        range(at * t, min((at + 1) * t, size))
                        for at, t, size in zip((i, j), tile, g.padded, strict=True)
                    )
                    own = 0
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
                                own += _multiply(
                                    array, conv, acts[a : a + array.activation_width],
                                    weights[w : w + array.weight_width], out[n],
                                )  # fmt: skip
                    slowest = max(slowest, own)
                cycles += slowest
            cycles += array.halo_cycles(conv, len(numbers))
    return out, cycles


def _multiply(array, conv, acts, weights, out) -> int:
    """All products of two vectors into their accumulators; the cycles that the banks need."""
    loads = [0] * array.banks
    for x, y, activation in acts:
        for r, s, k, weight in weights:
            (p, beside_p), (q, beside_q) = divmod(x - r, conv.stride[0]), divmod(y - s, conv.stride[1])
            if not beside_p and not beside_q and 0 <= p < out.shape[1] and 0 <= q < out.shape[2]:
                out[k, p, q] += activation * weight
                loads[bank(k, p, q) % array.banks] += 1
    return max(1, *loads)


def _replay_weight_grad(array: PEArray, conv: Convolution) -> tuple[np.ndarray, int]:
    """The weight gradient of docs/model.md: outer products at each place, a barrier per tap and pair of blocks."""
    groups, cycles, reduction = [], 0, 0
    places, tile = conv.kernel.shape[2:], array._share(conv.kernel.shape[2:])
    used = _used(places, tile)
    for activations, gradients in _operands(conv):
        out = np.zeros(
            (len(activations), len(gradients), *conv.geometry.output), np.result_type(conv.input, conv.kernel)
        )
        block_c, block_k = array.weight_grad_blocks(len(activations), len(gradients))
        for r, s in np.ndindex(*conv.geometry.output):
            for c in range(0, len(activations), block_c):
                for k in range(0, len(gradients), block_k):
                    own = np.zeros(array.grid, np.int64)
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
                                own[p // tile[0], q // tile[1]] += 1
                    cycles += int(own.max())
        reduction += array._reduction_cycles(conv, len(activations), len(gradients), used)
        groups.append(out)
    samples = conv.kernel.shape[1]
    return np.concatenate(groups, axis=1), cycles + -(-reduction * samples // max(samples, conv.batch))
