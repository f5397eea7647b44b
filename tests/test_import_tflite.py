"""Are TensorFlow Lite's models read with the work and the zeros that they have?"""

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


@pytest.mark.parametrize("size", [0, 7, 8, 40, 500])
def test_a_cut_file_is_one_line(size, tmp_path):
    (tmp_path / "m.tflite").write_bytes((TFLITE / "conv1.tflite").read_bytes()[:size])
    with pytest.raises(ImportFormatError, match=r"m\.tflite: "):
        read(tmp_path / "m.tflite")
