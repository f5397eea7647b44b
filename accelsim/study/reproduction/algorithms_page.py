"""The comparison of training algorithms as text for a terminal, as a Markdown page, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from accelsim.files import staged
from accelsim.study import manifest
from accelsim.study.csv_file import write_csv
from accelsim.study.json_file import to_json
from accelsim.study.over_time_tables import joules
from accelsim.study.paper import TABLE1
from accelsim.study.reproduction.algorithms_found import Found, Run
from accelsim.study.reproduction.page import Block, markdown
from accelsim.study.reproduction.seeds import apart
from accelsim.workload.metadata import PASSES

SHOWN = ("pe16x16", "tensordash", "sigma", "ampere")  # of the machines, whose joules the tables have
LIMITS = (
    "What this says: which products an algorithm makes sparse, what its schedule does to a run's cost, and which "
    "machine turns which kind of sparsity into time and energy. These follow from rules and from shapes.",
    "What it does not say: which algorithm trains best. One small network and some epochs of a part of a data set: "
    "algorithms that explore slowly (SET, DSR, SNFS, RigL) have had few changes of their masks, and none was tuned. "
    "Accuracies as in the paper's tables need training to the end, on ImageNet or all of CIFAR.",
    "DST has no target; here its regulariser rests where the target is reached, and its sparsity is what it was. "
    "SR-STE's patterns are 1:4 at both targets, 75 %: what m allows. meProp and DSG make gradients and outputs "
    "sparse, at the target; their weights are dense.",
    "A weight gradient that an algorithm masks is computed densely by all machines, as Table 1 counts it.",
)
INTRODUCTION = (
    "`accelsim reproduce algorithms` made this page on {date}: {model} on {data}, {steps} steps of {batch} images for "
    "each of {runs} runs, {trainings}, {training_s:.0f} CPU seconds of training with PyTorch {torch}. All runs see the "
    "same batches from the same weights; settings are `{settings}`. {recorded} steps of each are recorded whole, "
    "simulated on {machines} machines with their memories and energy tables, and the others filled in by the densities "
    "of every step ([capture.md](capture.md))."
)
ONE_SEED = (
    "Each run was trained once. Another seed gives accuracies points away, so that differences of some points say "
    "nothing, nor does who reaches the target a few steps before another. Costs hardly depend on the seed."
)
SEEDS = (
    "Accuracies are means over {seeds} seeds, ± the standard deviation. Without what a seed does to all runs an "
    "accuracy scatters by {scatter:.1f} points, so that means less than {apart:.1f} points apart are not told "
    "apart (twice the standard error of a difference). Costs are those of the first seed."
)
TABLE_1 = (
    "Table 1 of the paper asks which passes are sparse; here each trace answers, beside the paper's answer in "
    "parentheses where its print has one. A pass is sparse if one of its operands is, by a tenth more than in the "
    "dense run. Across layers it is variable if a layer gains weights that others gave, or their densities part. "
    "Effectual: the share of multiplications of two non-zeros at the end. FLOPs ↓: the paper's model (A.3)."
)
DENSE = "The dense run: its last recorded step, and all of it"
GAIN = "Target {target:g} %: the dense run's {what} over this run's on the same machine (of the last step)"
PER_JOULE = (
    "What it takes to get to {target:.1f} %, nine tenths of what the dense run reaches: the step, and the energy on "
    "some machines. The picture has accuracy against cycles and joules on these; `algorithms.csv` has every machine."
)
BEST = "On each machine, the run that gets there with least energy, and the one in least time"


def blocks(found: Found, told: dict[str, Any]) -> Iterator[Block]:
    """The page. ``told`` says what was trained, on what, when and with which versions."""
    yield "heading", "Which training algorithm on which accelerator"
    trainings = f"{found.seeds} times each" if found.seeds > 1 else "once each"
    numbers = {"runs": len(found.runs), "machines": len(found.machines), "trainings": trainings}
    yield "paragraph", INTRODUCTION.format(**told, **numbers)
    for text in (*LIMITS, _seeds(found)):
        yield "bullet", text
    yield "subheading", "What each algorithm is, from its trace"
    yield "paragraph", TABLE_1
    yield "table", ("", *traits(found))
    yield "subheading", "What a run costs"
    yield "table", (DENSE, *dense(found))
    for sparsity in sorted({run.sparsity for run in found.runs if run.sparsity}):
        for place, what in enumerate(("cycles", "energy")):
            yield "table", (GAIN.format(target=100 * sparsity, what=what), *_gains(found, sparsity, place))
    yield "bullet", _errors(found)
    yield "subheading", "Accuracy per joule"
    yield "paragraph", PER_JOULE.format(target=100 * found.target)
    yield "picture", ("Accuracy against cycles and joules", "algorithms.png")
    yield "table", ("", *spent(found))
    yield "table", (BEST, *best(found))
    for machine, why in found.refused.items():
        yield "bullet", f"{machine} takes no part: {why}"


def traits(found: Found) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows of what each run is."""
    headings = ("run", "accuracy", "weights", "across layers", *PASSES, "network", "effectual", "FLOPs ↓")
    rows = []
    for run in found.runs:
        of, printed = run.traits, _printed(run)
        answers = (of.across, of.fwd, of.input_grad, of.weight_grad)
        cells = (f"{ours} ({paper})" if paper else ours for ours, paper in zip(answers, printed, strict=True))
        spread = "" if run.spread is None else f" ± {100 * run.spread:.1f}"
        accuracy, weights = f"{100 * run.reached:.1f}{spread} %", f"{100 * run.weights:.1f} %"
        shares = f"{100 * run.effectual['step']:.1f} %", f"{100 * (1 - run.flops):.1f} %"
        rows.append((run.name, accuracy, weights, *cells, of.network, *shares))
    return headings, rows


def dense(found: Found) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: by machine the dense run's cycles and energy."""
    rows: list[tuple[str, ...]] = []
    for machine in found.machines:
        of = found.dense.costs[machine]
        cells = (f"{of.step[0]:,.0f}", joules(of.step[1]), f"{of.run[0]:.4g}", joules(of.run[1]))
        rows.append((machine, *cells, f"{100 * of.error:.1f} %", of.how))
    headings = "machine", "step: cycles", "energy", "run: cycles", "energy", "± by leaving out", "filled in by"
    return headings, rows


def spent(found: Found) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: what each run takes up to the target accuracy, on some machines."""
    shown, rows = _shown(found), []
    for run in found.runs:
        cells = [run.spent(machine, found.target) for machine in shown]
        step = "not reached" if cells[0] is None else str(cells[0][0])
        rows.append((run.name, step, *("–" if cell is None else joules(cell[2]) for cell in cells)))
    return ("run", "step", *shown), rows


def best(found: Found) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: by machine the run of least energy, and of least cycles, to the target."""
    rows = []
    for machine in found.machines:
        there = [(run, cost) for run in found.runs if (cost := run.spent(machine, found.target)) is not None]
        of = found.dense.spent(machine, found.target)
        cells = [machine]
        for place in (2, 1):
            if of is None or isnan(of[place]):
                cells.append("–")
                continue
            run, cost = min(there, key=lambda each: each[1][place])
            cells.append(f"{run.name}, {of[place] / cost[place]:.2f}× less")
        rows.append(tuple(cells))
    return ("machine", "least energy", "least time"), rows


def frame(found: Found) -> pd.DataFrame:
    """One row for each run and machine."""
    rows = []
    for run in found.runs:
        for machine, of in run.costs.items():
            cost = run.spent(machine, found.target) or (None, None, None)
            rows.append(
                {
                    "run": run.label, "algorithm": run.title, "sparsity": run.sparsity, "machine": machine,
                    "accuracy": run.reached, "accuracy_spread": run.spread, "step_cycles": of.step[0],
                    "step_pj": of.step[1], "run_cycles": of.run[0], "run_pj": of.run[1], "run_error": of.error,
                    "filled_in_by": of.how, "target_step": cost[0], "target_cycles": cost[1], "target_pj": cost[2],
                    **{f"effectual_{which}": share for which, share in run.effectual.items()},
                    "flops": run.flops, "weights": run.weights,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def report(found: Found, told: dict[str, Any]) -> dict[str, Any]:
    """Plain data, which ``page`` makes the page of again."""
    return {"told": told, **found.as_dict()}


def page(data: dict[str, Any]) -> str:
    """The page in Markdown, from a report."""
    return markdown(blocks(Found.of(data), data["told"]))


def write(folder: Path, found: Found, told: dict[str, Any]) -> None:
    """Writes algorithms.md, .csv, .json and pictures into a folder, all or none. Raises OutputError."""
    from accelsim.study.reproduction.algorithms_plot import draw

    with staged(folder) as stage:
        data = report(found, told)
        (stage / "algorithms.md").write_text(page(data), encoding="utf-8")
        write_csv(frame(found), stage / "algorithms.csv")
        (stage / "algorithms.json").write_text(to_json(data, indent=None), encoding="utf-8")
        draw(stage, found, _shown(found))
        manifest.write(stage)


def _shown(found: Found) -> list[str]:
    """Machines that tables and the picture have."""
    return [machine for machine in SHOWN if machine in found.machines] or found.machines[:4]


def _printed(run: Run) -> tuple[str, str, str, str]:
    kind = "swat" if run.algorithm in ("swat-u", "swat-erk", "swat-m", "swat-structured") else run.algorithm
    return TABLE1.get(kind, ("", "", "", ""))


def _seeds(found: Found) -> str:
    """What the number of seeds lets accuracies say."""
    if found.scatter is None:
        return ONE_SEED
    numbers = {"scatter": 100 * found.scatter, "apart": 100 * apart(found.scatter, found.seeds)}
    return SEEDS.format(seeds=found.seeds, **numbers)


def _gains(found: Found, sparsity: float, place: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row a machine, a column an algorithm; of cycles, place 0, or energy."""
    runs = [run for run in found.runs if run.sparsity == sparsity]
    rows = []
    for machine in found.machines:
        cells, of = [], found.dense.costs[machine]
        for cost in (run.costs[machine] for run in runs):
            cells.append(f"{of.run[place] / cost.run[place]:.2f} ({of.step[place] / cost.step[place]:.2f})")
        rows.append((machine, *cells))
    return ("machine", *(run.name.rpartition(" ")[0].rpartition(" ")[0] for run in runs)), rows


def _errors(found: Found) -> str:
    """How well the totals are known."""
    errors = {(run.name, machine): of.error for run in found.runs for machine, of in run.costs.items()}
    run, machine = max(errors, key=lambda pair: errors[pair])
    return (
        "The error of a run's cycles that leaving out its simulated steps lets expect is "
        f"{100 * median(errors.values()):.1f} % in the middle, {100 * errors[run, machine]:.1f} % at most: {run} on "
        f"{machine}."
    )
