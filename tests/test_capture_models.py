"""Are the networks those published, and do weights get into them whole or not at all?

The figures for real weights need a folder of real data in the environment variable ACCELSIM_DATA, laid out with
``resnet50``, ``photos``, ``cifar10`` and ``cifar-resnets``.
"""

import io
import os
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

from accelsim.capture.checkpoint import load, zeros  # noqa: E402
from accelsim.capture.data import open_dataset  # noqa: E402
from accelsim.capture.models import MODELS, build  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.workload.trace import Trace  # noqa: E402

# ---- models

# ImageNet's: torchvision's documentation. CIFAR's: He et al. (0.27 M, 0.85 M), Zagoruyko and Komodakis (11.0 M), and
# the common CIFAR versions of ResNet-18 (11.17 M) and DenseNet-121 (6.96 M); VGG-16's less what CIFAR needs less.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "wide_resnet50_2": 68_883_240,
    "vgg16_bn": 138_365_992,
    "densenet121": 7_978_856,
    "cifar_resnet18": 11_173_962,
    "cifar_resnet8": 75_290,  # He et al.'s rule with n = 1
    "cifar_resnet20": 269_722,
    "cifar_resnet56": 853_018,
    "cifar_vgg16": 138_365_992 - 512 * (49 - 1) * 4096 - (1000 - 10) * (4096 + 1),
    "cifar_wrn16_8": 10_961_370,
    "cifar_densenet121": 6_956_298,
}
CIFAR = [name for name in MODELS if name.startswith("cifar")]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        model = build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert not any(getattr(module, "inplace", False) for module in model.modules())  # hooks on any layer are safe


@pytest.fixture(scope="module")
def torchvision():
    """torchvision, also where its binary does not fit PyTorch's: its networks need none of the binary's operators."""
    library = None
    try:
        import torchvision
    except ImportError:
        pytest.skip("no torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    yield torchvision
    del library


@pytest.mark.parametrize("name", [name for name in MODELS if name not in CIFAR])
def test_an_imagenet_model_is_torchvisions(torchvision, name):
    torch.manual_seed(0)
    ours = build(name, 7)
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(num_classes=7)
    mine, wanted = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(wanted) and all(torch.equal(mine[key], wanted[key]) for key in mine)
    layers = [[key for key, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
              for model in (ours, theirs)]  # fmt: skip
    assert layers[0] == layers[1]
    images = torch.randn(2, 3, 64, 64)
    for mode in (True, False):
        torch.manual_seed(1)  # for dropout
        got = ours.train(mode)(images)
        torch.manual_seed(1)
        assert torch.equal(got, theirs.train(mode)(images))


@pytest.mark.parametrize("name", CIFAR)
def test_a_cifar_model_trains_on_32_by_32(name):
    torch.manual_seed(0)
    model = build(name, 4)
    sizes = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, inputs, output: sizes.append(output.shape[2]))
    output = model(torch.randn(2, 3, 32, 32))
    assert output.shape == (2, 4) and sizes[0] == 32 and min(sizes) == {"cifar_vgg16": 2}.get(name, min(sizes))
    output.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_wide_resnet_16_8_has_16_layers_with_dropout():
    with torch.device("meta"):
        model = build("cifar_wrn16_8")
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    assert len([name for name in convolutions if "Shortcut" not in name]) == 13  # and 3 shortcuts make 16
    assert len(convolutions) == 16
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.3}


def test_the_layers_of_the_shipped_trace_are_those_of_the_model():
    with torch.device("meta"):
        model = build("resnet50")
    shapes = {name: module.weight.shape for name, module in model.named_modules() if hasattr(module, "weight")}
    with Trace.open(Path(__file__).parents[1] / "traces" / "resnet50.npz") as trace:
        layers = next(iter(trace.snapshots)).layers
        assert len(layers) > 40
        for layer in layers:
            wanted = layer.shape_of("weight")
            assert (*shapes[layer.name], 1, 1)[:4] == wanted


OWN = """
import torch
net = torch.nn.Linear(2, 3)
number = 3
class Model(torch.nn.Linear):
    def __init__(self, num_classes=5):
        super().__init__(2, num_classes)
class Zoo:
    Inner = Model
def plain():
    return torch.nn.Linear(2, 9)
def loose(**how):
    return Model(**how)
def broken():
    raise ValueError("two\\nlines")
def wrong():
    return 3
def demanding(size):
    return Model()
"""


def test_a_model_of_ones_own(tmp_path, monkeypatch):
    package = tmp_path / "own_models"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "zoo.py").write_text(OWN)
    (package / "bad.py").write_text("import no_such_module_anywhere")
    (package / "worse.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    for name, outputs in [("zoo:Model", 4), ("zoo.Model", 4), ("zoo:loose", 4), ("zoo:plain", 9), ("zoo:net", 3)]:
        assert build(f"own_models.{name}", 4).out_features == outputs
    assert build("own_models.zoo:Zoo.Inner").out_features == 5
    for name, words in [
        ("zoo:gone", "cannot import: AttributeError"),
        ("gone:Model", "cannot import: ModuleNotFoundError: No module named 'own_models.gone'"),
        ("bad:Model", "No module named 'no_such_module_anywhere'"),
        ("worse:Model", "ZeroDivisionError"),
        ("zoo:number", "must be callable and return a torch.nn.Module, is int"),
        ("zoo:wrong", "must return a torch.nn.Module, returned int"),
        ("zoo:broken", "ValueError: two lines"),
        ("zoo:demanding", "TypeError"),
        ("zoo", "must be callable"),
        ("zoo:", "is module"),
        ("2:!", "cannot import"),
    ]:
        with pytest.raises(AccelsimError) as caught:
            build(f"own_models.{name}", 4)
        assert words in str(caught.value) and "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"own_models.{name}: ")
    assert sys.path == before


def test_what_is_no_model_is_refused():
    for name in ("resnet51", "", "ResNet50"):
        with pytest.raises(AccelsimError, match=r"no such model; must be one of resnet18, .*package\.module:factory"):
            build(name)
    with pytest.raises(AccelsimError, match="1 or more, got 0"):
        build("resnet18", 0)


# ---- checkpoints


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)


@pytest.fixture
def weights():
    torch.manual_seed(1)
    return Small().state_dict()


def test_what_torch_saved(tmp_path, weights):
    file = tmp_path / "a.pth"
    old = {name: value for name, value in weights.items() if "tracked" not in name}
    for content in [
        weights,
        {"state_dict": weights, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        {"model": {f"module.{name}": value for name, value in weights.items()}},
        {"net": {f"_orig_mod.module.{name}": value for name, value in weights.items()}},
        {f"module._orig_mod.{name}": value for name, value in weights.items()},
        {"state_dict": {"model": weights}},
        {name: value.double() for name, value in old.items()},
    ]:
        for how in ({}, {"_use_new_zipfile_serialization": False}):
            torch.save(content, file, **how)
            model = Small()
            fit = load(model, file)
            assert str(fit) == "" and set(fit.loaded) >= set(old)
            assert all(torch.equal(model.state_dict()[name], weights[name]) for name in old)


def test_safetensors(tmp_path, weights, monkeypatch):
    """Read without the package."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    file = tmp_path / "a.safetensors"
    save_file(weights, file)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    model = Small()
    load(model, file)
    assert torch.equal(model.conv.weight, weights["conv.weight"])
    file.write_bytes(file.read_bytes()[:-9])
    assert "must lie in the file" in refused(file)


def pruned(weights, share=0.8):
    """Of torch.nn.utils.prune: what it keeps, and what the forward pass multiplies by."""
    model = Small()
    model.load_state_dict(weights)
    for layer in (model.conv, model.fc):
        prune.random_unstructured(layer, "weight", share)
    return model.state_dict(), {"conv.weight": model.conv.weight.detach(), "fc.weight": model.fc.weight.detach()}


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".npz"])
def test_masks_beside_weights_are_applied(tmp_path, weights, ending):
    state, used = pruned(weights)
    beside = weights | {"conv.weight_mask": state["conv.weight_mask"], "fc.weight.mask": state["fc.weight_mask"]}
    for content in (state, beside):
        file = tmp_path / f"a{ending}"
        if ending == ".pt":
            torch.save(content, file)
        elif ending == ".npz":
            np.savez(file, **{name: value.numpy() for name, value in content.items()})
        else:
            pytest.importorskip("safetensors.torch").save_file(content, file)
        model = Small()
        fit = load(model, file)
        assert all(torch.equal(model.state_dict()[name], weight) for name, weight in used.items())
        assert abs(zeros(model) - 0.8) < 0.01
        assert fit.told == ("weights times the masks beside them: conv and 1 more",)


def test_a_model_with_the_same_parts_gets_them_as_they_are(tmp_path, weights):
    state, _ = pruned(weights)
    torch.save(state, tmp_path / "a.pt")
    model = Small()
    for layer in (model.conv, model.fc):
        prune.identity(layer, "weight")
    fit = load(model, tmp_path / "a.pt")
    assert fit.told == () and all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    masked = nn.Sequential(nn.Linear(3, 2))
    masked[0].register_buffer("mask", torch.rand(2, 3) < 0.5)
    torch.save(masked.state_dict(), tmp_path / "b.pt")
    assert load(masked, tmp_path / "b.pt").told == ()


def test_integers_and_what_is_divided_by_a_norm_are_no_weights(tmp_path, weights):
    torch.save(weights | {"fc.weight": torch.ones(5, 6, dtype=torch.int8)}, tmp_path / "a.pt")
    assert "must be numbers as trained, 1 tensors are integers (fc.weight)" in refused(tmp_path / "a.pt")
    model = Small()
    torch.nn.utils.spectral_norm(model.fc)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    assert "not in the model (fc.weight_u, fc.weight_v)" in refused(tmp_path / "a.pt")


def packed(weight):
    """The sparse form: bits of the flat weight, values of those set."""
    mask = weight != 0
    return {"mask": np.packbits(mask.ravel()), "values": weight[mask], "shape": np.array(weight.shape, np.int32)}


def an_npz(file, weights, sparse=(), quantised=None, **changed):
    arrays = {name: value.numpy() for name, value in weights.items() if name not in sparse}
    for name in sparse:
        arrays |= {f"{name}.{part}": array for part, array in packed(weights[name].numpy()).items()}
    if quantised is not None:
        del arrays["conv.weight"]
        arrays |= {f"conv.{part}": array for part, array in quantised.items()}
    arrays |= changed
    np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})
    return file


def test_an_npz_of_arrays_plain_or_sparse(tmp_path, weights):
    weights["conv.weight"][torch.rand(6, 4, 3, 3) < 0.8] = 0
    weights["fc.weight"][:] = 0
    for sparse in ((), ("conv.weight", "fc.weight")):
        model = Small()
        assert str(load(model, an_npz(tmp_path / "a.npz", weights, sparse))) == ""
        assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    half = an_npz(tmp_path / "b.npz", {name: value.half() for name, value in weights.items()}, ["conv.weight"])
    load(model, half)
    assert torch.equal(model.conv.weight, weights["conv.weight"].half().float())


CODES = {
    "centroids": np.arange(18, dtype=np.float16).reshape(2, 9),
    "assignments": np.array([0, 1, 1, 0, 1, 1] * 4, np.uint16),
    "n_blocks": np.int32(4),
}


def test_an_npz_of_code_words(tmp_path, weights):
    model = Small()
    load(model, an_npz(tmp_path / "a.npz", weights, quantised=CODES))
    for block, row in enumerate(CODES["assignments"].reshape(4, 6)):
        for filter_, code in enumerate(row):
            wanted = CODES["centroids"][code].astype(np.float32).reshape(3, 3)
            assert np.array_equal(model.conv.weight[filter_, block].detach().numpy(), wanted)


def refused(file, model=None, **how):
    model = model or Small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(AccelsimError) as caught:
        load(model, file, **how)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return str(caught.value)


def test_keys_that_do_not_fit_are_named_and_counted(tmp_path, weights):
    file = tmp_path / "a.pt"
    changed = {name: value for name, value in weights.items() if "running" not in name and name != "bn.bias"}
    changed |= {f"more.{number}": torch.zeros(1) for number in range(5)} | {"fc.weight": torch.zeros(9, 6)}
    torch.save(changed, file)
    message = refused(file)
    assert "must fit the model: 3 missing in the file (bn.bias, bn.running_mean, bn.running_var)" in message
    assert "5 not in the model (more.0, more.1, more.2, …)" in message
    assert "1 of another shape (fc.weight must be (5, 6), is (9, 6))" in message
    model = Small()
    fit = load(model, file, strict=False)
    assert fit.extra == tuple(f"more.{number}" for number in range(5)) and len(fit.missing) == 3
    assert set(fit.loaded) == {"conv.weight", "bn.weight", "bn.num_batches_tracked", "fc.bias"}
    assert torch.equal(model.conv.weight, weights["conv.weight"])
    torch.save({"other": torch.zeros(1)}, file)
    assert "nothing in it does fit the model" in refused(file, strict=False)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path, weights):
    trap, file = str(tmp_path / "trap"), tmp_path / "a.pth"
    for how in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save({**weights, "evil": Evil(trap)}, file, **how)
        model = Small()
        assert str(load(model, file)) == "" and torch.equal(model.conv.weight, weights["conv.weight"])
    file.write_bytes(pickle.dumps(Evil(trap), 2))
    assert refused(file)
    whole = Small()
    torch.save(whole, file)
    load(model, file)
    assert torch.equal(model.fc.weight, whole.fc.weight)
    with tarfile.open(file, "w") as tar:  # PyTorch below 2.6 runs what is in these
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Evil(trap))
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert "a tar archive" in refused(file)
    assert not Path(trap).exists()


def test_a_malformed_file_is_refused(tmp_path, weights):
    file = tmp_path / "a.pth"
    assert "no such file" in refused(file)
    torch.save(weights, file)
    whole = file.read_bytes()
    for content in (b"", b"abc", whole[: len(whole) // 2], whole[:200] + b"\xff" * 50 + whole[250:]):
        file.write_bytes(content)
        refused(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    assert "must be a zip by torch.save" in refused(file)
    for content, words in [
        ([1, 2], "must hold tensors by name, holds none"),
        ({}, "must hold tensors by name, holds none"),
        ({1: torch.zeros(1)}, "nothing in it does fit the model"),
        ({**weights, "fc.bias": torch.tensor([1, 2, 3, 4, float("nan")])}, "1 tensors have NaN or ∞ (fc.bias)"),
    ]:
        torch.save(content, file)
        assert words in refused(file)


def test_a_malformed_npz_is_refused(tmp_path, weights):
    file, conv = tmp_path / "a.npz", packed(weights["conv.weight"].numpy())

    def sparse(**changed):
        return {f"conv.weight.{part}": array for part, array in {**conv, **changed}.items()}

    def coded(**changed):
        return {"quantised": {**CODES, **changed}}

    for how, words in [
        (sparse(mask=None), "216 values"),
        (sparse(values=None), "conv.weight.values: must be in the file"),
        (sparse(shape=None), "conv.weight.shape: must be in the file"),
        (sparse(mask=conv["mask"][:-1]), "must be the packed bits of shape (6, 4, 3, 3)"),
        (sparse(mask=conv["mask"].astype(int)), "must be the packed bits"),
        (sparse(values=conv["values"][:-1]), "conv.weight.values: must be 216 for its mask, got shape (215,)"),
        (sparse(shape=np.array([1 << 40, 1 << 40])), "must be the packed bits"),
        (sparse(shape=np.array([-6, -4, 3, 3])), "must be the packed bits"),
        (sparse(shape=np.array([4, 6, 3, 3])), "1 of another shape (conv.weight must be (6, 4, 3, 3)"),
        (coded(n_blocks=np.int32(5)), "conv: must give a weight of shape (6, 4, 3, 3), has 24 words of 9 in 5 blocks"),
        (coded(centroids=CODES["centroids"][:, :8]), "must give a weight of shape"),
        (coded(centroids=CODES["centroids"][:1]), "conv.assignments: must be 0…0, are 0…1"),
        (coded(centroids=CODES["centroids"][0]), "must have centroids"),
        (coded(n_blocks=np.arange(2)), "must have centroids"),
        (coded(assignments=None), "conv.assignments: must be in the file"),
        ({"fc.bias": np.array(["a"] * 5)}, "fc.bias: must be numbers"),
        ({"fc.bias": np.array([{}] * 5)}, "must not be a pickled array"),
        ({"odd.weight.mask": conv["mask"]}, "not in the model (odd.weight)"),
        ({"odd.centroids": conv["mask"]}, "not in the model (odd.weight)"),
    ]:
        taken = [] if "quantised" in how or "conv.weight.mask" not in how else ["conv.weight"]
        message = refused(an_npz(file, weights, taken, **how))
        assert words in message or (how.get("conv.weight.mask", 0) is None and "missing in the file" in message)
    file.write_bytes(file.read_bytes()[:300])
    assert "must be a whole .npz file" in refused(file)


def test_torchvisions_old_names_of_densenet_fit(tmp_path):
    model = build("densenet121", 5)
    old = {}
    for name, value in model.state_dict().items():
        head, dot, layer = name.partition(".denselayer")
        for kind in ("norm", "conv"):
            for number in "12":
                layer = layer.replace(f".{kind}{number}.", f".{kind}.{number}.")
        old[head + dot + layer] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "a.pth")
    assert str(load(build("densenet121", 5), tmp_path / "a.pth")) == ""


# ---- the real thing

real = pytest.mark.skipif("ACCELSIM_DATA" not in os.environ, reason="ACCELSIM_DATA names no folder of real data")


def accuracy(model, dataset, images):
    model.eval()
    right = seen = 0
    with torch.inference_mode():
        for inputs, labels in dataset.batches(min(images, 50), shuffle=False, drop_last=False):
            right += int((model(inputs).argmax(1) == labels).sum())
            seen += len(labels)
            if seen >= images:
                break
    return right / seen


@real
@pytest.mark.parametrize("depth", [20, 56])
def test_trained_cifar_resnets_are_right_about_cifar(depth):
    root = Path(os.environ["ACCELSIM_DATA"])
    model = build(f"cifar_resnet{depth}")
    (file,) = (root / "cifar-resnets").glob(f"*resnet{depth}-*.th")
    assert str(load(model, file)) == ""
    assert accuracy(model, open_dataset(root / "cifar10"), 500) > 0.9


@real
@pytest.mark.parametrize("name", ["swat80_resnet50_sparse_fp16", "ktb_resnet50_vq_calibrated"])
def test_trained_resnet50_is_right_about_photos(name):
    root = Path(os.environ["ACCELSIM_DATA"])
    model = build("resnet50")
    assert str(load(model, root / "resnet50" / f"{name}.npz")) == ""
    if name.startswith("swat80"):
        weight = model.layer2[0].conv2.weight
        assert abs((weight != 0).float().mean() - 0.2) < 0.001
    assert accuracy(model, open_dataset(root / "photos", num_classes=1000), 128) > 0.75
