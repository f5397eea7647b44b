"""A plan: the transfers of a pass, and what each waits for. ``Planner`` makes it, ``replay`` plays it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from accelsim.hardware.movement.port import PortTiming
from accelsim.hardware.movement.residency import Room
from accelsim.hardware.movement.traffic import ACTIVATIONS, WEIGHTS

OFFCHIP = "offchip"
JOBS = "jobs"
STALLS = "stalls"
# In a cycle they choose in this order.
PORTS = (OFFCHIP, ACTIVATIONS, WEIGHTS)


@dataclass(frozen=True, eq=False)
class Stream:
    """Transfers of one kind, made in this order on one port.

    Parameters
    ----------
    name, port, operand : str
        What they are called, where they are made, and what they move.
    latency : int
        Cycles from a transfer's start to its first byte.
    room : str
        The memory or buffer that they fill, "" for none.
    job, size, ticks : ndarray of int64, (transfers,)
        The job that needs each first, its bytes, and the ticks that it keeps the port (``port.TICKS`` of a cycle).
    needs : dict of str to ndarray of int64, (transfers,)
        How many jobs must be complete, or transfers of another stream have arrived, before each may start.
    fills : ndarray of int64, (transfers,)
        The number of the part in ``room`` that each brings; −1 for none.
    """

    name: str
    port: str
    operand: str
    latency: int
    room: str
    job: np.ndarray
    size: np.ndarray
    ticks: np.ndarray
    needs: dict[str, np.ndarray]
    fills: np.ndarray

    @property
    def writes(self) -> bool:
        """Whether its transfers are writes at their port."""
        return self.operand == "result"


@dataclass(frozen=True, eq=False)
class Plan:
    """A pass, ready to be replayed.

    Parameters
    ----------
    layers : list of str
    ends : ndarray of int64, (layers,)
        Jobs of the pass up to and with each layer.
    job_cycles : ndarray of int64, (jobs,)
    streams : dict of str to Stream
        By name; of those of a port the first goes first where both belong to the same job.
    load_of_job : dict of str to ndarray of int64, (jobs,)
        For each stream of loads the transfer that brings what a job reads; −1 where it needs nothing new.
    stores_needed : ndarray of int64, (jobs,)
        Stores that must have arrived before a job may start: until then its accumulators are in use.
    actions : list of dict of str to int
        For each layer what is counted for energy: bytes by place and direction, and accesses in the PEs.
    rooms : dict of str to Room
        What each memory and buffer holds when.
    offchip : PortTiming
        Of the port to off-chip memory; others have nothing but their transfers.
    """

    layers: list[str]
    ends: np.ndarray
    job_cycles: np.ndarray
    streams: dict[str, Stream]
    load_of_job: dict[str, np.ndarray]
    stores_needed: np.ndarray
    actions: list[dict[str, int]]
    rooms: dict[str, Room]
    offchip: PortTiming = field(default_factory=PortTiming)


@dataclass(frozen=True)
class Replay:
    """What a replay gives, layer by layer.

    Parameters
    ----------
    ends : list of int
        Cycle at which each layer's last job ends; the last layer's, at which its last result has left.
    stalls : list of dict of str to int
        Cycles in which PEs waited, by cause, named as in ``accelsim.ledger``; with the cycles of the
        layer's jobs they add up to the time from the end of the layer before.
    """

    ends: list[int]
    stalls: list[dict[str, int]]
