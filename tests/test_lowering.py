"""Does each lowered product equal the pass that it stands for — in numbers, for any shape?"""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from strategies import layers

from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, READS, lower, lower_tensors
from accelsim.workload.metadata import FIRST_LAYER
from accelsim.workload.trace import Layer


def execute(layer, which, strided):
    """The pass's result from its lowered convolutions alone."""
    geometry = layer.geometry
    if which == "input_grad":
        result = np.zeros(geometry.activation_shape(layer.samples), np.int64)
    elif which == "fwd":
        result = np.zeros(geometry.gradient_shape(layer.samples), np.int64)
    else:
        result = np.zeros((geometry.weight_shape[1], geometry.filters, *geometry.kernel), np.int64)
    for conv in lower(layer, which, strided=strided):
        part = reference.convolve(conv.input, conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups)
        result[(slice(None), slice(None), *conv.scatter)] = part
    return result.swapaxes(0, 1) if which == "weight_grad" else result


def expected(layer, which):
    """The pass by its definition."""
    g, tensor = layer.geometry, layer.tensors
    if which == "fwd":
        return reference.convolve(tensor["activation"], tensor["weight"], g.stride, g.padding, g.dilation, g.groups)
    if which == "input_grad":
        return reference.input_grad(g, tensor["gradient"], tensor["weight"])
    return reference.weight_grad(g, tensor["saved_activation"], tensor["gradient"])


@pytest.mark.parametrize("strided", ["dilate", "phase"])
@pytest.mark.parametrize("which", PASSES)
@given(layer=layers(numbers=True, largest=6, channels=3))
@settings(max_examples=120, deadline=None)
def test_the_lowered_product_is_the_pass(layer, which, strided):
    np.testing.assert_array_equal(execute(layer, which, strided), expected(layer, which))


@pytest.mark.parametrize("which", PASSES)
@given(layer=layers(largest=6, channels=4))
@settings(max_examples=80, deadline=None)
def test_the_effectual_count_is_the_number_of_nonzero_products(layer, which):
    """And it is the same for both ways of lowering a strided input gradient."""
    for strided in ("dilate", "phase"):
        for conv in lower(layer, which, strided=strided):
            ones = [(a != 0).astype(np.int64) for a in (conv.input, conv.kernel)]
            counted = reference.convolve(*ones, conv.stride, conv.padding, conv.dilation, conv.groups).sum()
            assert conv.effectual == counted
    total = [sum(c.effectual for c in lower(layer, which, strided=s)) for s in ("dilate", "phase")]
    assert total[0] == total[1]


def test_a_dense_layer_without_padding_has_every_product_effectual():
    g = Geometry(4, 9, 7, 6, (3, 2), stride=(2, 1))
    conv = lower_tensors(g, "fwd", np.ones(g.activation_shape(2), bool), np.ones(g.weight_shape, bool))[0]
    assert conv.effectual == conv.multiplications == 2 * 6 * 4 * 3 * 2 * 4 * 6


def test_the_first_layer_has_no_input_gradient():
    g = Geometry(3, 5, 5, 2, (3, 3))
    layer = Layer("conv1", "conv", g, 1, 1, FIRST_LAYER, {"weight": np.ones(g.weight_shape, bool)})
    assert lower(layer, "input_grad") == []


def test_the_comparison_fails_on_a_wrong_lowering():
    """The helper that all of this rests on notices a kernel that was not rotated."""
    g = Geometry(1, 4, 4, 1, (2, 2))
    weight = np.arange(1, 5).reshape(1, 1, 2, 2)
    layer = Layer("l", "conv", g, 1, 1, PASSES, {"weight": weight, "gradient": np.arange(9).reshape(1, 1, 3, 3)})
    wrong = Layer("l", "conv", g, 1, 1, PASSES, {**layer.tensors, "weight": weight[..., ::-1, ::-1]})
    assert (execute(layer, "input_grad", "phase") == expected(layer, "input_grad")).all()
    assert (execute(wrong, "input_grad", "phase") != expected(layer, "input_grad")).any()


@pytest.mark.parametrize("strided", ["dilate", "phase"])
@given(layer=layers(numbers=True, largest=9, channels=6, kernels=4))
@settings(max_examples=150, deadline=None)
def test_the_lowered_products_are_what_pytorch_computes(layer, strided):
    """The three gradients of torch's own autograd, over random shapes."""
    torch = pytest.importorskip("torch")
    g = layer.geometry
    top, bottom, left, right = g.padding
    values = {name: torch.tensor(np.ascontiguousarray(v), dtype=torch.float64) for name, v in layer.tensors.items()}
    activation, weight = values["saved_activation"].requires_grad_(), values["weight"].requires_grad_()
    padded = torch.nn.functional.pad(activation, (left, right, top, bottom))
    output = torch.nn.functional.conv2d(padded, weight, None, g.stride, 0, g.dilation, g.groups)
    output.backward(values["gradient"])
    forward = Layer(
        "l",
        "conv",
        g,
        layer.samples,
        layer.samples,
        PASSES,
        {**layer.tensors, "activation": layer.tensors["saved_activation"]},
    )
    results = {"fwd": output.detach(), "input_grad": activation.grad, "weight_grad": weight.grad}
    for which in PASSES:
        np.testing.assert_array_equal(execute(forward, which, strided), results[which].numpy())


def test_every_pass_reads_what_swat_says():
    """Sparse weights in the forward pass and the input gradient, the saved activation in the weight gradient only."""
    assert READS == {
        "fwd": ("activation", "weight"),
        "input_grad": ("gradient", "weight"),
        "weight_grad": ("saved_activation", "gradient"),
    }
