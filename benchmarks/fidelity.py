"""How near synthetic masks come to real ones: ``python benchmarks/fidelity.py [--write docs/importers.md]``.

The shipped trace against two synthetic ones, both from its snapshot at 80 % alone: fitted, and with the densities of
its layers but no structure. Prints a Markdown table; ``--write`` puts it between the marks in a page.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import accelsim
from accelsim.sweeps.fidelity import cycle_errors
from accelsim.workload.mask_model import MaskModel
from accelsim.workload.synthetic import assemble, fit, reference_of
from accelsim.workload.trace import Trace

BEGIN, END = "<!-- begin: benchmarks/fidelity.py -->\n", "<!-- end -->\n"
MACHINES = ("pe16x16.yaml", "bit-tactical.yaml")


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="the page to put the table in")
    options = parser.parse_args()
    with accelsim.open_trace("resnet50.npz") as shipped:
        table = markdown(shipped)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        options.write.write_text(before + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")
    print(table, end="")
