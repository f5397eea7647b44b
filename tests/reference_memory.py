"""The memory's naive twins: a plan played cycle by cycle, and its log read like a ledger. No SimPy, no look-ahead."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction

import reference_port

from accelsim.hardware.movement.plan import JOBS, Plan

# In a cycle they choose in this order.
PORTS = ("offchip", "activation_memory", "weight_memory")
CLOCK_MHZ = 1000


def plain(plan: Plan) -> Plan:
    """A plan of lists: a step at a time they are faster than arrays, and their numbers Python's own."""
    columns = ("job", "size", "ticks", "fills")
    streams = {
        name: replace(
            stream,
            **{column: getattr(stream, column).tolist() for column in columns},
            needs={of: counts.tolist() for of, counts in stream.needs.items()},
        )
        for name, stream in plan.streams.items()
    }
    own = {name: getattr(plan, name).tolist() for name in ("ends", "job_cycles", "stores_needed")}
    loads = {name: of_job.tolist() for name, of_job in plan.load_of_job.items()}
    return replace(plan, streams=streams, load_of_job=loads, **own)


@dataclass
class Played:
    """What ``replay`` below found: as ``movement.replay_simpy.Replay``, and a log as its observer is told."""

    ends: list[int]
    stalls: list[dict[str, int]]
    log: list[tuple[str, str, int, int, int]]
    order: dict[str, list[str]]


class _Pass:
    """A plan at a cycle: which transfers have started when, and which jobs have begun and ended."""

    def __init__(self, plan: Plan, order, offchip):
        self.plan, self.told = plan, order
        self.order = {port: [] for port in PORTS}
        self.starts = {name: [] for name in plan.streams}
        self.first, self.last = ({name: [] for name in plan.streams} for _ in range(2))
        self.begun, self.ended = [], []
        self.free_at = dict.fromkeys(PORTS, 0)
        self.offchip = reference_port.Port(offchip, CLOCK_MHZ)

    def first_byte(self, name, number):
        return self.first[name][number] + self.plan.streams[name].latency

    def arrival(self, name, number):
        return self.last[name][number] + self.plan.streams[name].latency

    def start(self, name, now):
        """The stream's next transfer, at its port."""
        stream, number = self.plan.streams[name], len(self.starts[name])
        if stream.port == "offchip":
            first, last, free = self.offchip.take(now, stream.size[number], name == "write")
        else:
            cycles = Fraction(stream.ticks[number], reference_port.TICKS)
            assert cycles.denominator == 1
            first, last, free = now, now + int(cycles), now + int(cycles)
        self.free_at[stream.port] = free
        for times, time in ((self.starts, now), (self.first, first), (self.last, last)):
            times[name].append(time)
        self.order[stream.port].append(name)

    def has_arrived(self, name, count, now, started=None):
        """Whether so many transfers of a stream, or jobs, are complete; of those that had ``started``, if told."""
        if name == JOBS:
            return len(self.ended) >= count
        started = len(self.starts[name]) if started is None else started[name]
        return not count or (started >= count and self.arrival(name, count - 1) <= now)

    def next_ready(self, name, now, started):
        """Whether a stream's next transfer may start."""
        stream, number = self.plan.streams[name], len(self.starts[name])
        return number < len(stream.job) and all(
            self.has_arrived(other, counts[number], now, started) for other, counts in stream.needs.items()
        )

    def wanted(self, job):
        """What a job waits for: transfers whose first byte it needs, and those that it needs whole."""
        loads = [(name, of_job[job]) for name, of_job in self.plan.load_of_job.items() if of_job[job] >= 0]
        stores = self.plan.stores_needed[job]
        return loads, [("store", stores - 1)] if stores else []

    def may_begin(self, job, now):
        loads, whole = self.wanted(job)
        return all(
            number < len(self.starts[name]) and self.first_byte(name, number) <= now for name, number in loads
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
        """A free port starts one transfer, or all that may start while they take it no time; what these bring is there
        after its turn.
        """
        moved, started = False, {name: len(starts) for name, starts in self.starts.items()}
        while self.free_at[port] <= now:
            ready = [n for n, s in self.plan.streams.items() if s.port == port and self.next_ready(n, now, started)]
            if self.told:
                ready = [name for name in ready if name == self.told[port][len(self.order[port])]]
            if not ready:
                break
            name = min(ready, key=lambda n: self.plan.streams[n].job[len(self.starts[n])])
            self.start(name, now)
            moved = True
        return moved

    def unfinished(self, now):
        return len(self.ended) < len(self.plan.job_cycles) or not all(
            self.has_arrived(name, len(stream.job), now) for name, stream in self.plan.streams.items()
        )


def replay(plan: Plan, offchip, order: dict[str, list[str]] | None = None, limit: int = 200_000) -> Played:
    """Plays a plan, a cycle at a time; ports choose for themselves, or are told the order of their transfers.

    What it takes off chip follows from the bytes and from ``offchip``, the memory's keys, not from the plan.
    """
    at, now = _Pass(plain(plan), order, offchip), 0
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
        came = [(at.first_byte(name, n), name, n) for name, n in loads]
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
        (stream.port, name, n, start, at.last[name][n])
        for name, stream in plan.streams.items()
        for n, start in enumerate(at.starts[name])
    ]
    log += [(JOBS, "", n, *times) for n, times in enumerate(zip(at.begun, at.ended, strict=True))]
    return Played(ends, [dict(lost) for lost in stalls], sorted(log), at.order)


def _cause(at: _Pass, name: str, number: int, cycle: int) -> str:
    """Off chip until the last byte that a transfer waited for has come from there or gone there, then on chip."""
    until, moved = _outside(at, name, number)
    return f"offchip_{moved}" if cycle < until else f"onchip_{at.plan.streams[name].operand}"


def _outside(at: _Pass, name: str, number: int) -> tuple[int, str]:
    stream = at.plan.streams[name]
    if stream.port == "offchip":
        return at.arrival(name, number), stream.operand
    before = [(other, counts[number] - 1) for other, counts in stream.needs.items() if other != JOBS and counts[number]]
    return max((_outside(at, *one) for one in before), default=(0, ""))


@dataclass
class _Held:
    """Bytes that something takes in a place, from a cycle to another."""

    place: str
    size: int
    since: int
    until: int


def recount(case, plan: Plan, log) -> list[str]:
    """Reads a log as a ledger and returns what is wrong with it.

    What a part is, who needs it and when it may go is taken from the layers' traffic, not from the plan. A part is in a
    memory from the start of its first fetch to the end of the last job that loads it from there; in a buffer likewise.
    """
    return _Ledger(case, plain(plan), log).wrong


class _Ledger:
    def __init__(self, case, plan, log):
        self.case, self.plan, self.memory = case, plan, case.memory
        self.wrong, self.held, self.times = [], [], {}
        for where, name, number, start, end in log:
            self.times[name, number] = (start, end + (plan.streams[name].latency if name else 0))
            if (plan.streams[name].port if name else JOBS) != where:
                self.wrong.append(f"{name} {number} is at {where}")
        self.jobs = [self.times["", job] for job in range(len(plan.job_cycles))]
        self.loads = Counter()
        self.weights_of: dict[int, int] = {}
        self.weights_stay = self.weights_of_all() <= case.memory.weight_memory.capacity_bytes
        self.read, self.written, self.outside = Counter(), Counter(), Counter()
        self.check_order(log)
        first = 0
        for index, layer in enumerate(case.layers):
            jobs = range(first, first + layer.traffic.job_cycles.size)
            self.layer(index, layer, jobs)
            first = jobs.stop
        self.check_rooms()

    def weights_of_all(self):
        """Bytes of the weights of all layers, which stay from sample to sample if they fit."""
        total = 0
        for layer in self.case.layers:
            for operand in layer.traffic.operands:
                if operand.tensor == "weight" and not layer.turn:
                    stored = self.memory.stored_bytes(operand)
                    total += sum(int(stored[p]) for p in {int(p) for p in operand.part if p >= 0})
        return total

    def complain(self, condition, what):
        if not condition:
            self.wrong.append(what)

    def check_order(self, log):
        """Jobs follow each other; a port makes one transfer at a time; a stream's come in order; nothing is left."""
        for job, ((_, before), (start, _)) in enumerate(zip([(0, 0), *self.jobs], self.jobs, strict=False)):
            self.complain(before <= start, f"job {job} before its predecessor's end")
        for port in PORTS:
            busy = sorted((start, end) for where, _, _, start, end in log if where == port)
            # Off chip one begins within a cycle, and the next is chosen before the last channel has ended, which may be
            # some refreshes later.
            tail = math.ceil(reference_port.Port(self.memory.offchip, CLOCK_MHZ).tail())
            shared = 1 + tail if port == PORTS[0] else 0
            for (_, end), (start, _) in itertools.pairwise(busy):
                self.complain(end - shared <= start, f"{port}: two at once at {start}")
        for name, stream in self.plan.streams.items():
            times = [self.times.get((name, number)) for number in range(len(stream.job))]
            self.complain(None not in times and times == sorted(times), f"{name} is out of order")

    def stream(self, name, jobs):
        """Numbers and jobs of a stream's transfers that belong to a layer's jobs."""
        if name not in self.plan.streams:
            return []
        stream = self.plan.streams[name]
        # A store's is the job that it comes from; others' the one that they are for.
        of = [count - 1 for count in stream.needs[JOBS]] if name == "store" else stream.job
        return [(number, job) for number, job in enumerate(of) if job in jobs]

    def layer(self, index, layer, jobs):
        self.counts = Counter()
        reused = False
        for operand in layer.traffic.operands:
            reused |= self.operand(index, layer, operand, jobs)
        self.result(index, layer, jobs)
        for action, size in self.counts.items():
            self.complain(self.plan.actions[index].get(action, 0) == size, f"{layer.name}: {action} is not {size}")

    def operand(self, index, layer, operand, jobs):
        stored = self.memory.stored_bytes(operand).tolist()
        place = "weight_memory" if operand.tensor == "weight" else "activation_memory"
        buffer = getattr(self.case.buffers, operand.buffer)
        reads = {job: int(p) for job, p in zip(jobs, operand.part, strict=True) if p >= 0}
        part = {job: p for job, p in reads.items() if stored[p]}
        inside = {p: -(-stored[p] // operand.units) for p in part.values()}
        loads = self.stream(f"load {operand.tensor}", jobs)
        through = max(inside.values(), default=0) <= buffer.capacity_bytes
        if operand.streamed is not None:
            passing = {job: int(operand.streamed[job - jobs.start]) for job in reads}
            least = sum(-(-n * self.memory.value_bits // 8) for n in passing.values())
            sizes = [self.plan.streams[f"load {operand.tensor}"].size[n] for n, _ in loads]
            self.complain(sum(sizes) <= least, f"{layer.name}: {operand.tensor} should stream")
            # A buffer is used where that moves no more: then each part comes whole, and before its first use.
            firsts = {p: job for job, p in reversed(part.items())}
            through &= sizes == [stored[reads[of]] for _, of in loads]
            through &= set(firsts.values()) <= {of for _, of in loads}
            if not through:
                part = {job: p for job, p in reads.items() if passing[job]}
        fetches: dict[int, list] = {}
        for number, job in self.stream(f"fetch {operand.tensor}", jobs):
            fetches.setdefault(job, []).append(number)
            self.count(f"fetch {operand.tensor}", number, "offchip_read_bytes", f"{place}_write_bytes")
        reused = False
        users: dict[int, list] = {}
        for number, job in loads:
            self.count(f"load {operand.tensor}", number, f"{place}_read_bytes")
            earlier = [f for f in fetches if f <= job and part[f] == part[job]]
            if earlier:
                source = max(earlier)
                users.setdefault(source, []).append(job)
                arrived = max(self.times[f"fetch {operand.tensor}", n][1] for n in fetches[source])
            elif not stored[part[job]]:
                arrived = 0
            elif operand.tensor == "weight" and layer.turn and self.weights_stay:
                arrived = self.weights_of[layer.position]
            else:
                reused, arrived = True, self.kept_results(index, layer, operand)
            self.complain(
                arrived <= self.times[f"load {operand.tensor}", number][0], f"{layer.name}: load {number} of nothing"
            )
        if operand.tensor == "weight" and layer.turn == 0:
            of_all = [self.times[f"fetch {operand.tensor}", n][1] for numbers in fetches.values() for n in numbers]
            self.weights_of[layer.position] = max(of_all, default=0)
        for source, numbers in fetches.items():
            self.complain(source in users, f"{layer.name}: fetched for nobody")
            since = min(self.times[f"fetch {operand.tensor}", n][0] for n in numbers)
            until = self.jobs[max(users.get(source, [source]))][1]
            self.held.append(_Held(place, stored[part[source]], since, until))
            moved = sum(self.plan.streams[f"fetch {operand.tensor}"].size[n] for n in numbers)
            once = operand.tensor == "weight" and (layer.turn is None or self.weights_stay)
            share = -(-stored[part[source]] * layer.samples // layer.batch) if once else stored[part[source]]
            self.complain(moved == share, f"{layer.name}: {moved} bytes of {share}")
        self.to_pes(layer, operand, part, inside, through, loads, buffer)
        return reused

    def to_pes(self, layer, operand, part, inside, through, loads, buffer):
        """Each job has what it reads; a buffer holds a part from its load to the last job before the next load."""
        name = f"load {operand.tensor}"
        users: dict[int, list] = {}
        for job, p in part.items():
            if not through:
                own = [number for number, of in loads if of == job]
                self.complain(len(own) == 1, f"{layer.name}: job {job} streams {own}")
            else:
                own = [number for number, of in loads if of <= job and part[of] == p][-1:]
                self.complain(own, f"{layer.name}: job {job} without its {operand.tensor}")
            for number in own:
                users.setdefault(number, []).append(job)
                start, done = self.times[name, number]
                begin, end = self.jobs[job]
                first_byte = start + self.plan.streams[name].latency
                self.complain(first_byte <= begin and done <= end, f"{layer.name}: job {job} before its {name}")
        for number, of in loads:
            start, _ = self.times[name, number]
            if through:
                until = self.jobs[max(users[number])][1]
                self.held.append(_Held(operand.buffer, inside[part[of]], start, until))
                size = self.plan.streams[name].size[number]
                self.counts[f"{operand.buffer}_buffer_write_bytes"] += size * operand.copies
            if not through or buffer.ports == 1:
                self.complain(not of or self.jobs[of - 1][1] <= start, f"{layer.name}: {name} beside another job")

    def first(self, layer):
        """A layer's first job."""
        before = self.case.layers[: self.case.layers.index(layer)]
        return sum(other.traffic.job_cycles.size for other in before)

    def kept_results(self, index, layer, operand):
        """When all that the layer before left on chip for this one is there."""
        before = self.case.layers[index - 1] if index else None
        if before is None or not before.feeds(layer) or operand is not layer.handed_on:
            self.wrong.append(f"{layer.name}: {operand.tensor} is not on chip")
            return 0
        stores = self.stream("store", range(self.first(before), self.first(layer)))
        return max((self.times["store", number][1] for number, _ in stores), default=0)

    def result(self, index, layer, jobs):
        """What a layer leaves: in memory from its store until it has left, or the next layer has read it."""
        place = layer.result_memory
        spilled = self.memory.partial_bytes(layer.traffic.spilled).tolist()
        groups = layer.traffic.sums_leave and bool(self.stream("load partial", jobs))
        if groups:
            sums = self.memory.partial_bytes(layer.traffic.result).tolist()
            spilled = [-(-size * (layer.batch - layer.samples) // layer.batch) for size in sums]
            self.held.append(_Held(place, sum(sums), self.jobs[jobs[0]][1], self.jobs[jobs[-1]][1]))
        after = self.case.layers[index + 1] if index + 1 < len(self.case.layers) else None
        following = range(jobs.stop, jobs.stop + (after.traffic.job_cycles.size if after else 0))
        stores = self.stream("store", jobs)
        read = after.handed_on.tensor if after is not None and layer.feeds(after) else None
        fetched, loaded = (self.stream(f"{what} {read}", following) for what in ("fetch", "load"))
        # Where the next layer finds nothing but zeros, which take no room, either will do.
        silent = read and not fetched and not loaded and not self.plan.actions[index].get("offchip_write_bytes")
        kept = bool(silent or (loaded and not fetched))
        writes = iter(self.own_writes(layer, jobs, stores, spilled, kept))
        for at, (number, job) in enumerate(stores):
            start, arrived = self.times["store", number]
            size = self.plan.streams["store"].size[number]
            self.count("store", number, f"{place}_write_bytes")
            self.complain(self.jobs[job][1] <= start, f"{layer.name}: store {number} before job {job}'s end")
            last_of_job = at + 1 == len(stores) or stores[at + 1][1] != job
            if spilled[job - jobs.start] and last_of_job:
                back = {of: n for n, of in self.stream("load partial", jobs)}[job + (not groups)]
                begun, there = self.times["load partial", back]
                if groups:
                    self.others_sums(layer, job, begun, there, back)
                else:
                    self.complain(arrived <= begun, f"{layer.name}: sums {back} too early")
                    self.held.append(_Held(place, size, start, self.jobs[job + 1][1]))
                self.complain(size == spilled[job - jobs.start], f"{layer.name}: {size} bytes of sums")
                self.complain(
                    size == self.plan.streams["load partial"].size[back], f"{layer.name}: other sums come back"
                )
                self.count("load partial", back, f"{place}_read_bytes")
                continue
            write = next(writes, None)
            until = self.jobs[following[-1]][1] if kept else start
            if write is not None:
                begun, left = self.times["write", write]
                self.complain(arrived <= begun, f"{layer.name}: write {write} before its store")
                self.complain(
                    self.plan.streams["write"].size[write] == size, f"{layer.name}: write {write} of other bytes"
                )
                self.count("write", write, f"{place}_read_bytes", "offchip_write_bytes")
                until = max(until, left)
                # Of a share of the batch the results have left while others' were computed.
                for fetch, _ in fetched if layer.turn is not None or layer.samples == layer.batch else ():
                    self.complain(left <= self.times[f"fetch {read}", fetch][0], f"{layer.name}: read too early")
            else:
                self.complain(kept and self.memory.write_back == "unless_kept", f"{layer.name}: {number} vanishes")
            self.held.append(_Held(place, size, start, until))

    def others_sums(self, layer, job, begun, there, back):
        """Sums of other samples are loaded for the job that adds to them, while no earlier one has their
        accumulators."""
        used = job - self.case.buffers.accumulator_sets
        self.complain(used < 0 or self.jobs[used][1] <= begun, f"{layer.name}: sums {back} into accumulators in use")
        begins = begun + self.plan.streams["load partial"].latency <= self.jobs[job][0]
        self.complain(begins and there <= self.jobs[job][1], f"{layer.name}: job {job} before its sums")

    def own_writes(self, layer, jobs, stores, spilled, kept):
        """The next writes, as many as the layer stores pieces of its result."""
        if kept and self.memory.write_back == "unless_kept":
            return []
        pieces = len(stores) - sum(size > 0 for size in spilled)
        first = self.loads["write"]
        self.loads["write"] += pieces
        return range(first, first + pieces)

    def count(self, name, number, *actions):
        """A transfer's bytes, where they are counted."""
        size = self.plan.streams[name].size[number]
        for action in actions:
            moved = size
            if action.startswith("offchip"):
                burst = self.memory.offchip.burst_bytes
                moved = -(-size // burst) * burst
            self.counts[action] += moved

    def check_rooms(self):
        """No place ever holds more than fits."""
        capacity = {name: getattr(self.memory, name).capacity_bytes for name in PORTS[1:]}
        capacity |= {name: getattr(self.case.buffers, name).capacity_bytes for name in ("activation", "weight")}
        for place, most in capacity.items():
            changes = [(h.since, h.size) for h in self.held if h.place == place and h.until > h.since]
            changes += [(h.until, -h.size) for h in self.held if h.place == place and h.until > h.since]
            now = 0
            for time, size in sorted(changes):
                now += size
                self.complain(now <= most, f"{place} holds {now} of {most} bytes at {time}")


def run_length(part) -> list[tuple[int, bool]]:
    """A part coded as by SCNN and EIE: each value with the zeros before it, at most 15; longer runs spell zeros."""
    code, zeros = [], 0
    for at, value in enumerate(part):
        if value or (zeros == 15 and any(part[at:])):
            code.append((zeros, bool(value)))
            zeros = 0
        else:
            zeros += 1
    return code
