"""Does TensorDash schedule, line by line, what its rules say, and put on its rows and columns what they say?"""

from itertools import product

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import tensordashes
from pydantic import ValidationError
from strategies import layers

from accelsim.hardware.accelerators.tensordash import TensorDash, lane_order
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, READS, lower, lower_tensors
from accelsim.workload.trace import Layer

DENSITIES = st.sampled_from([0, 0.03, 0.1, 0.3, 0.6, 1.0])
LARGER = [
    Geometry(20, 9, 8, 12, (3, 3), (2, 2), (1, 1, 1, 1)),  # strided as in ResNet, maps that the stride does not divide
    Geometry(12, 7, 7, 16, (3, 2), (2, 1), (0, 1, 0, 0), (1, 2), groups=2),
    Geometry(24, 6, 6, 20, (1, 1), (2, 2)),
]
T = {"search_shape": "T", "lookahead_h": 2, "lookaside_d": 5}


def tensordash(**keys):
    return TensorDash(model="tensordash", **{"tiles": 1, "rows": 4, "columns": 4, "lanes": 16, **T, **keys})


def check_schedule(machine, streams, windows, lines, densities, seed):
    """Every slot of every PE of one tile is what the naive twin says."""
    rng = np.random.default_rng(seed)
    rows, columns = (
        rng.random((count, lines, machine.lanes)) < density
        for count, density in zip((streams, windows), densities, strict=True)
    )
    pairs = (rows[:, None] & columns).reshape(-1, lines, machine.lanes)
    executed, sources = reference.dynamic_schedule(
        pairs.swapaxes(0, 1), machine.lookahead_h, machine.lookaside_d, machine.search_map, machine.free_skip_at_start,
        machine.window_ports,
    )  # fmt: skip
    np.testing.assert_array_equal(machine._tile(rows, columns).reshape(sources.shape), sources)
    assert machine.executed(rows, columns).tolist() == [[executed]]


@given(data=st.data(), machine=tensordashes())
@settings(max_examples=200, deadline=None)
def test_the_dynamic_kernel_is_its_naive_twin(data, machine):
    streams, windows = data.draw(st.integers(1, machine.rows)), data.draw(st.integers(1, machine.columns))
    lines, densities = data.draw(st.integers(1, 9)), data.draw(st.tuples(DENSITIES, DENSITIES))
    check_schedule(machine, streams, windows, lines, densities, data.draw(st.integers(0, 2**32 - 1)))


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (70, 2)])
def test_tiles_that_go_together_are_tiles_alone(rows, columns, free):
    """More tiles than the kernel takes at once, of several sets and groups, each with dropped lines of its own."""
    machine = tensordash(
        rows=rows, columns=columns, lanes=8, skipping="two_sided", free_skip_at_start=free, window_ports=3
    )
    rng = np.random.default_rng(rows)
    streams, windows = rng.random((19 * rows - 1, 7, 8)) < 0.2, rng.random((16 * columns - 1, 7, 8)) < 0.3
    windows &= rng.random((len(windows) // columns + 1, 7, 1)).repeat(columns, axis=0)[: len(windows)] < 0.6
    together = machine.executed(streams, windows)
    for g, s in [(0, 0), (15, 0), (0, 18), (3, 17), (15, 18)]:
        own, visit = streams[s * rows : (s + 1) * rows], windows[g * columns : (g + 1) * columns]
        assert together[g, s] == machine.executed(own, np.pad(visit, ((0, columns - len(visit)), (0, 0), (0, 0))))


@pytest.mark.parametrize(
    ("rows", "columns", "streams", "windows"),
    [
        (64, 1, 64, 1),
        (65, 1, 65, 1),
        (200, 1, 131, 1),
        (3, 64, 3, 64),
        (2, 70, 2, 70),
        (2, 256, 2, 129),
        (9, 30, 8, 29),
    ],
)
def test_tiles_larger_than_a_machine_word(rows, columns, streams, windows):
    machine = tensordash(rows=rows, columns=columns, lanes=8, skipping="two_sided")
    check_schedule(machine, streams, windows, 6, (0.4, 0.5), seed=rows)


@pytest.mark.parametrize("which", PASSES)
@given(
    machine=tensordashes(
        strided_input_grad=st.just("phase"), space_to_depth=st.just(False), lanes=st.sampled_from([1, 2, 3, 4])
    ),
    layer=layers(largest=5, channels=6),
)
@settings(max_examples=200, deadline=None)
def test_a_pass_takes_the_cycles_of_its_naive_twin(which, machine, layer):
    """Streams from the definition of the pass: strides, groups, dilation, batches, several tiles, either operand."""
    check_pass(machine, layer, which)


def check_pass(machine, layer, which):
    """Its cycles are those of the naive twin, of streams from the definition of the pass."""
    convolutions = lower(layer, which)
    names = [name.removeprefix("saved_") for name in READS[which]]
    on_rows = {machine.scheduled(conv) for conv in convolutions}
    assert len(on_rows) <= 1  # the phases of a pass agree
    expected = reference.tensordash_cycles(layer, which, machine, on_rows == {names[0]})
    assert sum(machine.run(conv).cycles for conv in convolutions) == expected


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("skipping", ["one_sided", "two_sided"])
@pytest.mark.parametrize("weight", [0.02, 0.5])
@pytest.mark.parametrize("geometry", LARGER)
def test_larger_layers_take_the_cycles_of_the_naive_twin(geometry, weight, skipping, which):
    """Several tiles, rounds and words of lanes; streams of weights with hardly anything in them."""
    rng = np.random.default_rng(3)
    shapes = {"activation": geometry.activation_shape(2), "gradient": geometry.gradient_shape(2)}
    tensors = {name: rng.random(shape) < 0.4 for name, shape in shapes.items()}
    tensors["weight"] = rng.random(geometry.weight_shape) < weight
    layer = Layer("l", "conv", geometry, 2, 2, PASSES, tensors)
    check_pass(tensordash(tiles=3, rows=2, columns=3, lanes=4, skipping=skipping), layer, which)


def test_outputs_that_no_gradient_reaches_cost_nothing():
    """A 2×2 kernel, stride 2, on 5×5: the last row and column of the input are in no window."""
    g = Geometry(16, 5, 5, 16, (2, 2), (2, 2))
    phases = lower_tensors(g, "input_grad", np.ones(g.gradient_shape(1), bool), np.ones(g.weight_shape, bool))
    # Four phases of one tap, 2×2 windows each: one visit of 4 columns by 4 sets of rows, of one line.
    assert [tensordash().run(conv).cycles for conv in phases] == [4, 4, 4, 4]


@given(machine=tensordashes(skipping=st.just("two_sided")), layer=layers())
@settings(max_examples=60, deadline=None)
def test_two_sided_executes_effectual_products_alone(machine, layer):
    for which in PASSES:
        for conv in lower(layer, which, strided=machine.strided_input_grad):
            assert machine.run(conv).slots["ineffectual"] == 0


def test_lanes_take_in_the_order_of_the_papers_levels():
    assert lane_order(16, 5) == [0, 5, 10, 1, 6, 11, 2, 7, 12, 3, 8, 13, 4, 9, 14, 15]
    assert lane_order(4, 9) == lane_order(4, 0) == [0, 1, 2, 3]
    assert lane_order(1, 5) == [0]


@pytest.mark.parametrize(("lanes", "lookaside"), [*product([1, 2, 5, 16, 33, 64], [0, 1, 2, 5, 16, 40])])
def test_each_lane_takes_once(lanes, lookaside):
    assert sorted(lane_order(lanes, lookaside)) == list(range(lanes))


def test_a_schedule_by_hand():
    """One row, 16 lanes, T⟨2,5⟩: line 0 holds lane 3 alone, line 1 lanes 0 and 15, line 2 lane 9.

    At line 0, lane 0 takes its first candidate, line 1 lane −1 = 15. Lane 1 takes line 1 lane 0 by (1, −1). Lane 11,
    which comes before 7 and 9 in the order, takes line 2 lane 9 by (2, −2). Lines 1 and 2 are left empty and skipped.
    """
    rows = np.zeros((1, 3, 16), bool)
    rows[0, [0, 1, 1, 2], [3, 0, 15, 9]] = True
    machine = tensordash()
    slots = machine._tile(rows, np.ones((1, 3, 16), bool))[0, 0]
    assert {lane: int(slots[0, lane]) for lane in range(16) if slots[0, lane] >= 0} == {
        0: 16 + 15,
        1: 16 + 0,
        3: 3,
        11: 32 + 9,
    }
    assert (slots[1:] == -2).all()


@pytest.mark.parametrize("skipping", ["one_sided", "two_sided"])
def test_of_empty_lines_one_in_three_is_executed(skipping):
    """Two may be skipped in succession; the count of skips starts anew with each set of rows."""
    g = Geometry(16 * 5, 2, 2, 8, (1, 1))
    zeros, ones = np.zeros(g.weight_shape, bool), np.ones(g.activation_shape(1), bool)
    activity = tensordash(skipping=skipping).run(lower_tensors(g, "fwd", ones, zeros)[0])
    assert activity.cycles == 2 * (5 // 3)


def densities(**tensors):
    """A strided layer whose tensors have so many zeros at their beginning."""
    g = Geometry(4, 6, 6, 4, (2, 2), (2, 2))
    shapes = {"weight": g.weight_shape, "activation": g.activation_shape(2), "gradient": g.gradient_shape(2)}
    arrays = {name: np.ones(shape, bool) for name, shape in shapes.items()}
    for name, zeros in tensors.items():
        arrays[name].flat[:zeros] = False
    operands = {"fwd": ("activation", "weight"), "input_grad": ("gradient", "weight")}
    operands["weight_grad"] = ("activation", "gradient")
    return lambda which: lower_tensors(g, which, *(arrays[name] for name in operands[which]))


@pytest.mark.parametrize(
    ("zeros", "expected"),
    [
        ({}, ("weight", "weight", "gradient")),
        # 64 weights, 288 activations, 72 gradients: equal shares, then one more zero.
        ({"weight": 8, "activation": 36, "gradient": 9}, ("weight", "weight", "gradient")),
        ({"weight": 8, "activation": 37, "gradient": 9}, ("activation", "weight", "activation")),
        ({"weight": 8, "activation": 36, "gradient": 10}, ("weight", "gradient", "gradient")),
        ({"weight": 9, "activation": 0, "gradient": 9}, ("weight", "weight", "gradient")),
    ],
)
def test_the_operand_with_more_zeros_is_scheduled(zeros, expected):
    """By share of zeros in the whole tensors; a tie goes to the weights, in the weight gradient to the gradient."""
    convolutions = densities(**zeros)
    machine = tensordash()
    assert tuple(machine.scheduled(convolutions(which)[0]) for which in PASSES) == expected


def test_all_phases_of_an_input_gradient_schedule_the_same_operand():
    """The first phase's taps alone hold the layer's zeros; the choice is the layer's."""
    g = Geometry(4, 6, 6, 4, (2, 2), (2, 2))
    weight, gradient = np.ones(g.weight_shape, bool), np.ones(g.gradient_shape(1), bool)
    weight[:, :, 0, 0] = False
    gradient.flat[: gradient.size // 2] = False
    phases = lower_tensors(g, "input_grad", gradient, weight)
    assert len(phases) == 4
    assert {tensordash().scheduled(conv) for conv in phases} == {"gradient"}


@pytest.mark.parametrize(
    ("scheduled", "expected"),
    [
        ("weight", ("weight", "weight", "gradient")),
        ("activation", ("activation", "weight", "activation")),
        ("gradient", ("weight", "gradient", "gradient")),
    ],
)
def test_a_named_operand_is_scheduled_where_a_pass_reads_it(scheduled, expected):
    """Elsewhere the sparser of the two is."""
    convolutions, machine = densities(), tensordash(scheduled_operand=scheduled)
    assert tuple(machine.scheduled(convolutions(which)[0]) for which in PASSES) == expected


@pytest.mark.parametrize("samples", [1, 3])
def test_jobs_are_those_of_the_mapping(samples):
    """Lines times visits of each pass, either operand on the rows, by the formulas of docs/model.md."""
    g = Geometry(20, 9, 8, 13, (3, 2), (2, 1), (1, 1, 0, 0))
    n, (p, q), taps = samples, g.output, 6
    rows, cols, lanes = 4, 3, 8
    shapes = {"weight": g.weight_shape, "activation": g.activation_shape(n), "gradient": g.gradient_shape(n)}
    arrays = {name: np.ones(shape, bool) for name, shape in shapes.items()}
    jobs = {
        ("fwd", "activation"): n * ceil(p * q, rows) * ceil(13, cols),
        ("fwd", "weight"): n * ceil(p * q, cols) * ceil(13, rows),
        ("weight_grad", "activation"): taps * ceil(20, rows) * ceil(13, cols),
        ("weight_grad", "gradient"): taps * ceil(20, cols) * ceil(13, rows),
    }
    depth = {"fwd": taps * ceil(20, lanes), "weight_grad": ceil(n * p * q, lanes)}
    operands = {"fwd": ("activation", "weight"), "weight_grad": ("activation", "gradient")}
    for (which, scheduled), count in jobs.items():
        machine = tensordash(rows=rows, columns=cols, lanes=lanes, scheduled_operand=scheduled)
        (conv,) = lower_tensors(g, which, *(arrays[name] for name in operands[which]))
        assert machine.dense_cycles(conv) == count * depth[which]


def test_two_sided_tiles_have_a_size():
    assert tensordash(columns=1 << 40).columns == 1 << 40
    with pytest.raises(ValidationError, match="skipping two_sided needs columns of at most 256, got 257"):
        tensordash(columns=257, skipping="two_sided")


def ceil(a, b):
    return -(-a // b)
