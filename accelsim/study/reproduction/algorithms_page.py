"""The comparison of training algorithms as text for a terminal, as a Markdown page, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from accelsim.files import staged
from accelsim.ledger import ENERGY
from accelsim.study import manifest
from accelsim.study.csv_file import write_csv
from accelsim.study.json_file import to_json
from accelsim.study.over_time_tables import joules
from accelsim.study.paper import TABLE1
from accelsim.study.reproduction.algorithms import Found, Run
from accelsim.study.reproduction.page import Block, laid_out, markdown
from accelsim.workload.metadata import PASSES

SHOWN = ("pe16x16", "tensordash", "sigma", "ampere")  # of the machines, whose joules the tables have
LIMITS = (
    "What this says: which products an algorithm makes sparse, what its schedule does to a run's cost, and which "
    "machine turns which kind of sparsity into time and energy. These follow from rules and from shapes.",
    "What it does not say: which algorithm trains best. One seed, one small network, some epochs of a part of a data "
    "set: accuracies differ by points from seed to seed, algorithms that explore slowly (SET, DSR, SNFS, RigL) have "
    "had few changes of their masks, and none was tuned. Accuracies as in the paper's tables need training to the "
    "end, on ImageNet or all of CIFAR.",
    "DST has no target; here its regulariser rests where the target is reached, and its sparsity is what it was. "
    "SR-STE's patterns are 1:4 at both targets, 75 %: what m allows. meProp and DSG make gradients and outputs "
    "sparse, at the target; their weights are dense.",
    "DSR moves one weight in a hundred at a change, and had ten: its layers' shares moved by a thirtieth, which is "
    "called fixed here.",
    "A weight gradient that an algorithm masks is computed densely by all machines, as Table 1 counts it.",
)
INTRODUCTION = (
    "`accelsim reproduce algorithms` made this page on {date}: {model} on {data}, {steps} steps of {batch} images for "
    "each of {runs} runs, {training_s:.0f} CPU seconds of training with PyTorch {torch}. All runs see the same batches "
    "from the same weights; settings are `{settings}`. {recorded} steps of each are recorded whole, simulated on "
    "{machines} machines with their memories and energy tables, and the others filled in by the densities of every "
    "step ([capture.md](capture.md))."
)
TABLE_1 = (
    "Table 1 of the paper asks which passes are sparse; here each trace answers, beside the paper's answer in "
    "parentheses where its print has one. A pass is sparse if one of its operands is, by a tenth more than in the "
    "dense run. Effectual: the share of multiplications of two non-zeros at the end. FLOPs ↓: the paper's model (A.3)."
)
PER_JOULE = (
    "What it takes to get to {target:.1f} %, nine tenths of what the dense run reaches: the step, and the energy on "
    "some machines. The picture has accuracy against joules; `algorithms.csv` has every machine."
)
BEST = "On each machine, the run that gets there with least energy, and the one in least time"


def blocks(found: Found, told: dict[str, Any]) -> Iterator[Block]:
    """The page. ``told`` says what was trained, on what, when and with which versions."""
    yield "heading", "Which training algorithm on which accelerator"
    yield "paragraph", INTRODUCTION.format(**told, runs=len(found.runs), machines=len(found.machines))
    for text in LIMITS:
        yield "bullet", text
    yield "subheading", "What each algorithm is, from its trace"
    yield "paragraph", TABLE_1
    yield "table", ("", *traits(found))
    yield "subheading", "What a run costs"
    for sparsity in _sparsities(found):
        title = f"Target {100 * sparsity:g} %: the dense run's cycles over this run's, on the same machine"
        yield "table", (title, *_gains(found, sparsity, "cycles"))
        title = f"Target {100 * sparsity:g} %: the dense run's energy over this run's, on the same machine"
        yield "table", (title, *_gains(found, sparsity, ENERGY.column))
    yield (
        "bullet",
        (
            "± is the largest error of a run's total that leaving out its simulated steps lets expect: "
            f"{100 * max(of.total_error for run in found.runs for of in run.over.values()):.1f} % at most, "
            f"{100 * _median(found):.1f} % in the middle."
        ),
    )
    yield "subheading", "Accuracy per joule"
    yield "paragraph", PER_JOULE.format(target=100 * found.target)
    yield "picture", "algorithms.png"
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
        accuracy, weights = f"{100 * run.reached:.1f} %", f"{100 * run.weights:.1f} %"
        shares = f"{100 * run.effectual['step']:.1f} %", f"{100 * (1 - run.flops):.1f} %"
        rows.append((run.name, accuracy, weights, *cells, of.network, *shares))
    return headings, rows


def spent(found: Found) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: what each run takes up to the target accuracy, on some machines."""
    shown = [machine for machine in SHOWN if machine in found.machines] or found.machines[:4]
    rows = []
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
        dense = found.dense.spent(machine, found.target)
        cells = [machine]
        for place in (2, 1):
            run, cost = min(there, key=lambda each: each[1][place])
            of = f"{dense[place] / cost[place]:.2f}× less" if dense else ""
            cells.append(f"{run.name}, {of}")
        rows.append(tuple(cells))
    return ("machine", "least energy", "least time"), rows


def text(found: Found, told: dict[str, Any]) -> Iterator[Table | Text]:
    """The page for a terminal."""
    for kind, content in blocks(found, told):
        if kind == "table":
            title, headings, rows = content
            yield laid_out(title, headings, rows)
            yield Text()
        elif kind == "picture":
            continue
        elif kind in ("heading", "subheading"):
            yield Text(content, style="bold")
        else:
            yield Text(f"  {content}" if kind == "bullet" else f"{content}\n")


def frame(found: Found) -> pd.DataFrame:
    """One row for each run and machine."""
    rows = []
    for run in found.runs:
        for machine, of in run.over.items():
            cost = run.spent(machine, found.target) or (None, None, None)
            rows.append(
                {
                    "run": run.label, "algorithm": run.title, "sparsity": run.sparsity, "machine": machine,
                    "accuracy": run.reached, "step_cycles": run.last[machine][0], "step_pj": run.last[machine][1],
                    "run_cycles": of.total(), "run_pj": of.total(ENERGY.column), "run_error": of.total_error,
                    "filled_in_by": of.how, "target_step": cost[0], "target_cycles": cost[1], "target_pj": cost[2],
                    **{f"effectual_{which}": share for which, share in run.effectual.items()},
                    "flops": run.flops, "weights": run.weights,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _with_pictures(content: Iterable[Block]) -> Iterator[Block]:
    """Pictures as a page shows them."""
    for kind, inner in content:
        yield ("paragraph", f"![Accuracy against joules]({inner})") if kind == "picture" else (kind, inner)


def report(found: Found, told: dict[str, Any]) -> dict[str, Any]:
    """Plain data."""
    runs = [
        {
            "run": run.label, "algorithm": run.title, "sparsity": run.sparsity, "accuracy": run.accuracy,
            "traits": vars(run.traits), "effectual": run.effectual, "flops": run.flops, "weights": run.weights,
        }
        for run in found.runs
    ]  # fmt: skip
    costs = [
        {str(key): None if isinstance(value, float) and isnan(value) else value for key, value in row.items()}
        for row in frame(found).to_dict("records")
    ]
    return {"told": told, "target": found.target, "runs": runs, "costs": costs}


def write(folder: Path, found: Found, told: dict[str, Any]) -> None:
    """Writes algorithms.md, .csv, .json and pictures into a folder, all or none. Raises OutputError."""
    from accelsim.study.reproduction.algorithms_plot import draw

    with staged(folder) as stage:
        (stage / "algorithms.md").write_text(markdown(_with_pictures(blocks(found, told))), encoding="utf-8")
        write_csv(frame(found), stage / "algorithms.csv")
        (stage / "algorithms.json").write_text(to_json(report(found, told)), encoding="utf-8")
        draw(stage, found, [m for m in SHOWN if m in found.machines])
        manifest.write(stage)


def _printed(run: Run) -> tuple[str, str, str, str]:
    kind = "swat" if run.algorithm in ("swat-u", "swat-erk", "swat-m", "swat-structured") else run.algorithm
    return TABLE1.get(kind, ("", "", "", ""))


def _sparsities(found: Found) -> list[float]:
    return sorted({run.sparsity for run in found.runs if run.sparsity})


def _gains(found: Found, sparsity: float, count: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row a machine, a column an algorithm."""
    runs = [run for run in found.runs if run.sparsity == sparsity]
    rows = [
        (machine, *(f"{found.dense.over[machine].total(count) / run.over[machine].total(count):.2f}" for run in runs))
        for machine in found.machines
    ]
    return ("machine", *(run.name.rpartition(" ")[0].rpartition(" ")[0] for run in runs)), rows


def _median(found: Found) -> float:
    errors: Iterable[float] = (of.total_error for run in found.runs for of in run.over.values())
    return float(pd.Series([*errors]).median())
