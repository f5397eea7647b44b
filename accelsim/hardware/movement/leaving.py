"""What leaves the PEs: results and spilled partial sums into memory, and results from there off chip.

Of all layers of a pass at once; jobs, stores and writes are numbered through the pass.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from accelsim import ledger
from accelsim.hardware.hierarchy import Memory
from accelsim.hardware.movement.demand import LayerDemand
from accelsim.hardware.movement.pieces import by_group, cut
from accelsim.hardware.movement.placement import LayerPlacement
from accelsim.hardware.movement.plan import JOBS, OFFCHIP, Stream
from accelsim.hardware.movement.residency import Room
from accelsim.hardware.movement.traffic import ACTIVATIONS


class Leaving:
    """Stores and writes of a pass.

    Parameters
    ----------
    memory : Memory
    clock_mhz : int
    layers : sequence of LayerDemand
    placements : sequence of LayerPlacement
        What was decided for each of them.
    piece_bytes : int
        What a store or write moves at most.
    accumulator_sets : int

    Attributes
    ----------
    memory_name : str
        Where the results of the pass go.
    stores_before, writes_before : ndarray of int64, (layers + 1,)
        Stores, and writes, of the layers before each.
    stores_needed : ndarray of int64, (jobs,)
        Stores that must have arrived before a job may start.
    """

    def __init__(
        self,
        memory: Memory,
        clock_mhz: int,
        layers: tuple[LayerDemand, ...],
        placements: tuple[LayerPlacement, ...],
        piece_bytes: int,
        accumulator_sets: int,
    ):
        self.memory, self.clock_mhz, self.placements = memory, clock_mhz, placements
        self.memory_name = layers[0].result_memory
        self.place = memory.activation_memory if self.memory_name == ACTIVATIONS else memory.weight_memory
        jobs_of = np.array([layer.result_bytes.size for layer in layers], np.int64)
        self.starts = np.append(0, np.cumsum(jobs_of))
        self.spills = np.array([layer.most_spilled_bytes for layer in layers], np.int64)
        self.spilled = np.concatenate([layer.spilled_bytes for layer in layers])
        # What a job leaves comes back to the next one; sums of other samples to the job that adds to them.
        self.returns = np.repeat([0 if layer.sums_bytes else 1 for layer in layers], jobs_of)
        self.sets = accumulator_sets
        self.of_job, self.pieces = cut(np.concatenate([layer.result_bytes for layer in layers]), piece_bytes)
        self.layer = np.repeat(np.arange(len(layers)), jobs_of)[self.of_job]
        kept = np.array([placement.kept for placement in placements])[self.layer]
        self.written = ~(kept & (memory.write_back == "unless_kept"))
        self._order()
        ends = np.searchsorted(self.of_job, self.starts)
        self.first_piece = ends
        self.stores_before = np.searchsorted(self.at, self.starts)
        self.writes_until = np.append(0, np.cumsum(self.written))  # of the first so many pieces
        self.writes_before = self.writes_until[ends]
        self._want_accumulators()

    def _order(self) -> None:
        """Stores in the order of jobs: of each its results, then its partial sums."""
        of_spill = np.flatnonzero(self.spilled)
        at = np.concatenate([self.of_job, of_spill])
        order = np.argsort(at, kind="stable")
        self.at, self.sizes = at[order], np.concatenate([self.pieces, self.spilled[of_spill]])[order]
        self.is_result = order < self.of_job.size

    def _want_accumulators(self) -> None:
        """A job may start when the results of all but the last jobs before it, as many as other sets hold, are stored.

        A store is as urgent as the job that needs its accumulators again, or its spilled partial sums.
        """
        stores = np.bincount(self.at, minlength=self.spilled.size)
        self.stored_by = np.cumsum(stores)
        producing = stores > 0
        stored_by = np.append(np.zeros(self.sets, np.int64), self.stored_by[producing])
        self.stores_needed = stored_by[np.cumsum(producing) - producing]
        self.urgent = np.searchsorted(self.stores_needed, np.arange(1, self.at.size + 1))
        back = np.flatnonzero(self.spilled * self.returns)
        self.urgent[self.stored_by[back] - 1] = back + 1

    def make_room(self, rooms: dict[str, Room]) -> slice:
        """Room for results and partial sums is needed when the first job ends: what that job reads enters before it.

        It is free again when the next layer ends, which reads what is kept, or meanwhile lets the last of it leave.
        Each layer has two entries.
        """
        leaving = np.array([placement.leaving_bytes for placement in self.placements], np.int64)
        after = np.append(self.starts[2:], self.starts[-1])
        sizes = np.stack((leaving, self.spills), axis=1).ravel()
        until = np.stack((after - 1, self.starts[1:] - 1), axis=1).ravel()
        return rooms[self.memory_name].enter(np.repeat(self.starts[:-1], 2), sizes, until, rank=1)

    def left_by(self, complete: np.ndarray) -> np.ndarray:
        """Writes for the room that so many complete jobs free: what layers leave, free when the next one has ended,
        must have left by then.
        """
        finished = np.searchsorted(self.starts[1:], complete, side="right")
        return self.writes_before[np.maximum(finished - 1, 0)]

    def streams(self, opened: np.ndarray) -> dict[str, Stream]:
        """Stores and writes, and loads of partial sums. ``opened``: of both entries of each layer's room the jobs that
        must be complete.
        """
        waits, needed = self._pass_through()
        stores = np.diff(self.stores_before)
        left = np.repeat(self.left_by(opened.reshape(-1, 2).max(axis=1)), stores)
        waiting = np.zeros(self.at.size, np.int64)
        waiting[self.is_result] = waits
        store = self._onchip(
            "store", "result", self.urgent, self.sizes, {JOBS: self.at + 1, "write": np.maximum(waiting, left)}
        )
        offchip, pieces = self.memory.offchip, self.pieces[self.written]
        write = Stream(
            "write", OFFCHIP, "result", offchip.latency_cycles(self.clock_mhz), "",
            needed[self.written], pieces, offchip.transfer_ticks(pieces, self.clock_mhz),
            {"store": (np.flatnonzero(self.is_result) + 1)[self.written]}, np.full(pieces.size, -1),
        )  # fmt: skip
        made = {"store": store, "write": write}
        back = np.flatnonzero(self.spilled)
        if back.size:
            made["load partial"] = self._load_partial(back, back + self.returns[back])
        return made

    def _load_partial(self, back: np.ndarray, job: np.ndarray) -> Stream:
        """What jobs spilled, for the next ones; or sums of other samples, into accumulators that are free again."""
        own = self.returns[back] == 0
        free = np.where(own, np.maximum(job + 1 - self.sets, 0), job)
        stored = np.where(own, self.stores_needed[back], self.stored_by[back])
        needs = {JOBS: free, "store": stored}
        return self._onchip("load partial", "partial", job, self.spilled[back], needs)

    def _pass_through(self) -> tuple[np.ndarray, np.ndarray]:
        """Results that leave at once pass through a part of the memory: each waits until there is room for it.

        Returns of each piece the writes that its store waits for, and the job that waits for its own write.
        """
        own = np.arange(self.pieces.size)
        leaving = np.array([placement.leaving_bytes for placement in self.placements], np.int64)[self.layer]
        left = np.append(0, np.cumsum(self.pieces))
        first = self.first_piece[self.layer]
        before = np.maximum(np.searchsorted(left, left[1:] - leaving), first)
        waits = np.where(before > first, self.writes_until[before], 0)
        after = np.append(self.starts[2:], self.starts[-1])  # where none waits: the layer after the next
        needed = after[self.layer]
        waiting = np.searchsorted(before, own + 1)
        inside = waiting < self.first_piece[self.layer + 1]
        needed[inside] = self.of_job[waiting[inside]]
        return waits, needed

    def _onchip(
        self, name: str, operand: str, job: np.ndarray, size: np.ndarray, needs: dict[str, np.ndarray]
    ) -> Stream:
        ticks, none = self.place.transfer_ticks(size), np.full(job.size, -1)
        return Stream(name, self.memory_name, operand, self.place.latency_cycles, "", job, size, ticks, needs, none)

    def count(self, actions: list[Counter[str]]) -> None:
        """Bytes that move, layer by layer."""
        written = self.pieces[self.written]
        stores, writes = np.diff(self.stores_before), np.diff(self.writes_before)
        sums = (
            by_group(self.sizes, stores),
            by_group(written, writes),
            by_group(self.memory.offchip.moved_bytes(written), writes),
        )
        back = by_group(self.spilled, np.diff(self.starts))
        for counts, stored, read, out, again in zip(actions, *sums, back, strict=True):
            counts[ledger.moved(self.memory_name, "write")] += stored
            counts[ledger.moved(self.memory_name, "read")] += read + again
            counts[ledger.moved(OFFCHIP, "write")] += out
