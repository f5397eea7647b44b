"""What every accelerator takes and gives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import numpy as np

from accelsim import ledger
from accelsim.errors import MachineError
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.movement.traffic import Traffic
from accelsim.hardware.parameters import Parameters, integer, option
from accelsim.workload.lowering import Convolution

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
        Multiplier slots by cause, named as in ``accelsim.ledger``. Every slot, one multiplier in one cycle, has exactly
        one: they add up to cycles × multipliers.
    accesses : mapping of str to int
        Values multiplied, read and added up in the PEs, and whatever else of the ledger the accelerator counts.
    traffic : callable
        What the convolution moves; counted when it is asked for.
    """

    multipliers: int
    job_cycles: np.ndarray
    slots: Mapping[str, int]
    accesses: Mapping[str, int]
    traffic: Callable[[], Traffic]

    def __post_init__(self) -> None:
        mine = ledger.rows(source="accelerator")
        ledger.checked(self.slots, (row for row in mine if row.group == "slots"), "an accelerator's slots")
        ledger.checked(self.accesses, (row for row in mine if row.group != "slots"), "an accelerator's accesses")
        assert all(count >= 0 for count in self.slots.values()), self.slots
        assert sum(self.slots.values()) == self.cycles * self.multipliers, (self.slots, self.cycles, self.multipliers)

    @property
    def cycles(self) -> int:
        return int(self.job_cycles.sum())


@dataclass(frozen=True)
class Summation:
    """How a machine adds its products up: what adding is charged by.

    Parameters
    ----------
    additions : str
        The count that adders are as busy as: "multiplications" behind an adder tree, which adds up the products of all
        lanes of a PE; "accumulator_updates" where each product goes to its partial sum by itself.
    partial_sums : int
        Partial sums of the array that one is read from and written to: entries of an accumulator bank; 1 for a
        register behind an adder tree.
    multiplications : str
        The count that multipliers are as busy as: "multiplications"; "bit_operations" where they work bit by bit.
    """

    additions: Literal["multiplications", "accumulator_updates"]
    partial_sums: int
    multiplications: Literal["multiplications", "bit_operations"] = "multiplications"

    def __post_init__(self) -> None:
        for key, got in (("additions", self.additions), ("multiplications", self.multiplications)):
            _check_counted_as(key, got)
        if not isinstance(self.partial_sums, int) or self.partial_sums < 1:
            raise MachineError(f"summation.partial_sums: must be an integer from 1, got {self.partial_sums!r}")


@cache  # a summation is asked for with each record
def _check_counted_as(key: str, got: str) -> None:
    known = [row.name for row in ledger.rows() if any(price.if_counted_as == key for price in row.prices)]
    if got not in known:
        raise MachineError(f"summation.{key}: must be one of {', '.join(known)}, got {got!r}")


@dataclass(frozen=True)
class Drawing:
    """What a report draws of a machine's array: its units, and one of them enlarged.

    Parameters
    ----------
    units : str
        "PEs" or "tiles".
    count : int
        How many.
    rows : int
        Rows that they stand in; 0: as near to a square as they go.
    inside : str
        What one of them is: "product", a PE whose vectors of ``across`` activations and ``down`` weights all meet, with
        ``accumulators`` in ``banks``; "tree", a tile of ``down`` × ``across`` PEs with an adder tree over ``lanes``
        multipliers each; "lanes", a PE of ``lanes`` multipliers, which is not enlarged.
    """

    units: str
    count: int
    inside: Literal["product", "tree", "lanes"]
    rows: int = 0
    down: int = 1
    across: int = 1
    lanes: int = 1
    accumulators: int = 0
    banks: int = 1


@dataclass(frozen=True)
class Unused:
    """Units of a machine that a convolution has no work for.

    Parameters
    ----------
    units : str
        What they are: "PEs", "rows of PEs".
    places, used : int
        How many there are, over all rounds, and how many of these places get something to do.
    because : str
        What does not fill them: "a 7×7 map".
    rounds : int
        How often the machine is filled.
    """

    units: str
    places: int
    used: int
    because: str
    rounds: int = 1

    @property
    def share(self) -> float:
        """Of the places, those that stay idle."""
        return 1 - self.used / self.places

    def __str__(self) -> str:
        """``a 7×7 map leaves 207 of 256 PEs idle``."""
        times = f", in {self.rounds:,} rounds" if self.rounds > 1 else ""
        return f"{self.because} leaves {self.places - self.used:,} of {self.places:,} {self.units} idle{times}"


class Accelerator(Protocol):
    """A model of a machine's compute. Its frozen, validated parameters are the ``accelerator`` section of the YAML."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def strided_input_grad(self) -> str:
        """How it lowers the input gradient of a strided layer: "phase" or "dilate" (``lower``)."""

    @property
    def multipliers(self) -> int:
        """Multiplications in a cycle, at most."""

    @property
    def baseline_multipliers(self) -> int:
        """Multipliers of the dense machine that it is compared with."""

    @property
    def summation(self) -> Summation:
        """How it adds products up, for the price of it. There is no default: none is safe."""

    @property
    def drawing(self) -> Drawing | None:
        """What a report draws of its array; None: nothing but its memories, and its keys in a table."""

    @property
    def memory_needed_for(self) -> str:
        """The key that asks for a memory, as it is set; "" where the machine runs without one."""

    def skips(self, which: str) -> dict[str, str]:
        """The tensors of a pass (``READS``) whose zeros can save time, and how (``SKIPS``); no others change cycles."""

    def unused(self, conv: Convolution) -> Unused | None:
        """The kind of unit of which a convolution leaves the largest share idle; None: all have work, or not told."""

    def run(self, conv: Convolution) -> Activity:
        """Counts. Raises MachineError where the machine cannot run the convolution."""

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers, product by product: the result (N, K, P, Q) and the cycles it took.

        For small convolutions: it shows that the schedule behind ``run`` computes the convolution, in ``run``'s cycles.
        A film that is given gets each of them, every multiplier with its cause; a replay without the argument is no
        less a replay, but cannot be animated.
        """


class _Multiplying(Protocol):
    """What each model's parameters have, as a key or worked out."""

    @property
    def multipliers(self) -> int: ...


class AcceleratorParameters(Parameters):
    """Base of the models' parameters, with what most machines need not say.

    It leaves ``multipliers``, ``skips``, ``run``, ``replay`` and ``summation`` to the model; without one of them it
    cannot be made. By default strided input gradients are lowered by phases; the machine is compared with a dense one
    of as many multipliers, needs no memory, and is not drawn.
    """

    model: str = option("which model of a compute array; a name, or package.module:Class")
    strided_input_grad: Literal["phase", "dilate"] = option(STRIDED_INPUT_GRAD, default="phase")

    @property
    def baseline_multipliers(self: _Multiplying) -> int:
        return self.multipliers

    @property
    @abstractmethod
    def summation(self) -> Summation:
        """How it adds products up; see ``Accelerator``."""

    @property
    def drawing(self) -> Drawing | None:
        """Nothing; see ``Accelerator``."""
        return None

    @property
    def memory_needed_for(self) -> str:
        """Nothing; see ``Accelerator``."""
        return ""

    def unused(self, conv: Convolution) -> Unused | None:
        """Not told; see ``Accelerator``."""
        return None


class DrainParameters(AcceleratorParameters):
    """Of machines whose units meet: what the last of them has begun must leave the pipeline before the next job."""

    pipeline_drain_cycles: int = integer(
        0, 1 << 10, "added to whatever lies between two barriers and takes any; 0: the next job follows at once",
        default=0, unit="cycles",
    )  # fmt: skip

    def drained(self, cycles: np.ndarray) -> np.ndarray:
        """Cycles between barriers, with those in which the pipeline drains."""
        return cycles + np.where(cycles > 0, self.pipeline_drain_cycles, 0)
