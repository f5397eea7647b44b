"""Are checkpoints of every kind read as their forward pass multiplies, and nothing of them run?"""

import json
import pickle
import sys

import numpy as np
import pytest
from importing import CASES, TOPOLOGY, densities, run

from accelsim.errors import ImportFormatError
from accelsim.workload.importers import read, to_trace

torch = pytest.importorskip("torch")
CHECKPOINTS = CASES / "checkpoints"


@pytest.fixture
def topology(tmp_path):
    (tmp_path / "topology.csv").write_text(TOPOLOGY)
    return tmp_path / "topology.csv"


def state(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {"conv1.weight": torch.randn(4, 3, 3, 3, generator=rng), "fc.weight": torch.randn(5, 4, generator=rng)}


def sparse_state():
    """Half of fc is zero."""
    tensors = state()
    tensors["fc.weight"][:, ::2] = 0
    return tensors


def saved(path, content, topology, **options):
    torch.save(content, path)
    return read(path, topology=topology, **options)


def numbers(imported, name="fc"):
    """What stands for the weight of a layer."""
    layer = next(layer for layer in imported.layers if layer.name == name)
    return layer.tensors["weight"].read().reshape(layer.geometry.weight_shape[:2])


# ---- the cases, by name


@pytest.mark.parametrize("name", ["folded", "prune_parametrised", "weight_plus_mask_buffer"])
def test_masks_are_multiplied(name):
    found = densities(read(CHECKPOINTS / f"{name}.pth", topology=CHECKPOINTS / "t.csv"))
    folded = densities(read(CHECKPOINTS / "folded.pth", topology=CHECKPOINTS / "t.csv"))
    assert found["c1"] == 1 and found["c2"] < 0.2 and found["fc"] < 0.2
    if name == "prune_parametrised":
        assert found == folded == {"c1": 1.0, "c2": pytest.approx(0.1, abs=0.001), "fc": pytest.approx(0.1)}


def with_masks(naming):
    """The dense state, and masks as others name and keep them: half of fc."""
    tensors = state()
    masks = {"conv1.weight": torch.ones(4, 3, 3, 3), "fc.weight": (torch.arange(4) % 2).expand(5, 4)}
    named = {
        "after": lambda: {**tensors, **{f"{name}_mask": mask for name, mask in masks.items()}},
        "before": lambda: {**tensors, **{f"mask_{name}": mask.bool() for name, mask in masks.items()}},
        "inside": lambda: {**tensors, "pruning_masks": masks},
        "beside": lambda: {"state_dict": tensors, "mask": masks},
        "by module": lambda: {"model": tensors, "pruning_masks": {name[:-7]: mask for name, mask in masks.items()}},
        "a list": lambda: {"model": tensors, "masks": list(masks.values())},
        "packed": lambda: {**tensors, "fc.weight_mask_packed": torch.zeros(3, dtype=torch.uint8)},
        "of another shape": lambda: {**tensors, "fc.mask": torch.ones(7)},
        "no mask": lambda: {"conv1.weight": tensors["conv1.weight"], "fc.weight_orig": tensors["fc.weight"]},
    }  # fmt: skip
    return named[naming]()


@pytest.mark.parametrize("naming", ["after", "before", "inside", "beside", "by module"])
def test_masks_of_any_naming_are_multiplied(naming, topology, tmp_path):
    got = saved(tmp_path / "w.pt", with_masks(naming), topology)
    assert densities(got) == {"conv1": 1, "fc": pytest.approx(0.5, abs=0.11)}
    assert np.array_equal(numbers(got) != 0, np.tile([False, True], (5, 2)))
    assert "weights times the masks beside them: conv1 and 1 more" in got.told


@pytest.mark.parametrize(
    ("naming", "what"),
    [
        ("a list", "what is called a mask and fits no weight: masks.0 and 1 more"),
        ("packed", "what is called a mask and fits no weight: fc.weight_mask_packed"),
        ("of another shape", "what is called a mask and fits no weight: fc.mask"),
        ("no mask", "a parametrization of the weight, whose mask the file does not hold: fc"),
    ],
)
def test_a_mask_that_is_not_multiplied_is_told(naming, what, topology, tmp_path):
    got = saved(tmp_path / "w.pt", with_masks(naming), topology)
    assert densities(got) == {"conv1": 1, "fc": 1} and f"NOT APPLIED: {what}" in got.told


def test_layers_that_are_called_masks_stay_layers(topology, tmp_path):
    """Of Mask R-CNN's kind: a mask's name is one only where it has a weight's name behind it, and its shape."""
    tensors = {f"heads.mask_{name}": tensor for name, tensor in sparse_state().items()}
    got = saved(tmp_path / "w.pt", {**tensors, "heads.mask_fc.bias": torch.zeros(5)}, topology)
    assert densities(got) == {"conv1": 1, "fc": 0.5} and not any("NOT" in text for text in got.told)


def test_a_moving_average_beside_the_model_is_a_choice():
    path = CHECKPOINTS / "ema.pth"
    plain = read(path, topology=CHECKPOINTS / "t.csv")
    assert "of model, model_ema, model is read (--entry model_ema reads another)" in plain.told
    other = read(path, topology=CHECKPOINTS / "t.csv", entry="model_ema")
    both = torch.load(path, weights_only=True)
    assert np.array_equal(numbers(plain), both["model"]["fc.weight"])
    assert np.array_equal(numbers(other), both["model_ema"]["fc.weight"])
    with pytest.raises(ImportFormatError, match="entry: must be one of model, model_ema, epoch; got x"):
        read(path, topology=CHECKPOINTS / "t.csv", entry="x")


def test_of_two_models_side_by_side_one_is_read_and_told(topology, tmp_path):
    both = {
        who: {f"backbone.{n}": t for n, t in state(seed).items()} for seed, who in enumerate(("teacher", "student"))
    }
    got = saved(tmp_path / "w.pt", both, topology)
    assert any("begin with teacher.backbone. (--entry student.backbone reads another)" in text for text in got.told)
    other = saved(tmp_path / "w.pt", both, topology, entry="student.backbone")
    assert np.array_equal(numbers(got), state(0)["fc.weight"]) and np.array_equal(numbers(other), state(1)["fc.weight"])


def test_coordinates_are_read():
    path = CHECKPOINTS / "coo.pth"
    wanted = torch.load(path, weights_only=True)["c2.weight"].to_dense().ne(0).float().mean()
    assert densities(read(path, topology=CHECKPOINTS / "t.csv"))["c2"] == pytest.approx(float(wanted))


def test_order_is_never_trusted_and_a_map_says_what_is_what(tmp_path, capsys):
    arguments = ["import", CHECKPOINTS / "order.pth", "--topology", CHECKPOINTS / "order.csv"]
    assert run(*arguments, "--out", tmp_path / "t.npz") == 2
    assert "--map conv_main=" in capsys.readouterr().err
    names = "conv_main=main,conv_shortcut=shortcut.weight"
    assert run(*arguments, "--map", names, "--out", tmp_path / "t.npz") == 0
    assert "note: stem is stem_, the only weight of its shape" in capsys.readouterr().out
    got = read(
        CHECKPOINTS / "order.pth", topology=CHECKPOINTS / "order.csv", map={"conv_main": "main", "stem": "stem_"}
    )
    ours = torch.load(CHECKPOINTS / "order.pth", weights_only=True)
    assert np.array_equal(numbers(got, "conv_main"), ours["main.weight"].reshape(8, 8))
    for wrong, rule in [({"x": "main"}, "map: x: must be a layer"), ({"stem": "y"}, "stem: must name a tensor of")]:
        with pytest.raises(ImportFormatError, match=rule):
            read(CHECKPOINTS / "order.pth", topology=CHECKPOINTS / "order.csv", map=wrong)


# ---- how they lie


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.fc = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.conv1(x).mean((2, 3)))


WRAPPED = {
    "plain": lambda s: s,
    "DataParallel": lambda s: {"epoch": 1, "state_dict": {f"module.{n}": t for n, t in s.items()}},
    "model_state": lambda s: {"model_state": s, "optimizer_state": {"state": {0: {"exp_avg": s["fc.weight"]}}}},
    "params": lambda s: {"params": s},
    "nested": lambda s: {"net": {"state_dict": s}},
    "Lightning": lambda s: {
        "state_dict": {f"model.{n}": t for n, t in s.items()} | {"loss.weight": torch.ones(2, 2)},
        "optimizer_states": [{"state": {}}],
        "hyper_parameters": {"lr": 0.1},
    },
    "parts": lambda s: {"conv1": {"weight": s["conv1.weight"]}, "fc": {"weight": s["fc.weight"]}},
    "weights and masks": lambda s: {
        "weights": {n: t + 1 for n, t in s.items()},
        "masks": {n: (t != 0).float() for n, t in s.items()},
    },
    "float16": lambda s: {n: t.half() for n, t in s.items()},
    "bfloat16": lambda s: {n: t.bfloat16() for n, t in s.items()},
    "transposed in memory": lambda s: {n: t.transpose(0, 1).contiguous().transpose(0, 1) for n, t in s.items()},
    "COO": lambda s: {n: t.to_sparse() for n, t in s.items()},
    "CSR": lambda s: {**s, "fc.weight": s["fc.weight"].to_sparse_csr()},
    "CSC": lambda s: {**s, "fc.weight": s["fc.weight"].to_sparse_csc()},
    "float8": lambda s: {n: t.to(torch.float8_e4m3fn) for n, t in s.items()},
    "int8": lambda s: {n: torch.quantize_per_tensor(t, 0.1, 3, torch.qint8) for n, t in s.items()},
    "int8 by filter": lambda s: {
        n: torch.quantize_per_channel(t, torch.full((len(t),), 0.1), torch.arange(len(t)), 0, torch.qint8)
        for n, t in s.items()
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_every_wrapping_gives_the_same_zeros(kind, zipped, topology, tmp_path, monkeypatch):
    content = WRAPPED[kind](sparse_state())
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    monkeypatch.setitem(sys.modules, "torch", None)  # nothing of it is needed
    wanted = sparse_state()["fc.weight"].numpy() != 0
    got = numbers(read(tmp_path / "w.pt", topology=topology)) != 0
    assert np.array_equal(got, wanted) if "8" not in kind else not got[~wanted].any() and got[wanted].mean() > 0.8


def test_numbers_are_those_that_were_saved(topology, tmp_path):
    for zipped in (True, False):
        torch.save(state(), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        assert np.array_equal(numbers(read(tmp_path / "w.pt", topology=topology)), state()["fc.weight"])


@pytest.mark.filterwarnings("ignore")
def test_a_whole_model_and_torchscript_are_read_without_running_them(topology, tmp_path):
    from torch.nn.utils import prune

    net = Net()
    prune.l1_unstructured(net.fc, "weight", 0.5)
    torch.save(net, tmp_path / "whole.pt")
    assert (numbers(read(tmp_path / "whole.pt", topology=topology)) != 0).sum() == 10
    plain = Net()
    torch.jit.trace(plain, torch.zeros(1, 3, 8, 8)).save(tmp_path / "script.pt")
    got = read(tmp_path / "script.pt", topology=topology)
    assert np.array_equal(numbers(got), plain.fc.weight.detach())


def test_a_pickle_that_would_run_code_runs_none(topology, tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'evil')!r}, 'w')",)

    got = saved(tmp_path / "w.pt", {"state_dict": state(), "hyper_parameters": Evil()}, topology)
    assert np.array_equal(numbers(got), state()["fc.weight"]) and not (tmp_path / "evil").exists()
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ImportFormatError):
        read(tmp_path / "bare.pt", topology=topology)
    assert not (tmp_path / "evil").exists()


# ---- what a forward pass multiplies by


def test_pruned_modules_of_pytorch_are_read_as_they_run(topology, tmp_path):
    from torch.ao.pruning import WeightNormSparsifier

    net = Net()
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 1), zeros_per_block=1)
    sparsifier.prepare(net, [{"tensor_fqn": "fc.weight"}])
    sparsifier.step()
    wanted = net.fc.weight.detach().numpy().copy()
    assert 0 < np.count_nonzero(wanted) < wanted.size
    both = {"model": net.state_dict(), "sparsifier": sparsifier.state_dict()}
    got = saved(tmp_path / "w.pt", both, topology)
    assert np.array_equal(numbers(got), wanted)
    assert "weights times the masks beside them: fc" in got.told
    alone = saved(tmp_path / "w.pt", net.state_dict(), topology)  # PyTorch leaves the mask out of it
    assert any("NOT APPLIED" in text and text.endswith("fc") for text in alone.told)
    inside = {**net.state_dict(), "fc.parametrizations.weight.0.mask": torch.from_numpy(wanted != 0)}
    assert np.array_equal(numbers(saved(tmp_path / "w.pt", inside, topology)), wanted)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm])
def test_weight_norm_is_its_product(norm, topology, tmp_path):
    net = Net()
    net.fc.weight.data[:, 1] = 0
    norm(net.fc)
    with torch.no_grad():
        sizes = next(n for n in net.state_dict() if n.endswith(("weight_g", "original0")))
        dict(net.named_parameters())[sizes][2] = 0
    net(torch.zeros(1, 3, 8, 8))
    got = numbers(saved(tmp_path / "w.pt", net.state_dict(), topology))
    assert np.allclose(got, net.fc.weight.detach(), atol=1e-6) and not got[2].any() and not got[:, 1].any()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", [torch.nn.utils.spectral_norm, torch.nn.utils.parametrizations.spectral_norm])
def test_spectral_norm_changes_no_zero(norm, topology, tmp_path):
    net = Net()
    net.fc.weight.data[:, 1] = 0
    norm(net.fc)
    got = numbers(saved(tmp_path / "w.pt", net.state_dict(), topology))
    assert (got == 0).sum() == 5 and not got[:, 1].any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 1)])
def test_a_threshold_beside_the_weight_is_str_s(shape, topology, tmp_path):
    threshold = torch.linspace(-2, 1, shape[0]).reshape(shape)
    values = state()["fc.weight"]
    wanted = torch.sign(values) * torch.relu(values.abs() - torch.sigmoid(threshold))
    got = saved(tmp_path / "w.pt", {**state(), "fc.sparseThreshold": threshold}, topology)
    assert np.allclose(numbers(got), wanted, atol=1e-6) and 0 < (numbers(got) == 0).sum() < 20


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("fc.mask", torch.eye(5, 4)),
        ("fc.weight_mask", torch.eye(5, 4).bool()),
        ("fc.pruning_mask", torch.tensor([1.0, 0, 0, 1, 0])),
        ("fc.weight.mask", torch.tensor([[1.0, 0, 0, 1]])),
    ],
)
def test_a_mask_of_any_name_and_reach_is_multiplied(name, mask, topology, tmp_path):
    got = saved(tmp_path / "w.pt", {**state(), name: mask}, topology)
    around = mask.float().numpy().reshape(-1, 1) if mask.ndim == 1 else mask.float().numpy()
    assert np.array_equal(numbers(got) != 0, np.broadcast_to(around, (5, 4)) != 0)


def test_what_has_a_weight_s_shape_and_is_not_known_is_named(topology, tmp_path):
    got = saved(tmp_path / "w.pt", {**state(), "fc.popup_scores": state(1)["fc.weight"]}, topology)
    assert "NOT USED: a tensor popup_scores that has the weight's shape: fc" in got.told


# ---- other containers


def test_arrays_are_read(topology, tmp_path):
    arrays = {name.removesuffix(".weight"): tensor.numpy() for name, tensor in sparse_state().items()}
    np.savez(tmp_path / "w.npz", **arrays)
    assert densities(read(tmp_path / "w.npz", topology=topology)) == {"conv1": 1, "fc": 0.5}
    np.savez_compressed(tmp_path / "w.npz", **{f"{name}/weight": array for name, array in arrays.items()})
    assert densities(read(tmp_path / "w.npz", topology=topology)) == {"conv1": 1, "fc": 0.5}
    np.savez(tmp_path / "w.npz", fc=np.array([object()]))
    with pytest.raises(ImportFormatError, match="must hold tensors by name, holds none"):
        read(tmp_path / "w.npz", topology=topology)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_model_in_several_files_is_read_by_its_index_or_folder(ending, topology, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    folder = tmp_path / "model"
    folder.mkdir()
    names = {}
    for number, (name, tensor) in enumerate(sparse_state().items(), start=1):
        file = names[name] = f"model-{number:05}-of-00002.{ending}"
        (safetensors.save_file if ending == "safetensors" else torch.save)({name: tensor}, folder / file)
    index = folder / f"model.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    for path in (index, folder):
        got = read(path, topology=topology)
        assert densities(got) == {"conv1": 1, "fc": 0.5} and any("read from 2 files" in text for text in got.told)
    for bad, rule in [("../x", "must be a file beside"), (3, "must name the file"), (index.name, "must be a file")]:
        index.write_text(json.dumps({"weight_map": {"fc.weight": bad}}))
        with pytest.raises(ImportFormatError, match=rule):
            read(index, topology=topology)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"])
def test_8_bit_floats_are_what_pytorch_makes_of_them(dtype):
    from accelsim.workload.importers.tensors import decoded

    bits = torch.arange(256, dtype=torch.uint8)
    wanted = bits.view(getattr(torch, dtype)).float().numpy()
    ours = decoded(bits.numpy(), f"F8_{dtype.removeprefix('float8_').removesuffix('fn').upper()}")
    assert np.array_equal(ours, wanted, equal_nan=True)


def test_float8_in_safetensors_is_read(topology, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    tensors = {name: tensor.to(torch.float8_e5m2) for name, tensor in sparse_state().items()}
    safetensors.save_file(tensors, tmp_path / "w.safetensors")
    assert densities(read(tmp_path / "w.safetensors", topology=topology)) == {"conv1": 1, "fc": 0.5}


SPANS = {  # of conv1, fc, and how many bytes more the file has
    "conv1 ends beyond the file": ([[8, 24], [0, 8]], -8, "must lie in the file, lies in 8…24 of 16"),
    "they overlap": ([[0, 16], [8, 16]], 0, "fc: must begin where the tensor before it ends, 16, begins at 8"),
    "there is a gap": ([[0, 16], [24, 32]], 8, "fc: must begin where the tensor before it ends, 16, begins at 24"),
    "the last is not the end": ([[0, 16], [16, 24]], 8, "must end with its last tensor, 24 bytes after the header"),
    "too few for the shape": ([[0, 12], [12, 20]], -4, r"conv1.weight: F32 \[2, 2, 1, 1\] must lie in the file"),
    "all is well": ([[8, 24], [0, 8]], 0, None),
}


@pytest.mark.parametrize("case", SPANS)
def test_tensors_of_safetensors_lie_one_behind_the_other(case, tmp_path):
    from accelsim.workload.importers.safetensors import tensors

    spans, more, rule = SPANS[case]
    shapes = {"conv1.weight": [2, 2, 1, 1], "fc": [2]}
    header = json.dumps({
        name: {"dtype": "F32", "shape": shape, "data_offsets": span}
        for (name, shape), span in zip(shapes.items(), spans, strict=True)
    }).encode()  # fmt: skip
    path = tmp_path / "w.safetensors"
    path.write_bytes(
        len(header).to_bytes(8, "little")
        + header
        + np.arange(6, dtype="<f4").tobytes()[: 24 + more]
        + bytes(max(0, more))
    )
    if rule is None:
        assert tensors(path)["fc"].read().tolist() == [0, 1]
        return
    with pytest.raises(ImportFormatError, match=rule):
        tensors(path)


def damaged(content):
    """A file of PyTorch with bytes changed, cut or doubled."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        text = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(text)))
            text[at : at + int(rng.integers(0, 3))] = rng.bytes(int(rng.integers(0, 4)))
        yield bytes(text)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_one_line(zipped, topology, tmp_path):
    torch.save(sparse_state(), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    refused = 0
    for content in damaged((tmp_path / "w.pt").read_bytes()):
        (tmp_path / "d.pt").write_bytes(content)
        try:
            trace = to_trace(read(tmp_path / "d.pt", topology=topology))
            for layer in trace.snapshots[0].layers:
                layer.tensor("weight")
        except Exception as error:
            assert type(error).__module__ == "accelsim.errors", repr(error)
            assert "\n" not in str(error)
            refused += 1
    assert refused > 10
