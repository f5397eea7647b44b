"""Replays a plan: ports serve transfers, PEs work on what has come. All SimPy is here.

Three ports — off-chip memory, activation memory, weight memory — each make one transfer at a time. Of those that may
start, a port takes the one that belongs to the earliest job. PEs take jobs in order: they begin a job on the first of
its data and cannot end it before the last. Time is in cycles, and an integer. docs/memory.md states every rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator

import simpy
from simpy.events import NORMAL, EventPriority

from accelsim import ledger
from accelsim.hardware.movement.plan import JOBS, OFFCHIP, PORTS, STALLS, Plan, Replay, Stream
from accelsim.hardware.movement.port import Port, PortTiming

# What happens at a time is done before a port chooses, so that it chooses among all that may start; of several free
# ports the first in PORTS does, and what follows from it is done before the next one's turn.
CHOOSING = NORMAL + 1

Observer = Callable[[str, str, int, int, int], None]
Steps = Generator[simpy.Event, None, None]


def replay(plan: Plan, observe: Observer | None = None) -> Replay:
    """Plays a plan through.

    Parameters
    ----------
    plan : Plan
    observe : callable, optional
        Called with each thing that happens: where ("offchip", …, or "jobs" for the PEs), the stream ("" for a job), the
        number of the transfer or job, the cycle it starts in, and the cycle it ends in, latency not included. A job
        ends when its last data has come; what PEs wait for it, before they work and after, is "stalls", with the cause
        in the stream's place.
    """
    return _Replay(plan, observe).run()


class _Late(simpy.Event):
    """A port's turn: an event that comes after the others of its time."""

    def __init__(self, env: simpy.Environment, turn: int, delay: int = 0):
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, EventPriority(turn), delay)


class _Queue:
    """A stream while it is played: how many transfers have started and arrived, and when each does."""

    def __init__(self, stream: Stream):
        self.stream, self.name = stream, stream.name
        self.job, self.ticks, self.latency = stream.job.tolist(), stream.ticks.tolist(), stream.latency
        self.size = len(self.job)
        self.started = self.count = 0
        self.first: list[int] = []
        self.done: list[int] = []
        self.needs: list[tuple[_Queue | _Jobs, list[int]]] = []
        self.watchers: list[_Port] = []

    def ready(self) -> bool:
        at = self.started
        return at < self.size and all(other.count >= counts[at] for other, counts in self.needs)


class _Port:
    """A port: of its streams' next transfers that may start, the one of the earliest job goes first."""

    def __init__(self, name: str, timing: PortTiming):
        self.name, self.turn, self.clock = name, CHOOSING + PORTS.index(name), Port(timing)
        self.queues: list[_Queue] = []
        self.idle: simpy.Event | None = None

    def choose(self) -> _Queue | None:
        chosen = None
        for queue in self.queues:
            if queue.ready() and (chosen is None or queue.job[queue.started] < chosen.job[chosen.started]):
                chosen = queue
        return chosen


class _Jobs:
    """The jobs, as something to wait for."""

    def __init__(self) -> None:
        self.count = 0


class _Replay:
    def __init__(self, plan: Plan, observe: Observer | None):
        self.plan, self.observe = plan, observe
        self.job_cycles, self.stores_needed = plan.job_cycles.tolist(), plan.stores_needed.tolist()
        self.env = simpy.Environment()
        self.jobs = _Jobs()
        self.queues = {name: _Queue(stream) for name, stream in plan.streams.items()}
        self.ports = [_Port(name, plan.offchip if name == OFFCHIP else PortTiming()) for name in PORTS]
        self.working: simpy.Event | None = None
        self.result: Replay | None = None
        for port in self.ports:
            port.queues = [q for q in self.queues.values() if q.stream.port == port.name]
        for queue in self.queues.values():
            for name, counts in queue.stream.needs.items():
                if counts.any():
                    queue.needs.append((self.jobs if name == JOBS else self.queues[name], counts.tolist()))
        for queue in self.queues.values():
            waiting = [q for q in self.queues.values() if any(other is queue for other, _ in q.needs)]
            queue.watchers = [port for port in self.ports if any(q in waiting for q in port.queues)]

    def run(self) -> Replay:
        for port in self.ports:
            self.env.process(self._serve(port))
        work = self.env.process(self._work())
        self.env.run()
        assert not work.is_alive and all(q.started == q.size for q in self.queues.values()), "deadlock"
        assert self.result is not None
        return self.result

    @property
    def now(self) -> int:
        """The cycle."""
        return int(self.env.now)

    def _serve(self, port: _Port) -> Steps:
        """One port."""
        yield _Late(self.env, port.turn)
        while any(queue.started < queue.size for queue in port.queues):
            queue = port.choose()
            if queue is None:
                port.idle = simpy.Event(self.env)
                yield port.idle
                continue
            cycles = self._start(queue, port.clock)
            if cycles:
                yield _Late(self.env, port.turn, cycles)

    def _start(self, queue: _Queue, port: Port) -> int:
        """A transfer starts; returns the cycles until the port may choose another."""
        now, number = self.now, queue.started
        times = port.take(now, queue.ticks[number], write=queue.stream.writes)
        queue.started += 1
        queue.first.append(times.first + queue.latency)
        queue.done.append(times.done + queue.latency)
        if queue.watchers:
            self.env.timeout(queue.done[-1] - now).callbacks.append(lambda _: self._arrived(queue))
        if self.working is not None:
            self.working.succeed()
            self.working = None
        if self.observe:
            self.observe(queue.stream.port, queue.name, number, now, times.done)
        return times.free - now

    def _arrived(self, queue: _Queue) -> None:
        queue.count += 1
        self._wake(queue.watchers)

    def _wake(self, ports: list[_Port]) -> None:
        for port in ports:
            if port.idle is not None:
                idle, port.idle = port.idle, None
                idle._ok, idle._value = True, None
                self.env.schedule(idle, EventPriority(port.turn))

    def _work(self) -> Steps:
        """The PEs: job after job."""
        plan = self.plan
        loads = [(self.queues[name], of_job.tolist()) for name, of_job in plan.load_of_job.items()]
        store = self.queues["store"]
        ends: list[int] = []
        stalls: list[Counter[str]] = []
        job = 0
        for end in plan.ends.tolist():
            lost: Counter[str] = Counter()
            while job < end:
                yield from self._job(job, loads, store, lost)
                job += 1
            ends.append(self.now)
            stalls.append(lost)
        yield from self._drain(ends, stalls)
        self.result = Replay(ends, [dict(lost) for lost in stalls])

    def _job(self, job: int, loads: list[tuple[_Queue, list[int]]], store: _Queue, lost: Counter[str]) -> Steps:
        """Waits for a job's data and accumulators, works, and says what each cycle of waiting was for."""
        begin = start = self.now
        first_of = last_of = None
        last = 0
        for queue, of_job in loads:
            number = of_job[job]
            if number < 0:
                continue
            while queue.started <= number:
                yield self._change()
            if queue.first[number] > start:
                start, first_of = queue.first[number], (queue, number)
            if queue.done[number] > last:
                last, last_of = queue.done[number], queue
        number = self.stores_needed[job] - 1
        if number >= 0:
            while store.started <= number:
                yield self._change()
            if store.done[number] > start:
                start, first_of = store.done[number], (store, number)
        if first_of:
            self._blame(job, begin, start, *first_of, lost)
        end = start + self.job_cycles[job]
        if last_of and last > end:
            self._lose(lost, "onchip", last_of.stream.operand, job, end, last)
            end = last
        if end > self.now:
            yield self.env.timeout(end - self.now)
        if self.observe:
            self.observe(JOBS, "", job, start, end)
        self.jobs.count += 1
        self._wake(self.ports)

    def _lose(self, lost: Counter[str], place: str, operand: str, job: int, start: int, end: int) -> None:
        """Cycles that PEs waited for an operand at a place."""
        if end > start:
            cause = ledger.waiting(place, operand)
            lost[cause] += end - start
            if self.observe:
                self.observe(STALLS, cause, job, start, end)

    def _blame(self, job: int, begin: int, start: int, queue: _Queue, number: int, lost: Counter[str]) -> None:
        """Cycles that PEs waited for a transfer: off chip until what it needed from there had arrived, then on chip."""
        until, operand = self._offchip_until(queue, number)
        offchip = min(start, max(begin, until))
        self._lose(lost, OFFCHIP, operand, job, begin, offchip)
        self._lose(lost, "onchip", queue.stream.operand, job, offchip, start)

    def _offchip_until(self, queue: _Queue, number: int) -> tuple[int, str]:
        """When the last transfer off chip was complete that this one waited for, or is; and what moved."""
        if queue.stream.port == OFFCHIP:
            return queue.done[number], queue.stream.operand
        needs = ((other, counts[number] - 1) for other, counts in queue.needs if isinstance(other, _Queue))
        return max((self._offchip_until(*need) for need in needs if need[1] >= 0), default=(0, ""))

    def _drain(self, ends: list[int], stalls: list[Counter[str]]) -> Steps:
        """The pass is over when its last result has left."""
        for name in ("store", "write"):
            queue, begin = self.queues[name], self.now
            while queue.started < queue.size:
                yield self._change()
            if queue.done and queue.done[-1] > self.now:
                yield self.env.timeout(queue.done[-1] - self.now)
            if self.now > begin:
                self._blame(len(self.job_cycles) - 1, begin, self.now, queue, queue.size - 1, stalls[-1])
        ends[-1] = self.now

    def _change(self) -> simpy.Event:
        """The next start of a transfer."""
        if self.working is None:
            self.working = simpy.Event(self.env)
        return self.working
