"""accelsim's own traces, for their shapes: to draw their layers anew, or as the topology of weights."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from accelsim.workload.importers.base import Imported, ImportedLayer
from accelsim.workload.metadata import META
from accelsim.workload.trace import Trace


def read(path: str | os.PathLike[str]) -> Imported:
    """The layers of a trace's first snapshot, without their tensors.

    Raises
    ------
    TraceError
        As ``Trace.open``.
    """
    with Trace.open(path) as trace:
        first = trace.snapshots[0]
        layers = tuple(
            ImportedLayer(layer.name, layer.kind, layer.geometry, samples=layer.samples) for layer in first.layers
        )
        return Imported(Path(path), "trace", trace.network, layers, first.layers[0].samples, first.batch)


def tells(path: Path) -> bool:
    """Whether it is a trace: an .npz with a trace's description, or one that cannot be opened."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return f"{META}.npy" in file.namelist()
    except (zipfile.BadZipFile, OSError):
        return True
