"""What each choice behind Table 6 is worth: ``python benchmarks/table6_choices.py [--write docs/table6.md]``.

Runs the shipped trace on the shipped machine with one choice changed at a time and prints a Markdown table; ``--write``
puts it between the marks in a page. tests/test_docs.py (``-m slow``) checks that the page is current.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
from page import print_or_write

import accelsim
from accelsim.hardware.machine import Machine
from accelsim.study.paper import TABLE6
from accelsim.study.results import summarize
from accelsim.workload.trace import Layer, Trace

CELLS = [("fwd", 0.8), ("fwd", 0.9), ("input_grad", 0.8), ("input_grad", 0.9)]


def convolutions(layer: Layer) -> list[Layer]:
    """The layer, if it is one that Table 6 is over."""
    return [layer] if layer.kind == "conv" else []


@dataclass(frozen=True)
class Choice:
    """One row: the accelerator keys that differ from pe16x16.yaml, or what is done to the layers."""

    name: str
    keys: dict
    layers: Callable[[Layer], Iterable[Layer]] = convolutions


def with_activation(layer: Layer, change: Callable[[np.ndarray], np.ndarray]) -> list[Layer]:
    """The layer, if it is a convolution, with another forward activation; the first layer's image stays."""
    if layer.kind != "conv" or "input_grad" not in layer.passes:
        return convolutions(layer)
    return [replace(layer, tensors={**layer.tensors, "activation": change(layer.tensor("activation"))})]


def shuffled(mask: np.ndarray) -> np.ndarray:
    """As many non-zeros, anywhere."""
    return np.random.default_rng(0).permutation(mask.ravel()).reshape(mask.shape)


def later(layer):
    """The layer, unless it is the first."""
    return convolutions(layer) if "input_grad" in layer.passes else []


CHOICES = [
    Choice("**pe16x16.yaml** on the shipped trace", {}),
    Choice("stride phases", {"stride_phases": True}),
    Choice("halo exchange left out", {"halo_exchange": False}),
    Choice("input gradient of strided layers by phases, not dilated", {"strided_input_grad": "phase"}),
    Choice("4×4 PEs", {"pe_rows": 4, "pe_columns": 4}),
    Choice("8×8 PEs", {"pe_rows": 8, "pe_columns": 8}),
    Choice("8×8 PEs, stride phases (pe8x8.yaml)", {"pe_rows": 8, "pe_columns": 8, "stride_phases": True}),
    Choice("32×32 PEs", {"pe_rows": 32, "pe_columns": 32}),
    Choice("2×2 multipliers, 8 banks", {"activation_width": 2, "weight_width": 2, "banks": 8}),
    Choice("8×8 multipliers, 32 banks", {"activation_width": 8, "weight_width": 8}),
    Choice("16 banks", {"banks": 16}),
    Choice("1024 accumulators", {"accumulators": 1024}),
    Choice("256 accumulators", {"accumulators": 256}),
    Choice("without the first layer, which stays dense", {}, later),
    Choice("with the linear layer", {}, lambda layer: [layer]),
    Choice("activations without zeros", {}, lambda layer: with_activation(layer, np.ones_like)),
    Choice("as many activation zeros, at random places", {}, lambda layer: with_activation(layer, shuffled)),
]  # fmt: skip


def figures(choice: Choice, machine: Machine, trace: Trace) -> tuple[dict, dict]:
    """Speedups and falls of effectual work by (pass, sparsity)."""
    altered = machine.model_copy(update={"accelerator": machine.accelerator.model_copy(update=choice.keys)})
    snapshots = [
        replace(s, layers=tuple(new for layer in s.layers for new in choice.layers(layer))) for s in trace.snapshots
    ]
    view = SimpleNamespace(path=trace.path, snapshots=snapshots)
    table = accelsim.simulate(altered, view, passes=["fwd", "input_grad"], jobs=2)
    summary = summarize(table, machine.name)
    return tuple(
        {(which, row["sparsity"]): row[which] for row in rows for which in ("fwd", "input_grad")}
        for rows in (summary.speedup, summary.fewer_effectual)
    )


def lines() -> Iterator[str]:
    """The table, a Markdown line at a time."""
    machine = accelsim.load_machine("pe16x16.yaml", memory="none")
    yield "| one choice changed | fwd 80 % | fwd 90 % | input_grad 80 % | input_grad 90 % | farthest from the paper |"
    yield "|---|---|---|---|---|---|"
    yield "| *the paper, Table 6* | " + " | ".join(f"*{TABLE6[s][which]:.2f}*" for which, s in CELLS) + " | |"
    with accelsim.open_trace("resnet50.npz") as trace:
        for choice in CHOICES:
            speedup, fewer = figures(choice, machine, trace)
            far = max((speedup[which, s] / TABLE6[s][which] - 1 for which, s in CELLS), key=abs)
            yield (
                f"| {choice.name} | "
                + " | ".join(f"{speedup[cell]:.2f}" for cell in CELLS)
                + f" | {100 * far:+.1f} % |"
            )
            if choice is CHOICES[0]:
                shown = " | ".join(f"{fewer[cell]:.2f}" for cell in CELLS)
    yield f"| *times fewer effectual multiplications* | {shown} | |"


if __name__ == "__main__":
    print_or_write("table6_choices.py", __doc__.splitlines()[0], lines())
