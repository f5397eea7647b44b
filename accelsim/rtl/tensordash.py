"""TensorDash's tile as a circuit, and the jobs that it is given: a set of rows with a group of columns."""

from __future__ import annotations

import numpy as np

from accelsim.hardware.accelerators.tensordash import TensorDash, lane_order
from accelsim.hardware.machine import Machine
from accelsim.rtl.circuit import Circuit, packed, value_bits
from accelsim.rtl.job import NOTHING, Job, as_bytes, numbers
from accelsim.rtl.tiles import TileJobs, pe_parameters, shown, summed


class TensorDashTwin(TileJobs):
    """A tile whose window and schedulers are built as its machine file says."""

    def __init__(self, machine: Machine, accelerator: TensorDash):
        super().__init__(accelerator, value_bits(machine))
        self.machine, self.accelerator = machine, accelerator

    @property
    def circuit(self) -> Circuit:
        """What is built."""
        a = self.accelerator
        search = ((0, 0), *a.search_map)
        given = pe_parameters(a, self.bits, a.pipeline_drain_cycles) | {
            "DEPTH": 1 + a.lookahead_h, "PORTS": a.ports, "FREE_START": int(a.free_skip_at_start),
            "TWO_SIDED": int(a.skipping == "two_sided"), "CHOICES": len(search),
            "AHEAD": packed([ahead for ahead, _ in search]), "ASIDE": packed([aside % a.lanes for _, aside in search]),
            "ORDER": packed(lane_order(a.lanes, a.lookaside_d)),
        }  # fmt: skip
        return Circuit(
            name=self.machine.name, tile="tensordash_tile",
            files=("tensordash_tile.sv", "front.sv", "window.sv", "scheduler.sv", "pick.sv", "pe.sv"),
            parameters=given, line_bits=(a.rows + a.columns) * a.lanes * self.bits, ports=a.ports,
            sum_bits=int(given["SUM"]), drain_cycles=a.pipeline_drain_cycles,
        )  # fmt: skip

    def job(self, where: str, rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> Job:
        """Of a set of rows with a group of columns; its lines executed as ``TensorDash.executed`` counts them."""
        seen = columns if self.accelerator.skipping == "two_sided" else np.ones_like(columns[:1], bool)
        executed = int(self.accelerator.executed(rows, seen)[0, 0])
        values = self.filled(rows, self.accelerator.rows), self.filled(columns, self.accelerator.columns)
        held = [numbers(streams, self.bits, rng) for streams in values]
        lines = as_bytes(np.concatenate(held).swapaxes(0, 1))
        return Job(where, executed, lines, NOTHING, *summed(*held), lambda: shown(*values))
