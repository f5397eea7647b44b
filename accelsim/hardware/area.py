"""What a machine takes of a chip, where somebody has measured it, and what it does for that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from accelsim.hardware.parameters import Parameters, line, number

# What an area is of: sections of a machine file. A machine that is changed in one of them has another area.
MEASURED = ("accelerator", "buffers", "memory")


class Area(Parameters):
    """A measured area: what is in it the source says."""

    mm2: float = number(1e-9, 1e9, "of the whole machine: all of its tiles or PEs", unit="mm²")
    source: str = line("where it is from, what is in it, and of which library")


def is_stale(area_given: bool, changed: Iterable[Any]) -> bool:
    """Whether the area before is no longer the machine's: keys are changed that it is of, and no other is given."""
    return not area_given and any(str(key).partition(".")[0] in MEASURED for key in changed)


def gmacs_per_mm2(per_cycle: Any, clock_mhz: Any, mm2: Any) -> Any:
    """10⁹ multiplications, of zeros too, that a mm² does in a second; all numbers, or all columns of a table."""
    return per_cycle * clock_mhz / 1000 / mm2
