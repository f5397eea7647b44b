"""DLMC's sparse matrices (.smtx): rows, columns and non-zeros; where each row begins; the columns. Positions alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import Imported, blame, integer, read_text
from accelsim.workload.importers.matrix import LARGEST_MATRIX, imported


def read(path: Path, topology: Imported | None = None, size: Mapping[str, int] | None = None) -> Imported:
    """Read a matrix as a layer's weights.

    Raises
    ------
    ImportFormatError
        One line that names the file, if its three lines do not fit each other, or the topology.
    """
    with blame(path):
        lines = read_text(path, LARGEST_MATRIX).splitlines()
        head = lines[0].replace(",", " ").split() if lines else []
        if len(head) != 3:
            raise ImportFormatError(f"line 1: must be rows, columns, nonzeros, got {' '.join(head)[:60]!r}")
        rows, columns = (integer(cell, what) for cell, what in zip(head, ("rows", "columns"), strict=False))
        count = integer(head[2], "nonzeros", 0)
        starts, places = (_numbers(lines, number) for number in (1, 2))
        if len(starts) != rows + 1 or starts[0] or starts[-1] != count or (np.diff(starts) < 0).any():
            raise ImportFormatError(f"line 2: must be {rows + 1} offsets from 0 up to {count}")
        if len(places) != count or (count and not 0 <= places.min() <= places.max() < columns):
            raise ImportFormatError(f"line 3: must be {count} columns in 0…{columns - 1}, has {len(places)}")
        within = places + columns * np.repeat(np.arange(rows), np.diff(starts))
        if len(np.unique(within)) < count:
            raise ImportFormatError("line 3: must name each column of a row once")

    def matrix() -> np.ndarray:
        mask = np.zeros(rows * columns, bool)
        mask[within] = True
        return mask.reshape(rows, columns)

    return imported(path, "smtx", (rows, columns), matrix, topology, size)


def _numbers(lines: list[str], number: int) -> np.ndarray:
    cells = lines[number].replace(",", " ").split() if len(lines) > number else []
    try:
        return np.array(cells, dtype=object).astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise ImportFormatError(f"line {number + 1}: must be integers") from error
