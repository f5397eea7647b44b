"""What the page shows: a point, a machine on a workload, with the account of each of its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from accelsim.errors import AccelsimError
from accelsim.ledger import Record

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

    def beats(self, other: Point) -> bool:
        """Whether it needs no more of anything, and less of something; of the same workload."""
        if self.group != other.group:
            return False
        pairs: list[tuple[float, float]] = [(self.cycles, other.cycles), (self.multipliers, other.multipliers)]
        if self.energy_mj is not None and other.energy_mj is not None:
            pairs.append((self.energy_mj, other.energy_mj))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(points: list[Point]) -> list[int]:
    """The numbers of those that no other beats, by their cycles."""
    best = [i for i, point in enumerate(points) if not any(other.beats(point) for other in points)]
    return sorted(best, key=lambda i: (points[i].cycles, i))


def point_of(label: str, group: str, layers: Iterable[LayerAccount], work: int, worth: int) -> Point:
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
    per_multiplier = work / (cycles * worth) if cycles and work else None
    return Point(label, cycles, layers[0].multipliers, energy, utilization, per_multiplier, group)
