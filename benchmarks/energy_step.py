"""What energy does where time falls: ``python benchmarks/energy_step.py [--write docs/energy.md]``.

A training step of the shipped ResNet-50 on the array of Table 6, with its tensors stored dense and as bit masks. Prints
a Markdown table; ``--write`` puts it between the marks in a page.
"""

from collections.abc import Iterable, Iterator

from page import print_or_write

import accelsim
from accelsim.study.results import convolutions

MEMORIES = {"dense": {}, "bit masks (ddr4.yaml)": {"memory": "ddr4.yaml"}}
PARTS = {"off-chip": "offchip_pj", "weights into PEs": "weight_buffer_pj", "multipliers": "multipliers_pj"}


def table(layers: str | Iterable[str] = "*") -> Iterator[str]:
    """The lines of the Markdown table."""
    yield f"| tensors stored | Top-K | energy, mJ | times less | cycles, times less | {' | '.join(PARTS)} |"
    yield "|---|---|---|---|---|" + "---|" * len(PARTS)
    with accelsim.open_trace("resnet50.npz") as trace:
        for stored, how in MEMORIES.items():
            machine = accelsim.load_machine("pe16x16.yaml", **how)
            step = convolutions(accelsim.simulate(machine, trace, layers=layers, jobs=2))
            sums = step.groupby("sparsity")[["cycles", "energy_pj", *PARTS.values()]].sum()
            for sparsity, row in sums.iterrows():
                less = [sums.iloc[0][count] / row[count] for count in ("energy_pj", "cycles")]
                cells = [f"{row['energy_pj'] / 1e9:.1f}", *(f"{ratio:.2f}×" for ratio in less)]
                cells += [f"{row[part] / row['energy_pj']:.0%}" for part in PARTS.values()]
                yield f"| {stored} | {100 * sparsity:g} % | {' | '.join(cells)} |"


if __name__ == "__main__":
    print_or_write("energy_step.py", __doc__.partition("\n")[0], table())
