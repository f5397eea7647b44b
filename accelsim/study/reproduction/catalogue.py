"""``accelsim reproduce``: the list of the paper's computational figures, and what computes each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from accelsim.errors import AccelsimError
from accelsim.study.reproduction import machines, shapes, topk
from accelsim.study.reproduction.figure import Figure
from accelsim.study.reproduction.session import Session

# Name → what it is in a line, and what computes it; ``all`` goes in this order.
FIGURES: dict[str, tuple[str, Callable[[Session], Figure]]] = {
    "table2": (
        "FLOPs, activations, compression: unstructured, CIFAR-10",
        partial(shapes.flops_table, "table2"),
    ),
    "table3": ("the same: unstructured, ImageNet", partial(shapes.flops_table, "table3")),
    "table4": ("the same: structured, CIFAR-10", partial(shapes.flops_table, "table4")),
    "table5": ("the same: structured, ImageNet", partial(shapes.flops_table, "table5")),
    "table7": ("sparsities, CIFAR-100", partial(shapes.flops_table, "table7")),
    "counting": ("how the paper counted: every combination tried", shapes.counting),
    "memory": ("memory of the backward pass (abstract)", shapes.memory),
    "claims": ("computational claims in the text", shapes.claims),
    "table6": ("speedup on an accelerator, all machines (simulates)", machines.table6_figure),
    "speedup": ("speedup against FLOPs saved (simulates)", machines.speedup_figure),
    "table9": ("instructions of one Top-K", topk.table9_figure),
    "table10": ("Top-K against a training step", topk.table10_figure),
    "eq7": ("amortized speedup at 80 % (simulates)", partial(topk.equation_figure, 0.8)),
    "eq8": ("amortized speedup at 90 % (simulates)", partial(topk.equation_figure, 0.9)),
    "fig10": ("sparsity under a periodic Top-K", topk.figure10),
}
# What takes longer than a few seconds.
SIMULATED = ("table6", "speedup", "eq7", "eq8")


def reproduce(names: Iterable[str], session: Session | None = None) -> list[Figure]:
    """Computes figures by name; "all" is all of them.

    Raises
    ------
    AccelsimError
        If a name is unknown, or what a simulation raises.
    """
    names = check(names)
    chosen = list(FIGURES) if "all" in names else dict.fromkeys(names)
    session = session or Session()
    return [FIGURES[name][1](session) for name in chosen]


def check(names: Iterable[str]) -> list[str]:
    """The names, if all are known; AccelsimError if not."""
    names = list(names)
    for name in names:
        if name != "all" and name not in FIGURES:
            raise AccelsimError(f"figure: must be one of {', '.join(FIGURES)}, all, got {name}")
    return names
