"""Cnvlutin and Eyeriss v2's PE beside their publications."""

from __future__ import annotations

from typing import Any

from accelsim.hardware.machine import load_machine
from accelsim.study.validation.check import EXACT, Check, Table, Validation
from accelsim.study.validation.inputs import FOLDER, alexnet_from_the_image, eyeriss_layers, gains, scnn_layers


def cnvlutin(jobs: int) -> Validation:
    """On the activation densities of SCNN's table: the two networks within the published range, their mean near its."""
    machine: Any = load_machine("cnvlutin.yaml").accelerator
    networks = {"AlexNet": alexnet_from_the_image(), "GoogLeNet": scnn_layers("googlenet")}
    found = {words: gains(machine.dense, machine, layers, jobs) for words, layers in networks.items()}
    checks = [
        Check(what=words, ours=ours, theirs=(1.24, 1.55), spread=spread) for words, (ours, spread) in found.items()
    ]
    mean = sum(ours for ours, _ in found.values()) / len(found)
    two = "the published mean is over six networks, of which two are here: these two need not have it"
    checks.append(Check(what="their mean", ours=mean, theirs=1.37, tolerance=0.05, expected=False, note=two))
    return Validation(
        "cnvlutin",
        "Cnvlutin over DaDianNao",
        'Albericio et al., "Cnvlutin: Ineffectual-Neuron-Free Deep Neural Network Computing", ISCA 2016: the abstract '
        "(1.24× to 1.55× by network, 1.37× on average). Densities of activations: NVIDIA's tables in the public "
        "sources of Timeloop.",
        "`cnvlutin.yaml` over the same tiles without skipping, the forward pass of one image, random masks with the "
        "published densities, three seeds.",
        tuple(checks),
        notes=(
            "The densities are another group's than Cnvlutin's. AlexNet has its shapes of 2016: the image before its "
            "first layer, of which Cnvlutin skips nothing, and two layers in two groups. GoogLeNet's table begins "
            "behind its second layer.",
        ),
    )


def eyeriss_v2_pe(jobs: int) -> Validation:
    """Eight layers with their own masks: the published cycles, each exactly."""
    machine = load_machine(FOLDER / "eyeriss-v2-pe.yaml").accelerator
    checks, statistical = [], []
    for name, conv, theirs, share in eyeriss_layers():
        ours = machine.run(conv).cycles
        checks.append(Check(what=name, ours=ours, theirs=theirs, unit="cycles", evidence=EXACT))
        statistical.append((name, f"{ours / theirs:.3f}", f"{share:.3f}"))
    return Validation(
        "eyeriss-v2-pe",
        "A PE of Eyeriss v2",
        'Chen et al., "Eyeriss v2", JETCAS 2019; masks and cycles of eight pointwise layers of sparse MobileNet 0.5: '
        'artefact of Wu et al., "Sparseloop", MICRO 2022, figure 12.',
        "`eyeriss-v2-pe.yaml` on the published masks. Nothing is drawn, and no cycle may differ.",
        tuple(checks),
        (Table("As a share of the published cycles", ("layer", "ours", "a statistical model (Sparseloop)"),
               tuple(statistical)),),
        (
            "The published cycles are one for each product of two non-zeros, so they show that real masks are counted "
            "as they are, not how a PE waits. That the chip's PE has two multipliers is not in them.",
            "The whole array of Eyeriss v2, 8 × 2 clusters of 3 × 4 PEs on a hierarchical mesh, is not modelled: its "
            "cycles for these layers are not public. Its abstract has one figure, 1,470.6 inferences a second of a "
            "whole sparse MobileNet, whose masks, and how the authors' mapper laid each layer on the clusters and "
            "chose the modes of the mesh, are not at hand. A machine would be our mapping, with nothing to hold it "
            "against.",
        ),
    )  # fmt: skip
