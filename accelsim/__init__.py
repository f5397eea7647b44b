"""accelsim: what would sparsity in your training run buy on an accelerator? Counted, cycle by cycle.

>>> import accelsim
>>> machine = accelsim.load_machine("pe16x16.yaml")
>>> trace = accelsim.open_trace("resnet50.npz")
>>> table = accelsim.simulate(machine, trace)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.pipeline import simulate_records
from accelsim.version import __version__
from accelsim.workload.lowering import PASSES
from accelsim.workload.trace import Trace
from accelsim.workload.trace_writer import TraceWriter

if TYPE_CHECKING:
    import pandas as pd

    from accelsim import laws
    from accelsim.hardware.machine import Machine

__all__ = ["Trace", "TraceWriter", "__version__", "laws", "load_machine", "open_trace", "simulate", "sweep"]


def __getattr__(name: str) -> Any:
    """``accelsim.laws``, loaded when it is asked for."""
    if name == "laws":
        import importlib

        return importlib.import_module("accelsim.laws")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_machine(
    file: str | Path,
    *,
    allow_code: bool = False,
    settings: Mapping[str, Any] | None = None,
    **sections: str | None,
) -> Machine:
    """Reads a machine file; a name without a path is looked up here, then among those shipped. Raises ConfigError.

    ``memory``, ``energy`` and ``overheads`` name files with these sections, or "none", to take instead of its own;
    ``settings`` has single values, ``{"accelerator.lanes": 8}``. ``allow_code`` lets it import an accelerator
    ``model: package.module:Class``.
    """
    from accelsim.hardware.machine import load_machine

    return load_machine(file, allow_code=allow_code, settings=settings, **sections)


def open_trace(file: str | Path) -> Trace:
    """Opens a trace; a name without a path is looked up here, then among those shipped. Raises TraceError."""
    from accelsim.errors import TraceError
    from accelsim.files import find

    return Trace.open(find(file, "traces", TraceError))


def simulate(
    machines: Machine | Iterable[Machine],
    trace: Trace,
    *,
    passes: str | Iterable[str] = PASSES,
    layers: str | Iterable[str] = "*",
    snapshots: str | Iterable[str] | None = None,
    jobs: int = 1,
) -> pd.DataFrame:
    """Counts the cycles of a trace on one or more machines: one row per snapshot × layer × machine × pass.

    See ``accelsim.pipeline.simulate_records`` for the parameters and what it raises, and
    ``accelsim.study.results.frame`` for the columns.
    """
    from accelsim.study.results import frame

    return frame(simulate_records(machines, trace, passes=passes, layers=layers, snapshots=snapshots, jobs=jobs))


def sweep(
    study: str | Path | dict[str, Any],
    out: str | Path,
    *,
    jobs: int = 1,
    cluster: str | None = None,
    allow_code: bool = False,
) -> pd.DataFrame:
    """Simulates every point of a study that the folder ``out`` does not have yet; the table of all, a row a pass.

    See ``accelsim.sweeps.sweep.sweep`` for the parameters, the files that it writes and what it raises.
    """
    from accelsim.sweeps.sweep import sweep

    return sweep(study, out, jobs=jobs, cluster=cluster, allow_code=allow_code)
