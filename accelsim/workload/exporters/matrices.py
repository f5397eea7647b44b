"""Weights as matrices: a row a filter, a column one of its weights in the order C R S."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from accelsim.workload.exporters.names import stem
from accelsim.workload.trace import Snapshot


def matrices(snapshot: Snapshot) -> Iterator[tuple[str, np.ndarray]]:
    """A file's name without its ending, and the mask of a layer's weights; TraceError if it has none."""
    for number, layer in enumerate(snapshot.layers):
        mask = layer.tensor("weight") != 0
        yield f"{number:03}_{stem(layer.name)}", mask.reshape(len(mask), -1)
