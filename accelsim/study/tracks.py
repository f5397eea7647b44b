"""Tracks of a timeline: slices one after another, or a counter's level; put together within windows where too many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar


@dataclass(slots=True)
class Slices:
    """What a track of slices holds: one after another, each name once with its cycles, bytes, count, first job."""

    layer: int
    start: int
    end: int
    parts: dict[str, tuple[int, int, int, int]]

    @property
    def size(self) -> int:
        return len(self.parts)

    def absorb(self, later: Slices) -> None:
        self.end = later.end
        for name, (cycles, size, count, job) in later.parts.items():
            mine = self.parts.get(name, (0, 0, 0, job))
            self.parts[name] = mine[0] + cycles, mine[1] + size, mine[2] + count, mine[3]

    def events(self) -> Iterator[tuple[str, int, int, dict[str, int]]]:
        at = self.start
        for name, (cycles, size, count, job) in self.parts.items():
            yield name, at, cycles, {"count": count, "job": job} | ({"bytes": size} if size else {})
            at += cycles


@dataclass(slots=True)
class Level:
    """What a counter holds: the most bytes from a cycle to the next entry."""

    layer: int
    start: int
    end: int
    bytes: int
    size = 1

    def absorb(self, later: Level) -> None:
        self.end = later.end
        self.bytes = max(self.bytes, later.bytes)

    def events(self) -> Iterator[tuple[str, int, int, dict[str, int]]]:
        yield "", self.start, 0, {"bytes": self.bytes}


Entry = TypeVar("Entry", Slices, Level)


class Track(Generic[Entry]):
    """Entries of one track. Past ``most`` of them those within a window are put together, in wider windows if need be.

    No window goes on from a layer into the next, so each layer keeps at least one.
    """

    def __init__(self, name: str, most: float, window: float):
        self.name, self.most, self.window = name, most, window
        self.entries: list[Entry] = []
        self.size = 0

    def add(self, entry: Entry) -> None:
        self._append(entry)
        while self.size > self.most and self.window < math.inf:
            pairs = pairwise(self.entries)
            lengths = sorted(then.end - first.start for first, then in pairs if first.layer == then.layer)
            # At least every fourth goes into the one before it.
            self.window = max(2 * self.window, lengths[len(lengths) // 2], 1) if lengths else math.inf
            entries, self.entries, self.size = self.entries, [], 0
            for each in entries:
                self._append(each)

    def _append(self, entry: Entry) -> None:
        last = self.entries[-1] if self.entries else None
        if last and self.window and last.layer == entry.layer and entry.end - last.start <= self.window:
            self.size -= last.size
            last.absorb(entry)
            self.size += last.size
        else:
            self.entries.append(entry)
            self.size += entry.size
