"""Is what is where decided, and are transfers planned, as docs/memory.md says: as naive twins do, and by hand?"""

import numpy as np
import pytest
import reference_placement
import reference_plan
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from memories import CLOCK_MHZ, cases, orders, tight_cases
from reference_memory import plain

from accelsim.errors import MachineError
from accelsim.hardware.movement.demand import Capacities, LayerDemand, OperandDemand, demands
from accelsim.hardware.movement.placement import place, settled

MANY = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


# The twins


def told(number, name, *sizes, demand, capacities):
    """What a refusal says."""
    if name == "buffers":
        each = " and ".join(f"{o.buffer} {n:,}" for o, n in zip(demand[number].operands, sizes, strict=True))
        return f"{demand[number].name}: buffers: one operand's part must fit its buffer, they need {each} bytes"
    rule = f"must hold {sizes[0]:,} bytes for a single job, got {capacities[name]:,}"
    return f"{demand[number].name}: memory.{name}.capacity_bytes: {rule}"


def listed(moves, sizes):
    """Moves as the twin lists them."""
    columns = moves.job, moves.part, moves.until, sizes
    return [tuple(int(x) for x in row) for row in zip(*columns, strict=True)]


def agree(demand, capacities, asked):
    """The decisions, made twice; what is asked is given in both forms. Returns them, or None where refused."""
    memories, buffers = dict(capacities.memories), dict(capacities.buffers)
    try:
        naive = reference_placement.decided(asked, memories, buffers, capacities.piece_bytes)
    except reference_placement.Refused as refused:
        with pytest.raises(MachineError) as caught:
            place(demand, capacities)
        assert str(caught.value) == told(*refused.args, demand=demand, capacities=memories)
        return None
    made = place(demand, capacities)
    assert len(made) == len(naive)
    for layer, ours, twin in zip(demand, made, naive, strict=True):
        assert (ours.kept, ours.leaving_bytes) == (twin.kept, twin.leaving)
        for operand, one, other in zip(layer.operands, ours.operands, twin.operands, strict=True):
            assert (one.loads.held, one.found) == (other.held, other.found)
            assert listed(one.loads.moves, one.loads.size_bytes) == other.loads
            if one.found:
                assert one.fetches is None
                continue
            used = {part for _, part, _, _ in other.loads}
            assert {int(p) for p in np.flatnonzero(one.stays)} & used == other.stays
            assert listed(one.fetches, operand.stored_bytes[one.fetches.part]) == other.fetches
            assert one.fetches.made.tolist() == other.made
    return made


def as_lists(demand):
    """What is asked, as the twin takes it."""
    layers = [
        reference_placement.AskedByLayer(
            [
                reference_placement.Asked(
                    o.tensor, o.buffer, o.memory, o.part.tolist(), o.stored_bytes.tolist(), o.inside_bytes.tolist(),
                    o.streamed_bytes.tolist(),
                )
                for o in layer.operands
            ],
            layer.result_memory, layer.result_bytes.tolist(), layer.spilled_bytes.tolist(), layer.reads_result,
            layer.crossed, layer.samples, layer.batch, layer.summed, layer.weight_share, layer.sums_bytes,
        )
        for layer in demand
    ]  # fmt: skip
    for ours, layer in zip(layers, demand, strict=True):
        (ours.in_groups,) = as_lists([layer.in_groups]) if layer.in_groups else (None,)
    return layers


@MANY
@given(cases())
def test_bytes_are_asked_for_as_the_twin_counts_them(case):
    made = demands(case.memory, list(case.layers))
    assert as_lists(made) == reference_placement.asked(case.memory, case.layers)


@MANY
@given(st.one_of(cases(), tight_cases()))
def test_decisions_agree_with_the_twin(case):
    capacities = Capacities.of(case.memory, case.buffers, case.piece_bytes)
    asked = reference_placement.asked(case.memory, case.layers)
    walked = settled(demands(case.memory, list(case.layers)), capacities)
    twins = reference_placement.in_groups_or_not(asked, dict(capacities.memories), case.piece_bytes)
    assert as_lists(walked) == twins
    agree(walked, capacities, twins)


@st.composite
def asked_operands(draw, tensor, buffer, memory, jobs):
    parts = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(0, 12), min_size=parts, max_size=parts))
    inside = [draw(st.integers(0, size)) for size in sizes]
    part = draw(orders(parts, jobs))
    part[0] = max(0, part[0])
    streamed = [0 if p < 0 else draw(st.sampled_from([sizes[p], sizes[p], 0, 30])) for p in part]
    arrays = (np.array(column, np.int64) for column in (part, sizes, inside, streamed))
    return OperandDemand(tensor, buffer, memory, *arrays)


def written_out(operand, samples):
    """An operand of one sample's parts as a batch has it: every job once for each sample, with parts of its own."""
    part = [p * samples + n if p >= 0 else -1 for p in operand.part.tolist() for n in range(samples)]
    sizes = (np.repeat(column, samples) for column in (operand.stored_bytes, operand.inside_bytes,
                                                       operand.streamed_bytes))  # fmt: skip
    return OperandDemand(operand.tensor, operand.buffer, operand.memory, np.array(part, np.int64), *sizes)


@MANY
@given(data=st.data(), samples=st.integers(2, 4), buffer=st.integers(0, 40))
def test_a_weight_gradient_together_moves_what_its_batch_written_out_does(data, samples, buffer):
    """Of one sample, decided for all; and all samples' jobs in turn: the same stays, but for some samples' copies of
    one more part, which may have room there."""
    jobs = data.draw(st.integers(1, 9))
    operands = [data.draw(asked_operands(name, name, "activation_memory", jobs)) for name in ("activation", "weight")]
    least = sum(int(o.stored_bytes[o.part[o.part >= 0]].max()) for o in operands)
    room = least + data.draw(st.integers(0, 100))
    sizes = (("activation_memory", room), ("weight_memory", 1)), (("activation", buffer), ("weight", buffer)), 4
    nothing = np.zeros(jobs, np.int64)
    one = LayerDemand("one", tuple(operands), "weight_memory", nothing, nothing, summed=(1, samples))
    many, none = tuple(written_out(o, samples) for o in operands), np.repeat(nothing, samples)
    every = LayerDemand("every", many, "weight_memory", none, none)
    ours, whole = (place((layer,), Capacities(*sizes))[0] for layer in (one, every))
    most = [(samples - 1) * jobs * int(operand.stored_bytes.max()) for operand in operands]
    both = list(zip(ours.operands, whole.operands, strict=True))
    spared = [samples * int(a.loads.size_bytes.sum()) - int(b.loads.size_bytes.sum()) for a, b in both]
    assert all(0 <= less <= limit for less, limit in zip(spared, most, strict=True))
    if any(spared) or any(a.loads.held != b.loads.held for a, b in both):
        return  # of what buffers load otherwise memories hold something else
    for operand, of_all, (a, b), limit in zip(operands, many, both, most, strict=True):
        mine, theirs = (int(o.stored_bytes[x.fetches.part].sum()) for o, x in ((operand, a), (of_all, b)))
        assert 0 <= samples * mine - theirs <= limit
        assert not a.stays[a.loads.moves.part].all() or samples * mine == theirs


@st.composite
def asked_layers(draw, number):
    jobs = draw(st.integers(1, 9))
    backwards = draw(st.booleans())
    memories = ("activation_memory", "activation_memory" if backwards else "weight_memory")
    names = zip(("activation", "weight"), ("activation", "weight"), memories, strict=True)
    operands = tuple(draw(asked_operands(*of, jobs)) for of in names)
    result = np.array(draw(st.lists(st.integers(0, 9), min_size=jobs, max_size=jobs)), np.int64)
    spilled = np.array(draw(st.lists(st.sampled_from([0, 0, 0, 3]), min_size=jobs, max_size=jobs)), np.int64)
    reads = draw(st.sampled_from([0, 0, -1])) if number else -1
    place = "weight_memory" if draw(st.integers(0, 4)) == 0 else "activation_memory"
    return LayerDemand(f"layer{number}", operands, place, result, spilled, reads, draw(st.integers(0, 4)) == 0,
                       1, draw(st.sampled_from([1, 1, 2, 3])),
                       draw(st.sampled_from([(1, 1), (1, 1), (1, 3), (2, 5), (4, 4)])))  # fmt: skip


@st.composite
def asked_passes(draw):
    """A few layers that use the memory of their results, whatever it is, as a pass does."""
    layers = [draw(asked_layers(number)) for number in range(draw(st.integers(1, 4)))]
    place = layers[0].result_memory
    return tuple(
        LayerDemand(x.name, x.operands, place, x.result_bytes, x.spilled_bytes,
                    x.reads_result if place == "activation_memory" else -1, x.crossed,
                    x.samples, x.batch, x.summed)
        for x in layers
    )  # fmt: skip


@settings(MANY, max_examples=600)
@given(layers=asked_passes(), memories=st.tuples(*[st.integers(10, 90)] * 2),
       buffers=st.tuples(*[st.integers(0, 40)] * 2), piece=st.integers(1, 12))  # fmt: skip
def test_decisions_agree_where_room_is_tight(layers, memories, buffers, piece):
    """Asked directly: no traffic, no machine; capacities about what the layers need."""
    capacities = Capacities(
        tuple(zip(("activation_memory", "weight_memory"), memories, strict=True)),
        tuple(zip(("activation", "weight"), buffers, strict=True)), piece,
    )  # fmt: skip
    agree(layers, capacities, as_lists(layers))


@MANY
@given(st.one_of(cases(), tight_cases()))
def test_each_transfer_waits_for_what_the_rules_say_and_no_more(case):
    """The plan, transfer by transfer, as a naive planner makes it."""
    try:
        plan = case.plan()
    except MachineError:
        reject()
    naive = reference_plan.Plan(case, CLOCK_MHZ).planned()
    plan = plain(plan)
    assert plan.stores_needed == naive.stores_needed
    assert list(plan.streams) == list(naive.streams)
    for name, stream in plan.streams.items():
        for number, transfer in enumerate(naive.streams[name]):
            needs = {of: counts[number] for of, counts in stream.needs.items() if counts[number]}
            ours = stream.job[number], stream.size[number], stream.ticks[number], needs
            wanted = {of: count for of, count in transfer.needs.items() if count}
            assert ours == (transfer.job, transfer.size, transfer.ticks, wanted), (name, number)
        assert len(stream.job) == len(naive.streams[name])


# By hand: what stays, what spills


def asks(part, sizes, *, tensor="activation", streamed=None, inside=None):
    """An operand in the activation memory."""
    columns = part, sizes, sizes if inside is None else inside, streamed or [sizes[p] if p >= 0 else 0 for p in part]
    return OperandDemand(tensor, "activation" if tensor == "activation" else "weight", "activation_memory",
                         *(np.array(column, np.int64) for column in columns))  # fmt: skip


def asks_layer(*operands, result, spilled=None, reads=-1, crossed=False):
    sums = [0] * len(result) if spilled is None else spilled
    arrays = np.array(result, np.int64), np.array(sums, np.int64)
    return LayerDemand("layer", operands, "activation_memory", *arrays, reads, crossed)


def decides(layers, capacity, *, piece=4, buffer=0):
    """Places layers in an activation memory of so many bytes."""
    sizes = (("activation_memory", capacity), ("weight_memory", 1)), (("activation", buffer), ("weight", buffer)), piece
    return place(tuple(layers), Capacities(*sizes))


# capacity of the memory → bytes of results that stay or pass, whether they stay, bytes fetched; layer by layer
RESULTS = {
    # Beside layer 0's own 4 bytes its 20 need 24; beside what layer 1 cannot do without, 6 of sums and a piece, 30.
    31: [(20, True, 4), (5, False, 0)],
    # What layer 1 leaves passes through the 4 bytes that are left.
    30: [(20, True, 4), (4, False, 0)],
    # The 20 pass through: all that is free where both layers' parts and results stay, 29 − (20 + 5) = 4, or two pieces,
    # 8, where layer 1's least, a part, sums and a piece, leaves that: 29 − 14. So 8; layer 1 has 29 − 8 − 6 for its 5
    # bytes and two parts, which is not enough for a third: each is fetched twice.
    29: [(8, False, 4), (5, False, 40)],
    # 21 − 14 = 7, and 21 − 7 − 6 − 4 = 4.
    21: [(7, False, 4), (4, False, 40)],
    # A piece at least, 4, beside which layer 1 has its 14; of its own 5 it passes a piece at a time.
    18: [(4, False, 4), (4, False, 40)],
}


def results_by_hand(capacity):
    """Layer 0 reads 4 bytes and leaves 20; layer 1 reads them in five parts, twice, spills 6 and leaves 5; pieces of
    4."""
    first = asks_layer(asks([0], [4]), result=[20])
    sweeps = asks([0, 1, 2, 3, 4] * 2, [4] * 5)
    return decides([first, asks_layer(sweeps, result=[0] * 9 + [5], spilled=[6] + [0] * 9, reads=0)], capacity)


@pytest.mark.parametrize("capacity", RESULTS)
def test_where_results_go_by_hand(capacity):
    made = results_by_hand(capacity)
    fetched = [0 if layer.operands[0].found else 4 * layer.operands[0].fetches.part.size for layer in made]
    assert [(x.leaving_bytes, x.kept, n) for x, n in zip(made, fetched, strict=True)] == RESULTS[capacity]


def test_a_byte_less_than_the_least_is_refused():
    """The last case above: beside the piece that layer 0 passes layer 1 needs a part, its sums and a piece."""
    with pytest.raises(MachineError, match=r"must hold 18 bytes for a single job, got 17"):
        results_by_hand(17)


# capacity → how many of five parts of 4 bytes, read in turn, twice, stay in a buffer
BUFFERED = {20: 5, 19: 2, 16: 2, 15: 1, 12: 1, 11: 0, 8: 0, 4: 0}


@pytest.mark.parametrize("capacity", BUFFERED)
def test_what_stays_in_a_buffer_by_hand(capacity):
    """All, in 20 bytes; else what leaves room for two more: in 19 two, 8 + 8; in 15 one, 4 + 8; in 11 none, though
    two would fit. What stays is loaded once, the rest twice."""
    (layer,) = decides([asks_layer(asks([0, 1, 2, 3, 4] * 2, [4] * 5), result=[0] * 10)], 100, buffer=capacity)
    loads = layer.operands[0].loads
    assert loads.held
    assert loads.moves.part.tolist() == [0, 1, 2, 3, 4, *range(BUFFERED[capacity], 5)]
    # Those that stay are held to their last job, the others through their own.
    stay = BUFFERED[capacity]
    firsts, seconds = [*range(5, 5 + stay), *range(stay, 5)], [*range(5 + stay, 10)]
    assert loads.moves.until.tolist() == firsts + seconds


# parts read, bytes that pass by in each job, capacity of the buffer → whether it holds parts of 4 bytes
STREAMED = [
    ([0, 1, 0], 4, 4, True),  # 3 loads of 4: as many as pass by, 3 × 4
    ([0, 1, 0], 4, 3, False),  # no part fits
    ([0, 1, 0], 3, 4, False),  # 9 pass by, 12 would be loaded
    ([0, 0, 1], 3, 4, True),  # what is read twice in a row is loaded once: 8 against 9
    ([0, 0, 1], 2, 4, False),  # 8 against 6
    ([0, -1, 0], 2, 4, True),  # no other part comes between: 4 against 4
]


@pytest.mark.parametrize(("part", "streamed", "capacity", "held"), STREAMED)
def test_what_streams_by_hand(part, streamed, capacity, held):
    bytes_of = [streamed if p >= 0 else 0 for p in part]
    one = asks_layer(asks(part, [4, 4], streamed=bytes_of), result=[0] * 3)
    (layer,) = decides([one], 100, buffer=capacity)
    assert layer.operands[0].loads.held == held


# capacity → of four parts of 4 bytes and of three parts of 3, both read in turn, twice, how many stay
SHARED = {
    25: (4, 3),  # 9 + 16
    24: (1, 3),  # 9, and room for two parts of 4; of the 7 bytes more a part takes 4
    21: (1, 3),  # 9 + 8 + 4
    20: (0, 3),
    17: (0, 3),  # 9 + 8
    16: (0, 3),  # 9, and room for a part of 4, if not for two
    13: (0, 3),
    12: (0, 0),  # room for one part of each, 7, and 5 bytes of the 6 more that the small one lacks
    7: (0, 0),  # room for one of each
}


@pytest.mark.parametrize("capacity", SHARED)
def test_what_stays_in_a_memory_by_hand(capacity):
    """The smaller operand first, whole; of the other the earliest parts; the rest is fetched in each sweep."""
    large = asks([0, 1, 2, 3] * 2 + [-1] * 6, [4] * 4)
    small = asks([-1] * 8 + [0, 1, 2] * 2, [3] * 3, tensor="gradient")
    for operands in ((large, small), (small, large)):
        (layer,) = decides([asks_layer(*operands, result=[0] * 14)], capacity)
        stays = {o.tensor: placed for o, placed in zip(operands, layer.operands, strict=True)}
        kept = tuple(int(stays[tensor].stays.sum()) for tensor in ("activation", "gradient"))
        assert kept == SHARED[capacity]
        assert stays["activation"].fetches.part.tolist() == [0, 1, 2, 3, *range(kept[0], 4)]


@MANY
@given(data=st.data())
def test_more_room_never_fetches_more_of_two_operands(data):
    operands = [data.draw(asked_operands(name, name, "activation_memory", 9)) for name in ("activation", "weight")]
    layer = LayerDemand("layer", tuple(operands), "weight_memory", np.zeros(9, np.int64), np.zeros(9, np.int64))
    least = sum(int(o.stored_bytes[o.part[o.part >= 0]].max()) for o in operands)
    before = None
    for capacity in range(least, least + 60):
        sizes = (("activation_memory", capacity), ("weight_memory", 1)), (("activation", 0), ("weight", 0)), 4
        (made,) = place((layer,), Capacities(*sizes))
        fetched = sum(int(o.stored_bytes[x.fetches.part].sum()) for o, x in zip(operands, made.operands, strict=True))
        assert before is None or fetched <= before
        before = fetched


def test_no_byte_less_than_the_least_would_do():
    large, small = asks([0, 1], [4, 4]), asks([0, 1], [3, 3], tensor="gradient")
    with pytest.raises(MachineError, match=r"must hold 7 bytes for a single job, got 6"):
        decides([asks_layer(large, small, result=[0] * 2)], 6)
