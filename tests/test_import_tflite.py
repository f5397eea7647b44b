"""Are TensorFlow Lite's models read with the work and the zeros that they have?"""

import struct
from collections import Counter
from math import prod

import numpy as np
import pytest
from importing import DATA, densities

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import read, tflite
from accelsim.workload.importers.flatbuffer import Table

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
    raw = np.frombuffer(path.read_bytes(), tflite.DTYPES[weight.number(1, 1)], length, start).reshape(8, 3, 3, 8)
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
        got[9 if layer.kind == "linear" else spread] += layer.multiplications * imported.samples_of(layer)
    if name == "micro_speech_quantized.tflite":  # its convolution of one channel is a depthwise operator
        got[4] = got.pop(3)
    assert got == wanted and imported.multiplications == sum(wanted.values())


@pytest.mark.parametrize("size", [0, 7, 8, 40, 500])
def test_a_cut_file_is_one_line(size, tmp_path):
    (tmp_path / "m.tflite").write_bytes((TFLITE / "conv1.tflite").read_bytes()[:size])
    with pytest.raises(ImportFormatError, match=r"m\.tflite: "):
        read(tmp_path / "m.tflite")
