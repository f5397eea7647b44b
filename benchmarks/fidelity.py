"""How near synthetic masks come to real ones: ``python benchmarks/fidelity.py [--write docs/importers.md]``.

The shipped trace against two synthetic ones, both from its snapshot at 80 % alone: fitted, and with the densities of
its layers but no structure. Then the shipped trace of seven levels against one fitted to its 80 %, at the levels that
the fit never saw. Prints two Markdown tables; ``--write`` puts them between the marks in a page.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import accelsim
from accelsim.sweeps.fidelity import cycle_errors
from accelsim.workload.lowering import PASSES
from accelsim.workload.mask_model import MaskModel
from accelsim.workload.synthetic import assemble, fit, fitted, reference_of
from accelsim.workload.trace import Trace

BEGIN, END = "<!-- begin: benchmarks/fidelity.py -->\n", "<!-- end -->\n"
MACHINES = ("pe16x16.yaml", "bit-tactical.yaml")
OF_LEVELS = (*MACHINES, "tensordash.yaml", "cambricon-x.yaml")


def without_structure(blueprint):
    """The same densities, every position alike."""
    models = {
        name: MaskModel.uniform(getattr(blueprint, name).density) for name in ("weight", "activation", "gradient")
    }
    return replace(blueprint, **models, saved=None)


def rows(trace: Trace):
    """Machine, sparsity and pass; errors of the sum of cycles, and the root mean square of the layers' errors."""
    reference = reference_of(trace)
    fitted = [fit(layer) for layer in reference.layers]
    how = {"path": trace.path, "network": trace.network, "samples": reference.batch, "batch": reference.batch}
    sparsities = [snapshot.sparsity for snapshot in trace.snapshots]
    plain = [without_structure(blueprint) for blueprint in fitted]
    traces = [assemble(b, sparsities, **how) for b in (fitted, plain)]
    for name in MACHINES:
        machine = accelsim.load_machine(name)
        tables = [cycle_errors(machine, trace, synthetic, jobs=2) for synthetic in traces]
        for one, two in zip(*(table.to_dict("records") for table in tables), strict=True):
            yield name, one["sparsity"], one["pass"], one["error"], one["layer_error"], two["error"], two["layer_error"]


def markdown(trace: Trace) -> str:
    """The table, and the command that made it."""
    lines = [
        "| machine | Top-K | pass | fitted: all layers | a layer (rms) | no structure: all layers | a layer (rms) |",
        "|---|---|---|---|---|---|---|",
    ]
    for machine, sparsity, which, *errors in rows(trace):
        sums, layers = errors[::2], errors[1::2]
        cells = [text for pair in zip(sums, layers, strict=True) for text in (f"{pair[0]:+.1%}", f"{pair[1]:.1%}")]
        lines.append(f"| {machine} | {100 * sparsity:g} % | {which} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def levels(trace: Trace) -> str:
    """The second table: errors of the sum of cycles at all levels, fitted to 80 % alone."""
    sparsities = [snapshot.sparsity for snapshot in trace.snapshots]
    drawn = fitted(trace, sparsities, reference="swat80")
    heads = [f"{100 * sparsity:g} %" + (" (fitted)" if sparsity == 0.8 else "") for sparsity in sparsities]
    lines = [f"| machine | pass | {' | '.join(heads)} |", "|---|---|" + "---|" * len(sparsities)]
    for name in OF_LEVELS:
        errors = cycle_errors(accelsim.load_machine(name, memory="none"), trace, drawn, jobs=2)
        by_pass = errors.pivot(index="pass", columns="sparsity", values="error")
        for which in PASSES:
            cells = " | ".join(f"{error:+.1%}" for error in by_pass.loc[which, sparsities])
            lines.append(f"| {name} | {which} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="the page to put the table in")
    options = parser.parse_args()
    with accelsim.open_trace("resnet50.npz") as shipped, accelsim.open_trace("resnet50-levels.npz") as of_levels:
        table = markdown(shipped) + "\n" + levels(of_levels)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        options.write.write_text(before + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")
    print(table, end="")
