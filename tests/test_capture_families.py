"""Of every kind of network: are the trace's products those that ran, all of them, with the operands that they had?

The count is a second one, of a mode of its own, in a run of its own. The operands are held against the model: each
layer's passes, lowered and multiplied, equal what PyTorch computed.
"""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import families  # noqa: E402
from test_recorder import Trace, execute, numbers  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import accelsim  # noqa: E402
from accelsim.capture import Recorder, Selection  # noqa: E402
from accelsim.workload.lowering import READS, stacked  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def plain_kernels():
    """An LSTM is its steps, as in the recorded step, and both runs round alike."""
    torch._C._set_mkldnn_enabled(False)
    yield
    torch._C._set_mkldnn_enabled(True)


class Count(TorchDispatchMode):
    """Multiplications by operator, from the shapes of operands and results, and every result of a forward product."""

    def __init__(self):
        super().__init__()
        self.total = 0
        self.operands, self.results = set(), {}

    def see(self, operands, result, bias=None):
        """Numbers in any order: the trace has them in other shapes."""
        self.operands.update(ordered(t).tobytes() for t in operands)
        result = ordered(result if bias is None else result - bias)
        self.results.setdefault(result.size, []).append(result)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            a, b = args[-2:] if name in ("mm", "bmm") else args[1:3]
            self.total += output.numel() * a.shape[-1]
            self.see((a, b), output, args[0] if name.startswith(("addmm", "baddbmm")) else None)
        elif name in ("mv", "addmv"):
            self.total += (args[0] if name == "mv" else args[1]).numel()
        elif name == "convolution":
            self.total += self.convolution(args[0], args[1], output, args[6])
            bias = None if args[2] is None else args[2].reshape(-1, *[1] * (output.ndim - 2))
            self.see(args[:2], output, bias)
        elif name == "convolution_backward":
            gradient, input, weight = args[:3]
            self.total += sum(args[10][:2]) * self.convolution(input, weight, gradient, args[7])
            for result in output[:2]:
                if result is not None:
                    self.see(args[:3], result)
        elif name.startswith("_scaled_dot_product"):
            q, k, v = args[:3] if "backward" not in name else args[1:4]
            rows = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
            self.total += rows * (q.shape[3] + v.shape[3]) * (2 if "backward" in name else 1)
        return output

    @staticmethod
    def convolution(input, weight, output, transposed):
        side = input if transposed else output
        return side.shape[0] * math.prod(side.shape[2:]) * weight.numel()


def ordered(tensor):
    """The numbers of a tensor, sorted; −0 is 0."""
    return np.sort(torch.as_tensor(tensor).detach().float().reshape(-1).numpy() + 0.0)


def record(name, path):
    """The layers of one step of a family, its coverage, and the independent count of the same step."""
    torch.manual_seed(0)
    model, run, own = families.FAMILIES[name]()
    with Count() as count:
        run()
    model.zero_grad(set_to_none=True)
    with Recorder(model, path, steps=[0], keep=Selection(64, values=True), **own) as recorder, recorder.step():
        run()
    return count


QUICK = ("swin", "gpt2", "llama_lora", "lstm", "unet", "dcgan_with_gradient_penalty", "recurrent", "graph", "patches")
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in families.FAMILIES]


@pytest.mark.parametrize("name", CASES)
def test_all_multiplications_of_the_step_are_counted_and_nearly_all_stored(name, tmp_path):
    path = tmp_path / "t.npz"
    count = record(name, path)
    counted = count.total
    with Trace.open(path) as trace:
        (snapshot,) = trace.snapshots
        assert snapshot.coverage["multiplications"] == counted
        stored = sum(layer.batch * layer.geometry.multiplications * len(layer.passes) for layer in snapshot.layers)
        assert stored == counted - sum(snapshot.coverage["not_stored"].values())
        assert stored >= 0.99 * counted, snapshot.coverage
        assert not trace.provenance["recorder"].get("not_counted")
        for layer in snapshot.layers:
            check_layer(name, layer, count)


def check_layer(name, layer, count):
    """Its operands are those of a product that ran, and give its results."""
    tensors = {tensor: numbers(layer.tensors[tensor]) for tensor in layer.tensors}
    fused = layer.name.partition("#")[0].endswith((":qk", ":av"))  # held against the plain ones below
    depth = name in ("r3d", "volume") and layer.kind == "conv"  # taps of the depth repeat inputs
    for which in layer.passes:
        reads = ["activation" if r == "saved_activation" else r for r in READS[which]]
        operands = {name: tensors[name] for name in reads}
        for tensor, array in operands.items():
            if not fused and not (depth and tensor == "activation"):
                is_seen = ordered(array).tobytes() in count.operands
                assert is_seen, (layer.name, which, tensor)
        if fused or (depth and which == "input_grad"):
            continue
        (first, second) = operands.values()
        geometry = layer.geometry
        if layer.kind == "matmul":
            geometry = stacked(layer)
            first, second = (
                a if n == "weight" else a.reshape(1, -1, *a.shape[2:])
                for n, a in zip(reads, (first, second), strict=True)
            )
        result = ordered(execute(geometry, which, first, second))
        near = [np.allclose(result, other, rtol=1e-4, atol=1e-4) for other in count.results.get(result.size, [])]
        assert any(near), (layer.name, which)


def test_experts_with_uneven_batches_are_simulated_with_the_layers_around_them(tmp_path):
    """Each with the rows that it got of the sample stored, and its own number of rows as a batch."""
    torch.manual_seed(0)
    model, run, _ = families.FAMILIES["mixtral"]()
    rows = {}
    for name, module in model.named_modules():
        if name.count("experts") and isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, args, name=name: rows.__setitem__(name, len(args[0])))
    with Recorder(model, tmp_path / "t.npz", steps=[0]) as recorder, recorder.step():
        run()
    with Trace.open(tmp_path / "t.npz") as trace:
        experts = [layer for layer in trace.snapshots[0].layers if layer.name in rows]
        assert experts and all(layer.batch == rows[layer.name] for layer in experts)
        assert len({layer.samples / layer.batch for layer in experts}) > 1
        table = accelsim.simulate(accelsim.load_machine("pe16x16.yaml"), trace)
    assert set(table["samples"]) == {1} and set(table["layer"]) > {layer.name for layer in experts}


def test_fused_attention_is_recorded_as_its_two_products(tmp_path):
    """Held against the same attention as two products, whose operands are seen."""
    found = []
    x = torch.randn(3, 5, 8)
    for fused in (True, False):
        torch.manual_seed(0)
        model = families.Attention(8, fused=fused, causal=True)
        _, run, _ = families.trained(model, x)
        keep = Selection(samples=[1], values=True)
        with Recorder(model, tmp_path / "t.npz", steps=[0], keep=keep, force=True) as recorder, recorder.step():
            run()
        with Trace.open(tmp_path / "t.npz") as trace:
            layers = [layer for layer in trace.snapshots[0].layers if layer.kind == "matmul"]
            found.append([{name: layer.tensors[name] for name in layer.tensors} for layer in layers])
    for fused, plain in zip(*found, strict=True):
        assert fused.keys() == plain.keys() == {"weight", "activation", "gradient"}
        for name in fused:
            np.testing.assert_allclose(fused[name], plain[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_recorded_step_is_the_step_bit_for_bit(tmp_path):
    """Also where an operation has a kernel besides what it could be made of, as silu's gradient has."""
    torch.manual_seed(0)
    model, run, _ = families.FAMILIES["unet"]()
    run()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with Recorder(model, tmp_path / "t.npz", steps=[0]) as recorder, recorder.step():
        run()
    assert all(torch.equal(a, p.grad) for a, p in zip(plain, model.parameters(), strict=True))
