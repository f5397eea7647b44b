"""What every accelerator takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from accelsim.hardware.movement.traffic import Traffic
from accelsim.hardware.parameters import Parameters
from accelsim.workload.lowering import Convolution

# Every multiplier slot (one multiplier in one cycle) has exactly one cause; the order is that of a printed account.
CAUSES = {
    "effectual": "both operands non-zero",
    "ineffectual": "executed with an operand that is zero, or with a product that no output takes",
    "serial": "bits after the first of a product that is computed bit by bit",
    "edge": "rows, columns, lanes, tiles or PEs that the layer leaves without work",
    "imbalance": "vectors or bricks of a PE that its non-zero operands do not fill",
    "barrier": "waiting for the slowest row, PE or tile",
    "bank_conflict": "waiting for an accumulator bank",
    "lookahead": "empty lanes that the lookahead window could not fill",
    "exchange": "partial sums moving between PEs",
    "offchip_weight": "waiting for weights from off-chip memory",
    "offchip_activation": "waiting for activations from off-chip memory",
    "offchip_gradient": "waiting for output gradients from off-chip memory",
    "offchip_result": "waiting for results to leave for off-chip memory",
    "onchip_weight": "waiting for weights from the memory on chip",
    "onchip_activation": "waiting for activations from the memory on chip",
    "onchip_gradient": "waiting for output gradients from the memory on chip",
    "onchip_partial": "waiting for spilled partial sums from the memory on chip",
    "onchip_result": "waiting for results or spilled partial sums to enter the memory on chip",
    "rotate": "all PEs wait while weights are rotated for the input gradient",
    "top_k": "all PEs wait for the Top-K search and its thresholds",
    "format": "all PEs wait while sparse formats are encoded and decoded",
}
# What PEs do besides taking time, for energy: counts of single values.
ACCESSES = {
    "multiplications": "multipliers that got two operands, zero or not",
    "activation_buffer_reads": "values read from the buffers of activations",
    "weight_buffer_reads": "values read from the buffers of weights",
    "accumulator_updates": "partial sums read, added to, and written",
}

# How a machine may skip the zeros of an operand.
SKIPS = {
    "zeros": "each zero may save time, as far as the machine reaches",
    "sparser": "those of the operand with the larger share of zeros, whichever it is",
    "bits": "zero bits may save time, and a zero has no others",
    "pattern": "where the whole tensor has the machine's pattern",
}

# What the key of that name means, on every machine.
STRIDED_INPUT_GRAD = (
    "input gradient of a strided layer: stride² convolutions on the gradient, or one on the gradient with zeros "
    "between its elements"
)


@dataclass(frozen=True, eq=False)
class Activity:
    """What an accelerator did for one convolution.

    Parameters
    ----------
    multipliers : int
    job_cycles : ndarray of int64
        Cycles of each job in execution order; a job is what lies between two barriers of the whole machine.
    slots : mapping of str to int
        Multiplier slots by cause (``CAUSES``); they add up to cycles × multipliers exactly.
    accesses : mapping of str to int
        Values multiplied, read and added up in the PEs (``ACCESSES``).
    traffic : callable
        What the convolution moves; counted when it is asked for.
    """

    multipliers: int
    job_cycles: np.ndarray
    slots: Mapping[str, int]
    accesses: Mapping[str, int]
    traffic: Callable[[], Traffic]

    def __post_init__(self):
        assert set(self.accesses) == set(ACCESSES)
        assert set(self.slots) <= set(CAUSES)
        assert all(count >= 0 for count in self.slots.values()), self.slots
        assert sum(self.slots.values()) == self.cycles * self.multipliers, (self.slots, self.cycles, self.multipliers)

    @property
    def cycles(self) -> int:
        return int(self.job_cycles.sum())


class Accelerator(Protocol):
    """A model of a machine's compute. Its frozen, validated parameters are the ``accelerator`` section of the YAML."""

    model: str
    strided_input_grad: str

    @property
    def multipliers(self) -> int: ...

    @property
    def baseline_multipliers(self) -> int:
        """Multipliers of the dense machine that it is compared with."""

    def skips(self, which: str) -> dict[str, str]:
        """The tensors of a pass (``READS``) whose zeros can save time, and how (``SKIPS``); no others change cycles."""

    def run(self, conv: Convolution) -> Activity:
        """Counts. Raises MachineError where the machine cannot run the convolution."""

    def replay(self, conv: Convolution) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers, product by product: the result (N, K, P, Q) and the cycles it took.

        For small convolutions: it shows that the schedule behind ``run`` computes the convolution, in ``run``'s cycles.
        """


class AcceleratorParameters(Parameters):
    """Base of the models' parameters: compared with a dense machine that has as many multipliers."""

    @property
    def baseline_multipliers(self) -> int:
        return self.multipliers
