"""When a port serves its transfers: whole cycles on chip; off chip parts of cycles, refresh and the turns of the bus.

A port is a line that serves one transfer after another at a fixed rate, in ticks. Off chip it stands for all channels
together: addresses interleave them burst by burst, across transfers, so that all are as busy. Refresh stops all of them
at once. What rows cost is not modelled. docs/memory.md states the rules, and how far they are from a DRAM simulator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.errors import MachineError

TICKS = 1 << 20  # of a cycle: a burst's time is rounded up to one, and none is lost from transfer to transfer
MOST_CYCLES = (1 << 63) // TICKS  # what 64 bits hold


def in_ticks(cycles: np.ndarray) -> np.ndarray:
    """Cycles that transfers keep a port, as ticks. Raises MachineError where 64 bits do not hold them."""
    check_exact(int(cycles.max(initial=0)), "a transfer")
    return cycles * TICKS


def check_exact(cycles: int, what: str) -> None:
    """Raises MachineError where a time in ticks would wrap around."""
    if cycles >= MOST_CYCLES:
        raise MachineError(f"memory: {what} must take less than 2^43 cycles to be exact, may take {cycles:,}")


@dataclass(frozen=True)
class PortTiming:
    """What a port's time goes to beside its transfers, in ticks; nothing, on chip.

    Parameters
    ----------
    burst : int
        A burst keeps its channel for so long, however many channels there are.
    refresh, interval : int
        Nothing is moved for the first ``refresh`` ticks of every ``interval`` but the first; 0: none.
    to_write, to_read : int
        A write after a read, a read after a write, waits so long for the bus to turn.
    queue : int
        Channels collect so much before they turn: a transfer of less pays its share of a turn. 0: all of it.
    """

    burst: int = 0
    refresh: int = 0
    interval: int = 0
    to_write: int = 0
    to_read: int = 0
    queue: int = 0

    def turn(self, ticks: int, *, write: bool) -> int:
        """What a transfer of so many ticks pays where the one before it went the other way."""
        whole = self.to_write if write else self.to_read
        return min(ticks, self.queue) * whole // self.queue if self.queue else whole

    def served(self, time: int) -> int:
        """How much of the time until ``time`` was not refresh."""
        if not self.interval:
            return time
        number, since = divmod(time, self.interval)
        return time - self.refresh * (number - 1) - min(since, self.refresh) if number else time

    def time(self, served: int) -> int:
        """The earliest time until which so much was not refresh."""
        if not self.interval or served <= self.interval:
            return served
        return served + self.refresh * -(-(served - self.interval) // (self.interval - self.refresh))


@dataclass(frozen=True)
class Times:
    """A transfer at its port, in cycles: its first and last byte, and when the port may choose another."""

    first: int
    done: int
    free: int


class Port:
    """A port at work; its own clock stands still while it refreshes."""

    def __init__(self, timing: PortTiming):
        self.timing = timing
        self._busy_until = 0
        self._writes: bool | None = None

    def take(self, now: int, ticks: int, *, write: bool) -> Times:
        """A transfer of so many ticks that is chosen in cycle ``now``; the port must be free."""
        timing, ready = self.timing, self._busy_until
        if self._writes is not None and self._writes != write:
            ready += timing.turn(ticks, write=write)
        begin = max(timing.served(now * TICKS), ready)
        self._busy_until, self._writes = begin + ticks, write
        first = -(-(timing.time(begin + 1) - 1) // TICKS)  # what begins when a refresh does begins after it
        done = -(-timing.time(begin + max(ticks, timing.burst)) // TICKS)
        return Times(first, max(first, done), max(now, timing.time(begin + ticks) // TICKS))
