"""DLMC's sparse matrices, a file a layer: which weights are not zero."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from accelsim.workload.exporters.matrices import matrices
from accelsim.workload.trace import Snapshot


def files(snapshot: Snapshot, network: str) -> Iterator[tuple[str, str]]:
    """Names and texts; TraceError if a layer has no weight."""
    for name, mask in matrices(snapshot):
        starts = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
        columns = np.nonzero(mask)[1]
        head = f"{mask.shape[0]}, {mask.shape[1]}, {len(columns)}"
        yield f"{name}.smtx", "\n".join([head, " ".join(map(str, starts)), " ".join(map(str, columns))]) + "\n"
