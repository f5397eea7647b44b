"""Does each pass use SWAT's operands, for any layer, and is the model otherwise what it was?"""

import copy
import gc
import io
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from accelsim.capture.swat import SwatConfig, convert  # noqa: E402
from accelsim.capture.swat_layers import SwatConv2d, SwatLinear  # noqa: E402
from accelsim.capture.topk import SAMPLE, TopK, kth_magnitude  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.workload.sparsify import channel_mask, erk, kept, momentum, top_k_mask  # noqa: E402

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # PyTorch's own, of the layers compared with
SPARSE = {"first_dense": False}


@st.composite
def convolutions(draw):
    """A convolution in double precision, and an input that it fits."""
    integers = st.integers
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, filters = groups * draw(integers(1, 2)), groups * draw(integers(1, 3))
    kernel, dilation = (tuple(draw(integers(1, 3)) for _ in "hw") for _ in range(2))
    stride = tuple(draw(integers(1, 3)) for _ in "hw")
    padding = draw(st.sampled_from(["same", "valid", None]))
    if padding == "same":
        stride = (1, 1)
    padding = padding or tuple(draw(integers(0, 2)) for _ in "hw")
    mode = draw(st.sampled_from(["zeros", "zeros", "circular", "reflect", "replicate"]))
    size = tuple((k - 1) * d + 1 + draw(integers(0, 4)) for k, d in zip(kernel, dilation, strict=True))
    torch.manual_seed(draw(integers(0, 2**31)))
    layer = nn.Conv2d(
        channels, filters, kernel, stride, padding, dilation, groups, draw(st.booleans()), mode, dtype=torch.float64
    )
    size = tuple(max(4, s) if mode != "zeros" else s for s in size)
    x = torch.randn(draw(integers(1, 3)), channels, *size, dtype=torch.float64)
    if draw(st.booleans()):
        x, layer = x.relu(), layer.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    return layer, x.requires_grad_()


def top_k(values, sparsity, scope="NCHW"):
    """By the numpy twin."""
    mask = torch.from_numpy(top_k_mask(values.detach().double().numpy(), sparsity, scope))
    return torch.where(mask, values.detach(), 0)


def plain(layer, weight, x):
    """The layer's output with another weight, by PyTorch alone."""
    copied = copy.deepcopy(layer)
    copied.weight = nn.Parameter(weight.detach().clone())
    return copied, copied(x)


def padded(layer, x):
    """What the convolution sees, and a layer that pads no more: padding other than zeros precedes Top-K."""
    if layer.padding_mode == "zeros":
        return layer, x
    seen = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
    bare = copy.deepcopy(layer)
    bare.padding_mode, bare.padding = "zeros", (0, 0)
    return bare, seen


def check(layer, x, config, weight, weight_used_backward=None):
    """Output and the three gradients, against plain layers with the operands that SWAT defines."""
    _, expected = plain(layer, weight, x)
    gradient = torch.randn_like(expected)
    backward_weight = weight if weight_used_backward is None else weight_used_backward
    _, output = plain(layer, backward_weight, x)
    (to_x,) = torch.autograd.grad(output, x, gradient)
    bare, seen = (layer, x) if isinstance(layer, nn.Linear) else padded(layer, x)
    scope = "CHW" if isinstance(layer, nn.Linear) and config.activation_scope == "HW" else config.activation_scope
    wants = config.sparsity if config.activation_sparsity is None else config.activation_sparsity
    third, output = plain(bare, weight, top_k(seen, wants, scope))
    (to_weight,) = torch.autograd.grad(output, third.weight, gradient)
    with convert(layer, config):
        out = layer(x)
        torch.testing.assert_close(out, expected)
        actual = torch.autograd.grad(out, [x, *layer.parameters()], gradient)
    torch.testing.assert_close(actual[0], to_x)
    torch.testing.assert_close(actual[1], to_weight)
    if layer.bias is not None:
        axes = tuple(range(gradient.ndim - 1)) if isinstance(layer, nn.Linear) else (0, 2, 3)
        torch.testing.assert_close(actual[2], gradient.sum(axes))


@given(
    case=convolutions(), sparsity=st.sampled_from([0.0, 0.3, 0.6, 0.9]), scope=st.sampled_from(["NCHW", "CHW", "HW"])
)
@settings(max_examples=150, deadline=None)
def test_a_convolution_multiplies_what_algorithm_1_says(case, sparsity, scope):
    layer, x = case
    check(layer, x, SwatConfig(sparsity, activation_scope=scope, **SPARSE), top_k(layer.weight, sparsity))


@given(
    leading=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    features=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(),
    sparsity=st.sampled_from([0.0, 0.5, 0.9]),
    scope=st.sampled_from(["NCHW", "CHW", "HW"]),
)
@settings(max_examples=60, deadline=None)
def test_a_linear_layer_too(leading, features, bias, sparsity, scope):
    layer = nn.Linear(*features, bias, dtype=torch.float64)
    x = torch.randn(*leading, features[0], dtype=torch.float64, requires_grad=True)
    check(layer, x, SwatConfig(sparsity, activation_scope=scope, **SPARSE), top_k(layer.weight, sparsity))


@given(case=convolutions(), sparsity=st.sampled_from([0.5, 0.8]))
@settings(max_examples=40, deadline=None)
def test_the_variants_multiply_what_they_say(case, sparsity):
    layer, x = case
    dense = layer.weight.detach()
    by_channel = torch.where(torch.from_numpy(channel_mask(dense.numpy(), sparsity)), dense, 0)
    check(layer, x, SwatConfig(sparsity, structure="channel", **SPARSE), by_channel)
    check(layer, x, SwatConfig(sparsity, weight_scope="CHW", **SPARSE), top_k(dense, sparsity, "CHW"))
    check(layer, x, SwatConfig(sparsity, activation_sparsity=0.2, **SPARSE), top_k(dense, sparsity))
    saw = SwatConfig(sparsity, sparse_forward=False, **SPARSE)
    check(layer, x, saw, dense, weight_used_backward=top_k(dense, sparsity))


@given(case=convolutions())
@settings(max_examples=30, deadline=None)
def test_meprop_multiplies_the_top_k_output_gradient_but_for_the_bias(case):
    layer, x = case
    seen, expected = plain(layer, layer.weight, x)
    gradient = torch.randn_like(expected)
    parameters = [x, seen.weight]
    wanted = torch.autograd.grad(expected, parameters, top_k(gradient, 0.6))
    with convert(layer, SwatConfig(0.0, gradient_sparsity=0.6, **SPARSE)) as swat:
        out = layer(x)
        torch.testing.assert_close(out, expected)
        out.backward(gradient)
        assert swat.sparsity()[""]["gradient"] == 1 - kept(gradient.numel(), 0.6) / gradient.numel()
    torch.testing.assert_close([x.grad, layer.weight.grad], list(wanted))
    if layer.bias is not None:
        torch.testing.assert_close(layer.bias.grad, gradient.sum((0, 2, 3)))


def test_the_comparison_itself_fails_on_a_wrong_operand():
    layer, x = nn.Conv2d(2, 3, 3, dtype=torch.float64), torch.randn(2, 2, 5, 5, dtype=torch.float64).requires_grad_()
    config = SwatConfig(0.5, **SPARSE)
    with pytest.raises(AssertionError):
        check(layer, x, config, layer.weight)
    with pytest.raises(AssertionError):
        check(layer, x, config, top_k(layer.weight, 0.5), weight_used_backward=layer.weight)


# Top-K on tensors


@pytest.mark.parametrize("scope", ["NCHW", "CHW", "HW"])
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    sparsity=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    channels_last=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_exactly_k_survive_at_a_refresh_heavy_ties_and_zeros_included(
    scope, shape, sparsity, seed, dtype, channels_last
):
    """The same elements as the numpy twin chooses, in whatever format and order of memory."""
    values = torch.from_numpy(np.random.default_rng(seed).integers(-2, 3, shape)).to(dtype)
    values = values.to(memory_format=torch.channels_last) if channels_last else values
    expected = torch.from_numpy(top_k_mask(values.double().numpy(), sparsity, scope))
    top = TopK(1 - sparsity, scope)
    if sparsity:
        torch.testing.assert_close(top.mask(values, refresh=True), expected)
    kept_values = top(values, refresh=True)
    torch.testing.assert_close(kept_values, values * expected)
    assert top.sparsity == pytest.approx(1 - int(expected.sum()) / expected.numel())


@pytest.mark.parametrize("kind", ["normal", "relu", "few values", "sorted", "striped", "one large"])
def test_the_sampled_threshold_is_exact(kind):
    """Also where the sample misleads: sorted values, a period that meets the sample's, mass in one place."""
    size = 10 * SAMPLE + 7
    values = torch.randn(size, generator=torch.Generator().manual_seed(0)).abs()
    if kind == "relu":
        values[::2] = 0
    elif kind == "few values":
        values = (values * 2).round()
    elif kind == "sorted":
        values = values.sort().values
    elif kind == "striped":
        values[:: (size // SAMPLE) | 1] += 100
    elif kind == "one large":
        values.fill_(1.0)[5] = 2.0
    ordered = values.sort(descending=True).values
    for count in (1, 2, size // 1000, size // 10, size // 5, size // 2, size - 1, size):
        assert kth_magnitude(values, count) == ordered[count - 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_stale_threshold_keeps_what_is_not_below_it(dtype):
    top = TopK(0.5)
    first = torch.tensor([1.0, -3.0, 2.0, 0.5], dtype=dtype)
    assert top(first, refresh=True).tolist() == [0, -3, 2, 0]
    later = torch.tensor([2.0, -2.0, 1.9, -9.0], dtype=dtype)
    assert top(later, refresh=False).tolist() == [2, -2, 0, -9]
    assert top.mask(later, refresh=False).tolist() == [True, True, False, True]
    assert top.sparsity == 0.25
    assert top(torch.tensor([float("nan"), 0.1], dtype=dtype), refresh=False).isnan().tolist() == [True, False]


def test_between_refreshes_samples_meet_the_mean_threshold_and_the_batch_may_shrink():
    top = TopK(0.5, "CHW", samples=True)
    top(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), refresh=True)
    assert top(torch.tensor([[3.9, 4.0]]), refresh=False).tolist() == [[0, 4]]


# The schedule


def small(**options):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return model, torch.randn(16, 3, 8, 8), torch.randint(10, (16,))


def iterate(model, x, y, swat, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    swat.step(optimizer)
    return loss.item()


def test_within_a_period_thresholds_stay_and_weights_cross_them():
    model, x, y = small()
    swat = convert(model, SwatConfig(0.8, period=3))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    top, size, thresholds, counts = swat.layers["3"].swat, model[3].weight.numel(), [], []
    for i in range(7):
        before = model[3].weight.detach().clone()
        iterate(model, x, y, swat, optimizer)
        thresholds.append((top.weight.threshold, top.activation.threshold))
        counts.append(round((1 - swat.sparsity()["3"]["weight"]) * size))
        assert counts[-1] == int((before.abs() >= thresholds[-1][0]).sum())
        if i % 3 == 0:
            assert counts[-1] == kept(size, 0.8)
            assert swat.sparsity()["7"]["activation"] == 1 - kept(16 * 64, 0.8) / (16 * 64)
    assert thresholds[0] == thresholds[1] == thresholds[2] != thresholds[3] == thresholds[4] == thresholds[5]
    assert thresholds[6] != thresholds[5]
    assert counts[1] != counts[0]
    assert swat.iteration == 7


def test_a_period_of_one_follows_weights_that_change_without_step():
    layer, x = nn.Linear(4, 1, bias=False), torch.ones(1, 4)
    convert(layer, SwatConfig(0.75, **SPARSE))
    with torch.no_grad():
        for at in range(4):
            layer.weight.zero_()
            layer.weight[0, at] = at + 1
            assert layer(x).item() == at + 1


@pytest.mark.parametrize("distribution", ["uniform", "erk", "momentum"])
@pytest.mark.parametrize("structure", ["unstructured", "channel"])
def test_training_lowers_the_loss_at_the_stated_sparsity(distribution, structure):
    model, x, y = small()
    swat = convert(model, SwatConfig(0.5, distribution=distribution, structure=structure))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = [iterate(model, x, y, swat, optimizer) for _ in range(40)]
    assert losses[-1] < 0.3 * losses[0]
    model(x)  # under momentum, step() has just set new densities
    for name, layer in swat.layers.items():
        size, columns = layer.weight.numel(), layer.weight.shape[1]
        per_filter = kept(columns, 1 - swat.densities[name][0]) * size // columns
        wanted = per_filter if structure == "channel" else kept(size, 1 - swat.densities[name][0])
        assert round((1 - swat.sparsity()[name]["weight"]) * size) == wanted


def test_inactive_weights_change_and_come_back_and_others_go():
    model, x, y = small()
    swat = convert(model, SwatConfig(0.8))
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    before = model[3].weight.detach().clone()
    iterate(model, x, y, swat, optimizer)
    first = swat.layers["3"].swat.last_active.clone()
    assert (model[3].weight != before)[~first].float().mean() > 0.9
    for _ in range(10):
        iterate(model, x, y, swat, optimizer)
    last = swat.layers["3"].swat.last_active
    assert (last & ~first).any() and (first & ~last).any()
    assert last.sum() == first.sum()


@pytest.mark.parametrize("structure", ["unstructured", "channel"])
def test_masked_updates_leave_inactive_weights_alone(structure):
    model, x, y = small()
    swat = convert(model, SwatConfig(0.8, masked_update=True, structure=structure))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    before = model[3].weight.detach().clone()
    iterate(model, x, y, swat, optimizer)
    active = swat.layers["3"].swat.last_active
    changed = model[3].weight != before
    assert not changed[~active].any() and changed[active].any()


def test_a_frozen_topology_stays_while_its_weights_learn():
    model, x, y = small()
    swat = convert(model, SwatConfig(0.8, period=4, freeze_after=2))
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    masks, weights = [], []
    for _ in range(8):
        iterate(model, x, y, swat, optimizer)
        masks.append(swat.layers["3"].swat.last_active.clone())
        weights.append(model[3].weight.detach().clone())
    assert (masks[0] != masks[2]).any()
    assert all(torch.equal(mask, masks[2]) for mask in masks[2:])
    assert masks[2].sum() == kept(masks[2].numel(), 0.8)
    assert not torch.equal(weights[3], weights[7])
    swat.unfreeze()
    for _ in range(5):
        iterate(model, x, y, swat, optimizer)
    assert not torch.equal(swat.layers["3"].swat.last_active, masks[2])


# Distributions


def test_uniform_leaves_the_first_convolution_dense_and_the_last_layer_if_asked():
    assert convert(small()[0], SwatConfig(0.9)).densities == {"0": (1, 1), "3": (1 - 0.9,) * 2, "7": (1 - 0.9,) * 2}
    both = convert(small()[0], SwatConfig(0.9, last_dense=True, activation_sparsity=0.5)).densities
    assert both == {"0": (1, 1), "3": (1 - 0.9, 0.5), "7": (1, 1)}
    none = convert(small()[0], SwatConfig(0.9, first_dense=False)).densities
    assert set(none.values()) == {(1 - 0.9, 1 - 0.9)}


def test_erk_shares_by_shape():
    shapes = {"0": (8, 3, 3, 3), "3": (16, 8, 3, 3), "7": (10, 64)}
    swat = convert(small()[0], SwatConfig(0.8, distribution="erk", activation_sparsity=0.5))
    assert swat.densities == {name: (erk(shapes, 0.8)[name], erk(shapes, 0.5)[name]) for name in shapes}


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.Adam(p, 1e-3)])
def test_momentum_shares_by_the_momentum_of_active_weights_at_each_refresh(make):
    model, x, y = small()
    swat = convert(model, SwatConfig(0.8, distribution="momentum", period=2))
    optimizer = make(model.parameters())
    assert {round(d, 9) for d, _ in swat.densities.values()} == {0.2}
    iterate(model, x, y, swat, optimizer)
    assert {round(d, 9) for d, _ in swat.densities.values()} == {0.2}
    iterate(model, x, y, swat, optimizer)
    means = {}
    for name, layer in swat.layers.items():
        state = optimizer.state[layer.weight]
        buffer = state["momentum_buffer"] if "momentum_buffer" in state else state["exp_avg"]
        means[name] = float(buffer.abs()[layer.swat.last_active].mean())
    expected = momentum({name: tuple(layer.weight.shape) for name, layer in swat.layers.items()}, 0.8, means)
    assert {name: d for name, (d, _) in swat.densities.items()} == expected
    assert len(set(expected.values())) == 3


def test_a_frozen_layer_keeps_the_average_share_under_momentum():
    model, x, y = small()
    model[3].weight.requires_grad_(False)
    swat = convert(model, SwatConfig(0.8, distribution="momentum"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, momentum=0.9)
    iterate(model, x, y, swat, optimizer)
    assert swat.densities["3"][0] == pytest.approx(0.2)
    assert swat.densities["0"][0] != pytest.approx(0.2)
    sizes = {name: layer.weight.numel() for name, layer in swat.layers.items()}
    nonzero = sum(swat.densities[name][0] * size for name, size in sizes.items())
    assert nonzero == pytest.approx(0.2 * sum(sizes.values()))


# The model stays what it was


def test_restoring_leaves_the_model_as_it_was():
    model, x, _ = small()
    model.eval()
    twin, before, output = copy.deepcopy(model), copy.deepcopy(model.state_dict()), model(x)
    identities = [id(p) for p in model.parameters()]
    with pytest.raises(KeyError), convert(model, SwatConfig(0.9)) as swat:
        assert type(model[0]) is SwatConv2d and type(model[7]) is SwatLinear and type(model[1]) is nn.BatchNorm2d
        assert list(model.state_dict()) == list(before) and [id(p) for p in model.parameters()] == identities
        assert not torch.equal(model(x), output)
        swat.layers["3"].record = lambda *_: None
        raise KeyError
    assert [id(p) for p in model.parameters()] == identities
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
    assert torch.equal(model(x), output)
    for module, same in zip(model.modules(), twin.modules(), strict=True):
        assert type(module) is type(same) and module.__dict__.keys() == same.__dict__.keys()


def test_a_converted_model_can_be_copied_and_saved():
    model, x, _ = small()
    convert(model, SwatConfig(0.9))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), model(x))


def test_a_backward_pass_after_restoring_still_is_swats():
    model, x, _ = small()
    with convert(model, SwatConfig(0.9)):
        model(x).sum().backward()
        expected = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        out = model(x).sum()
    out.backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), expected, strict=True))


class Own(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


def test_what_cannot_be_converted_is_left_and_listed():
    model = nn.ModuleDict({"a": nn.Conv2d(1, 1, 1), "b": Own(1, 1, 1), "c": nn.MultiheadAttention(4, 1)})
    swat = convert(model, SwatConfig(0.5))
    assert list(swat.layers) == ["a"]
    assert swat.skipped == {
        "b": "Own has a forward of its own",
        "c.out_proj": "run by MultiheadAttention without its forward",
    }
    assert type(model["b"]) is Own


def test_a_parametrized_weight_trains_and_survives():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))
    kind, x = type(layer), torch.randn(3, 6)
    with convert(layer, SwatConfig(0.5, **SPARSE)) as swat:
        torch.testing.assert_close(layer(x), F.linear(x, top_k(layer.weight, 0.5), layer.bias))
        layer(x).sum().backward()
        assert swat.sparsity()[""]["weight"] == 0.5
    assert all(p.grad is not None for p in layer.parameters())
    assert type(layer) is kind


# What autograd keeps, and is not asked


def saved_bytes(function):
    """Bytes that autograd packs away while the function runs."""
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        function()
    return packed


def test_the_dense_activation_is_not_kept_alive():
    layer = nn.Conv2d(4, 4, 3)
    convert(layer, SwatConfig(0.9, **SPARSE))
    leaf = torch.randn(2, 4, 8, 8, requires_grad=True)
    activation = leaf + 1  # keeps nothing for its own backward pass
    seen = weakref.ref(activation)
    out = layer(activation)
    del activation
    gc.collect()
    assert seen() is None
    out.sum().backward()
    assert leaf.grad is not None and layer.weight.grad is not None


def test_only_what_the_wanted_gradients_read_is_saved():
    x = torch.randn(2, 4, 8, 8)
    layer = nn.Conv2d(4, 4, 3)
    convert(layer, SwatConfig(0.9, **SPARSE))
    (saved,) = saved_bytes(lambda: layer(x))
    torch.testing.assert_close(saved, top_k(x, 0.9))
    layer.weight.requires_grad_(False)
    (saved,) = saved_bytes(lambda: layer(x.requires_grad_()))
    torch.testing.assert_close(saved, top_k(layer.weight, 0.9))
    assert layer.swat.activation.sparsity is not None
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None and layer.bias.grad is not None


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_evaluation_is_sparse_saves_nothing_and_does_not_disturb_training(guard):
    model, x, y = small()
    swat = convert(model, SwatConfig(0.8, period=2, masked_update=True))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        model.eval()
        with guard():
            before = swat.sparsity()["3"]["activation"]
            assert saved_bytes(lambda: model(x)) == []
            assert swat.sparsity()["3"]["activation"] == before
            hidden = model[2](model[1](model[0](x)))
            used = torch.where(swat.layers["3"].swat.last_active, model[3].weight, 0)
            torch.testing.assert_close(model[3](hidden), F.conv2d(hidden, used, model[3].bias, padding=1))
        model.train()
        iterate(model, x, y, swat, optimizer)


def test_a_second_derivative_is_refused():
    layer, x = nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2, requires_grad=True)
    convert(layer, SwatConfig(0.5))
    with pytest.raises(AccelsimError, match="Conv2d: a SWAT layer has no second derivative"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_under_autocast_operands_are_cast_and_gradients_stay_in_full_precision(dtype):
    model, x, y = small()
    expected, twin = copy.deepcopy(model), copy.deepcopy(model)
    swat = convert(model, SwatConfig(0.8))
    seen = {}
    swat.layers["3"].record = lambda name, tensor: seen.__setitem__(name, tensor)
    with torch.autocast("cpu", dtype):
        out = model(x)
    assert out.dtype is dtype
    assert {name: t.dtype for name, t in seen.items()} == dict.fromkeys(
        ("weight", "activation", "saved_activation"), dtype
    )
    F.cross_entropy(out.float(), y).backward()
    assert all(p.grad.dtype is torch.float32 for p in model.parameters())
    assert torch.equal(seen["weight"], top_k(expected[3].weight, 0.8).to(dtype))
    # Near what full precision gives.
    convert(twin, SwatConfig(0.8))
    F.cross_entropy(twin(x), y).backward()
    assert torch.nn.functional.cosine_similarity(model[3].weight.grad.ravel(), twin[3].weight.grad.ravel(), 0) > 0.98


def test_the_record_gets_the_very_tensors():
    layer, x = nn.Conv2d(2, 3, 3), torch.randn(2, 2, 6, 6)
    convert(layer, SwatConfig(0.7, **SPARSE))
    calls = []
    layer.record = lambda name, tensor: calls.append((name, tensor))
    layer(x)
    assert [name for name, _ in calls] == ["weight", "activation", "saved_activation"]
    tensors = dict(calls)
    assert torch.equal(tensors["weight"], top_k(layer.weight, 0.7))
    assert tensors["activation"].data_ptr() == x.data_ptr()
    assert torch.equal(tensors["saved_activation"], top_k(x, 0.7))
    calls.clear()
    with torch.no_grad():
        layer(x)
    assert [name for name, _ in calls] == ["weight", "activation"]


def test_saw_records_both_weights():
    layer, x, tensors = nn.Linear(6, 5), torch.randn(2, 6), {}
    convert(layer, SwatConfig(0.7, sparse_forward=False, **SPARSE))
    layer.record = tensors.__setitem__
    layer(x)
    assert torch.equal(tensors["weight"], layer.weight)
    assert torch.equal(tensors["backward_weight"], top_k(layer.weight, 0.7))


def test_an_unbatched_input_and_an_empty_batch():
    conv, linear = nn.Conv2d(2, 3, 3), nn.Linear(4, 2)
    for layer, x in ((conv, torch.randn(2, 5, 5)), (linear, torch.randn(4))):
        convert(layer, SwatConfig(0.5, **SPARSE))
        torch.testing.assert_close(layer(x), layer(x.unsqueeze(0))[0])
        layer(x).sum().backward()
        layer(x.unsqueeze(0)[:0]).sum().backward()


def test_a_module_called_twice_adds_its_gradients():
    torch.manual_seed(0)
    layer, x, y = nn.Linear(8, 8), torch.randn(4, 8), torch.randn(4, 8)
    convert(layer, SwatConfig(0.5, **SPARSE))
    (layer(x).sum() + layer(y).sum()).backward()
    torch.testing.assert_close(layer.weight.grad, (top_k(x, 0.5) + top_k(y, 0.5)).sum(0).expand(8, 8))


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1}, r"sparsity: must be a number in \[0, 1\), got 1"),
        ({"sparsity": float("nan")}, "sparsity: must be a number"),
        ({"sparsity": 0.5, "activation_sparsity": -1}, "activation_sparsity: must be a number"),
        ({"sparsity": 0.5, "gradient_sparsity": None}, "gradient_sparsity: must be a number"),
        ({"sparsity": 0.5, "distribution": "ERK"}, "distribution: must be one of uniform, erk, momentum, got 'ERK'"),
        ({"sparsity": 0.5, "structure": "block"}, "structure: must be one of unstructured, channel, got 'block'"),
        ({"sparsity": 0.5, "activation_scope": "N"}, "activation_scope: must be one of NCHW, CHW, HW, got 'N'"),
        ({"sparsity": 0.5, "period": 0}, "period: must be an integer from 1, got 0"),
        ({"sparsity": 0.5, "period": 1.5}, "period: must be an integer from 1, got 1.5"),
        ({"sparsity": 0.5, "freeze_after": -1}, "freeze_after: must be an integer from 0, got -1"),
        ({"sparsity": 0.5, "masked_update": 1}, "masked_update: must be true or false, got 1"),
        ({"sparsity": 0.5, "structure": "channel", "weight_scope": "HW"}, "weight_scope: must be left out"),
        ({"sparsity": 0.5, "distribution": "erk", "last_dense": True}, "last_dense: must be left out"),
    ],
)
def test_a_bad_option_is_refused(options, message):
    with pytest.raises(AccelsimError, match=message) as error:
        SwatConfig(**options)
    assert "\n" not in str(error.value)


def test_a_model_that_cannot_be_converted_is_refused():
    config = SwatConfig(0.5)
    with pytest.raises(AccelsimError, match="must have a Conv2d or Linear, Sequential has none"):
        convert(nn.Sequential(nn.ReLU()), config)
    with pytest.raises(AccelsimError, match="has none but Own has a forward of its own"):
        convert(nn.Sequential(Own(1, 1, 1)), config)
    with pytest.raises(AccelsimError, match="0: a lazy layer must get its shape first"):
        convert(nn.Sequential(nn.LazyConv2d(1, 1)), config)
    model, _, _ = small()
    convert(model, config)
    with pytest.raises(AccelsimError, match="must not be converted yet, but 0 is"):
        convert(model, config)


def test_nan_is_refused_by_name():
    model, x, _ = small()
    convert(model, SwatConfig(0.5))
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(AccelsimError, match=r"^3: weight must be numbers, has NaN$"):
        model(x)
    model, x, _ = small()
    convert(model, SwatConfig(0.5, **SPARSE))
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(AccelsimError, match=r"^0: activation must be numbers, has NaN$"):
        model(x)


def test_momentum_without_momentum_is_refused():
    model, _, _ = small()
    swat = convert(model, SwatConfig(0.5, distribution="momentum"))
    for optimizer in (None, torch.optim.SGD(model.parameters(), 0.1)):
        with pytest.raises(AccelsimError, match="distribution momentum: step"):
            swat.step(optimizer)
    assert swat.iteration == 0
