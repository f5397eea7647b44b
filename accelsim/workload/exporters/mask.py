"""Masks as text, a file a layer: a line of 0 and 1 for each filter."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.workload.exporters.matrices import matrices
from accelsim.workload.trace import Snapshot


def files(snapshot: Snapshot, network: str) -> Iterator[tuple[str, str]]:
    """Names and texts; TraceError if a layer has no weight."""
    for name, mask in matrices(snapshot):
        yield f"{name}.txt", "\n".join(" ".join("01"[bit] for bit in row) for row in mask.astype(int)) + "\n"
