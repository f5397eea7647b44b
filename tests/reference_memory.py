"""The memory's naive twins: a plan played cycle by cycle, and its log read like a ledger. No SimPy, no look-ahead."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from accelsim.hardware.plan import JOBS, Plan

# In a cycle they choose in this order.
PORTS = ("offchip", "activation_memory", "weight_memory")


@dataclass
class Played:
    """What ``replay`` below found: as ``accelsim.hardware.memory.Replay``, and a log as its observer is told."""

    ends: list[int]
    stalls: list[dict[str, int]]
    log: list[tuple[str, str, int, int, int]]


class _Pass:
    """A plan at a cycle: which transfers have started when, and which jobs have begun and ended."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.starts = {name: [] for name in plan.streams}
        self.begun, self.ended = [], []
        self.free_at = dict.fromkeys(PORTS, 0)

    def arrival(self, name, number):
        stream = self.plan.streams[name]
        return self.starts[name][number] + stream.latency + stream.cycles[number]

    def has_arrived(self, name, count, now):
        """Whether so many transfers of a stream, or jobs, are complete."""
        if name == JOBS:
            return len(self.ended) >= count
        return not count or (len(self.starts[name]) >= count and self.arrival(name, count - 1) <= now)

    def next_ready(self, name, now):
        """Whether a stream's next transfer may start."""
        stream, number = self.plan.streams[name], len(self.starts[name])
        return number < len(stream.job) and all(
            self.has_arrived(other, counts[number], now) for other, counts in stream.needs.items()
        )

    def wanted(self, job):
        """What a job waits for: transfers whose first byte it needs, and those that it needs whole."""
        loads = [(name, of_job[job]) for name, of_job in self.plan.load_of_job.items() if of_job[job] >= 0]
        stores = self.plan.stores_needed[job]
        return loads, [("store", stores - 1)] if stores else []

    def may_begin(self, job, now):
        loads, whole = self.wanted(job)
        return all(
            number < len(self.starts[name]) and self.starts[name][number] + self.plan.streams[name].latency <= now
            for name, number in loads
        ) and all(self.has_arrived(name, number + 1, now) for name, number in whole)

    def may_end(self, job, now):
        loads, _ = self.wanted(job)
        worked = now >= self.begun[job] + self.plan.job_cycles[job]
        return worked and all(self.arrival(name, number) <= now for name, number in loads)

    def work(self, now):
        """PEs go as far as they can."""
        moved = False
        while len(self.ended) < len(self.plan.job_cycles):
            job = len(self.ended)
            if len(self.begun) == job and self.may_begin(job, now):
                self.begun.append(now)
            elif len(self.begun) > job and self.may_end(job, now):
                self.ended.append(now)
            else:
                break
            moved = True
        return moved

    def serve(self, port, now):
        """A free port starts one transfer, or all that may start while they take it no time."""
        moved = False
        while self.free_at[port] <= now:
            ready = [n for n, s in self.plan.streams.items() if s.port == port and self.next_ready(n, now)]
            if not ready:
                break
            name = min(ready, key=lambda n: self.plan.streams[n].job[len(self.starts[n])])
            self.free_at[port] = now + self.plan.streams[name].cycles[len(self.starts[name])]
            self.starts[name].append(now)
            moved = True
        return moved

    def unfinished(self, now):
        return len(self.ended) < len(self.plan.job_cycles) or not all(
            self.has_arrived(name, len(stream.job), now) for name, stream in self.plan.streams.items()
        )


def replay(plan: Plan, limit: int = 200_000) -> Played:
    """Plays a plan, a cycle at a time."""
    at, now = _Pass(plan), 0
    while at.unfinished(now):
        assert now < limit, "deadlock"
        # Whoever acts may let others act: begin again until nobody can.
        while at.work(now) or any(at.serve(port, now) for port in PORTS):
            pass
        now += 1
    return _account(at)


def _account(at: _Pass) -> Played:
    """Each cycle that PEs waited gets its cause; here all is known, so nothing is foreseen."""
    plan = at.plan
    stalls, layer, before = [Counter() for _ in plan.ends], 0, 0
    for job, (begun, ended) in enumerate(zip(at.begun, at.ended, strict=True)):
        while job >= plan.ends[layer]:
            layer += 1
        loads, whole = at.wanted(job)
        came = [(at.starts[name][n] + plan.streams[name].latency, name, n) for name, n in loads]
        came += [(at.arrival(name, n), name, n) for name, n in whole]
        for cycle in range(before, begun):
            # The one that came last; of several the first.
            _, name, number = max(came, key=lambda c: c[0])
            stalls[layer][_cause(at, name, number, cycle)] += 1
        for _ in range(begun + plan.job_cycles[job], ended):
            name, number = max(loads, key=lambda load: at.arrival(*load))
            stalls[layer][f"onchip_{plan.streams[name].operand}"] += 1
        before = ended
    for name in ("store", "write"):
        number = len(at.starts[name]) - 1
        finished = max(before, at.arrival(name, number)) if number >= 0 else before
        for cycle in range(before, finished):
            stalls[-1][_cause(at, name, number, cycle)] += 1
        before = finished
    ends = [at.ended[end - 1] for end in plan.ends]
    ends[-1] = before
    log = [
        (stream.port, name, n, start, start + stream.cycles[n])
        for name, stream in plan.streams.items()
        for n, start in enumerate(at.starts[name])
    ]
    log += [(JOBS, "", n, *times) for n, times in enumerate(zip(at.begun, at.ended, strict=True))]
    return Played(ends, [dict(lost) for lost in stalls], sorted(log))


def _cause(at: _Pass, name: str, number: int, cycle: int) -> str:
    """Off chip until the last byte that a transfer waited for has come from there or gone there, then on chip."""
    return f"{'offchip' if cycle < _outside_until(at, name, number) else 'onchip'}_{at.plan.streams[name].operand}"


def _outside_until(at: _Pass, name: str, number: int) -> int:
    if at.plan.streams[name].port == "offchip":
        return at.arrival(name, number)
    needs = at.plan.streams[name].needs
    before = [(other, counts[number] - 1) for other, counts in needs.items() if other != JOBS and counts[number]]
    return max((_outside_until(at, *one) for one in before), default=0)
