"""Action counts in the form that Accelergy reads, for estimators other than our table. docs/energy.md says how.

Each simulated pass of each snapshot is a branch of its own under the machine, ``machine.snapshot_pass.component``, in
the architecture and in the counts alike, so that one run of Accelergy tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, count
from typing import Any

import pandas as pd

from accelsim.hardware.machine import Machine
from accelsim.hardware.movement.traffic import ACTIONS
from accelsim.hardware.pricing import WORD_BYTES, accumulator_bytes

VERSION = 0.4
# Bits of exponent and mantissa; 8 bits as E4M3.
_FLOATS = {8: (4, 3), 16: (5, 10), 24: (8, 15), 32: (8, 23), 64: (11, 52)}
# Below this an array is made of registers.
_SMALLEST_SRAM_BYTES = 64


def action_counts(machine: Machine, table: pd.DataFrame) -> dict[str, Any]:
    """The ``architecture`` and ``action_counts`` of a machine's rows of a table from ``frame``.

    Memories count words of 32 bits, rounded up; they are there only where the machine has a memory.
    """
    own = table[table["machine"] == machine.name]
    components, counts = [], []
    for (snapshot, which), rows in own.groupby(["snapshot", "pass"], sort=False):
        parts = list(_components(machine, {action: int(rows[action].sum()) for action in ACTIONS}))
        branch = _unused(_plain(f"{snapshot}_{which}"), {node["name"] for node in counts})
        components.append({"name": branch, "local": [_component(*part[:3]) for part in parts]})
        counts.append({"name": branch, "local": [_counts(part[0], part[3]) for part in parts]})
    attributes = {"technology": f"{machine.energy.node_nm}nm"} if machine.energy else {}
    chip = {"name": _plain(machine.name), "attributes": attributes | {"global_cycle_seconds": 1e-6 / machine.clock_mhz}}
    return {
        "architecture": {"version": VERSION, "subtree": [chip | {"subtree": components}]},
        "action_counts": {"version": VERSION, "subtree": [{"name": chip["name"], "subtree": counts}]},
    }


def _components(machine: Machine, sums: dict[str, int]) -> Iterator[tuple[str, str, dict, dict[str, int]]]:
    """Name, class, attributes, and counts by action."""
    memory = machine.memory
    bits = (memory.value_bits, memory.accumulator_bits) if memory else (16, 32)
    values, partials = ({"exponent": e, "mantissa": m, "sign": 1} for e, m in map(_FLOATS.get, bits))
    yield "multipliers", "fpmultiplier", values, {"mult_random": sums["multiplications"]}
    yield "adders", "fpadder", partials, {"add": sums[machine.accelerator.summation.additions]}
    updates = sums["accumulator_updates"]
    yield "accumulators", *_array(accumulator_bytes(machine), bits[1]), {"read": updates, "write": updates}
    if sums["comparisons"]:
        yield "comparators", "intadder", {"datawidth": bits[0]}, {"add": sums["comparisons"]}
    if not memory:
        return
    for kind in ("activation", "weight"):
        capacity = getattr(machine.buffers, kind).capacity_bytes
        if capacity:
            yield f"{kind}_buffer", *_array(capacity), _words(f"{kind}_buffer", sums)
        place = getattr(memory, f"{kind}_memory")
        name, attributes = _array(place.capacity_bytes)
        yield f"{kind}_memory", name, attributes | {"n_banks": place.banks}, _words(f"{kind}_memory", sums)
    yield "offchip", "DRAM", {"width": 8 * WORD_BYTES}, _words("offchip", sums)


def _array(capacity_bytes: int, width: int = 8 * WORD_BYTES) -> tuple[str, dict]:
    """Class and attributes of an array of words."""
    kind = "SRAM" if capacity_bytes >= _SMALLEST_SRAM_BYTES else "regfile"
    return kind, {"width": width, "depth": -(-8 * capacity_bytes // width)}


def _words(name: str, sums: dict[str, int]) -> dict[str, int]:
    return {action: -(-sums[f"{name}_{action}_bytes"] // WORD_BYTES) for action in ("read", "write")}


def _component(name: str, kind: str, attributes: dict) -> dict[str, Any]:
    return {"name": name, "class": kind, "attributes": dict(attributes)}


def _counts(name: str, actions: dict[str, int]) -> dict[str, Any]:
    return {"name": name, "action_counts": [{"name": action, "counts": n} for action, n in actions.items()]}


def _plain(name: str) -> str:
    """A name without what has a meaning in Accelergy: dots and brackets."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _unused(name: str, taken: set[str]) -> str:
    """The name, or with a number where another snapshot's became the same."""
    return next(free for free in chain([name], (f"{name}_{i}" for i in count(2))) if free not in taken)
