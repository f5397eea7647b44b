"""What stays in a memory or buffer, and from when on there is room for the next part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Moves:
    """What is brought to a place, in this order.

    Parameters
    ----------
    job, part, until : ndarray of int64, (moves,)
        The first job that needs it, what it is, and the last job for which it is held.
    made : ndarray of int64, (uses,)
        Moves that are made up to each use of what they bring.
    """

    job: np.ndarray
    part: np.ndarray
    until: np.ndarray
    made: np.ndarray


@dataclass(frozen=True, eq=False)
class Visits:
    """Uses of an operand's parts; uses of the same part in succession are one visit, through which it is held.

    Parameters
    ----------
    part, first, last : ndarray of int64, (visits,)
        The part, and the first and last job of the visit.
    of_use : ndarray of int64, (uses,)
        The visit that each use belongs to.
    sizes : ndarray of int64, (parts,)
        Bytes of each part.
    """

    part: np.ndarray
    first: np.ndarray
    last: np.ndarray
    of_use: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, jobs: np.ndarray, parts: np.ndarray, sizes: np.ndarray) -> Visits:
        """Visits from the jobs, ascending, that use parts."""
        begins = np.diff(parts, prepend=-1) != 0
        at = np.flatnonzero(begins)
        return cls(parts[at], jobs[at], jobs[np.append(at, jobs.size)[1:] - 1], np.cumsum(begins) - 1, sizes)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest part that is used; 0 where none is."""
        return int(self.sizes[self.part].max(initial=0))

    def peak_bytes(self, kept: np.ndarray) -> int:
        """The most bytes at once of the parts chosen, each held from its first visit to its last."""
        chosen = kept[self.part]
        parts, opening = np.unique(self.part[chosen], return_index=True)
        closing = np.flatnonzero(chosen).size - 1 - np.unique(self.part[chosen][::-1], return_index=True)[1]
        begins, ends = self.first[chosen][opening], self.last[chosen][closing]
        order = np.argsort(begins, kind="stable")
        entered = np.cumsum(self.sizes[parts][order])
        # What is held when a part enters: all that entered so far but for what had ended before.
        by_end = np.argsort(ends, kind="stable")
        left = np.append(0, np.cumsum(self.sizes[parts][by_end]))
        gone = left[np.searchsorted(ends[by_end], begins[order], side="left")]
        return int((entered - gone).max(initial=0))

    def all_parts(self) -> np.ndarray:
        """The choice of every part."""
        return np.ones(self.sizes.size, bool)

    def kept_within(self, room: int) -> np.ndarray:
        """Which parts to hold from their first visit to their last, in ``room`` bytes: as many as fit, the first
        first.
        """
        rank = np.full(self.sizes.size, self.sizes.size)
        parts, opening = np.unique(self.part, return_index=True)
        rank[parts[np.argsort(opening, kind="stable")]] = np.arange(parts.size)
        low, high = 0, parts.size
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.peak_bytes(rank < middle) <= room else (low, middle - 1)
        return rank < low

    def moves(self, kept: np.ndarray) -> Moves:
        """What has to be brought if the parts chosen are held from their first visit to their last, the others for a
        visit.
        """
        first_visit = np.zeros(self.part.size, bool)
        first_visit[np.unique(self.part, return_index=True)[1]] = True
        final = np.zeros(self.sizes.size, np.int64)
        np.maximum.at(final, self.part, self.last)
        stays = kept[self.part]
        moved = first_visit | ~stays
        until = np.where(stays, final[self.part], self.last)
        return Moves(self.first[moved], self.part[moved], until[moved], np.cumsum(moved)[self.of_use])


class Room:
    """A memory's or buffer's bytes over a pass, given to parts in the order of the jobs that need them.

    A part enters once jobs have left enough room for it and for all that enters before it.
    """

    def __init__(self, capacity_bytes: int):
        self.capacity = capacity_bytes
        self._entries: list[tuple[np.ndarray, ...]] = []

    def enter(self, job: np.ndarray, size: np.ndarray, until: np.ndarray, rank: int = 0) -> tuple[int, int]:
        """Parts that jobs need and that stay until a job is complete; returns their numbers, first and past the last.

        Of what the same job needs lower ranks enter first.
        """
        start = sum(entry[0].size for entry in self._entries)
        self._entries.append((job, size, until, np.full(job.size, rank)))
        return start, start + job.size

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All that enters: job, bytes, last job, rank."""
        if not self._entries:
            return (np.zeros(0, np.int64),) * 4
        job, size, until, rank = (np.concatenate(column) for column in zip(*self._entries, strict=True))
        return job, size, until, rank

    def opened_by(self, jobs: int) -> np.ndarray:
        """The last job that must be complete before each part may enter; −1 where none need be."""
        job, size, until, rank = self.entries()
        order = np.lexsort((rank, job))
        taken = np.cumsum(size[order])
        freed = np.cumsum(np.bincount(until, weights=size, minlength=jobs).astype(np.int64))
        opened = np.empty(job.size, np.int64)
        opened[order] = np.where(taken <= self.capacity, -1, np.searchsorted(freed, taken - self.capacity))
        return opened
