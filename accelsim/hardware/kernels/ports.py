"""A plan played through: ports serve transfers, PEs work on what has come. ``replay_simpy`` is its readable twin.

No clock ticks and no events wait in a queue. Transfers of a stream arrive in order, so the time from which its next one
may start is the latest of the ends that it needs; unknown, while one of these has not started. The port whose turn is
first serves, then PEs go as far as what has started tells.

All is in tables of int64, a row a stream, need, transfer or job; the names below are their columns. Few arrays are
handed on so, and what is read together is stored together.
"""

import numpy as np

from accelsim.hardware.kernels.jit import Int64s, inlined, int64, kernel, part

NEVER = np.iinfo(np.int64).max
JOBS = -1  # among streams that are needed
OFFCHIP = 0  # the first port

# streams: the numbers of its first transfer, and past its last; its port, latency, what it moves, whether they are
# writes, which needs are its own; and, while it is played, the next transfer, from when on that may start, and the next
# at the port's last turn.
BEGIN, END, PORT, LATENCY, OPERAND, WRITES, NEED, NEEDS_END, NEXT, READY, SEEN = range(11)
# needs: the stream, and where in ``counts`` is how many of its transfers the first one needs.
OF, AT = range(2)
# transfers: the job that needs it first, ticks that it keeps the port; when it starts, its first byte and its last
# come; when the last transfer off chip was complete that it waited for, and what that moved.
JOB, TICKS, START, FIRST, DONE, OUTSIDE, MOVED = range(7)
# jobs: its layer, cycles, stores that must have arrived; when it begins and ends. Then, for each stream of loads, the
# transfer that it reads, −1 for none.
LAYER, WORK, STORES, BEGUN, ENDED, LOADS = range(6)
# ports: as ``PortTiming``, in ticks; and, while it is played, the cycle in which it may serve again, until when it is
# busy, refresh not counted, and whether its last transfer was a write, −1 before the first.
BURST, REFRESH, INTERVAL, TO_WRITE, TO_READ, QUEUE, FREE, BUSY, WROTE = range(9)
PER_CYCLE = 1 << 20  # ticks


@kernel
def play(
    streams: Int64s, needs: Int64s, counts: Int64s, transfers: Int64s, jobs: Int64s, known: Int64s, ports: Int64s,
    waits: Int64s,
) -> int:  # fmt: skip
    """Plays a plan.

    Parameters
    ----------
    streams : int64[streams, 11]
        Of streams of a port the first goes first where both belong to the same job.
    needs : int64[needs, 2]
    counts : int64[any]
    transfers : int64[transfers, 7]
    jobs : int64[jobs, 5 + loads]
    known : int64[loads + 2]
        Which streams bring what jobs read, then that of the stores and that of the writes off chip.
    ports : int64[ports, 9]
        At a time the first goes first.
    waits : int64[2, layers, 2 · operands]
        Gets the cycles that PEs waited, and the order in which a layer came to wait for each cause: operands off chip,
        then operands on chip.

    Returns
    -------
    int
        The cycle in which the last result has left; −1 where something waits for ever.
    """
    job, now, port = int64(0), 0, 0  # (0 alone is a type of its own: what takes it would be compiled twice)
    while port >= 0:
        # What started in a port's turn counts after it.
        for stream in range(len(streams)):
            streams[stream, SEEN] = streams[stream, NEXT]
        job = work(streams, transfers, jobs, known, waits, job)
        now, port = next_turn(streams, needs, counts, transfers, jobs, ports, job)
        if port >= 0:
            chosen = choose(streams, transfers, port, now)
            while chosen >= 0:
                serve(streams, needs, counts, transfers, ports, chosen, now)
                look(streams, needs, counts, transfers, jobs, chosen, job)
                chosen = choose(streams, transfers, port, now) if ports[port, FREE] <= now else -1
    done = job == len(jobs)
    for stream in range(len(streams)):
        done = done and streams[stream, NEXT] == streams[stream, END]
    return drain(streams, transfers, jobs, known, waits) if done else -1


@part
def next_turn(
    streams: Int64s, needs: Int64s, counts: Int64s, transfers: Int64s, jobs: Int64s, ports: Int64s, job: int
) -> tuple[int, int]:
    """When the next transfer may start, and at which port: at several the first of them; −1 for none."""
    now, port = NEVER, -1
    for stream in range(len(streams)):
        if streams[stream, READY] == NEVER:
            look(streams, needs, counts, transfers, jobs, stream, job)
        if streams[stream, READY] < NEVER:
            turn = max(streams[stream, READY], ports[streams[stream, PORT], FREE])
            if turn < now or (turn == now and streams[stream, PORT] < port):
                now, port = turn, streams[stream, PORT]
    return now, port


@inlined
def look(
    streams: Int64s, needs: Int64s, counts: Int64s, transfers: Int64s, jobs: Int64s, stream: int, job: int
) -> None:
    """From when on a stream's next transfer may start: ``NEVER``, as long as that is unknown."""
    at = streams[stream, NEXT]
    number, ready = at - streams[stream, BEGIN], 0 if at < streams[stream, END] else NEVER
    need, end = streams[stream, NEED], streams[stream, NEEDS_END]
    while need < end and ready < NEVER:
        count, of = counts[needs[need, AT] + number], needs[need, OF]
        if count and of == JOBS:
            ready = max(ready, jobs[count - 1, ENDED]) if count <= job else NEVER
        elif count:
            last = streams[of, BEGIN] + count - 1
            ready = max(ready, transfers[last, DONE]) if last < streams[of, SEEN] else NEVER
        need += 1
    streams[stream, READY] = ready


@part
def choose(streams: Int64s, transfers: Int64s, port: int, now: int) -> int:
    """Of a port's transfers that may start that of the earliest job, the first of several; −1 for none."""
    chosen, earliest = -1, NEVER
    for stream in range(len(streams)):
        if streams[stream, PORT] == port and streams[stream, READY] <= now:
            job = transfers[streams[stream, NEXT], JOB]
            if job < earliest:
                chosen, earliest = stream, job
    return chosen


@part
def serve(
    streams: Int64s, needs: Int64s, counts: Int64s, transfers: Int64s, ports: Int64s, stream: int, now: int
) -> None:
    """A stream's next transfer starts.

    What it waited for off chip is known by now; of several that were complete at once the last by name.
    """
    at, latency = streams[stream, NEXT], streams[stream, LATENCY]
    streams[stream, NEXT] += 1
    first, done = take(ports, streams[stream, PORT], now, transfers[at, TICKS], streams[stream, WRITES])
    transfers[at, START], transfers[at, FIRST], transfers[at, DONE] = now, first + latency, done + latency
    outside, moved, end = 0, -1, streams[stream, NEEDS_END]
    if streams[stream, PORT] == OFFCHIP:
        outside, moved, end = done + latency, streams[stream, OPERAND], 0
    for need in range(streams[stream, NEED], end):
        of, count = needs[need, OF], counts[needs[need, AT] + at - streams[stream, BEGIN]]
        if of != JOBS and count:
            other = streams[of, BEGIN] + count - 1
            until, what = transfers[other, OUTSIDE], transfers[other, MOVED]
            if until > outside or (until == outside and what > moved):
                outside, moved = until, what
    transfers[at, OUTSIDE], transfers[at, MOVED] = outside, moved


@inlined
def take(ports: Int64s, port: int, now: int, ticks: int, writes: int) -> tuple[int, int]:
    """A free port serves a transfer; returns the cycles of its first byte and its last.

    The port's own clock stands still while it refreshes. It may serve again in the cycle in which this one ends.
    """
    refresh, interval, queue = ports[port, REFRESH], ports[port, INTERVAL], ports[port, QUEUE]
    ready = ports[port, BUSY]
    if ports[port, WROTE] >= 0 and ports[port, WROTE] != writes:
        turn = ports[port, TO_WRITE] if writes else ports[port, TO_READ]
        ready += min(ticks, queue) * turn // queue if queue else turn
    begin = max(served(now * PER_CYCLE, refresh, interval), ready)
    ports[port, BUSY], ports[port, WROTE] = begin + ticks, writes
    ports[port, FREE] = max(now, time(begin + ticks, refresh, interval) // PER_CYCLE)
    first = -(-(time(begin + 1, refresh, interval) - 1) // PER_CYCLE)
    done = -(-time(begin + max(ticks, ports[port, BURST]), refresh, interval) // PER_CYCLE)
    return first, max(first, done)


@inlined
def served(until: int, refresh: int, interval: int) -> int:
    """How much of the time until then was not refresh, which is at the start of every interval but the first."""
    number = until // interval if interval else 0
    refreshed = refresh * (number - 1) + min(until - number * interval, refresh) if number else 0
    return until - refreshed


@inlined
def time(busy: int, refresh: int, interval: int) -> int:
    """The earliest time until which so much was not refresh."""
    refreshes = -(-(busy - interval) // (interval - refresh)) if interval and busy > interval else 0
    return busy + refresh * refreshes


@part
def work(streams: Int64s, transfers: Int64s, jobs: Int64s, known: Int64s, waits: Int64s, job: int) -> int:
    """PEs take jobs in order, as far as it is known when they begin; returns the first that has to wait.

    A job begins with the first byte of each load and the end of its stores, and ends with the last byte at least.
    """
    onchip, now = waits.shape[2] // 2, jobs[job - 1, ENDED] if job else 0
    while job < len(jobs) and may_begin(streams, jobs, known, job):
        start, last, cause, by, late = now, 0, -1, -1, -1
        for load in range(len(known) - 2):
            number, stream = jobs[job, LOADS + load], known[load]
            if number >= 0:
                at = streams[stream, BEGIN] + number
                if transfers[at, FIRST] > start:
                    start, cause, by = transfers[at, FIRST], at, streams[stream, OPERAND]
                if transfers[at, DONE] > last:
                    last, late = transfers[at, DONE], streams[stream, OPERAND]
        if jobs[job, STORES]:
            store = known[-2]
            at = streams[store, BEGIN] + jobs[job, STORES] - 1
            if transfers[at, DONE] > start:
                start, cause, by = transfers[at, DONE], at, streams[store, OPERAND]
        if start > now:
            blame(transfers, waits, jobs[job, LAYER], now, start, cause, by)
        jobs[job, BEGUN], now = start, start + jobs[job, WORK]
        if last > now:
            lose(waits, jobs[job, LAYER], onchip + late, last - now)
            now = last
        jobs[job, ENDED] = now
        job += 1
    return job


@part
def may_begin(streams: Int64s, jobs: Int64s, known: Int64s, job: int) -> bool:
    """Whether a job's loads have started, and the stores that it waits for."""
    for load in range(len(known) - 2):
        stream = known[load]
        if streams[stream, BEGIN] + jobs[job, LOADS + load] >= streams[stream, NEXT]:
            return False
    store = known[-2]
    return bool(streams[store, BEGIN] + jobs[job, STORES] <= streams[store, NEXT])


@part
def blame(transfers: Int64s, waits: Int64s, layer: int, begin: int, end: int, cause: int, operand: int) -> None:
    """Cycles that PEs waited for a transfer: off chip until what it needed from there had arrived, then on chip."""
    offchip = min(end, max(begin, transfers[cause, OUTSIDE]))
    lose(waits, layer, transfers[cause, MOVED], offchip - begin)
    lose(waits, layer, waits.shape[2] // 2 + operand, end - offchip)


@part
def lose(waits: Int64s, layer: int, cause: int, cycles: int) -> None:
    """Cycles, if any, that PEs waited."""
    if cycles:
        if not waits[0, layer, cause]:
            before = 0
            for other in range(waits.shape[2]):
                before += waits[0, layer, other] > 0
            waits[1, layer, cause] = before
        waits[0, layer, cause] += cycles


@part
def drain(streams: Int64s, transfers: Int64s, jobs: Int64s, known: Int64s, waits: Int64s) -> int:
    """After the last job PEs wait for the last store, then for the last write; returns when both have arrived."""
    now = jobs[-1, ENDED]
    for leaving in range(len(known) - 2, len(known)):
        stream = known[leaving]
        at = streams[stream, END] - 1
        if at >= streams[stream, BEGIN] and transfers[at, DONE] > now:
            blame(transfers, waits, waits.shape[1] - 1, now, transfers[at, DONE], at, streams[stream, OPERAND])
            now = transfers[at, DONE]
    return int(now)
