"""How far cycles of a synthetic trace are from those of the real one, on a machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from accelsim.errors import AccelsimError
from accelsim.pipeline import simulate_records
from accelsim.study.results import evened, frame
from accelsim.sweeps.chunks import alike
from accelsim.sweeps.study import has_values
from accelsim.workload.lowering import PASSES
from accelsim.workload.trace import Trace

if TYPE_CHECKING:
    from accelsim.hardware.machine import Machine
    from accelsim.sweeps.plan import Plan
    from accelsim.workload.synthetic import SyntheticTrace


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
    batches = [
        {(layer.batch, layer.samples) for s in trace.snapshots if s.sparsity in shared for layer in s.layers}
        for trace in (real, synthetic)
    ]
    if batches[0] != batches[1]:
        got = " and ".join(f"{samples} of {batch}" for batch, samples in sorted(batches[0] ^ batches[1]))
        raise AccelsimError(f"{synthetic.path}: samples of the batch: must be the real trace's, are {got}")
    tables = []
    for trace in (real, synthetic):
        names = [s.name for s in trace.snapshots if s.sparsity in shared]
        records = simulate_records(machine, trace, passes=tuple(passes), layers=layers, snapshots=names, jobs=jobs)
        tables.append(evened(frame(records))[["sparsity", "layer", "pass", "cycles"]])
    both = tables[0].merge(tables[1], on=["sparsity", "layer", "pass"], suffixes=("_real", "_synthetic"))
    both = both[both["cycles_real"] > 0]
    both["square"] = (both["cycles_synthetic"] / both["cycles_real"] - 1) ** 2
    groups = both.groupby(["sparsity", "pass"], sort=False)
    result = groups[["cycles_real", "cycles_synthetic"]].sum()
    result.columns = ["real_cycles", "synthetic_cycles"]
    result["error"] = result["synthetic_cycles"] / result["real_cycles"] - 1
    result["layer_error"] = np.sqrt(groups["square"].mean())
    return result.reset_index()


def sweep_fidelity(plan: Plan) -> pd.DataFrame | None:
    """``cycle_errors`` of what a sweep makes of its traces at other sparsities, on the first machine; None: nothing."""
    firsts: dict[tuple[str, str], Machine] = {}
    for point in plan.points:
        if point.sparsity is not None and point.machine:
            firsts.setdefault((point.trace, point.snapshot), point.machine)
    tables = []
    for (name, reference), machine in firsts.items():
        with Trace.open(plan.paths[name]) as trace:
            snapshot = trace.snapshot(reference)
            least = snapshot.sparsity if has_values(snapshot) else 0
            own = sorted({s.sparsity for s in trace.snapshots if s.sparsity >= least})
            like = alike(trace, reference, own)
            errors = cycle_errors(machine, trace, like, passes=plan.study.passes, layers=plan.study.layers)
        errors.insert(0, "trace", name)
        errors.insert(1, "reference", reference)
        errors.insert(2, "machine", machine.name)
        tables.append(errors)
    return pd.concat(tables, ignore_index=True) if tables else None
