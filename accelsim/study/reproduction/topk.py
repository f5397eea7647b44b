"""The paper's figures about Top-K itself: Tables 9 and 10, equations 7 and 8, Figure 10."""

from __future__ import annotations

from statistics import fmean, pstdev

from accelsim.errors import AccelsimError
from accelsim.study.paper import EQUATIONS, FIGURE10, PERIOD, TABLE3, TABLE9, TABLE10, TABLE10_BATCH
from accelsim.study.reproduction import conventions, flops, topk_cost
from accelsim.study.reproduction.figure import Comparison, Figure, Grid
from accelsim.study.reproduction.machines import PAPER_MACHINE
from accelsim.study.reproduction.session import Session

PERIODS = (1, 10, 100, 1000, 10_000, 100_000)


def table9_figure(session: Session) -> Figure:
    """Table 9: instructions of numpy.partition."""
    if session.measure:
        selections, when = topk_cost.measure(), topk_cost.origin()
    else:
        selections, when = topk_cost.recorded_selections(), topk_cost.recorded()["partition"]
    comparisons, rows = [], []
    note = "no counter of instructions works here; the table below has times"
    for s in selections:
        counted = s.unit == "instructions"
        for size, paper in TABLE9.items():
            ours = s.costs[size] / size if counted and size in s.costs else None
            comparisons.append(
                Comparison(
                    f"{s.algorithm}, {size:,}", "instructions per element", ours, paper / size, 2, "", factor=True,
                    note="" if counted else note, digits=1,
                )
            )  # fmt: skip
        linear = topk_cost.slope(TABLE9)
        comparisons.append(
            Comparison(f"{s.algorithm}, all sizes", "slope, log cost on log size", s.slope, linear, 0.1, "")
        )
        rows += [
            (s.algorithm, f"{n:,}", f"{c:,.0f}", f"{c / n:.2f}", f"{s.unit}, {s.counter}") for n, c in s.costs.items()
        ]
    origin = f"{when['date']}, {when['machine']}, NumPy {when['numpy']}, Python {when['python']}"
    title = f"Selecting the greatest tenth of |normal| float32 values, measured {origin}"
    grid = Grid(title, ("algorithm", "elements", "cost", "per element", "unit, counter"), tuple(rows))
    how = (
        "Instructions of `ndarray.partition`, counted outside the process (perf, else valgrind's callgrind) as the "
        "difference between a run that selects and one that only copies. Introselect is what NumPy runs with its "
        "vectorised selection, which is newer than the paper, switched off; default is what it runs by itself (under "
        "callgrind that for a processor without AVX-512). Shown is a recorded run; --measure counts here, or times "
        "where nothing can count. Another processor, library and data: within a factor of 2 agrees. A slope of 1 is "
        "linear."
    )
    notes = ("The paper's column of ratios has 12.6 for 1,000,000, where its own count makes 12.5.",)
    return Figure("table9", "Table 9: instructions of one Top-K", how, tuple(comparisons), (grid,), notes)


def table10_figure(session: Session) -> Figure:
    """Table 10: Top-K against a training step."""
    ours = topk_cost.recorded()["topk"]
    times, elements = ours["milliseconds"], topk_cost.selected_elements(conventions.table("resnet50"), TABLE10_BATCH)
    total = times["weight"] + times["activation"]
    paper = TABLE10["weight"] + TABLE10["activation"]
    comparisons = (
        Comparison("the paper's own times", "total Top-K", paper, TABLE10["total"], 0.5, "ms", kind="identity"),
        Comparison(
            "one CPU thread", "total Top-K / training step", total / times["step"],
            TABLE10["total"] / TABLE10["step"], 0.1, "", relative=True, expected=False,
            note="a GPU multiplies far faster than a CPU thread but selects only somewhat faster",
        ),
    )  # fmt: skip
    rows = []
    for name in ("weight", "activation"):
        cells = [f"{of[name]:,.0f} ms = {1e6 * of[name] / elements[name]:.2f} ns each" for of in (TABLE10, times)]
        rows.append((f"Top-K of {name}s", f"{elements[name]:,}", *cells))
    rows.append(("forward + backward", "", *(f"{of['step']:,.0f} ms" for of in (TABLE10, times))))
    versions = f"NumPy {ours['numpy']}, PyTorch {ours['torch']}"
    cpu = f"one CPU thread, {ours['date']}, {versions}, scaled from batch {ours['measured_batch']}"
    grid = Grid(
        f"ResNet-50, ImageNet, batch {TABLE10_BATCH}", ("what", "elements", "the paper, RTX 2080 Ti", cpu), tuple(rows)
    )
    how = (
        "The paper timed a GPU, which a simulator has none of; ours are the same elements (counted from layer "
        "shapes, the dense first layer aside) selected by `numpy.partition`, and a dense PyTorch step, a recorded "
        "run."
    )
    notes = tuple(f"{c.row}: {c.note}" for c in comparisons if c.note)
    return Figure("table10", "Table 10: Top-K overhead", how, comparisons, (grid,), notes)


def equation_figure(sparsity: float, session: Session) -> Figure:
    """Equation 7 (80 %) or 8 (90 %)."""
    number = 7 if sparsity == 0.8 else 8
    paper = EQUATIONS[sparsity]["speedup"]
    row = next(r for r in TABLE3 if (r.network, r.method, r.sparsity) == ("resnet50", "SWAT-U", sparsity))
    remaining = 1 - flops.columns(conventions.densities(row)).training / 100
    overhead = TABLE10["total"] / TABLE10["step"]
    comparisons = [
        Comparison(
            "the paper's inputs", f"speedup, period {PERIOD}", topk_cost.equation(sparsity), paper, 0.005, "×",
            kind="identity",
        ),
        Comparison(
            "our FLOPs, the paper's times", f"speedup, period {PERIOD}",
            topk_cost.amortized_speedup(remaining, overhead, PERIOD), paper, 0.02, "×",
        ),
    ]  # fmt: skip
    times = topk_cost.recorded()["topk"]["milliseconds"]
    curves = {
        "the paper's inputs": (1 - EQUATIONS[sparsity]["reduction"], overhead),
        "our FLOPs, our times (one CPU thread)": (remaining, (times["weight"] + times["activation"]) / times["step"]),
    }
    notes = []
    simulated = _simulated(session, sparsity)
    if simulated:
        curves[f"our cycles ({PAPER_MACHINE}), our instructions, one a cycle"] = simulated
        notes.append(
            f"On {PAPER_MACHINE} a sparse step takes {simulated[0]:.3f} of a dense one's cycles, not {remaining:.3f} "
            "as the FLOPs say; one Top-K on a scalar core beside it, an instruction a cycle and nothing in "
            f"parallel, takes {simulated[1]:.1f} dense steps of batch {TABLE10_BATCH}. That is the far end: even so "
            f"a period of {PERIOD} keeps {100 * topk_cost.amortized_speedup(*simulated, PERIOD) * simulated[0]:.0f} "
            "% of the speedup."
        )
    else:
        notes.append("No curve from cycles: that needs the whole shipped trace, which --layers or --trace leave out")
    rows = [
        (f"{period:,}", *(f"{topk_cost.amortized_speedup(*inputs, period):.2f}×" for inputs in curves.values()))
        for period in PERIODS
    ]
    rows.append(("never", *(f"{1 / inputs[0]:.2f}×" for inputs in curves.values())))
    grid = Grid("Speedup as a function of the Top-K period", ("period", *curves), tuple(rows))
    how = (
        "P·T / (P·r·T + K): P the period, T a dense iteration, r the FLOPs that remain, K one Top-K of all weights and "
        "activations. This checks the paper's arithmetic, so the paper's own inputs go in; then ours."
    )
    title = f"Equation {number}: amortized speedup at {100 * sparsity:g} %"
    return Figure(f"eq{number}", title, how, tuple(comparisons), (grid,), tuple(notes))


def figure10(session: Session) -> Figure:
    """Figure 10: does the sparsity stay at its target with a periodic Top-K?"""
    ours = topk_cost.recorded()["periodic"]
    period, target = ours["period"], 100 * ours["target"]
    windows = {
        what: [[100 * x for x in ours[what][i : i + period]] for i in range(0, len(ours[what]), period)]
        for what in ("weight", "activation")
    }
    comparisons = []
    for what, of in windows.items():
        later = [x for window in of[1:] for x in window]
        mean = Comparison(
            f"{what}s, after the first period", "mean sparsity", fmean(later), 100 * FIGURE10["sparsity"], 1.0
        )
        fall = Comparison(
            f"{what}s", "deviation, last period / first", pstdev(of[-1]) / pstdev(of[0]), 1.0, 0.0, "", at_most=True
        )
        comparisons += [mean, fall]
    rows = tuple(
        (
            f"{index * period}–{index * period + len(w) - 1}",
            *(f"{f(x):.2f}" for x in (w, a) for f in (min, fmean, max, pstdev)),
        )
        for index, (w, a) in enumerate(zip(windows["weight"], windows["activation"], strict=True))
    )
    cells = [
        f"{what} {stat}" for what in ("weights,", "activations,") for stat in ("least", "mean", "most", "deviation")
    ]
    title = (
        f"Zeros in %, {FIGURE10['network']} on {ours['dataset']}, batch {ours['batch']}, target {target:g} %, "
        f"threshold found anew every {period} iterations (measured {ours['date']}, PyTorch {ours['torch']})"
    )
    how = (
        "A training run of `accelsim.capture`, recorded, with the paper's network, period and target, but on 4000 "
        f"images of CIFAR-10 and only {len(ours['weight'])} iterations; benchmarks/measured.py makes it again. The "
        "paper's curves have no numbers; what it concludes is compared: sparsity concentrates around the target, "
        "and fluctuates less as training goes on."
    )
    return Figure(
        "fig10",
        "Figure 10: sparsity under a periodic Top-K",
        how,
        tuple(comparisons),
        (Grid(title, ("iterations", *cells), rows),),
    )


def _simulated(session: Session, sparsity: float) -> tuple[float, float] | None:
    """On the paper's machine: a sparse step's share of a dense one's cycles, and one Top-K's in dense steps."""
    machine = next(m for m in session.machines() if m.name == PAPER_MACHINE)
    run = session.run(machine)
    if run.problem:
        raise AccelsimError(run.problem)
    selection = next(s for s in topk_cost.recorded_selections() if s.algorithm == "introselect")
    with session.trace() as trace:
        same = trace.network == "resnet50" and trace.dataset == "imagenet"
    if not run.whole or not same or selection.unit != "instructions":
        return None
    steps = {round(row["sparsity"], 6): row["step"] and row["step"] / row["samples"] for row in run.counts.cycles}
    if not steps.get(0.0) or not steps.get(sparsity):
        return None
    elements = sum(topk_cost.selected_elements(conventions.table("resnet50"), TABLE10_BATCH).values())
    largest = max(selection.costs)
    instructions = elements * selection.costs[largest] / largest
    return steps[sparsity] / steps[0.0], instructions / (TABLE10_BATCH * steps[0.0])
