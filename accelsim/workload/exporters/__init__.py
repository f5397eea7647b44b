"""Traces as files of other tools: one module a format, each with a function ``files``; formats.py has their rows.

They give names and texts; the caller writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from accelsim.errors import TraceError
from accelsim.workload.exporters.names import stem
from accelsim.workload.formats import Format
from accelsim.workload.trace import Snapshot


def files(row: Format, snapshot: Snapshot, network: str) -> Iterator[tuple[str, str]]:
    """Names of files and their texts.

    Parameters
    ----------
    row : Format
        One that can be written.
    snapshot : Snapshot
    network : str

    Raises
    ------
    AccelsimError
        If the format does not know what a layer is, or a layer lacks a tensor.
    """
    for layer in snapshot.layers:
        if layer.part is not None:
            raise TraceError(f"{layer.origin}{layer.name}: must hold all its places to be exported, holds a part")
    module = import_module(f"accelsim.workload.exporters.{row.writer}")
    yield from module.files(snapshot, stem(network))
