"""SCNN over DCNN, as its publication compares them; and what each of its rules is worth."""

from __future__ import annotations

from typing import Any

from accelsim.hardware.accelerators.base import Accelerator
from accelsim.hardware.machine import load_machine
from accelsim.study.validation.check import SECONDARY, Check, Table, Validation
from accelsim.study.validation.inputs import cycles, gains, scnn_layers

SOURCE = (
    'Parashar et al., "SCNN: An Accelerator for Compressed-sparse Convolutional Neural Networks", ISCA 2017. Its gains '
    "by network and density are known here from secondary sources; the mean of 2.7× over three networks is in its "
    "abstract. Layers and densities: NVIDIA's tables in the public sources of Timeloop."
)
NETWORKS = {"alexnet": ("AlexNet", 2.37), "googlenet": ("GoogLeNet", 2.19)}
DENSITIES = {1.0: 0.79, 0.1: 24.0}
TOLERANCE = 0.1
ANALYTIC = (
    "24 at density 0.1 is what the mean PE would give without imbalance (25.1); it was probably computed so, and is no "
    "target"
)


def scnn(jobs: int) -> Validation:
    """By network with its densities, and GoogLeNet with equal densities."""
    dense, machine = (load_machine(f"{name}.yaml").accelerator for name in ("dcnn", "scnn"))
    checks = []
    for network, (words, theirs) in NETWORKS.items():
        ours, spread = gains(dense, machine, scnn_layers(network), jobs)
        checks.append(
            Check(
                what=words, ours=ours, theirs=theirs, tolerance=TOLERANCE, spread=spread, evidence=SECONDARY
            )
        )  # fmt: skip
    for density, theirs in DENSITIES.items():
        ours, spread = gains(dense, machine, scnn_layers("googlenet", density), jobs)
        judged = density == 1
        checks.append(
            Check(
                what=f"GoogLeNet, densities {density:g}", ours=ours, theirs=theirs, evidence=SECONDARY, spread=spread,
                tolerance=TOLERANCE if judged else None, note="" if judged else ANALYTIC,
            )
        )  # fmt: skip
    return Validation(
        "scnn",
        "SCNN over DCNN",
        SOURCE,
        "`scnn.yaml` over `dcnn.yaml`, the forward pass of one image, random masks with the published densities, three "
        "seeds.",
        tuple(checks),
        notes=(
            "The rules are from secondary notes on the paper: PEs meet where a filter group ends, groups of 8 filters "
            "in late layers, 32 banks, output tiles with halos. The depth of the queues, 8, is another public model's; "
            "`accelsim validate scnn-rules` shows that the two networks cannot tell 2 from 100.",
            "VGG-16 (3.52×) is not compared: its densities are not at hand.",
            "Real masks are more uneven than random ones: on captured activations expect less.",
        ),
    )


def rules(jobs: int) -> Validation:
    """The gains with one rule or another left out, as far as keys of a machine file say it; one seed."""
    dense, today = (load_machine(f"{name}.yaml").accelerator for name in ("dcnn", "pe8x8"))
    machine: Any = load_machine("scnn.yaml").accelerator
    variants: dict[str, Accelerator] = {
        "pe8x8.yaml: a barrier after each channel, no queues, 6,144 accumulators, tiles of the input": today,
        "scnn.yaml without queues (`queue_depth: 0`)": machine.model_copy(update={"queue_depth": 0}),
        "`queue_depth: 2`": machine.model_copy(update={"queue_depth": 2}),
        "scnn.yaml: `queue_depth: 8`, `group_filters: 8`": machine,
        "`queue_depth: 100`": machine.model_copy(update={"queue_depth": 100}),
        "`group_filters: 16`": machine.model_copy(update={"group_filters": 16}),
        "groups as large as accumulators allow (`group_filters: 65536`)": machine.model_copy(
            update={"group_filters": 1 << 16}
        ),
    }
    columns = [scnn_layers(network) for network in NETWORKS]
    columns += [scnn_layers("googlenet", density) for density in (1.0, 0.5, 0.3, 0.1)]
    counted = [cycles([dense, *variants.values()], layers, 0, jobs) for layers in columns]
    cells = [[f"{dense_cycles / own:.2f}×" for own in others] for dense_cycles, *others in counted]
    headings = ("rules", "AlexNet", "GoogLeNet", "GoogLeNet at 1.0", "0.5", "0.3", "0.1")
    return Validation(
        "scnn-rules",
        "What SCNN's rules are worth",
        SOURCE,
        "Gain over `dcnn.yaml`, as above, with one rule or another changed; one seed.",
        tables=(
            Table(
                "", headings, tuple((name, *row) for name, row in zip(variants, zip(*cells, strict=True), strict=True))
            ),
        ),
        notes=(
            "Only what keys of a machine file say is in the table. Four other rules are no keys, for each is another "
            "machine that no publication has. Behind queues a barrier after each channel, or tiles of the padded "
            "input, contradict the notes on the paper; `pe8x8.yaml` has both, without queues. Weights that are "
            "broadcast to all PEs through their FIFOs, and queues at the multipliers, need an order among PEs or "
            "multipliers that nobody describes. Nor is a cycle at least for each channel: the paper's PEs skip a "
            "channel without weights or activations.",
            "Queues are worth most where operands are dense enough to collide; meeting where a filter group ends, not "
            "after each channel, where they are sparse. A group of 8 leaves a channel of a 1×1 layer at most two "
            "vectors of weights, and fewer filters to even out the PEs.",
            "The gradients, of which the paper has none: groups of 8 cost the input gradient what queues gain it, the "
            "more the sparser; the weight gradient has no groups of filters and no collisions, but blocks of 1,024 "
            "partial sums, smaller than `pe8x8.yaml`'s. [machines.md](machines.md) compares both on the "
            "shipped ResNet-50.",
        ),
    )
