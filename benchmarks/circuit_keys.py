"""What each key of a circuit's costs: ``python benchmarks/circuit_keys.py [--write docs/hardware.md]``.

ResNet-50 at Top-K 90 % (``resnet50.npz``), convolutions, compute cycles: per cent more by pass than with the shipped
key, as a Markdown table. ``--write`` puts it between the marks in a page.
"""

from collections.abc import Iterator

from page import print_or_write

import accelsim
from accelsim.hardware.machine import Machine, machine_with
from accelsim.ledger import CYCLES
from accelsim.workload.lowering import PASSES

KEYS = {
    "tensordash": (
        {"window_ports": 2},
        {"window_ports": 1},
        {"free_skip_at_start": False},
        {"pipeline_drain_cycles": 1},
    ),
    "bit-tactical": ({"window_ports": 2}, {"window_ports": 1}, {"pipeline_drain_cycles": 1}),
    "dadiannao": ({"pipeline_drain_cycles": 1},),
    "scnn": ({"update_cycles": 2}, {"queue_depth": 0}, {"pipeline_drain_cycles": 1}),
    "pe16x16": ({"update_cycles": 2}, {"pipeline_drain_cycles": 1}),
    "pe8x8": ({"update_cycles": 2}, {"pipeline_drain_cycles": 1}),
}


def table(layers: str = "*") -> Iterator[str]:
    """The lines of the table."""
    yield f"| machine | key | {' | '.join(PASSES)} |"
    yield f"|---|---|{'--:|' * len(PASSES)}"
    with accelsim.open_trace("resnet50.npz") as trace:
        chosen = (
            [layer.name for layer in trace.snapshots[0].layers if layer.kind == "conv"] if layers == "*" else layers
        )
        for name, changes in KEYS.items():
            plain = accelsim.load_machine(f"{name}.yaml", memory="none")
            machines = [plain, *(with_keys(plain, keys) for keys in changes)]
            rows = accelsim.simulate(machines, trace, snapshots="swat90", layers=chosen)
            cycles = rows.groupby(["machine", "pass"])[CYCLES.column].sum()
            for machine, keys in zip(machines[1:], changes, strict=True):
                more = (100 * (cycles[machine.name, which] / cycles[name, which] - 1) for which in PASSES)
                said = ", ".join(f"`{key}: {str(value).lower()}`" for key, value in keys.items())
                yield f"| {name} | {said} | {' | '.join(f'{percent:.2f}' for percent in more)} |"


def with_keys(machine: Machine, keys: dict[str, int]) -> Machine:
    """A machine with other keys of its accelerator, and a name that tells them."""
    settings = {f"accelerator.{key}": value for key, value in keys.items()}
    return machine_with(machine, settings | {"name": f"{machine.name} {keys}"[:60]})


if __name__ == "__main__":
    print_or_write("circuit_keys.py", __doc__.partition("\n")[0], table())
