"""TensorDash over its own dense tiles, on steps of small networks that were trained for this."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from accelsim.hardware.machine import load_machine
from accelsim.study.validation.check import OURS, Check, Table, Validation
from accelsim.study.validation.inputs import FOLDER
from accelsim.workload.lowering import PASSES, READS, lower
from accelsim.workload.trace import Layer, Trace

NETWORKS = {
    "alexnet": "like AlexNet: five convolutions, three linear layers, dropout",
    "resnet": "ResNet-20",
    "densenet": "a DenseNet of three blocks of four layers",
    "transformer": "three encoder layers, ReLU in their feed-forward part",
}


def tensordash(jobs: int) -> Validation:
    """A dense training step of each network, by pass."""
    machine: Any = load_machine("tensordash.yaml").accelerator
    rows, gains = [], []
    for name, words in NETWORKS.items():
        with Trace.open(FOLDER / f"tensordash_{name}.npz") as trace, ThreadPoolExecutor(jobs) as pool:
            layers = trace.snapshots[0].layers
            counted = list(pool.map(lambda layer: _cycles(machine, layer), layers))
        by_pass = [[sum(layer[i][side] for layer in counted) for side in (0, 1)] for i in range(len(PASSES))]
        gains.append(sum(dense for dense, _ in by_pass) / sum(own for _, own in by_pass))
        rows.append((words, *(f"{dense / own:.2f}×" for dense, own in by_pass), f"{gains[-1]:.2f}×"))
    why = "the inputs are ours: small networks, trained for minutes, not those of the paper; this is no agreement"
    checks = Check(what="mean of four networks", ours=sum(gains) / len(gains), theirs=1.95, tolerance=None,
                   evidence=OURS, note=why)  # fmt: skip
    return Validation(
        "tensordash",
        "TensorDash over its own dense tiles",
        'Mahmoud et al., "TensorDash: Exploiting Sparsity to Accelerate Deep Neural Network Training", MICRO 2020: the '
        "abstract (1.95× on average over the same tiles without skipping, natural sparsity).",
        "`tensordash.yaml` over the same tiles without skipping, all three passes of a step, four samples of a batch "
        "of 32. Networks of the paper's kinds, small, trained dense on 4,000 images of CIFAR-10: "
        "`traces/build_tensordash.py` makes their masks.",
        (checks,),
        (Table("", ("network", "forward", "input gradient", "weight gradient", "step"), tuple(rows)),),
        (
            "Zeros are those that ReLU and pooling leave, in activations and in gradients; batch norm behind a "
            "convolution makes its output's gradients dense, attention and layer norm leave few zeros.",
        ),
    )


def _cycles(machine: Any, layer: Layer) -> list[tuple[int, int]]:
    """Of each pass the cycles of the dense tiles and of the machine; none of one that did not run."""
    found = []
    for which in PASSES:
        if which not in layer.passes:
            found.append((0, 0))
            continue
        names = [name if name in layer.tensors else name.removeprefix("saved_") for name in READS[which]]
        loaded = replace(layer, tensors={name: layer.tensor(name) for name in names})
        convs = lower(loaded, which, strided=machine.strided_input_grad)
        found.append((sum(machine.dense_cycles(c) for c in convs), sum(machine.run(c).cycles for c in convs)))
    return found
