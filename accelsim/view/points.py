"""What the page shows: a point, a machine on a workload, with the account of each of its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.ledger import Record
from accelsim.study.points import undominated

MOST_POINTS = 2000


@dataclass(frozen=True)
class LayerAccount:
    """A pass of a layer: cycles, slots by cause, pJ (None: not known)."""

    layer: str
    which: str
    cycles: int
    multipliers: int
    slots: dict[str, int]
    energy_pj: float | None

    @classmethod
    def of(cls, record: Record) -> LayerAccount:
        """A record's."""
        parts = list(record.energy.values())
        energy = None if not parts or None in parts else sum(part for part in parts if part is not None)
        slots = {cause: count for cause, count in record.slots.items() if count}
        return cls(record.layer, record.which, record.cycles, record.multipliers, slots, energy)

    @property
    def name(self) -> str:
        """As it is chosen."""
        return f"{self.layer}, {self.which}"


@dataclass(frozen=True)
class Point:
    """A machine on a workload.

    Parameters
    ----------
    label : str
    cycles, multipliers : int
    energy_mj : float or None
    utilization : float
        Effectual slots over all.
    per_multiplier : float or None
        Over as many multipliers that multiply zeros too and are always busy.
    group : str
        Of the workload: points of one group compute the same, and can be on one front.
    """

    label: str
    cycles: int
    multipliers: int
    energy_mj: float | None
    utilization: float
    per_multiplier: float | None
    group: str


def front(points: list[Point]) -> list[int]:
    """The numbers of those that no other of their workload beats, by their cycles; energy where all of it is known."""
    best: list[int] = []
    for group in dict.fromkeys(point.group for point in points):
        own = [i for i, point in enumerate(points) if point.group == group]
        costs = [[points[i].cycles for i in own], [points[i].multipliers for i in own]]
        energy = [points[i].energy_mj for i in own]
        if None not in energy:
            costs.append(energy)  # type: ignore[arg-type]
        best += [own[n] for n in np.flatnonzero(undominated(np.array(costs, float).T))]
    return sorted(best, key=lambda i: (points[i].cycles, i))


def point_of(label: str, group: str, layers: Iterable[LayerAccount], work: int, worth: int | None) -> Point:
    """A point from its layers; ``work``: multiplications, of zeros too, ``worth``: the dense machine's multipliers."""
    layers = list(layers)
    if not layers:
        raise AccelsimError(f"{label}: no layer has this pass")
    cycles, slots = sum(layer.cycles for layer in layers), Counter[str]()
    for layer in layers:
        slots.update(layer.slots)
    known = [layer.energy_pj for layer in layers if layer.energy_pj is not None]
    energy = sum(known) * 1e-9 if len(known) == len(layers) else None
    utilization = slots["effectual"] / max(1, slots.total())
    per_multiplier = work / (cycles * worth) if cycles and work and worth else None
    return Point(label, cycles, layers[0].multipliers, energy, utilization, per_multiplier, group)
