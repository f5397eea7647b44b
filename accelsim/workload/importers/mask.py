"""Masks as text: a line of 0 and 1 for each row, with blanks or commas between, or nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import Imported, blame, read_text
from accelsim.workload.importers.matrix import LARGEST_MATRIX, imported

SEPARATORS = str.maketrans("", "", " ,\t;[]")


def read(path: Path, topology: Imported | None = None, size: Mapping[str, int] | None = None) -> Imported:
    """Read a mask as a layer's weights.

    Raises
    ------
    ImportFormatError
        One line that names the file and the line, if it is none, or does not fit the topology.
    """
    with blame(path):
        rows = [line.translate(SEPARATORS) for line in read_text(path, LARGEST_MATRIX).splitlines()]
        rows = [row for row in rows if row and not row.startswith("#")]
        for number, row in enumerate(rows, start=1):
            if set(row) - {"0", "1"} or len(row) != len(rows[0]):
                raise ImportFormatError(f"row {number}: must be {len(rows[0])} times 0 or 1, got {row[:40]!r}")
        if not rows:
            raise ImportFormatError("must have a row of 0 and 1, has none")
        mask = np.frombuffer("".join(rows).encode(), np.uint8).reshape(len(rows), len(rows[0])) == ord("1")
    return imported(path, "mask", (len(rows), len(rows[0])), lambda: mask, topology, size)


def tells(path: Path) -> bool:
    """Whether a file begins with a row of 0 and 1."""
    try:
        text = read_text(path, LARGEST_MATRIX) if path.is_file() else ""
    except ImportFormatError:
        return False
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    return re.fullmatch(r"[01 ,\t;\[\]]+", first) is not None
