"""What a check or a synthesis came to, as tables and as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table

from accelsim.rtl.check import Difference, Finding, counted, right_sums, took
from accelsim.rtl.synthesis import Synthesis
from accelsim.study.export import versions
from accelsim.study.layout import new_table
from accelsim.study.tables import HEADINGS
from accelsim.version import __version__

SHOWN_LINES = 60


def of_check(found: Finding) -> Iterator[Table | str]:
    """A row for each pass, and below equal, or the first job that differs."""
    table = new_table(f"{found.circuit.name}: {found.circuit.tile} beside its counts")
    table.add_column("pass", no_wrap=True)
    for heading in ("jobs", "cycles", "fill\ncycles", "drain\ncycles", "other\ncycles", "other\nsums"):
        table.add_column(heading, justify="right")
    for which, tally in found.passes.items():
        table.add_row(
            HEADINGS[which].replace("\n", " "), f"{tally.jobs:,}", f"{tally.cycles:,}", _span(tally.fill_cycles),
            _span(tally.drain_cycles), f"{tally.other_cycles:,}", f"{tally.other_sums:,}",
        )  # fmt: skip
    yield table
    yield from found.lacks
    if found.first is None:
        yield f"equal: {found.jobs:,} jobs take the cycles that are counted, and their sums are the product"
    else:
        yield from told(found.first, found)


def told(first: Difference, found: Finding) -> Iterator[str]:
    """What differs, and the masks of the job."""
    ran, circuit = first.ran, found.circuit
    yield f"differs: {first.layer}, {first.which}: {ran.job.where}"
    if ran.cycles < 0:
        yield "  the circuit does not end"
    elif took(ran, circuit) != counted(ran, circuit):
        yield f"  {took(ran, circuit)} cycles, counted are {counted(ran, circuit)}"
    right = right_sums(ran, circuit)
    if not right.all():
        at = int(right.argmin())
        bits = (1 << circuit.sum_bits) - 1
        got, must = (int(sums[at]) & bits for sums in (ran.sums, ran.job.sums))
        yield f"  {(~right).sum()} of {right.size} sums; {ran.job.places[at]} is {got:#x}, must be {must:#x}"
    lines = ran.job.shown().splitlines()
    yield from (f"  {line}" for line in lines[:SHOWN_LINES])
    if len(lines) > SHOWN_LINES:
        yield f"  … {len(lines) - SHOWN_LINES} lines more"


def check_data(found: Finding, command: list[str]) -> dict[str, Any]:
    """The object that ``rtl check --json`` prints."""
    passes = {
        which: asdict(tally) | {"fill_cycles": sorted(tally.fill_cycles), "drain_cycles": sorted(tally.drain_cycles)}
        for which, tally in found.passes.items()
    }
    return {
        "machine": found.circuit.name,
        "tile": found.circuit.tile,
        "jobs": found.jobs,
        "equal": found.first is None,
        "passes": passes,
        "without_circuit": found.lacks,
        "first": "\n".join(told(found.first, found)) if found.first else None,
        "command": command,
        "accelsim": __version__,
        "versions": versions(),
    }


def of_area(found: Synthesis, dense: Synthesis) -> Iterator[Table | str]:
    """A row for each block, beside the dense tile of as many multipliers."""
    unit = f"in units of {found.library}" if found.library else "in gates of two inputs"
    table = new_table(f"{found.circuit.name}: {found.circuit.tile}, {unit}")
    table.add_column("block", no_wrap=True)
    for heading in ("instances", "cells", "area", "of the\ndense tile", "levels", "delay\nps"):
        table.add_column(heading, justify="right")
    for block in found.blocks:
        delay = f"{block.delay_ps:,.0f}" if block.delay_ps is not None else "–"
        table.add_row(
            block.name, f"{block.instances:,}", f"{block.cells:,}", f"{block.area:,.0f}",
            f"{block.area / dense.area:.1%}", str(block.levels), delay,
        )  # fmt: skip
    table.add_row(
        "all", "", f"{sum(block.cells for block in found.blocks):,}", f"{found.area:,.0f}",
        f"{found.area / dense.area:.1%}", "", "",
    )  # fmt: skip
    yield table
    yield f"dense tile: {dense.area:,.0f}; synthesized by Yosys and ABC, nothing is placed, no wires"
    if found.memory_bits:
        yield f"not in it: {found.memory_bits:,} bits of partial sums in memories"


def area_data(found: Synthesis, dense: Synthesis, command: list[str]) -> dict[str, Any]:
    """The object that ``rtl area --json`` prints."""
    return {
        "machine": found.circuit.name,
        "library": found.library or None,
        "area": found.area,
        "dense_area": dense.area,
        "ratio": found.area / dense.area,
        "blocks": [asdict(block) for block in found.blocks],
        "memory_bits": found.memory_bits,
        "command": command,
        "accelsim": __version__,
        "versions": versions(),
    }


def _span(numbers: set[int]) -> str:
    """The numbers, or the least and the most of many."""
    some = sorted(numbers)
    return ", ".join(map(str, some)) if len(some) < 3 else f"{some[0]}…{some[-1]}"
