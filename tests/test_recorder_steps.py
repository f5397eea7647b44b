"""Steps that are not one plain forward and backward pass: skipped, refused, run twice, or of several processes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from accelsim.capture import Recorder, Selection  # noqa: E402
from accelsim.errors import TraceError  # noqa: E402
from accelsim.workload.merge import merge  # noqa: E402
from accelsim.workload.trace import Trace  # noqa: E402


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def recorded(model, path, run, steps=1, **how):
    with Recorder(model, path, steps=range(steps), force=True, **how) as recorder:
        for _ in range(steps):
            with recorder.step():
                run()
    with Trace.open(path) as trace:
        snapshots = [
            (s, {layer.name: {name: np.array(layer.tensors[name]) for name in layer.tensors} for layer in s.layers})
            for s in trace.snapshots
        ]
        return snapshots, trace.provenance["recorder"]


@pytest.mark.parametrize("allow_nan", [False, True])
def test_a_step_that_the_scaler_skips_for_an_overflow_is_left_out(model, tmp_path, allow_nan):
    """Also where its gradients are NaN, which alone would be refused."""
    inputs, optimizer = torch.randn(2, 4), torch.optim.SGD(model.parameters(), 0.1)
    scaler, losses = torch.amp.GradScaler("cpu", init_scale=2.0), iter([1.0, torch.inf, 1.0])

    def run():
        optimizer.zero_grad()
        scaler.scale(model(inputs).sum() * next(losses)).backward()
        scaler.step(optimizer)
        scaler.update()

    keep = Selection(allow_nan=allow_nan)
    snapshots, told = recorded(model, tmp_path / "t.npz", run, steps=3, keep=keep)
    assert [s.name for s, _ in snapshots] == ["step0", "step2"] and told["skipped"] == ["step1"]


@pytest.mark.parametrize("transform", ["grad", "vmap"])
def test_transforms_of_functions_are_refused_by_the_layers_name(model, tmp_path, transform):
    inputs, parameters = torch.randn(2, 4), dict(model.named_parameters())

    def run():
        if transform == "vmap":
            torch.func.vmap(model[0])(inputs).sum().backward()
        else:
            torch.func.grad(lambda p: torch.func.functional_call(model, p, (inputs,)).sum())(parameters)

    layer = "0" if transform == "vmap" else "Sequential"
    with pytest.raises(TraceError, match=f"^step0/{layer}: must not run under torch.func's grad or vmap"):
        recorded(model, tmp_path / "t.npz", run)


def test_a_module_called_with_other_parameters_is_recorded_with_them(model, tmp_path):
    """As meta-learning does, the second pass with the weights that an update would give."""
    inputs = torch.randn(2, 4)

    def run():
        parameters = dict(model.named_parameters())
        loss = torch.func.functional_call(model, parameters, (inputs,)).square().sum()
        slopes = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        run.fast = {name: w - 0.1 * d for (name, w), d in zip(parameters.items(), slopes, strict=True)}
        torch.func.functional_call(model, run.fast, (inputs,)).square().sum().backward()

    ((snapshot, layers),), _ = recorded(model, tmp_path / "t.npz", run, keep=Selection(values=True))
    assert not snapshot.coverage["not_stored"]
    for name, fast in (("0#2", "0.weight"), ("2#2", "2.weight")):
        np.testing.assert_array_equal(layers[name]["weight"][:, :, 0, 0], run.fast[fast].detach().numpy())


def test_what_runs_in_inference_mode_is_seen_in_its_parts(model, tmp_path):
    inputs = torch.randn(2, 4)

    def run():
        with torch.inference_mode():
            model(inputs)
        model(inputs).sum().backward()

    ((snapshot, _),), told = recorded(model, tmp_path / "t.npz", run)
    passes = {layer.name: layer.passes for layer in snapshot.layers}
    both = ("fwd", "weight_grad")
    assert passes == {"0": ("fwd",), "2": ("fwd",), "0#2": both, "2#2": ("fwd", "input_grad", "weight_grad")}
    assert snapshot.coverage["multiplications"] == 2 * (3 * 24 + 4 * 18) and "not_counted" not in told


def test_a_second_backward_pass_is_none_of_the_first_ones_passes(model, tmp_path):
    """The first asks for the gradient of the input alone; the second, with another gradient, for all."""
    inputs = torch.randn(2, 4, requires_grad=True)

    def run():
        output = model(inputs)
        torch.autograd.grad(output.sum(), inputs, retain_graph=True)
        (output * torch.tensor([1.0, 2.0, 3.0])).sum().backward()

    ((snapshot, layers),), _ = recorded(model, tmp_path / "t.npz", run, keep=Selection(2, values=True))
    passes = {layer.name: layer.passes for layer in snapshot.layers}
    assert passes["0"] == passes["2"] == ("fwd", "input_grad")
    assert (layers["2"]["gradient"] == 1).all()
    again = [tensors for name, tensors in layers.items() if name.startswith("2:again")]
    assert any(set(np.unique(t)) == {1, 2, 3} for tensors in again for t in tensors.values())
    assert snapshot.coverage["multiplications"] == (1 + 1 + 2) * 2 * (24 + 18)


def test_products_of_parameters_alone_and_what_nobody_counts_are_told(tmp_path):
    class Merged(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.down, self.up = (
                nn.Linear(4, 3),
                nn.Parameter(torch.randn(1, 4)),
                nn.Parameter(torch.ones(3, 1)),
            )

        def forward(self, x):
            y = nn.functional.linear(x, self.base.weight + self.up @ self.down, self.base.bias)
            return torch.cdist(y, y)

    model, inputs = Merged(), torch.randn(2, 4)
    ((snapshot, _),), told = recorded(model, tmp_path / "t.npz", lambda: model(inputs).sum().backward())
    assert snapshot.coverage["not_stored"]["mm: of parameters alone"] == 3 * 12
    assert "_cdist_forward" in told["not_counted"]["step0"]


def test_one_graph_is_one_sample(tmp_path):
    """Its edges, times what its nodes have, are a product of two operands of the sample."""

    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.edges = nn.Linear(3, 2), torch.eye(5)[torch.randperm(5)]

        def forward(self, x):
            return self.edges @ self.linear(x)

    torch.manual_seed(0)
    model, inputs = Graph(), torch.randn(5, 3)
    keep = Selection(values=True)
    ((snapshot, layers),), _ = recorded(
        model, tmp_path / "t.npz", lambda: model(inputs).square().sum().backward(), keep=keep, batch_dim=None
    )
    assert snapshot.batch == 1 and not snapshot.coverage["not_stored"]
    linear, product = snapshot.layers
    assert (product.kind, product.batch, product.passes) == ("matmul", 1, ("fwd", "weight_grad"))
    assert (linear.geometry.height, linear.passes) == (5, ("fwd", "weight_grad"))
    np.testing.assert_array_equal(layers[product.name]["activation"][0, :, :, 0].T, model.edges.numpy())


def test_a_batch_of_another_size_is_another_batch(model, tmp_path):
    """A sample that only the larger one has is stored of it alone."""

    def run():
        for size in (3, 2):
            model(torch.ones(size, 2, 4) * size).sum().backward()

    ((snapshot, layers),), _ = recorded(model, tmp_path / "t.npz", run, keep=Selection([2, 1], values=True))
    held = {layer.name: (layer.samples, layer.batch) for layer in snapshot.layers if layer.name.startswith("0")}
    assert held == {"0": (2, 3), "0#2": (1, 2)}
    assert {layer.geometry.height for layer in snapshot.layers} == {2}
    assert (layers["0"]["activation"] == 3).all() and (layers["0#2"]["activation"] == 2).all()


def test_recurrent_layers_are_recorded_step_by_step(tmp_path):
    """Of an LSTM that is one operation of a library, which is in use again afterwards."""
    torch.manual_seed(0)
    model, inputs = nn.LSTM(3, 4, batch_first=True), torch.randn(2, 5, 3)
    assert torch._C._get_mkldnn_enabled()
    ((snapshot, _),), told = recorded(model, tmp_path / "t.npz", lambda: model(inputs)[0].sum().backward())
    assert torch._C._get_mkldnn_enabled() and "not_counted" not in told
    forward, states = 2 * 5 * (3 + 4) * 16, 2 * 5 * 4 * 16
    assert not snapshot.coverage["not_stored"]
    assert 2 * forward + states - 2 * 4 * 16 <= snapshot.coverage["multiplications"] <= 2 * forward + states


def rank(number, count, folder):
    """One of several processes that share the parameters."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{count}", rank=number, world_size=count)
    mesh = init_device_mesh("cpu", (count,))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    for part in (model[0], model[2], model):
        fully_shard(part, mesh=mesh)
    optimizer, inputs = (
        torch.optim.SGD(model.parameters(), 0.1),
        torch.linspace(-1, 1, 16).view(4, 4).chunk(count)[number],
    )
    with Recorder(model, f"{folder}/{number}of{count}.npz", steps=[1], keep=Selection(4, values=True)) as recorder:
        for _ in range(2):
            with recorder.step():
                optimizer.zero_grad()
                (model(inputs).square().sum() * count).backward()  # gradients are averaged
                optimizer.step()
    dist.destroy_process_group()


@pytest.mark.slow
def test_sharded_processes_record_their_shares_and_merged_they_are_the_whole(tmp_path):
    """FSDP2: two processes and one make the same trace, with the layers' own names; user storages stay resizable."""
    from torch.multiprocessing.spawn import start_processes

    for count in (1, 2):
        start_processes(rank, (count, str(tmp_path)), nprocs=count, start_method="spawn")
    merge([tmp_path / "0of2.npz", tmp_path / "1of2.npz"], tmp_path / "both.npz")
    with Trace.open(tmp_path / "both.npz") as both, Trace.open(tmp_path / "0of1.npz") as one:
        assert both.snapshots[0].coverage == one.snapshots[0].coverage
        assert [layer.name for layer in both.snapshots[0].layers] == ["0", "2"]
        for a, b in zip(both.snapshots[0].layers, one.snapshots[0].layers, strict=True):
            assert (a.batch, a.samples, a.passes, set(a.tensors)) == (b.batch, b.samples, b.passes, set(b.tensors))
            for name in ("weight", "activation"):
                np.testing.assert_allclose(a.tensors[name], b.tensors[name], rtol=1e-5, atol=1e-6)
