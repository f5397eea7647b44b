"""Is every product of an ONNX model the one that ONNX computes: shapes, weights, arrangement, and what is left out?"""

import sys
from math import prod

import numpy as np
import pytest
from importing import CASES, densities, geometries, run

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import read, to_trace

onnx = pytest.importorskip("onnx")
H, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
RNG = np.random.default_rng(0)


def sparse(*shape, density=0.4):
    return (RNG.standard_normal(shape) * (RNG.random(shape) < density)).astype(np.float32)


def model(path, nodes, inputs, weights=(), opset=17, functions=(), domains=(), sparse_initializer=()):
    """A model of these nodes; weights are arrays by name."""
    values = [H.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()]
    arrays = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in dict(weights).items()]
    result = H.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)
    graph = H.make_graph(nodes, "g", values, [result], arrays, sparse_initializer=list(sparse_initializer))
    imports = [H.make_opsetid("", opset), *(H.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(H.make_model(graph, opset_imports=imports, functions=list(functions)), path)
    return path


def op(kind, inputs, output, **attributes):
    return H.make_node(kind, inputs, [output], name=output, **attributes)


# ---- the cases


@pytest.mark.parametrize(
    ("name", "density"),
    [("masked", {"c": 0.111}), ("qdq", {"qconv": 0.177})],
)
def test_weights_that_are_expressions_are_evaluated(name, density):
    found = densities(read(CASES / "onnx" / f"{name}.onnx"))
    assert {name: found[name] for name in density} == pytest.approx(density, abs=5e-4)


def test_a_transposed_convolution_is_a_layer_on_the_map_with_zeros_in_between():
    got = read(CASES / "onnx" / "convtranspose.onnx")
    assert len(got.layers) == 3 and "up: a transposed convolution" in got.told[0]
    layer = to_trace(got, density_activation=0.25).snapshots[0].layers[1]
    active, small = layer.tensor("activation"), layer.tensor("activation")[:, :, ::2, ::2]
    assert active.sum() == small.sum() == round(0.25 * small.size)
    model = onnx.load(CASES / "onnx" / "convtranspose.onnx")
    name = next(node for node in model.graph.node if node.op_type == "ConvTranspose").input[1]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    place = small.shape[2] * small.shape[3]
    assert got.layers[1].multiplications == place * np.prod(weight.dims) < layer.geometry.multiplications


@pytest.mark.parametrize("name", ["linear_nobias", "einsum"])
def test_other_spellings_of_a_linear_layer_are_linear_layers(name):
    got = read(CASES / "onnx" / f"{name}.onnx")
    assert [layer.kind for layer in got.layers] == ["linear", "linear"] and got.share_read == 1


def test_the_batch_is_the_first_axis_of_the_models_input(tmp_path, capsys):
    path = CASES / "onnx" / "batch_seq.onnx"
    shape = [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]
    (layer,) = read(path).layers
    assert (layer.samples, layer.geometry.height) == (shape[0], shape[1])
    (other,) = read(path, batch_axis=1).layers
    assert (other.samples, other.geometry.height) == (shape[1], shape[0])
    assert run("import", path, "--batch-axis", 99, "--out", tmp_path / "t.npz") == 2
    assert "batch-axis: must be in 0…15, got 99" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["conv_noweight", "scalar", "undef"])
def test_damaged_models_are_one_line(name, tmp_path, capsys):
    assert run("import", CASES / "onnx" / f"{name}.onnx", "--out", tmp_path / "t.npz") == 2
    error = capsys.readouterr().err
    assert f"{name}.onnx: " in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


# ---- products, by value


def computed(got, x):
    """What the only layer computes of its input (N, C, H, W), by PyTorch."""
    torch = pytest.importorskip("torch")
    (layer,) = got.layers
    g, weight = layer.geometry, torch.from_numpy(np.array(layer.tensors["weight"].read())).float()
    spread = torch.zeros(x.shape[0], g.channels, g.height, g.width)
    spread[:, :, :: layer.spread[0], :: layer.spread[1]] = torch.from_numpy(np.ascontiguousarray(x))
    top, bottom, left, right = g.padding
    padded = torch.nn.functional.pad(spread, (left, right, top, bottom))
    assert layer.samples == len(x)
    return torch.nn.functional.conv2d(padded, weight, None, g.stride, 0, g.dilation, g.groups).numpy()


def reference(path, x):
    """What ONNX computes of the model's input."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(str(path)).run(None, {"x": x})[0]


def transposed_in_groups(path, x):
    """Which ONNX's reference does not know."""
    torch = pytest.importorskip("torch")
    weight = torch.from_numpy(np.array(onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])))
    return torch.nn.functional.conv_transpose2d(torch.from_numpy(x), weight, None, 2, 0, (1, 0), 2).numpy()


CONVOLUTIONS = {
    "plain": ("Conv", (2, 4, 7, 6), (6, 4, 3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1]}),
    "groups": ("Conv", (1, 4, 7, 6), (6, 2, 3, 2), {"group": 2, "dilations": [2, 1]}),
    "same": ("Conv", (1, 4, 7, 6), (6, 4, 3, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "line": ("Conv", (2, 4, 9), (6, 2, 3), {"group": 2, "pads": [1, 2]}),
    "transposed": ("ConvTranspose", (2, 4, 5, 3), (4, 6, 3, 3), {"strides": [2, 3], "pads": [1, 1, 0, 2]}),
    "transposed in groups": (
        "ConvTranspose", (1, 4, 5, 3), (4, 3, 3, 2), {"group": 2, "strides": [2, 2], "output_padding": [1, 0]},
    ),
    "transposed line": ("ConvTranspose", (1, 4, 5), (4, 3, 4), {"strides": [3], "dilations": [1]}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_compute_what_onnx_computes(name, tmp_path):
    kind, shape, kernel, attributes = CONVOLUTIONS[name]
    x = RNG.standard_normal(shape).astype(np.float32)
    path = model(tmp_path / "m.onnx", [op(kind, ["x", "w"], "y", **attributes)], {"x": shape}, {"w": sparse(*kernel)})
    wanted = reference(path, x) if name != "transposed in groups" else transposed_in_groups(path, x)
    got = computed(read(path), x.reshape(*shape, 1)[..., 0] if len(shape) == 4 else x[..., None])
    np.testing.assert_allclose(got.reshape(wanted.shape), wanted, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_depth_of_a_kernel_is_channels_and_depth_of_the_output_samples(stride, tmp_path):
    x, w = RNG.standard_normal((1, 2, 6, 5, 4)).astype(np.float32), sparse(3, 2, 3, 2, 2)
    node = op("Conv", ["x", "w"], "y", strides=[stride, 1, 1])
    path = model(tmp_path / "m.onnx", [node], {"x": x.shape}, {"w": w})
    wanted = reference(path, x)  # N K D P Q
    taps = np.stack([x[0, :, d : d + 3].reshape(6, 5, 4) for d in range(0, 4, stride)])
    got = computed(read(path), taps)
    np.testing.assert_allclose(got, wanted[0].transpose(1, 0, 2, 3), atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_a_gemm_in_every_transposition_and_with_the_weight_on_either_side(left, trans_a, trans_b, tmp_path):
    a, b = (5, 4), (4, 3)
    shapes = a[::-1] if trans_a else a, b[::-1] if trans_b else b
    x, w = RNG.standard_normal(shapes[left]).astype(np.float32), sparse(*shapes[not left])
    names = ["w", "x"] if left else ["x", "w"]
    path = model(tmp_path / "m.onnx", [op("Gemm", names, "y", transA=trans_a, transB=trans_b)], {"x": [1, 1]},
                 {"w": w})  # fmt: skip
    content = onnx.load(path)
    for dim, n in zip(content.graph.input[0].type.tensor_type.shape.dim, x.shape, strict=True):
        dim.dim_value = n
    onnx.save(content, path)
    wanted = reference(path, x)
    rows = (x.T if trans_b == 0 else x) if left else (x.T if trans_a else x)
    (layer,) = read(path, batch_axis=2).layers  # no such axis: the batch is 1
    got = rows @ layer.tensors["weight"].read()[..., 0, 0].T
    np.testing.assert_allclose(got, wanted.T if left else wanted, atol=1e-5)
    assert layer.geometry.multiplications == 60


MATRICES = {
    "right": ("MatMul", {}, (2, 3, 4), (4, 5), lambda x: x.reshape(6, 4), lambda y: y.reshape(6, 5)),
    "left": ("MatMul", {}, (2, 4, 3), (5, 4), lambda x: x.transpose(0, 2, 1).reshape(6, 4),
             lambda y: y.transpose(0, 2, 1).reshape(6, 5)),
    "vector": ("MatMul", {}, (3, 4), (4,), lambda x: x, lambda y: y.reshape(3, 1)),
    "one of a batch": ("MatMul", {}, (2, 3, 4), (1, 4, 5), lambda x: x.reshape(6, 4), lambda y: y.reshape(6, 5)),
    "heads": ("Einsum", {"equation": "btd,dhk->bhtk"}, (2, 3, 4), (4, 2, 3), lambda x: x.reshape(6, 4),
              lambda y: y.transpose(0, 2, 1, 3).reshape(6, 6)),
    "out of heads": ("Einsum", {"equation": "bhtk,hkd->btd"}, (2, 2, 3, 4), (2, 4, 5),
                     lambda x: x.transpose(0, 2, 1, 3).reshape(6, 8), lambda y: y.reshape(6, 5)),
    "implied": ("Einsum", {"equation": "bi,oi"}, (3, 4), (5, 4), lambda x: x, lambda y: y),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_matrix_products_compute_what_onnx_computes(name, tmp_path):
    kind, attributes, shape, weight, rows, result = MATRICES[name]
    x = RNG.standard_normal(shape).astype(np.float32)
    names = ["w", "x"] if name == "left" else ["x", "w"]
    path = model(tmp_path / "m.onnx", [op(kind, names, "y", **attributes)], {"x": shape}, {"w": sparse(*weight)})
    wanted = result(reference(path, x))
    (layer,) = read(path).layers
    np.testing.assert_allclose(rows(x) @ layer.tensors["weight"].read()[..., 0, 0].T, wanted, atol=1e-5)
    assert (layer.samples, layer.samples * layer.geometry.height) == (shape[0], len(wanted))


def test_quantised_operators_have_the_zeros_of_their_zero_point(tmp_path):
    w = RNG.integers(125, 131, (6, 4, 3, 3), np.uint8)
    scales = {"s": np.float32(0.1), "z": np.uint8(128), "w": w}
    node = op("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], "y")
    nodes = [op("QuantizeLinear", ["x", "s", "z"], "q"), node]
    (layer,) = read(model(tmp_path / "m.onnx", nodes, {"x": [1, 4, 6, 6]}, scales)).layers
    assert ((layer.tensors["weight"].read() != 0) == (w != 128)).all()
    v = RNG.integers(125, 131, (4, 5), np.uint8)
    zero = np.arange(125, 130).astype(np.uint8)  # one for each column
    node = op("MatMulInteger", ["q", "v", "z", "zero"], "y")
    nodes = [op("QuantizeLinear", ["x", "s", "z"], "q"), node]
    (layer,) = read(model(tmp_path / "m.onnx", nodes, {"x": [3, 4]}, scales | {"v": v, "zero": zero})).layers
    assert (v.astype(int) - zero == layer.tensors["weight"].read()[..., 0, 0].T).all()


def test_a_recurrent_cell_is_its_products_of_inputs_and_states(tmp_path):
    weights = {"w": sparse(2, 20, 3), "r": sparse(2, 20, 5)}
    node = H.make_node("LSTM", ["x", "w", "r"], ["y"], name="cell", hidden_size=5, direction="bidirectional")
    got = read(model(tmp_path / "m.onnx", [node], {"x": [7, 2, 3]}, weights), batch_axis=1)
    wanted = {"cell/W0": (3, 20), "cell/R0": (5, 20), "cell/W1": (3, 20), "cell/R1": (5, 20)}
    assert {n: (g.channels, g.filters) for n, g in geometries(got).items()} == wanted
    assert {(layer.samples, layer.geometry.height) for layer in got.layers} == {(2, 7)}
    assert (got.layers[3].tensors["weight"].read()[..., 0, 0] == weights["r"][1]).all()


# ---- constants


def folded(kind):
    """The nodes that make w of constants, and these; w is what they make."""
    w, mask = sparse(5, 4), (RNG.random((5, 4)) < 0.3).astype(np.float32)
    node = op("MatMul", ["x", "w.t"], "y")
    turned = op("Transpose", ["w"], "w.t", perm=[1, 0])
    if kind == "mask":
        return (
            [op("Cast", ["m"], "c", to=FLOAT), op("Mul", ["o", "c"], "w"), turned, node],
            {"o": w, "m": mask > 0},
            w * mask,
        )
    if kind == "constant nodes":
        value = onnx.numpy_helper.from_array(w)
        return [H.make_node("Constant", [], ["w"], value=value), turned, node], {}, w
    if kind == "identity":
        return [op("Identity", ["o"], "w"), turned, node], {"o": w}, w
    if kind == "reshape":
        sizes = {"o": w.reshape(20), "shape": np.array([5, 4])}
        return [op("Reshape", ["o", "shape"], "w"), turned, node], sizes, w
    if kind == "threshold":
        nodes = [op("Abs", ["o"], "a"), op("Greater", ["a", "t"], "g"), op("Where", ["g", "o", "z"], "w")]
        return [*nodes, turned, node], {"o": w, "t": np.float32(0.5), "z": np.float32(0)}, np.where(abs(w) > 0.5, w, 0)
    scale = {"q": (w * 10).astype(np.int8), "s": np.full(5, 0.1, np.float32), "z": np.zeros(5, np.int8)}
    return [op("DequantizeLinear", ["q", "s", "z"], "w", axis=0), turned, node], scale, scale["q"]


@pytest.mark.parametrize("kind", ["mask", "constant nodes", "identity", "reshape", "threshold", "dequantised"])
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_constant_expressions_give_exactly_their_non_zeros(kind, opset, tmp_path):
    nodes, weights, wanted = folded(kind)
    got = read(model(tmp_path / "m.onnx", nodes, {"x": [2, 4]}, weights, opset))
    mask = to_trace(got).snapshots[0].layers[0].tensor("weight")[..., 0, 0]
    assert (mask == (wanted != 0)).all() and not got.told
    assert "from the file" in to_trace(got).provenance["tensors"][got.layers[0].name]


def test_a_sparse_initialiser_is_read(tmp_path):
    w = sparse(4, 5, density=0.2)
    for indices in (np.flatnonzero(w), np.argwhere(w)):
        values = onnx.numpy_helper.from_array(w[w != 0], "w")
        tensor = H.make_sparse_tensor(values, onnx.numpy_helper.from_array(indices.astype(np.int64), "i"), w.shape)
        path = model(tmp_path / "m.onnx", [op("MatMul", ["x", "w"], "y")], {"x": [2, 4]}, sparse_initializer=[tensor])
        assert (w == read(path).layers[0].tensors["weight"].read()[..., 0, 0].T).all()


def test_an_expression_that_would_be_huge_is_refused_before_it_is_made(tmp_path, capsys):
    nodes = [op("Expand", ["o", "n"], "w"), op("MatMul", ["x", "w"], "y")]
    weights = {"o": np.ones((1, 1), np.float32), "n": np.array([1 << 15, 1 << 15])}
    path = model(tmp_path / "m.onnx", nodes, {"x": [1, 1 << 15]}, weights)
    assert run("import", path, "--out", tmp_path / "t.npz") == 2
    assert "must have at most 268435456 elements, has shape (32768, 32768)" in capsys.readouterr().err
    nodes = [op("Mul", ["a", "b"], "w"), op("MatMul", ["x", "w"], "y")]
    path = model(tmp_path / "m.onnx", nodes, {"x": [1, 1 << 15]},
                 {"a": np.ones((1 << 15, 1), np.float32), "b": np.ones((1, 1 << 15), np.float32)})  # fmt: skip
    assert run("import", path, "--out", tmp_path / "t.npz") == 2
    assert "must have at most 268435456 elements" in capsys.readouterr().err


def test_numbers_beside_the_model_are_read_and_their_absence_is_told(tmp_path):
    w = sparse(4, 5)
    path = model(tmp_path / "m.onnx", [op("MatMul", ["x", "w"], "y")], {"x": [2, 4]}, {"w": w})
    content = onnx.load(path)
    onnx.save(content, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (w == read(path).layers[0].tensors["weight"].read()[..., 0, 0].T).all()
    (tmp_path / "w.bin").rename(tmp_path / "other.bin")
    got = read(path)
    assert got.told == ("y: weight is drawn: external data 'w.bin' is not there",)
    assert to_trace(got).provenance["tensors"]["y"].startswith("weight drawn")


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "w.bin"])
def test_numbers_beside_the_model_stay_in_its_folder_and_file(location, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(80))
    (tmp_path / "m" / "w.bin").write_bytes(bytes(79))
    path = model(tmp_path / "m" / "m.onnx", [op("MatMul", ["x", "w"], "y")], {"x": [2, 4]}, {"w": sparse(4, 5)})
    content = onnx.load(path)
    tensor = content.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "length": "80"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(content.SerializeToString())
    assert "weight is drawn: external data" in read(path).told[0]


# ---- what is left out


def test_products_of_two_activations_are_named_with_their_share(tmp_path):
    nodes = [op("MatMul", ["x", "q"], "1"), op("Transpose", ["x"], "2", perm=[0, 2, 1]), op("MatMul", ["1", "2"], "qk")]
    got = read(model(tmp_path / "m.onnx", nodes, {"x": [2, 3, 4]}, {"q": sparse(4, 4)}))
    assert [(part.name, part.what, part.multiplications) for part in got.left_out] == [
        ("qk", "product of two activations", 2 * 3 * 4 * 3)
    ]
    assert got.share_read == 96 / (96 + 72)


def test_convolutions_in_branches_and_operators_of_others_are_named(tmp_path):
    inner = [op("Conv", ["x", "w"], "inside")]
    graph = H.make_graph(inner, "then", [], [H.make_tensor_value_info("inside", FLOAT, None)])
    other = H.make_graph([op("Identity", ["x"], "same")], "else", [], [H.make_tensor_value_info("same", FLOAT, None)])
    nodes = [op("Conv", ["x", "w"], "first"), op("If", ["c"], "branched", then_branch=graph, else_branch=other)]
    nodes.append(op("Strange", ["branched"], "strange", domain="mine"))
    nodes.append(op("FastGelu", ["strange"], "y", domain="com.microsoft"))
    weights = {"w": sparse(4, 4, 1, 1), "c": np.array(True)}
    got = read(model(tmp_path / "m.onnx", nodes, {"x": [1, 4, 3, 3]}, weights, domains=("mine", "com.microsoft")))
    assert [(part.name, part.what) for part in got.left_out] == [
        ("branched/inside", "Conv in a branch of If"),
        ("strange", "Strange of mine, which may multiply"),
    ]
    assert got.share_read is None


def test_local_functions_are_read_and_one_without_end_is_refused(tmp_path):
    body = [H.make_node("MatMul", ["a", "b"], ["c"], name="m")]
    function = H.make_function("mine", "Linear", ["a", "b"], ["c"], body, [H.make_opsetid("", 17)])
    node = H.make_node("Linear", ["x", "w"], ["y"], domain="mine")
    path = model(
        tmp_path / "m.onnx", [node], {"x": [2, 4]}, {"w": sparse(4, 5)}, functions=[function], domains=["mine"]
    )
    (layer,) = read(path).layers
    assert layer.geometry == Geometry(4, 1, 1, 5, (1, 1)) and "weight" in layer.tensors
    body = [H.make_node("Linear", ["a", "b"], ["c"], domain="mine")]
    function = H.make_function("mine", "Linear", ["a", "b"], ["c"], body, [H.make_opsetid("mine", 1)])
    path = model(
        tmp_path / "m.onnx", [node], {"x": [2, 4]}, {"w": sparse(4, 5)}, functions=[function], domains=["mine"]
    )
    with pytest.raises(ImportFormatError, match="function 'Linear' calls itself"):
        read(path)


def test_a_weight_that_an_unknown_operator_makes_is_drawn_and_told(tmp_path):
    nodes = [op("Strange", ["w"], "v", domain="mine"), op("Conv", ["x", "v"], "y")]
    path = model(tmp_path / "m.onnx", nodes, {"x": [1, 4, 3, 3]}, {"w": sparse(4, 4, 1, 1)}, domains=["mine"])
    content = onnx.load(path)
    content.graph.value_info.append(H.make_tensor_value_info("v", FLOAT, [4, 4, 1, 1]))
    onnx.save(content, path)
    got = read(path)
    assert got.told == ("y: weight is drawn: made by Strange, which is not evaluated",)


def test_sizes_by_name_and_shapes_by_data_propagation(tmp_path):
    nodes = [op("Shape", ["x"], "s"), op("Gather", ["s", "zero"], "n", axis=0), op("Unsqueeze", ["n", "zero1"], "n1")]
    nodes += [op("Concat", ["n1", "rest"], "to", axis=0), op("Reshape", ["x", "to"], "flat")]
    nodes.append(op("MatMul", ["flat", "w"], "y"))
    weights = {"zero": np.array(0), "zero1": np.array([0]), "rest": np.array([12]), "w": sparse(12, 5)}
    path = model(tmp_path / "m.onnx", nodes, {"x": ["batch", 3, "side"]}, weights)
    (layer,) = read(path, size={"side": 4, "batch": 6}).layers
    assert (layer.samples, layer.geometry) == (6, Geometry(12, 1, 1, 5, (1, 1)))
    assert prod(read(path, size={"side": 4}).layers[0].geometry.output) == 1


def test_layers_of_more_rows_than_the_batch_have_a_batch_of_their_own(tmp_path):
    """As the heads of a detector, on regions: the convolution's own first axis is its samples."""
    nodes = [op("Conv", ["x", "w"], "1"), op("Reshape", ["1", "s"], "2"), op("Conv", ["2", "v"], "y")]
    weights = {"w": sparse(8, 4, 1, 1), "v": sparse(4, 2, 3, 3), "s": np.array([8, 2, 6, 6])}
    got = read(model(tmp_path / "m.onnx", nodes, {"x": [2, 4, 6, 6]}, weights))
    assert [layer.samples for layer in got.layers] == [2, 8]
    assert [layer.batch for layer in to_trace(got, batch=4).snapshots[0].layers] == [4, 16]


def test_without_onnx_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportFormatError, match="needs the onnx package"):
        read(CASES / "onnx" / "masked.onnx")
