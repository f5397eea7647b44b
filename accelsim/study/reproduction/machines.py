"""The paper's figures that need a simulator: Table 6 on every shipped machine, and speedup against FLOPs saved."""

from __future__ import annotations

from functools import partial
from typing import Any

from accelsim.study.paper import TRAINING_SPEEDUP, table6
from accelsim.study.reproduction import flops
from accelsim.study.reproduction.conventions import NATURAL_ZEROS, table
from accelsim.study.reproduction.figure import Comparison, Figure, Grid
from accelsim.study.reproduction.session import Run, Session
from accelsim.study.results import COLUMNS
from accelsim.study.tables import HEADINGS
from accelsim.workload.networks import NETWORKS

# The machine that Table 6 was re-derived for (docs/table6.md); the paper names neither its sizes nor its trace.
PAPER_MACHINE = "pe16x16"
# Networks that no trace ships of, at the sparsity of the paper's Tables 2 and 3; masks are random.
RANDOM = ("wide_resnet50_2", "cifar_vgg16", "cifar_wrn16_8", "cifar_densenet121", "cifar_resnet18")
RANDOM_SPARSITY = 0.9
# What an accelerator multiplies at best: both backward passes at output positions, no first input gradient.
REAL = flops.Counting("output", "output", first_input_grad=False, linear=False)
PASSES = ("fwd", "input_grad", "weight_grad", "step")
NAMES = {name: text.replace("\n", " ") for name, text in HEADINGS.items()}


def table6_figure(session: Session) -> Figure:
    """Table 6: the shipped trace on every shipped machine."""
    comparisons, rows, notes = [], [], []
    with session.trace() as trace:
        network, dataset = trace.network, trace.dataset
    for run in session.runs():
        if run.problem:
            notes.append(f"{run.machine} is left out: it cannot run the trace ({run.problem})")
            continue
        comparisons += _table6(run, network, dataset) if run.machine == PAPER_MACHINE else []
        rows += _cells(run)
    if not comparisons:
        notes.append("Nothing compares with the paper: its Table 6 is over all convolutions of ResNet-50 on ImageNet")
    headings = ("machine", "Top-K", *(NAMES[c] for c in COLUMNS), "step: gain over its dense self", "× shape")
    grids = (Grid("Speedup against Top-K 0 % on the same machine, over convolutions", headings, tuple(rows)),)
    how = (
        "Cycles of the shipped trace, as `accelsim run --memory none` counts them, for every shipped machine that can "
        "run it. The paper's backward pass is the input gradient; its training speedups (abstract, section 1) are "
        f"taken to be over both. Compared is {PAPER_MACHINE} with the paper's figures: the one of 64 arrays that was "
        "chosen because it has them, so that they fit and are no agreement; docs/table6.md says what each of its "
        "choices is worth. The other machines stand below it. Gain and shape: as in `accelsim compare`."
    )
    return Figure("table6", "Table 6: speedup on an accelerator", how, tuple(comparisons), grids, tuple(notes))


def speedup_figure(session: Session) -> Figure:
    """Speedup against what the FLOPs saved would allow, per network and machine."""
    rows, notes = [], []
    with session.trace() as trace:
        known = trace.network if trace.network in NETWORKS else None
        schemes = {s.name: flops.measured(table(known), s) for s in trace.snapshots} if known else {}
    for machine, run in zip(session.machines(), session.runs(), strict=True):
        if known and not run.problem and run.whole:
            for row in run.counts.speedup:
                if row["sparsity"]:
                    rows.append(_kept(f"{known}, trace", machine.name, row, schemes[row["snapshot"]]))
        for name in RANDOM if session.layers == ["*"] else ():
            zeros = NATURAL_ZEROS[table(name).dataset]
            run = session.random(machine, table(name), RANDOM_SPARSITY, zeros)
            if run.problem:
                notes.append(f"{machine.name} cannot run {name} ({run.problem})")
                continue
            scheme = flops.swat(table(name), RANDOM_SPARSITY, natural_zeros=zeros)
            rows.append(_kept(f"{name}, random", machine.name, run.counts.speedup[-1], scheme))
    headings = ("network, masks", "machine", "Top-K", *(NAMES[which] for which in PASSES))
    rows.sort(key=lambda row: row[0].endswith("random"))
    title = "Speedup / what the FLOPs saved allow = the part kept"
    how = (
        "What the FLOPs saved allow is 1/(1 − FLOPs ↓) over the convolutions, both backward passes at output "
        "positions and without the first layer's input gradient; the speedup is over the same machine at Top-K 0 %. "
        f"ResNet-50 is the shipped trace; the other networks have random masks (seed 0, {100 * RANDOM_SPARSITY:g} "
        "%), which are more even than trained ones, so that what is kept there is an upper end."
    )
    notes += [
        "The FLOP model takes a dense network's activations for dense. A machine that skips zeros of ReLU already at "
        "Top-K 0 % gains that part of the weight gradient before SWAT does, and keeps less of it here."
    ]
    return Figure(
        "speedup", "Speedup against FLOPs saved", how, (), (Grid(title, headings, tuple(rows)),), tuple(notes)
    )


def _table6(run: Run, network: str, dataset: str) -> list[Comparison]:
    """Comparisons of one machine; none unless the whole network was simulated."""
    if not run.whole:
        return []
    compared = partial(Comparison, tolerance=0.05, unit="×", relative=True, kind="chosen")
    found, dense = [], run.counts.cycles[0]
    for row, cycles in zip(run.counts.speedup, run.counts.cycles, strict=True):
        printed = table6(network, dataset, row["sparsity"])
        for which, paper in printed.items():
            if row["sparsity"]:
                found.append(compared(_label(run, row), NAMES[which], row[which], paper))
        claimed = TRAINING_SPEEDUP.get(round(row["sparsity"], 6))
        if printed and claimed:
            both = [sum(c[which] for which in ("fwd", "input_grad")) / c["samples"] for c in (dense, cycles)]
            found.append(compared(_label(run, row), "forward + input gradient", both[0] / both[1], claimed))
    return found


def _cells(run: Run) -> list[tuple[str, ...]]:
    rows = []
    for own, gain, shape in zip(run.counts.speedup, run.counts.gain, run.counts.shape, strict=True):
        cells = [_times(own[c]) for c in COLUMNS] + [_times(gain["step"]), _times(shape["step"])]
        rows.append((run.machine, f"{100 * own['sparsity']:g} %", *cells))
    return rows


def _kept(name: str, machine: str, speedup: dict[str, Any], scheme: flops.Scheme) -> tuple[str, ...]:
    dense, sparse = flops.passes(scheme, REAL)
    dense["step"], sparse["step"] = sum(dense.values()), sum(sparse.values())
    cells = []
    for which in PASSES:
        allowed = dense[which] / sparse[which]
        own = speedup[which]
        cells.append("–" if own is None else f"{own:.2f} / {allowed:.2f} = {100 * own / allowed:.0f} %")
    return name, machine, f"{100 * speedup['sparsity']:g} %", *cells


def _label(run: Run, row: dict[str, Any]) -> str:
    return f"{run.machine}, {100 * row['sparsity']:g} %"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"
