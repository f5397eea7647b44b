"""A circuit: hand-written SystemVerilog, and the parameters that a machine file gives it.

The files in ``sv`` are taken by Verilator and by Yosys as they are. What is written here is the module on top, with the
same ports for every circuit, so that one harness feeds them all:

==============  =============================================================================================
clk, start      the clock; the job begins with the edge at which ``start`` is high
length          lines of the job, or where it has entries, these
lines, take     the next lines of the job's operands, and how many of them enter at the next edge
entry, step     the next entry of a static schedule, and whether it is used up at the next edge
running         a cycle that is counted; those before are fill, those behind it drain
done            nothing is left to do
place, result   a partial sum to look at, and its value
fetch           it leaves: where partial sums are memories, zero takes its place
==============  =============================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelsim.errors import MachineError
from accelsim.hardware.machine import Machine

SOURCES = Path(__file__).parent / "sv"
SUM_BITS = 16  # of a partial sum beyond those of a product: 2**16 products and more never overflow


@dataclass(frozen=True)
class Circuit:
    """What is built for a machine.

    Parameters
    ----------
    name : str
        Of the machine.
    tile : str
        The module below the top.
    files : tuple of str
        The files that it needs, below ``sv``, the tile's first.
    parameters : dict
        Of the tile: integers, or literals.
    line_bits, ports : int
        Bits of a line of operands, and how many lines are offered in a cycle.
    entry_bits : int
        Bits of an entry of a static schedule, or of what is told of the layer; 0: it has none.
    by_entries : bool
        Whether ``length`` counts entries.
    fetches : bool
        Whether partial sums are in memories, from which they are fetched.
    sum_bits : int
        Bits of a partial sum.
    drain_cycles : int
        Registers between multipliers and partial sums: the machine's ``pipeline_drain_cycles``.
    """

    name: str
    tile: str
    files: tuple[str, ...]
    parameters: dict[str, int | str]
    line_bits: int
    ports: int
    sum_bits: int
    entry_bits: int = 0
    by_entries: bool = False
    fetches: bool = False
    drain_cycles: int = 0

    @property
    def top(self) -> str:
        """The SystemVerilog of the module on top."""
        given = ",\n".join(f"      .{name}({value})" for name, value in self.parameters.items())
        entry = ", .entry(entry), .step(step)" if self.entry_bits else ""
        entry += ", .fetch(fetch)" if self.fetches else ""
        unused = "" if self.entry_bits else "  assign step = 0;\n"
        return (
            f"// {self.name}: made by accelsim from its machine file.\n"
            "module twin (\n    input clk,\n    input start,\n    input [23:0] length,\n"
            f"    input [{self.ports * self.line_bits - 1}:0] lines,\n    output [7:0] take,\n"
            f"    input [{max(1, self.entry_bits) - 1}:0] entry,\n    output step,\n    output running,\n"
            "    output done,\n    input fetch,\n"
            f"    input [23:0] place,\n    output [{self.sum_bits - 1}:0] result\n);\n"
            f"{unused}  {self.tile} #(\n{given}\n  ) tile (\n"
            "      .clk(clk), .start(start), .length(length), .lines(lines), .take(take), .running(running),\n"
            f"      .done(done), .place(place), .result(result){entry}\n  );\nendmodule\n"
        )

    @property
    def text(self) -> dict[str, str]:
        """Every file by its name."""
        return {name: (SOURCES / name).read_text(encoding="utf-8") for name in self.files} | {"twin.sv": self.top}


def packed(numbers: Sequence[int]) -> str:
    """Numbers below 256 as a literal, the first in its lowest byte."""
    return f"{8 * len(numbers)}'h" + "".join(f"{number:02x}" for number in reversed(numbers))


def value_bits(machine: Machine) -> int:
    """Bits of a value: those of the machine's memory, else 16. Raises MachineError where no circuit has them."""
    bits = machine.memory.value_bits if machine.memory else 16
    if bits not in (8, 16):
        raise MachineError(f"{machine.name}: memory.value_bits: must be 8 or 16 for a circuit, got {bits}")
    return bits
