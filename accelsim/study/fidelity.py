"""How far cycles of a synthetic trace are from those of the real one, on a machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from accelsim.errors import AccelsimError
from accelsim.simulate import simulate_records
from accelsim.study.results import frame
from accelsim.workload.lowering import PASSES

if TYPE_CHECKING:
    from accelsim.hardware.machine import Machine
    from accelsim.workload.synthetic import SyntheticTrace
    from accelsim.workload.trace import Trace


def cycle_errors(
    machine: Machine,
    real: Trace,
    synthetic: SyntheticTrace,
    *,
    passes: Iterable[str] = PASSES,
    layers: str | Iterable[str] = "*",
    jobs: int = 1,
) -> pd.DataFrame:
    """Simulates both at the sparsities that both have, and compares.

    Returns
    -------
    DataFrame
        Per sparsity and pass: ``real_cycles`` and ``synthetic_cycles`` of all layers, ``error`` of their sum (synthetic
        over real, less 1), and ``layer_error``, the root mean square of the layers' own errors.

    Raises
    ------
    AccelsimError
        If there is no sparsity that both have, they hold other shares of a batch, or as ``simulate_records``.
    """
    shared = {s.sparsity for s in real.snapshots} & {s.sparsity for s in synthetic.snapshots}
    if not shared:
        raise AccelsimError(f"{synthetic.path}: sparsity: must be one of the real trace's, is none of them")
    batches = {(s.batch, s.samples) for trace in (real, synthetic) for s in trace.snapshots if s.sparsity in shared}
    if len(batches) > 1:
        got = " and ".join(f"{samples} of {batch}" for batch, samples in sorted(batches))
        raise AccelsimError(f"{synthetic.path}: samples of the batch: must be the real trace's, are {got}")
    tables = []
    for trace in (real, synthetic):
        names = [s.name for s in trace.snapshots if s.sparsity in shared]
        records = simulate_records(machine, trace, passes=tuple(passes), layers=layers, snapshots=names, jobs=jobs)
        tables.append(frame(records)[["sparsity", "layer", "pass", "cycles"]])
    both = tables[0].merge(tables[1], on=["sparsity", "layer", "pass"], suffixes=("_real", "_synthetic"))
    both = both[both["cycles_real"] > 0]
    both["square"] = (both["cycles_synthetic"] / both["cycles_real"] - 1) ** 2
    groups = both.groupby(["sparsity", "pass"], sort=False)
    result = groups[["cycles_real", "cycles_synthetic"]].sum()
    result.columns = ["real_cycles", "synthetic_cycles"]
    result["error"] = result["synthetic_cycles"] / result["real_cycles"] - 1
    result["layer_error"] = np.sqrt(groups["square"].mean())
    return result.reset_index()
