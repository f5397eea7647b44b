"""Action counts in the form that Accelergy reads, for estimators other than our table. docs/energy.md says how.

Each simulated pass of each snapshot is a branch of its own under the machine, ``machine.snapshot_pass.component``, in
the architecture and in the counts alike, so that one run of Accelergy tells them apart. A branch has the components of
the ledger that the machine has and that name a class of Accelergy's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count
from typing import Any

import pandas as pd

from accelsim import ledger
from accelsim.hardware.machine import Machine
from accelsim.hardware.pricing import WORD_BYTES, capacities_bytes, prices
from accelsim.ledger import Count
from accelsim.study.results import fold

VERSION = 0.4
# Bits of exponent and mantissa; 8 bits as E4M3.
_FLOATS = {8: (4, 3), 16: (5, 10), 24: (8, 15), 32: (8, 23), 64: (11, 52)}
# Below this an array is made of registers.
_SMALLEST_SRAM_BYTES = 64
Part = tuple[str, str, dict[str, int], dict[str, int]]  # name, class, attributes, counts by action


def action_counts(machine: Machine, table: pd.DataFrame) -> dict[str, Any]:
    """The ``architecture`` and ``action_counts`` of a machine's rows of a table from ``frame``.

    Memories count words of 32 bits, rounded up; they are there only where the machine has a memory.
    """
    own = table[table["machine"] == machine.name]
    components: list[dict[str, Any]] = []
    counts: list[dict[str, Any]] = []
    for sums in fold(own, ["snapshot", "pass"]).to_dict("records"):
        parts = list(_parts(machine, {row.name: sums[row.column] for row in ledger.rows("actions")}))
        branch = _unused(_plain(f"{sums['snapshot']}_{sums['pass']}"), {node["name"] for node in counts})
        components.append({"name": branch, "local": [_component(*part[:3]) for part in parts]})
        counts.append({"name": branch, "local": [_counts(part[0], part[3]) for part in parts]})
    attributes: dict[str, Any] = {"technology": f"{machine.energy.node_nm}nm"} if machine.energy else {}
    chip = {"name": _plain(machine.name), "attributes": attributes | {"global_cycle_seconds": 1e-6 / machine.clock_mhz}}
    return {
        "architecture": {"version": VERSION, "subtree": [chip | {"subtree": components}]},
        "action_counts": {"version": VERSION, "subtree": [{"name": chip["name"], "subtree": counts}]},
    }


def _parts(machine: Machine, sums: Mapping[str, int]) -> Iterator[Part]:
    """The components, but for those that the machine lacks or never used."""
    capacities = capacities_bytes(machine)
    for component in ledger.rows("energy"):
        known = machine.memory or not component.needs_memory
        if not component.estimator or not known or not capacities.get(component.place, 1):
            continue
        uses = _uses(machine, component, sums)
        if any(uses.values()) or component.needs_memory or any(row.always for row, _ in ledger.priced(component)):
            yield component.name, *_class(machine, component, capacities), uses


def _uses(machine: Machine, component: Count, sums: Mapping[str, int]) -> dict[str, int]:
    """What a component did, by Accelergy's action: bytes as words."""
    uses: Counter[str] = Counter()
    for row, price in prices(machine, component):
        for use in price.uses:
            uses[use] += -(-sums[row.name] // WORD_BYTES) if row.unit == "bytes" else sums[row.name]
    return dict(uses)


def _class(machine: Machine, component: Count, capacities: Mapping[str, int]) -> tuple[str, dict[str, int]]:
    """Accelergy's class of a component, and attributes."""
    memory = machine.memory
    value_bits, partial_bits = (memory.value_bits, memory.accumulator_bits) if memory else (16, 32)
    if component.estimator == "array":
        width = partial_bits if component.place == "accumulators" else 8 * WORD_BYTES
        banks = {"n_banks": getattr(memory, component.place).banks} if component.level == "onchip" else {}
        return _array(capacities[component.place], width, banks)
    attributes: dict[str, Callable[[], dict[str, Any]]] = {
        "fpmultiplier": lambda: _float(value_bits),
        "fpadder": lambda: _float(partial_bits),
        "intadder": lambda: {"datawidth": value_bits},
        "DRAM": lambda: {"width": 8 * WORD_BYTES},
    }
    return component.estimator, attributes.get(component.estimator, dict)()


def _float(bits: int) -> dict[str, int]:
    exponent, mantissa = _FLOATS[bits]
    return {"exponent": exponent, "mantissa": mantissa, "sign": 1}


def _array(capacity_bytes: int, width: int, more: dict[str, int]) -> tuple[str, dict[str, int]]:
    """Class and attributes of an array of words."""
    kind = "SRAM" if capacity_bytes >= _SMALLEST_SRAM_BYTES else "regfile"
    return kind, {"width": width, "depth": -(-8 * capacity_bytes // width)} | more


def _component(name: str, kind: str, attributes: dict[str, int]) -> dict[str, Any]:
    return {"name": name, "class": kind, "attributes": dict(attributes)}


def _counts(name: str, actions: dict[str, int]) -> dict[str, Any]:
    return {"name": name, "action_counts": [{"name": action, "counts": n} for action, n in actions.items()]}


def _plain(name: str) -> str:
    """A name without what has a meaning in Accelergy: dots and brackets."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _unused(name: str, taken: set[str]) -> str:
    """The name, or with a number where another snapshot's became the same."""
    return next(free for free in chain([name], (f"{name}_{i}" for i in count(2))) if free not in taken)
