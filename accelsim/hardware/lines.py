"""A convolution as lines of lanes, the shape in which tiled machines with an adder tree per PE compute it.

A *stream* is a sequence of T lines of ``lanes`` values. Rows of a tile hold one stream each, columns another; each
cycle a PE multiplies a line of its row with the same line of its column and adds the products up. The classes below
say, for one group of a convolution, which streams go where:

===============  ===============================  ===========================  =====================================
class            rows (the scheduled operand)     columns                      a line
===============  ===============================  ===========================  =====================================
FilterLines      filters                          windows                      ``lanes`` channels of a tap (r, s)
WindowLines      windows, one sample at a time    filters                      ``lanes`` channels of a tap (r, s)
ActivationLines  channels, one tap at a time      filters' output gradients    ``lanes`` places of the (n, p, q) raster
GradientLines    filters' output gradients        channels, one tap at a time  ``lanes`` places of the (n, p, q) raster
===============  ===============================  ===========================  =====================================

The first two serve the forward pass and the input gradient, with T = R·S·ceil(C/lanes), order r, then s, then channel
block innermost; the others the weight gradient, with T = ceil(N·P·Q/lanes). The last line of a tap or raster is padded
with zeros.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from accelsim.hardware.strips import nonzero
from accelsim.workload.lowering import EVERYWHERE, READS, Convolution, pad

GATHERED = 1 << 26  # values of windows at once, where they can come so
Window = np.lib.stride_tricks.sliding_window_view


@dataclass(frozen=True, eq=False)
class Lines(ABC):
    """One group of a convolution as lines. ``elements`` is a stream's length before padding.

    ``blocks()`` yields what the rows hold, (streams, T, lanes) at a time: streams of different blocks never share a
    tile. Each meets ``windows`` streams on the columns, ``repeats`` times over: ``column_blocks()`` yields them,
    (windows, T, lanes) at a time. ``place`` puts products (blocks, streams, repeats, windows) where they belong in
    (N, K, P, Q).
    """

    conv: Convolution
    lanes: int

    @property
    def elements(self) -> int:
        """In the weight gradient N·P·Q, for lowering made the output gradient the kernel; else R·S·C."""
        return int(self.conv.kernel[0].size)

    @property
    def pieces(self) -> int:
        """Equal parts of a stream, each padded to whole lines."""
        return 1

    @property
    def repeats(self) -> int:
        return 1

    @property
    def runs(self) -> int:
        """Runs of blocks, one after another: sets of streams of different runs never share a round of tiles."""
        return 1

    @property
    def samples_on(self) -> Literal["columns", "rows", "neither"]:
        """What walks the samples: repeats of the columns, runs of the rows, or neither where streams sum over them."""
        return "neither"

    @property
    @abstractmethod
    def windows(self) -> int:
        """Streams on the columns, of one repeat."""

    @property
    def partners(self) -> int:
        """Streams on the columns that each stream on the rows meets, over all repeats."""
        return self.repeats * self.windows

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Blocks, streams in a block, and T, without gathering them."""

    @abstractmethod
    def blocks(self) -> Iterator[np.ndarray]:
        """What the rows hold."""

    @abstractmethod
    def column_blocks(self) -> Iterator[np.ndarray]:
        """What the columns hold."""

    def row_strips(self, multiple: int) -> Iterator[np.ndarray]:
        """What the rows hold, block after block; of large blocks a multiple of so many streams at a time."""
        return self.blocks()

    def column_strips(self, multiple: int) -> Iterator[np.ndarray]:
        """What the columns hold, likewise."""
        return self.column_blocks()

    @abstractmethod
    def place(self, products: np.ndarray) -> np.ndarray:
        """Products (blocks, streams, repeats, windows) → (N, K, P, Q)."""

    @abstractmethod
    def row_parts(self, source: Convolution, cuts: np.ndarray, total: int) -> tuple[str, list[np.ndarray]]:
        """The tensor on the rows, and its values in ``source`` cut at ``cuts`` of ``total`` streams, (parts, values)
        each; what padding and unfolding add is left out. Samples are cut one by one."""

    @abstractmethod
    def column_parts(self, source: Convolution, cuts: np.ndarray, total: int) -> tuple[str, list[np.ndarray]]:
        """The tensor on the columns, cut likewise."""

    def rows(self) -> np.ndarray:
        """All blocks: (blocks, streams, T, lanes)."""
        return np.stack(list(self.blocks()))

    def columns(self) -> np.ndarray:
        """All repeats: (repeats, windows, T, lanes)."""
        return np.stack(list(self.column_blocks()))

    def places(self) -> np.ndarray:
        """The number of each place of a stream, (T, lanes): line·lanes + lane; −1 where padding is."""
        numbers = np.arange(self.shape[2] * self.lanes)
        size, filled = numbers.size // self.pieces, self.elements // self.pieces
        return np.where(numbers % size < filled, numbers, -1).reshape(-1, self.lanes)

    @cached_property
    def words(self) -> np.ndarray:
        """All blocks as words, (blocks, streams, T), gathered one at a time."""
        return np.stack([to_words(block) for block in self.blocks()])

    def _split(self, values: np.ndarray) -> np.ndarray:
        """(…, elements) → (…, T, lanes), zeros at the end."""
        lines = -(-values.shape[-1] // self.lanes)
        if values.shape[-1] == lines * self.lanes:
            return values.reshape(*values.shape[:-1], lines, self.lanes)
        full = np.zeros((*values.shape[:-1], lines * self.lanes), values.dtype)
        full[..., : values.shape[-1]] = values
        return full.reshape(*values.shape[:-1], lines, self.lanes)


class FilterLines(Lines):
    """Filters on the rows, windows on the columns, one sample after another."""

    @property
    def pieces(self) -> int:
        return int(self.conv.kernel[0, 0].size)

    @property
    def repeats(self) -> int:
        return self.conv.samples

    @property
    def samples_on(self) -> Literal["columns", "rows", "neither"]:
        return "columns"

    @property
    def windows(self) -> int:
        return self.conv.geometry.output[0] * self.conv.geometry.output[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        filters, channels = self.conv.kernel.shape[:2]
        return 1, filters, self.pieces * -(-channels // self.lanes)

    def blocks(self) -> Iterator[np.ndarray]:
        taps = self.conv.kernel.transpose(0, 2, 3, 1)
        yield self._split(taps).reshape(len(taps), -1, self.lanes)

    def column_blocks(self) -> Iterator[np.ndarray]:
        return self.column_strips(self.windows)

    def column_strips(self, multiple: int) -> Iterator[np.ndarray]:
        """A window has each value of the map once for every tap that meets it; hence not all at once."""
        most = multiple * max(1, GATHERED // (multiple * self.elements))
        for taps in _windows(self.conv).transpose(0, 4, 5, 2, 3, 1):  # N C R S P Q → N P Q R S C
            if self.windows <= most:
                yield self._split(taps).reshape(self.windows, -1, self.lanes)
                continue
            for first in range(0, self.windows, most):
                some = taps[np.divmod(np.arange(first, min(first + most, self.windows)), taps.shape[1])]
                yield self._split(some).reshape(len(some), -1, self.lanes)

    def row_parts(self, source: Convolution, cuts: np.ndarray, total: int) -> tuple[str, list[np.ndarray]]:
        return "weight", _cut(source.kernel, cuts, total)

    def column_parts(self, source: Convolution, cuts: np.ndarray, total: int) -> tuple[str, list[np.ndarray]]:
        """Windows by the rows of the map: the input in proportion, sample by sample; some may bring no new row."""
        return tensor_on(source.which, "input"), [
            part for sample in source.stored for part in _cut(sample.swapaxes(0, 1), cuts, total)
        ]

    def place(self, products: np.ndarray) -> np.ndarray:
        streams: np.ndarray = products[0]
        return streams.swapaxes(0, 1).reshape(self.repeats, -1, *self.conv.geometry.output)


class ActivationLines(Lines):
    """Weight gradient with the saved activations on the rows: a block is a tap, a stream one of its channels."""

    @property
    def windows(self) -> int:
        return len(self.conv.kernel)

    @property
    def shape(self) -> tuple[int, int, int]:
        taps = self.conv.geometry.output
        return taps[0] * taps[1], self.conv.samples, -(-self.elements // self.lanes)

    def blocks(self) -> Iterator[np.ndarray]:
        """Lowering made channels the batch, samples the channels, and the taps the output places."""
        taps = _windows(self.conv).transpose(4, 5, 0, 1, 2, 3)  # C N P Q R S → R S C N P Q
        for r, s in np.ndindex(*self.conv.geometry.output):
            yield self._split(taps[r, s].reshape(self.conv.samples, self.elements))

    def column_blocks(self) -> Iterator[np.ndarray]:
        yield self._split(self.conv.kernel.reshape(self.windows, -1))

    def row_parts(self, source: Convolution, cuts: np.ndarray, total: int) -> tuple[str, list[np.ndarray]]:
        return "activation", _cut(source.stored, cuts, total)

    def column_parts(self, source: Convolution, cuts: np.ndarray, total: int) -> tuple[str, list[np.ndarray]]:
        return "gradient", _cut(source.kernel, cuts, total)

    def place(self, products: np.ndarray) -> np.ndarray:
        return products[:, :, 0].transpose(1, 2, 0).reshape(self.conv.samples, -1, *self.conv.geometry.output)


class Exchanged(Lines):
    """The problem of another class with rows and columns exchanged."""

    @property
    @abstractmethod
    def other(self) -> Lines:
        """The problem before the exchange."""

    @property
    def repeats(self) -> int:
        return self.other.shape[0]

    @property
    def windows(self) -> int:
        return self.other.shape[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.other.repeats, self.other.windows, self.other.shape[2]

    def blocks(self) -> Iterator[np.ndarray]:
        return self.other.column_blocks()

    def column_blocks(self) -> Iterator[np.ndarray]:
        return self.other.blocks()

    def row_strips(self, multiple: int) -> Iterator[np.ndarray]:
        return self.other.column_strips(multiple)

    def column_strips(self, multiple: int) -> Iterator[np.ndarray]:
        return self.other.row_strips(multiple)

    def row_parts(self, source: Convolution, cuts: np.ndarray, total: int) -> tuple[str, list[np.ndarray]]:
        return self.other.column_parts(source, cuts, total)

    def column_parts(self, source: Convolution, cuts: np.ndarray, total: int) -> tuple[str, list[np.ndarray]]:
        return self.other.row_parts(source, cuts, total)

    def place(self, products: np.ndarray) -> np.ndarray:
        return self.other.place(products.transpose(2, 3, 0, 1))


class WindowLines(Exchanged):
    """Windows on the rows, a block for each sample, one after another; filters on the columns."""

    @property
    def runs(self) -> int:
        return self.conv.samples

    @property
    def samples_on(self) -> Literal["columns", "rows", "neither"]:
        return "rows"

    @property
    def other(self) -> Lines:
        return FilterLines(self.conv, self.lanes)


class GradientLines(Exchanged):
    """Weight gradient with the output gradients on the rows: the columns walk the channels of one tap after another."""

    @property
    def other(self) -> Lines:
        return ActivationLines(self.conv, self.lanes)


def on_rows(which: str, weight_grad_rows: str) -> str:
    """The side of a convolution on the rows: the weights, or in the weight gradient, which has none, the one named."""
    return "input" if which == "weight_grad" and weight_grad_rows == "activation" else "kernel"


def stream_names(which: str, side: str) -> str:
    """What the streams of a side of a convolution are, in words."""
    if which == "weight_grad":
        return "channels" if side == "input" else "filters"
    return "places of the map" if side == "input" else "filters" if which == "fwd" else "channels"


def tensor_on(which: str, side: str) -> str:
    """The layer's tensor that is the "input" or the "kernel" of a pass's convolutions."""
    return READS[which][side == "kernel"]


def to_lines(conv: Convolution, lanes: int, on_rows: str) -> tuple[Lines, ...]:
    """The groups of a convolution, one after another; ``on_rows``: "input" or "kernel". Machines share them."""
    return conv.once(("lines", lanes, on_rows), lambda: tuple(_groups(conv, lanes, on_rows)))


def _groups(conv: Convolution, lanes: int, on_rows: str) -> Iterator[Lines]:
    kinds = {"input": WindowLines, "kernel": FilterLines}
    if conv.which == "weight_grad":
        kinds = {"input": ActivationLines, "kernel": GradientLines}
    kind = kinds[on_rows]
    channels, filters = conv.kernel.shape[1], len(conv.kernel) // conv.groups
    for g in range(conv.groups):
        yield kind(
            replace(
                conv,
                input=conv.input[:, g * channels : (g + 1) * channels],
                kernel=conv.kernel[g * filters : (g + 1) * filters],
                groups=1,
            ),
            lanes,
        )


def to_words(streams: np.ndarray) -> np.ndarray:
    """(…, lanes) values or booleans → uint64 words, bit l set where lane l is non-zero. At most 64 lanes."""
    packed = np.packbits(nonzero(streams), axis=-1, bitorder="little")
    words = np.zeros((*packed.shape[:-1], 8), np.uint8)
    words[..., : packed.shape[-1]] = packed
    return words.view("<u8")[..., 0].astype(np.uint64, copy=False)


def space_to_depth(conv: Convolution) -> Convolution:
    """Folds stride×stride input positions into the channels: kernel ceil(R/st), stride 1.

    A first layer has 3 channels and would leave most lanes empty. Kernel position (r, s) of channel c moves to channel
    ((r mod st)·st + s mod st)·C + c at (r div st, s div st); the activations likewise. For ungrouped, undilated
    convolutions.
    """
    return conv.once(("space to depth",), lambda: _space_to_depth(conv))


def _space_to_depth(conv: Convolution) -> Convolution:
    geometry = conv.geometry
    sizes = [-(-k // st) for k, st in zip(geometry.kernel, conv.stride, strict=True)]
    # Rows and columns beyond the last window are never read.
    places = [p + k - 1 for p, k in zip(geometry.output, sizes, strict=True)]
    folded = _fold(pad(conv.input, conv.padding), conv.stride, places)
    kernel = _fold(conv.kernel, conv.stride, sizes)
    return replace(conv, input=folded, kernel=kernel, stride=(1, 1), padding=(0, 0, 0, 0), scatter=EVERYWHERE)


def _fold(array: np.ndarray, stride: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    """(A, C, H, W) → (A, st·st·C, *sizes), cut or filled with zeros to sizes·stride first."""
    wanted = [size * st for size, st in zip(sizes, stride, strict=True)]
    kept = array[:, :, : wanted[0], : wanted[1]]
    kept = pad(kept, (0, wanted[0] - kept.shape[2], 0, wanted[1] - kept.shape[3]))
    split = kept.reshape(*kept.shape[:2], sizes[0], stride[0], sizes[1], stride[1])
    return split.transpose(0, 3, 5, 1, 2, 4).reshape(len(kept), -1, *sizes)


def _windows(conv: Convolution) -> np.ndarray:
    """The input as each tap sees it, a view: (N, C, R, S, P, Q)."""
    geometry = conv.geometry
    extent = geometry.kernel_extent
    views = Window(pad(conv.input, conv.padding), extent, axis=(2, 3))[:, :, :: conv.stride[0], :: conv.stride[1]]
    views = views[..., :: conv.dilation[0], :: conv.dilation[1]]
    return views.transpose(0, 1, 4, 5, 2, 3)


def _cut(values: np.ndarray, cuts: np.ndarray, total: int) -> list[np.ndarray]:
    """Along the first axis, at ``cuts`` of ``total``, (1, values) each: what those before a cut reach is before it."""
    at = -(-len(values) * cuts // total)
    return [values[a:b].reshape(1, -1) for a, b in pairwise(at.tolist())]
