"""Figures that the SWAT paper prints, for comparison only.

Raihan and Aamodt, "Sparse Weight Activation Training", NeurIPS 2020. All are as printed: percentages are 0…100, and a
"default sparsity" or a dash is None. Only what checks the paper's own arithmetic takes its numbers in: equations 7 and
8, Table 10's total, and two means in ``claims``; each says so where it is printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelsim.errors import AccelsimError

# Table 1: sparsity across layers, sparse forward pass, sparse input gradient, sparse weight gradient.
TABLE1 = {
    "gmp": ("fixed/variable", "yes/gradual", "yes/gradual", "no"),
    "set": ("fixed", "yes", "yes", "no"),
    "dsr": ("variable", "yes", "yes", "no"),
    "snfs": ("variable", "yes", "yes", "no"),
    "rigl": ("fixed", "yes", "yes", "no"),
    "swat": ("fixed/variable", "yes", "yes", "yes"),
}
# Table 6: speedup due to SWAT-U with unstructured pruning on ResNet-50 with ImageNet, by Top-K sparsity and pass. Its
# "backward pass" is the transposed convolution (section 4.4), our input gradient.
TABLE6 = {
    0.0: {"fwd": 1.0, "input_grad": 1.0},
    0.8: {"fwd": 3.3, "input_grad": 3.4},
    0.9: {"fwd": 5.6, "input_grad": 6.3},
}
# "a 3.3× training speedup" (abstract) at 80 %, "can potentially train 5.9× faster" (section 1), taken to be at 90 %.
TRAINING_SPEEDUP = {0.8: 3.3, 0.9: 5.9}


def table6(network: str, dataset: str, sparsity: float) -> dict[str, float]:
    """The paper's speedups by pass at a sparsity; empty for a network or a sparsity that its Table 6 does not have."""
    if (network.lower(), dataset.lower()) != ("resnet50", "imagenet"):
        return {}
    return TABLE6.get(round(sparsity, 6), {})


@dataclass(frozen=True)
class Row:
    """One row of Tables 2–5 and 7, its accuracies left out.

    Parameters
    ----------
    network : str
        Key of ``accelsim.workload.networks``.
    method : str
        As printed.
    sparsity : float
        Target sparsity of the weights, 0…1.
    weight, activation : float or None
        "Training sparsity", in %.
    training : float or None
        FLOPs of training saved, in %.
    saved : float or None
        "Act ↓": activation elements masked to zero, in %.
    compression : float or None
        Weights over remaining weights.
    inference : float or None
        FLOPs of inference saved, in %.
    """

    network: str
    method: str
    sparsity: float
    weight: float | None = None
    activation: float | None = None
    training: float | None = None
    saved: float | None = None
    compression: float | None = None
    inference: float | None = None

    @property
    def label(self) -> str:
        """Network, method and sparsity, in a line."""
        return f"{self.network} {self.method} {100 * self.sparsity:g} %"

    def printed(self, column: str) -> float:
        """The figure in a column; AccelsimError where the paper prints none."""
        value: float | None = getattr(self, column)
        if value is None:
            raise AccelsimError(f"{self.label}: {column}: must be printed in the paper, is not")
        return value


TABLE2 = (
    Row("cifar_vgg16", "SNFS", 0.95, 95.0, None, 57.0, None, 20.0, 62.9),
    Row("cifar_vgg16", "DST", 0.962, 96.2, None, 75.7, None, 26.3, 83.2),
    Row("cifar_vgg16", "SWAT-U", 0.9, 90.0, 90.0, 89.7, 36.2, 10.0, 89.5),
    Row("cifar_vgg16", "SWAT-ERK", 0.95, 95.0, 82.0, 89.5, 33.0, 20.0, 89.5),
    Row("cifar_vgg16", "SWAT-M", 0.95, 95.0, 65.0, 64.0, 25.0, 20.0, 58.4),
    Row("cifar_wrn16_8", "SNFS", 0.95, 95.0, None, 81.8, None, 20.0, 88.0),
    Row("cifar_wrn16_8", "DST", 0.954, 95.4, None, 83.3, None, 21.7, 91.4),
    Row("cifar_wrn16_8", "SWAT-U", 0.9, 90.0, 90.0, 90.0, 49.0, 10.0, 90.0),
    Row("cifar_wrn16_8", "SWAT-ERK", 0.95, 95.0, 84.0, 91.4, 45.8, 20.0, 91.7),
    Row("cifar_wrn16_8", "SWAT-M", 0.95, 95.0, 78.0, 86.3, 42.5, 20.0, 85.9),
    Row("cifar_densenet121", "SWAT-U", 0.9, 90.0, 90.0, 89.8, 44.0, 10.0, 89.8),
    Row("cifar_densenet121", "SWAT-ERK", 0.9, 90.0, 88.0, 89.7, 43.0, 10.0, 89.6),
    Row("cifar_densenet121", "SWAT-M", 0.9, 90.0, 86.0, 84.2, 42.0, 10.0, 83.6),
)
TABLE3 = (
    Row("resnet50", "SET", 0.8, 80.0, None, 58.1, None, 3.4, 73.0),
    Row("resnet50", "SET", 0.9, 90.0, None, 63.8, None, 5.0, 82.1),
    Row("resnet50", "DSR", 0.8, 80.0, None, 51.6, None, 3.4, 59.4),
    Row("resnet50", "DSR", 0.9, 90.0, None, 58.9, None, 5.0, 70.7),
    Row("resnet50", "SNFS", 0.8, 80.0, None, 45.8, None, 5.0, 43.3),
    Row("resnet50", "SNFS", 0.9, 90.0, None, 57.6, None, 10.0, 59.7),
    Row("resnet50", "RigL", 0.8, 80.0, None, 67.2, None, 5.0, 77.7),
    Row("resnet50", "RigL", 0.9, 90.0, None, 74.1, None, 10.0, 87.4),
    Row("resnet50", "DST", 0.804, 80.4, None, 67.1, None, 5.0, 84.9),
    Row("resnet50", "DST", 0.901, 90.1, None, 75.8, None, 10.0, 91.3),
    Row("resnet50", "SWAT-U", 0.8, 80.0, 80.0, 76.1, 39.2, 5.0, 77.7),
    Row("resnet50", "SWAT-U", 0.9, 90.0, 90.0, 85.6, 44.0, 10.0, 87.4),
    Row("resnet50", "SWAT-ERK", 0.8, 80.0, 52.0, 60.0, 25.5, 5.0, 58.9),
    Row("resnet50", "SWAT-ERK", 0.9, 90.0, 64.0, 79.0, 31.4, 10.0, 77.8),
    Row("resnet50", "SWAT-M", 0.8, 80.0, 49.0, 45.9, 23.7, 5.0, 45.0),
    Row("resnet50", "SWAT-M", 0.9, 90.0, 57.0, 65.4, 27.2, 10.0, 64.8),
    Row("wide_resnet50_2", "SWAT-U", 0.8, 80.0, 80.0, 78.6, 39.1, 5.0, 79.2),
    Row("wide_resnet50_2", "SWAT-U", 0.9, 90.0, 90.0, 88.4, 43.9, 10.0, 89.0),
)
STRUCTURED = "SWAT-U structured"
TABLE4 = (
    Row("cifar_resnet18", STRUCTURED, 0.5, 50.0, 50.0, 49.8, 26.0, 2.0, 49.8),
    Row("cifar_resnet18", STRUCTURED, 0.6, 60.0, 60.0, 59.8, 31.2, 2.5, 59.8),
    Row("cifar_resnet18", STRUCTURED, 0.7, 70.0, 70.0, 69.8, 36.4, 3.3, 69.8),
    Row("cifar_densenet121", STRUCTURED, 0.5, 50.0, 50.0, 49.9, 25.0, 2.0, 49.9),
    Row("cifar_densenet121", STRUCTURED, 0.6, 60.0, 60.0, 59.9, 30.0, 2.5, 59.9),
    Row("cifar_densenet121", STRUCTURED, 0.7, 70.0, 70.0, 69.9, 35.0, 3.3, 69.9),
)
# Table 5 also quotes four offline pruning methods, which are no runs of this paper; it has no column of compression.
TABLE5 = (
    Row("resnet50", STRUCTURED, 0.5, 50.0, 50.0, 47.6, 24.5, None, 48.6),
    Row("resnet50", STRUCTURED, 0.6, 60.0, 60.0, 57.1, 29.5, None, 58.3),
    Row("resnet50", STRUCTURED, 0.7, 70.0, 70.0, 66.6, 34.3, None, 68.0),
    Row("wide_resnet50_2", STRUCTURED, 0.5, 50.0, 50.0, 49.1, 24.5, None, 49.5),
    Row("wide_resnet50_2", STRUCTURED, 0.6, 60.0, 60.0, 58.9, 29.4, None, 59.4),
    Row("wide_resnet50_2", STRUCTURED, 0.7, 70.0, 70.0, 68.7, 34.2, None, 69.3),
)
# CIFAR-100, of which only the sparsities are computational; Table 8's are its targets and nothing else.
TABLE7 = (
    Row("cifar_vgg16", "SWAT-U", 0.9, 90.0, 90.0),
    Row("cifar_vgg16", "SWAT-ERK", 0.9, 90.0, 69.6),
    Row("cifar_vgg16", "SWAT-M", 0.9, 90.0, 59.9),
    Row("cifar_wrn16_8", "SWAT-U", 0.9, 90.0, 90.0),
    Row("cifar_wrn16_8", "SWAT-ERK", 0.9, 90.0, 77.6),
    Row("cifar_wrn16_8", "SWAT-M", 0.9, 90.0, 73.3),
    Row("cifar_densenet121", "SWAT-U", 0.9, 90.0, 90.0),
    Row("cifar_densenet121", "SWAT-ERK", 0.9, 90.0, 90.0),
    Row("cifar_densenet121", "SWAT-M", 0.9, 90.0, 84.2),
)
FLOPS_TABLES = {"table2": TABLE2, "table3": TABLE3, "table4": TABLE4, "table5": TABLE5, "table7": TABLE7}

# Table 9: instructions retired by numpy.partition, by array size (Vtune, Core i9-7920X).
TABLE9 = {1_000: 15_215, 10_000: 217_863, 100_000: 1_381_744, 1_000_000: 12_454_369}
# Table 10: milliseconds on a GeForce RTX 2080 Ti, ResNet-50, ImageNet, batch 32.
TABLE10 = {"weight": 18.0, "activation": 452.0, "step": 147.0, "total": 470.0}
TABLE10_BATCH = 32
# Equations 7 and 8, by sparsity: the speedup at a Top-K period of 1000, and the FLOP reduction that goes in.
PERIOD = 1000
EQUATIONS = {0.8: {"speedup": 4.13, "reduction": 0.761}, 0.9: {"speedup": 6.79, "reduction": 0.856}}
# Figure 10: ResNet-18 on CIFAR-100, Top-K period 100, target 90 %; the curves have no numbers in the text.
FIGURE10: dict[str, Any] = {"network": "cifar_resnet18", "dataset": "CIFAR-100", "period": 100, "sparsity": 0.9}

# The abstract: the footprint of the backward pass shrinks by 23 %–50 % (activations) and 50 %–90 % (weights).
MEMORY = {"activation": (23.0, 50.0), "weight": (50.0, 90.0)}
# Computational claims in the running text, by where they are.
CLAIMS = {
    "abstract, training FLOPs saved, ResNet-50 at 80 % (%)": 80.0,
    "4.2, remaining FLOPs, SNFS over SWAT-U, harmonic mean (×)": 2.53,
    "4.2, remaining FLOPs, DST over SWAT-U, harmonic mean (×)": 1.96,
    "4.3, training FLOPs, ResNet-18 structured 70 % (×)": 3.3,
    "4.3, training FLOPs, DenseNet-121 structured 70 % (×)": 3.3,
    "4.3, training FLOPs, ResNet-50 structured 70 % (×)": 3.19,
    "A.8, parameters in batch norms, at most (%)": 1.01,
    "A.8, computation in batch norms, at most (%)": 0.8,
}
