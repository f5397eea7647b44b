"""A plan: the transfers of a pass, and what each waits for. ``Planner`` makes it, ``memory.replay`` plays it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from accelsim.hardware.movement.residency import Room

OFFCHIP = "offchip"
JOBS = "jobs"
STALLS = "stalls"


@dataclass(eq=False)
class Stream:
    """Transfers of one kind, made in this order on one port.

    The lists have an entry a transfer: the job that needs it first, bytes, cycles that it keeps the port, in ``needs``
    how many jobs must be complete, or transfers of another stream have arrived, before it may start, and in ``fills``
    the number of the part in ``room`` that it brings; −1 for none.
    """

    name: str
    port: str
    operand: str
    latency: int
    room: str = ""
    job: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    cycles: list[int] = field(default_factory=list)
    needs: dict[str, list[int]] = field(default_factory=dict)
    fills: list[int] = field(default_factory=list)

    def extend(
        self,
        job: np.ndarray,
        size: np.ndarray,
        cycles: np.ndarray,
        needs: dict[str, np.ndarray],
        fills: np.ndarray | None = None,
    ) -> None:
        """More transfers."""
        for name, counts in needs.items():
            self.needs.setdefault(name, [0] * len(self.job)).extend(np.broadcast_to(counts, job.shape).tolist())
        for mine, more in zip((self.job, self.size, self.cycles), (job, size, cycles), strict=True):
            mine.extend(more.tolist())
        for needed in self.needs.values():
            needed.extend([0] * (len(self.job) - len(needed)))
        self.fills.extend([-1] * job.size if fills is None else fills.tolist())


@dataclass(frozen=True, eq=False)
class Plan:
    """A pass, ready to be replayed.

    Parameters
    ----------
    layers : list of str
    ends : list of int
        Jobs of the pass up to and with each layer.
    job_cycles : list of int
    streams : dict of str to Stream
        By name; of those of a port the first goes first where both belong to the same job.
    load_of_job : dict of str to list of int
        For each stream of loads the transfer that brings what a job reads; −1 where it needs nothing new.
    stores_needed : list of int
        Stores that must have arrived before a job may start: until then its accumulators are in use.
    actions : list of dict of str to int
        For each layer what is counted for energy: bytes by place and direction, and accesses in the PEs.
    rooms : dict of str to Room
        What each memory and buffer holds when.
    """

    layers: list[str]
    ends: list[int]
    job_cycles: list[int]
    streams: dict[str, Stream]
    load_of_job: dict[str, list[int]]
    stores_needed: list[int]
    actions: list[dict[str, int]]
    rooms: dict[str, Room]
