"""Are values of few bits those that were trained, in proportion, with their zeros?"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from accelsim.capture.plan import Plan  # noqa: E402
from accelsim.capture.quantise import quantised  # noqa: E402
from accelsim.capture.recorder import Recorder  # noqa: E402
from accelsim.capture.train import capture  # noqa: E402
from accelsim.errors import AccelsimError, TraceError  # noqa: E402
from accelsim.workload.trace import Trace  # noqa: E402


def test_integers_are_in_proportion_to_the_greatest_magnitude():
    values = torch.tensor([2.0, -1.0, 1e-9, -1e-9, 0.0]).view(1, 5, 1, 1)
    assert quantised(values, "int8", "tensor", "activation").flatten().tolist() == [127, -64, 1, -1, 0]
    assert quantised(values, "int16", "tensor", "gradient").flatten().tolist() == [32767, -16384, 1, -1, 0]
    assert quantised(values, "int8", "tensor", "weight").dtype == torch.int16
    assert quantised(values, "bf16", "tensor", "weight").dtype == torch.bfloat16
    assert quantised(torch.zeros(1, 1, 1, 1), "int8", "tensor", "weight").tolist() == [[[[0]]]]
    for as_it_is in (True, "as_trained", False):
        assert quantised(values, as_it_is, "tensor", "weight") is values


def test_each_filter_has_a_scale_of_its_own_where_asked_for():
    weights = torch.tensor([4.0, 1.0, 0.5, 0.25]).view(2, 2, 1, 1)
    assert quantised(weights, "int8", "channel", "weight").flatten().tolist() == [127, 32, 127, 64]
    assert quantised(weights, "int8", "tensor", "weight").flatten().tolist() == [127, 32, 16, 8]
    assert quantised(weights, "int8", "channel", "activation").flatten().tolist() == [127, 32, 16, 8]


def test_what_is_no_choice_or_no_number_is_refused(tmp_path):
    with pytest.raises(
        AccelsimError, match="values: must be one of False, True, as_trained, int8, int16, bf16, got 'int4'"
    ):
        Plan("resnet18", tmp_path / "t.npz", values="int4")
    with pytest.raises(TraceError, match="scales: must be one of tensor, channel, got 'row'"):
        Recorder(torch.nn.Linear(2, 2), tmp_path / "t.npz", steps=[0], scales="row")
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
