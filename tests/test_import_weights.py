"""Do checkpoints give each layer the weights that its forward pass multiplies by, or say why not?"""

import json

import numpy as np
import pytest
from importing import TOPOLOGY

from accelsim.errors import ImportFormatError
from accelsim.workload.importers import read, to_trace


@pytest.fixture
def topology(tmp_path):
    (tmp_path / "topology.csv").write_text(TOPOLOGY)
    return tmp_path / "topology.csv"


def weights(names=("conv1", "fc")):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((4, 3, 3, 3)), rng.standard_normal((5, 4))]
    return {f"{name}.weight": array.astype(np.float32) for name, array in zip(names, arrays, strict=True)}


def extras():
    return {"bn.weight": np.ones(4, np.float32), "fc.bias": np.ones(5, np.float32)}


def save_safetensors(path, tensors):
    pytest.importorskip("safetensors.numpy").save_file(tensors, path)


def save_torch(path, tensors):
    torch = pytest.importorskip("torch")
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": torch.from_numpy(a) for n, a in tensors.items()}}, path)


@pytest.mark.parametrize(("name", "save"), [("w.safetensors", save_safetensors), ("w.pth", save_torch)])
@pytest.mark.parametrize("names", [("conv1", "fc"), ("features.0", "head")])
def test_weights_are_put_into_the_layers_of_a_topology(name, save, names, topology, tmp_path):
    """By name, or by shapes that occur once where names differ; batch norms and biases are no layers."""
    save(tmp_path / name, weights(names) | (extras() if names[1] == "fc" else {}))
    got = read(tmp_path / name, topology=topology)
    assert [layer.name for layer in got.layers] == ["conv1", "fc"]
    trace = to_trace(got, [0, 0.75])
    for dense, sparse, array in zip(*(s.layers for s in trace.snapshots), weights().values(), strict=True):
        assert dense.tensor("weight").all()
        kept = sparse.tensor("weight").ravel()
        if sparse.name == "fc":
            assert kept.sum() == 5 and np.abs(array).ravel()[kept].min() > np.abs(array).ravel()[~kept].max()


def test_bfloat16_is_read(topology, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {n: torch.from_numpy(a).bfloat16() for n, a in weights().items()}
    tensors["fc.weight"][2:] = 0
    pytest.importorskip("safetensors.torch").save_file(tensors, tmp_path / "w.safetensors")
    mask = to_trace(read(tmp_path / "w.safetensors", topology=topology)).snapshots[0].layers[1].tensor("weight")
    assert mask.reshape(5, 4).all(axis=1).tolist() == [True, True, False, False, False]


def test_weights_that_do_not_fit_are_refused(topology, tmp_path):
    file = tmp_path / "w.safetensors"
    save_safetensors(file, weights())
    with pytest.raises(ImportFormatError, match="give a --topology"):
        read(file)
    save_safetensors(file, weights() | {"other.weight": np.ones((2, 2))} | {"conv1.weight": np.ones((4, 3, 3, 2))})
    with pytest.raises(ImportFormatError, match=r"conv1\.weight: must have shape \(4, 3, 3, 3\) of conv1, got"):
        read(file, topology=topology)
    save_safetensors(file, {"conv.weight": np.ones((4, 3, 3, 3))})
    with pytest.raises(ImportFormatError, match="no weight"):
        read(file, topology=topology)


def safetensors_bytes(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"\xff" * 8, "claims a header of"),
        (b"\x02\0\0\0\0\0\0\0[]", "header: must be an object"),
        (safetensors_bytes({"fc.weight": 1}), "must have dtype, shape"),
        (
            safetensors_bytes({"fc.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
            "lie in",
        ),
        (safetensors_bytes({"fc.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"), "lie in"),
        (safetensors_bytes({"fc.weight": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), "must have dtype"),
    ],
)
def test_damaged_safetensors_are_refused_before_anything_is_allocated(content, rule, topology, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ImportFormatError, match=rule):
        read(tmp_path / "w.safetensors", topology=topology)
