"""Energy: what a machine did, action by action, times a table of pJ per action. docs/energy.md states the model."""

from __future__ import annotations

from collections.abc import Mapping

from accelsim.hardware.machine import Machine

# What energy is told apart by. Buffers, memories and off-chip bytes are known only where the machine has a memory.
COMPUTE = {
    "multipliers": "multiplications, of zeros too",
    "adders": "products added up, in adder trees or accumulators",
    "accumulators": "partial sums read and written",
    "comparators": "comparisons of the Top-K search",
    "leakage": "power that is drawn whatever is done",
}
MOVING = {
    "activation_buffer": "buffers of activations, read and written",
    "weight_buffer": "buffers of weights, read and written",
    "activation_memory": "memory of activations on chip, read and written",
    "weight_memory": "memory of weights on chip, read and written",
    "offchip": "off-chip memory, read and written",
}
COMPONENTS = COMPUTE | MOVING
WORD_BYTES = 4
_MIB = 1 << 20


def energy_pj(machine: Machine, actions: Mapping[str, int], cycles: int) -> dict[str, float | None]:
    """pJ by component (``COMPONENTS``); None for what moves bytes, where the machine has no memory.

    Parameters
    ----------
    machine : Machine
        With an energy table.
    actions : mapping of str to int
        Counts by name (``accelsim.hardware.movement.traffic.ACTIONS``); one that is not there is zero.
    cycles : int
    """
    table, memory = machine.energy, machine.memory
    count = lambda *names: sum(actions.get(name, 0) for name in names)  # noqa: E731
    bits = memory.accumulator_bits if memory else 32
    partial_sum_pj = table.sram_pj_per_word(accumulator_bytes(machine)) * bits / 32
    energy = {
        "multipliers": count("multiplications") * table.multiply_pj,
        "adders": count(machine.accelerator.summation.additions) * table.add_pj,
        "accumulators": 2 * count("accumulator_updates") * partial_sum_pj,
        "comparators": count("comparisons") * table.add_pj,
        "leakage": _leakage_mw(machine) * cycles * 1000 / machine.clock_mhz,  # mW × µs = nJ
    }
    if not memory:
        return energy | dict.fromkeys(MOVING)
    word_pj = {
        "activation_buffer": table.sram_pj_per_word(machine.buffers.activation.capacity_bytes),
        "weight_buffer": table.sram_pj_per_word(machine.buffers.weight.capacity_bytes),
        "activation_memory": table.edram_pj,
        "weight_memory": table.edram_pj,
        "offchip": table.offchip_pj,
    }
    moved = {name: count(f"{name}_read_bytes", f"{name}_write_bytes") for name in MOVING}
    return energy | {name: moved[name] * word_pj[name] / WORD_BYTES for name in MOVING}


def accumulator_bytes(machine: Machine) -> int:
    """Bytes of the array that holds a partial sum: a PE's accumulator bank, or a register behind an adder tree."""
    bits = machine.memory.accumulator_bits if machine.memory else 32
    return machine.accelerator.summation.partial_sums * bits // 8


def _leakage_mw(machine: Machine) -> float:
    """Power of the chip at rest: its multipliers' and its memories'."""
    table, memory = machine.energy, machine.memory
    held = memory.activation_memory.capacity_bytes + memory.weight_memory.capacity_bytes if memory else 0
    return machine.accelerator.multipliers * table.leakage_mw_per_multiplier + held / _MIB * table.leakage_mw_per_mib
