"""The naive twin of the planner: what each transfer waits for, by docs/memory.md's rules, one at a time.

It takes the decisions of the naive twin of the placement, and shares no code with the program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

import reference_placement
import reference_port
from reference_placement import up


@dataclass
class Transfer:
    """One transfer: the job that it is for, bytes, ticks of its port, and what must be complete before it starts."""

    job: int
    size: int
    ticks: int
    needs: dict[str, int]


@dataclass
class Entry:
    """Bytes that something takes in a room, needed by a job and held through another."""

    job: int
    late: bool
    size: int
    until: int


@dataclass
class Planned:
    """Transfers by stream, in order, and the stores that each job waits for."""

    streams: dict[str, list[Transfer]] = field(default_factory=dict)
    stores_needed: list[int] = field(default_factory=list)


def pieces(sizes: list[int], most: int) -> list[tuple[int, int]]:
    """Sizes cut: of each piece whose it is, and its bytes."""
    cut = []
    for of, size in enumerate(sizes):
        while size > 0:
            cut.append((of, min(size, most)))
            size -= most
    return cut


class Plan:
    """A case's plan, layer by layer; what depends on rooms is filled in at the end, when all have entered."""

    def __init__(self, case, clock_mhz: int):
        self.memory, self.buffers, self.clock_mhz, self.layers = case.memory, case.buffers, clock_mhz, case.layers
        burst = self.memory.offchip.burst_bytes
        self.piece = up(case.piece_bytes, burst) * burst
        places = {name: getattr(self.memory, name) for name in ("activation_memory", "weight_memory")}
        of_pes = {name: getattr(self.buffers, name) for name in ("activation", "weight")}
        self.capacity = {name: place.capacity_bytes for name, place in (places | of_pes).items()}
        asked = reference_placement.asked(self.memory, self.layers)
        memories, buffers = ({name: self.capacity[name] for name in names} for names in (places, of_pes))
        self.asked = reference_placement.in_groups_or_not(asked, memories, self.piece)
        self.where = reference_placement.decided(self.asked, memories, buffers, self.piece)
        self.starts = list(accumulate((len(layer.result) for layer in self.asked), initial=0))
        self.rooms: dict[str, list[Entry]] = {name: [] for name in self.capacity}
        self.writes_of: list[int] = []
        self.sums_of_others: list[Transfer] = []
        self.later = []
        self.plan = Planned()

    def planned(self) -> Planned:
        """All of it."""
        for at in range(len(self.asked)):
            self.layer(at)
        for act in self.later:
            act()
        self.accumulators()
        return self.plan

    def stream(self, name: str) -> list[Transfer]:
        return self.plan.streams.setdefault(name, [])

    def offchip_ticks(self, size: int) -> int:
        return int(reference_port.Port(self.memory.offchip, self.clock_mhz).work(size) * reference_port.TICKS)

    def onchip_ticks(self, place: str, size: int) -> int:
        width = getattr(self.memory, place).banks * getattr(self.memory, place).width_bytes
        return up(size, width) * reference_port.TICKS if width else 0

    def opened(self, room: str, entry: Entry) -> int:
        """Jobs that must be complete before something enters: all that enters before it, and itself, must fit."""
        entries = sorted(self.rooms[room], key=lambda e: (e.job, e.late))
        before = entries[: next(n for n, e in enumerate(entries) if e is entry) + 1]
        for jobs in range(self.starts[-1] + 1):
            if sum(e.size for e in before) <= self.capacity[room] + sum(e.size for e in entries if e.until < jobs):
                return jobs
        raise AssertionError("never")

    def written(self, jobs: int, layers: int = 0) -> int:
        """Writes that must have left for the room that so many jobs free: those of layers whose next one has ended; of
        the first ``layers`` in any case."""
        over = sum(end <= jobs for end in self.starts[1:])
        return sum(self.writes_of[: max(over - 1, layers)])

    def layer(self, at: int):
        asked, where = self.asked[at], self.where[at]
        for place in ("activation_memory", "weight_memory"):
            for operand, decided in zip(asked.operands, where.operands, strict=True):
                if operand.memory == place:
                    self.operand(at, operand, decided)
            if place == asked.result_memory:
                end, after = self.starts[at + 1], self.starts[min(at + 2, len(self.asked))]
                own = Entry(self.starts[at], True, where.leaving, after - 1)
                sums = Entry(self.starts[at], True, asked.sums or max(asked.spilled), end - 1)
                self.rooms[place] += [own, sums]
        self.results(at, asked, where, own, sums)

    def operand(self, at, asked, where):
        start, place = self.starts[at], asked.memory
        if where.found:
            before = [("store", len(self.stream("store")))] * len(where.loads)
        else:
            arrived = self.fetches(at, asked, where)
            before = [(f"fetch {asked.tensor}", arrived[made]) for made in where.made]
        loads = self.stream(f"load {asked.tensor}")
        for (job, part, until, size), (name, count) in zip(where.loads, before, strict=True):
            entry = Entry(job + start, False, self.held(at, asked.inside[part], job, until), until + start)
            if where.held:
                self.rooms[asked.buffer].append(entry)
            if not size:
                continue
            load = Transfer(job + start, size, self.onchip_ticks(place, size), {"jobs": job + start, name: count})
            loads.append(load)
            if where.held and getattr(self.buffers, asked.buffer).ports == 2:
                self.later.append(
                    lambda load=load, entry=entry: load.needs.update(jobs=self.opened(asked.buffer, entry))
                )

    def held(self, at, size, job, until) -> int:
        """What a part takes: where it is held for another job, with those of all samples that jobs sum over."""
        some, every = self.asked[at].between()
        return up(size * every, some) if until > job else size

    def fetches(self, at, asked, where) -> list[int]:
        """Fetches; of so many parts, how many pieces have been asked for since the pass began."""
        start = self.starts[at]
        stream, entries = self.stream(f"fetch {asked.tensor}"), []
        sizes = [size for _, _, _, size in where.fetches]
        if asked.tensor == "weight":
            sizes = [up(size * self.asked[at].weight_share[0], self.asked[at].weight_share[1]) for size in sizes]
        for job, part, until, _ in where.fetches:
            entries.append(Entry(job + start, False, self.held(at, asked.stored[part], job, until), until + start))
        self.rooms[asked.memory] += entries
        reads = self.asked[at].reads_result
        own = reads >= 0 and asked is self.asked[at].operands[reads]
        rewritten = at if own and self.asked[at].samples == self.asked[at].batch else 0
        arrived = [len(stream)]
        for entry, size in zip(entries, sizes, strict=True):
            for _, piece in pieces([size], self.piece):
                fetch = Transfer(entry.job, piece, self.offchip_ticks(piece), {})
                stream.append(fetch)
                self.later.append(lambda fetch=fetch, entry=entry: self.may_fetch(at, asked, fetch, entry, rewritten))
            arrived.append(len(stream))
        return arrived

    def may_fetch(self, at, asked, fetch, entry, rewritten):
        jobs = max(self.opened(asked.memory, entry), self.starts[max(0, at - 1)])
        fetch.needs["jobs"] = jobs
        if asked.memory == self.asked[at].result_memory:
            fetch.needs["write"] = self.written(jobs, rewritten)

    def results(self, at, asked, where, own, sums):
        """Stores of results and partial sums, job by job; writes; partial sums that come back."""
        start, place, stores, written = (
            self.starts[at],
            asked.result_memory,
            self.stream("store"),
            len(self.stream("write")),
        )
        leave = not where.kept or self.memory.write_back == "always"
        mine, writes, back = [], [], []
        for of, size in enumerate(asked.result):
            for _, piece in pieces([size], self.piece):
                store = Transfer(0, piece, self.onchip_ticks(place, piece), {"jobs": start + of + 1})
                mine.append((store, of))
                stores.append(store)
                if leave:
                    need = {"store": len(stores)}
                    writes.append(
                        Transfer(self.starts[min(at + 2, len(self.asked))], piece, self.offchip_ticks(piece), need)
                    )
            if asked.spilled[of]:
                size = asked.spilled[of]
                again = 0 if asked.sums else start + of + 1
                store = Transfer(again, size, self.onchip_ticks(place, size), {"jobs": start + of + 1})
                stores.append(store)
                needs = {"jobs": start + of + 1, "store": len(stores)}
                back.append(Transfer(again or start + of, size, self.onchip_ticks(place, size), needs))
                if asked.sums:  # of other samples: into a set of accumulators that is free again
                    self.sums_of_others.append(back[-1])
                mine.append((store, None))
        self.stream("write").extend(writes)
        if back:
            self.stream("load partial").extend(back)
        self.writes_of.append(len(writes))
        number, left = 0, [0, *accumulate(store.size for store, of in mine if of is not None)]
        for store, of in mine:
            wait = 0
            if of is not None and not where.kept:
                # So many of the layer's results must have left that this one fits with those that have not.
                wait = next(n for n, gone in enumerate(left) if left[number + 1] - gone <= where.leaving)
                for write in writes[:wait]:
                    write.job = min(write.job, start + of)
                wait = wait and written + wait
            number += of is not None
            self.later.append(lambda store=store, wait=wait: self.may_store(store, wait, place, own, sums))

    def may_store(self, store, wait, place, own, sums):
        jobs = max(self.opened(place, own), self.opened(place, sums))
        store.needs["write"] = max(wait, self.written(jobs))

    def accumulators(self):
        """A job waits until all but the last results before it are stored, as many as further sets hold."""
        stores = self.plan.streams["store"]
        last: dict[int, int] = {}
        for number, store in enumerate(stores, start=1):
            last[store.needs["jobs"] - 1] = number
        for job in range(self.starts[-1]):
            before = [number for of, number in sorted(last.items()) if of < job]
            held = self.buffers.accumulator_sets - 1
            self.plan.stores_needed.append(([0, 0, *before])[len(before) + 1 - held])
        for load in self.sums_of_others:
            load.needs = {"jobs": max(0, load.job - held), "store": self.plan.stores_needed[load.job]}
        for number, store in enumerate(stores, start=1):
            if not store.job:  # partial sums go for the job that takes them back
                wanting = [job for job, count in enumerate(self.plan.stores_needed) if count >= number]
                store.job = wanting[0] if wanting else self.starts[-1]
