"""What bit-level machines gain at 16, 8 and 4 bits: ``python benchmarks/bit_widths.py [--write docs/machines.md]``.

The values of a trained ResNet-20, as integers of so many bits, on the shipped machines, which are 16 bits wide. Prints
a Markdown table of speedups over bit-parallel multipliers in the same tiles, as many as the machine is worth, beside
what its publication states; ``--write`` puts it between the marks in a page.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from page import print_or_write

import accelsim
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.bits import fixed_point
from accelsim.hardware.machine import Machine, parse_machine
from accelsim.study.results import convolutions
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.trace import Trace

TRACE = "resnet20-cifar10.npz"
WIDTHS = (16, 8, 4)
# Machine, snapshot, and the speedup that its publication states over a dense bit-parallel accelerator, with where.
ROWS = (
    ("stripes", "dense", "1.92×, 1.30× to 4.51× (MICRO 2016, abstract)"),
    ("shapeshifter", "dense", "not had: its abstract states traffic alone"),
    ("loom", "dense", "not had"),
    ("pragmatic", "dense", "4.3×; 4.5× over one of 8 bits (preprint at ICLR 2017, abstract)"),
    ("laconic", "dense", "15.4× with half the wires for weights (arXiv 1805.04513, abstract)"),
    ("tclp", "dense", "the next row's"),
    ("tcle", "dense", "not had"),
    ("tclp", "swat80", "5.05× (arXiv 1803.03688, abstract): pruned networks, precisions by layer"),
    ("tcle", "swat80", "not had"),
)


def quantised(trace: Trace, width: int, layers: Iterable[str] | None = None) -> SyntheticTrace:
    """The trace's numbers as integers of ``width`` bits, in 16, by the greatest magnitude of each tensor."""
    snapshots = []
    for snapshot in trace.snapshots:
        kept = []
        for layer in snapshot.layers:
            if layers is None or layer.name in layers:
                numbers = {name: layer.tensor(name) for name in layer.tensors}
                integers = {n: fixed_point(v, v, width, "width").astype(np.int16) for n, v in numbers.items()}
                kept.append(replace(layer, tensors=integers))
        snapshots.append(replace(snapshot, layers=tuple(kept)))
    return SyntheticTrace(trace.path, trace.network, trace.dataset, tuple(snapshots))


def bit_parallel(machine: Machine) -> Machine:
    """The same tiles with multipliers that take a whole product a cycle: DaDianNao's."""
    own = machine.resolved()
    keys = {name: own["accelerator"][name] for name in DaDianNao.model_fields if name in own["accelerator"]}
    return parse_machine(own | {"name": f"{machine.name}, bit-parallel", "accelerator": keys | {"model": "dadiannao"}})


def gains(trace: Trace, machine: Machine, layers: Iterable[str] | None = None) -> dict[tuple[str, int], pd.Series]:
    """By snapshot and width, how many times less each pass and the step take than as many multipliers as it is worth.

    A bit-serial multiplier is worth 1/16 of one that takes a whole product a cycle, or less: in the same tiles those
    take as many times less than all of its multipliers would.
    """
    accelerator, rows = machine.accelerator, {}
    lanes_of_a_product = accelerator.multipliers / accelerator.baseline_multipliers
    for width in WIDTHS:
        table = accelsim.simulate([machine, bit_parallel(machine)], quantised(trace, width, layers), jobs=2)
        cycles = convolutions(table).pivot_table("cycles", ["snapshot", "machine"], "pass", aggfunc="sum")
        cycles["step"] = cycles.sum(axis=1)
        for snapshot in cycles.index.unique("snapshot"):
            of_snapshot = cycles.loc[snapshot]
            parallel = lanes_of_a_product * of_snapshot.loc[f"{machine.name}, bit-parallel"]
            rows[snapshot, width] = parallel / of_snapshot.loc[machine.name]
    return rows


def table() -> Iterator[str]:
    """The lines of the Markdown table."""
    heads = [f"{what}, {width} bits" for what in ("forward", "step") for width in WIDTHS]
    yield f"| machine | Top-K | {' | '.join(heads)} | as published, inference |"
    yield "|---|---|" + "---|" * (len(heads) + 1)
    with accelsim.open_trace(TRACE) as trace:
        sparsities = {snapshot.name: f"{100 * snapshot.sparsity:g} %" for snapshot in trace.snapshots}
        machines = {name: accelsim.load_machine(f"{name}.yaml", memory="none") for name, *_ in ROWS}
        found = {name: gains(trace, machine) for name, machine in machines.items()}
    for name, snapshot, published in ROWS:
        cells = [f"{found[name][snapshot, width][which]:.2f}×" for which in ("fwd", "step") for width in WIDTHS]
        yield f"| {name} | {sparsities[snapshot]} | {' | '.join(cells)} | {published} |"


if __name__ == "__main__":
    print_or_write("bit_widths.py", __doc__.partition("\n")[0], table())
