"""Is what the recorder writes what the three convolutions of a step really used, and is the model left alone?"""

import copy
import dataclasses
import io
import os
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import accelsim  # noqa: E402
from accelsim.capture import Recorder, Selection  # noqa: E402
from accelsim.errors import OutputError, TraceError  # noqa: E402
from accelsim.workload.lowering import lower, lower_tensors, operands  # noqa: E402
from accelsim.workload.trace import Trace  # noqa: E402

torch.set_num_threads(1)
KEPT = {field.name for field in dataclasses.fields(Selection)}


def record(model, path, run, *, steps=(0,), count=1, **options):
    """Runs a step `count` times under a Recorder; gives the layers of the last snapshot, read into memory."""
    kept = {key: options.pop(key) for key in KEPT if key in options}
    keep = Selection(**{"values": True, "samples": 64} | kept)
    with Recorder(model, path, steps=steps, keep=keep, **{"force": True} | options) as recorder:
        for _ in range(count):
            with recorder.step():
                run()
    return read(path)


def read(path):
    """Per layer of the last snapshot: (Layer, {tensor: ndarray})."""
    with Trace.open(path) as trace:
        return {
            layer.name: (layer, {name: numbers(layer.tensors[name]) for name in layer.tensors})
            for layer in trace.snapshots[-1].layers
        }


def numbers(array):
    """bfloat16 comes from a trace as its bits."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def backward(model, inputs):
    """A loss whose gradient differs everywhere."""
    out = model(inputs)
    (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()


def execute(geometry, which, first, second):
    """One pass from its lowered convolutions alone."""
    shapes = {"fwd": geometry.gradient_shape(len(first)), "input_grad": geometry.activation_shape(len(first))}
    shapes["weight_grad"] = (geometry.weight_shape[1], geometry.filters, *geometry.kernel)
    result = np.zeros(shapes[which])
    for conv in lower_tensors(geometry, which, first.astype(float), second.astype(float)):
        part = reference.convolve(conv.input, conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups)
        result[(slice(None), slice(None), *conv.scatter)] = part
    return result.swapaxes(0, 1) if which == "weight_grad" else result


def check_passes(found, output=None, input_grad=None, weight_grad=None):
    """The three passes from what was recorded equal what PyTorch computed: arrays in the trace's own shapes."""
    layer, tensor = found
    saved = tensor.get("saved_activation", tensor["activation"])
    operands = {"fwd": (tensor["activation"], tensor["weight"]), "weight_grad": (saved, tensor.get("gradient"))}
    operands["input_grad"] = tensor.get("gradient"), tensor["weight"]
    for which, wanted in (("fwd", output), ("input_grad", input_grad), ("weight_grad", weight_grad)):
        if wanted is not None:
            got = execute(layer.geometry, which, *operands[which])
            np.testing.assert_allclose(got, wanted.detach().double().numpy(), rtol=1e-4, atol=1e-5)


def net(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers)


def small():
    return net(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))


def untouched(model):
    """Whether nothing of a recorder is on the model."""
    return not any({"forward", "record"} & module.__dict__.keys() for module in model.modules())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


# What is recorded


@st.composite
def convolutions(draw):
    """A Conv2d of any kind, and the size of an input that it takes."""
    pair = lambda most: (draw(st.integers(1, most)), draw(st.integers(1, most)))  # noqa: E731
    groups, kernel, dilation = draw(st.sampled_from([1, 1, 2, 3])), pair(3), pair(2)
    padding = draw(st.sampled_from(["same", "valid", 0, 1, (2, 0), (0, 3)]))
    stride = (1, 1) if padding == "same" else pair(3)
    depthwise = draw(st.booleans())
    channels = groups * (1 if depthwise else draw(st.integers(1, 2)))
    filters = groups * draw(st.integers(1, 2))
    mode = (
        draw(st.sampled_from(["zeros"] * 3 + ["circular", "replicate"])) if padding not in ((0, 3), (2, 0)) else "zeros"
    )
    size = tuple((k - 1) * d + 1 + draw(st.integers(0, 3)) for k, d in zip(kernel, dilation, strict=True))
    bias = draw(st.booleans())
    layer = (channels, filters, kernel, stride, padding, dilation, groups, bias, mode)
    return layer, size


@given(convolution=convolutions(), batch=st.integers(1, 2), channels_last=st.booleans())
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_the_recorded_tensors_give_the_layers_own_three_passes(tmp_path_factory, convolution, batch, channels_last):
    """For random convolutions between others, under in-place ReLUs: all by the lowering and the naive convolution."""
    arguments, size = convolution
    layer = nn.Conv2d(*arguments)
    model = net(nn.Conv2d(2, layer.in_channels, 1), nn.ReLU(inplace=True), layer, nn.ReLU(inplace=True))
    inputs = torch.randn(batch, 2, *size)
    if channels_last and layer.in_channels > 1:  # PyTorch 2.13 reads beyond maps of one channel on the CPU
        model, inputs = model.to(memory_format=torch.channels_last), inputs.to(memory_format=torch.channels_last)
    path = tmp_path_factory.getbasetemp() / "random.npz"
    found = record(model, path, lambda: backward(model, inputs))

    grads = [parameter.grad.clone() for parameter in model.parameters()]
    between = model[1](model[0](inputs)).detach().requires_grad_()
    result = layer(between)
    relu = torch.relu(result)  # the twin changes nothing in place
    (relu * torch.linspace(-1, 1, relu.numel()).reshape(relu.shape)).sum().backward()
    no_bias = result if layer.bias is None else result - layer.bias[:, None, None]
    # Other paddings, and those of which one side has more, are part of the recorded input.
    plain = layer.padding_mode == "zeros" and found["2"][1]["activation"].shape == tuple(between.shape)
    check_passes(found["2"], no_bias, between.grad if plain else None, grads[2])
    check_passes(found["0"], weight_grad=grads[0])
    assert ["input_grad" in found[name][0].passes for name in ("0", "2")] == [False, True]


@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 5), (2, 3, 2, 5)])
def test_a_linear_layer_is_a_convolution_on_a_map_of_its_tokens(path, shape):
    model = net(nn.Linear(5, 4, bias=False))
    inputs = torch.randn(shape, requires_grad=True)
    found = record(model, path, lambda: backward(model, inputs))
    as_map = lambda t: t.reshape(shape[0], -1, t.shape[-1]).transpose(1, 2)[..., None]  # noqa: E731
    assert found["0"][0].kind == "linear"
    check_passes(found["0"], as_map(model(inputs)), as_map(inputs.grad), model[0].weight.grad[:, :, None, None])


def test_in_place_changes_after_a_layer_are_not_in_the_record(path):
    """A residual added in place, ReLU in place on the output, and the batch itself overwritten in the end."""

    class Residual(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            torch.manual_seed(1)
            self.first, self.second, self.in_place = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1), in_place

        def forward(self, x):
            if not self.in_place:
                return torch.relu(self.second(torch.relu(self.first(x) + x)) * 2 + 1)
            out = self.first(x)
            out += x
            out = self.second(F.relu_(out))
            out[:, 0].mul_(2)
            out[:, 1].mul_(2)
            return F.relu_(out.add_(1))

    inputs = torch.randn(2, 2, 4, 4)

    def step(model):
        batch = inputs.clone()
        backward(model, batch)
        batch.zero_()

    both = [record(model, path, lambda m=model: step(m)) for model in (Residual(True), Residual(False))]
    for name in ("first", "second"):
        for tensor in ("weight", "activation", "gradient"):
            np.testing.assert_array_equal(both[0][name][1][tensor], both[1][name][1][tensor])
    assert (both[0]["first"][1]["activation"] == inputs.numpy()).all()


def test_each_call_of_a_layer_is_a_layer_with_its_own_gradient(path):
    conv = nn.Conv2d(2, 2, 1, bias=False)
    a, b = torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 3)

    def run():
        (conv(a).sum() * 2 + conv(b).sum() * 5).backward()

    found = record(nn.ModuleDict({"conv": conv}), path, run)
    assert list(found) == ["conv", "conv#2"]
    for name, inputs, gradient in (("conv", a, 2), ("conv#2", b, 5)):
        np.testing.assert_array_equal(found[name][1]["activation"], inputs)
        assert (found[name][1]["gradient"] == gradient).all()


def test_accumulated_micro_batches_are_calls_and_calls_1_records_the_first_alone(path):
    model, batches = small(), [torch.randn(2, 2, 4, 4) for _ in range(3)]

    def run():
        for batch in batches:
            backward(model, batch)

    found = record(model, path, run)
    assert [name for name in found if name.startswith("2")] == ["2", "2#2", "2#3"]
    assert (found["0#3"][1]["activation"] == batches[2].numpy()).all()
    total = sum(
        execute(f[0].geometry, "weight_grad", f[1]["activation"], f[1]["gradient"])
        for n, f in found.items()
        if n[0] == "0"
    )
    np.testing.assert_allclose(total, model[0].weight.grad, rtol=1e-4, atol=1e-5)
    first = record(model, path, run, calls=1)
    assert list(first) == ["0", "2", "4"]
    assert all((first[n][1]["gradient"] == found[n][1]["gradient"]).all() for n in first)


def test_a_shared_parameter_is_recorded_at_each_of_its_uses(path):
    model = net(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    model[1].weight = model[0].weight
    found = record(model, path, lambda: backward(model, torch.randn(1, 2, 6, 6)))
    assert (found["0"][1]["weight"] == found["1"][1]["weight"]).all()
    assert found["0"][1]["gradient"].shape != found["1"][1]["gradient"].shape


def test_frozen_parameters_have_the_gradients_that_autograd_computes(path):
    """Below the first trained layer none; of a frozen one above it, the output gradient that its input needs."""
    model = small()
    for frozen in (model[0], model[4]):
        frozen.requires_grad_(False)
    found = record(model, path, lambda: backward(model, torch.randn(2, 2, 4, 4)))
    assert ["gradient" in found[name][1] for name in ("0", "2", "4")] == [False, True, True]
    assert ["input_grad" in found[name][0].passes for name in ("0", "2", "4")] == [False, False, True]


def test_layers_under_no_grad_have_no_gradient(path):
    model = small()
    with torch.no_grad():
        found = record(model, path, lambda: model(torch.randn(2, 2, 4, 4)))
    assert all(set(tensors) == {"weight", "activation"} for _, tensors in found.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_cast_values_are_recorded(path, dtype):
    """Against what the dispatcher hands to the convolution below autocast."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution.default:
                seen.append([tensor.detach().float().numpy() for tensor in args[:2]])
            return func(*args, **(kwargs or {}))

    model, inputs = small(), torch.randn(2, 2, 4, 4)

    def run():
        with torch.autocast("cpu", dtype=dtype):
            out = model(inputs)
        out.float().square().sum().backward()

    found = record(model, path, run)
    with Spy():
        run()
    for (activation, weight), name in zip(seen[:2], ("0", "2"), strict=True):
        np.testing.assert_array_equal(found[name][1]["activation"], activation)
        np.testing.assert_array_equal(found[name][1]["weight"], weight)
    assert not (seen[0][1] == model[0].weight.detach().numpy()).all()
    with np.load(path) as file:
        stored = {file[f"step0/{name}"].dtype for name in ("0/weight", "0/gradient", "4/activation", "4/gradient")}
    assert stored == {np.dtype(np.uint16 if dtype is torch.bfloat16 else np.float16)}


def test_a_mask_is_that_of_the_values_after_the_cast(path):
    """1e-9 is zero in float16."""
    model, inputs = net(nn.Linear(2, 1)), torch.tensor([[1e-9, 1.0]])
    with torch.autocast("cpu", dtype=torch.float16):
        found = record(model, path, lambda: model(inputs).sum().backward(), values=False)
    assert found["0"][1]["activation"].ravel().tolist() == [False, True]


def test_float64_is_stored_as_float32(path):
    model = small().double()
    found = record(model, path, lambda: backward(model, torch.randn(1, 2, 4, 4, dtype=torch.float64)))
    assert {tensor.dtype for tensor in found["2"][1].values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("which", ["parametrize", "weight_norm", "spectral_norm", "old_weight_norm"])
def test_of_a_parametrized_weight_the_one_used_is_recorded_and_it_is_not_computed_again(path, which):
    class Halve(nn.Module):
        calls = 0

        def forward(self, weight):
            self.calls += 1
            return weight * (self.calls / 2)  # another weight each time

    model = small()
    plain = model[2].weight.detach().clone()
    if which == "parametrize":
        nn.utils.parametrize.register_parametrization(model[2], "weight", Halve())
    elif which == "weight_norm":
        nn.utils.parametrizations.weight_norm(model[2])
    elif which == "spectral_norm":
        nn.utils.parametrizations.spectral_norm(model[2])
    else:
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(model[2])
    used = []

    class Spy(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.conv2d:
                used.append(args[1].detach().clone())
            return func(*args, **(kwargs or {}))

    def run():
        with Spy():
            backward(model, torch.randn(2, 2, 4, 4))

    found = record(model, path, run)
    np.testing.assert_array_equal(found["2"][1]["weight"], used[1])
    if which == "parametrize":
        assert model[2].parametrizations.weight[0].calls == 2  # one when it was registered
        np.testing.assert_array_equal(used[1], plain)


def test_samples_are_the_first_or_those_chosen(path):
    model, inputs = small(), torch.randn(4, 2, 4, 4)
    for samples, rows in ((2, [0, 1]), ([3, 1], [3, 1]), (9, [0, 1, 2, 3])):
        found = record(model, path, lambda: backward(model, inputs), samples=samples)
        assert (found["0"][1]["activation"] == inputs[rows].numpy()).all()
        with Trace.open(path) as trace:
            assert (trace.snapshots[0].batch, trace.snapshots[0].layers[0].samples) == (4, len(rows))
    with pytest.raises(TraceError, match="samples: must be below the batch's size 4, got 4"):
        record(model, path, lambda: backward(model, inputs), samples=[4])


def test_samples_drawn_at_random_are_the_same_in_all_layers_and_others_in_the_next_step(path):
    model, inputs = small(), torch.randn(9, 2, 4, 4)
    drawn = []
    for step in range(4):
        found = record(model, path, lambda: backward(model, inputs), samples=3, seed=5, steps=[step], count=step + 1)
        with Trace.open(path) as trace:
            rows = trace.provenance["recorder"]["samples"][f"step{step}"]
        assert len(set(rows)) == 3 and (found["0"][1]["activation"] == inputs[rows].numpy()).all()
        whole = record(model, path, lambda: backward(model, inputs), samples=9)
        for name, (layer, tensors) in found.items():
            assert layer.samples == 3
            assert all((tensors[t] == whole[name][1][t][rows]).all() for t in ("activation", "gradient"))
        drawn.append(tuple(rows))
    assert len(set(drawn)) > 1
    again = record(model, path, lambda: backward(model, inputs), samples=3, seed=5)
    assert (again["0"][1]["activation"] == inputs[list(drawn[0])].numpy()).all()
    all_of_it = record(model, path, lambda: backward(model, inputs), samples=99, seed=5)
    assert (all_of_it["0"][1]["activation"] == inputs.numpy()).all()


def test_masks_are_where_the_values_are_not_zero_and_simulate(path):
    model, inputs = small(), torch.randn(2, 2, 4, 4).relu()
    values = record(model, path, lambda: backward(model, inputs))
    masks = record(model, path, lambda: backward(model, inputs), values=False, sparsity=0.5, algorithm="mine")
    for name, (_, tensors) in masks.items():
        for tensor, mask in tensors.items():
            assert mask.dtype == bool
            np.testing.assert_array_equal(mask, values[name][1][tensor] != 0)
    with Trace.open(path) as trace:
        table = accelsim.simulate(accelsim.load_machine("pe16x16.yaml"), trace)
    first = (table["layer"] == "0") & (table["pass"] == "input_grad")  # that nobody needs
    assert len(table) == 3 * 3
    assert (table["cycles"][~first] > 0).all()
    assert (table["cycles"][first] == 0).all()


class Sparse(nn.Conv2d):
    """By the protocol: the forward pass uses half the weight, the weight gradient half the activation."""

    record = None

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, saved, weight):
            ctx.save_for_backward(saved, weight)
            return F.conv2d(x, weight)

        @staticmethod
        def backward(ctx, gradient):
            saved, weight = ctx.saved_tensors
            dx = torch.nn.grad.conv2d_input(saved.shape, weight, gradient)
            return dx, None, torch.nn.grad.conv2d_weight(saved, weight.shape, gradient)

    def forward(self, x):
        weight, saved = self.weight * (self.weight > 0), x.detach() * (x > 0)
        if self.record is not None:
            self.record("activation", x)
            self.record("weight", weight)
            self.record("saved_activation", saved)
        out = self.Product.apply(x, saved, weight)
        return out if self.bias is None else out + self.bias[:, None, None]


def test_a_layer_with_a_record_attribute_hands_over_what_it_used(path):
    model = net(nn.Conv2d(2, 3, 1), Sparse(3, 2, 2), nn.ReLU(inplace=True))
    inputs = torch.randn(2, 2, 4, 4)
    found = record(model, path, lambda: backward(model, inputs))
    x = model[0](inputs).detach().requires_grad_()
    dense = model[1].weight.detach()
    model[1].weight.grad = None
    out = model[1](x)
    backward(lambda t: torch.relu(t), out)
    _, tensors = found["1"]
    np.testing.assert_array_equal(tensors["weight"], dense * (dense > 0))
    np.testing.assert_array_equal(tensors["saved_activation"], x.detach().relu())
    grads = model[1].weight.grad
    where = (dense > 0).numpy()
    layer = found["1"][0]
    np.testing.assert_allclose(
        execute(layer.geometry, "weight_grad", tensors["saved_activation"], tensors["gradient"]) * where,
        grads.numpy() * where, rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    check_passes(found["1"], out - model[1].bias[:, None, None], x.grad)
    assert model[1].record is None
    assert "record" not in model[1].__dict__


def test_our_own_swat_layers_hand_over_their_top_k(path):
    swat = pytest.importorskip("accelsim.capture.swat")
    model = net(
        nn.Conv2d(2, 10, 1), nn.ReLU(True), nn.Conv2d(10, 10, 2, padding="same"), nn.Flatten(), nn.Linear(160, 3)
    )
    swat.convert(model, swat.SwatConfig(sparsity=0.8))
    found = record(model, path, lambda: backward(model, torch.randn(4, 2, 4, 4)), values=False)
    assert [found[name][1]["weight"].mean().round(2) for name in ("0", "2")] == [1.0, 0.2]
    assert found["2"][1]["saved_activation"].mean().round(2) == 0.2
    assert list(found) == ["0", "2", "4"]
    assert {found[name][0].passes for name in ("2", "4")} == {("fwd", "input_grad", "weight_grad")}
    assert found["2"][0].geometry.padding == (0, 1, 0, 1)  # of a kernel of two
    assert 0.3 < found["2"][1]["activation"].mean() < 0.7


def test_the_gradient_recorded_is_the_one_that_a_sparsifying_layer_uses(path):
    """meProp: what arrives is dense, what the layer multiplies is its Top-K."""
    swat = pytest.importorskip("accelsim.capture.swat")
    model = net(nn.Conv2d(2, 10, 1), nn.Conv2d(10, 10, 2, padding="same"), nn.Flatten(), nn.Linear(160, 3))
    swat.convert(model, swat.SwatConfig(sparsity=0.0, gradient_sparsity=0.8))
    found = record(model, path, lambda: backward(model, torch.randn(4, 2, 4, 4)), values=False)
    assert found["1"][1]["gradient"].mean().round(2) == 0.2


def test_both_weights_of_saw_are_recorded_and_the_input_gradient_reads_its_own(path):
    """SAW multiplies by the full weight forward, by its Top-K backward (A.7)."""
    swat = pytest.importorskip("accelsim.capture.swat")
    model = net(nn.Conv2d(2, 10, 1), nn.Conv2d(10, 10, 2, padding="same"), nn.Flatten(), nn.Linear(160, 3)).double()
    swat.convert(model, swat.SwatConfig(sparsity=0.8, sparse_forward=False))
    inputs = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    found = record(model, path, lambda: backward(model, inputs))
    layer, tensors = found["1"]
    assert tensors["weight"].all() and (tensors["backward_weight"] != 0).mean().round(2) == 0.2
    np.testing.assert_array_equal(tensors["backward_weight"], tensors["weight"] * (tensors["backward_weight"] != 0))
    reads = {which: operands(layer, which) for which in layer.passes}
    assert reads["fwd"] == ("activation", "weight") and reads["input_grad"] == ("gradient", "backward_weight")
    with Trace.open(path) as trace:
        once = {(la.name, which): lower(la, which)[0] for la in trace.snapshots[0].layers for which in la.passes}
    turned = once["1", "input_grad"].kernel
    np.testing.assert_array_equal(turned, tensors["backward_weight"][:, :, ::-1, ::-1].swapaxes(0, 1))


def test_a_tensor_that_a_trace_has_no_place_for_is_refused(path):
    class Two(Sparse):
        def forward(self, x):
            if self.record is not None:
                self.record("momentum", self.weight)
            return super().forward(x)

    model = net(Two(2, 2, 1))
    with pytest.raises(
        TraceError, match="step0/0: must record weight, activation and maybe saved_activation, backward_weight"
    ):
        record(model, path, lambda: backward(model, torch.randn(1, 2, 3, 3)))


def test_a_layer_within_a_layer_is_recorded_once_under_its_own_name(path):
    class Adapted(nn.Conv2d):
        def __init__(self):
            super().__init__(2, 2, 1)
            self.low = nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return super().forward(x) + self.low(x)

    found = record(nn.ModuleDict({"a": (layer := Adapted())}), path, lambda: backward(layer, torch.randn(1, 2, 3, 3)))
    assert list(found) == ["a", "a.low"]


def test_what_checkpointing_computes_again_is_recorded_as_that(path):
    model, inputs = small(), torch.randn(2, 2, 4, 4)
    plain = record(model, path, lambda: backward(model, inputs))
    again = record(model, path, lambda: backward(lambda x: checkpoint(model, x, use_reentrant=False), inputs))
    assert [name for name in again if ":recomputed" not in name] == list(plain)
    assert {again[name][0].passes for name in again if ":recomputed" in name} == {("fwd",)}
    for name in plain:
        np.testing.assert_array_equal(again[name][1]["gradient"], plain[name][1]["gradient"])
    inputs.requires_grad_()
    once = record(model, path, lambda: backward(lambda x: checkpoint(model, x, use_reentrant=True), inputs))
    for name in plain:
        assert once[name][0].passes == ("fwd",)
        assert once[f"{name}:recomputed"][0].passes == ("fwd", "input_grad", "weight_grad")
        np.testing.assert_array_equal(once[f"{name}:recomputed"][1]["gradient"], plain[name][1]["gradient"])


def test_of_two_backward_passes_through_a_call_the_first_counts(path):
    model = net(nn.Linear(2, 2))

    def run():
        out = model(torch.randn(3, 2))
        (out * 2).sum().backward(retain_graph=True)
        (out * 7).sum().backward()

    assert (record(model, path, run)["0"][1]["gradient"] == 2).all()


def test_a_gradient_hook_of_the_users_comes_before(path):
    """Clipping the gradient of an output changes what the convolution's backward pass uses."""
    model = net(nn.Linear(2, 2))

    def run():
        out = model(torch.randn(3, 2))
        out.register_hook(lambda gradient: gradient * 3)
        out.sum().backward()

    assert (record(model, path, run)["0"][1]["gradient"] == 3).all()


def test_uncalled_layers_are_listed_and_absent(path):
    model = nn.ModuleDict({"one": nn.Conv1d(2, 2, 1), "two": nn.Conv2d(2, 2, 1), "idle": nn.Linear(2, 2)})
    model["attention"] = nn.MultiheadAttention(2, 1)
    found = record(model, path, lambda: backward(model["two"], torch.randn(1, 2, 3, 3)))
    assert list(found) == ["two"]
    with Trace.open(path) as trace:
        about = trace.provenance["recorder"]
    assert about["not_called"] == {"step0": ["one", "idle", "attention", "attention.out_proj"]}
    assert not about["command"].startswith(os.sep), "a trace that goes out says nothing of the disk it is from"


def test_layers_are_chosen_and_left_out_by_pattern(path):
    model, inputs = small(), torch.randn(2, 2, 4, 4)
    assert list(record(model, path, lambda: backward(model, inputs), layers=["0", "2"], skip="0")) == ["2"]


def test_a_model_that_is_a_layer_has_its_class_for_a_name(path):
    model = nn.Conv2d(2, 2, 1)
    assert list(record(model, path, lambda: backward(model, torch.randn(1, 2, 3, 3)))) == ["Conv2d"]


# What is left alone


@pytest.mark.parametrize("inner", [nn.Dropout(0.5), nn.BatchNorm2d(3)])
def test_results_gradients_state_and_random_numbers_are_the_same_bit_for_bit(path, inner):
    def train(recorder_of):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(True), inner, nn.Conv2d(3, 2, 1)).train()
        copied = copy.deepcopy(model)
        optimizer = torch.optim.SGD(copied.parameters(), 0.1)
        results = []
        with recorder_of(copied) as recorder:
            for _ in range(4):
                with recorder.step():
                    out = copied(torch.randn(2, 2, 5, 5))
                    optimizer.zero_grad()
                    out.square().sum().backward()
                    optimizer.step()
                    results += [out.detach().clone(), *(p.grad.clone() for p in copied.parameters())]
        return [*results, *copied.state_dict().values(), torch.get_rng_state()]

    class Nothing:
        def __init__(self, model):
            self.step = lambda: Nothing(None)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    plain = train(Nothing)
    recorded = train(lambda model: Recorder(model, path, steps={1, 2}, keep=Selection(values=True)))
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))


def test_outside_the_recorded_steps_nothing_is_attached(path):
    model, inputs = small(), torch.randn(2, 2, 4, 4)
    before = [set(module.__dict__) for module in model.modules()]
    call = nn.Module.__call__
    with Recorder(model, path, steps=[1]) as recorder:
        for number in range(3):
            with recorder.step() as step:
                assert recorder.recording == step.records == (number == 1)
                assert untouched(model)
                assert (nn.Module.__call__ is call) == (number != 1)
                out = model(inputs)
                out.sum().backward()
            assert untouched(model)
            assert nn.Module.__call__ is call
    assert [set(module.__dict__) for module in model.modules()] == before
    assert model.training


class Interrupt(nn.Module):
    """Raises in the forward or in the backward pass."""

    def __init__(self, error, where):
        super().__init__()
        self.error, self.where, self.inner = error, where, nn.Conv2d(2, 2, 1)

    def forward(self, x):
        def fail(_):
            raise self.error

        if self.where == "forward" and self.error:
            raise self.error
        out = self.inner(x)
        if self.where == "backward" and self.error:
            out.register_hook(fail)
        return out


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("lost")])
@pytest.mark.parametrize("nested", [True, False])
def test_when_training_raises_the_steps_before_are_kept_and_the_model_is_as_it_was(path, where, error, nested):
    inner = Interrupt(None, where)
    model = net(nn.Conv2d(2, 2, 1), inner, nn.Conv2d(2, 2, 1))

    def train(recorder):
        for number in range(3):
            inner.error = error if number == 2 else None
            step = recorder.step()
            if nested:
                with step:
                    backward(model, torch.randn(1, 2, 3, 3))
            else:
                backward(model, torch.randn(1, 2, 3, 3))

    with pytest.raises(type(error)), Recorder(model, path, steps=range(9)) as recorder:
        train(recorder)
    assert untouched(model)
    with Trace.open(path) as trace:
        assert [snapshot.name for snapshot in trace.snapshots] == ["step0", "step1"]
        assert all(len(snapshot.layers) == 3 for snapshot in trace.snapshots)
    assert os.listdir(path.parent) == [path.name]
    with pytest.raises(type(error)):  # a mode of the recorder left behind would count this
        inner(torch.randn(1, 2, 3, 3)).sum().backward()


def test_a_step_that_fails_and_is_caught_is_left_out_and_the_next_one_recorded(path):
    model, inputs = small(), torch.randn(2, 2, 4, 4)
    with Recorder(model, path, steps=range(3)) as recorder:
        for number in range(3):
            try:
                with recorder.step():
                    model(inputs if number != 1 else inputs[:, :1]).sum().backward()
            except RuntimeError:
                assert number == 1
    assert recorder.recorded == ["step0", "step2"]


def test_copies_and_pickles_made_during_a_step_are_free_of_the_recorder(path):
    model, inputs = small(), torch.randn(2, 2, 4, 4)
    buffer = io.BytesIO()
    with Recorder(model, path, steps=[0]) as recorder, recorder.step():
        twin = copy.deepcopy(model)
        torch.save(model, buffer)
        twin(inputs[:1])
        backward(model, inputs)
    loaded = torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert list(read(path)) == ["0", "2", "4"]
    with torch.no_grad():
        twin[0].weight.zero_()
        assert torch.equal(loaded(inputs), model(inputs))
        assert not torch.equal(twin(inputs), model(inputs))


def test_a_forward_that_somebody_else_put_there_is_kept(path):
    model = small()
    original = model[0].forward
    model[0].forward = mine = lambda x: original(x) * 2
    record(model, path, lambda: backward(model, torch.randn(1, 2, 4, 4)))
    assert model[0].forward is mine


def test_a_step_without_a_block_ends_at_end_step_at_the_next_one_or_with_the_recorder(path):
    model, inputs = small(), torch.randn(2, 2, 4, 4)
    recorder = Recorder(model, path, steps=lambda number: number != 1)
    for _ in range(4):
        recorder.step()
        backward(model, inputs)
        if recorder.recording and not recorder.recorded:
            recorder.end_step()
            model(inputs[:1])  # a validation
    recorder.close()
    recorder.close()
    with pytest.raises(TraceError, match="step 4 must be recorded before the recorder is closed"):
        recorder.step()
    with Trace.open(path) as trace:
        assert [snapshot.step for snapshot in trace.snapshots] == [0, 2, 3]
        assert {len(snapshot.layers) for snapshot in trace.snapshots} == {3}


def test_numbers_and_metadata_can_be_given_per_step(path):
    model, inputs = small(), torch.randn(2, 2, 4, 4)
    with Recorder(model, path, steps={500, 501}, network="n", dataset="d", provenance={"by": "me"}) as recorder:
        for given in ({"number": 500, "sparsity": 0.9, "name": "swat", "algorithm": "SWAT-U"}, {}, {}):
            with recorder.step(**given):
                backward(model, inputs)
    with Trace.open(path) as trace:
        assert [(s.name, s.step, s.sparsity, s.algorithm) for s in trace.snapshots] == [
            ("swat", 500, 0.9, "SWAT-U"),
            ("step501", 501, 0.0, "dense"),
        ]
        assert (trace.network, trace.dataset, trace.provenance["by"]) == ("n", "d", "me")


def test_nothing_recorded_is_kept_beyond_the_tensor_being_written(path):
    """NumPy's and Python's share of the memory as tracemalloc sees it; of torch's tensors none stays alive."""
    model = net(*(nn.Linear(1000, 1000) for _ in range(12)))
    alive = []

    def run():
        out = torch.randn(8, 1000)
        for layer in model:
            out = layer(out)
            alive.append(weakref.ref(out))
            out = torch.relu(out)
        out.sum().backward()
        del out
        assert not any(ref() is not None for ref in alive)

    def peak():
        tracemalloc.start()
        with (
            Recorder(model, path, steps=[0], keep=Selection(values=True, level=1), force=True) as recorder,
            recorder.step(),
        ):
            run()
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak()  # imports
    largest = 1000 * 1000 * 4  # bytes; of what is recorded, a twelfth
    assert peak() < 5 * largest  # the writer's pieces, as large: as numbers, as bytes, and deflated in a growing buffer


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the process where Linux has it")
def test_the_process_does_not_grow_with_the_number_of_layers(tmp_path):
    """Peak memory of a process that trains and records, against one that only trains."""
    import subprocess

    code = """
import resource, sys, torch
from torch import nn
torch.set_num_threads(1)
from accelsim.capture import Recorder, Selection
model = nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=1) for _ in range(24)))
inputs = torch.randn(8, 64, 32, 32)
with Recorder(model, sys.argv[1], steps=[1], keep=Selection(8, values=True, level=1)) as recorder:
    for number in range(2):
        if number == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with recorder.step():
            model(inputs).sum().backward()
            model.zero_grad(set_to_none=False)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big.npz")],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    largest = 8 * 64 * 32 * 32 * 4
    assert int(done.stdout) < 4 * largest + (
        8 << 20
    )  # 2 MiB tensors, of which 72 are recorded; and the code that loads


# What can't be recorded


def test_a_model_without_a_supported_layer_is_refused(path):
    with pytest.raises(TraceError, match=r"model: must have a layer to record, Sequential: has none"):
        Recorder(nn.Sequential(nn.BatchNorm1d(1)), path, steps=[0])
    with pytest.raises(TraceError, match=r"layers and skip must leave one of 0, 2, 4"):
        Recorder(small(), path, steps=[0], keep=Selection(skip="*"))
    with pytest.raises(TraceError, match=r"must be a torch.nn.Module, got function"):
        Recorder(lambda x: x, path, steps=[0])


@pytest.mark.parametrize(
    ("tensor", "where"), [("weight", "2/weight"), ("activation", "0/activation"), ("gradient", "4")]
)
def test_nan_is_refused_by_layer_and_tensor_unless_allowed(path, tensor, where):
    model, inputs = small(), torch.randn(2, 2, 4, 4)
    if tensor == "weight":
        with torch.no_grad():
            model[2].weight[0, 0, 0, 0] = np.nan
    if tensor == "activation":
        inputs[1, 1, 1, 1] = np.nan

    def run():
        scale = np.nan if tensor == "gradient" else 1
        (model(inputs) * scale).sum().backward()

    with pytest.raises(TraceError, match=f"^step0/{where}.*: must be numbers, has NaN") as error:
        record(model, path, run)
    assert "\n" not in str(error.value)
    assert not path.exists()
    assert untouched(model)
    assert record(model, path, run, allow_nan=True, values=False)["0"][1]["weight"].all()


def test_what_goes_wrong_is_raised_when_the_step_ends_and_the_steps_before_are_kept(path):
    model, inputs = small(), torch.randn(2, 2, 4, 4)
    reached = []
    with pytest.raises(TraceError, match="NaN"), Recorder(model, path, steps=range(3)) as recorder:
        for number in range(3):
            with recorder.step():
                backward(model, inputs * (np.nan if number == 1 else 1))
                reached.append(number)
    assert reached == [0, 1]
    with Trace.open(path) as trace:
        assert [snapshot.name for snapshot in trace.snapshots] == ["step0"]


def test_an_existing_file_is_kept_unless_forced(path):
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"mine.npz: exists, and is kept; force=True"):
        Recorder(small(), path, steps=[0])
    with pytest.raises(TraceError, match="no step was recorded"):
        record(small(), path, lambda: None, steps=[5])
    assert path.read_text() == "mine"
    model = small()
    assert record(model, path, lambda: backward(model, torch.randn(1, 2, 4, 4)))
    with pytest.raises(OutputError, match="must be a file in a folder that exists"):
        Recorder(model, path.parent / "none" / "x.npz", steps=[0])


@pytest.mark.parametrize("count", [0, 2])
def test_no_recorded_step_writes_nothing_and_says_so(path, count):
    said = "the last one had number 1" if count else r"step\(\) was never called"
    with pytest.raises(TraceError, match=f"mine.npz: not written, since no step was recorded: {said}"):
        record(small(), path, lambda: None, steps=[7], count=count)
    assert not os.listdir(path.parent)


def test_a_step_without_calls_or_without_a_backward_pass_is_refused(path):
    model = small()
    with pytest.raises(TraceError, match="step0: no layer was called; the model"):
        record(model, path, lambda: None)
    with pytest.raises(TraceError, match=r"step0: no gradient came; backward\(\) must run in the step"):
        record(model, path, lambda: model(torch.randn(1, 2, 4, 4)))
    assert not os.listdir(path.parent)


def test_a_full_disk_is_told_at_the_end_of_the_step(path, monkeypatch):
    from accelsim.workload.npz_writer import NpzWriter

    def full(*_):
        raise OutputError("mine.npz: cannot write: No space left on device")

    monkeypatch.setattr(NpzWriter, "tensor", full)
    model = small()
    with pytest.raises(OutputError, match="No space left"):
        record(model, path, lambda: backward(model, torch.randn(1, 2, 4, 4)))
    assert not os.listdir(path.parent)
    assert untouched(model)


def test_each_layer_says_of_how_many_samples_it_is(path):
    """Rows of one sample that are made a batch of their own are found to be its rows."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(2, 2, 1), nn.Linear(2, 3)

        def forward(self, x):
            return self.head(self.body(x).flatten(2).transpose(1, 2).flatten(0, 1))

    model, inputs = Heads(), torch.randn(2, 2, 3, 3)
    found = record(model, path, lambda: backward(model, inputs), samples=[1])
    layer, tensors = found["head"]
    assert (layer.batch, layer.samples, layer.geometry.height) == (2, 1, 9)
    rows = model.body(inputs).flatten(2).transpose(1, 2)[1].detach()
    np.testing.assert_array_equal(tensors["activation"][0, :, :, 0].T, rows)


def test_an_input_without_a_batch_dimension_is_told(path):
    model = net(nn.Conv2d(2, 2, 1))
    with pytest.raises(TraceError, match="step0: no product could be stored: convolution: kernels of samples"):
        record(model, path, lambda: backward(model, torch.randn(2, 3, 3)))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": []}, "steps: must be integers from 0"),
        ({"steps": [-1]}, "steps: must be integers from 0"),
        ({"steps": [0.5]}, "steps: must be integers from 0"),
        ({"samples": 0}, "samples: must be an integer from 1"),
        ({"samples": [1, 1]}, "samples: must be an integer from 1, or different"),
        ({"sparsity": 1.0}, "sparsity: must be a number, 0 ≤ sparsity < 1"),
        ({"name": "a/b"}, "name: must be a text"),
        ({"calls": 0}, "calls: must be an integer from 1"),
        ({"seed": -1}, "seed: must be an integer from 0, and samples a number of them"),
        ({"seed": 1, "samples": [1]}, "seed: must be an integer from 0, and samples a number of them"),
        ({"level": 10}, "level: must be 0…9"),
        ({"dataset": ""}, "dataset: must be a text"),
        ({"provenance": {"by": object()}}, "provenance: "),
    ],
)
def test_values_that_make_no_sense_are_refused_at_once(path, options, match):
    where = "" if options.keys() <= KEPT else "Recorder: .*"
    with pytest.raises(TraceError, match=f"^{where}{match}"):
        kept = Selection(**{key: options[key] for key in KEPT if key in options})
        Recorder(small(), path, keep=kept, **{"steps": [0]} | options)


def test_metadata_of_a_step_that_makes_no_sense_is_refused_when_it_begins(path):
    model = small()
    with pytest.raises(TraceError, match="sparsity"), Recorder(model, path, steps=[0]) as recorder:
        recorder.step(sparsity=2)
    assert untouched(model)


# Wrapped models


@pytest.mark.parametrize("given", ["compiled", "original", "in place", "part"])
def test_a_compiled_model_runs_uncompiled_in_the_recorded_steps_only(path, given):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        def run(*inputs):
            graphs.append(1)
            return graph(*inputs)

        return run

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    model, inputs = Net(), torch.randn(2, 2, 4, 4)
    compiled = torch.compile(model, backend=backend)
    if given == "in place":
        model.compile(backend=backend)
        compiled = model
    if given == "part":
        compiled = net(compiled)
    with Recorder({"original": model}.get(given, compiled), path, steps=[1], keep=Selection(2)) as recorder:
        for number in range(3):
            count = len(graphs)
            with recorder.step():
                backward(compiled, inputs)
            assert len(graphs) - count == (number != 1)
    prefix = "0." if given == "part" else ""
    assert list(read(path)) == [prefix + "a", prefix + "b"]


def test_data_parallel_on_one_device_is_recorded_and_on_several_refused(path):
    model = nn.DataParallel(small())
    assert list(record(model, path, lambda: backward(model, torch.randn(1, 2, 4, 4)))) == ["0", "2", "4"]
    model.device_ids = [0, 1]
    with pytest.raises(TraceError, match="must run on one device a process"):
        Recorder(model, path, steps=[0], force=True)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(path):
    with pytest.raises(TraceError, match="must not be TorchScript"):
        Recorder(torch.jit.script(small()), path, steps=[0])


def test_a_backward_pass_in_another_thread_is_recorded(path):
    """As autograd does it for GPUs."""
    model, inputs = small(), torch.randn(2, 2, 4, 4)

    def run():
        loss = model(inputs).sum()
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()

    assert all("gradient" in tensors for _, tensors in record(model, path, run).values())


def test_the_comparison_fails_on_a_wrong_record(path):
    """The helper that the central test rests on notices an activation of another sample."""
    model, inputs = net(nn.Conv2d(2, 2, 2, bias=False)), torch.randn(2, 2, 3, 3)
    layer, tensors = record(model, path, lambda: backward(model, inputs))["0"]
    check_passes((layer, tensors), model(inputs), weight_grad=model[0].weight.grad)
    tensors["activation"] = tensors["activation"][::-1]
    with pytest.raises(AssertionError):
        check_passes((layer, tensors), model(inputs))
    with pytest.raises(AssertionError):
        check_passes((layer, tensors), weight_grad=model[0].weight.grad)
