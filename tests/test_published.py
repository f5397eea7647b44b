"""Examples worked by hand for each machine of docs/machines.md, and what its publication says it gains."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import cambricon_xs, cnvlutins, ideals, structureds
from strategies import layers

from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.hierarchy import Memory
from accelsim.hardware.kernels.compressed import compressed_cycles
from accelsim.hardware.machine import load_machine, load_section
from accelsim.hardware.movement.traffic import measured
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, READS, lower, lower_tensors
from accelsim.workload.sparsify import structured_mask
from accelsim.workload.trace import Layer

# The convolutions of AlexNet (two of them in groups), as the papers of 2016 used it.
ALEXNET = (
    Geometry(3, 227, 227, 96, (11, 11), (4, 4)),
    Geometry(96, 27, 27, 256, (5, 5), padding=(2, 2, 2, 2), groups=2),
    Geometry(256, 13, 13, 384, (3, 3), padding=(1, 1, 1, 1)),
    Geometry(384, 13, 13, 384, (3, 3), padding=(1, 1, 1, 1), groups=2),
    Geometry(384, 13, 13, 256, (3, 3), padding=(1, 1, 1, 1), groups=2),
)


def shipped(name, **changes):
    return load_machine(f"{name}.yaml").accelerator.model_copy(update=changes)


def masks(geometry, seed=0, **densities):
    """A layer of random masks; dense where no density is given."""
    rng = np.random.default_rng(seed)
    layer = Layer("l", "conv", geometry, 1, 1, PASSES, {})
    tensors = {
        name: rng.random(layer.shape_of(name)) < densities.get(name, 1.0)
        for name in ("weight", "activation", "saved_activation", "gradient")
    }
    return Layer("l", "conv", geometry, 1, 1, PASSES, tensors)


def full(layer):
    """The layer without a zero."""
    return replace(layer, tensors={name: tensor | True for name, tensor in layer.tensors.items()})


def cycles(machine, layer, which):
    return sum(machine.run(conv).cycles for conv in lower(layer, which, strided=machine.strided_input_grad))


def test_the_bounds_by_hand():
    """A row of 3 activations, padded to 5, meets 2 filters of 3 taps, stride 1: 3 places × 3 taps × 2 = 18 products.

    The activation in the middle is zero, so is the middle tap of the second filter. Place 0 sees (pad, a, 0), place 1
    (a, 0, a), place 2 (0, a, pad): 1 + 2 + 1 non-zeros for each filter, 8 products of non-zero activations. Non-zero
    weights: 3 places × 5 taps. Both: taps 0 and 2 meet non-zeros at place 1 alone, 2 for each filter; tap 1 at places 0
    and 2, 2 for the first filter alone.
    """
    g = Geometry(1, 1, 3, 2, (1, 3), padding=(0, 0, 1, 1))
    acts, weights = np.array([1, 0, 1], bool).reshape(1, 1, 1, 3), np.ones((2, 1, 1, 3), bool)
    weights[1, 0, 0, 1] = False
    conv = lower_tensors(g, "fwd", acts, weights)[0]
    counts = {"neither": 18, "activation": 8, "weight": 15, "both": 6}
    for skips, products in counts.items():
        assert shipped("ideal", multipliers=1, fwd_skips=skips).run(conv).cycles == products
        assert shipped("ideal", multipliers=4, fwd_skips=skips).run(conv).cycles == -(-products // 4)


@pytest.mark.parametrize("which", PASSES)
@given(machine=ideals(), layer=layers())
@settings(max_examples=60, deadline=None)
def test_bounds_are_ordered_and_the_dense_one_is_every_product(which, machine, layer):
    """Both ≤ either ≤ neither; "neither" is the count of all products, "both" that of the effectual ones."""
    names = [name.removeprefix("saved_") for name in READS[which]]
    for conv in lower(layer, which, strided=machine.strided_input_grad):
        products = {
            skips: machine.model_copy(update={f"{which}_skips": skips, "multipliers": 1}).run(conv).cycles
            for skips in ("neither", *names, "both")
        }
        assert products["neither"] == conv.multiplications
        assert products["both"] == conv.effectual
        assert all(products["both"] <= products[name] <= products["neither"] for name in names)


def test_the_one_sided_bound_skips_what_swat_makes_sparse():
    """A fifth of the weights and of the saved activations: each pass gains nearly five times, whatever else is zero."""
    g = Geometry(64, 14, 14, 64, (1, 1))
    layer = masks(g, weight=0.2, activation=0.3, saved_activation=0.2, gradient=0.5)
    dense = masks(g)
    machine = shipped("ideal-one-sided")
    for which in PASSES:
        assert cycles(machine, dense, which) / cycles(machine, layer, which) == pytest.approx(5, rel=0.05)


def test_cambricon_x_by_hand():
    """Two PEs of 2 lanes that see 4 inputs, filters of 10 weights (1×1, 10 channels), 3 windows.

    Filter 0: weights at 0 1 2 3 9: cycle 1 takes 0 1, cycle 2 takes 2 3 (it sees 2 to 5); 4 to 7 hold none: a cycle for
    nothing; then 8 to 11 hold the ninth: 4 cycles. Filter 1: weights at 0 4: 0 to 3, then 4: 2 cycles. Filter 2: none.
    The set of filters 0 and 1 takes 4, that of filter 2 takes 0: (4 + 0) · 3 windows.
    """
    g = Geometry(10, 1, 3, 3, (1, 1))
    weights = np.zeros((3, 10, 1, 1), bool)
    weights[0, [0, 1, 2, 3, 9]] = weights[1, [0, 4]] = True
    conv = lower_tensors(g, "fwd", np.ones((1, 10, 1, 3), bool), weights)[0]
    activity = shipped("cambricon-x", pes=2, lanes=2, window=4).run(conv)
    assert activity.job_cycles.tolist() == [12, 0]
    # Per window 4·4 slots, 7 with a weight; PE 0 leaves 8 − 5 lanes empty, PE 1 leaves 4 − 2 and waits 2 cycles.
    assert activity.slots == {"effectual": 21, "ineffectual": 0, "edge": 0, "barrier": 12, "imbalance": 15}


@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from([0, 0.02, 0.1, 0.5, 1.0]),
    lanes=st.integers(1, 17),
    window=st.integers(0, 40),
)
@settings(max_examples=150, deadline=None)
def test_the_compressed_kernel_is_its_naive_twin(seed, density, lanes, window):
    mask = np.random.default_rng(seed).random((4, 61)) < density
    window += lanes
    expected = [reference.compressed_cycles(row, lanes, window) for row in mask]
    assert compressed_cycles(mask, lanes, window).tolist() == expected


@pytest.mark.parametrize("which", PASSES)
@given(machine=cambricon_xs(), layer=layers())
@settings(max_examples=60, deadline=None)
def test_cambricon_x_loses_nothing_to_its_dense_self(which, machine, layer):
    """No more than ceil(R·S·C / lanes) cycles an output, and a drain; exactly that where every weight is there."""
    for conv, dense in zip(*(lower(a, which) for a in (layer, full(layer))), strict=True):
        assert machine.run(conv).cycles <= machine.run(dense).cycles
        if which == "fwd":
            g, sets = layer.geometry, -(-layer.geometry.filters // layer.geometry.groups // machine.pes)
            outputs = g.output[0] * g.output[1] * layer.samples * g.groups
            each = -(-conv.kernel[0].size // machine.lanes) + machine.pipeline_drain_cycles
            assert machine.run(dense).cycles == outputs * sets * each


def test_cambricon_x_gains_what_its_densest_filters_allow():
    """AlexNet's layers at the densities of Han et al. (NIPS 2015), random places: 2.2× to 2.8× over its dense self.

    The bound is 1/density; filters differ and fill up vectors. The paper's 7.23× is against DianNao and counts memory.
    """
    for density, g in ((0.38, ALEXNET[1]), (0.35, ALEXNET[2]), (0.37, ALEXNET[3])):
        machine = shipped("cambricon-x")
        gain = cycles(machine, masks(g), "fwd") / cycles(machine, masks(g, weight=density), "fwd")
        assert 0.82 / density < gain < 1 / density


def test_cnvlutin_by_hand():
    """2 lanes, bricks of 4, a filter of 2 taps × 8 channels: bricks 0 to 3, lane 0 has 0 and 2, lane 1 has 1 and 3.

    The first window's bricks hold 4, 0, 1, 2 non-zeros: lane 0 takes 4 + 1, lane 1 1 (empty) + 2: 5 cycles. The second
    window begins one place on: 1, 2, then 0, 0: lane 0 1 + 1, lane 1 2 + 1: 3 cycles. 3 filters, 2 fit: all twice.
    """
    g = Geometry(8, 1, 3, 3, (1, 2))
    acts = np.zeros((1, 8, 1, 3), bool)
    acts[0, :4, 0, 0], acts[0, 0, 0, 1], acts[0, 4:6, 0, 1] = True, True, True
    machine = shipped("cnvlutin", tiles=1, rows=2, lanes=2, brick=4)
    activity = machine.run(lower_tensors(g, "fwd", acts, np.ones((3, 8, 1, 2), bool))[0])
    assert activity.job_cycles.tolist() == [5, 3, 5, 3]
    # Of 16·4 slots 3 filters use 8·2 each, the rest is edge; 10 products a filter, lane 1 waits 2, lane 0 waits 1;
    # three empty bricks.
    assert activity.slots == {"effectual": 30, "ineffectual": 0, "edge": 16, "barrier": 9, "imbalance": 9}


def test_cnvlutins_image_is_folded_by_hand():
    """A 1×1 kernel of stride 2: folded, 4 · 3 channels are two lines of 8 lanes, three of them zeros' ; as it is, one.

    With a 2×2 kernel of stride 2 folding fills the lanes: again two lines, where four taps are four.
    """

    def taken(kernel, fold):
        g = Geometry(3, 4, 4, 2, (kernel, kernel), stride=(2, 2))
        machine = shipped("cnvlutin", tiles=1, rows=2, lanes=8, space_to_depth=fold)
        return cycles(machine, masks(g), "fwd") / (g.output[0] * g.output[1])

    assert [taken(1, fold) for fold in (True, False)] == [2, 1]
    assert [taken(2, fold) for fold in (True, False)] == [2, 4]


@given(machine=cnvlutins(), layer=layers())
@settings(max_examples=100, deadline=None)
def test_cnvlutin_takes_its_closed_form_on_dense_bricks(machine, layer):
    """Without padding and zeros, with whole bricks: ceil(bricks / lanes)·brick cycles a window and set of filters."""
    g = layer.geometry
    channels = machine.brick * g.groups
    g = Geometry(channels, *g.padded, g.filters, g.kernel, g.stride, dilation=g.dilation, groups=g.groups)
    dense = masks(g)
    passes = -(-g.filters // g.groups // (machine.tiles * machine.rows)) * g.groups
    expected = g.output[0] * g.output[1] * passes * -(-g.kernel[0] * g.kernel[1] // machine.lanes) * machine.brick
    machine = machine.model_copy(update={"image_encoded": True})
    assert cycles(machine, dense, "fwd") == expected
    for which in PASSES:
        assert cycles(machine, layer, which) <= cycles(machine, full(layer), which)


def test_cnvlutin_gains_what_the_paper_says_at_its_share_of_zeros():
    """ISCA 2016: 44 % of the activations are zero, 1.37× on average and 1.24× to 1.55× by network; within 5 %.

    Here AlexNet's convolutions with that share of zeros in random places, and the image without.
    """
    machine = shipped("cnvlutin")
    layers = [masks(ALEXNET[0])] + [masks(g, activation=0.56) for g in ALEXNET[1:]]
    dense, sparse = (sum(cycles(m, layer, "fwd") for layer in layers) for m in (machine.dense, machine))
    assert dense / sparse == pytest.approx(1.37, rel=0.05)


def test_two_of_four_is_exactly_twice_as_fast():
    """Mishra et al., 2021: "twice the math throughput". Whole lines of 16 channels, 8 of them multiplied."""
    g = Geometry(64, 14, 14, 128, (3, 3), padding=(1, 1, 1, 1))
    dense, machine = masks(g), shipped("ampere")
    sparse = replace(dense, tensors=dense.tensors | {"weight": structured_mask(dense.tensors["weight"], 2, 4)})
    assert cycles(machine, dense, "fwd") == 2 * cycles(machine, sparse, "fwd")
    one = shipped("ampere", n=1)
    fewer = replace(dense, tensors=dense.tensors | {"weight": structured_mask(dense.tensors["weight"], 1, 4)})
    assert cycles(one, dense, "fwd") == 4 * cycles(one, fewer, "fwd")


@pytest.mark.parametrize("groups", [1, 2])
def test_one_group_with_a_non_zero_too_many_makes_the_tensor_dense(groups):
    """All of it, the other half of a grouped convolution too."""
    g = Geometry(64 * groups, 14, 14, 128, (3, 3), padding=(1, 1, 1, 1), groups=groups)
    layer, machine = masks(g), shipped("ampere")
    weight = structured_mask(layer.tensors["weight"], 2, 4)
    weight[77, 40:43, 1, 2] = True
    spoilt = replace(layer, tensors=layer.tensors | {"weight": weight})
    assert cycles(machine, spoilt, "fwd") == cycles(machine, layer, "fwd")


def test_a_pattern_along_the_channels_is_none_along_the_filters():
    """The input gradient reduces over the filters: the pattern must hold along K, for it reads the transpose.

    A weight whose even channels are zero has 2:4 along C and four non-zeros in a row along K; one whose even filters
    are zero, the reverse; a checkerboard has both.
    """
    g = Geometry(64, 14, 14, 128, (1, 1))
    k, c = np.ogrid[:128, :64]
    machine = shipped("ampere")
    for kept, fwd, back in ((c % 2 + 0 * k, 2, 1), (k % 2 + 0 * c, 1, 2), ((k + c) % 2, 2, 2)):
        layer = masks(g)
        sparse = replace(layer, tensors=layer.tensors | {"weight": (kept == 1).reshape(128, 64, 1, 1)})
        assert cycles(machine, layer, "fwd") == fwd * cycles(machine, sparse, "fwd")
        assert cycles(machine, layer, "input_grad") == back * cycles(machine, sparse, "input_grad")


def test_two_of_four_by_hand():
    """One row of 2 lanes, a filter of 2 taps of 6 channels, 2 windows: dense 2 taps · 3 lines · 2 windows = 12 cycles.

    Each tap has two groups, of 4 and of 2 channels; with at most two non-zeros each, a line holds 4 channels: 2 lines.
    """
    g = Geometry(6, 1, 3, 1, (1, 2))
    weights = np.zeros((1, 6, 1, 2), bool)
    weights[0, [0, 3, 4, 5], 0, 0] = weights[0, [1], 0, 1] = True
    machine = shipped("ampere", tiles=1, rows=1, columns=1, lanes=2, space_to_depth=False)
    conv = lower_tensors(g, "fwd", np.ones((1, 6, 1, 3), bool), weights)[0]
    activity = machine.run(conv)
    # 8 cycles of 2 lanes, all of which hold an element of a group; 5 weights meet 2 windows.
    assert activity.cycles == 8
    assert {cause: count for cause, count in activity.slots.items() if count} == {"effectual": 10, "ineffectual": 6}
    weights[0, 1, 0, 0] = True
    assert machine.run(lower_tensors(g, "fwd", np.ones((1, 6, 1, 3), bool), weights)[0]).cycles == 12


@pytest.mark.parametrize("which", PASSES)
@given(machine=structureds(), layer=layers())
@settings(max_examples=80, deadline=None)
def test_structured_sparsity_lies_between_its_ratio_and_dense(which, machine, layer):
    shape = {key: getattr(machine, key) for key in DaDianNao.model_fields if key != "model"}
    dense = DaDianNao(model="dadiannao", **shape)
    for conv in lower(layer, which, strided=machine.strided_input_grad):
        assert (
            machine.run(conv).cycles <= dense.run(conv).cycles <= -(-machine.m // machine.n) * machine.run(conv).cycles
        )
        if not machine.has_pattern(conv):
            assert machine.run(conv).cycles == dense.run(conv).cycles


@pytest.mark.parametrize(("bits", "percent"), [(32, 3.125), (16, 6.25), (8, 12.5)])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_zero_value_compression_costs_a_bit_a_value_and_saves_the_zeros(bits, percent, density):
    """cDMA (HPCA 2018): a mask of 32 bits for each 32 values, 3.1 % of values of 32 bits, then the non-zeros alone.

    From that: all zeros shrink ``bits``-fold and nothing more; no zeros cost the masks; whole masks are stored.
    """
    memory = load_section(Memory, "layer-at-a-time.yaml", "memory")
    formats = memory.formats.model_copy(update={"activation": "zvc"})
    memory = memory.model_copy(update={"value_bits": bits, "formats": formats})
    values = np.random.default_rng(0).random((3, 32 * 40)) < density
    operand = measured("activation", "activation", [values], np.arange(3))
    stored, dense = memory.stored_bytes(operand), memory.value_bytes(operand.values)
    assert (stored - memory.value_bytes(operand.nonzeros) == dense * percent / 100).all()
    assert (dense <= stored * bits).all() and (stored <= dense * (1 + percent / 100)).all()
    if density in (0, 1):
        assert (dense == stored * bits).all() if density == 0 else (stored == dense * (1 + percent / 100)).all()
    one = measured("activation", "activation", [np.ones((1, 33), bool)], np.arange(1))
    assert memory.stored_bytes(one) == 8 + 33 * bits // 8


def test_dense_bit_serial_lanes_at_full_length_do_what_as_many_multipliers_as_they_are_worth_do():
    """Loom's and Laconic's counts need no less than the others': one power or bit of 16 × 16."""
    g = Geometry(64, 8, 8, 256, (1, 1))
    longest = np.full(g.activation_shape(1), -1.0), np.ones(g.weight_shape)
    conv = lower_tensors(g, "fwd", *longest)[0]
    for name in ("stripes", "shapeshifter", "tclp"):
        assert shipped(name).run(conv).cycles == shipped("dadiannao").run(conv).cycles


def test_bit_serial_back_ends_gain_more_than_skipping_weights_alone():
    """ASPLOS 2019 has TCLe ahead of TCLp, and both ahead of skipping weights alone; normal values after a ReLU."""
    g = Geometry(64, 14, 14, 256, (3, 3), padding=(1, 1, 1, 1))
    rng = np.random.default_rng(0)
    acts, weights = np.maximum(rng.normal(size=g.activation_shape(1)), 0), rng.random(g.weight_shape) < 0.3
    conv = lower_tensors(g, "fwd", acts, weights)[0]
    baseline = shipped("dadiannao").run(conv).cycles
    skipping = baseline / shipped("bit-tactical", columns=1).run(conv).cycles
    precise, exact = (baseline / shipped(name).run(conv).cycles for name in ("tclp", "tcle"))
    assert skipping < precise < exact < 16 * skipping


def test_sigma_by_hand():
    """4 multipliers, cuts of 3, loading 2 a cycle. 3 filters of 5 channels, 2 places.

    Cut 0 holds 3 + 2 + 1 = 6 non-zeros: a chunk of 4, 2 cycles to load, and one of 2, 1 cycle, each with 2 columns: 7
    cycles. Cut 1, two channels, holds 1: 1 + 2. Filter 1's are in both chunks of cut 0: 2 + 2 partial sums a column.
    """
    g = Geometry(5, 1, 2, 3, (1, 1))
    weights = np.zeros((3, 5, 1, 1), bool)
    weights[0, :3] = weights[1, :2] = weights[2, 2] = weights[2, 4] = True
    machine = shipped("sigma", multipliers=4, reduction_cut=3, load_width=2)
    activity = machine.run(lower_tensors(g, "fwd", np.ones(g.activation_shape(1), bool), weights)[0])
    assert activity.job_cycles.tolist() == [7, 3]
    assert activity.slots == {"effectual": 14, "ineffectual": 0, "imbalance": (2 + 3) * 2, "load": 4 * 4}
    assert activity.accesses == {
        "multiplications": 14, "accumulator_updates": (2 + 2 + 1) * 2, "weight_buffer_reads": 7,
        "activation_buffer_reads": (3 + 3 + 2) * 2,
    }  # fmt: skip


def test_dstc_by_hand():
    """Tiles of 3 × 2, 2 × 1 at once. 4 places of 2 channels, 3 filters.

    Channel 0: places 0, 1, 2 (2 steps), and 3 (1); filters 0, 1 (2 steps), and 2 (1): (2 + 1)·(2 + 1) = 9 cycles.
    Channel 1: places 0 (1 step), and none; filter 1 (1): 1 cycle. By rows of tiles: 2·3 + 1 and 3.
    """
    g = Geometry(2, 1, 4, 3, (1, 1))
    acts, weights = np.zeros((1, 2, 1, 4), bool), np.zeros((3, 2, 1, 1), bool)
    acts[0, 0] = acts[0, 1, 0, 0] = weights[:, 0] = weights[1, 1] = True
    machine = shipped("dstc", tile_rows=3, tile_columns=2, step_rows=2, step_columns=1)
    activity = machine.run(lower_tensors(g, "fwd", acts, weights)[0])
    assert activity.job_cycles.tolist() == [7, 3]
    assert activity.slots == {"effectual": 13, "ineffectual": 0, "imbalance": 2 * 10 - 13}
