"""What Top-K costs (appendix A.4): instructions of introselect, and the speedup once its cost is spread over a period.

Equations 7 and 8: with Top-K every P iterations, an iteration costs its remaining share r of a dense one, and each
period one Top-K on top; so P dense iterations over P sparse ones are

    speedup = P·T / (P·r·T + K) = P / (P·r + K/T)

T a dense iteration's cost and K one Top-K's, in any one unit.

Instructions are counted by a program outside (``perf stat``, else valgrind's callgrind), as the difference between a
run that selects and one that only copies, so that no symbols are needed; where neither works, times take their place.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.study.paper import EQUATIONS, PERIOD, TABLE10
from accelsim.workload.networks import Network

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
# NumPy's vectorised selection is newer than the paper; introselect is what runs without it. Names of NumPy 1 and 2.
VECTORS = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 AVX512F AVX512_SKX ASIMD VSX2"
KEPT = 0.1
# Small arrays are selected often enough that one selection's noise is far below its cost.
ELEMENTS = 2_000_000
RECORDED = Path(__file__).with_name("measured.json")
CHILD = f"""
import sys, time
import numpy as np
size, repeats, select = map(int, sys.argv[1:])
values = np.abs(np.random.default_rng(size).standard_normal(size, dtype=np.float32))
took = 0
for _ in range(repeats):
    copy = values.copy()
    start = time.perf_counter_ns()
    if select:
        copy.partition(size - int({KEPT} * size))
    took += time.perf_counter_ns() - start
sys.stdout.write(str(took))
"""


@dataclass(frozen=True)
class Selection:
    """What selecting the greatest tenth of an array costs, by array size.

    Parameters
    ----------
    algorithm : str
        "introselect", or "default": whatever NumPy picks on this processor.
    counter : {"perf", "callgrind", "time"}
    unit : str
        "instructions", or "ns" where only time could be measured.
    costs : dict of int to float
        Of one selection.
    """

    algorithm: str
    counter: str
    unit: str
    costs: dict[int, float]

    @property
    def slope(self) -> float:
        """Of log cost against log size, by least squares: 1 is linear."""
        return slope(self.costs)


def slope(costs: Mapping[int, float]) -> float:
    """Of log cost against log size, by least squares: 1 is linear, 2 quadratic."""
    return float(np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)[0])


def amortized_speedup(remaining: float, overhead: float, period: int) -> float:
    """Training speedup with a Top-K every ``period`` iterations (equations 7 and 8).

    Parameters
    ----------
    remaining : float
        Cost of a sparse iteration over that of a dense one, Top-K aside; > 0.
    overhead : float
        Cost of one Top-K of everything over that of a dense iteration; ≥ 0.
    period : int
        ≥ 1.

    Raises
    ------
    AccelsimError
        If a number is out of its range.
    """
    if not (0 < remaining < math.inf and 0 <= overhead < math.inf and period >= 1):
        raise AccelsimError(
            f"remaining > 0, overhead ≥ 0 and period ≥ 1 are needed, got {remaining}, {overhead}, {period}"
        )
    return period / (period * remaining + overhead)


def equation(sparsity: float, period: int = PERIOD) -> float:
    """Equation 7 or 8 from the paper's own inputs: its FLOP reduction, and Table 10's times."""
    reduction = EQUATIONS[sparsity]["reduction"]
    return amortized_speedup(1 - reduction, TABLE10["total"] / TABLE10["step"], period)


def selected_elements(network: Network, batch: int) -> dict[str, int]:
    """Elements that Top-K goes through: of all weights but the first layer's, and of those layers' inputs."""
    layers = [layer for layer in network.layers if not layer.first]
    return {
        "weight": sum(layer.weights for layer in layers),
        "activation": batch * sum(layer.inputs for layer in layers),
    }


def measure(sizes: Iterable[int] = SIZES, counter: str | None = None) -> list[Selection]:
    """Counts what ``numpy.partition`` costs on this machine: introselect, and NumPy's default.

    Parameters
    ----------
    sizes : iterable of int
    counter : {"perf", "callgrind", "time"}, optional
        By default the first of them that works here. Under callgrind the default algorithm is that for processors
        without AVX-512.

    Raises
    ------
    AccelsimError
        If the counter does not work here.
    """
    counter = counter or next(name for name in COUNTERS if _works(name))
    if counter not in COUNTERS or not _works(counter):
        raise AccelsimError(
            f"counter: {counter} does not work here; must be one of {', '.join(filter(_works, COUNTERS))}"
        )
    unit = "ns" if counter == "time" else "instructions"
    return [
        Selection(name, counter, unit, {size: _cost(counter, size, disabled) for size in sizes})
        for name, disabled in (("introselect", VECTORS), ("default", ""))
    ]


def recorded() -> dict[str, Any]:
    """The measured run that ships with accelsim: what, when, with which versions. Written by benchmarks/measured.py."""
    found: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


def recorded_selections() -> list[Selection]:
    """``measure`` as it was recorded."""
    return [
        Selection(s["algorithm"], s["counter"], s["unit"], {int(size): cost for size, cost in s["costs"].items()})
        for s in recorded()["partition"]["selections"]
    ]


def origin() -> dict[str, str]:
    """When and with what something is measured here."""
    return {
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _cost(counter: str, size: int, disabled: str) -> float:
    repeats = max(1, ELEMENTS // size)
    with_it, without = (COUNTERS[counter]([str(size), str(repeats), str(select)], disabled) for select in (1, 0))
    return (with_it - without) / repeats


def _child(arguments: list[str], disabled: str, prefix: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs CHILD; one thread and one hash seed, so that two runs differ by the selection alone."""
    fixed = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    env = os.environ | fixed | {"NPY_DISABLE_CPU_FEATURES": disabled}
    command = [*prefix, sys.executable, "-W", "ignore", "-c", CHILD, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True)


def _by_perf(arguments: list[str], disabled: str) -> float:
    done = _child(arguments, disabled, ["perf", "stat", "-x,", "-e", "instructions:u"])
    return float(done.stderr.strip().splitlines()[-1].split(",")[0])


def _by_callgrind(arguments: list[str], disabled: str) -> float:
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        _child(arguments, disabled, ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"])
        found = re.search(r"^(?:totals|summary): (\d+)", out.read_text(errors="replace"), re.M)
        if found is None:
            raise ValueError(f"{out}: has no total")
        return float(found[1])


def _by_time(arguments: list[str], disabled: str) -> float:
    return min(float(_child(arguments, disabled).stdout) for _ in range(3))


COUNTERS = {"perf": _by_perf, "callgrind": _by_callgrind, "time": _by_time}


@cache
def _works(counter: str) -> bool:
    """Whether a counter is installed and allowed to count here."""
    program = {"perf": "perf", "callgrind": "valgrind"}.get(counter)
    if program and not shutil.which(program):
        return False
    try:
        return COUNTERS[counter](["1000", "1", "1"], "") >= 0
    except (subprocess.CalledProcessError, OSError, ValueError, TypeError, IndexError):
        return False
