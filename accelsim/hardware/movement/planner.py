"""What moves when: a pass's layers, one after another, as transfers that wait for each other.

What is where has been decided (``placement``); here each of its moves becomes transfers, and each of these is told
after which jobs and transfers it may start. docs/memory.md states the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from accelsim import ledger
from accelsim.hardware.hierarchy import Buffers, Memory
from accelsim.hardware.movement.demand import Capacities, demands
from accelsim.hardware.movement.placement import LayerPlacement, Loads, OperandPlacement, place
from accelsim.hardware.movement.plan import JOBS, OFFCHIP, Plan, Stream
from accelsim.hardware.movement.residency import Moves, Room
from accelsim.hardware.movement.traffic import ACTIVATIONS, WEIGHTS, LayerTraffic

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
        self.piece_bytes = int(memory.offchip.moved_bytes(np.array(PIECE_BYTES)))
        self.rooms = {name: Room(place.capacity_bytes) for name, place in (self.memories | self.buffers).items()}
        self.streams: dict[str, Stream] = {}
        self.load_of_job: dict[str, np.ndarray] = {}
        self.stores_needed = np.zeros(self.starts[-1], np.int64)
        self.writes_before = [0]  # layer by layer
        self.stores_by = [0] * buffers.accumulator_sets  # each job with a result, and some jobs before the first
        self.actions: list[Counter[str]] = [Counter() for _ in layers]
        self.demands = demands(memory, layers)
        self.capacities = Capacities.of(memory, buffers, self.piece_bytes)
        self.unsettled: list[Callable[[dict[int, np.ndarray]], None]] = []

    def plan(self) -> Plan:
        """The plan.

        Raises
        ------
        MachineError
            If a memory or buffer cannot hold what a single job needs.
        """
        for index, placement in enumerate(place(self.demands, self.capacities)):
            self._layer(index, placement)
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

    def _layer(self, index: int, placement: LayerPlacement) -> None:
        demand = self.demands[index]
        for name in self.memories:
            for number, operand in enumerate(demand.operands):
                if operand.memory == name:
                    self._operand(index, number, placement.operands[number])
            if name == demand.result_memory:
                outgoing = self._make_room(index, placement.leaving_bytes)
        self._store(index, placement, outgoing)
        self._count_accesses(index, placement)

    def _operand(self, index: int, number: int, placed: OperandPlacement) -> None:
        """Fetches of an operand, unless it is found on chip, and its loads."""
        if placed.fetches is None:
            needs = {"store": np.full(placed.loads.moves.job.size, self._count("store"))}
        else:
            tensor = self.demands[index].operands[number].tensor
            needs = {f"fetch {tensor}": self._fetch(index, number, placed.fetches)}
        self._add_loads(index, number, placed.loads, needs)

    def _make_room(self, index: int, leaving: int) -> slice:
        """Room for results and partial sums is needed when the first job ends: what that job reads enters before it.

        It is free again when the next layer ends, which reads what is kept, or meanwhile lets the last of it leave.
        """
        demand = self.demands[index]
        sizes = np.array([leaving, int(demand.spilled_bytes.max())])
        ends = self.starts[[min(index + 2, len(self.layers)), index + 1]]
        jobs = np.full(2, self.starts[index])
        return slice(*self.rooms[demand.result_memory].enter(jobs, sizes, ends - 1, rank=1))

    # From memory to PEs

    def _add_loads(self, index: int, number: int, loads: Loads, needs: dict[str, np.ndarray]) -> None:
        """``needs``: what must have arrived in the memory before each load."""
        operand, start = self.demands[index].operands[number], self.starts[index]
        moves, some = loads.moves, loads.size_bytes > 0
        name = operand.memory
        stream = self._stream(
            f"load {operand.tensor}", name, operand.tensor, self.memories[name].latency_cycles, operand.buffer
        )
        first, jobs, sizes = len(stream.job), moves.job[some] + start, loads.size_bytes[some]
        cycles = self.memories[name].transfer_cycles(sizes)
        needs = {of: counts[some] for of, counts in needs.items()} | {JOBS: jobs}
        fills = None
        if loads.held:
            room = self.rooms[operand.buffer]
            begin, end = room.enter(moves.job + start, operand.inside_bytes[moves.part], moves.until + start)
            fills = begin + np.flatnonzero(some)
        stream.extend(jobs, sizes, cycles, needs, fills)
        of_job = self.load_of_job.setdefault(stream.name, np.full(self.starts[-1], -1))
        of_job[jobs] = first + np.arange(jobs.size)
        if loads.held and self.buffers[operand.buffer].ports == 2:

            def settle(opened: dict[int, np.ndarray], last: int = first + jobs.size) -> None:
                stream.needs[JOBS][first:last] = (opened[id(room)][begin:end][some] + 1).tolist()

            self.unsettled.append(settle)
        moved = int(sizes.sum())
        self.actions[index][ledger.moved(name, "read")] += moved
        if loads.held:
            copies = self.layers[index].traffic.operands[number].copies
            self.actions[index][ledger.moved(f"{operand.buffer}_buffer", "write")] += moved * copies

    # From off-chip memory to the memories on chip

    def _fetch(self, index: int, number: int, moves: Moves) -> np.ndarray:
        """Fetches of an operand; returns how many must have arrived before each of its loads."""
        offchip, demand = self.memory.offchip, self.demands[index]
        operand = demand.operands[number]
        name, latency = operand.memory, offchip.latency_cycles(self.clock_mhz)
        stream = self._stream(f"fetch {operand.tensor}", OFFCHIP, operand.tensor, latency, name)
        first, start = len(stream.job), self.starts[index]
        jobs, sizes = moves.job + start, operand.stored_bytes[moves.part]
        room = self.rooms[name]
        begin, end = room.enter(jobs, sizes, moves.until + start)
        if operand.tensor == "weight":
            moved, of_all = demand.weight_share
            sizes = -(-sizes * moved // of_all)
        of, pieces = self._pieces(sizes)
        cycles = offchip.transfer_cycles(pieces, self.clock_mhz)
        stream.extend(jobs[of], pieces, cycles, {JOBS: of * 0, "write": of * 0}, begin + of)
        earliest = self.starts[max(0, index - 1)]
        # What the layer before computed can be fetched when it has been written. Where a share of the batch is stored
        # the others come between a sample's results and their use, and it has.
        rewritten = index if number == demand.reads_result and demand.samples == demand.batch else 0

        def settle(opened: dict[int, np.ndarray], last: int = first + of.size) -> None:
            complete = np.maximum(opened[id(room)][begin:end][of] + 1, earliest)
            stream.needs[JOBS][first:last] = complete.tolist()
            if name == demand.result_memory:
                stream.needs["write"][first:last] = self._left_by(complete, rewritten).tolist()

        self.unsettled.append(settle)
        self.actions[index][ledger.moved(OFFCHIP, "read")] += int(offchip.moved_bytes(sizes).sum())
        self.actions[index][ledger.moved(name, "write")] += int(sizes.sum())
        arrived = np.append(0, np.bincount(of, minlength=jobs.size).cumsum())
        return np.asarray(first + arrived[moves.made])

    def _left_by(self, complete: np.ndarray, least: int = 0) -> np.ndarray:
        """Writes for the room that so many complete jobs free: what layers leave, free when the next one has ended,
        must have left by then. In any case those of the first ``least`` layers.
        """
        finished = np.searchsorted(self.starts[1:], complete, side="right")
        return np.array(self.writes_before)[np.maximum(finished - 1, least)]

    # From PEs to memory and off chip

    def _store(self, index: int, placed: LayerPlacement, outgoing: slice) -> None:
        """Results, and partial sums that have no accumulator, into memory; results from there off chip."""
        start, demand = self.starts[index], self.demands[index]
        name, result, spilled = demand.result_memory, demand.result_bytes, demand.spilled_bytes
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
        if not placed.kept:
            # Results that leave at once pass through a part of the memory: each waits until there is room for it.
            left = np.append(0, np.cumsum(pieces))
            before = np.searchsorted(left, left[1:] - placed.leaving_bytes)
            waits[leaves] = np.where(before > 0, written + before, 0)
            first_wait = np.searchsorted(before, np.arange(1, of_result.size + 1))
            inside = first_wait < of_result.size
            needed[inside] = of_result[first_wait[inside]] + start
        cycles = place.transfer_cycles(sizes)
        store.extend(at + start, sizes, cycles, {JOBS: at + start + 1, "write": waits})

        def settle(opened: dict[int, np.ndarray]) -> None:
            complete = opened[id(self.rooms[name])][outgoing].max() + 1
            store.needs["write"][stored : stored + at.size] = np.maximum(waits, self._left_by(complete)).tolist()

        self.unsettled.append(settle)
        if placed.kept and self.memory.write_back == "unless_kept":
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
            again[np.array(partial.needs["store"]) - 1] = partial.job
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

    def _count_accesses(self, index: int, placement: LayerPlacement) -> None:
        """What the PEs do; operands that stream past no buffer were read from the memory."""
        accesses, counts = self.layers[index].accesses, self.actions[index]
        counts.update(ledger.among(accesses, "actions"))
        for operand, placed in zip(self.demands[index].operands, placement.operands, strict=True):
            if placed.loads.held:
                buffer = f"{operand.buffer}_buffer"
                reads = np.array(accesses[ledger.values_read(buffer)], np.int64)
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
