"""Is N:M imposed as a forward pass imposes it?"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from importing import run

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import to_trace
from accelsim.workload.importers.base import Imported, ImportedLayer
from accelsim.workload.importers.nm import Pattern
from accelsim.workload.patterns import Stored
from accelsim.workload.trace import Trace


def naive(values, kept, size, axis):
    """Group by group: which numbers are left."""
    found = np.zeros(values.shape, bool)
    for place in np.ndindex(*values.shape):
        group = [list(place) for _ in range(size)]
        first = place[axis] // size * size
        for number, other in enumerate(group):
            other[axis] = first + number
        greater = sum(
            (abs(values[tuple(o)]), -o[axis]) > (abs(values[place]), -place[axis]) for o in group if tuple(o) != place
        )
        found[place] = greater < kept and values[place] != 0
    return found


@given(st.data())
def test_of_each_group_the_greatest_are_left(data):
    size = data.draw(st.integers(1, 4))
    kept = data.draw(st.integers(1, size))
    axis = data.draw(st.integers(0, 1))
    shape = [data.draw(st.integers(1, 3)) * (size if n == axis else 1) for n in range(2)] + [2, 1]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.integers(-3, 4, shape).astype(np.float32)  # with ties, and zeros
    layer = ImportedLayer("l", "conv", Geometry(shape[1], 2, 1, shape[0], (2, 1)), {"weight": Stored(lambda: values)})
    imported = Imported(Path("net.x"), "x", "net", (layer,), is_network=False)
    pattern = Pattern(kept, size, ("filters", "channels")[axis])
    got = to_trace(imported, pattern=pattern).snapshots[0].layers[0].tensor("weight")
    assert np.array_equal(got, naive(values, kept, size, axis))


def test_a_command_says_which_layers_have_the_pattern(tmp_path, capsys):
    text = "Layer, M, N, K\na, 4, 8, 8\nb, 4, 8, 6\nc, 4, 16, 8\n"
    (tmp_path / "net.csv").write_text(text)
    out = tmp_path / "t.npz"
    assert run("import", tmp_path / "net.csv", "--nm", "2:4", "--sparsity", "0,0.75", "--out", out) == 0
    said = capsys.readouterr().out
    assert (
        "c: weight drawn, density 1; activation drawn, density 0.5; gradient drawn, density 1; weight 2:4 along" in said
    )
    assert said.count("weight not 2:4 along channels") == 2
    with Trace.open(out) as trace:
        dense, sparse = ([layer.tensor("weight") for layer in s.layers] for s in trace.snapshots)
    assert [mask.mean() for mask in dense] == [1, 1, 0.5] and [mask.mean() for mask in sparse] == [1, 0.25, 0.25]
    groups = dense[2].reshape(16, 2, 4).sum(axis=2)
    assert (groups == 2).all() and not (sparse[2] & ~dense[2]).any()


@pytest.mark.parametrize(
    ("text", "rule"), [("4:2", "must be N:M with 1 ≤ N"), ("2", "must be N:M, got '2'"), ("0:4", "1 ≤ N")]
)
def test_a_bad_pattern_is_one_line(text, rule):
    with pytest.raises(ImportFormatError, match=rule):
        Pattern.parse(text)
