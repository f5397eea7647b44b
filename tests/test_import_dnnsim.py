"""Do DNNsim's layouts become the layers and tensors that DNNsim computes with?"""

import numpy as np
import pytest
from importing import CASES, run

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import dnnsim, read, to_trace


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
        ("a,pool,1,0", "line 1: type: must be one of conv, fc, lstm, rnn; got 'pool'"),
        ("a,conv,0,0", "line 1: stride: must be an integer of 1 or more, got '0'"),
        ("a,conv,1,-1", "line 1: padding: must be an integer of 0 or more, got '-1'"),
    ],
)
def test_a_bad_model_is_refused_by_line(line, rule, tmp_path):
    (tmp_path / "model.csv").write_text(line)
    with pytest.raises(ImportFormatError) as caught:
        dnnsim.read(tmp_path)
    assert rule in str(caught.value)


# ---- what DNNsim's own reader takes besides


def test_rnn_is_dnnsims_own_word_for_recurrent_layers():
    (layer,) = read(CASES / "dnnsim" / "rnn").layers
    assert (layer.kind, layer.geometry) == ("linear", Geometry(16, 5, 1, 32, (1, 1)))


def test_a_damaged_header_is_one_line(tmp_path, capsys):
    assert run("import", CASES / "dnnsim" / "damaged_header", "--out", tmp_path / "t.npz") == 2
    error = capsys.readouterr().err
    assert "a: wgt-a.npy: " in error and error.count("\n") == 1


PRECISION = "magnitude (+1 of the sign), fraction\n3;3;3;3;\n-1;-1;-1;-1;\n1;1;1;1\n2;2;2;2\n"


def test_what_precision_txt_rounds_to_zero_is_zero(tmp_path):
    """Activations in 3 − 1 bits: halves of 2 away from zero; weights in 1 + 2 bits, of 1/4 up to 3/4."""
    model, _, arrays = write_dnnsim(tmp_path)
    (model / "precision.txt").write_text(PRECISION)
    got = read(model)
    layer = to_trace(got).snapshots[0].layers[0]
    weight, activation = arrays["conv/1"][:2]
    assert (layer.tensor("weight") == (np.abs(weight) >= 0.125)).all()
    assert (layer.tensor("activation") == (np.abs(activation) >= 1)).all()
    values = np.array([-9, -0.126, 0.124, 0.3, 0.375, 2], np.float32)
    assert (dnnsim.quantise(values, 1, 2) * 0.25).tolist() == [-0.75, -0.25, 0, 0.25, 0.5, 0.75]
    assert "weight from the file, in 1 + 2 bits by precision.txt" in to_trace(got).provenance["tensors"]["conv/1"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a\n1;1\n", "must have a line of words and four of numbers, has 2"),
        (PRECISION.replace("-1;-1;", "-1;"), r"line 3: must have a number of at most 32 for each of 4 layers"),
        (PRECISION.replace("3;3;3;3;", "3;x;3;3;"), "line 2: bits: must be an integer"),
    ],
)
def test_bad_precisions_are_refused_by_line(text, rule, tmp_path):
    model, _, _ = write_dnnsim(tmp_path)
    (model / "precision.txt").write_text(text)
    with pytest.raises(ImportFormatError, match=rf"precision\.txt: {rule}"):
        read(model)
