"""One call of ``accelsim reproduce``: what was asked for, and the simulations that several figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import AccelsimError, TraceError
from accelsim.files import find, shipped
from accelsim.hardware.machine import Machine, load_machine
from accelsim.pipeline import simulate_records
from accelsim.study.reproduction import flops
from accelsim.study.results import Summary, convolutions, covers, dense_selves, frame, summarize
from accelsim.workload.metadata import FIRST_LAYER, PASSES
from accelsim.workload.networks import Network
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.trace import Layer, Snapshot, Trace


@dataclass(frozen=True)
class Run:
    """A trace on a machine, over its convolutions; or the reason why there is none."""

    machine: str
    summary: Summary | None = None
    whole: bool = False
    problem: str = ""

    @property
    def counts(self) -> Summary:
        """The summary; AccelsimError with the problem where there is none."""
        if self.summary is None:
            raise AccelsimError(self.problem)
        return self.summary


@dataclass
class Session:
    """Options, and what was simulated so far.

    Parameters
    ----------
    trace_file : str
        The trace of Table 6, as ``accelsim run --trace`` takes it.
    layers : list of str
        Shell patterns: what is simulated of it. The paper's Table 6 compares with the whole network only.
    jobs : int
        Layers simulated at once.
    measure : bool
        Measure Table 9 here, in place of the recorded run.
    progress : callable
        As that of ``simulate_records``.
    """

    trace_file: str | Path = "resnet50.npz"
    layers: list[str] = field(default_factory=lambda: ["*"])
    jobs: int = 1
    measure: bool = False
    progress: Callable[[int, int], None] = lambda done, total: None
    _runs: dict[str | tuple[str, str], Run] = field(default_factory=dict, repr=False)

    @contextmanager
    def trace(self) -> Iterator[Trace]:
        """The trace, open."""
        with Trace.open(find(self.trace_file, "traces", TraceError)) as trace:
            yield trace

    def runs(self) -> list[Run]:
        """The trace on every shipped machine. Raises AccelsimError if none can run it, with what the first one said."""
        runs = [self.run(machine) for machine in self.machines()]
        if all(run.problem for run in runs):
            raise AccelsimError(runs[0].problem)
        return runs

    @staticmethod
    def machines() -> list[Machine]:
        """All that ship, by name; without their memories, for which the paper assumes that nobody waits."""
        files = sorted(shipped("configs").glob("*.yaml"))
        return [load_machine(path, memory="none", energy="none") for path in files]

    def run(self, machine: Machine) -> Run:
        """The trace on a machine, and its dense self; simulated once."""
        if machine.name not in self._runs:
            with self.trace() as trace:
                self._runs[machine.name] = self._simulate(machine, trace, self.layers)
        return self._runs[machine.name]

    def random(self, machine: Machine, network: Network, sparsity: float, zeros: float) -> Run:
        """A network with random masks, dense and at a sparsity, on a machine; simulated once.

        ``zeros`` are those that ReLU leaves. Random non-zeros are more even than a trained network's, so that what
        a machine keeps here is more than it would keep there.
        """
        key = machine.name, network.name
        if key not in self._runs:
            snapshots = tuple(random_snapshot(network, s, zeros) for s in (0.0, sparsity))
            trace = SyntheticTrace(Path(network.name), network.name, network.dataset, snapshots)
            self._runs[key] = self._simulate(machine, trace, ["*"])
        return self._runs[key]

    def _simulate(self, machine: Machine, trace: Trace | SyntheticTrace, layers: list[str]) -> Run:
        how: dict[str, Any] = {"layers": layers, "jobs": self.jobs}
        try:
            table = frame(simulate_records(machine, trace, progress=self.progress, **how))
            dense = convolutions(dense_selves([machine], trace, **how))
        except AccelsimError as error:  # the machine's limits or, if no machine can, the user's mistake
            return Run(machine.name, problem=str(error))
        rows = convolutions(table)
        worth = machine.accelerator.baseline_multipliers
        return Run(machine.name, summarize(rows, machine.name, dense=dense, worth=worth), covers(table, trace))


def random_snapshot(network: Network, sparsity: float, zeros: float, seed: int = 0) -> Snapshot:
    """One SWAT-U step of one sample with random masks: weights and saved activations at their densities, ReLU's zeros.

    The gradient is dense, as it nearly is in training; so is the image.
    """
    random = np.random.default_rng([seed, round(1000 * sparsity)])
    scheme = flops.swat(network, sparsity, natural_zeros=zeros)
    layers = []
    for row in network.layers:
        bare = Layer(row.name, row.kind, row.geometry, 1, 1, PASSES, {})
        natural = 1.0 if row.first else 1 - zeros
        draw = random.random(bare.shape_of("activation"))
        tensors = {
            "weight": random.random(bare.shape_of("weight")) < scheme.weight[row.name],
            "activation": draw < natural,
            "saved_activation": draw < scheme.saved[row.name],
            "gradient": np.ones(bare.shape_of("gradient"), bool),
        }
        layers.append(Layer(row.name, row.kind, row.geometry, 1, 1, FIRST_LAYER if row.first else PASSES, tensors))
    name = f"random{100 * sparsity:g}" if sparsity else "dense"
    return Snapshot(name, sparsity, 0, "SWAT-U" if sparsity else "dense", 1, tuple(layers))
