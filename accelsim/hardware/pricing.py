"""Energy: what a machine did, count by count, times a table of pJ. docs/energy.md states the model.

Which count is on which component's account, at which rate, is in the ledger; what a rate is on a machine is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from accelsim import ledger
from accelsim.errors import MachineError
from accelsim.hardware.energy import EnergyTable
from accelsim.hardware.machine import Machine
from accelsim.ledger import Count, Price

WORD_BYTES = 4
_MIB = 1 << 20


def energy_pj(machine: Machine, actions: Mapping[str, int], cycles: int) -> dict[str, float | None]:
    """pJ by component, as the ledger has them; None for what moves bytes, where the machine has no memory.

    Parameters
    ----------
    machine : Machine
        With an energy table.
    actions : mapping of str to int
        Counts by name; one that is not there is zero.
    cycles : int
    """
    told = {**actions, ledger.CYCLES.name: cycles}
    return {
        component.name: None if component.needs_memory and not machine.memory else _spent_pj(machine, component, told)
        for component in ledger.rows("energy")
    }


def _spent_pj(machine: Machine, component: Count, told: Mapping[str, int]) -> float:
    """What one component spends."""
    uses: Counter[str] = Counter()
    for count, price in prices(machine, component):
        uses[price.rate] += len(price.uses) * told.get(count.name, 0)
    return sum((RATES_PJ[rate](machine, component.place, times) for rate, times in uses.items()), 0.0)


def prices(machine: Machine, component: Count) -> Iterator[tuple[Count, Price]]:
    """The counts that a component works for on this machine; of those that adders or multipliers may follow theirs."""
    summation = machine.accelerator.summation
    for count, price in ledger.priced(component):
        if not price.if_counted_as or count.name == getattr(summation, price.if_counted_as):
            yield count, price


def capacities_bytes(machine: Machine) -> dict[str, int]:
    """Of each place that is an array its bytes; without a memory of the accumulators alone."""
    places = {"accumulators": machine.accelerator.summation.partial_sums * _partial_sum_bits(machine) // 8}
    if machine.memory:
        places["activation_memory"] = machine.memory.activation_memory.capacity_bytes
        places["weight_memory"] = machine.memory.weight_memory.capacity_bytes
    if machine.buffers:
        places["activation_buffer"] = machine.buffers.activation.capacity_bytes
        places["weight_buffer"] = machine.buffers.weight.capacity_bytes
    return places


def _partial_sum_bits(machine: Machine) -> int:
    return machine.memory.accumulator_bits if machine.memory else 32


def _table(machine: Machine) -> EnergyTable:
    if machine.energy is None:
        raise MachineError(f"{machine.name}: energy: must be given to price what is counted")
    return machine.energy


def _array_pj(machine: Machine, place: str) -> float:
    """32 bits read from or written to the array at a place."""
    return _table(machine).sram_pj_per_word(capacities_bytes(machine)[place])


def _leakage_pj(machine: Machine, cycles: int) -> float:
    """Drawn by the chip at rest, by its multipliers and its memories."""
    table, memory = _table(machine), machine.memory
    held = memory.activation_memory.capacity_bytes + memory.weight_memory.capacity_bytes if memory else 0
    mw = machine.accelerator.multipliers * table.leakage_mw_per_multiplier + held / _MIB * table.leakage_mw_per_mib
    return mw * cycles * 1000 / machine.clock_mhz  # mW × µs = nJ


# What the rates of the ledger (``ledger.RATES``) are on a machine: pJ at a place for so many uses, or bytes.
RATES_PJ: dict[str, Callable[[Machine, str, int], float]] = {
    "multiply": lambda machine, place, times: times * _table(machine).multiply_pj,
    "bit operation": lambda machine, place, times: times * _table(machine).bit_operation_pj,
    "add": lambda machine, place, times: times * _table(machine).add_pj,
    "partial sum": lambda machine, place, times: times * (_array_pj(machine, place) * _partial_sum_bits(machine) / 32),
    "buffer": lambda machine, place, size: size * _array_pj(machine, place) / WORD_BYTES,
    "memory": lambda machine, place, size: size * _table(machine).edram_pj / WORD_BYTES,
    "offchip": lambda machine, place, size: size * _table(machine).offchip_pj / WORD_BYTES,
    "leakage": lambda machine, place, cycles: _leakage_pj(machine, cycles),
}
