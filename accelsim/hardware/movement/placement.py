"""What is where: the decisions of a pass, made before its first cycle.

The software of such machines knows what a layer will read, so nothing is left to chance. For each layer: which operands
go through the PEs' buffers, which parts stay there and in the memories, and what becomes of the results. The planner
makes transfers of it. docs/memory.md states the rules; tests/reference_placement.py decides from them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware.movement.demand import Capacities, LayerDemand, OperandDemand
from accelsim.hardware.movement.residency import Moves, Visits


@dataclass(frozen=True, eq=False)
class Loads:
    """What of an operand goes from its memory to the PEs: parts into buffers that hold them, or past them.

    Parameters
    ----------
    held : bool
        Whether buffers hold the parts; else each job that reads one has it pass by.
    moves : Moves
        The loads, in order; ``until`` is the last job for which a buffer holds a part. Its uses are the jobs' reads.
    size_bytes : ndarray of int64, (loads,)
        Bytes that a load reads from memory.
    visits : Visits
        The loads as uses of the memory.
    """

    held: bool
    moves: Moves
    size_bytes: np.ndarray
    visits: Visits


@dataclass(frozen=True, eq=False)
class OperandPlacement:
    """Where an operand is.

    Parameters
    ----------
    loads : Loads
        From its memory to the PEs.
    found : bool
        It is in its memory already, as the result of the layer before: nothing is fetched.
    stays : ndarray of bool, (parts,)
        Parts that stay in its memory from their first visit to their last; others are fetched for each visit.
    fetches : Moves
        From off-chip memory to its memory; ``made`` has an entry a load. None where it is found.
    """

    loads: Loads
    found: bool
    stays: np.ndarray
    fetches: Moves | None


@dataclass(frozen=True, eq=False)
class LayerPlacement:
    """Where a layer's operands are, and where its results go.

    Parameters
    ----------
    operands : tuple of OperandPlacement
    kept : bool
        Whether its results stay in memory for the next layer.
    leaving_bytes : int
        Bytes of memory that they stay in, or pass through on their way off chip.
    """

    operands: tuple[OperandPlacement, ...]
    kept: bool
    leaving_bytes: int


def place(layers: Sequence[LayerDemand], capacities: Capacities) -> tuple[LayerPlacement, ...]:
    """Decides for the layers of a pass, in the order of their execution.

    Raises
    ------
    MachineError
        If a memory or buffer cannot hold what a single job needs.
    """
    return _Placer(layers, capacities).placements()


def settled(layers: Sequence[LayerDemand], capacities: Capacities) -> tuple[LayerDemand, ...]:
    """The layers, those in groups of samples that do better so: where parts of all samples would be fetched again and
    again, and sums have room.
    """
    return tuple(
        layer.in_groups
        if layer.in_groups and not _fetched_once(layer, capacities) and _has_room(layer.in_groups, capacities)
        else layer
        for layer in layers
    )


def _fetched_once(layer: LayerDemand, capacities: Capacities) -> bool:
    """Whether all parts of operands have room in their memory, with those of all samples, if no buffer holds any."""
    left = dict(capacities.memories)
    for operand in layer.operands:
        uses = np.flatnonzero(operand.part >= 0)
        visits = Visits.of(uses, operand.part[uses], operand.stored_bytes, layer.together)
        left[operand.memory] -= visits.peak_bytes
    return min(left.values()) >= 0


def _has_room(layer: LayerDemand, capacities: Capacities) -> bool:
    """Whether all sums find room beside a piece of results, and one of the layer before."""
    return layer.sums_bytes + 2 * capacities.piece_bytes <= dict(capacities.memories)[layer.result_memory]


class _Placer:
    """Walks the layers once: what one leaves is there before the next one's own."""

    def __init__(self, layers: Sequence[LayerDemand], capacities: Capacities):
        self.layers, self.piece_bytes = layers, capacities.piece_bytes
        self.memories, self.buffers = dict(capacities.memories), dict(capacities.buffers)
        self.loads = [
            [_loads(each, self.buffers[each.buffer], layer.together) for each in layer.operands] for layer in layers
        ]

    def placements(self) -> tuple[LayerPlacement, ...]:
        """All of them."""
        made, before = [], LayerPlacement((), False, 0)
        for index in range(len(self.layers)):
            before = self._layer(index, before)
            made.append(before)
        return tuple(made)

    def _layer(self, index: int, before: LayerPlacement) -> LayerPlacement:
        layer, loads = self.layers[index], self.loads[index]
        if layer.crossed and not any(load.held for load in loads):
            sizes = " and ".join(f"{o.buffer} {o.inside_bytes[o.part[o.part >= 0]].max():,}" for o in layer.operands)
            raise MachineError(
                f"{layer.name}: buffers: one operand's part must fit its buffer, they need {sizes} bytes"
            )
        found = layer.reads_result if before.kept else -1
        for name, capacity in self.memories.items():
            needed = self._before(index, name, before) + self._least_bytes(index, name, found)
            if needed > capacity:
                rule = f"memory.{name}.capacity_bytes: must hold {needed:,} bytes for a single job, got {capacity:,}"
                raise MachineError(f"{layer.name}: {rule}")
        kept, leaving = self._result(index, before, found)
        stays = self._stays(index, before, found, leaving)
        operands = []
        for number, load in enumerate(loads):
            fetches = None if number == found else load.visits.moves(stays[number])
            operands.append(OperandPlacement(load, number == found, stays[number], fetches))
        return LayerPlacement(tuple(operands), kept, leaving)

    # Results

    def _result(self, index: int, before: LayerPlacement, found: int) -> tuple[bool, int]:
        """Whether a layer's results stay for the next one, and the bytes of memory that they take: those of all samples
        before the next layer begins, though not all may be stored; what leaves meanwhile is of those that are.
        """
        layer = self.layers[index]
        name, own = layer.result_memory, layer.all_results_bytes
        total = -(-own * layer.batch // layer.samples)
        capacity, fixed = self.memories[name], self._fixed_bytes(index, layer.result_memory, before)
        peaks, least = self._peak_bytes(index, name, found), self._largest_bytes(index, name, found)
        # What this layer leaves must not take the room without which the next one cannot run.
        reader = self.layers[index + 1].reads_result if index + 1 < len(self.layers) else -1
        rest = capacity - self._least_bytes(index + 1, name, reader)
        if reader >= 0 and total <= min(capacity - fixed - sum(peaks), rest):
            return True, total
        piece = self._piece_bytes(index)
        free = min(capacity - fixed - sum(peaks), capacity - self._whole_bytes(index + 1, name))
        some = min(2 * piece, capacity - fixed - sum(least))
        most = max(piece, min(max(free, some), capacity - self._least_bytes(index + 1, name, -1)))
        return False, min(own, most)

    # What else a layer has in a memory. Of an operand that is found there nothing comes on top.

    def _of(self, index: int, name: str) -> list[int]:
        """Which operands of a layer a memory holds."""
        return [number for number, operand in enumerate(self.layers[index].operands) if operand.memory == name]

    def _largest_bytes(self, index: int, name: str, found: int) -> list[int]:
        loads = self.loads[index]
        return [0 if at == found else loads[at].visits.largest_bytes for at in self._of(index, name)]

    def _peak_bytes(self, index: int, name: str, found: int) -> list[int]:
        return [0 if at == found else self.loads[index][at].visits.peak_bytes for at in self._of(index, name)]

    def _piece_bytes(self, index: int) -> int:
        return min(self.layers[index].largest_result_bytes, self.piece_bytes)

    def _before(self, index: int, name: str, before: LayerPlacement) -> int:
        """Bytes of a memory that the results of the layer before stay in, or still leave through."""
        return before.leaving_bytes if name == self.layers[index].result_memory else 0

    def _fixed_bytes(self, index: int, name: str, before: LayerPlacement) -> int:
        """What a memory holds besides operands and results."""
        layer = self.layers[index]
        spilled = layer.most_spilled_bytes if name == layer.result_memory else 0
        return self._before(index, name, before) + spilled

    def _least_bytes(self, index: int, name: str, found: int) -> int:
        """Bytes of a memory without which a layer cannot run, besides what the layer before leaves."""
        if index == len(self.layers):
            return 0
        layer, parts = self.layers[index], sum(self._largest_bytes(index, name, found))
        if name != layer.result_memory:
            return parts
        return parts + layer.most_spilled_bytes + self._piece_bytes(index)

    def _whole_bytes(self, index: int, name: str) -> int:
        """Bytes of a memory that a layer takes if nothing is fetched twice and its results stay."""
        if index == len(self.layers):
            return 0
        layer = self.layers[index]
        results = layer.all_results_bytes if name == layer.result_memory else 0
        return results + sum(self._peak_bytes(index, name, -1))

    # Operands

    def _stays(self, index: int, before: LayerPlacement, found: int, leaving: int) -> list[np.ndarray]:
        """The parts of each operand that stay in its memory."""
        layer, chosen = self.layers[index], [load.visits.all_parts() for load in self.loads[index]]
        for name, capacity in self.memories.items():
            budget = capacity - self._fixed_bytes(index, name, before)
            budget -= leaving if name == layer.result_memory else 0
            here = [at for at in self._of(index, name) if at != found]
            visits = [self.loads[index][at].visits for at in here]
            peaks = [self.loads[index][at].visits.peak_bytes for at in here]
            for at, stays in zip(here, _chosen(visits, peaks, budget), strict=True):
                chosen[at] = stays
        return chosen


def _loads(operand: OperandDemand, capacity: int, summed: tuple[int, int]) -> Loads:
    """Parts that fit their buffer are loaded once a visit, or stay; others stream past, in every job.

    They also stream where that moves less, as it may when PEs skip what they need not read.
    """
    uses = np.flatnonzero(operand.part >= 0)
    visits = Visits.of(uses, operand.part[uses], operand.inside_bytes, summed)
    room = capacity if visits.peak_bytes <= capacity else max(0, capacity - 2 * visits.largest_bytes)
    kept = visits.kept_within(room)
    moves, streamed = visits.moves(kept), operand.streamed_bytes
    sizes = operand.stored_bytes[moves.part]
    held = visits.largest_bytes <= capacity and sizes.sum() <= streamed[uses].sum()
    if not held:
        jobs = uses[streamed[uses] > 0]
        moves = Moves(jobs, operand.part[jobs], jobs, np.arange(1, jobs.size + 1))
        sizes = streamed[jobs]
    return Loads(held, moves, sizes, Visits.of(moves.job, moves.part, operand.stored_bytes, summed))


def _chosen(visits: list[Visits], peaks: list[int], budget: int) -> list[np.ndarray]:
    """The parts of each operand that stay for all their visits.

    Which operands stay whole is decided with room for one part of each other; so more room never makes fewer of them
    whole. Only what two parts of each other leave is for parts of the first of these.
    """
    order = sorted(range(len(visits)), key=peaks.__getitem__)
    least = [each.largest_bytes for each in visits]
    spare, whole = budget - sum(least), 0
    while whole < len(order) and peaks[order[whole]] - least[order[whole]] <= spare:
        spare -= peaks[order[whole]] - least[order[whole]]
        whole += 1
    spare -= sum(min(peaks[i], 2 * least[i]) - least[i] for i in order[whole:])
    chosen = {i: visits[i].all_parts() for i in order[:whole]}
    for i in order[whole:]:
        chosen[i], spare = visits[i].kept_within(max(0, spare)), 0
    return [chosen[i] for i in range(len(visits))]
