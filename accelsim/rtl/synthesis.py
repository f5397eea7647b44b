"""Area of a circuit, block by block, by Yosys and ABC: with a cell library in square units, without one in gates.

ABC maps with a driver at each input and a load at each output, and buffers and sizes for a period: without these it
leaves nets of hundreds of cells to one gate. What Yosys does is in ``SCRIPT``; no placement, no wires, no power.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelsim.errors import ToolError
from accelsim.rtl.build import NEEDS
from accelsim.rtl.circuit import Circuit

PERIOD_PS = 1650  # 606 MHz, DaDianNao's clock
LOAD = "10.0"  # on each output, in the library's unit of capacity
# Blocks stay apart, so that each has an area; a memory stays one cell, which has none.
SCRIPT = """read_verilog -sv {files}
hierarchy -check -top twin
proc
opt_expr
opt_clean
opt -nodffe -nosdff
wreduce
peepopt
opt_clean
alumacc
opt
memory -nomap
opt_clean
techmap
opt -fast
{mapping}
opt_clean
tee -q -o stat.json stat -json{liberty}
"""
WITH_LIBRARY = (
    "dfflibmap -liberty {liberty}\n"
    "tee -q -o abc.log abc -liberty {liberty} -constr abc.constr "
    "-script +strash;map,-B,0.9;topo;buffer,-c;upsize,{period};dnsize,{period};stime,-p"
)
WITHOUT = "tee -q -o abc.log abc -g simple -script +strash;map;topo;print_stats"
MODULE = re.compile(r"^(?:\$paramod(?:\$\w+)?)?\\(\w+)")
# Of ABC, which is given all modules and then tells of each: the name; its longest path, gate by gate or in all.
GIVEN = re.compile(r"Extracting gate netlist of module `(\S+)'")
TOLD = re.compile(r"Delay = *([\d.]+) ps|Path *(\d+) --|lev = *(\d+)")


@dataclass(frozen=True)
class Block:
    """A module of a circuit, all of its instances together, without the modules in it.

    Parameters
    ----------
    name : str
    instances, cells : int
    area : float
        Of all of them, in the library's unit; without a library in gates.
    levels : int
        Gates on its longest path between registers or ports; 0 where there are none.
    delay_ps : float or None
        Of that path; None without a library.
    """

    name: str
    instances: int
    cells: int
    area: float
    levels: int = 0
    delay_ps: float | None = None


@dataclass(frozen=True)
class Synthesis:
    """A circuit's blocks, the largest first, and the bits of its memories, which have no area here."""

    circuit: Circuit
    library: str
    blocks: tuple[Block, ...]
    memory_bits: int

    @property
    def area(self) -> float:
        """Of all blocks."""
        return sum(block.area for block in self.blocks)


def synthesize(circuit: Circuit, liberty: Path | None = None, period_ps: int = PERIOD_PS) -> Synthesis:
    """Maps a circuit to cells.

    Parameters
    ----------
    circuit : Circuit
    liberty : Path, optional
        A cell library (.lib); without one gates are counted.
    period_ps : int
        What ABC sizes for.

    Raises
    ------
    ToolError
        If Yosys is missing, or refuses the circuit or the library.
    """
    if find_spec("pyosys") is None:
        raise ToolError(f"rtl needs Yosys: {NEEDS}")
    if liberty is not None and not liberty.is_file():
        raise ToolError(f"{liberty}: no such file")
    text = circuit.text
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in text.items():
            (folder / file).write_text(content, encoding="utf-8")
        mapping, given = WITHOUT, ""
        if liberty is not None:
            # Yosys reads words at spaces: the library gets a name without.
            (folder / "cells.lib").symlink_to(liberty.resolve())
            mapping, given = WITH_LIBRARY.format(liberty="cells.lib", period=period_ps), " -liberty cells.lib"
            driver = _driver(liberty)
            (folder / "abc.constr").write_text(f"set_driving_cell {driver}\nset_load {LOAD} [all_outputs]\n")
        script = SCRIPT.format(files=" ".join(text), mapping=mapping, liberty=given)
        (folder / "script.ys").write_text(script)
        _call(folder, circuit)
        log = folder / "abc.log"
        paths = _paths(log.read_text(encoding="utf-8", errors="replace") if log.is_file() else "")
        stat = json.loads((folder / "stat.json").read_text(encoding="utf-8"))
    return _read(circuit, liberty.name if liberty else "", stat["modules"], paths)


def _driver(liberty: Path) -> str:
    """A buffer of the library that drives each input: the first one found, an inverter where there is none."""
    cells = re.findall(r"^\s*cell\s*\(\s*\"?([\w.]+)\"?\s*\)", liberty.read_text(errors="replace"), re.M)
    for wanted in (r"(?:.*_)?BUF_?X?2$|.*__buf_2$", r".*buf", r".*inv", r"."):
        for cell in cells:
            if re.match(wanted, cell, re.I):
                return str(cell)
    raise ToolError(f"{liberty}: must be a cell library in Liberty's format, has no cell")


def _call(folder: Path, circuit: Circuit) -> None:
    """Yosys is called in a process of its own: it ends the one that it is in where it finds a fault."""
    code = "from pyosys import libyosys; libyosys.run_pass('script script.ys')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode or not (folder / "stat.json").is_file():
        told = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or ["no reason given"]
        raise ToolError(f"rtl: {circuit.name}: cannot be synthesized: {told[-1]}")


def _paths(log: str) -> dict[str, tuple[int, float | None]]:
    """Of each module the gates on its longest path and its delay, as ABC tells them."""
    found: dict[str, tuple[int, float | None]] = {}
    for name, run in zip(GIVEN.findall(log), log.split("+ read_blif")[1:], strict=False):
        levels, delay = found.get(name, (0, None))
        for slow, gate, deep in TOLD.findall(run):
            levels = max(levels, int(gate or 0), int(deep or 0))
            delay = max(delay or 0.0, float(slow)) if slow else delay
        found[name] = levels, delay
    return found


def _read(
    circuit: Circuit, library: str, modules: dict[str, Any], paths: dict[str, tuple[int, float | None]]
) -> Synthesis:
    """Yosys's count of each module → of all instances of each block."""
    instances: Counter[str] = Counter()

    def walk(name: str, times: int) -> None:
        instances[name] += times
        for inner, count in _inner(modules, name).items():
            walk(inner, times * count)

    walk("\\twin", 1)
    blocks: dict[str, Block] = {}
    bits = 0
    for name, times in instances.items():
        module, called = modules[name], MODULE.match(name)
        short = called[1] if called else name
        memories = sum(n for kind, n in module["num_cells_by_type"].items() if kind.startswith("$mem"))
        cells = (module["num_cells"] - memories) * times
        area = float(cells)
        if library:  # Yosys counts what is inside with it
            area = (module["area"] - sum(modules[i]["area"] * n for i, n in _inner(modules, name).items())) * times
        levels, delay = paths.get(name, (0, None))
        same = blocks.get(short, Block(short, 0, 0, 0.0))
        slower = max((d for d in (same.delay_ps, delay) if d is not None), default=None)
        blocks[short] = Block(
            short, same.instances + times, same.cells + cells, same.area + area, max(same.levels, levels), slower
        )
        bits += memories * times * int(circuit.parameters.get("ENTRIES", 0)) * circuit.sum_bits
    ordered = sorted((block for block in blocks.values() if block.cells), key=lambda block: -block.area)
    return Synthesis(circuit, library, tuple(ordered), bits)


def _inner(modules: dict[str, Any], name: str) -> dict[str, int]:
    """The modules in a module, and how many of each."""
    kinds = modules[name]["num_cells_by_type"]
    return {inner: count for kind, count in kinds.items() for inner in (kind, f"\\{kind}") if inner in modules}
