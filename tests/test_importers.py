"""Do files of other tools become the layers that those tools compute, and do bad ones fail in one line?"""

import json
import sys
from math import ceil, prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accelsim
from accelsim import cli
from accelsim.errors import AccelsimError, ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import dnnsim, read, scalesim, to_trace
from accelsim.workload.trace import Trace

DATA = Path(__file__).parent / "data"
SCALESIM = DATA / "scalesim"
CONV = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def imported(folder, text, name="net.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return read(folder / name, "scalesim")


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


# ---- SCALE-Sim

# Layers, and multiplications by SCALE-Sim's own formula, by hand from the files.
REAL = {
    "alexnet": (5, "conv"),
    "mobilnet_paper": (28, "conv"),
    "UNet_maestro": (23, "conv"),
    "vit_s": (5, "linear"),
    "gnmt": (17, "linear"),
    "dlrm_fwd": (8, "conv"),
    "sparse_conv": (1, "conv"),
    "sparse_gemm": (2, "linear"),
}


def scalesim_macs(path):
    """What SCALE-Sim's topology_utils computes of a file, layer by layer."""
    text = path.read_text()
    rows = [row.split("#")[0].replace("\t" if "," not in text else ",", ",").split(",") for row in text.splitlines()]
    for row in rows[1:]:
        cells = [int(cell) for cell in row[1:8] if cell.strip().isdigit()]
        if len(cells) == 7:
            h, w, r, s, c, k, st = cells
            yield ceil((h - r + st) / st) * ceil((w - s + st) / st) * r * s * c * k
        elif len(cells) == 3:
            yield prod(cells)


@pytest.mark.parametrize("name", REAL)
def test_real_topologies_have_the_multiplications_that_scalesim_counts(name):
    path = SCALESIM / f"{name}.csv"
    got = read(path)
    count, kind = REAL[name]
    assert (len(got.layers), got.layers[1 % count].kind, got.network) == (count, kind, name)
    assert [layer.geometry.multiplications for layer in got.layers] == list(scalesim_macs(path))


def test_alexnet_is_alexnet():
    first, second, *_ = read(SCALESIM / "alexnet.csv").layers
    # ⌈(224 − 11 + 4) / 4⌉ = 55 outputs read 227 rows, 3 of them below the map.
    assert first.geometry == Geometry(3, 224, 224, 96, (11, 11), (4, 4), (0, 3, 0, 3))
    assert first.geometry.output == (55, 55)
    assert second.geometry == Geometry(96, 27, 27, 256, (5, 5))


def test_products_are_linear_layers_over_tokens():
    first = read(SCALESIM / "vit_s.csv").layers[0]
    assert (first.name, first.kind, first.geometry) == ("L0", "linear", Geometry(384, 196, 1, 192, (1, 1)))


def test_sparsity_is_n_of_m_weights():
    layers = read(SCALESIM / "sparse_gemm.csv").layers
    assert [layer.name for layer in layers] == ["GEMM_1", "GEMM_1#2"]
    trace = to_trace(read(SCALESIM / "sparse_gemm.csv"))
    for layer, kept in zip(trace.snapshots[0].layers, (3, 1), strict=True):
        assert (layer.tensor("weight").reshape(5, 4, 4).sum(axis=2) == kept).all()


def test_dialects_of_strides_depthwise_batch_and_comments(tmp_path):
    text = (
        "LAYER_NAME, Ifmap H, Ifmap W, Filter H, Filter W, Channels, Num Filters, Stride Height, Stride Width\n"
        "\n  a , 8, 9, 3, 3, 4, 5, 2, 1,  # comment\n"
        "DP_b, 8, 9, 3, 3, 4, 2, 1, 1, 2, 4,\n"  # as version 3 writes N:M behind the header's columns
    )
    a, b = imported(tmp_path, text).layers
    assert a.geometry == Geometry(4, 8, 9, 5, (3, 3), (2, 1), (0, 1, 0, 0))
    assert b.geometry == Geometry(4, 8, 9, 8, (3, 3), groups=4) and "weight" in b.tensors
    batched = imported(tmp_path, CONV + " Batch Size\nfc,1,1,1,1,7,3,1,6\n")
    assert (batched.samples, batched.layers[0].kind) == (6, "linear")


BAD = {
    "": "must describe a layer",
    "a, 1, 2\n": "line 1: header: must have the column 'layer name', got 'a, 1, 2'",
    "Layer, M, N\nx,1,2\n": "must have the column 'k'",
    CONV + "Colour\nx,1\n": "column 'Colour' is not known",
    CONV + "Strides\nx,1\n": "column 'strides' must occur once",
    CONV + "\nx,5,5,3,3,2\n": "line 2: num filter: must be given",
    CONV + "\nx,5,5,3,3,2,6,1,9\n": "line 2: must have at most 8 cells, has 9",
    CONV + "\nx,5,B,3,3,2,6,1\n": "line 2: ifmap width: must be an integer of 1 or more, got 'B'",
    CONV + "\nx,5,0,3,3,2,6,1\n": "ifmap width: must be an integer of 1 or more, got '0'",
    CONV + "\nx,5,5,3,3,2,6,99999999999999999999\n": "strides: must be an integer",
    CONV + "\nx,5,5,3,3,99999999,6,1\n": "line 2: channels: must be an integer in 1…16777216",
    CONV + "\nx,16777216,16777216,1,1,1,1,1\n": "x: activation: must have at most",
    CONV + "\nx,2,5,3,3,2,6,1\n": "line 2: filter height: must be at most that of the IFMAP, 2; got 3",
    CONV + "Sparsity\nx,5,5,3,3,2,6,1,half\n": "line 2: sparsity: must be N:M, got 'half'",
    CONV + "Sparsity\nx,5,5,3,3,2,6,1,4:2\n": "N ≤ M",
    CONV + "Batch Size\nx,5,5,3,3,2,6,1,1\ny,5,5,3,3,2,6,1,2\n": "batch: must be the same for all layers, got 1 and 2",
    CONV + "\n..,5,5,3,3,2,6,1\n": "line 2: layer name: must be a text",
}


@pytest.mark.parametrize("text", BAD, ids=BAD.values())
def test_a_bad_topology_is_refused_by_file_line_and_column(text, tmp_path):
    with pytest.raises(ImportFormatError, match=r"net\.csv") as caught:
        imported(tmp_path, text)
    assert BAD[text] in str(caught.value) and "\n" not in str(caught.value)


PIECES = st.sampled_from(
    [CONV, "Layer,M,N,K", "x,5,5,3,3,2,6,1", "a,1,2,3", ",", "\n", "\t", "#", "DP", "-1", "1:2", "²"]
)


@settings(QUIET, max_examples=200)
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join)))
def test_no_text_gives_a_traceback(tmp_path, text):
    try:
        imported(tmp_path, text)
    except ImportFormatError as error:
        assert "\n" not in str(error)


@settings(QUIET, max_examples=60)
@given(st.binary(max_size=80), st.sampled_from(["a.csv", "model.csv", "a.npz", "a.safetensors", "a.pt", "a.onnx"]))
def test_no_bytes_give_a_traceback(tmp_path, content, name):
    if name == "a.pt":
        pytest.importorskip("torch")
    (tmp_path / name).write_bytes(content)
    topology = SCALESIM / "alexnet.csv" if name in ("a.safetensors", "a.pt") else None
    with pytest.raises(AccelsimError) as caught:
        read(tmp_path / name, topology=topology)
    assert "\n" not in str(caught.value)


# ---- DNNsim


def write_dnnsim(root, training=False):
    """A network as DNNsim's README lays it out: a conv, a grouped conv, an fc after it, an LSTM's gates."""
    shapes = {
        "conv/1": ("conv", (6, 3, 3, 3), (2, 3, 8, 8), (2, 6, 4, 4), 2, 1),
        "conv2": ("conv", (4, 3, 1, 1), (2, 6, 4, 4), (2, 4, 4, 4), 1, 0),
        "fc1": ("fc", (5, 64), (2, 4, 4, 4), (2, 5), 1, 0),
        "lstm": ("lstm", (8, 5), (3, 2, 5), (3, 2, 8), 1, 0),
    }
    model, traces = root / "models" / "net", root / "net_traces" / "net"
    model.mkdir(parents=True)
    traces.mkdir(parents=True)
    rng, arrays = np.random.default_rng(0), {}
    for name, (_, *tensors, _, _) in shapes.items():
        arrays[name] = [np.maximum(rng.standard_normal(shape), 0).astype(np.float32) for shape in tensors]
        base = name.replace("/", "-")
        files = [f"wgt-{base}.npy", f"act-{base}-0.npy"]
        if training:
            files = [f"weights/{base}-0-1-w.npy", f"input/{base}-0-1-in.npy", f"outGrad/{base}-0-1-outGrad.npy"]
        for file, array in zip(files, arrays[name], strict=False):
            (traces / file).parent.mkdir(exist_ok=True)
            np.save(traces / file, array)
    lines = [f"{name},{kind},{st},{pad}" for name, (kind, *_, st, pad) in shapes.items()]
    (model / "model.csv").write_text("\n".join(lines) + "\n")
    return model, traces, arrays


@pytest.mark.parametrize("training", [False, True])
def test_dnnsims_layouts_give_its_layers_and_tensors(training, tmp_path):
    model, _, arrays = write_dnnsim(tmp_path, training)
    got = read(model)
    assert (got.format, got.network, got.samples) == ("dnnsim", "net", 2)
    assert [layer.geometry for layer in got.layers] == [
        Geometry(3, 8, 8, 6, (3, 3), (2, 2), (1, 1, 1, 1)),
        Geometry(6, 4, 4, 4, (1, 1), groups=2),
        Geometry(64, 1, 1, 5, (1, 1)),
        Geometry(5, 3, 1, 8, (1, 1)),
    ]
    layers = to_trace(got).snapshots[0].layers
    for layer, (weight, activation, gradient) in zip(layers, arrays.values(), strict=True):
        if layer.name == "lstm":  # steps first
            activation, gradient = activation.transpose(1, 2, 0), gradient.transpose(1, 2, 0)
        assert (layer.tensor("weight").ravel() == (weight != 0).ravel()).all()
        assert (layer.tensor("activation").ravel() == (activation != 0).ravel()).all()
        if training:
            assert (layer.tensor("gradient").ravel() == (gradient != 0).ravel()).all()
    assert got.layers[0].tensors.keys() == {"weight", "activation"} | ({"gradient"} if training else set())


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("trace_params.csv", ["conv/1,6,3,3,2,1", "conv2,conv/1,4,1,1,1,0", "fc1,5,1,1,1,0", "lstm,8,1,1,1,0"]),
        (
            "conv_params.csv",
            [
                "net,conv/1,conv,6,3,3,3,9,2,1,9,8",
                "net,conv2,conv,4,3,1,1,1,1,0,9,8",
                "net,fc1,fc,5,64,1,1,1,1,0,9,8",
                "net,lstm,lstm,8,5,1,1,1,1,0,9,8",
            ],
        ),
    ],
)
def test_older_model_files_give_the_same_layers(name, lines, tmp_path):
    model, _, _ = write_dnnsim(tmp_path)
    wanted = [(layer.name, layer.kind, layer.geometry) for layer in read(model).layers]
    (model / "model.csv").unlink()
    (model / name).write_text("\n".join(lines))
    assert [(layer.name, layer.kind, layer.geometry) for layer in read(model).layers] == wanted


def bad_pickle(traces):
    np.save(traces / "wgt-conv2.npy", np.array([{}]), allow_pickle=True)


def bad_size(traces):
    """A header that claims a thousand times what the file holds."""
    file = traces / "wgt-conv2.npy"
    file.write_bytes(file.read_bytes().replace(b"(4, 3, 1, 1)", b"(4, 3, 99, 9)"))


DAMAGE = {
    "conv2: wgt-conv2.npy": bad_pickle,
    "conv2: wgt-conv2.npy: ": bad_size,
    "conv2: weight: its .npy file must be there": lambda traces: (traces / "wgt-conv2.npy").unlink(),
    "multiple of the weight's 4 channels": lambda traces: np.save(traces / "wgt-conv2.npy", np.ones((4, 4, 1, 1))),
    "must hold plain numbers, got dtype complex128": lambda traces: np.save(traces / "wgt-conv2.npy", np.ones(4) * 1j),
    "conv2: weight: must have 2 or 4 axes": lambda traces: np.save(traces / "wgt-conv2.npy", np.ones((4, 3, 1))),
    "as many samples, conv/1 has 2, conv2 3": lambda traces: np.save(traces / "act-conv2-0.npy", np.ones((3, 6, 4, 4))),
    "fc1: weight: must have shape (5, 64, 1, 1)": lambda traces: np.save(traces / "wgt-fc1.npy", np.ones((5, 60))),
}


@pytest.mark.parametrize("rule", DAMAGE)
def test_damaged_tensors_are_refused_by_layer(rule, tmp_path):
    model, traces, _ = write_dnnsim(tmp_path)
    DAMAGE[rule](traces)
    with pytest.raises(ImportFormatError) as caught:
        read(model)
    assert rule in str(caught.value) and str(model) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("a,conv,1", "line 1: must have 4 cells (name, type, stride, padding), has 3"),
        ("a,pool,1,0", "line 1: type: must be one of conv, fc, lstm; got 'pool'"),
        ("a,conv,0,0", "line 1: stride: must be an integer of 1 or more, got '0'"),
        ("a,conv,1,-1", "line 1: padding: must be an integer of 0 or more, got '-1'"),
    ],
)
def test_a_bad_model_is_refused_by_line(line, rule, tmp_path):
    (tmp_path / "model.csv").write_text(line)
    with pytest.raises(ImportFormatError) as caught:
        dnnsim.read(tmp_path)
    assert rule in str(caught.value)


# ---- ONNX

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
    assert got.samples == 1 and got.left_out == ("attention",)
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
    with pytest.raises(ImportFormatError, match=r"needs the onnx package: pip install 'accelsim\[import\]'"):
        read(DATA / "onnx" / "Linear.onnx")


# ---- PyTorch

TOPOLOGY = CONV + "\nconv1, 8, 8, 3, 3, 3, 4, 1,\nfc, 1, 1, 1, 1, 4, 5, 1,\n"


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
    """By name, or by order where names differ; batch norms and biases are no layers."""
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
    with pytest.raises(ImportFormatError, match=r"no weight conv1\.weight, and 1 weights for 2 layers"):
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


def test_a_pickle_with_more_than_tensors_is_refused(topology, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ImportFormatError, match="refused: a pickle with more than tensors"):
        read(tmp_path / "w.pt", topology=topology)


def test_without_torch_there_is_one_line(topology, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(ImportFormatError, match=r"needs PyTorch: .*safetensors"):
        read(tmp_path / "w.pt", topology=topology)


# ---- the whole way


def test_what_is_imported_runs(tmp_path, capsys):
    out = tmp_path / "t.npz"
    (tmp_path / "net.csv").write_text(TOPOLOGY)
    assert run("import", tmp_path / "net.csv", "--sparsity", "0,0.5", "--density-activation", "0.25", "--out", out) == 0
    assert "2 layers × 2 snapshots of net\nfrom the file: shapes; the rest is drawn" in capsys.readouterr().out
    with Trace.open(out) as trace:
        assert [s.name for s in trace.snapshots] == ["dense", "swat50"]
        conv, fc = trace.snapshots[1].layers
        assert ("input_grad" in conv.passes, "input_grad" in fc.passes) == (False, True)
        assert [np.count_nonzero(fc.tensor(name)) for name in ("weight", "activation", "gradient")] == [10, 1, 5]
        assert trace.provenance == {"imported": "net.csv (scalesim)", "synthetic": "accelsim, seed 0"}
    assert run("run", "--config", "dadiannao.yaml", "--trace", out, "--quiet") == 0
    capsys.readouterr()
    assert run("import", tmp_path / "net.csv", "--out", out) == 2
    assert capsys.readouterr().err == f"accelsim: error: {out}: exists; --force replaces it\n"
    assert run("import", tmp_path / "net.csv", "--out", out, "--force") == 0


def test_what_is_drawn_can_be_like_a_real_trace(tiny, tmp_path):
    """A layer of the same name is like that one, channels and all; others are like the one as far along."""
    with Trace.open(tiny) as like:
        ours = to_trace(read(tiny), [0.8], like=like).snapshots[0]
        theirs = like.snapshot("swat80")
        assert (ours.batch, ours.layers[0].samples) == (theirs.batch, theirs.layers[0].samples) == (8, 1)
        for a, b in zip(ours.layers, theirs.layers, strict=True):
            assert a.geometry == b.geometry
            for name in ("activation", "gradient"):
                assert a.tensor(name).sum() == b.tensor(name).sum()
        other = to_trace(read(SCALESIM / "sparse_conv.csv"), [0.8], like=like)
        assert other.snapshots[0].layers[0].tensor("activation").shape == (1, 2, 5, 5)
        assert other.snapshots[0].batch == 8


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["nothing.csv"], "nothing.csv: no such file"),
        (["a.txt"], "format: must be given"),
        (["nothing.csv", "--format", "caffe"], "format: must be one of scalesim"),
        (["nothing.csv", "--topology", "x"], "topology: is for pytorch alone"),
        (["nothing.csv", "--tensors", "x"], "tensors: is for dnnsim alone"),
        ([SCALESIM / "vit_s.csv", "--density-activation", "2"], "density of activation: must be in (0, 1], got 2"),
        ([SCALESIM / "vit_s.csv", "--sparsity", "1"], "sparsity: must be a number in [0, 1), got 1"),
        ([SCALESIM / "vit_s.csv", "--like", "nothing.npz"], "nothing.npz: no such file"),
        ([DATA], "must hold one of model.csv"),
    ],
)
def test_bad_arguments_give_one_line(arguments, rule, tmp_path, capsys):
    assert run("import", *arguments, "--out", tmp_path / "o.npz") == 2
    error = capsys.readouterr().err
    assert rule in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_reader_is_one_function_of_a_path():
    assert scalesim.read(SCALESIM / "vit_s.csv").format == "scalesim"
