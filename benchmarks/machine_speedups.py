"""What each shipped machine gains on the shipped trace: ``benchmarks/machine_speedups.py [--write docs/machines.md]``.

Prints a Markdown table of speedups over a dense DaDianNao with as many multipliers; ``--write`` puts it between the
marks in a page. tests/test_docs.py (``-m slow``) checks that the page is current.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from page import print_or_write

import accelsim
from accelsim.hardware.machine import baseline_of
from accelsim.study.results import convolutions, summarize

CONFIGS = Path(__file__).parents[1] / "configs"
NEED_VALUES = ("tcle.yaml", "tclp.yaml")  # the shipped trace holds masks
COLUMNS = ("fwd", "input_grad", "weight_grad", "step")


def lines() -> Iterator[str]:
    """The table, a Markdown line at a time; each cell for Top-K 0 %, 80 % and 90 %."""
    yield "| machine | multipliers | fwd | input_grad | weight_grad | step |"
    yield "|---|---|---|---|---|---|"
    with accelsim.open_trace("resnet50.npz") as trace:
        for file in sorted(CONFIGS.glob("*.yaml")):
            if file.name in NEED_VALUES:
                continue
            machine = accelsim.load_machine(file)
            baseline = baseline_of(machine).model_copy(update={"name": "baseline"})
            tables = [accelsim.simulate(m, trace, jobs=2) for m in (machine, baseline)]
            summary = summarize(convolutions(pd.concat(tables)), machine.name, "baseline")
            cells = (" / ".join(f"{row[column]:.2f}" for row in summary.speedup_over_baseline) for column in COLUMNS)
            yield f"| {file.name} | {summary.multipliers:,} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print_or_write("machine_speedups.py", __doc__.splitlines()[0], lines())
