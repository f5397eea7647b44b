"""Does every machine execute every effectual product once, in the cycles it says, with every slot accounted for?"""

from dataclasses import replace

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import MODELS, accelerators, bit_tacticals, dadiannaos, tensordashes
from strategies import layers

from accelsim import ledger
from accelsim.errors import MachineError
from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.accelerators.bit_tactical_serial import TCLe, TCLp
from accelsim.hardware.accelerators.cambricon_x import CambriconX
from accelsim.hardware.accelerators.cnvlutin import Cnvlutin
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.dcnn import DCNN
from accelsim.hardware.accelerators.dstc import DSTC
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.ideal import Ideal
from accelsim.hardware.accelerators.laconic import Laconic
from accelsim.hardware.accelerators.loom import Loom
from accelsim.hardware.accelerators.pe_array.mapping import bank
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.accelerators.pragmatic import Pragmatic
from accelsim.hardware.accelerators.scnn import SCNN
from accelsim.hardware.accelerators.shapeshifter import ShapeShifter
from accelsim.hardware.accelerators.sigma import Sigma
from accelsim.hardware.accelerators.stripes import Stripes
from accelsim.hardware.accelerators.structured import Structured
from accelsim.hardware.accelerators.tensordash import TensorDash
from accelsim.hardware.lines import space_to_depth, to_words
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, lower, lower_tensors
from accelsim.workload.trace import Layer


def convolve(conv):
    return reference.convolve(conv.input, conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups)


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_schedule_executed_with_numbers_is_the_convolution(model, which, data):
    """Random integers: a product left out, doubled or misplaced changes the result. And ``run`` counts its cycles, and
    what its film shows: each slot, cause by cause.
    """
    machine = data.draw(MODELS[model])
    layer = data.draw(layers(numbers=True, largest=6, channels=4))
    for conv in lower(replace(layer, batch=2 * layer.samples), which, strided=machine.strided_input_grad):
        activity, film = machine.run(conv), Film(machine.multipliers)
        result, cycles = machine.replay(conv, film)
        np.testing.assert_array_equal(result, convolve(conv))
        assert film.slots() == {cause: count for cause, count in activity.slots.items() if count}
        assert cycles == film.cycles == activity.cycles


@pytest.mark.parametrize("model", MODELS)
def test_a_replay_that_loses_a_product_is_noticed(model):
    """The comparison above fails when the executed weights are not those of the convolution."""
    rng = np.random.default_rng(1)
    g = Geometry(4, 5, 5, 4, (3, 3), padding=(1, 1, 1, 1))
    conv = lower_tensors(g, "fwd", rng.integers(1, 9, g.activation_shape(1)), rng.integers(1, 9, g.weight_shape))[0]
    wrong = conv.kernel.copy()
    wrong[2, 1, 0, 2] = 0
    machine = EXAMPLES[model]
    result, _ = machine.replay(lower_tensors(g, "fwd", conv.input, wrong)[0])
    assert (result != convolve(conv)).any()


@pytest.mark.parametrize("which", PASSES)
@given(machine=accelerators(), layer=layers(numbers=True))
@settings(max_examples=400, deadline=None)
def test_slots_add_up_and_no_machine_beats_the_ideal(which, machine, layer):
    for conv in lower(layer, which, strided=machine.strided_input_grad):
        activity = machine.run(conv)
        assert sum(activity.slots.values()) == activity.cycles * machine.multipliers
        assert activity.slots["effectual"] == conv.effectual
        assert activity.cycles * machine.multipliers >= conv.effectual
        assert set(activity.slots) <= set(ledger.names("slots"))
        assert min(activity.slots.values()) >= 0


@given(layer=layers(), machine=dadiannaos())
@settings(max_examples=100, deadline=None)
def test_the_dense_machine_takes_its_closed_form(layer, machine):
    """ceil(P·Q/columns)·ceil(ceil(K/rows)/tiles)·R·S·ceil(C/lanes) per sample and group, whatever is zero, and a drain
    for each round.
    """
    machine = machine.model_copy(update={"space_to_depth": False})
    g = layer.geometry
    places, filters, channels = g.output[0] * g.output[1], g.filters // g.groups, g.weight_shape[1]
    expected = ceil(places, machine.columns) * ceil(ceil(filters, machine.rows), machine.tiles)
    lines = g.kernel[0] * g.kernel[1] * ceil(channels, machine.lanes)
    expected *= (lines + machine.pipeline_drain_cycles) * layer.samples * g.groups
    assert sum(machine.run(conv).cycles for conv in lower(layer, "fwd")) == expected
    assert sum(machine.dense_cycles(conv) for conv in lower(layer, "fwd")) == expected


@pytest.mark.parametrize("which", PASSES)
@given(machine=st.one_of(bit_tacticals(), tensordashes()), layer=layers())
@settings(max_examples=120, deadline=None)
def test_lookahead_gains_at_most_its_depth_and_loses_nothing(which, machine, layer):
    """Of T lines at least floor(T / (1 + h)) are executed: h may be dropped before each, and h after the last."""
    machine = machine.model_copy(update={"pipeline_drain_cycles": 0})
    for conv in lower(layer, which, strided=machine.strided_input_grad):
        cycles, most = machine.run(conv).cycles, machine.dense_cycles(conv)
        depth = machine.lines(conv)[0].shape[2]
        assert most // depth * (depth // (1 + machine.lookahead_h)) <= cycles <= most


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_promotion_kernel_is_its_naive_twin(data):
    machine = data.draw(bit_tacticals())
    filters, lines = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    mask = rng.random((1, filters, lines, machine.lanes)) < data.draw(st.sampled_from([0, 0.03, 0.1, 0.3, 0.6, 1.0]))
    executed = machine.executed(to_words(mask), np.empty((0, 0, 0, 0), np.int64))
    for first, counted in zip(range(0, filters, machine.rows), executed, strict=True):
        weights = mask[0, first : first + machine.rows].transpose(1, 0, 2)
        assert counted == reference.executed_lines(
            weights, machine.lookahead_h, machine.search_map, machine.window_ports
        )


@given(st.integers(0, 2**32 - 1), st.integers(1, 64))
@settings(max_examples=50, deadline=None)
def test_words_hold_the_lanes(seed, lanes):
    mask = np.random.default_rng(seed).random((3, lanes)) < 0.5
    words = to_words(mask)
    assert [[int(w) >> lane & 1 for lane in range(lanes)] for w in words] == mask.astype(int).tolist()


@given(layer=layers(numbers=True, largest=7, channels=4, dilations=1))
@settings(max_examples=60, deadline=None)
def test_space_to_depth_is_the_same_convolution(layer):
    conv = lower(layer, "fwd")[0]
    if conv.groups == 1:
        np.testing.assert_array_equal(convolve(space_to_depth(conv)), convolve(conv))


def test_banks_are_those_of_the_formula():
    """Worked by hand from the formula in docs/model.md."""
    assert bank(0, 0, 0) == 0
    assert bank(7, 1, 1) == 16 + 8 + 4 + 3
    assert bank(4, 2, 0) == 0
    assert bank(5, 2, 2) == 16 + 1
    assert bank(np.array([4, 3]), np.array([0, 3]), np.array([2, 0])).tolist() == [0, 16 + 8 + 3]


def test_one_vector_pair_by_hand():
    """Four activations in a row meet filters 0…3 of a 1×1 kernel: 16 products.

    Banks: q & 1 gives two of the four activations each, k & 3 keeps the filters apart, q & 2 splits the pairs: no two
    products share a bank, one cycle. Filters 0, 8, 16, 24 share all banks: four products each, four cycles.
    """
    array = EXAMPLES["pe_array"].model_copy(update={"pe_rows": 1, "pe_columns": 1, "halo_exchange": False})
    g = Geometry(1, 1, 4, 32, (1, 1))
    near, far = np.zeros((2, 32, 1, 1, 1), bool)
    near[:4], far[::8] = True, True
    acts = np.ones((1, 1, 1, 4), bool)
    assert array.run(lower_tensors(g, "fwd", acts, near)[0]).cycles == 1
    assert array.run(lower_tensors(g, "fwd", acts, far)[0]).cycles == 4


@pytest.mark.parametrize("banks", [1, 2, 4, 8, 16, 32])
def test_conflicts_of_many_filters_and_groups_are_those_of_the_replay(banks):
    """More filters than banks, in groups that begin between them, and more vectors than slots of a small hash table."""
    rng = np.random.default_rng(0)
    g = Geometry(8, 7, 9, 18, (3, 2), stride=(2, 1), padding=(1, 0, 1, 1), groups=2)
    tensors = (rng.integers(1, 9, shape) for shape in (g.activation_shape(2), g.weight_shape))
    conv = lower_tensors(g, "fwd", *(values * (rng.random(values.shape) < 0.6) for values in tensors))[0]
    shape = {"pe_rows": 2, "pe_columns": 1, "banks": banks, "halo_exchange": False}
    array = EXAMPLES["pe_array"].model_copy(update=shape)
    result, cycles = array.replay(conv)
    np.testing.assert_array_equal(result, convolve(conv))
    activity = array.run(conv)
    assert cycles == activity.cycles
    assert activity.slots["bank_conflict"] > 0


def test_all_zero_operands_cost_the_sparse_machines_nothing_but_what_they_cannot_skip():
    g = Geometry(16, 8, 8, 16, (3, 3), padding=(1, 1, 1, 1))
    zeros = [np.zeros(shape, bool) for shape in (g.activation_shape(1), g.weight_shape)]
    conv = lower_tensors(g, "fwd", *zeros)[0]
    array = EXAMPLES["pe_array"].model_copy(update={"halo_exchange": False})
    assert array.run(conv).cycles == 0
    # Nine lines; after two dropped in succession one has to be executed.
    assert EXAMPLES["bit_tactical"].run(conv).cycles == 3 * 64 / 4
    assert EXAMPLES["dadiannao"].run(conv).cycles == 9 * 64 / 4


def test_a_machine_that_cannot_hold_one_filters_partial_sums_says_so():
    array = EXAMPLES["pe_array"].model_copy(update={"accumulators": 3})
    g = Geometry(1, 8, 8, 1, (1, 1))
    conv = lower_tensors(g, "fwd", np.ones((1, 1, 8, 8), bool), np.ones((1, 1, 1, 1), bool))[0]
    with pytest.raises(MachineError, match="must hold one filter's 4×4 partial sums, got 3"):
        array.run(conv)


@pytest.mark.parametrize("which", PASSES)
def test_pes_beyond_the_map_change_nothing_but_the_edge(which):
    """A 7×7 map with padding fits 9×9 PEs one place each; 65,536 cost no more time or memory than 81."""
    rng = np.random.default_rng(0)
    g = Geometry(64, 7, 7, 32, (3, 3), padding=(1, 1, 1, 1))
    masks = {
        "activation": rng.random(g.activation_shape(1)) < 0.5,
        "weight": rng.random(g.weight_shape) < 0.2,
        "gradient": rng.random(g.gradient_shape(1)) < 0.9,
    }
    conv = lower(Layer("l", "conv", g, 1, 1, PASSES, masks), which)[0]
    few, many = (EXAMPLES["pe_array"].model_copy(update={"pe_rows": n, "pe_columns": n}).run(conv) for n in (9, 256))
    assert few.cycles == many.cycles
    assert few.slots["effectual"] == many.slots["effectual"]
    assert many.slots["edge"] > 0.99 * many.cycles * many.multipliers - many.slots["exchange"]


@pytest.mark.parametrize("multipliers", [1, 7, 256, 1024, 4096, 65536, 6144])
def test_the_baseline_has_as_many_multipliers(multipliers):
    assert DaDianNao.with_multipliers(multipliers).multipliers == multipliers


def test_the_weight_gradients_reduction_is_shared_by_the_batch():
    """Twice the batch, half the sample's share; with a width of 0 it is free."""
    g = Geometry(8, 4, 4, 8, (1, 1))
    ones = np.ones(g.activation_shape(1), bool), np.ones(g.gradient_shape(1), bool)
    array = EXAMPLES["pe_array"]

    def exchange(batch, machine=array):
        return (
            machine.run(lower_tensors(g, "weight_grad", *ones, batch=batch)[0]).slots["exchange"] / machine.multipliers
        )

    # 64 partial sums, 4 a cycle, then 1 + 1 hops across 2×2 PEs.
    assert [exchange(1), exchange(2), exchange(32)] == [18, 9, 1]
    assert exchange(1, array.model_copy(update={"reduction_width": 0})) == 0


@pytest.mark.parametrize("model", ["pe_array", "scnn"])
def test_a_barrier_after_each_sample_by_hand(model):
    """One channel and filter of 1×2, a PE for each place. One sample has its non-zeros on the left, one on the right.

    Without a barrier both PEs have a cycle's work and do it at once; with it each waits for the other's sample.
    """
    g = Geometry(1, 1, 2, 1, (1, 1))
    acts = np.array([[True, False], [False, True]]).reshape(2, 1, 1, 2)
    conv = lower_tensors(g, "weight_grad", acts, np.ones(g.gradient_shape(2), bool))[0]
    free = EXAMPLES[model].model_copy(update={"reduction_width": 0})
    counts = [free.model_copy(update={"sample_barrier": barrier}).run(conv) for barrier in (False, True)]
    assert [activity.cycles for activity in counts] == [1, 2]
    # With the barrier one of the two PEs waits in each cycle, 16 multipliers.
    assert [activity.slots["barrier"] for activity in counts] == [0, 2 * 16]


@pytest.mark.parametrize(
    ("channels", "filters", "block"),
    [(512, 512, (32, 32)), (512, 4, (256, 4)), (5, 512, (4, 204)), (3, 2, (3, 2)), (512, 33, (32, 32))],
)
def test_blocks_of_the_weight_gradient_by_hand(channels, filters, block):
    """1024 accumulators, vectors of 4: near a square; where one side is short the other is longer, in whole vectors."""
    assert EXAMPLES["pe_array"].weight_grad_blocks(channels, filters) == block


def ceil(a, b):
    return -(-a // b)


BITS = {"tiles": 1, "rows": 16, "columns": 4, "lanes": 16, "pe_width": 16}
T_2_5 = {"search_shape": "T", "lookahead_h": 2, "lookaside_d": 5}
EXAMPLES = {
    "dadiannao": DaDianNao(model="dadiannao", tiles=1, rows=16, columns=4, lanes=16),
    "bit_tactical": BitTactical(
        model="bit_tactical", tiles=1, rows=16, columns=4, lanes=16, search_shape="T", lookahead_h=2, lookaside_d=5
    ),
    "tensordash": TensorDash(
        model="tensordash", tiles=1, rows=16, columns=4, lanes=16, search_shape="T", lookahead_h=2, lookaside_d=5
    ),
    "stripes": Stripes(model="stripes", **BITS),
    "shapeshifter": ShapeShifter(model="shapeshifter", **BITS, group_size=2, minor_bit=True, column_registers=1),
    "loom": Loom(model="loom", **BITS, group_size=2, minor_bit=True, pe_serial_bits=2, dynamic_weights=True),
    "pragmatic": Pragmatic(model="pragmatic", **BITS, bits_first_stage=2, column_registers=1),
    "laconic": Laconic(model="laconic", **BITS),
    "tclp": TCLp(model="tclp", **BITS, **T_2_5, group_size=2, minor_bit=False),
    "tcle": TCLe(model="tcle", **BITS, **T_2_5, bits_first_stage=2),
    "pe_array": PEArray(
        model="pe_array",
        pe_rows=2,
        pe_columns=2,
        activation_width=4,
        weight_width=4,
        accumulators=1024,
        banks=32,
        stride_phases=True,
        halo_exchange=True,
        strided_input_grad="phase",
        reduction_width=4,
    ),
    "scnn": SCNN(
        model="scnn",
        pe_rows=2,
        pe_columns=2,
        activation_width=4,
        weight_width=4,
        accumulators=1024,
        group_filters=3,
        banks=32,
        queue_depth=2,
        strided_input_grad="phase",
        reduction_width=4,
    ),
    "sigma": Sigma(
        model="sigma",
        multipliers=64,
        reduction_cut=9,
        load_width=8,
        strided_input_grad="phase",
        weight_grad_rows="activation",
    ),
    "dstc": DSTC(model="dstc", tile_rows=8, tile_columns=4, step_rows=3, step_columns=2, strided_input_grad="phase"),
    "dcnn": DCNN(model="dcnn", pe_rows=2, pe_columns=2, lanes=4, strided_input_grad="phase"),
    "cambricon_x": CambriconX(
        model="cambricon_x", pes=4, lanes=8, window=64, strided_input_grad="phase", weight_grad_rows="activation"
    ),
    "cnvlutin": Cnvlutin(
        model="cnvlutin",
        tiles=1,
        rows=4,
        lanes=8,
        brick=8,
        empty_brick_cycles=1,
        image_encoded=False,
        strided_input_grad="phase",
        weight_grad_skips="activation",
    ),
    "structured": Structured(model="structured", tiles=1, rows=16, columns=4, lanes=16, n=2, m=4),
    "ideal": Ideal(
        model="ideal",
        multipliers=1024,
        fwd_skips="weight",
        input_grad_skips="both",
        weight_grad_skips="neither",
        strided_input_grad="phase",
    ),
}
