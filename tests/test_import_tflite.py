"""Are TensorFlow Lite's models read with the work and the zeros that they have?"""

import struct
from collections import Counter
from math import prod

import numpy as np
import pytest
from importing import DATA, densities

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import read
from accelsim.workload.importers.flatbuffer import Table
from accelsim.workload.importers.tflite_graph import DTYPES

TFLITE = DATA / "tflite"


def test_published_models_have_their_multiplications():
    """By hand, of the networks as their authors describe them."""
    sine = read(TFLITE / "hello_world_int8.tflite")
    assert sine.multiplications == 1 * 16 + 16 * 16 + 16 * 1 and [layer.kind for layer in sine.layers] == ["linear"] * 3
    speech = read(TFLITE / "micro_speech_quantized.tflite")
    assert speech.multiplications == 25 * 20 * 8 * 10 * 8 + 4000 * 4
    assert speech.layers[0].geometry == Geometry(1, 49, 40, 8, (10, 8), (2, 2), (4, 5, 3, 3))
    transposed = read(TFLITE / "transpose_conv4.tflite")
    (layer,) = transposed.layers
    assert layer.spread == (1, 2) and transposed.multiplications == layer.multiplications == 245_760
    assert layer.geometry.output == (4, 162) and layer.geometry.weight_shape == (8, 16, 3, 4)


def test_weights_are_the_file_s_filter_by_filter():
    """Of a convolution K R S C in the file; integers, zero where they are their zero point."""
    path = TFLITE / "conv1.tflite"
    (layer,) = read(path).layers
    model = Table.root(path.read_bytes())
    tensors, buffers = model.tables(2)[0].tables(0), model.tables(4)
    weight = next(t for t in tensors if tuple(t.numbers(0)) == (8, 3, 3, 8) and t.number(2, 4))
    start, length = buffers[weight.number(2, 4)].span(0)
    raw = np.frombuffer(path.read_bytes(), DTYPES[weight.number(1, 1)], length, start).reshape(8, 3, 3, 8)
    got = layer.tensors["weight"].read()
    for k, r, s, c in ((0, 0, 0, 0), (1, 2, 0, 3), (7, 1, 2, 6), (3, 0, 1, 7)):
        assert got[k, c, r, s] == raw[k, r, s, c]
    assert densities(read(path))[layer.name] == np.count_nonzero(raw) / raw.size < 1


def products_by_operator(content):
    """Multiplications of each operator's number: output places × what each sums, by a walk of its own over the file."""

    def number(place, form):
        return struct.unpack_from(form, content, place)[0]

    def field(table, index):
        fields = table - number(table, "<i")
        at = number(fields + 4 + 2 * index, "<H") if 4 + 2 * index < number(fields, "<H") else 0
        return table + at if at else None

    def entries(table, index):
        start = field(table, index)
        first = start + number(start, "<I") if start else 0
        return range(first + 4, first + 4 + 4 * number(first, "<I"), 4) if start else ()

    def numbers(table, index):
        return [number(place, "<i") for place in entries(table, index)]

    def tables(table, index):
        return [place + number(place, "<I") for place in entries(table, index)]

    model = number(0, "<I")
    codes = []
    for code in tables(model, 1):
        old, new = field(code, 0), field(code, 3)
        codes.append(max(number(old, "<b") if old else 0, number(new, "<i") if new else 0))
    graph = tables(model, 2)[0]
    shapes = [numbers(tensor, 0) for tensor in tables(graph, 0)]
    found = Counter()
    for operator in tables(graph, 3):
        code = codes[number(field(operator, 0), "<I") if field(operator, 0) else 0]
        inputs, out = ([shapes[n] if n >= 0 else [] for n in numbers(operator, at)] for at in (1, 2))
        each = {
            3: lambda inputs=inputs, out=out: prod(out[0]) * prod(inputs[1][1:]),  # CONV_2D: K R S C
            4: lambda inputs=inputs, out=out: prod(out[0]) * prod(inputs[1][1:3]),  # DEPTHWISE_CONV_2D: 1 R S K
            9: lambda inputs=inputs, out=out: prod(out[0]) * inputs[1][1],  # FULLY_CONNECTED: K C
            67: lambda inputs=inputs: prod(inputs[2]) * prod(inputs[1][:3]),  # TRANSPOSE_CONV: each input meets K R S
            # UNIDIRECTIONAL_SEQUENCE_LSTM: each row of the input, and of the states, meets four matrices
            44: lambda inputs=inputs: prod(inputs[0][:2]) * sum(prod(inputs[n]) for n in range(1, 9)),
            27: lambda inputs=inputs: inputs[0][0] * (prod(inputs[1]) + prod(inputs[2])),  # SVDF: features and times
        }
        if code in each:
            found[code] += each[code]()
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in TFLITE.glob("*.tflite")))
def test_multiplications_are_those_of_an_independent_count(name):
    """By operator: layers of the reader's kinds against places of the outputs that the file states."""
    imported, wanted = read(TFLITE / name), products_by_operator((TFLITE / name).read_bytes())
    assert not imported.left_out
    got = Counter()
    for layer in imported.layers:
        spread = 67 if layer.spread != (1, 1) else 4 if layer.geometry.groups > 1 else 3
        part = {"W": 44, "R": 44, "features": 27, "times": 27}.get(layer.name.rpartition("/")[2])
        got[part or (9 if layer.kind == "linear" else spread)] += layer.multiplications * imported.samples_of(layer)
    if name == "micro_speech_quantized.tflite":  # its convolution of one channel is a depthwise operator
        got[4] = got.pop(3)
    assert got == wanted and imported.multiplications == sum(wanted.values())


def vector(form, numbers):
    return struct.pack(f"<I{len(numbers)}{form}", len(numbers), *numbers)


def table(fields):
    """A FlatBuffers table: a field is a number of four bytes or one, or what lies behind: a vector, a table, tables."""
    size = 4 + 4 * len(fields)
    slots, head, behind = [], b"", b""
    for number, value in enumerate(fields):
        slots.append(0 if value is None else 4 + 4 * number)
        inline = value if isinstance(value, int) else 0
        if isinstance(value, bytes | list):
            at = size + len(behind)
            inline = at - (4 + 4 * number)
            behind += value if isinstance(value, bytes) else tables_of(value)
            behind += bytes(-len(behind) % 4)
        head += struct.pack("<i", inline)
    fieldlist = struct.pack(f"<{2 + len(slots)}H", 4 + 2 * len(slots), size, *slots)
    body = head + behind
    body += bytes(-len(body) % 4)
    return struct.pack("<i", -(4 + len(body))) + body + fieldlist


def tables_of(made):
    """A vector of tables, which lie behind it."""
    offsets, behind = [], b""
    for number, one in enumerate(made):
        offsets.append(4 * (len(made) - number) + len(behind))
        behind += one + bytes(-len(one) % 4)
    return struct.pack(f"<I{len(made)}I", len(made), *offsets) + behind


def written(path, code, shapes, constants, output, options=()):
    """A model of one operator: its inputs, the output and the options; ``constants``: numbers by the input's place."""
    numbers = {n: np.asarray(array, "<f4") for n, array in constants.items()}
    buffers = [table([]), *(table([vector("B", array.tobytes())]) for array in numbers.values())]
    places = {n: 1 + at for at, n in enumerate(numbers)}
    tensors = [table([vector("i", shape), 0, places.get(n, 0)]) for n, shape in enumerate(shapes) if shape]
    tensors.append(table([vector("i", output), 0, 0, vector("B", b"out")]))
    given = [n for n, shape in enumerate(shapes) if shape]
    inputs = [given.index(n) if shape else -1 for n, shape in enumerate(shapes)]
    fields = [0, vector("i", inputs), vector("i", [len(tensors) - 1]), None, table(list(options))]
    graph = table([tensors, None, None, [table(fields)]])
    codes = [table([min(code, 127), None, None, code])]
    root = table([3, codes, [graph], None, buffers])
    path.write_bytes(struct.pack("<I4s", 8, b"TFL3") + root)
    return read(path)


def test_a_matrix_of_the_model_s_on_the_right_of_a_batched_product_is_a_weight(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.random((6, 5)) * (rng.random((6, 5)) < 0.5)
    for turned in (0, 1):
        shape, numbers = ([5, 6], weight.T) if turned else ([6, 5], weight)
        got = written(tmp_path / "m.tflite", 126, [[2, 3, 6], shape], {1: numbers}, [2, 3, 5], [0, turned])
        (layer,) = got.layers
        assert (layer.kind, layer.samples) == ("linear", 2) and got.multiplications == 2 * 3 * 6 * 5
        assert np.array_equal(layer.tensors["weight"].read()[:, :, 0, 0], weight.T.astype(np.float32))
    for given, what in (({}, "product of two activations"), ({0: np.ones((2, 3, 6))}, "matrices of the model's")):
        with pytest.raises(ImportFormatError, match=what):
            written(tmp_path / "m.tflite", 126, [[2, 3, 6], [2, 6, 5]], given, [2, 3, 5], [0, 0])


def test_a_depthwise_operator_has_a_group_for_each_channel(tmp_path):
    weight = np.arange(3 * 2 * 6).reshape(1, 3, 2, 6)
    options = [1, 1, 2, 2, 0, 2, 1]  # valid, strides 1 along the width and 2 along the height, 2 filters a channel
    got = written(tmp_path / "m.tflite", 4, [[4, 7, 5, 3], [1, 3, 2, 6]], {1: weight}, [4, 3, 3, 6], options)
    (layer,) = got.layers
    assert layer.geometry == Geometry(3, 7, 5, 6, (3, 2), (2, 1), dilation=(1, 2), groups=3) and layer.samples == 4
    assert got.multiplications == 4 * 3 * 3 * 6 * 3 * 2
    assert np.array_equal(layer.tensors["weight"].read(), weight.transpose(3, 0, 1, 2))


def test_a_convolution_of_three_dimensions_folds_depth_into_channels_and_samples(tmp_path):
    weight = np.arange(2 * 3 * 2 * 4 * 5).reshape(2, 3, 2, 4, 5)  # D R S C K
    options = [1, 2, 1, 2, 0]  # valid, strides in depth, width, height
    got = written(tmp_path / "m.tflite", 132, [[2, 6, 9, 7, 4], weight.shape], {1: weight}, [2, 3, 4, 6, 5], options)
    (layer,) = got.layers
    assert layer.geometry == Geometry(8, 9, 7, 5, (3, 2), (2, 1)) and layer.samples == 2 * 3
    assert got.multiplications == prod([2, 3, 4, 6, 5]) * 2 * 3 * 2 * 4 and "of three dimensions" in got.told[0]
    read_ = layer.tensors["weight"].read()
    for k, c, d, r, s in ((0, 0, 0, 0, 0), (4, 3, 1, 2, 1), (2, 1, 1, 0, 1)):
        assert read_[k, 2 * c + d, r, s] == weight[d, r, s, c, k]


def lstm(both=False, projected=0, coupled=False):
    """Shapes of an LSTM's inputs: 5 steps of a batch of 2 rows of 3, 4 cells."""
    way = [None if coupled else [4, 3], *[[4, 3]] * 3, None if coupled else [4, projected or 4]]
    way += [[4, projected or 4]] * 3 + [None] * 3 + [[4]] * 4 + [[projected, 4] if projected else None, None]
    return [[5, 2, 3], *way, *(way if both else [])]


@pytest.mark.parametrize(
    ("code", "shapes", "options", "parts", "steps"),
    [
        (44, lstm(), [0, 0, 0, 1], {"W": (16, 3), "R": (16, 4)}, (5, 2)),
        (44, lstm(), [0, 0, 0, 0], {"W": (16, 3), "R": (16, 4)}, (2, 5)),
        (44, lstm(coupled=True, projected=2), [0, 0, 0, 1], {"W": (12, 3), "R": (12, 2), "P": (2, 4)}, (5, 2)),
        (52, lstm(both=True), [], {"W0": (16, 3), "R0": (16, 4), "W1": (16, 3), "R1": (16, 4)}, (5, 2)),
        (16, [[2, 3], *lstm()[1:]], [], {"W": (16, 3), "R": (16, 4)}, (1, 2)),
        (24, [[2, 3], [4, 3], [4, 4], [4], [2, 4]], [], {"W": (4, 3), "R": (4, 4)}, (1, 2)),
        (35, [[2, 5, 3], [4, 3], [4, 4], [4], [2, 4]], [0], {"W": (4, 3), "R": (4, 4)}, (5, 2)),
        (46, [[5, 2, 3], *[[4, 3], [4, 4], [4], [2, 4]] * 2], [1],
         {"W0": (4, 3), "R0": (4, 4), "W1": (4, 3), "R1": (4, 4)}, (5, 2)),
    ],
)  # fmt: skip
def test_a_cell_is_its_matrices_step_by_step(code, shapes, options, parts, steps, tmp_path):
    rng = np.random.default_rng(0)
    constants = {n: rng.random(shape) for n, shape in enumerate(shapes) if n and shape and len(shape) == 2}
    got = written(tmp_path / "m.tflite", code, shapes, constants, [2, 4], options)
    found = {layer.name.rpartition("/")[2]: layer for layer in got.layers}
    assert {name: layer.geometry.weight_shape[:2] for name, layer in found.items()} == parts
    assert {(layer.geometry.height, layer.samples) for layer in got.layers} == {steps}
    below = [constants[n] for n in range(1, 5) if n in constants and code in (44, 16, 52)] or [constants[1]]
    first = next(iter(found.values())).tensors["weight"].read()
    assert np.array_equal(first[:, :, 0, 0], np.concatenate(below).astype(np.float32))


def test_what_a_cell_cannot_be_is_left_out_with_its_reason(tmp_path):
    bad = lstm()
    bad[2] = [4]
    with pytest.raises(ImportFormatError, match="must have matrices of as many columns"):
        written(tmp_path / "m.tflite", 44, bad, {}, [2, 4], [0, 0, 0, 1])
    with pytest.raises(ImportFormatError, match="auxiliary inputs"):
        written(tmp_path / "m.tflite", 52, [*lstm(both=True), *[None] * 4, [5, 2, 3]], {}, [2, 4])


@pytest.mark.parametrize("size", [0, 7, 8, 40, 500])
def test_a_cut_file_is_one_line(size, tmp_path):
    (tmp_path / "m.tflite").write_bytes((TFLITE / "conv1.tflite").read_bytes()[:size])
    with pytest.raises(ImportFormatError, match=r"m\.tflite: "):
        read(tmp_path / "m.tflite")
