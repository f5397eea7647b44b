"""MatrixMarket (.mtx): coordinates or a whole array; real, integer, complex or pattern; of any symmetry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import Imported, blame, integer, read_text
from accelsim.workload.importers.matrix import LARGEST_MATRIX, imported

FIELDS = {"real": 1, "double": 1, "integer": 1, "complex": 2, "pattern": 0}
SYMMETRIES = ("general", "symmetric", "skew-symmetric", "hermitian")


def read(path: Path, topology: Imported | None = None, size: Mapping[str, int] | None = None) -> Imported:
    """Read a matrix as a layer's weights.

    Raises
    ------
    ImportFormatError
        One line that names the file and the line, if it is none, or does not fit the topology.
    """
    with blame(path):
        lines = read_text(path, LARGEST_MATRIX).splitlines()
        words = lines[0].lower().split() if lines else []
        if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
            raise ImportFormatError("line 1: must be %%MatrixMarket matrix, layout, field and symmetry")
        layout, field, symmetry = words[2:]
        is_array = layout == "array"
        if layout not in ("array", "coordinate") or field not in FIELDS or symmetry not in SYMMETRIES:
            raise ImportFormatError(
                f"line 1: must be a layout, field and symmetry of MatrixMarket, got {' '.join(words[2:])[:60]!r}"
            )
        body = [line for line in lines[1:] if line.strip() and not line.startswith("%")]
        head = body[0].split() if body else []
        if len(head) != (2 if is_array else 3):
            raise ImportFormatError(f"sizes: must be {'rows and columns' if is_array else 'rows, columns and entries'}")
        rows, columns = integer(head[0], "rows"), integer(head[1], "columns")
        if symmetry != "general" and rows != columns:
            raise ImportFormatError(f"{symmetry}: must have as many rows as columns, has {rows}×{columns}")
        cells = _cells(body[1:], FIELDS[field] + (0 if is_array else 2))
        if is_array:
            row, column = _below(rows, columns, symmetry)
            values = cells
        else:
            if len(cells) != integer(head[2], "entries", 0):
                raise ImportFormatError(f"entries: must be {head[2]}, are {len(cells)}")
            if np.abs(cells[:, :2]).max(initial=0) > LARGEST_MATRIX:
                raise ImportFormatError(f"entries: must be in {rows} rows and {columns} columns")
            row, column = (cells[:, axis].astype(np.int64) - 1 for axis in (0, 1))
            values = cells[:, 2:] if FIELDS[field] else np.ones((len(cells), 1))
        _check(row, column, len(values), rows, columns)

    def matrix() -> np.ndarray:
        found = np.zeros((rows, columns))
        sizes = np.abs(values).sum(axis=1)
        np.add.at(found, (row, column), sizes)
        if symmetry != "general":
            off = row != column
            np.add.at(found, (column[off], row[off]), sizes[off])
        return found

    return imported(path, "mtx", (rows, columns), matrix, topology, size)


def _cells(lines: list[str], width: int) -> np.ndarray:
    """Numbers, so many in each line."""
    table = [line.split() for line in lines]
    wrong = next((number for number, cells in enumerate(table) if len(cells) != width), None)
    if wrong is not None:
        raise ImportFormatError(f"entry {wrong + 1}: must be {width} numbers, got {lines[wrong][:60]!r}")
    try:
        numbers = np.array(table, dtype=object).astype(np.float64).reshape(len(table), width)
    except ValueError as error:
        raise ImportFormatError(f"entries: must be numbers: {str(error)[:80]}") from error
    if not np.isfinite(numbers).all():
        raise ImportFormatError("entries: must be finite numbers")
    return np.asarray(numbers)


def _below(rows: int, columns: int, symmetry: str) -> tuple[np.ndarray, np.ndarray]:
    """Places of an array's numbers, column by column; of a symmetric one those from the diagonal down."""
    if rows * columns > LARGEST_MATRIX:
        raise ImportFormatError(f"must have at most {LARGEST_MATRIX} elements, has {rows}×{columns}")
    column, row = np.divmod(np.arange(rows * columns), rows)
    if symmetry == "general":
        return row, column
    kept = row > column if symmetry == "skew-symmetric" else row >= column
    return row[kept], column[kept]


def _check(row: np.ndarray, column: np.ndarray, count: int, rows: int, columns: int) -> None:
    if len(row) != count:
        raise ImportFormatError(f"entries: must be {len(row)}, are {count}")
    for name, places, most in (("row", row, rows), ("column", column, columns)):
        if len(places) and not 0 <= places.min() <= places.max() < most:
            raise ImportFormatError(f"{name}: must be in 1…{most}, got {places.min() + 1}…{places.max() + 1}")
