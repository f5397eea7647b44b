"""What moves when: a pass's layers, one after another, as transfers that wait for each other.

What is where has been decided (``placement``); here each of its moves becomes transfers, and each of these is told
after which jobs and transfers it may start. docs/memory.md states the rules. All layers of a pass are planned at once,
in arrays: jobs and transfers are numbered through the pass. ``leaving`` plans what goes the other way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from accelsim import ledger
from accelsim.hardware.hierarchy import Buffers, Memory
from accelsim.hardware.movement.demand import Capacities, OperandDemand, demands
from accelsim.hardware.movement.leaving import Leaving
from accelsim.hardware.movement.pieces import by_group, cut
from accelsim.hardware.movement.placement import LayerPlacement, Loads, place, settled
from accelsim.hardware.movement.plan import JOBS, OFFCHIP, Plan, Stream
from accelsim.hardware.movement.residency import Moves, Room
from accelsim.hardware.movement.traffic import ACTIVATIONS, WEIGHTS, LayerTraffic

# What off-chip memory and stores are asked for at once, made up to whole bursts: larger parts and results go in pieces,
# others in between.
PIECE_BYTES = 1 << 14


@dataclass(frozen=True, eq=False)
class _Brought:
    """An operand of a layer: its moves, and which entries of the rooms of its buffer and of its memory they are."""

    index: int
    number: int
    demand: OperandDemand
    loads: Loads
    fetches: Moves | None
    inside: slice
    stored: slice


class Planner:
    """Makes transfers of what was decided."""

    def __init__(self, memory: Memory, buffers: Buffers, clock_mhz: int, layers: list[LayerTraffic]):
        self.memory, self.clock_mhz, self.layers = memory, clock_mhz, layers
        self.starts = np.cumsum([0, *(layer.traffic.job_cycles.size for layer in layers)])
        self.jobs = int(self.starts[-1])
        self.memories = {ACTIVATIONS: memory.activation_memory, WEIGHTS: memory.weight_memory}
        self.buffers = {"activation": buffers.activation, "weight": buffers.weight}
        self.accumulator_sets = buffers.accumulator_sets
        self.piece_bytes = int(memory.offchip.moved_bytes(np.array(PIECE_BYTES)))
        self.rooms = {name: Room(place.capacity_bytes) for name, place in (self.memories | self.buffers).items()}
        self.actions: list[Counter[str]] = [Counter() for _ in layers]
        self.capacities = Capacities.of(memory, buffers, self.piece_bytes)
        self.demands = settled(demands(memory, layers), self.capacities)

    def plan(self) -> Plan:
        """The plan.

        Raises
        ------
        MachineError
            If a memory or buffer cannot hold what a single job needs.
        """
        placements = place(self.demands, self.capacities)
        brought: dict[str, list[_Brought]] = {}
        for index, placement in enumerate(placements):
            for name in self.memories:
                for each in self._enter(index, name, placement):
                    brought.setdefault(each.demand.tensor, []).append(each)
            self._count_accesses(index, placement)
        self.leaving = Leaving(
            self.memory, self.clock_mhz, self.demands, placements, self.piece_bytes, self.accumulator_sets
        )
        outgoing = self.leaving.make_room(self.rooms)
        # Jobs that must be complete before each part may enter.
        self.opened = {name: room.opened_by(self.jobs) + 1 for name, room in self.rooms.items()}
        streams: dict[str, Stream] = {}
        load_of_job: dict[str, np.ndarray] = {}
        for of_layers in brought.values():
            fetch, load, load_of_job[f"load {fetch.operand}"] = self._bring(of_layers)
            streams |= {fetch.name: fetch, load.name: load}
        streams |= self.leaving.streams(self.opened[self.leaving.memory_name][outgoing])
        if "load partial" in streams:
            load_of_job["load partial"] = self._numbers(streams["load partial"].job)
        self.leaving.count(self.actions)
        return Plan(
            [layer.name for layer in self.layers], self.starts[1:],
            np.concatenate([layer.traffic.job_cycles for layer in self.layers]),
            streams, load_of_job, self.leaving.stores_needed, [dict(counts) for counts in self.actions], self.rooms,
            self.memory.offchip.timing(self.clock_mhz),
        )  # fmt: skip

    def _enter(self, index: int, name: str, placement: LayerPlacement) -> list[_Brought]:
        """Parts of a layer enter a memory, and the buffers behind it."""
        entered, start, demand = [], self.starts[index], self.demands[index]
        for number, (operand, placed) in enumerate(zip(demand.operands, placement.operands, strict=True)):
            if operand.memory != name:
                continue
            inside = stored = slice(0)
            if placed.loads.held:
                moves = placed.loads.moves
                entries = moves.job + start, demand.held_bytes(operand.inside_bytes, moves), moves.until + start
                inside = self.rooms[operand.buffer].enter(*entries)
            if placed.fetches is not None:
                moves = placed.fetches
                entries = moves.job + start, demand.held_bytes(operand.stored_bytes, moves), moves.until + start
                stored = self.rooms[name].enter(*entries)
            entered.append(_Brought(index, number, operand, placed.loads, placed.fetches, inside, stored))
        return entered

    def _bring(self, layers: list[_Brought]) -> tuple[Stream, Stream, np.ndarray]:
        """An operand's fetches and loads in all layers, and the load that brings what each job reads."""
        fetch, arrived = self._fetch([each for each in layers if each.fetches is not None], layers[0].demand)
        return fetch, *self._load(layers, fetch.name, arrived)

    # From off-chip memory to the memories on chip

    def _fetch(self, layers: list[_Brought], operand: OperandDemand) -> tuple[Stream, np.ndarray]:
        """Fetches of an operand, and how many transfers must have arrived for the first so many of its moves."""
        offchip, name = self.memory.offchip, operand.memory
        moves = [each.fetches for each in layers if each.fetches is not None]
        counts = np.array([each.job.size for each in moves], np.int64)
        index = np.array([each.index for each in layers], np.int64)
        layer = np.repeat(index, counts)
        jobs = _joined([each.job for each in moves]) + self.starts[layer]
        sizes = _joined([each.demand.stored_bytes[m.part] for each, m in zip(layers, moves, strict=True)])
        if operand.tensor == "weight":
            share = np.array([self.demands[at].weight_share for at in index], np.int64).reshape(-1, 2)
            moved, of_all = share[np.repeat(np.arange(index.size), counts)].T
            sizes = -(-sizes * moved // of_all)
        of, pieces = cut(sizes, self.piece_bytes)
        opened = _joined([self.opened[name][each.stored] for each in layers])
        complete = np.maximum(opened, self.starts[np.maximum(layer - 1, 0)])[of]
        needs = {JOBS: complete}
        if name == self.leaving.memory_name:
            # What the layer before computed can be fetched when it has been written. Where a share of the batch is
            # stored the others come between a sample's results and their use, and it has.
            rewritten = np.array([each.index if self._is_rewritten(each) else 0 for each in layers], np.int64)
            least = self.leaving.writes_before[np.repeat(rewritten, counts)[of]]
            needs["write"] = np.maximum(self.leaving.left_by(complete), least)
        fills = np.arange(jobs.size) + np.repeat(
            np.array([each.stored.start for each in layers], np.int64) - (np.cumsum(counts) - counts), counts
        )
        for read, written, at in zip(
            by_group(offchip.moved_bytes(sizes), counts), by_group(sizes, counts), index, strict=True
        ):
            self.actions[at][ledger.moved(OFFCHIP, "read")] += read
            self.actions[at][ledger.moved(name, "write")] += written
        stream = Stream(
            f"fetch {operand.tensor}", OFFCHIP, operand.tensor, offchip.latency_cycles(self.clock_mhz), name,
            jobs[of], pieces, offchip.transfer_ticks(pieces, self.clock_mhz), needs, fills[of],
        )  # fmt: skip
        return stream, np.append(0, np.cumsum(np.bincount(of, minlength=jobs.size)))

    def _is_rewritten(self, each: _Brought) -> bool:
        """Whether an operand is fetched that the layer before computes meanwhile."""
        demand = self.demands[each.index]
        return each.number == demand.reads_result and demand.samples == demand.batch

    # From memory to PEs

    def _load(self, layers: list[_Brought], fetch: str, arrived: np.ndarray) -> tuple[Stream, np.ndarray]:
        """Loads of an operand, each once the fetches that it needs have ``arrived``; or the stores, where it is found
        on chip.
        """
        name, tensor = layers[0].demand.memory, layers[0].demand.tensor
        place = self.memories[name]
        moves = [each.loads.moves for each in layers]
        counts = np.array([each.job.size for each in moves], np.int64)
        index = np.array([each.index for each in layers], np.int64)
        sizes = _joined([each.loads.size_bytes for each in layers])
        some = np.flatnonzero(sizes)
        jobs = (_joined([each.job for each in moves]) + np.repeat(self.starts[index], counts))[some]
        made, fetched, opened, fills = [], 0, [], []
        for each in layers:
            own = each.loads.moves.job
            if each.fetches is None:
                made.append(np.zeros(own.size, np.int64))
            else:
                made.append(each.fetches.made + fetched)
                fetched += each.fetches.job.size
            two_ports = each.loads.held and self.buffers[each.demand.buffer].ports == 2
            opened.append(self.opened[each.demand.buffer][each.inside] if two_ports else own + self.starts[each.index])
            begin = each.inside.start or 0
            fills.append(np.arange(begin, begin + own.size) if each.loads.held else np.full(own.size, -1))
        needs = {fetch: arrived[_joined(made)][some], JOBS: _joined(opened)[some]}
        found = np.array([each.index if each.fetches is None else 0 for each in layers], np.int64)
        if found.any():
            needs["store"] = np.repeat(self.leaving.stores_before[found], counts)[some]
        for each, moved in zip(layers, by_group(sizes, counts), strict=True):
            actions = self.actions[each.index]
            actions[ledger.moved(name, "read")] += moved
            if each.loads.held:
                copies = self.layers[each.index].traffic.operands[each.number].copies
                actions[ledger.moved(f"{each.demand.buffer}_buffer", "write")] += moved * copies
        sizes = sizes[some]
        stream = Stream(
            f"load {tensor}", name, tensor, place.latency_cycles, layers[0].demand.buffer,
            jobs, sizes, place.transfer_ticks(sizes), needs, _joined(fills)[some],
        )  # fmt: skip
        return stream, self._numbers(jobs)

    def _numbers(self, jobs: np.ndarray) -> np.ndarray:
        """Of each job the transfer that is for it; −1 where none is."""
        numbers = np.full(self.jobs, -1)
        numbers[jobs] = np.arange(jobs.size)
        return numbers

    def _count_accesses(self, index: int, placement: LayerPlacement) -> None:
        """What the PEs do; operands that stream past no buffer were read from the memory."""
        accesses, counts = self.layers[index].accesses, self.actions[index]
        counts.update(ledger.among(accesses, "actions"))
        for operand, placed in zip(self.demands[index].operands, placement.operands, strict=True):
            if placed.loads.held:
                buffer = f"{operand.buffer}_buffer"
                reads = np.array(accesses[ledger.values_read(buffer)], np.int64)
                counts[ledger.moved(buffer, "read")] += int(self.memory.value_bytes(reads))


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
