"""Are values of few bits those that were trained, in proportion, with their zeros?"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from accelsim.capture.grids import Grids  # noqa: E402
from accelsim.capture.plan import Plan  # noqa: E402
from accelsim.capture.quantise import fake_quantise, quantised  # noqa: E402
from accelsim.capture.recorder import Recorder  # noqa: E402
from accelsim.capture.selection import Selection  # noqa: E402
from accelsim.capture.train import capture  # noqa: E402
from accelsim.errors import AccelsimError, TraceError  # noqa: E402
from accelsim.workload.trace import Trace  # noqa: E402


def test_integers_are_in_proportion_to_the_greatest_magnitude():
    values = torch.tensor([2.0, -1.0, 1e-9, -1e-9, 0.0]).view(1, 5, 1, 1)
    assert quantised(values, "int8", "tensor", "activation")[0].flatten().tolist() == [127, -64, 1, -1, 0]
    assert quantised(values, "int16", "tensor", "gradient")[0].flatten().tolist() == [32767, -16384, 1, -1, 0]
    assert quantised(values, "int8", "tensor", "weight")[0].dtype == torch.int16
    assert quantised(values, "bf16", "tensor", "weight")[0].dtype == torch.bfloat16
    assert quantised(torch.zeros(1, 1, 1, 1), "int8", "tensor", "weight")[0].tolist() == [[[[0]]]]
    for as_it_is in (True, "as_trained", False):
        assert quantised(values, as_it_is, "tensor", "weight")[0] is values


def test_each_filter_has_a_scale_of_its_own_where_asked_for():
    weights = torch.tensor([4.0, 1.0, 0.5, 0.25]).view(2, 2, 1, 1)
    assert quantised(weights, "int8", "channel", "weight")[0].flatten().tolist() == [127, 32, 127, 64]
    assert quantised(weights, "int8", "tensor", "weight")[0].flatten().tolist() == [127, 32, 16, 8]
    assert quantised(weights, "int8", "channel", "activation")[0].flatten().tolist() == [127, 32, 16, 8]


def test_what_is_no_choice_or_no_number_is_refused(tmp_path):
    with pytest.raises(
        AccelsimError, match="values: must be one of False, True, as_trained, int8, int16, bf16, got 'int4'"
    ):
        Plan("resnet18", tmp_path / "t.npz", values="int4")
    with pytest.raises(TraceError, match="scales: must be one of tensor, channel, got 'row'"):
        Selection(scales="row")
    with pytest.raises(TraceError, match="must be finite to become int8"):
        quantised(torch.tensor([1.0, torch.inf]), "int8", "tensor", "gradient")


@pytest.mark.parametrize("values", ["int8", "bf16"])
def test_a_training_records_them_with_the_zeros_of_its_values(tmp_path, values):
    found = {}
    for kind in (values, "as_trained"):
        path = tmp_path / f"{kind}.npz"
        capture(Plan("cifar_resnet20", path, steps=1, batch=2, samples=1, sparsities=(0.8,), values=kind))
        with Trace.open(path) as trace:
            layer = trace.snapshots[0].layers[2]
            found[kind] = {name: np.asarray(layer.tensor(name), np.float64) for name in ("weight", "gradient")}
    for name, numbers in found["as_trained"].items():
        few = found[values][name]
        if values == "int8":
            assert np.abs(few).max() == 127 and ((few == 0) == (numbers == 0)).all()
            few = few * np.abs(numbers).max() / 127
        assert np.abs(few - numbers).max() <= np.abs(numbers).max() / 127


def recorded(model, inputs, path, **how):
    """The layer of a model of one, as numbers, and its scales."""
    with (
        Recorder(model, path, steps=[0], keep=Selection(len(inputs), values="int8", **how)) as recorder,
        recorder.step(),
    ):
        model(inputs).square().sum().backward()
    with Trace.open(path) as trace:
        layer = trace.snapshots[0].layers[0]
        scales = trace.provenance["recorder"]["scales"]["step0"][layer.name]
        return {name: (np.asarray(layer.tensor(name), int), np.array(scales[name])) for name in layer.tensors}


class FakeQuantised(torch.nn.Conv2d):
    """As PyTorch's own training of quantised networks: filters have scales, inputs a scale and a zero point."""

    weight_scales, input_scale, zero_point = torch.tensor([0.03, 0.5, 0.011]), 0.07, 40

    def forward(self, inputs):
        zeros = torch.zeros(3, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(self.weight, self.weight_scales, zeros, 0, -128, 127)
        inputs = torch.fake_quantize_per_tensor_affine(inputs, self.input_scale, self.zero_point, 0, 255)
        return self._conv_forward(torch.nn.functional.max_pool2d(inputs, 2), weight, None)


def test_fake_quantised_numbers_are_recorded_as_the_integers_that_they_stand_for(tmp_path):
    """Few, so that a scale cannot be told from the numbers: those of the first filter are all even."""
    torch.manual_seed(0)
    layer = FakeQuantised(2, 3, 1, bias=False)
    integers = torch.tensor([[4, -126], [3, 1], [127, 0]]).view(3, 2, 1, 1)
    layer.weight.data = integers * layer.weight_scales.view(3, 1, 1, 1)
    image = torch.randn(2, 2, 6, 6) * 6
    found = recorded(layer, image, tmp_path / "t.npz")
    assert found["weight"][0].tolist() == integers.tolist()
    assert found["weight"][1] == pytest.approx([0.03, 0.5, 0.011])
    expected = torch.nn.functional.max_pool2d((image / 0.07).round().clamp(-40, 215), 2)
    assert (found["activation"][0] == expected.int().numpy()).all() and expected.max() == 215
    assert found["activation"][1] == pytest.approx([0.07])
    assert np.abs(found["gradient"][0]).max() == 127  # which nothing quantised


@pytest.mark.parametrize("scales", ["tensor", "channel"])
def test_a_model_made_to_train_with_integers_is_recorded_with_them(tmp_path, scales):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False))
    weight = model[0].weight.detach().clone()
    fake_quantise(model, bits=6, scales=scales)
    image = torch.randn(1, 3, 8, 8)
    found = recorded(model, image, tmp_path / "t.npz")
    greatest = weight.abs().flatten(1).amax(1) if scales == "channel" else weight.abs().amax()[None]
    assert found["weight"][1] == pytest.approx((greatest / 31).numpy())
    ideal = weight / (greatest / 31).view(-1, 1, 1, 1)
    assert np.abs(found["weight"][0] - ideal.numpy()).max() <= 0.5001 and np.abs(found["weight"][0]).max() == 31
    assert np.abs(found["activation"][0] - (image * 31 / image.abs().max()).numpy()).max() <= 0.5001
    assert model[0].parametrizations.weight.original.grad.abs().sum() > 0


def test_the_scale_of_another_quantiser_shows_in_the_numbers(tmp_path):
    """Rounded by hand, filter by filter; numbers that are no multiples of anything are scaled by their greatest."""
    torch.manual_seed(0)
    layer, steps = torch.nn.Conv2d(8, 4, 3, bias=False), torch.tensor([0.1, 0.07, 2.0, 0.003]).view(4, 1, 1, 1)
    integers = torch.randint(-90, 91, layer.weight.shape)
    layer.weight.data = integers * steps
    found = recorded(layer, torch.randn(1, 8, 6, 6), tmp_path / "t.npz")
    assert (found["weight"][0] == integers.numpy()).all()
    assert found["weight"][1] == pytest.approx(steps.flatten().numpy())
    assert np.abs(found["activation"][0]).max() == 127


def test_of_scales_that_fit_the_greatest_counts_and_no_integer_is_larger_than_the_format():
    grids, fake = Grids(), torch.ops.aten.fake_quantize_per_tensor_affine_cachemask.default
    for scale in (0.125, 0.5, 0.25):
        grids.saw(fake, "fake_quantize_per_tensor_affine_cachemask", (torch.ones(1), scale, 0, 0, 255), {})
    integers, scales = grids.integers(torch.tensor([1.0, 127.5]), "activation", 255)
    assert integers.tolist() == [2, 255] and scales.tolist() == [0.5]
    assert grids.integers(torch.tensor([1.0, 128.0]), "activation", 255) is None


def test_scales_are_tried_from_the_greatest_told_to_those_that_the_numbers_show():
    """Each of them fits: the first of the order decides what the integers are."""
    grids, fake = Grids(), torch.ops.aten.fake_quantize_per_tensor_affine_cachemask.default
    numbers = torch.arange(-60.0, 61.0)
    integers, scales = grids.integers(numbers, "activation", 255)
    assert (integers == numbers).all() and scales.tolist() == [1.0]  # as the numbers show
    for scale in (0.25, 0.5):
        grids.saw(fake, "fake_quantize_per_tensor_affine_cachemask", (torch.ones(1), scale, 0, 0, 255), {})
    integers, scales = grids.integers(numbers, "activation", 255)
    assert (integers == 2 * numbers).all() and scales.tolist() == [0.5]
    weights = numbers.repeat(2).view(2, -1) * torch.tensor([[1.0], [2.0]])
    assert Grids().integers(weights, "weight", 255)[1].tolist() == [1.0]  # of all filters before one for each
