"""Do ONNX models become the products that they compute, with the weights that they multiply by?"""

import sys
from pathlib import Path

import numpy as np
import pytest
from importing import DATA

import accelsim
from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import read, to_trace

EXPORTED = {
    "Conv1d": Geometry(4, 10, 1, 5, (3, 1)),
    "Conv2d_depthwise_with_multiplier": Geometry(4, 6, 6, 8, (3, 3), groups=4),
    "Conv2d_dilated": Geometry(3, 8, 8, 2, (3, 3), (2, 2), (1, 1, 1, 1), (2, 2)),
    "Conv2d_groups": Geometry(4, 6, 5, 6, (3, 2), groups=2),
    "Conv2d_padding": Geometry(3, 6, 6, 4, (3, 3), (2, 2), (1, 1, 1, 1)),
    "Conv2d_strided": Geometry(3, 6, 6, 4, (3, 3), (2, 2)),
    "Linear": Geometry(10, 1, 1, 8, (1, 1)),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_models_that_pytorch_exported_have_their_shapes_and_weights(name):
    onnx = pytest.importorskip("onnx")
    path = DATA / "onnx" / f"{name}.onnx"
    model = onnx.load(path)
    (layer,) = read(path).layers
    assert layer.geometry == EXPORTED[name]
    # What PyTorch says the result is.
    wanted = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    got = read(path).samples, layer.geometry.filters, *layer.geometry.output
    assert got == (*wanted, 1, 1)[:4]
    weight = onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "1"))
    mask = to_trace(read(path)).snapshots[0].layers[0].tensor("weight")
    assert (mask.ravel() == (weight != 0).ravel()).all()


def test_resnet50_of_the_model_zoo_has_the_layers_of_the_shipped_trace():
    onnx = pytest.importorskip("onnx")
    path = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    if not path.is_file():
        pytest.skip("this onnx ships no models")
    got = read(path)
    with accelsim.open_trace("resnet50.npz") as trace:
        shipped = trace.snapshots[0].layers
    assert len(got.layers) == len(shipped) == 54
    assert sorted(layer.geometry.weight_shape for layer in got.layers) == sorted(
        layer.geometry.weight_shape for layer in shipped
    )
    total = sum(layer.geometry.multiplications for layer in got.layers)
    assert total == sum(layer.geometry.multiplications for layer in shipped) == 4_089_184_256


def onnx_model(path, nodes, inputs, weights, opset=13):
    onnx = pytest.importorskip("onnx")
    h, dtype = onnx.helper, onnx.TensorProto.FLOAT
    values = [h.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()]
    arrays = [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    result = h.make_tensor_value_info(nodes[-1].output[0], dtype, None)
    graph = h.make_graph(nodes, "g", values, [result], arrays)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", opset)]), path)
    return path


def test_auto_pad_open_batches_gemm_and_matmul(tmp_path):
    onnx = pytest.importorskip("onnx")
    node, rng = onnx.helper.make_node, np.random.default_rng(0)
    weights = {"a.weight": rng.random((4, 3, 3, 3)), "b.weight": rng.random((4, 4, 2, 2))}
    weights |= {"g": rng.random((4, 5)), "m": rng.random((5, 6))}
    nodes = [
        node("Conv", ["x", "a.weight"], ["1"], auto_pad="SAME_UPPER", strides=[2, 2]),
        node("Conv", ["1", "b.weight"], ["2"], auto_pad="SAME_LOWER"),
        node("GlobalAveragePool", ["2"], ["3"]),
        node("Flatten", ["3"], ["4"]),
        node("Gemm", ["4", "g"], ["5"], name="/head/Gemm"),
        node("MatMul", ["5", "m"], ["6"], name="last"),
        node("Transpose", ["6"], ["7"], perm=[1, 0]),
        node("MatMul", ["6", "7"], ["8"], name="attention"),
    ]
    got = read(onnx_model(tmp_path / "m.onnx", nodes, {"x": ["batch", 3, 8, 8]}, weights))
    assert got.samples == 1 and [part.name for part in got.left_out] == ["attention"]
    assert {layer.name: layer.geometry for layer in got.layers} == {
        "a": Geometry(3, 8, 8, 4, (3, 3), (2, 2), (0, 1, 0, 1)),
        "b": Geometry(4, 4, 4, 4, (2, 2), padding=(1, 0, 1, 0)),
        "head/Gemm": Geometry(4, 1, 1, 5, (1, 1)),
        "last": Geometry(5, 1, 1, 6, (1, 1)),
    }
    layers = to_trace(got, [0.5]).snapshots[0].layers
    kept = layers[2].tensor("weight")[..., 0, 0]  # K C, of Gemm's C K
    assert weights["g"].T[kept].min() > weights["g"].T[~kept].max()


def test_a_model_whose_sizes_are_open_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="c")
    path = onnx_model(tmp_path / "m.onnx", [node], {"x": [1, 3, "h", "w"]}, {"w": np.ones((4, 3, 3, 3))})
    with pytest.raises(ImportFormatError, match="c: x: must have a fixed shape"):
        read(path)


def test_without_onnx_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportFormatError, match=r"needs the onnx package: pip install 'accelsim-sparse\[import\]'"):
        read(DATA / "onnx" / "Linear.onnx")
