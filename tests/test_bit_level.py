"""Do bit-level machines take the cycles of their rules, and does each slot have its cause?"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import BIT_LEVEL, NEED_VALUES, bit_level
from strategies import layers

from accelsim import laws, load_machine, open_trace
from accelsim.errors import MachineError
from accelsim.hardware import bits
from accelsim.hardware.kernels.presented import presented_terms
from accelsim.hardware.machine import baseline_of
from accelsim.study.compare import compare
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, lower, lower_tensors


@pytest.mark.parametrize("model", BIT_LEVEL)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_cycles_are_those_of_the_rules_a_value_at_a_time(model, data):
    """Values of up to 8 bits, of any sign; one sample and one group, forward."""
    machine = data.draw(bit_level(model)).model_copy(update={"space_to_depth": False})
    layer = data.draw(layers(numbers=True, samples=1, largest=5, channels=4, kernels=2))
    factor = data.draw(st.sampled_from([1, 5, 15]))
    tensors = {name: values * factor for name, values in layer.tensors.items()}
    if data.draw(st.booleans()):
        tensors["activation"] = np.abs(tensors["activation"])
    conv = lower(replace(layer, tensors=tensors), "fwd")[0]
    if conv.groups == 1:
        assert machine.run(conv).cycles == reference_bits.cycles(machine, conv)


@pytest.mark.parametrize("stage", range(5))
def test_powers_of_many_columns_are_dropped_as_those_of_one(stage):
    """Of 300 columns, more than are worked off together, where slots present any place or none."""
    rng = np.random.default_rng(stage)
    words = rng.integers(0, 1 << 17, (6, 300)) & rng.integers(0, 1 << 17, (6, 300))
    presented, executed = rng.integers(-1, 6, (3, 2, 2, 3)), np.array([2, 1, 2])
    found = presented_terms(presented, executed, 2, words.astype(np.uint32), 1 << stage)
    expected = np.zeros((2, 2, 300), int)
    for s, row, t, c in np.ndindex(3, 2, 2, 300):
        if t < executed[s]:
            places = presented[s, row, t]
            lanes = [reference_bits.terms(int(words[p, c]), booth=False) for p in places if p >= 0]
            expected[s // 2, t, c] = max(expected[s // 2, t, c], 1, reference_bits.dropping(lanes, stage))
    assert (found == expected).all()


CONFIGS = Path(__file__).parent.parent / "configs"


def shipped(name, **changes):
    machine = load_machine(f"{name}.yaml").accelerator
    return type(machine).model_validate({**machine.model_dump(), **changes})


def conv_of(acts, weights, shape=None):
    """A 1×1 convolution of windows in a row: activations (C, windows), weights (K, C)."""
    acts, weights = np.array(acts), np.array(weights)
    g = Geometry(len(acts), 1, acts.shape[1], len(weights), (1, 1))
    return lower_tensors(g, "fwd", acts[None, :, None], weights[..., None, None])[0]


TINY = {"tiles": 1, "rows": 1, "columns": 2, "lanes": 2}


def lost(machine, conv):
    return {cause: count for cause, count in machine.run(conv).slots.items() if count}


def test_stripes_by_hand():
    """7, 2, 0 and 1 on two columns of two lanes, one step: 3 bits for all of them.

    4 lanes × 3 cycles. Effectual: 7, 2 and 1; their other bits: 2 + 1 + 0. The zero takes one cycle as a product. What
    is left of 12 − 3 − 3 − 1 are bits that only the widest needs.
    """
    conv = conv_of([[7, 0], [2, 1]], [[1, 1]])
    assert lost(shipped("stripes", **TINY), conv) == {"effectual": 3, "serial": 3, "ineffectual": 1, "precision": 5}
    assert shipped("stripes", **TINY, precision="full").run(conv).cycles == 16
    # With 2 bits a PE a value takes both columns: two steps of 2 cycles.
    assert shipped("stripes", **TINY, pe_width=2, column_bits=3, row_bits=2).run(conv).cycles == 4


@pytest.mark.parametrize("name", ["stripes", "shapeshifter"])
def test_minus_one_is_a_sign_and_a_bit(name):
    """Two cycles, whether the width is the layer's or the column's: one bit of magnitude is worked off at least."""
    machine = shipped(name, **TINY, precision="layer")
    assert lost(machine, conv_of([[-1, 0]], [[1]])) == lost(machine, conv_of([[-2, 0]], [[1]]))
    assert machine.run(conv_of([[-1]], [[1]])).cycles == 2


@pytest.mark.parametrize("name", ["shapeshifter", "pragmatic"])
def test_differences_take_a_bit_more_than_the_layer_s_values(name):
    """−8 and 7 are 4 bits and their difference, 15, is 5: two slices of 4 in a layer that needs one."""
    machine = shipped(name, **TINY, precision="layer", differential=True, pe_width=4, column_bits=8, row_bits=4)
    row = conv_of([[-8, 7, -8]], [[1]])
    result, cycles = machine.replay(row)
    assert result.ravel().tolist() == [-8, 7, -8]
    assert cycles == machine.run(row).cycles


def test_shapeshifter_by_hand():
    """Columns of 7, 2 and of 0, 1: 3 bits and 1 bit; together 3. Negative: −8 is 1000, so 7 is four bits as well."""
    conv = conv_of([[7, 0], [2, 1]], [[1, 1]])
    own = shipped("shapeshifter", **TINY)
    # The second column waits for 2 cycles with its two lanes.
    assert lost(own, conv) == {
        "effectual": 3, "serial": 3, "ineffectual": 1, "precision": 1, "synchronisation": 4,
    }  # fmt: skip
    assert own.run(conv_of([[-8, 0], [7, 1]], [[1, 1]])).cycles == 4
    # 12 and 4 end in two zeros: the bits 1 and 2 of 3.
    assert shipped("shapeshifter", **TINY, minor_bit=True).run(conv_of([[12], [4]], [[1, 1]])).cycles == 2
    # Two steps of 3 and 1, then 1 and 3: a register lets both columns take 4.
    turns = conv_of([[7, 1], [0, 0], [1, 7], [0, 0]], [[1, 1, 1, 1]])
    assert [shipped("shapeshifter", **TINY, column_registers=r).run(turns).cycles for r in (0, 1)] == [6, 4]
    # Diffy: 100, 101 and 103 are 7 bits, then 1 and 2, all with a sign.
    row = conv_of([[100, 101, 103]], [[1]])
    keys = {**TINY, "columns": 1, "column_registers": 0}
    assert shipped("shapeshifter", **keys).run(row).cycles == 21
    assert shipped("shapeshifter", **keys, differential=True).run(row).cycles == 8 + 2 + 3


def test_loom_by_hand():
    """Activations of 3 bits at most, weights of 2: 6 cycles; two bits of an activation at a time, 4."""
    conv = conv_of([[7, 0], [2, 1]], [[3, 1]])
    assert [shipped("loom", **TINY, pe_serial_bits=n).run(conv).cycles for n in (1, 2)] == [6, 4]
    two_steps = conv_of([[7, 0], [7, 0], [7, 0], [7, 0]], [[3, 3, 1, 1]])
    assert [shipped("loom", **TINY, dynamic_weights=d).run(two_steps).cycles for d in (False, True)] == [12, 9]


def test_pragmatic_by_hand():
    """31 is 32 − 1, 5 is 4 + 1; lanes that share a shift of 2 bits drop 1 and 1, then 4, then 32.

    In the first cycle both lanes drop their 1 and in the second the lowest is 4: 32 lies 3 above it, within reach of 4.
    """
    conv = conv_of([[31], [5]], [[1, 1]])
    assert shipped("pragmatic", **TINY, booth_encoding=False).run(conv).cycles == 5
    assert [shipped("pragmatic", **TINY, bits_first_stage=n).run(conv).cycles for n in (1, 2)] == [3, 2]
    assert lost(shipped("pragmatic", **TINY | {"columns": 1}), conv) == {"effectual": 2, "serial": 2}
    # 1 and 128, not within reach of each other, take two cycles.
    assert shipped("pragmatic", **TINY).run(conv_of([[1], [128]], [[1, 1]])).cycles == 2


def test_laconic_by_hand():
    """5 times 3 is 2 times 2 powers, 1 times 1 one: all wait for 4."""
    conv = conv_of([[5], [1]], [[3, 1]])
    assert shipped("laconic", **TINY).run(conv).cycles == 4
    assert lost(shipped("laconic", **TINY | {"columns": 1}), conv) == {
        "effectual": 2,
        "serial": 3,
        "synchronisation": 3,
    }
    assert shipped("laconic", **TINY).run(conv_of([[0], [0]], [[3, 1]])).cycles == 1


def test_bit_tactical_s_back_ends_by_hand():
    """2 filters of 2 channels on 2 rows of 2 lanes, one column; window 0 holds 127 and 6, 1: 5 and 0, 2: 0 and 64.

    Filter 0 has both weights, so each window takes its longest value. Bits: 7, 3, 7, and 1 for a window of zeros. Bits
    set: 7, 2, 1, 1. Powers of two with subtraction: 127 = 128 − 1 takes 2, as do 5 and 6: 2, 2, 1, 1.
    """
    conv = conv_of([[127, 5, 0, 0], [6, 0, 64, 0]], [[1, 1], [0, 1]])
    shape = {"tiles": 1, "rows": 2, "columns": 1, "lanes": 2}
    assert shipped("tclp", **shape).run(conv).cycles == 7 + 3 + 7 + 1
    assert [shipped("tcle", **shape, booth_encoding=b).run(conv).cycles for b in (False, True)] == [11, 6]
    # Of 18·4 slots 18 have no weight. Products: 127·1, 6·2, 5·1, 64·2 need 7 + 2·3 + 3 + 2·7 cycles, the first of each
    # effectual; six with a zero take one; what is left are bits of wider values.
    assert lost(shipped("tclp", **shape), conv) == {
        "effectual": 6, "serial": 24, "ineffectual": 6, "lookahead": 18, "precision": 72 - 54,
    }  # fmt: skip
    # A filter without the first weight: its slot shows 127 to the column all the same.
    other = conv_of([[127], [1]], [[0, 1]])
    assert [shipped("tclp", **TINY, empty_slots=e).run(other).cycles for e in ("present", "silent")] == [7, 1]
    # Tiles go on together, line by line: 7 and 1, then 1 and 7 bits take 14, not 8.
    lines = conv_of([[127], [127]], [[1, 0], [0, 1]])
    apart = {"tiles": 2, "rows": 1, "columns": 1, "lanes": 1, "search_shape": "L", "lookahead_h": 0, "lookaside_d": 0}
    apart |= {"staggered_linear": False}
    assert shipped("tclp", **apart, empty_slots="silent").run(lines).cycles == 7 + 7


def test_the_steps_of_a_linear_layer_are_dealt_to_the_columns():
    """Four steps of 3 cycles to two places: begun at 0, 1, 3 and 4, the last ends at 7. Else one after another."""
    g = Geometry(8, 1, 1, 1, (1, 1))
    conv = lower_tensors(g, "fwd", np.full(g.activation_shape(1), 7), np.ones(g.weight_shape, int))[0]
    for name in ("stripes", "shapeshifter", "pragmatic"):
        keys = {**TINY, "staggered_linear": True} | ({"booth_encoding": False} if name == "pragmatic" else {})
        assert shipped(name, **keys).run(conv).cycles == 7
        assert shipped(name, **keys | {"staggered_linear": False}).run(conv).cycles == 12


@pytest.mark.parametrize("bits_", [8, 16])
def test_numbers_become_integers_by_the_greatest_of_their_tensor(bits_):
    top = (1 << (bits_ - 1)) - 1
    values = np.array([2.0, -2.0, 1.0, -1e-9, 0.0])
    assert bits.fixed_point(values, values, bits_, "column_bits").tolist() == [top, -top, round(top / 2), -1, 0]
    # A part of a tensor keeps the whole tensor's scale, however it was lowered.
    assert bits.fixed_point(values[2:], values, bits_, "column_bits").tolist() == [round(top / 2), -1, 0]
    whole = np.arange(-top, top + 1)
    assert bits.fixed_point(whole, whole * 9, bits_, "column_bits").tolist() == whole.tolist()
    with pytest.raises(MachineError, match=rf"accelerator.column_bits: must hold .*, {bits_ + 1} bits, got {bits_}"):
        bits.fixed_point(whole * 2, whole, bits_, "column_bits")
    for wrong in (np.inf, np.nan):
        for make in (lambda v: bits.fixed_point(v, v, bits_, "column_bits"), lambda v: bits.significands(v, "k")):
            with pytest.raises(MachineError, match="must be finite"):
                make(np.array([1.0, wrong]))


def test_the_scale_is_the_whole_tensor_s_though_a_pass_reads_a_part_of_it():
    """A strided 1×1 layer's weight gradient cuts the greatest activation away: the others stay small beside it."""
    g = Geometry(1, 4, 4, 1, (1, 1), stride=(2, 2))
    acts = np.full(g.activation_shape(1), 1.0)
    acts[0, 0, 3, 3] = 64.0
    conv = lower_tensors(g, "weight_grad", acts, np.ones(g.gradient_shape(1)))[0]
    assert conv.input.max() == 1.0
    keys = TINY | {"columns": 1, "lanes": 4, "column_bits": 8, "weight_grad_rows": "gradient"}
    assert shipped("shapeshifter", **keys).run(conv).cycles == 2  # 127 / 64 rounds to 2, two bits


def test_bfloat16_is_worked_on_by_its_significand():
    """Whatever the exponent; rounded to even at the ninth bit."""
    values = np.array([1.0, -0.5, 3.0e-20, 1.9999, 1.00390625, 1.01171875, 0.0])
    expected = [128, -128, 142, 128, 128, 130, 0]
    assert bits.significands(values, "column_bits").tolist() == expected
    conv = conv_of([[2.0**40], [0.0]], [[1.0, 1.0]])
    assert shipped("shapeshifter", **TINY, number_format="bfloat16").run(conv).cycles == 8
    assert shipped("shapeshifter", **TINY, number_format="bfloat16", minor_bit=True).run(conv).cycles == 1
    assert shipped("pragmatic", **TINY, number_format="bfloat16").run(conv).cycles == 1


def test_recoded_words_are_the_difference_of_their_powers():
    plus, minus = bits.recoding()
    words = np.arange(1 << 16)
    assert (plus.astype(np.int64) - minus == words).all()
    both = bits.powers(words, True)
    assert (np.bitwise_count(both) <= np.bitwise_count(words)).all() and (plus & minus == 0).all()
    for word in (0, 1, 3, 7, 27, 28671, 28672, 65535):
        assert sorted(k for k in range(17) if both[word] >> k & 1) == sorted(reference_bits.terms(word, True))
    assert np.bitwise_count(both[27]) == 4


@pytest.mark.parametrize("name", NEED_VALUES)
def test_a_shipped_machine_is_refused_a_mask_where_it_needs_values(name):
    machine = shipped(name)
    mask = np.ones((1, 4, 3, 3), bool)
    conv = lower_tensors(Geometry(4, 3, 3, 2, (1, 1)), "fwd", mask, np.ones((2, 4, 1, 1), bool))[0]
    with pytest.raises(MachineError, match=f"accelerator.model: {name} needs values of the activation, the trace has"):
        machine.run(conv)


@pytest.mark.parametrize("name", NEED_VALUES)
def test_a_lane_is_worth_as_many_multipliers_as_a_full_product_has_bits(name):
    machine = load_machine(f"{name}.yaml")
    expected = {"loom": 128, "laconic": 256}.get(name, 4096)
    assert baseline_of(machine).accelerator.multipliers == expected


def test_a_machine_too_narrow_for_its_values_is_refused():
    with pytest.raises(ValueError, match="columns: must be 4 or more for values of 16 bits, got 2"):
        shipped("stripes", **TINY, pe_width=4)
    conv = conv_of([[300]], [[1]])
    with pytest.raises(
        MachineError, match=r"accelerator\.column_bits: must hold the integers of the trace, 9 bits, got 8"
    ):
        shipped("stripes", **TINY, column_bits=8).run(conv)


@pytest.mark.parametrize("model", BIT_LEVEL)
def test_each_machine_obeys_the_laws(model):
    small = {"tiles": 2, "rows": 3, "columns": 4, "lanes": 2}
    if model.startswith("tcl"):
        small |= {"search_shape": "L", "lookahead_h": 1, "lookaside_d": 1}
    laws.check(shipped(model, **small), layers=8)


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", NEED_VALUES)
def test_real_numbers_run_in_every_pass(name, which):
    rng = np.random.default_rng(3)
    g = Geometry(5, 6, 6, 7, (3, 3), (2, 2), (1, 1, 1, 1))
    first = rng.normal(size=g.gradient_shape(2) if which == "input_grad" else g.activation_shape(2))
    second = rng.normal(size=g.gradient_shape(2) if which == "weight_grad" else g.weight_shape)
    for number_format in ("fixed", "bfloat16"):
        machine = shipped(name, number_format=number_format)
        for conv in lower_tensors(g, which, first, second):
            activity = machine.run(conv)
            assert activity.slots["effectual"] == conv.effectual and min(activity.slots.values()) >= 0
            assert activity.accesses["bit_operations"] >= activity.accesses["multiplications"]


def test_every_shipped_machine_runs_the_shipped_trace_of_values():
    """One layer of it in all passes; none is refused."""
    machines = [load_machine(file.name) for file in sorted(CONFIGS.glob("*.yaml"))]
    with open_trace("resnet20-int8.npz") as trace:
        comparison = compare(machines, trace, layers="layer3.2.conv1", snapshots="swat80")
    assert not comparison.refused and len(comparison.contenders) == len(machines) > 20
