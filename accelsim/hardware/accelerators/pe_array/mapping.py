"""How the PE array cuts a convolution: tiles of the map, groups of filters, blocks of the weight gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware.accelerators.base import (
    STRIDED_INPUT_GRAD,
    AcceleratorParameters,
    DrainParameters,
    Drawing,
    Summation,
    Unused,
)
from accelsim.hardware.parameters import check, integer, option
from accelsim.hardware.strips import nonzero
from accelsim.workload.lowering import READS, Convolution, pad

BANKS = 32  # numbers that ``bank`` gives before the modulo
Count = TypeVar("Count", int, np.ndarray)  # one of them, or many at once


def bank(k: int, p: Count, q: Count) -> Count:
    """Accumulator bank of output (p, q) of filter k, 0…31, before the modulo; from DNNsim's SCNN."""
    number: Count = (((k & 4) << 2) ^ ((p & 2) << 3) ^ ((q & 2) << 3)) + ((p & 1) << 3) + ((q & 1) << 2) + (k & 3)
    return number


class CartesianPEs(AcceleratorParameters):
    """pe_rows × pe_columns PEs that multiply two vectors all with all, and scatter the products to banks."""

    pe_rows: int = integer(1, 256, "PEs along the height of the map")
    pe_columns: int = integer(1, 256, "PEs along the width of the map")
    activation_width: int = integer(1, 64, "activations that a PE multiplies at once, I")
    weight_width: int = integer(1, 64, "weights that a PE multiplies at once, F")
    accumulators: int = integer(1, 1 << 24, "partial sums that a PE holds", unit="partial sums")
    banks: Literal[1, 2, 4, 8, 16, 32] = option("accumulator banks of a PE; each takes a product every `update_cycles`")
    update_cycles: int = integer(
        1, 8, "cycles in which a bank reads a partial sum, adds a product and writes it back, before the next one",
        unit="cycles", default=1,
    )  # fmt: skip

    @property
    def multipliers(self) -> int:
        return self.pe_rows * self.pe_columns * self.activation_width * self.weight_width

    @property
    def summation(self) -> Summation:
        """Each product is added to its partial sum, in an accumulator bank; see ``Accelerator``."""
        return Summation(additions="accumulator_updates", partial_sums=max(1, self.accumulators // self.banks))

    @property
    def drawing(self) -> Drawing:
        """Its PEs, and one of them; see ``Accelerator``."""
        return Drawing(
            "PEs", self.pe_rows * self.pe_columns, "product", rows=self.pe_rows,
            down=self.weight_width, across=self.activation_width, accumulators=self.accumulators, banks=self.banks,
        )  # fmt: skip

    def skips(self, which: str) -> dict[str, str]:
        """Both operands; see ``Accelerator``."""
        return dict.fromkeys(READS[which], "zeros")

    def idle_pes(self, places: Sequence[int]) -> Unused | None:
        """PEs without a tile of a map."""
        return idle_pes(places, (self.pe_rows, self.pe_columns))


class Mapping(CartesianPEs, DrainParameters):
    """What of a layer each PE gets."""

    model: Literal["pe_array"]

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
    sample_barrier: bool = option(
        "in the weight gradient PEs wait for each other at the end of each sample too; without, a PE that is done with "
        "its places of a sample goes on to those of the next",
        default=False,
    )
    spill_partial_sums: bool = option(
        "a filter with more partial sums than accumulators keeps the others in memory; without, it is refused",
        default=False,
    )

    @check
    def _counters_fit_a_byte(self) -> Mapping:
        if self.activation_width * self.weight_width * self.update_cycles > 127:
            raise ValueError(
                "activation_width × weight_width × update_cycles must be at most 127, "
                f"got {self.activation_width} × {self.weight_width} × {self.update_cycles}"
            )
        return self

    @property
    def memory_needed_for(self) -> str:
        """Partial sums that spill go there; see ``Accelerator``."""
        return "spill_partial_sums" if self.spill_partial_sums else ""

    @property
    def grid(self) -> tuple[int, int]:
        """PEs along the height and the width of the map."""
        return self.pe_rows, self.pe_columns

    def unused(self, conv: Convolution) -> Unused | None:
        """PEs that own no part of the map; see ``Accelerator``."""
        return self.idle_pes(conv.kernel.shape[2:] if conv.which == "weight_grad" else conv.geometry.padded)

    def tile(self, conv: Convolution) -> tuple[int, int]:
        """Rows and columns of the padded input that a PE owns."""
        return self.share(conv.geometry.padded)

    def filters_per_group(self, conv: Convolution) -> int:
        """Filters whose partial sums a PE holds at once, Kc."""
        places = self.share(conv.geometry.output)
        per_group = self.accumulators // (places[0] * places[1])
        if not per_group and self.spill_partial_sums:
            return 1
        if not per_group:
            raise MachineError(
                f"accelerator.accumulators: must hold one filter's {places[0]}×{places[1]} partial sums, "
                f"got {self.accumulators}; spill_partial_sums: true keeps the others in memory"
            )
        return per_group

    def spilled_per_channel(self, conv: Convolution) -> int:
        """Partial sums of one filter that working PEs have no accumulator for: out and in again for each channel."""
        places = self.share(conv.geometry.output)
        without = max(0, places[0] * places[1] - self.accumulators)
        return without * int(np.prod(used_pes(conv.geometry.output, places)))

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

    def share(self, sizes: Sequence[int]) -> tuple[int, int]:
        return -(-sizes[0] // self.pe_rows), -(-sizes[1] // self.pe_columns)

    def phases(self, conv: Convolution) -> tuple[int, int]:
        return conv.stride if self.stride_phases else (1, 1)

    def weight_grad_blocks(self, channels: int, filters: int) -> tuple[int, int]:
        """Channels and filters of a block, Cc and Kc: near a square, Cc·Kc ≤ accumulators, filling whole vectors."""
        per_block = min(channels, whole(int(np.sqrt(self.accumulators)), self.activation_width))
        filters_per_block = min(filters, whole(self.accumulators // per_block, self.weight_width))
        return min(channels, whole(self.accumulators // filters_per_block, self.activation_width)), filters_per_block

    def reduction_cycles(self, conv: Convolution, channels: int, filters: int, used: tuple[int, int]) -> int:
        """PEs add up their partial weight gradients: down the columns and along one row, pipelined, block by block."""
        hops = used[0] + used[1] - 2
        if not self.reduction_width or not hops:
            return 0
        block_c, block_k = self.weight_grad_blocks(channels, filters)
        sizes_c = [min(block_c, channels - c) for c in range(0, channels, block_c)]
        sizes_k = [min(block_k, filters - k) for k in range(0, filters, block_k)]
        taps = conv.geometry.output[0] * conv.geometry.output[1]
        return taps * sum(vectors_of(c * k, self.reduction_width) + hops for c in sizes_c for k in sizes_k)


def phase_of_taps(conv: Convolution, phases: tuple[int, int]) -> np.ndarray:
    """(R·S): the stride phase whose activations a tap meets."""
    rows, columns = (
        np.arange(n) * d % ph for n, d, ph in zip(conv.geometry.kernel, conv.dilation, phases, strict=True)
    )
    return np.ravel(rows[:, None] * phases[1] + columns)


def position_classes(
    conv: Convolution, banks: int, update_cycles: int = 1
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Classes of rows and columns that act alike under every tap, and what each pair adds to a tap's counters.

    Counters are of cycles: a product keeps its bank for ``update_cycles``.

    The place of an output (p, q) among a word's eight counters is its bank number with filter 0, divided by 4.
    """
    g = conv.geometry
    codes = [
        _outputs_modulo_4(size, taps, st, d, out)
        for size, taps, st, d, out in zip(g.padded, g.kernel, g.stride, g.dilation, g.output, strict=True)
    ]
    (rows, row_of), (columns, column_of) = (np.unique(c, axis=0, return_inverse=True) for c in codes)
    p, q = rows[:, None, :, None], columns[None, :, None, :]
    place = (bank(0, p, q) % banks // 4).astype(np.uint64)
    counters = np.where((p >= 0) & (q >= 0), np.uint64(update_cycles) << np.uint64(8) * place, np.uint64(0))
    counters = np.ascontiguousarray(counters.reshape(len(rows), len(columns), -1))
    return (row_of.ravel(), column_of.ravel()), counters


@dataclass(frozen=True, eq=False)
class Scattered:
    """What the kernels need to know of a convolution whose products are scattered to banks.

    Parameters
    ----------
    classes, counters
        As ``position_classes`` returns them.
    weights : bool[groups, C, R·S, K]
    tap_phase : int64[R·S]
    slot_mask, turn_bit : int
        See ``kernels.cartesian.channel_cycles``.
    """

    classes: tuple[np.ndarray, np.ndarray]
    counters: np.ndarray
    weights: np.ndarray
    tap_phase: np.ndarray
    slot_mask: int
    turn_bit: int


def scattered(conv: Convolution, phases: tuple[int, int], banks: int, update_cycles: int = 1) -> Scattered:
    """Made once for a convolution, whichever PEs ask."""

    def make() -> Scattered:
        classes, counters = position_classes(conv, banks, update_cycles)
        filters, channels = len(conv.kernel) // conv.groups, conv.kernel.shape[1]
        by_group = conv.kernel.reshape(conv.groups, filters, channels, -1).transpose(0, 2, 3, 1)
        weights, turn = nonzero(np.ascontiguousarray(by_group)), 4 if banks == BANKS else 0
        return Scattered(classes, counters, weights, phase_of_taps(conv, phases), min(3, banks - 1), turn)

    return conv.once(("scattered", phases, banks, update_cycles), make)


def _outputs_modulo_4(size: int, taps: int, stride: int, dilation: int, outputs: int) -> np.ndarray:
    """(size, taps): the output that a padded position feeds under each tap, modulo 4; −1 where it feeds none."""
    distance = np.arange(size)[:, None] - np.arange(taps) * dilation
    outputs_of = distance // stride
    fed = (distance % stride == 0) & (outputs_of >= 0) & (outputs_of < outputs)
    return np.where(fed, outputs_of % 4, -1)


def operands(conv: Convolution) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each group of a lowered weight gradient: activations (C, N, H', W') and output gradients (K, N, P, Q)."""
    samples, filters = conv.kernel.shape[1], len(conv.kernel) // conv.groups
    padded = pad(conv.input, conv.padding)
    for g in range(conv.groups):
        yield padded[:, g * samples : (g + 1) * samples], conv.kernel[g * filters : (g + 1) * filters]


def used_pes(sizes: Sequence[int], tile: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of PEs that own a part of the map; the others have nothing to do."""
    return -(-sizes[0] // tile[0]), -(-sizes[1] // tile[1])


def idle_pes(places: Sequence[int], grid: tuple[int, int]) -> Unused | None:
    """PEs of a grid that own no tile of a map."""
    tile = -(-places[0] // grid[0]), -(-places[1] // grid[1])
    rows, columns = used_pes(places, tile)
    an = "an" if str(places[0])[0] == "8" or places[0] in (11, 18) else "a"
    idle = Unused("PEs", grid[0] * grid[1], rows * columns, f"{an} {places[0]}×{places[1]} map")
    return idle if idle.share else None


def tile_edges(sizes: Sequence[int], tile: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns where the PEs' tiles begin, and the map's end."""
    rows, columns = (np.append(np.arange(0, size, t), size) for size, t in zip(sizes, tile, strict=True))
    return rows, columns


def vectors_of(elements: Count, width: int) -> Count:
    """Vectors of ``width`` that so many elements fill."""
    return -(-elements // width)


def whole(size: int, width: int) -> int:
    """The largest multiple of ``width`` up to ``size``, or ``size`` where that is none."""
    return size // width * width or size
