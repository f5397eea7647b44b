"""Figures that the SWAT paper prints, for comparison only: nothing computes with them.

Raihan and Aamodt, "Sparse Weight Activation Training", NeurIPS 2020.
"""

# Table 6: speedup due to SWAT-U with unstructured pruning on ResNet-50 with ImageNet, by Top-K sparsity and pass. Its
# "backward pass" is the transposed convolution (section 4.4), our input gradient.
TABLE6 = {
    0.0: {"fwd": 1.0, "input_grad": 1.0},
    0.8: {"fwd": 3.3, "input_grad": 3.4},
    0.9: {"fwd": 5.6, "input_grad": 6.3},
}


def table6(network: str, dataset: str, sparsity: float) -> dict[str, float]:
    """The paper's speedups by pass at a sparsity; empty for a network or a sparsity that its Table 6 does not have."""
    if (network.lower(), dataset.lower()) != ("resnet50", "imagenet"):
        return {}
    return TABLE6.get(round(sparsity, 6), {})
