"""All machines on several networks at Top-K 80 %: ``python benchmarks/networks.py [--write docs/machines.md]``.

What ``accelsim compare`` gives for each of the shipped traces, as one Markdown table: of a training step the speedup
over as many multipliers that are always busy, gain × shape. ``--write`` puts it between the marks in a page.
"""

from collections.abc import Iterator
from pathlib import Path

from page import print_or_write

import accelsim
from accelsim.study.compare import compare

NETWORKS = {
    "ResNet-50, ImageNet": "resnet50.npz",
    "ResNet-20, CIFAR-10": "resnet20-cifar10.npz",
    "GPT, text": "gpt.npz",
}
SPARSITY = 0.8
CONFIGS = Path(__file__).parent.parent / "configs"


def rows(layers: str = "*", machines: tuple[str, ...] = ()) -> dict[str, dict[str, dict[str, float]]]:
    """Of each machine and network speedup, gain and shape of a step; nothing of a machine that cannot run it."""
    chosen = machines or tuple(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    loaded = [accelsim.load_machine(f"{name}.yaml") for name in chosen]
    found: dict[str, dict[str, dict[str, float]]] = {machine.name: {} for machine in loaded}
    for network, file in NETWORKS.items():
        with accelsim.open_trace(file) as trace:
            names = [snapshot.name for snapshot in trace.snapshots if snapshot.sparsity == SPARSITY]
            table = compare(loaded, trace, layers=layers, snapshots=names, jobs=2).rows
        for row in table.to_dict("records"):
            found[row["machine"]][network] = {what: row[f"step_{what}"] for what in ("speedup", "gain", "shape")}
    return found


def table() -> Iterator[str]:
    """The lines of the Markdown table, by the speedup on the first network, then on the last."""
    found = rows()
    yield f"| machine | {' | '.join(NETWORKS)} |"
    yield "|---|" + "---|" * len(NETWORKS)
    order = sorted(found, key=lambda name: [-found[name].get(n, {"speedup": 0})["speedup"] for n in NETWORKS])
    for name in order:
        cells = [_cell(found[name].get(network)) for network in NETWORKS]
        yield f"| {name} | {' | '.join(cells)} |"


def _cell(row: dict[str, float] | None) -> str:
    return f"{row['speedup']:.2f}× = {row['gain']:.2f} × {row['shape']:.2f}" if row else "needs values"


if __name__ == "__main__":
    print_or_write("networks.py", __doc__.partition("\n")[0], table())
