"""MatrixMarket patterns, a file a layer: which weights are not zero."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from accelsim.workload.exporters.matrices import matrices
from accelsim.workload.trace import Snapshot


def files(snapshot: Snapshot, network: str) -> Iterator[tuple[str, str]]:
    """Names and texts; TraceError if a layer has no weight."""
    for name, mask in matrices(snapshot):
        places = np.argwhere(mask) + 1
        lines = ["%%MatrixMarket matrix coordinate pattern general", f"{mask.shape[0]} {mask.shape[1]} {len(places)}"]
        yield f"{name}.mtx", "\n".join([*lines, *(f"{row} {column}" for row, column in places)]) + "\n"
