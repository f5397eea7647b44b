"""Are other tools' files the work that those tools count, and does what goes out come back equal?"""

import json
from math import prod

import numpy as np
import pytest
import yaml
from importing import CASES, DATA, densities, geometries, run, written

import accelsim
from accelsim.errors import ImportFormatError
from accelsim.workload.exporters import files
from accelsim.workload.exporters.fibertree import tree
from accelsim.workload.formats import FORMATS, named, readers
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import read, to_trace
from accelsim.workload.trace import Trace

# ---- Timeloop


def test_a_problem_is_told_by_its_projections():
    """C 16, M 24, 3×3, N 2; P, whose step is Wstride, goes along the width."""
    got = read(CASES / "masks" / "problem.yaml")
    (layer,) = got.layers
    g = layer.geometry
    assert (g.channels, g.filters, g.kernel, g.output, g.stride) == (16, 24, (3, 3), (7, 14), (1, 2))
    assert got.samples_of(layer) == 2 and got.multiplications == 16 * 24 * 9 * 2 * 14 * 7


@pytest.mark.parametrize("file", ["AlexNet_layer1.yaml", "M1024-K512-N256.yaml"])
def test_published_problems_have_their_multiplications(file):
    path = DATA / "timeloop" / file
    problem = yaml.safe_load(path.read_text())["problem"]
    got = read(path)
    assert got.format == "timeloop"
    assert got.multiplications == prod(problem["instance"][name] for name in problem["shape"]["dimensions"])


def test_a_published_folder_is_a_network_and_what_it_includes_is_merged():
    got = read(DATA / "timeloop" / "mobilenet_v3")
    assert [(g.channels, g.filters, g.kernel, g.groups, g.output) for g in geometries(got).values()] == [
        (3, 16, (3, 3), 1, (112, 112)), (16, 16, (3, 3), 16, (112, 112)), (16, 16, (1, 1), 1, (112, 112)),
        (16, 64, (1, 1), 1, (112, 112)), (64, 64, (3, 3), 64, (56, 56)), (64, 24, (1, 1), 1, (56, 56)),
    ]  # fmt: skip
    assert got.layers[4].geometry.stride == (2, 2) and "00.yaml: HStride is taken for Hstride" in got.told


PROBLEM = """
problem:
  shape:
    name: Conv1D
    dimensions: [ Out, Tap, Place, Image ]
    data-spaces:
    - {name: Filters, projection: [ [ [Out] ], [ [Tap] ] ]}
    - {name: Map, projection: [ [ [Image] ], [ [Tap, 2], [Place, 3] ] ]}
    - {name: Sums, projection: [ [ [Image] ], [ [Out] ], [ [Place] ] ], read-write: True}
  instance:
    {Out: 4, Tap: 3, Place: 5, Image: 6,
     densities: {Filters: 0.5, Map: {distribution: fixed-structured, density: 0.25}}}
"""


def test_version_3_other_names_and_numbers_for_steps(tmp_path):
    got = written(tmp_path, PROBLEM, "p.yaml")
    (layer,) = got.layers
    assert layer.geometry == Geometry(1, 17, 1, 4, (3, 1), (3, 1), dilation=(2, 1)) and got.samples_of(layer) == 6
    assert densities(got) == {"p": 0.5} and densities(got, "activation")["p"] == pytest.approx(0.25, abs=0.01)
    assert "density of Map: fixed-structured is drawn without its structure" in got.told


def test_a_coefficient_is_known_by_another_spelling_and_one_that_nobody_gives_is_told(tmp_path):
    named = PROBLEM.replace("[Tap, 2], [Place, 3]", "[Tap, Wdilation], [Place, Wstride]")

    def read(declared, given):
        shape = named.replace("    data-spaces:", f"    coefficients: [{declared}]\n    data-spaces:")
        return written(tmp_path, shape.replace("Image: 6", f"Image: 6, {given}"), "p.yaml")

    both = "{name: Wdilation, default: 1}, {name: Wstride, default: 1}"
    for declared in (both, "{name: Wstride, default: 7}", ""):
        got = read(declared, "WDilation: 2, wstride: 3")
        assert (got.layers[0].geometry.stride, got.layers[0].geometry.dilation) == ((3, 1), (2, 1))
        assert {"WDilation is taken for Wdilation", "wstride is taken for Wstride"} <= set(got.told)
    got = read("{name: Wdilation, default: 2}", "Other: 9")
    assert (got.layers[0].geometry.stride, got.layers[0].geometry.dilation) == ((1, 1), (2, 1))
    assert "Wstride is given nowhere, and taken for 1" in got.told


def test_a_matrix_product_has_the_structured_one_or_the_first_as_weight(tmp_path):
    def product(density):
        text = (DATA / "timeloop" / "M1024-K512-N256.yaml").read_text()
        return written(tmp_path, text.replace("      A:\n", density), "p.yaml")

    for density, filters in (("      A:\n", 512), ("      B:\n", 256)):
        got = product(density)
        assert got.layers[0].geometry.filters == filters and "is taken as the weight" in got.told[0]
        assert densities(got) == {"p": 0.5}


def test_timeloop_s_own_shape_need_not_be_written_out(tmp_path):
    flat = "problem: {shape: cnn-layer, R: 3, S: 2, P: 4, Q: 5, C: 6, K: 7, N: 8}"
    got = written(tmp_path, flat, "p.yaml")
    assert got.multiplications == 3 * 2 * 4 * 5 * 6 * 7 * 8 and got.layers[0].geometry.kernel == (2, 3)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("Out: 4", "Out: 0", "Out: must be an integer of 1 or more, got 0"),
        (", Image: 6", "", "Image: must have a size, has none"),
        ("[Tap, 2], [Place, 3]", "[Tap, 2], [Place, 3], [Out]", "axis Tap + Place + Out: must be one dimension"),
        ("read-write: True", "read-write: False", "must be two that are read and one that is written"),
        ("[ [Tap, 2], [Place, 3] ]", "[ 3 ]", "projection: must be made of"),
        ("problem:", "problem: [", "line "),
        ("data-spaces:", "spaces:", "data_spaces: must be a list"),
    ],
)
def test_a_bad_problem_is_one_line(old, new, rule, tmp_path):
    with pytest.raises(ImportFormatError) as caught:
        written(tmp_path, PROBLEM.replace(old, new, 1), "p.yaml", "timeloop")
    assert rule in str(caught.value) and "p.yaml" in str(caught.value)


def test_nothing_outside_the_folder_is_included(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "base.yaml").write_text(PROBLEM)
    with pytest.raises(ImportFormatError, match="include_text: must name a file beside it or above"):
        written(tmp_path / "deep" / "er", "{{include_text('../../base.yaml')}}\n", "p.yaml", "timeloop")


# ---- ZigZag, Stream


def test_zigzag_s_and_stream_s_workloads_have_their_multiplications():
    for file in sorted((DATA / "zigzag").iterdir()):
        got, operators = read(file), yaml.safe_load(file.read_text())
        assert got.format == "zigzag"
        for layer, operator in zip(got.layers, operators, strict=True):
            assert layer.geometry.multiplications * got.samples_of(layer) == prod(operator["loop_sizes"])
    first, second = (layer.geometry for layer in got.layers)
    assert first == Geometry(3, 5, 376, 64, (3, 3), padding=(0, 0, 1, 1))
    assert second == Geometry(64, 3, 376, 8, (3, 3), padding=(1, 1, 1, 1))


CONV = """
- id: 0
  operator_type: Conv
  equation: O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]
  dimension_relations: [ix=2*ox+1*fx, iy=1*oy+2*fy]
  loop_dims: [B, G, K, C, OY, OX, FY, FX]
  loop_sizes: [2, 3, 4, 5, 6, 7, 3, 2]
  operand_source: {I: 0, W: 0}
- {id: 1, operator_type: Add, equation: 'O[b]=W[b]+I[b]', loop_dims: [B], loop_sizes: [9]}
- id: 2
  operator_type: Gemm
  equation: O[b][m][n]+=W[b][k][n]*I[b][m][k]
  loop_dims: [B, M, N, K]
  loop_sizes: [2, 3, 4, 5]
  operand_source: {I: 1, W: 0}
"""


def test_an_equation_is_read_with_groups_and_steps(tmp_path):
    got = written(tmp_path, CONV, "w.yaml")
    (layer,) = got.layers
    assert layer.geometry == Geometry(15, 10, 14, 12, (3, 2), (1, 2), dilation=(2, 1), groups=3)
    assert got.multiplications == 2 * 3 * 4 * 5 * 6 * 7 * 3 * 2 and got.samples == 2
    assert [(part.what, part.multiplications) for part in got.left_out] == [("product of two activations", 120)]
    assert got.told == ("operators that do not multiply are passed over: Add",)
    with pytest.raises(ImportFormatError, match=r"w\.yaml: operator 0: loop_sizes: B: must be an integer of 1 or more"):
        written(tmp_path, CONV.replace("[2, 3, 4, 5, 6", "[x, 3, 4, 5, 6"), "w.yaml")


# ---- MAESTRO


def test_maestro_s_networks_have_their_multiplications():
    """⌊(Y − R) / stride⌋ + 1 rows; K, C, R and S as they stand."""
    got = read(DATA / "maestro" / "dnn_model.m")
    g = got.layers[0].geometry
    assert (got.network, g.channels, g.filters, g.kernel, g.stride, g.output) == (
        "sequential",
        3,
        96,
        (11, 11),
        (4, 4),
        (54, 54),
    )
    vgg = read(DATA / "maestro" / "vgg16_model.m").layers[0].geometry
    assert vgg.multiplications == 64 * 3 * 9 * 222 * 222


def test_maestro_s_types_and_spellings(tmp_path):
    text = """
    Constant Rows 20; // of the map
    Network n { /* one
      and two */
      Layer a { Type: DSCONV Stride { X: 2, Y: 1 } Dimensions { K 2,C 3,R 3,S 3,Y Rows,X 21 }
        Dataflow { SpatialMap(1,1) C; Cluster(64, P); } }
      Layer b { Type: NGCONV Dimensions { G: 4, K: 2, C: 8, R: 1, S: 1, Y: 5, X: 6 } }
      Layer c { Type: TRCONV Stride { X: 2, Y: 2 } Dimensions { N: 3, K: 2, C: 8, R: 2, S: 2, Y: 5, X: 6 } }
      Layer d { Type: GEMM Dimensions { M: 2, N: 3, K: 4 } }
    }"""
    got = written(tmp_path, text, "n.m")
    a, b, c, d = (layer.geometry for layer in got.layers)
    assert a == Geometry(3, 20, 21, 6, (3, 3), (1, 2), groups=3) and b == Geometry(8, 5, 6, 8, (1, 1), groups=4)
    assert c.output == (10, 12) and got.samples_of(got.layers[2]) == 3 and got.layers[2].spread == (2, 2)
    assert d == Geometry(4, 2, 1, 3, (1, 1))
    for old, new, rule in [
        ("Rows,", "Row,", "a: Dimensions: Y: must be an integer"),
        ("GEMM", "LSTM", "d: Type: must be"),
        ("M: 2, ", "", "d: Dimensions: M: must be given"),
        ("R: 2", "R 0", "c: Dimensions: R: must be"),
    ]:
        with pytest.raises(ImportFormatError, match=rule):
            written(tmp_path, text.replace(old, new), "n.m")


# ---- STONNE


def test_stonne_s_command_lines_are_layers(tmp_path):
    text = """#!/bin/sh
    ./stonne -CONV -R=3 -S=3 -C=6 -G=2 -K=5 -N=2 -X=20 -Y=21 -strides=2 -T_R=3 -num_ms=64
    # ./stonne -FC -M=1 -N=1 -K=1
    ./stonne -SparseGEMM -layer_name="q" -M=20 -N=10 \\
        -K=256 -MK_sparsity=80 -KN_sparsity=10 -dataflow=MK_STA_KN_STR
    """
    got = written(tmp_path, text, "run.sh")
    conv, gemm = got.layers
    assert conv.geometry == Geometry(12, 19, 21, 10, (3, 3), (2, 2), groups=2) and got.samples_of(conv) == 2
    assert (gemm.name, gemm.geometry) == ("q", Geometry(256, 10, 1, 20, (1, 1)))
    assert densities(got)["q"] == pytest.approx(0.2) and densities(got, "activation")["q"] == pytest.approx(0.9)
    with pytest.raises(ImportFormatError, match="line 2: -C: must be given"):
        written(tmp_path, text.replace("-C=6", ""), "run.sh")


# ---- ONNXim


def test_onnxim_s_language_models_are_their_sizes(tmp_path):
    sizes = {"num_attention_heads": 12, "num_kv_heads": 4, "num_hidden_layers": 2, "hidden_size": 768}
    sizes |= {"intermediate_size": 3072, "max_seq_length": 128, "ffn_type": "llama"}
    got = written(tmp_path, json.dumps(sizes), "m.json")
    block = 768 * (768 + 2 * 4 * 64) + 768 * 768 + 3 * 768 * 3072
    assert got.multiplications == 2 * 128 * block
    assert [part.multiplications for part in got.left_out] == [2 * 12 * 128 * 128 * 64] * 2
    assert written(tmp_path, json.dumps(sizes), "m.json", size={"tokens": 1}).multiplications == 2 * block
    with pytest.raises(ImportFormatError, match=r"m\.json: hidden_size: must be an integer of 1 or more, got None"):
        written(tmp_path, json.dumps({"num_hidden_layers": 1}), "m.json")


def test_onnxim_s_lists_name_onnx_models(tmp_path):
    pytest.importorskip("onnx")
    folder = tmp_path / "models" / "net"
    folder.mkdir(parents=True)
    (folder / "net.onnx").write_bytes((DATA / "onnx" / "Conv2d_groups.onnx").read_bytes())
    got = written(tmp_path, json.dumps({"models": [{"name": "net", "batch_size": 3}]}), "list.json")
    plain = read(folder / "net.onnx")
    assert geometries(got) == geometries(plain) and got.format == "onnxim"
    for name, rule in (("other", "other.onnx must be there"), ("../net", "must have a name each")):
        with pytest.raises(ImportFormatError, match=rule):
            written(tmp_path, json.dumps({"models": [{"name": name}]}), "list.json")


# ---- matrices


def test_a_sparse_matrix_of_dlmc_is_a_linear_layer(tmp_path, capsys):
    path = CASES / "masks" / "linear_64x96.smtx"
    assert run("import", path, "--size", "tokens=7", "--out", tmp_path / "t.npz") == 0
    assert "weight from the file" in capsys.readouterr().out
    with Trace.open(tmp_path / "t.npz") as trace:
        (layer,) = trace.snapshots[0].layers
        mask = layer.tensor("weight").reshape(64, 96)
    assert layer.geometry == Geometry(96, 7, 1, 64, (1, 1)) and mask.sum() == 1275
    _, starts, columns = path.read_text().splitlines()
    starts, columns = (np.array(line.split(), int) for line in (starts, columns))
    for row in range(64):
        assert np.array_equal(np.flatnonzero(mask[row]), np.sort(columns[starts[row] : starts[row + 1]]))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("2, 3, 2\n0 1 2\n0", "line 3: must be 2 columns in 0…2, has 1"),
        ("2, 3, 2\n0 1 2\n0 3", "line 3: must be 2 columns in 0…2"),
        ("2, 3, 2\n0 2 1\n0 2", "line 2: must be 3 offsets from 0 up to 2"),
        ("2, 3, 2\n0 2 2\n1 1", "line 3: must name each column of a row once"),
        ("2, 3\n0 1 2\n0 1", "line 1: must be rows, columns, nonzeros"),
        ("2, x, 2\n0 1 2\n0 1", "columns: must be an integer"),
        ("2, 3, 2\n0 1 y\n0 1", "line 2: must be integers"),
        ("2, 999999999999, 0\n0 0 0\n", "must have 1…"),
        ("", "line 1: must be rows"),
    ],
)
def test_a_bad_smtx_is_one_line(text, rule, tmp_path):
    with pytest.raises(ImportFormatError) as caught:
        written(tmp_path, text, "m.smtx")
    assert rule in str(caught.value) and "m.smtx" in str(caught.value)


MARKET = {
    "coordinate real general\n% x\n2 3 3\n1 1 5\n2 3 -1\n1 2 0": [[1, 0, 0], [0, 0, 1]],
    "coordinate pattern general\n2 3 2\n1 1\n2 3": [[1, 0, 0], [0, 0, 1]],
    "coordinate complex general\n2 2 2\n1 1 0 2\n2 1 0 0": [[1, 0], [0, 0]],
    "coordinate integer symmetric\n2 2 2\n1 1 3\n2 1 4": [[1, 1], [1, 0]],
    "coordinate real skew-symmetric\n2 2 1\n2 1 4": [[0, 1], [1, 0]],
    "array real general\n2 2\n1\n0\n3\n4": [[1, 1], [0, 1]],
    "array real symmetric\n2 2\n1\n0\n4": [[1, 0], [0, 1]],
}


@pytest.mark.parametrize("body", MARKET)
def test_matrix_market_is_read_in_every_layout(body, tmp_path):
    got = written(tmp_path, f"%%MatrixMarket matrix {body}\n", "m.mtx")
    assert (
        to_trace(got).snapshots[0].layers[0].tensor("weight")[:, :, 0, 0].tolist()
        == np.array(MARKET[body], bool).tolist()
    )


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("1 1 1\n", "line 1: must be %%MatrixMarket"),
        ("%%MatrixMarket matrix coordinate real odd\n1 1 0\n", "line 1: must be a layout"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 1\n", "entries: must be 2, are 1"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 1\n1 3 1\n", "column: must be in 1…2, got 3…3"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 1\n1 2\n", "entry 1: must be 3 numbers"),
        ("%%MatrixMarket matrix coordinate real symmetric\n2 3 0\n", "symmetric: must have as many rows"),
        ("%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n", "entries: must be 4, are 3"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 1\n1 2 inf\n", "entries: must be finite"),
    ],
)
def test_a_bad_mtx_is_one_line(text, rule, tmp_path):
    with pytest.raises(ImportFormatError) as caught:
        written(tmp_path, text, "m.mtx")
    assert rule in str(caught.value) and "m.mtx" in str(caught.value)


@pytest.mark.parametrize("text", ["1 0 1\n0 0 1\n", "1,0,1\n0,0,1", "# rows\n101\n\n001\n", "[1 0 1]\n[0 0 1]"])
def test_a_mask_of_0_and_1_is_read(text, tmp_path):
    got = written(tmp_path, text, "m.txt")
    assert to_trace(got).snapshots[0].layers[0].tensor("weight")[:, :, 0, 0].tolist() == [[1, 0, 1], [0, 0, 1]]
    with pytest.raises(ImportFormatError, match="row 2: must be 3 times 0 or 1, got '00'"):
        written(tmp_path, "101\n00\n", "m.txt")


# ---- what goes out comes back


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A trace with several samples, strides, groups, padding and two zeros in three."""
    text = (
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Stride height,"
        " Stride width, Batch Size\na, 11, 9, 3, 1, 3, 4, 2, 1, 2\nDP_b, 5, 5, 3, 3, 4, 1, 1, 1, 2\n"
        "c, 6, 1, 1, 1, 12, 5, 1, 1, 2\n"
    )
    return to_trace(written(tmp_path_factory.mktemp("several"), text), [0.6], density_activation=0.3, batch=8)


BOTH = [row for row in FORMATS if row.writer and (row.reader or row.name == "timeloop-0.3")]


@pytest.mark.parametrize("row", BOTH, ids=lambda row: row.name)
def test_what_goes_out_comes_back_equal(row, several, tmp_path):
    """Layers, samples, multiplications, and zeros: all of them in masks, their number in densities."""
    snapshot = several.snapshots[0]
    folder = tmp_path / "net"
    folder.mkdir()
    for name, text in files(row, snapshot, "net"):
        (folder / name).write_text(text, encoding="utf-8")
    given = {}
    if "topology" in row.options and row.name != "scalesim":
        accelsim.workload.synthetic.write(several, tmp_path / "shapes.npz")
        given["topology"] = tmp_path / "shapes.npz"
    reader = row if row.reader else named("timeloop", readers())
    got = read(folder / "net.csv" if row.name == "scalesim" else folder, reader.name, **given)
    back = to_trace(got).snapshots[0]
    assert [(layer.name, layer.samples) for layer in back.layers] == [(n, 2) for n in ("a", "DP_b", "c")]
    for number, (ours, theirs) in enumerate(zip(back.layers, snapshot.layers, strict=True)):
        assert ours.geometry.multiplications == theirs.geometry.multiplications
        assert (ours.geometry.kernel, ours.geometry.stride) == (theirs.geometry.kernel, theirs.geometry.stride)
        if row.name != "scalesim":
            a, b = ours.tensor("weight"), theirs.tensor("weight")
            assert np.count_nonzero(a) == np.count_nonzero(b), number
            assert "topology" not in given or np.array_equal(a, b)
        if row.name.startswith("timeloop") and ours.geometry.stride == (1, 1):  # whose windows meet the whole map
            assert np.count_nonzero(ours.tensor("activation")) == np.count_nonzero(theirs.tensor("activation"))


def test_version_3_has_no_key_of_version_4(several):
    for _, text in files(named("timeloop-0.3", FORMATS), several.snapshots[0], "net"):
        problem = yaml.safe_load(text)["problem"]
        assert "data-spaces" in problem["shape"] and "version" not in problem
        assert problem["shape"]["data-spaces"][2]["read-write"] is True


def test_a_fibertree_has_each_non_zero_where_it_is(several):
    """Walked as the fibertree library does: coordinates and payloads, rank by rank."""
    texts = dict(files(named("fibertree", FORMATS), several.snapshots[0], "net"))
    assert len(texts) == 3 * 3
    for layer in several.snapshots[0].layers:
        for tensor in ("weight", "activation", "gradient"):
            mask = layer.tensor(tensor) != 0
            parsed = yaml.safe_load(next(t for n, t in texts.items() if n.endswith(f"_{layer.name}.{tensor}.yaml")))[
                "tensor"
            ]
            assert tuple(parsed["shape"]) == mask.shape and len(parsed["rank_ids"]) == 4
            found = np.zeros_like(mask)
            waiting = [((), parsed["root"][0])]
            while waiting:
                place, node = waiting.pop()
                for coord, payload in zip(node["fiber"]["coords"], node["fiber"]["payloads"], strict=True):
                    if isinstance(payload, dict):
                        waiting.append(((*place, coord), payload))
                    else:
                        found[(*place, coord)] = payload
            assert np.array_equal(found, mask)
    assert yaml.safe_load(tree(np.zeros((2, 1, 1, 1), bool), "weight"))["tensor"]["root"][0]["fiber"]["coords"] == []


def test_a_key_that_is_a_surrogate_is_told_in_a_line(tmp_path, capsys):
    """The machine file has five other faults, a line each."""
    path = CASES / "yaml" / "surrogate_key.yaml"
    assert run("import", path, "--format", "timeloop", "--out", tmp_path / "t.npz") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run("run", "--config", path, "--trace", "resnet50.npz", "--out", tmp_path / "o") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "  keys must be text that can be written as UTF-8, got '\\ud83d\\ude00'" and len(lines) == 6
