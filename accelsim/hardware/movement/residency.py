"""What stays in a memory or buffer, and from when on there is room for the next part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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

    Where other samples' parts come between, each use is a visit, and what is held through several counts with theirs.

    Parameters
    ----------
    part, first, last : ndarray of int64, (visits,)
        The part, and the first and last job of the visit.
    of_use : ndarray of int64, (uses,)
        The visit that each use belongs to.
    opens : ndarray of bool, (visits,)
        Whether it is the first visit of its part.
    final : ndarray of int64, (parts,)
        The last job that uses each part; −1 where none does.
    held : ndarray of int64, (used parts,)
        Bytes that are held as each part is first used, in this order, if all stay from their first visit to their last.
        What is used first later on adds nothing to it.
    largest_bytes : int
        Bytes of the largest part that is used; 0 where none is.
    """

    part: np.ndarray
    first: np.ndarray
    last: np.ndarray
    of_use: np.ndarray
    opens: np.ndarray
    final: np.ndarray
    held: np.ndarray
    largest_bytes: int

    @classmethod
    def of(cls, jobs: np.ndarray, parts: np.ndarray, sizes: np.ndarray, summed: tuple[int, int] = (1, 1)) -> Visits:
        """Visits from the jobs, ascending, that use parts; ``sizes`` are the bytes of each part, which is of so many
        samples of so many that each job sums over.
        """
        from accelsim.hardware.kernels.visits import visits

        return cls(*visits(jobs, parts, sizes, *summed))

    @cached_property
    def peak_bytes(self) -> int:
        """The most bytes at once, if all parts stay from their first visit to their last."""
        return int(self.held.max(initial=0))

    def all_parts(self) -> np.ndarray:
        """The choice of every part."""
        return np.ones(self.final.size, bool)

    def kept_within(self, room: int) -> np.ndarray:
        """Which parts to hold from their first visit to their last, in ``room`` bytes: as many as fit, the first
        first.
        """
        over = np.flatnonzero(self.held > room)
        kept = np.zeros(self.final.size, bool)
        kept[self.part[self.opens][: over[0] if over.size else None]] = True
        return kept

    def moves(self, kept: np.ndarray) -> Moves:
        """What has to be brought if the parts chosen are held from their first visit to their last, the others for a
        visit.
        """
        from accelsim.hardware.kernels.visits import moves

        return Moves(*moves(self.part, self.first, self.last, self.of_use, self.opens, self.final, kept))


class Room:
    """A memory's or buffer's bytes over a pass, given to parts in the order of the jobs that need them.

    A part enters once jobs have left enough room for it and for all that enters before it.
    """

    def __init__(self, capacity_bytes: int):
        self.capacity = capacity_bytes
        self._entries: list[tuple[np.ndarray, ...]] = []
        self._count = 0

    def enter(self, job: np.ndarray, size: np.ndarray, until: np.ndarray, rank: int = 0) -> slice:
        """Parts that jobs need and that stay until a job is complete; returns their numbers.

        Of what the same job needs rank 0 enters before rank 1.
        """
        start = self._count
        self._count += job.size
        self._entries.append((job, size, until, np.full(job.size, rank)))
        return slice(start, self._count)

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All that enters: job, bytes, last job, rank."""
        if not self._entries:
            return (np.zeros(0, np.int64),) * 4
        job, size, until, rank = (np.concatenate(column) for column in zip(*self._entries, strict=True))
        return job, size, until, rank

    def opened_by(self, jobs: int) -> np.ndarray:
        """The last job that must be complete before each part may enter; −1 where none need be."""
        job, size, until, rank = self.entries()
        order = np.argsort(2 * job + rank, kind="stable")
        taken = np.cumsum(size[order])
        freed = np.cumsum(np.bincount(until, weights=size, minlength=jobs).astype(np.int64))
        opened = np.empty(job.size, np.int64)
        opened[order] = np.where(taken <= self.capacity, -1, np.searchsorted(freed, taken - self.capacity))
        return opened
