"""Do SCNN and DCNN follow the rules of docs/model.md, worked by hand and by naive twins?"""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import dcnns, scnns
from strategies import layers

from accelsim.errors import ConfigError
from accelsim.hardware.kernels.queued import _most, _retire
from accelsim.hardware.machine import load_machine, parse_machine
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import lower, lower_tensors


def shipped(name, **changes):
    return load_machine(f"{name}.yaml").accelerator.model_copy(update=changes)


def scnn(**changes):
    """One PE of 4×4 multipliers whose groups have all filters, or as changed."""
    shape = {"pe_rows": 1, "pe_columns": 1, "accumulators": 4096, "group_filters": 64}
    return shipped("scnn", **shape | changes)


def words_of(pairs):
    """Products of each pair for 32 banks as the kernel has them: byte i of word s is bank 4·i + s."""
    loads = np.zeros((len(pairs), 4), np.uint64)
    for pair, counts in enumerate(pairs):
        for number, count in enumerate(counts):
            loads[pair, number % 4] += np.uint64(count) << np.uint64(8 * (number // 4))
    return loads


@given(
    seed=st.integers(0, 2**32 - 1),
    pairs=st.integers(0, 30),
    depth=st.one_of(st.integers(0, 9), st.just(102)),
    most=st.sampled_from([1, 2, 5, 25]),
    busy=st.sampled_from([0.05, 0.3, 1.0]),
    update=st.sampled_from([1, 2, 3]),
)
@settings(max_examples=300, deadline=None)
def test_queues_by_words_are_the_banks_cycle_by_cycle(seed, pairs, depth, most, busy, update):
    """The kernel's rule for a whole pair at once against a twin that moves product by product."""
    rng = np.random.default_rng(seed)
    depth, most = min(depth, 102 // update), min(most, 25 // update)  # the cycles of a bank fit a byte
    counts = rng.integers(0, most + 1, (pairs, 32)) * (rng.random((pairs, 32)) < busy)
    queues = np.zeros((1, 4), np.uint64)
    cycles = 0
    for chunk in np.array_split(counts, 3):  # the queues go on from one call to the next
        cycles += _retire(words_of(update * chunk), len(chunk), queues, 0, update * depth)
    assert cycles + _most(*queues[0]) == reference.banks_with_queues(counts.tolist(), depth, update)


@pytest.mark.parametrize(
    ("depth", "update", "same_banks", "others"),
    [
        (0, 1, 8, 8),
        (1, 1, 8, 7),
        (2, 1, 8, 6),
        (8, 1, 8, 5),
        (0, 2, 16, 16),
        (1, 2, 16, 14),
        (2, 2, 16, 12),
        (8, 2, 16, 9),
    ],
)
def test_queues_by_hand(depth, update, same_banks, others):
    """Two channels of four activations in a row; four weights each. Filters 0, 8, 16, 24 share their banks: 4 products
    for each of 4 banks, and filters 1, 9, 17, 25 share four others.

    The same filters twice: 8 products for each bank, 8 cycles, whatever waits where. Filters of other banks in the
    second channel: their 4 products take 4 cycles from the one in which they are multiplied, which is when all of
    the first four are in their banks or in queues: after 4 cycles without queues, 3 with room for one, 2 with room for
    two, and after the first where there is room for all. A bank that takes a product every other cycle: all of this
    twice, but for the one cycle of multiplying.
    """
    g = Geometry(2, 1, 4, 32, (1, 1))
    acts = np.ones((1, 2, 1, 4), bool)
    counts = []
    for second in (0, 1):
        weights = np.zeros((32, 2, 1, 1), bool)
        weights[0::8, 0] = weights[second::8, 1] = True
        pe, conv = scnn(queue_depth=depth, update_cycles=update), lower_tensors(g, "fwd", acts, weights)[0]
        counts.append(pe.run(conv).cycles)
        assert pe.replay(conv)[1] == counts[-1]
    assert counts == [same_banks, others]


def test_pes_wait_for_each_other_at_the_end_of_a_group_alone():
    """Two PEs, one place each, two channels: the first PE has work in the first channel, the other in the second.

    8 filters, 2 vectors of weights: 2 cycles for a PE in its channel. In a group of 8 both work at the same time: 2
    cycles; in groups of 4, one vector each, they meet after each: 1 + 1. A barrier after a channel would make it 4.
    """
    acts = np.zeros((1, 2, 1, 2), bool)
    acts[0, 0, 0, 0] = acts[0, 1, 0, 1] = True
    conv = lower_tensors(Geometry(2, 1, 2, 8, (1, 1)), "fwd", acts, np.ones((8, 2, 1, 1), bool))[0]
    for filters, jobs in ((8, [2]), (4, [1, 1])):
        activity = scnn(pe_columns=2, group_filters=filters).run(conv)
        assert activity.job_cycles.tolist() == jobs
        assert activity.slots["barrier"] == 0


def test_groups_begin_with_empty_queues():
    """Two groups of four filters that share a bank: 4 products for each bank, 4 cycles each, with room for all."""
    g = Geometry(1, 1, 4, 32, (1, 1))
    weights = np.zeros((32, 1, 1, 1), bool)
    weights[0::4] = True
    conv = lower_tensors(g, "fwd", np.ones((1, 1, 1, 4), bool), weights)[0]
    assert scnn(group_filters=16).run(conv).job_cycles.tolist() == [4, 4]


@given(machine=scnns(), layer=layers())
@settings(max_examples=150, deadline=None)
def test_each_input_has_the_pe_whose_output_tile_is_nearest(machine, layer):
    """clamp(⌊(⌊x/st⌋ − off) / tile⌋, 0, PEs − 1) with off = ⌊(folded − out)/2⌋, one by one."""
    for conv in lower(layer, "fwd"):
        g, edges, tiles = conv.geometry, machine.edges(conv), machine.tile(conv)
        for axis in (0, 1):
            st_, size, out, tile = conv.stride[axis], g.padded[axis], g.output[axis], tiles[axis]
            off = (-(-size // st_) - out) // 2
            expected = [min(max((x // st_ - off) // tile, 0), -(-out // tile) - 1) for x in range(size)]
            owners = np.searchsorted(edges[axis], np.arange(size), side="right") - 1
            assert owners.tolist() == expected


@given(machine=scnns(), layer=layers())
@settings(max_examples=80, deadline=None)
def test_longer_queues_are_never_slower(machine, layer):
    """And no queue makes it faster than pairs of vectors are multiplied."""
    none, own = (machine.model_copy(update={"queue_depth": depth}) for depth in (0, machine.queue_depth))
    for conv in lower(layer, "fwd"):
        assert machine.run(conv).cycles == own.run(conv).cycles <= none.run(conv).cycles
        assert own.run(conv).slots["bank_conflict"] <= none.run(conv).slots["bank_conflict"]


@pytest.mark.parametrize(
    ("changes", "filters"),
    [({}, 3), ({"group_filters": 2}, 2), ({"accumulators": 44}, 2), ({"accumulators": 3}, 1), ({"pe_rows": 8}, 4)],
)
def test_filters_of_a_group_by_hand(changes, filters):
    """A map of 10 × 7 on 4 × 4 PEs, kernel 3 × 2: tiles of 3 × 2, with their halos (3 + 2)·(2 + 1) = 15 partial sums.

    50 hold those of 3 filters; 8 rows of PEs have tiles of 2, 4·3 = 12 partial sums: 4 filters.
    """
    known = {"pe_rows": 4, "pe_columns": 4, "accumulators": 50, "group_filters": 8} | changes
    conv = lower_tensors(
        Geometry(1, 12, 8, 9, (3, 2)), "fwd", np.ones((1, 1, 12, 8), bool), np.ones((9, 1, 3, 2), bool)
    )[0]
    assert scnn(**known).filters_per_group(conv) == filters


@given(machine=dcnns(), layer=layers())
@settings(max_examples=100, deadline=None)
def test_dcnn_takes_its_closed_form(machine, layer):
    """ceil(P/rows)·ceil(Q/columns)·K·R·S·ceil(C/lanes) for each sample, whatever is zero; K of all groups."""
    g = layer.geometry
    tile = -(-g.output[0] // machine.pe_rows) * -(-g.output[1] // machine.pe_columns)
    expected = tile * g.filters * g.kernel[0] * g.kernel[1] * -(-g.weight_shape[1] // machine.lanes) * layer.samples
    assert sum(machine.run(conv).cycles for conv in lower(layer, "fwd")) == expected


def test_dcnn_by_hand():
    """A map of 3 × 5 on 2 × 2 PEs: tiles of 2 × 3 places. 2 filters of 5 channels, 2 vectors of 4: 2·3·2·2 cycles.

    Of 24·16 slots 3·5·2·5 hold a product. In the weight gradient the 5 channels go to 4 PEs: 2 turns of 2 filters of 15
    places, 4 vectors: 16 cycles.
    """
    g = Geometry(5, 3, 5, 2, (1, 1))
    dcnn = shipped("dcnn", pe_rows=2, pe_columns=2, lanes=4)
    acts, weights = np.ones(g.activation_shape(1), bool), np.zeros(g.weight_shape, bool)
    activity = dcnn.run(lower_tensors(g, "fwd", acts, weights)[0])
    assert activity.job_cycles.tolist() == [24]
    assert activity.slots == {"effectual": 0, "ineffectual": 150, "edge": 24 * 16 - 150}
    gradient = lower_tensors(g, "weight_grad", acts, np.ones(g.gradient_shape(1), bool))[0]
    assert dcnn.run(gradient).cycles == 16


def test_products_that_a_byte_cannot_count_are_refused():
    keys = load_machine("scnn.yaml").resolved()
    keys["accelerator"]["queue_depth"] = 112
    with pytest.raises(ConfigError, match=r"must be at most 127, got \(4 × 4 \+ 112\) × 1"):
        parse_machine(keys, "scnn.yaml")
