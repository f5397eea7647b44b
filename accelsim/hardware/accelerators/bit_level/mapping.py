"""How a layer lies on the tiles of a bit-level machine: columns and rows of a value, and which steps there are.

A window takes as many neighbouring columns as its values have slices of ``pe_width`` bits, a filter as many rows. A
step is one line of the streams: every column takes its own time for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware.lines import FilterLines, Lines
from accelsim.workload.lowering import Convolution


def is_linear(conv: Convolution) -> bool:
    """Whether it is a linear layer: one place, one tap, one window."""
    return conv.input.shape[2:] == conv.kernel.shape[2:] == conv.geometry.output == (1, 1)


@dataclass(frozen=True)
class Operand:
    """What is on one side of the tiles: how wide its integers are, and whether any is negative.

    Parameters
    ----------
    bits : int
        That the machine works on, in all slices together.
    slices : int
    signed : bool
    """

    bits: int
    slices: int
    signed: bool


@dataclass(frozen=True, eq=False)
class Steps:
    """What the rows hold, as steps.

    Parameters
    ----------
    count : ndarray of int64, (rounds,)
        Steps of each round of tiles.
    lines : ndarray of int64, (sets,)
        Lines that each set executes: a tile with fewer than its round has steps waits in the others.
    filled : ndarray of int64, (rounds, most steps)
        Lanes of rows that hold a value to multiply with, over the tiles of a round.
    """

    count: np.ndarray
    lines: np.ndarray
    filled: np.ndarray


@dataclass(frozen=True, eq=False)
class Mapping:
    """One group of a convolution, of integers, on the tiles.

    Parameters
    ----------
    lines : Lines
    tiles, rows, columns : int
        Of the machine.
    on_columns, on_rows : Operand
    """

    lines: Lines
    tiles: int
    rows: int
    columns: int
    on_columns: Operand
    on_rows: Operand

    def __post_init__(self) -> None:
        for key, has, needs in (
            ("columns", self.columns, self.on_columns.slices),
            ("rows", self.rows, self.on_rows.slices),
        ):
            if has < needs:
                raise MachineError(f"accelerator.{key}: must hold the slices of a value, {needs}, got {has}")

    @property
    def lanes(self) -> int:
        return self.lines.lanes

    @property
    def windows(self) -> int:
        """Windows that a tile holds at a time, of those that there are; of a linear layer steps, at most."""
        sets = self.lines.shape[0] * -(-self.lines.shape[1] // self.filters)
        most = self.lines.shape[2] * -(-sets // self.tiles) if self.is_linear else self.lines.windows
        return min(self.columns // self.on_columns.slices, most)

    @property
    def filters(self) -> int:
        """Streams that the rows of a tile hold at a time."""
        return self.rows // self.on_rows.slices

    @property
    def in_use(self) -> int:
        """Columns that a full set of windows takes."""
        return self.windows * self.on_columns.slices

    @property
    def visits(self) -> int:
        """Sets of windows of a repeat."""
        return -(-self.lines.windows // self.windows)

    @property
    def last_columns(self) -> int:
        """Columns in use in the last of them."""
        return (self.lines.windows - (self.visits - 1) * self.windows) * self.on_columns.slices

    @property
    def has_window(self) -> np.ndarray:
        """Which columns in use of a full set hold a window at each visit: (visits, columns)."""
        ends = np.full(self.visits, self.in_use)
        ends[-1] = self.last_columns
        return np.asarray(np.arange(self.in_use) < ends[:, None])

    @property
    def is_linear(self) -> bool:
        """Whether it is one window of a linear layer."""
        return isinstance(self.lines, FilterLines) and is_linear(self.lines.conv)

    @property
    def sets(self) -> np.ndarray:
        """Streams in each set, set after set."""
        blocks, streams, _ = self.lines.shape
        own = np.full(-(-streams // self.filters), self.filters, np.int64)
        own[-1] = streams - (own.size - 1) * self.filters
        return np.tile(own, blocks)

    def by_round(self, of_sets: np.ndarray) -> np.ndarray:
        """(sets, …) → (rounds, tiles, …), zeros for a tile without a set."""
        gap = -len(of_sets) % self.tiles
        full = np.concatenate([of_sets, np.zeros((gap, *of_sets.shape[1:]), of_sets.dtype)])
        return full.reshape(-1, self.tiles, *of_sets.shape[1:])

    def row_sets(self) -> Iterator[np.ndarray]:
        """What the rows of a tile hold, (filters in use, T, lanes), set after set."""
        for block in self.lines.blocks():
            for first in range(0, len(block), self.filters):
                yield block[first : first + self.filters]

    def on_each_column(self, of_windows: np.ndarray) -> np.ndarray:
        """(windows, slices, …) → (visits, columns, …): what each column holds at each visit; zeros where nothing."""
        gap = self.visits * self.windows - len(of_windows)
        full = np.concatenate([of_windows, np.zeros((gap, *of_windows.shape[1:]), of_windows.dtype)])
        return full.reshape(self.visits, self.in_use, *of_windows.shape[2:])

    def of_windows(self, of_columns: np.ndarray) -> np.ndarray:
        """(visits, T, columns) → (windows, slices, T): undoes ``on_each_column``."""
        whole = of_columns.swapaxes(1, 2).reshape(self.visits * self.windows, self.on_columns.slices, -1)
        return whole[: self.lines.windows]
