"""The off-chip port's naive twin: it walks through time in fractions of cycles, from refresh to refresh, with no ticks.

Only what docs/memory.md rounds is rounded: a transfer's time, its share of a turn, and times in ns, to a tick.
"""

from __future__ import annotations

import math
from fractions import Fraction

TICKS = 1 << 20


class Port:
    """Its transfers, one after another."""

    def __init__(self, offchip, clock_mhz: int):
        self.offchip, self.clock_mhz = offchip, clock_mhz
        self.refresh, self.interval = (self.cycles(ns) for ns in (offchip.refresh_ns, offchip.refresh_interval_ns))
        self.free, self.last = Fraction(0), None

    def cycles(self, ns: int) -> Fraction:
        return Fraction(math.ceil(Fraction(ns * self.clock_mhz * TICKS, 1000)), TICKS)

    def burst(self) -> Fraction:
        """Of one channel."""
        rate = self.offchip.megabytes_per_second
        cycles = Fraction(self.offchip.burst_bytes * self.clock_mhz, rate) if rate else Fraction(0)
        return Fraction(math.ceil(cycles * TICKS), TICKS)

    def tail(self) -> Fraction:
        """The longest that a burst may take on its channel, with the refreshes in that time."""
        refreshes = 1 + math.ceil(self.burst() / (self.interval - self.refresh)) if self.interval else 0
        return self.burst() + refreshes * self.refresh

    def work(self, size: int) -> Fraction:
        """Of all channels together, which share the bursts of a transfer."""
        rate = self.offchip.megabytes_per_second * self.offchip.channels
        moved = math.ceil(Fraction(size, self.offchip.burst_bytes)) * self.offchip.burst_bytes
        return Fraction(math.ceil(Fraction(moved * self.clock_mhz, rate) * TICKS), TICKS) if rate else Fraction(0)

    def turn(self, work: Fraction, write: bool) -> Fraction:
        """Idle before a transfer that goes the other way than the last."""
        if self.last is None or self.last == write:
            return Fraction(0)
        whole = self.cycles(self.offchip.read_to_write_ns if write else self.offchip.write_to_read_ns)
        queue = self.offchip.queue_bursts * self.burst()
        return Fraction(math.floor(min(1, work / queue) * whole * TICKS), TICKS) if queue else whole

    def refreshing_until(self, time: Fraction) -> Fraction | None:
        """The end of the refresh that goes on at a time, if one does."""
        if not self.interval or time < self.interval:
            return None
        end = time // self.interval * self.interval + self.refresh
        return end if time < end else None

    def after(self, time: Fraction, work: Fraction) -> Fraction:
        """When so much is done that begins at a time; nothing is while a refresh goes on."""
        while work:
            time = self.refreshing_until(time) or time
            upto = (time // self.interval + 1) * self.interval if self.interval else time + work
            done = min(work, upto - time)
            time, work = time + done, work - done
        return time

    def take(self, now: int, size: int, write: bool) -> tuple[int, int, int]:
        """Cycles of a transfer's first byte and of its end, and when the port is free for another."""
        work = self.work(size)
        ready = max(Fraction(now), self.after(self.free, self.turn(work, write)))
        first = self.refreshing_until(ready) or ready
        done = max(first, self.after(ready, max(work, self.burst())))
        self.free, self.last = self.after(ready, work), write
        return math.ceil(first), math.ceil(done), max(now, math.floor(self.free))
