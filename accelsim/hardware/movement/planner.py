"""What moves when: a pass's layers, one after another, as transfers that wait for each other.

The software of such machines knows what a layer will read, so nothing is left to chance: a plan says, before the first
cycle, which parts stay in a memory or buffer, which are fetched again, and after which job a transfer has room.
docs/memory.md states the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from accelsim import ledger
from accelsim.errors import MachineError
from accelsim.hardware.hierarchy import Buffers, Memory
from accelsim.hardware.movement.plan import JOBS, OFFCHIP, Plan, Stream
from accelsim.hardware.movement.residency import Loads, Room, Visits
from accelsim.hardware.movement.traffic import ACTIVATIONS, WEIGHTS, LayerTraffic, Operand

# What off-chip memory and stores are asked for at once, made up to whole bursts: larger parts and results go in pieces,
# others in between.
PIECE_BYTES = 1 << 14


class Planner:
    """Walks the layers of a pass once; what depends on the room that others leave is settled at the end."""

    def __init__(self, memory: Memory, buffers: Buffers, clock_mhz: int, layers: list[LayerTraffic]):
        self.memory, self.clock_mhz, self.layers = memory, clock_mhz, layers
        self.starts = np.cumsum([0, *(layer.traffic.job_cycles.size for layer in layers)])
        self.memories = {ACTIVATIONS: memory.activation_memory, WEIGHTS: memory.weight_memory}
        self.buffers = {"activation": buffers.activation, "weight": buffers.weight}
        self.accumulator_sets = buffers.accumulator_sets
        self.piece_bytes = int(memory.offchip.moved_bytes(np.int64(PIECE_BYTES)))
        self.rooms = {name: Room(place.capacity_bytes) for name, place in (self.memories | self.buffers).items()}
        self.streams: dict[str, Stream] = {}
        self.load_of_job: dict[str, np.ndarray] = {}
        self.stores_needed = np.zeros(self.starts[-1], np.int64)
        self.writes_before = [0]  # layer by layer
        self.stores_by = [0] * buffers.accumulator_sets  # each job with a result, and some jobs before the first
        self.actions = [Counter() for _ in layers]
        self.loads: list[list[Loads]] = []
        self.results: list[np.ndarray] = []  # bytes that each job of a layer completes
        self.leaving = 0  # bytes of memory that a layer's results stay in, or pass through
        self.kept = False  # whether they stay for the next layer to read
        self.unsettled: list[Callable[[dict[int, np.ndarray]], None]] = []

    def plan(self) -> Plan:
        """The plan.

        Raises
        ------
        MachineError
            If a memory or buffer cannot hold what a single job needs.
        """
        for index, layer in enumerate(self.layers):
            self.loads.append([self._loads(index, operand) for operand in layer.traffic.operands])
        self.results = [self._result_bytes(index) for index in range(len(self.layers))]
        for index in range(len(self.layers)):
            self._layer(index)
        opened = {id(room): room.opened_by(int(self.starts[-1])) for room in self.rooms.values()}
        for settle in self.unsettled:
            settle(opened)
        self._order_stores()
        return Plan(
            [layer.name for layer in self.layers],
            self.starts[1:].tolist(),
            np.concatenate([layer.traffic.job_cycles for layer in self.layers]).tolist(),
            self.streams,
            {name: jobs.tolist() for name, jobs in self.load_of_job.items()},
            self.stores_needed.tolist(),
            [dict(counts) for counts in self.actions],
            self.rooms,
        )

    def _layer(self, index: int) -> None:
        traffic = self.layers[index].traffic
        loads = self.loads[index]
        if traffic.crossed and not any(load.held for load in loads):
            sizes = " and ".join(
                f"{o.buffer} {self._in_buffer(o)[o.part[o.part >= 0]].max():,}" for o in traffic.operands
            )
            raise self._refused(index, f"buffers: one operand's part must fit its buffer, they need {sizes} bytes")
        result, spilled = self.results[index], self.memory.partial_bytes(traffic.spilled)
        before, was_kept = self.leaving, self.kept
        for name in self.memories:
            left = before if name == self.layers[index].result_memory else 0
            self._memory(index, name, left, was_kept, result, spilled)
        self._store(index, result, spilled)
        self._count_accesses(index, loads)

    # From memory to PEs

    def _loads(self, index: int, operand: Operand) -> Loads:
        """Parts that fit their buffer are loaded once a visit, or stay; others stream past, in every job.

        They also stream where that moves less, as it may when PEs skip what they need not read.
        """
        start, buffer = self.starts[index], self.buffers[operand.buffer]
        uses = np.flatnonzero(operand.part >= 0)
        stored, inside = self.memory.stored_bytes(operand), self._in_buffer(operand)
        memory = WEIGHTS if operand.tensor == "weight" else ACTIVATIONS
        streamed = stored[operand.part]
        if operand.streamed is not None:
            streamed = self.memory.value_bytes(operand.streamed)
        visits = Visits.of(uses + start, operand.part[uses], inside)
        kept = visits.kept_within(buffer.capacity_bytes)
        if not kept[visits.part].all():
            kept = visits.kept_within(max(0, buffer.capacity_bytes - 2 * visits.largest))
        moved, until = visits.moves(kept)
        jobs, parts = visits.first[moved], visits.part[moved]
        if visits.largest > buffer.capacity_bytes or stored[parts].sum() > streamed[uses].sum():
            uses = uses[streamed[uses] > 0]
            jobs, parts = uses + start, operand.part[uses]
            return Loads(operand, memory, False, jobs, parts, streamed[uses], Visits.of(jobs, parts, stored), None)
        room = self.rooms[operand.buffer]
        numbers = room.enter(jobs, inside[parts], until[moved])
        return Loads(
            operand, memory, True, jobs, parts, stored[parts], Visits.of(jobs, parts, stored), (room, *numbers)
        )

    def _in_buffer(self, operand: Operand) -> np.ndarray:
        """Bytes of each part in one PE or tile."""
        return -(-self.memory.stored_bytes(operand) // operand.units)

    def _add_loads(self, index: int, load: Loads, needs: dict[str, np.ndarray]) -> None:
        """``needs``: what must have arrived in the memory before each load."""
        buffer = self.buffers[load.operand.buffer]
        place, some = self.memories[load.memory], load.sizes > 0
        operand, latency = load.operand, place.latency_cycles
        stream = self._stream(f"load {operand.tensor}", load.memory, operand.tensor, latency, operand.buffer)
        first = len(stream.job)
        jobs = load.jobs[some]
        stream.extend(
            jobs, load.sizes[some], place.transfer_cycles(load.sizes[some]),
            {name: counts[some] for name, counts in needs.items()} | {JOBS: jobs},
            load.opens and load.opens[1] + np.flatnonzero(some),
        )  # fmt: skip
        of_job = self.load_of_job.setdefault(stream.name, np.full(self.starts[-1], -1))
        of_job[jobs] = first + np.arange(jobs.size)
        if load.opens and buffer.ports == 2:
            room, start, stop = load.opens

            def settle(opened, last=first + jobs.size):
                stream.needs[JOBS][first:last] = (opened[id(room)][start:stop][some] + 1).tolist()

            self.unsettled.append(settle)
        moved = int(load.sizes[some].sum())
        self.actions[index][ledger.moved(load.memory, "read")] += moved
        if load.held:
            self.actions[index][ledger.moved(f"{load.operand.buffer}_buffer", "write")] += moved * load.operand.copies

    # From off-chip memory to the memories on chip

    def _memory(self, index: int, name: str, before: int, was_kept: bool, result, spilled) -> None:
        """Shares a memory's capacity among what a layer reads and leaves, and fetches what is not there.

        ``before``: bytes that the results of the layer before stay in, or still leave through; ``was_kept``: which.
        """
        layer, capacity = self.layers[index], self.memories[name].capacity_bytes
        if name != layer.result_memory:
            result, spilled = result[:0], spilled[:0]
        loads = [load for load in self.loads[index] if load.memory == name]
        here = [was_kept and load.operand is layer.handed_on for load in loads]
        least = [0 if there else load.visits.largest for load, there in zip(loads, here, strict=True)]
        peaks = [0 if there else load.peak_bytes for load, there in zip(loads, here, strict=True)]
        total, piece = int(result.sum()), min(int(result.max(initial=0)), self.piece_bytes)
        fixed, needed = before + int(spilled.max(initial=0)), before + self._least(index, name, was_kept)
        if needed > capacity:
            rule = f"memory.{name}.capacity_bytes: must hold {needed:,} bytes for a single job, got {capacity:,}"
            raise self._refused(index, rule)
        leaving = 0
        if result.size:
            # What this layer leaves must not take the room without which the next one cannot run.
            rest = capacity - self._least(index + 1, name, True)
            self.kept = self._feeds_next(index) and total <= min(capacity - fixed - sum(peaks), rest)
            free = min(capacity - fixed - sum(peaks), capacity - self._whole(index + 1, name))
            some = min(2 * piece, capacity - fixed - sum(least))
            most = max(piece, min(max(free, some), capacity - self._least(index + 1, name, False)))
            self.leaving = leaving = total if self.kept else min(total, most)
        budget = capacity - fixed - leaving
        chosen = self._chosen([load.visits for load in loads], peaks, least, budget)
        for load, there, stays in zip(loads, here, chosen, strict=True):
            if there:
                self._add_loads(index, load, {"store": np.full(load.jobs.size, self._count("store"))})
            else:
                self._add_loads(index, load, {f"fetch {load.operand.tensor}": self._fetch(index, load, stays)})
        # Room for results is needed when the first job ends: what that job reads enters before it. It is free again
        # when the next layer ends, which reads what is kept, or meanwhile lets the last of it leave.
        if result.size:
            sizes, ends = (leaving, int(spilled.max())), self.starts[[min(index + 2, len(self.layers)), index + 1]]
            jobs = np.full(2, self.starts[index])
            self.outgoing = self.rooms[name].enter(jobs, np.array(sizes), ends - 1, rank=1)

    def _least(self, index: int, name: str, kept: bool) -> int:
        """Bytes of a memory without which a layer cannot run, besides what the layer before leaves or has ``kept``."""
        if index == len(self.layers):
            return 0
        layer = self.layers[index]
        there = layer.handed_on if kept else None
        parts = sum(x.visits.largest for x in self.loads[index] if x.memory == name and x.operand is not there)
        if name != layer.result_memory:
            return parts
        spilled = int(self.memory.partial_bytes(layer.traffic.spilled).max())
        return parts + spilled + min(int(self.results[index].max()), self.piece_bytes)

    def _whole(self, index: int, name: str) -> int:
        """Bytes of a memory that a layer takes if nothing is fetched twice and its results stay."""
        if index == len(self.layers):
            return 0
        results = int(self.results[index].sum()) if name == self.layers[index].result_memory else 0
        return results + sum(load.peak_bytes for load in self.loads[index] if load.memory == name)

    def _chosen(self, visits: list[Visits], peaks: list[int], least: list[int], budget: int) -> list[np.ndarray]:
        """The parts of each operand that stay for all their visits; of the others two at a time have room, or one."""
        reserves = [min(peak, 2 * size) for peak, size in zip(peaks, least, strict=True)]
        if sum(reserves) > budget:
            reserves = least
        spare = budget - sum(reserves)
        chosen = {}
        for i in sorted(range(len(visits)), key=peaks.__getitem__):
            if peaks[i] <= reserves[i] + spare:
                chosen[i], spare = np.ones(visits[i].sizes.size, bool), spare - (peaks[i] - reserves[i])
            else:
                chosen[i], spare = visits[i].kept_within(spare), 0
        return [chosen[i] for i in range(len(visits))]

    def _fetch(self, index: int, load: Loads, kept: np.ndarray) -> np.ndarray:
        """Fetches of an operand; returns how many must have arrived before each of its loads."""
        offchip, layer = self.memory.offchip, self.layers[index]
        operand, visits, name = load.operand, load.visits, load.memory
        latency = offchip.latency_cycles(self.clock_mhz)
        stream = self._stream(f"fetch {operand.tensor}", OFFCHIP, operand.tensor, latency, name)
        first = len(stream.job)
        moved, until = visits.moves(kept)
        jobs, sizes = visits.first[moved], visits.sizes[visits.part[moved]]
        room = self.rooms[name]
        start, stop = room.enter(jobs, sizes, until[moved])
        if operand.tensor == "weight" and self.memory.weights_once_a_batch:
            sizes = -(-sizes * layer.samples // layer.batch)
        of, pieces = self._pieces(sizes)
        cycles = offchip.transfer_cycles(pieces, self.clock_mhz)
        stream.extend(jobs[of], pieces, cycles, {JOBS: of * 0, "write": of * 0}, start + of)
        earliest = self.starts[max(0, index - 1)]
        # What the layer before computed can be fetched when it has been written.
        rewritten = index if index and operand is layer.handed_on and self._feeds_next(index - 1) else 0

        def settle(opened, last=first + of.size):
            complete = np.maximum(opened[id(room)][start:stop][of] + 1, earliest)
            stream.needs[JOBS][first:last] = complete.tolist()
            if name == layer.result_memory:
                stream.needs["write"][first:last] = self._left_by(complete, rewritten).tolist()

        self.unsettled.append(settle)
        self.actions[index][ledger.moved(OFFCHIP, "read")] += int(offchip.moved_bytes(sizes).sum())
        self.actions[index][ledger.moved(name, "write")] += int(sizes.sum())
        arrived = np.append(0, np.bincount(of, minlength=jobs.size).cumsum())
        return first + arrived[np.cumsum(moved)[visits.of_use]]

    def _left_by(self, complete: np.ndarray, least: int = 0) -> np.ndarray:
        """Writes for the room that so many complete jobs free: what layers leave, free when the next one has ended,
        must have left by then. In any case those of the first ``least`` layers.
        """
        finished = np.searchsorted(self.starts[1:], complete, side="right")
        return np.array(self.writes_before)[np.maximum(finished - 1, least)]

    # From PEs to memory and off chip

    def _result_bytes(self, index: int) -> np.ndarray:
        """Bytes of the result that each job completes: as the next layer stores them where there is one, else dense."""
        layer = self.layers[index]
        sizes = self.memory.value_bytes(layer.traffic.result)
        if self._feeds_next(index):
            reader = self.layers[index + 1].handed_on
            stored, dense = (
                int(self.memory.stored_bytes(reader).sum()),
                int(self.memory.value_bytes(reader.values).sum()),
            )
            if dense:  # else the next layer sees nothing but its padding
                return -(-sizes * stored // dense)
        if layer.which == "weight_grad" and self.memory.weights_once_a_batch:
            return -(-sizes * layer.samples // layer.batch)
        return sizes

    def _feeds_next(self, index: int) -> bool:
        return index + 1 < len(self.layers) and self.layers[index].feeds(self.layers[index + 1])

    def _store(self, index: int, result: np.ndarray, spilled: np.ndarray) -> None:
        """Results, and partial sums that have no accumulator, into memory; results from there off chip."""
        start, name = self.starts[index], self.layers[index].result_memory
        place, offchip = self.memories[name], self.memory.offchip
        store = self._stream("store", name, "result", place.latency_cycles)
        write = self._stream("write", OFFCHIP, "result", offchip.latency_cycles(self.clock_mhz))
        stored, written = len(store.job), len(write.job)
        of_result, pieces = self._pieces(result)
        of_spill = np.flatnonzero(spilled)
        at = np.concatenate([of_result, of_spill])
        order = np.argsort(at, kind="stable")
        at, sizes = at[order], np.concatenate([pieces, spilled[of_spill]])[order]
        leaves = order < of_result.size
        per_job = np.bincount(at, minlength=result.size)
        earlier = stored + np.cumsum(per_job) - per_job
        self._want_accumulators(index, per_job, earlier)
        waits = np.zeros(at.size, np.int64)
        needed = np.full(of_result.size, self.starts[min(index + 2, len(self.layers))])
        if not self.kept:
            # Results that leave at once pass through a part of the memory: each waits until there is room for it.
            left = np.append(0, np.cumsum(pieces))
            before = np.searchsorted(left, left[1:] - self.leaving)
            waits[leaves] = np.where(before > 0, written + before, 0)
            first_wait = np.searchsorted(before, np.arange(1, of_result.size + 1))
            inside = first_wait < of_result.size
            needed[inside] = of_result[first_wait[inside]] + start
        cycles = place.transfer_cycles(sizes)
        store.extend(at + start, sizes, cycles, {JOBS: at + start + 1, "write": waits})

        def settle(opened, outgoing=slice(*self.outgoing)):
            complete = opened[id(self.rooms[name])][outgoing].max() + 1
            store.needs["write"][stored : stored + at.size] = np.maximum(waits, self._left_by(complete)).tolist()

        self.unsettled.append(settle)
        if self.kept and self.memory.write_back == "unless_kept":
            leaves[:], pieces, needed = False, pieces[:0], needed[:0]
        cycles = offchip.transfer_cycles(pieces, self.clock_mhz)
        write.extend(needed, pieces, cycles, {"store": stored + np.flatnonzero(leaves) + 1})
        self.writes_before.append(len(write.job))
        self._load_spilled(index, spilled, earlier + per_job)
        counts = self.actions[index]
        counts[ledger.moved(name, "write")] += int(sizes.sum())
        counts[ledger.moved(name, "read")] += int(pieces.sum())
        counts[ledger.moved(OFFCHIP, "write")] += int(offchip.moved_bytes(pieces).sum())

    def _want_accumulators(self, index: int, stores: np.ndarray, earlier: np.ndarray) -> None:
        """A job may start when the results of all but the last jobs before it, as many as other sets hold, are
        stored.
        """
        first, sets = len(self.stores_by), self.accumulator_sets
        producing = stores > 0
        self.stores_by += (earlier + stores)[producing].tolist()
        before = first + np.cumsum(producing) - producing
        self.stores_needed[self.starts[index] : self.starts[index + 1]] = np.array(self.stores_by)[before - sets]

    def _order_stores(self) -> None:
        """A store is as urgent as the job that needs its accumulators again, or its spilled partial sums."""
        store = self.streams["store"]
        numbers = np.arange(1, len(store.job) + 1)
        again = np.searchsorted(self.stores_needed, numbers)
        if "load partial" in self.streams:
            partial = self.streams["load partial"]
            back = np.array(partial.needs["store"]) - 1
            again[back] = np.minimum(again[back], partial.job)
        store.job = again.tolist()

    def _load_spilled(self, index: int, spilled: np.ndarray, stores: np.ndarray) -> None:
        """Partial sums come back for the next job once the one that leaves them has."""
        at = np.flatnonzero(spilled)
        if not at.size:
            return
        name, jobs = self.layers[index].result_memory, at + self.starts[index] + 1
        place = self.memories[name]
        stream = self._stream("load partial", name, "partial", place.latency_cycles)
        of_job = self.load_of_job.setdefault(stream.name, np.full(self.starts[-1], -1))
        of_job[jobs] = len(stream.job) + np.arange(jobs.size)
        stream.extend(jobs, spilled[at], place.transfer_cycles(spilled[at]), {JOBS: jobs, "store": stores[at]})
        self.actions[index][ledger.moved(name, "read")] += int(spilled.sum())

    def _count_accesses(self, index: int, loads: list[Loads]) -> None:
        """What the PEs do; operands that stream past no buffer were read from the memory."""
        accesses, counts = self.layers[index].accesses, self.actions[index]
        counts.update(ledger.among(accesses, "actions"))
        for load in loads:
            if load.held:
                buffer = f"{load.operand.buffer}_buffer"
                reads = np.int64(accesses[ledger.values_read(buffer)])
                counts[ledger.moved(buffer, "read")] += int(self.memory.value_bytes(reads))

    def _pieces(self, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cuts transfers: of each piece the transfer that it belongs to, and its bytes; nothing for an empty one."""
        counts = -(-sizes // self.piece_bytes)
        of = np.repeat(np.arange(sizes.size), counts)
        number = np.arange(of.size) - np.repeat(np.cumsum(counts) - counts, counts)
        return of, np.minimum(self.piece_bytes, sizes[of] - number * self.piece_bytes)

    def _stream(self, name: str, port: str, operand: str, latency: int, room: str = "") -> Stream:
        return self.streams.setdefault(name, Stream(name, port, operand, latency, room))

    def _count(self, name: str) -> int:
        """Transfers of a stream so far."""
        return len(self.streams[name].job) if name in self.streams else 0

    def _refused(self, index: int, rule: str) -> MachineError:
        return MachineError(f"{self.layers[index].name}: {rule}")
