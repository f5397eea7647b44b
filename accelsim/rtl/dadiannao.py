"""DaDianNao's tile as a circuit: the dense one, with which the others are compared."""

from __future__ import annotations

import numpy as np

from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.machine import Machine
from accelsim.rtl.circuit import Circuit, value_bits
from accelsim.rtl.job import NOTHING, Job, as_bytes, numbers
from accelsim.rtl.tiles import TileJobs, pe_parameters, shown, summed


class DaDianNaoTwin(TileJobs):
    """A tile that executes every line."""

    def __init__(self, machine: Machine, accelerator: DaDianNao):
        super().__init__(accelerator, value_bits(machine))
        self.machine, self.accelerator = machine, accelerator

    @property
    def circuit(self) -> Circuit:
        """What is built."""
        a = self.accelerator
        given = pe_parameters(a, self.bits, a.pipeline_drain_cycles)
        return Circuit(
            name=self.machine.name, tile="dadiannao_tile",
            files=("dadiannao_tile.sv", "front.sv", "window.sv", "pe.sv"),
            parameters=given, line_bits=(a.rows + a.columns) * a.lanes * self.bits, ports=1,
            sum_bits=int(given["SUM"]), drain_cycles=a.pipeline_drain_cycles,
        )  # fmt: skip

    def job(self, where: str, rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> Job:
        """Of a set of rows with a group of columns: as many cycles as there are lines."""
        values = self.filled(rows, self.accelerator.rows), self.filled(columns, self.accelerator.columns)
        held = [numbers(streams, self.bits, rng) for streams in values]
        lines = as_bytes(np.concatenate(held).swapaxes(0, 1))
        return Job(where, len(lines), lines, NOTHING, *summed(*held), lambda: shown(*values))
