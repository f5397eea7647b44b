"""Timeloop problems as version 0.3 spells them: no version, and - for _ in the names of keys."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.workload.exporters import timeloop
from accelsim.workload.trace import Snapshot

OLD = {"  version: 0.4\n": "", "data_spaces:": "data-spaces:", "read_write:": "read-write:"}


def files(snapshot: Snapshot, network: str) -> Iterator[tuple[str, str]]:
    """As :func:`accelsim.workload.exporters.timeloop.files`."""
    for name, text in timeloop.files(snapshot, network):
        for new, old in OLD.items():
            text = text.replace(new, old)
        yield name, text
