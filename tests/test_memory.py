"""Is the memory replayed as docs/memory.md says: as its naive twin does, with no byte lost, and as the laws demand?"""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import machines as random_machines
import numpy as np
import pytest
import reference_memory
import strategies
from hypothesis import HealthCheck, assume, given, reject, settings
from hypothesis import strategies as st
from memories import CLOCK_MHZ, Case, cases, direct_plan, events, offchips

from accelsim import ledger, load_machine, open_trace
from accelsim.errors import MachineError
from accelsim.hardware.hierarchy import PRESETS, Buffer, Buffers, Formats, Memory, OffChip, OnChip
from accelsim.hardware.movement import replay_simpy
from accelsim.hardware.movement.plan import STALLS, Plan, Replay, Stream
from accelsim.hardware.movement.planner import Planner
from accelsim.hardware.movement.port import TICKS
from accelsim.hardware.movement.replay import longest, replay
from accelsim.hardware.movement.residency import Visits
from accelsim.hardware.movement.traffic import LayerTraffic, Operand, Traffic, in_order
from accelsim.pipeline import PASSES, Task, simulate_records
from accelsim.workload.geometry import Geometry
from accelsim.workload.trace import Snapshot

SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
# Each of them is better when it is larger, or smaller where the factor says so; none changes the plan's transfers.
FASTER = {
    "offchip.megabytes_per_second": 2,
    "offchip.channels": 2,
    "offchip.latency_ns": 0,
    "offchip.refresh_ns": 0,
    "offchip.read_to_write_ns": 0,
    "offchip.write_to_read_ns": 0,
    "activation_memory.width_bytes": 2,
    "activation_memory.latency_cycles": 0,
    "weight_memory.width_bytes": 3,
    "weight_memory.latency_cycles": 0,
}
FREER = {"buffers.activation.ports": 2, "buffers.weight.ports": 2, "buffers.accumulator_sets": 2}


def planned(case):
    """The plan, or another example where the machine is refused."""
    try:
        return case.plan()
    except MachineError:
        reject()


def logged(plan):
    """A replay and what an observer was told of transfers and jobs, in order; stalls are in the replay's result.

    SimPy's tells it, and the compiled one has said the same.
    """
    log = []
    replayed = replay_simpy.replay(plan, lambda *what: log.append(what))
    assert same(replayed, replay(plan))
    assert sorted(event for event in log if event[0] != STALLS) == events(plan)
    told = Counter()
    for where, cause, _, start, end in log:
        told[cause] += end - start if where == STALLS else 0
    assert +told == sum((Counter(lost) for lost in replayed.stalls), Counter())
    return replayed, sorted(event for event in log if event[0] != STALLS)


def same(replayed, other):
    """Whether two replays say the same, down to the order in which layers came to wait for each cause."""
    return replayed == other and list(map(list, replayed.stalls)) == list(map(list, other.stalls))


def agree(replayed, log, twin):
    """Whether a replay and its twin say the same."""
    return (
        replayed.ends == twin.ends
        and [Counter(lost) for lost in replayed.stalls] == [Counter(lost) for lost in twin.stalls]
        and log == twin.log
    )


@st.composite
def chains(draw):
    """A few real layers, most of which feed the next, on any machine, as a pass executes them."""
    machine = SimpleNamespace(
        name="any",
        memory=True,
        clock_mhz=1,
        overheads=None,
        accelerator=draw(
            st.one_of(
                random_machines.accelerators(),
                random_machines.pe_arrays().map(
                    lambda array: array.model_copy(update={"accumulators": 7, "spill_partial_sums": True})
                ),
            )
        ),
    )
    layers = [draw(strategies.layers(numbers=True, largest=5, channels=4))]
    for _ in range(draw(st.integers(0, 2))):
        last, rng = layers[-1], np.random.default_rng(len(layers))
        height, width = last.geometry.output
        kernel = min(3, height), min(2, width)
        size = last.geometry.filters, height, width, draw(st.integers(1, 4)), kernel
        geometry = Geometry(*size, stride=(draw(st.integers(1, 2)), 1))
        shapes = {
            "weight": geometry.weight_shape,
            "activation": geometry.activation_shape(last.samples),
            "gradient": geometry.gradient_shape(last.samples),
        }
        tensors = {name: rng.integers(1, 9, shape) * (rng.random(shape) < 0.5) for name, shape in shapes.items()}
        layers.append(replace(last, geometry=geometry, tensors=tensors))
    which = draw(st.sampled_from(PASSES))
    batch = layers[0].samples * draw(st.sampled_from([1, 3]))
    layers = [replace(layer, batch=batch) for layer in layers]
    snapshot = Snapshot("any", 0.0, 0, "any", batch, tuple(layers))
    moved = []
    for position, layer in enumerate(layers):
        layer = replace(layer, name=f"layer{position}")
        counted = Task(snapshot, layer, position, (which,)).run([machine])[0][0]
        moved += [counted.traffic] if counted.traffic else []
    return tuple(moved if which == "fwd" else moved[::-1])


@SLOW
@given(cases())
def test_the_replay_agrees_with_its_twin_to_the_cycle(case):
    plan = planned(case)
    assert agree(*logged(plan), reference_memory.replay(plan, case.memory.offchip))


@settings(SLOW, max_examples=150)
@given(seed=st.integers(0, 1 << 32), offchip=st.one_of(st.just(OffChip(preset="unlimited")), offchips()))
def test_plans_that_no_planner_makes_are_replayed_alike(seed, offchip):
    """More is ready at once in them: a port that takes one transfer of no time a turn, sees in its turn what that
    brought, or goes before another would pass the tests of planned ones.
    """
    plan = direct_plan(np.random.default_rng(seed), offchip)
    assert agree(*logged(plan), reference_memory.replay(plan, offchip))


def tied(*streams):
    """A plan of a job that takes no time, with transfers (name, port, job, cycles, needs) of no latency."""
    made = {}
    for name, port, job, cycles, needs in streams:
        column = np.array([cycles], np.int64)
        waits = {of: np.array([count]) for of, count in needs.items()}
        made[name] = Stream(name, port, "result" if name in ("store", "write") else name.split()[1], 0, "",
                            np.array([job]), column, column * TICKS, waits, np.array([-1]))  # fmt: skip
    nothing = np.zeros(0, np.int64)
    for name, port in (("store", "activation_memory"), ("write", "offchip")):
        made.setdefault(name, Stream(name, port, "result", 0, "", nothing, nothing, nothing, {}, nothing))
    one = np.array([1])
    return Plan(["layer"], one, 0 * one, made, {}, 0 * one, [], {})


@pytest.mark.parametrize("first", ["activation", "weight"])
def test_of_what_came_at_the_same_time_the_last_by_name_is_told_by_hand(first):
    """A job's load waits for two fetches that arrive in cycle 3: so the weight's is what PEs waited for."""
    second = {"activation": "weight", "weight": "activation"}[first]
    fetches = [(f"fetch {name}", "offchip", 0, 0, {}) for name in (first, second)]
    needs = {"fetch weight": 1, "fetch activation": 1}
    plan = tied(*fetches, ("load activation", "activation_memory", 0, 1, needs))
    late = {name: replace(plan.streams[name], latency=3) for name in needs}
    plan = replace(plan, streams=plan.streams | late, load_of_job={"load activation": np.array([0])})
    replayed, log = logged(plan)
    assert agree(replayed, log, reference_memory.replay(plan, OffChip(preset="unlimited")))
    assert replayed == Replay([4], [{"offchip_weight": 3, "onchip_activation": 1}])


def starts(plan):
    twin = reference_memory.replay(plan, OffChip(preset="unlimited"))
    replayed, log = logged(plan)
    assert agree(replayed, log, twin)
    return {name: start for _, name, _, start, _ in log if name}


def test_what_a_port_brings_in_its_turn_counts_after_it_by_hand():
    """The activation of job 0 comes in no time, and the partial sums of job 0 wait for it; the gradient of job 1 is
    ready in the same turn and goes before them, as they may not start until the turn is over.
    """
    memory = "activation_memory"
    plan = tied(
        ("load activation", memory, 0, 0, {}), ("load gradient", memory, 1, 2, {}),
        ("load partial", memory, 0, 1, {"load activation": 1}),
    )  # fmt: skip
    assert starts(plan) == {"load activation": 0, "load gradient": 0, "load partial": 2}


def test_of_several_free_ports_off_chip_memory_goes_first_by_hand():
    """What it brings in no time is there for the activation memory's choice in the same cycle."""
    plan = tied(
        ("fetch activation", "offchip", 0, 0, {}),
        ("load activation", "activation_memory", 0, 1, {"fetch activation": 1}),
        ("load gradient", "activation_memory", 1, 2, {}),
    )  # fmt: skip
    assert starts(plan) == {"fetch activation": 0, "load activation": 0, "load gradient": 1}


@SLOW
@given(case=cases(), data=st.data())
def test_a_wrong_replay_would_be_noticed(case, data):
    """The comparison above, and the ledger below, fail on a log that is off by little."""
    plan = planned(case)
    replayed, log = logged(plan)
    twin = reference_memory.replay(plan, case.memory.offchip)
    assert agree(replayed, log, twin)
    assert not agree(replace(replayed, ends=[end + 1 for end in replayed.ends]), log, twin)
    assert not agree(replace(replayed, stalls=[{"onchip_weight": 999_999}] * len(replayed.stalls)), log, twin)
    at = data.draw(st.integers(0, len(log) - 1))
    where, name, number, start, end = log[at]
    assert not agree(replayed, [*log[:at], (where, name, number, start, end + 1), *log[at + 1 :]], twin)
    assert reference_memory.recount(case, plan, [*log[:at], ("elsewhere", name, number, start, end), *log[at + 1 :]])
    if name.startswith("load") and start:
        early = [*log[:at], (where, name, number, -9, end - start - 9), *log[at + 1 :]]
        assert reference_memory.recount(case, plan, early)


@settings(SLOW, max_examples=30)
@given(case=cases(layers=chains()))
def test_real_layers_agree_too_and_lose_no_byte(case):
    assume(case.layers)
    plan = planned(case)
    replayed, log = logged(plan)
    assert agree(replayed, log, reference_memory.replay(plan, case.memory.offchip))
    assert reference_memory.recount(case, plan, log) == []


@settings(SLOW, max_examples=120)
@given(cases())
def test_the_ledger_of_a_replay_balances(case):
    """Loads find their parts; no memory or buffer overflows; all that is fetched is used and all that is stored
    leaves or is read; bytes are counted as they move; jobs keep their order and ports make one transfer at a time.
    """
    plan = planned(case)
    assert reference_memory.recount(case, plan, logged(plan)[1]) == []


@pytest.mark.parametrize("harm", ["overflow", "twice", "too much"])
def test_a_ledger_that_does_not_balance_is_noticed(harm):
    case = example()
    plan = case.plan()
    log = logged(plan)[1]
    assert reference_memory.recount(case, plan, log) == []
    if harm == "overflow":
        case = case.change("activation_memory.capacity_bytes", 5)
        assert any("holds" in line for line in reference_memory.recount(case, plan, log))
    elif harm == "twice":
        moved = [(w, n, k, 7, 9) if (n, k) == ("fetch weight", 0) else (w, n, k, s, e) for w, n, k, s, e in log]
        assert any("two at once" in line for line in reference_memory.recount(case, plan, moved))
    else:
        plan.actions[0]["offchip_read_bytes"] += 1
        assert any("offchip_read_bytes" in line for line in reference_memory.recount(case, plan, log))


def busy_cycles(plan):
    """Cycles that each port is kept by transfers."""
    busy = Counter()
    for stream in plan.streams.values():
        busy[stream.port] += sum(stream.ticks) / TICKS
    return busy


def at_most(plan):
    """Cycles of all of a pass in turn: compute, transfers and their latencies, each with a turn of the bus and a burst
    of its own, and the refreshes in that time.
    """
    number = sum(len(stream.job) for stream in plan.streams.values())
    waits = sum(stream.latency * len(stream.job) for stream in plan.streams.values())
    off = plan.offchip
    each = (off.burst + max(off.to_read, off.to_write)) / TICKS + 1
    cycles = sum(plan.job_cycles) + sum(busy_cycles(plan).values()) + waits + number * each
    if not off.interval:
        return cycles
    return cycles + off.refresh / TICKS * (cycles * TICKS // (off.interval - off.refresh) + 1)


def test_times_that_would_wrap_around_are_refused():
    most = (1 << 43) - 3  # and a cycle beside each transfer
    assert replay(tied(("write", "offchip", 0, most, {}))).ends == [most]
    with pytest.raises(MachineError, match=r"memory: a pass must take less than 2\^43 cycles to be exact, may"):
        replay(tied(("write", "offchip", 0, most + 1, {})))
    fast = OffChip(channels=1, megabytes_per_second=1000, burst_bytes=1, latency_ns=0)
    sizes = np.array([1, 7, 3 << 30, 1 << 40])
    assert fast.transfer_ticks(sizes, 606).tolist() == [-(-size * 606 * TICKS // 1000) for size in sizes.tolist()]
    on_chip = OnChip(capacity_bytes=100, banks=1, width_bytes=1, latency_cycles=1)
    for port, of in ((fast, (sizes << 4, 606)), (on_chip, (sizes << 3,))):
        with pytest.raises(MachineError, match=r"memory: a transfer must take less than 2\^43 cycles to be exact"):
            port.transfer_ticks(*of)


@settings(SLOW, max_examples=100)
@given(cases())
def test_no_pass_is_shorter_than_its_work_or_longer_than_all_of_it_in_turn(case):
    """Compute and each port's transfers bound the total from below. At any time before the end PEs work, a port moves
    bytes, or a request's latency passes: from above, all of it one after another. So nothing deadlocks.
    """
    plan = planned(case)
    replayed = replay(plan)
    compute, busy = sum(plan.job_cycles), busy_cycles(plan)
    assert max(compute, *busy.values(), 0) <= replayed.ends[-1] <= at_most(plan)
    assert replayed.ends[-1] <= longest(plan)
    assert replayed.ends == sorted(replayed.ends)
    lasts = np.diff([0, *replayed.ends])
    jobs = np.add.reduceat(plan.job_cycles, [0, *plan.ends[:-1]])
    assert (lasts == jobs + [sum(lost.values()) for lost in replayed.stalls]).all()
    assert all(
        set(lost) <= set(ledger.names("slots")) and min(lost.values(), default=0) >= 0 for lost in replayed.stalls
    )
    rate = case.memory.offchip.channels * case.memory.offchip.megabytes_per_second
    moved = sum(counts["offchip_read_bytes"] + counts["offchip_write_bytes"] for counts in plan.actions)
    assert not rate or replayed.ends[-1] >= moved * CLOCK_MHZ / rate


@SLOW
@given(cases())
def test_nothing_stalls_at_infinite_bandwidth(case):
    for path in ("activation_memory.width_bytes", "weight_memory.width_bytes"):
        case = case.change(path, 0)
    for path in ("activation_memory.latency_cycles", "weight_memory.latency_cycles"):
        case = case.change(path, 0)
    case = case.change("offchip", OffChip(preset="unlimited"))
    plan = planned(case)
    replayed = replay(plan)
    assert replayed.ends[-1] == sum(plan.job_cycles)
    assert not any(sum(lost.values()) for lost in replayed.stalls)


def value(case, path):
    section = case if path.startswith("buffers") else case.memory
    for key in path.split("."):
        section = getattr(section, key)
    return section


@settings(SLOW, max_examples=70)
@given(case=cases(), path=st.sampled_from([*FASTER, *FREER]))
def test_in_the_same_order_more_of_anything_never_costs_a_cycle(case, path):
    """Ports make the same transfers in the order in which the slower machine's ports chose to."""
    factor = (FASTER | FREER)[path]
    better = case.change(path, factor if path in FREER else value(case, path) * factor)
    plan = planned(case)
    slower = reference_memory.replay(plan, case.memory.offchip)
    faster = reference_memory.replay(better.plan(), better.memory.offchip, slower.order)
    assert all(a >= b for a, b in zip(slower.ends, faster.ends, strict=True))


@settings(SLOW, max_examples=70)
@given(case=cases(), more=st.sampled_from([1, 7, 64, 1 << 20]), place=st.sampled_from(["activation", "weight"]))
def test_more_capacity_never_moves_more_bytes(case, more, place):
    """What is read from off-chip memory falls or stays with the memories', what is read from them with the buffers'."""
    fetched = lambda plan: sum(counts["offchip_read_bytes"] for counts in plan.actions)  # noqa: E731
    loaded = lambda plan: sum(sum(s.size) for name, s in plan.streams.items() if name.startswith("load"))  # noqa: E731
    plan = planned(case)
    path = f"{place}_memory.capacity_bytes"
    assert fetched(case.change(path, value(case, path) + more).plan()) <= fetched(plan)
    path = f"buffers.{place}.capacity_bytes"
    assert loaded(case.change(path, value(case, path) + more).plan()) <= loaded(plan)


# By hand


def operand(tensor, buffer, values, part, nonzeros=None, **how):
    values, part = np.array(values, np.int64), np.array(part, np.int64)
    nonzeros = values if nonzeros is None else np.array(nonzeros, np.int64)
    return Operand(tensor, buffer, values, nonzeros, 0 * values, part, how.pop("units", 1), how.pop("copies", 1), **how)


ACCESSES = dict.fromkeys(
    ("multiplications", "accumulator_updates", "activation_buffer_reads", "weight_buffer_reads"), 0
)


def layer(jobs, activation, weight, result, spilled=None, position=0, crossed=False, batch=1):
    """A forward pass of a layer that the one before feeds."""
    arrays = (np.array(x, np.int64) for x in (result, spilled or [0] * len(jobs)))
    traffic = Traffic(np.array(jobs, np.int64), (activation, weight), *arrays, crossed)
    geometry = Geometry(2, 1, 1, 2, (1, 1))
    return LayerTraffic(f"layer{position}", "fwd", position, geometry, 1, batch, ACCESSES, traffic)


def machine_memory(capacity=1 << 20, bytes_per_cycle=1, width=0, **changes):
    """A byte a cycle from off chip, nothing else takes time."""
    place = OnChip(capacity_bytes=capacity, banks=1, width_bytes=width, latency_cycles=0)
    offchip = OffChip(channels=1, megabytes_per_second=1000 * bytes_per_cycle, burst_bytes=1, latency_ns=0)
    keys = {"value_bits": 8, "accumulator_bits": 16, "offchip": offchip}
    return Memory(**keys | {"activation_memory": place, "weight_memory": place} | changes)


def pe_buffers(activation=1 << 20, weight=1 << 20, ports=2, sets=2):
    return Buffers(
        activation=Buffer(capacity_bytes=activation, ports=ports),
        weight=Buffer(capacity_bytes=weight, ports=ports),
        accumulator_sets=sets,
    )


def example():
    """Three jobs of 4 cycles, with activations of 4 bytes each and 2 bytes of weights for all; a result of 2 bytes."""
    memory = machine_memory(
        offchip=OffChip(channels=1, megabytes_per_second=1000, burst_bytes=1, latency_ns=2),
        activation_memory=OnChip(capacity_bytes=100, banks=1, width_bytes=2, latency_cycles=1),
    )
    one = layer(
        [4, 4, 4], operand("activation", "activation", [4, 4, 4], [0, 1, 2]),
        operand("weight", "weight", [2], [0, 0, 0]), [0, 0, 2],
    )  # fmt: skip
    return Case(memory, pe_buffers(activation=8), (one,))


def test_three_jobs_by_hand():
    """Off chip: a byte a cycle, 2 cycles late. Activation memory: two bytes a cycle, 1 cycle late; weight memory: free.

    cycle  off-chip port                 activation memory               PEs
    0      activations 0, arrive at 6
    4      weights, arrive at 8
    6      activations 1, arrive at 12   load 0, 7 to 9
    8                                                                    job 0, 8 cycles late: the weights' fault
    10     activations 2, arrive at 16
    12                                   load 1, 13 to 15                job 0 ends; its data's room is free
    13                                                                   job 1, 1 cycle late: load 1 took it
    16                                   load 2, 17 to 19
    17                                                                   job 1 ends, job 2 begins on load 2's first byte
    21                                   store, arrives at 23            job 2 ends
    23     write, has left at 27
    """
    case = example()
    replayed, log = logged(case.plan())
    assert log == sorted([
        ("offchip", "fetch activation", 0, 0, 4), ("offchip", "fetch weight", 0, 4, 6),
        ("offchip", "fetch activation", 1, 6, 10), ("offchip", "fetch activation", 2, 10, 14),
        ("activation_memory", "load activation", 0, 6, 8), ("weight_memory", "load weight", 0, 8, 8),
        ("activation_memory", "load activation", 1, 12, 14), ("activation_memory", "load activation", 2, 16, 18),
        ("jobs", "", 0, 8, 12), ("jobs", "", 1, 13, 17), ("jobs", "", 2, 17, 21),
        ("activation_memory", "store", 0, 21, 22), ("offchip", "write", 0, 23, 25),
    ])  # fmt: skip
    assert replayed.ends == [27]
    lost = {"offchip_weight": 8, "onchip_activation": 1, "onchip_result": 2, "offchip_result": 4}
    assert +Counter(replayed.stalls[0]) == lost


def test_results_kept_on_chip_are_not_fetched_again():
    """12 bytes in, 8 between, 8 out, in pieces of 4; in 32 bytes all stays, in 16 the second layer fetches."""
    weight = operand("weight", "weight", [1], [0])
    first = layer([1], operand("activation", "activation", [12], [0]), weight, [8])
    second = layer([1], operand("activation", "activation", [8], [0]), weight, [8], position=1)
    reads, writes = {}, {}
    for capacity, how in [(32, "always"), (32, "unless_kept"), (16, "always")]:
        case = Case(machine_memory(capacity, write_back=how), pe_buffers(), (first, second), 4)
        plan = case.plan()
        assert reference_memory.recount(case, plan, logged(plan)[1]) == []
        reads[capacity, how] = [counts["offchip_read_bytes"] for counts in plan.actions]
        writes[capacity, how] = [counts["offchip_write_bytes"] for counts in plan.actions]
    assert reads == {(32, "always"): [13, 1], (32, "unless_kept"): [13, 1], (16, "always"): [13, 9]}
    assert writes == {(32, "always"): [8, 8], (32, "unless_kept"): [0, 8], (16, "always"): [8, 8]}


def test_each_samples_results_are_stored_in_its_own_proportion():
    """Sample by sample, as masks: what the next layer reads of the first is full, of the second empty. 8 values of 8
    bits are 9 bytes and 1; all samples of a layer together 10, in equal shares."""
    weight = operand("weight", "weight", [1], [0, 0])
    inputs = [operand("activation", "activation", [8, 8], [0, 1], nonzeros=[8, n]) for n in (8, 0)]
    layers = [
        replace(one, samples=2, batch=2, traffic=replace(one.traffic, sample=np.array([0, 1])))
        for one in (layer([1, 1], moved, weight, [8, 8], position=at) for at, moved in enumerate(inputs))
    ]
    stored = {}
    for order in ("sample", "layer"):
        memory = machine_memory(order=order, formats=Formats(activation="bitmask"))
        turns = tuple(turn for _, turn in in_order(layers, order))
        plan = Case(memory, pe_buffers(), turns).plan()
        stored[order] = [counts["activation_memory_write_bytes"] for counts in plan.actions]
    # The first layer's fetch of 9 bytes comes on top, and what the last one leaves is dense.
    assert stored == {"sample": [9 + 9, 8, 9 + 1, 8], "layer": [18 + 10, 16]}


def of_two_jobs(sums_leave):
    """One of four samples: both jobs read the activation, each a gradient of its own, and complete two values."""
    activation, gradient = (
        operand("activation", "activation", [8], [0, 0]),
        operand("gradient", "weight", [4, 4], [0, 1]),
    )
    one = layer([10, 10], activation, gradient, [2, 2], batch=4)
    traffic = replace(one.traffic, sums_leave=sums_leave)
    return replace(one, which="weight_grad", traffic=traffic)


# capacity, sums may leave → bytes fetched, bytes of the weight memory written and read
WALKED = {
    # Together: four samples' activations, 32 bytes, and a gradient.
    (36, True): (16, 2, 2),
    # They do not stay: the activation is fetched for each job.
    (35, False): (24, 2, 2),
    # In groups: sums of 4 bytes a job, three quarters of which come and go; results of 2, a quarter of which leaves.
    (35, True): (16, 2 + 2 * 3, 2 + 2 * 3),
    (12, True): (16, 2 + 2 * 3, 2 + 2 * 3),
}


@pytest.mark.parametrize(("capacity", "sums_leave"), WALKED)
def test_a_weight_gradient_walks_the_batch_together_or_in_groups_by_hand(capacity, sums_leave):
    small = OnChip(capacity_bytes=capacity, banks=1, width_bytes=0, latency_cycles=0)
    memory = machine_memory(activation_memory=small)
    plan = Case(memory, pe_buffers(activation=0, weight=0), (of_two_jobs(sums_leave),), piece_bytes=4).plan()
    (counts,) = plan.actions
    moved = (counts[f"{place}_bytes"] for place in ("offchip_read", "weight_memory_write", "weight_memory_read"))
    assert tuple(moved) == WALKED[capacity, sums_leave]


def test_sums_without_room_stay_in_the_accumulators():
    """All sums take 8 bytes and want two pieces of 4 beside them."""
    fetched = {}
    for room in (15, 16):
        places = {"activation_memory": 12, "weight_memory": room}
        small = {n: OnChip(capacity_bytes=size, banks=1, width_bytes=0, latency_cycles=0) for n, size in places.items()}
        case = Case(machine_memory(**small), pe_buffers(activation=0, weight=0), (of_two_jobs(True),), piece_bytes=4)
        fetched[room] = case.plan().actions[0]["offchip_read_bytes"]
    assert fetched == {15: 24, 16: 16}


def test_the_next_layers_weights_come_while_this_one_computes():
    """10 cycles of compute hide 10 bytes, not 15; the third layer's wait until the first is over."""
    activation = operand("activation", "activation", [1], [0])
    layers = [layer([10], activation, operand("weight", "weight", [n], [0]), [1], position=k) for k, n in
              enumerate([1, 9, 15])]  # fmt: skip
    replayed, log = logged(Case(machine_memory(), pe_buffers(), tuple(layers)).plan())
    starts = {number: start for where, name, number, start, _ in log if name == "fetch weight"}
    # Cycle 0: activations, 1: weights, 2: PEs begin, and the second layer's 9 bytes: there at 11, before 12.
    assert starts == {0: 1, 1: 2, 2: 12}
    # 15 bytes from cycle 12 are there at 27, when the second layer ended at 22; then 2 bytes of results leave first.
    assert [lost.get("offchip_weight", 0) for lost in replayed.stalls] == [2 - 0, 0, 5]


def test_parts_that_do_not_fit_are_fetched_again():
    """A sweep over three parts of 4 bytes, twice. In 13 bytes (a byte for the result) all stay; in 9 one part has to
    make way; in 5 there is room for one at a time.
    """
    parts = operand("activation", "activation", [4, 4, 4], [0, 1, 2, 0, 1, 2])
    one = layer([1] * 6, parts, operand("weight", "weight", [1], [0] * 6), [0] * 5 + [1])
    fetched = {}
    for capacity in (13, 12, 9, 5):
        case = Case(machine_memory(capacity, activation_memory=OnChip(
            capacity_bytes=capacity, banks=1, width_bytes=0, latency_cycles=0
        )), pe_buffers(activation=0), (one,))  # fmt: skip
        plan = case.plan()
        assert reference_memory.recount(case, plan, logged(plan)[1]) == []
        fetched[capacity] = plan.actions[0]["offchip_read_bytes"] - 1
    assert fetched == {13: 12, 12: 24, 9: 24, 5: 24}


def test_partial_sums_that_find_no_accumulator_go_out_and_come_back():
    """Two cycles of two jobs; 3 sums of 2 bytes wait between them: 6 bytes out, then 6 back, a byte a cycle."""
    narrow = OnChip(capacity_bytes=100, banks=1, width_bytes=1, latency_cycles=0)
    parts = operand("activation", "activation", [1], [-1, -1])
    one = layer([2, 2], parts, operand("weight", "weight", [1], [-1, -1]), [0, 1], spilled=[3, 0])
    case = Case(machine_memory(activation_memory=narrow), pe_buffers(), (one,))
    replayed, log = logged(case.plan())
    assert [(name, start, end) for where, name, _, start, end in log if where == "activation_memory"] == [
        ("load partial", 8, 14), ("store", 2, 8), ("store", 14, 15),
    ]  # fmt: skip
    # Job 1 begins on the first sum, at 8, and ends with the last; a cycle for the store, one for the write.
    assert replayed.ends == [16]
    lost = {"onchip_partial": 6 + 4, "onchip_result": 1, "offchip_result": 1}
    assert +Counter(replayed.stalls[0]) == lost


def test_room_of_results_is_free_when_they_have_left_by_hand():
    """Three layers of a job of 2 cycles each, which read 4, 4 and 10 bytes and leave 6, 10 and none, in 20 bytes.

    The first one's 6 have room until the second ends. Layer 2's 10 bytes fit when that is free, and layer 1's 4: after
    job 1, and when the 6 have left; the second one's 10 bytes need not have.

    cycle  off-chip port               PEs
    0      layer 0's, there at 4
    4      layer 1's, there at 8       job 0
    8      layer 0's results           job 1, which ends at 10
    14     layer 2's, there at 24
    24     layer 1's results, to 34    job 2, to 26
    """
    nothing = operand("weight", "weight", [1], [-1])
    sizes = [(4, 6), (4, 10), (10, 0)]
    layers = [
        layer([2], operand("activation", "activation", [read], [0]), nothing, [left], position=2 * at)
        for at, (read, left) in enumerate(sizes)
    ]
    replayed, log = logged(Case(machine_memory(20), pe_buffers(), tuple(layers)).plan())
    assert [event[1:] for event in log if event[0] == "offchip"] == sorted([
        ("fetch activation", 0, 0, 4), ("fetch activation", 1, 4, 8), ("write", 0, 8, 14),
        ("fetch activation", 2, 14, 24), ("write", 1, 24, 34),
    ])  # fmt: skip
    assert [(start, end) for where, _, _, start, end in log if where == "jobs"] == [(4, 6), (8, 10), (24, 26)]
    assert replayed.ends == [6, 10, 34]


def test_results_pass_through_as_room_allows_by_hand():
    """12 bytes in pieces of 4 pass through 8: two are stored when the job ends, the third when the first has left."""
    nothing = [operand(name, name, [1], [-1]) for name in ("activation", "weight")]
    replayed, log = logged(Case(machine_memory(8), pe_buffers(), (layer([1], *nothing, [12]),), 4).plan())
    assert [start for _, name, _, start, _ in log if name == "store"] == [1, 1, 5]
    assert [(start, end) for _, name, _, start, end in log if name == "write"] == [(1, 5), (5, 9), (9, 13)]
    assert replayed.ends == [13]


def test_partial_sums_go_before_what_a_later_job_reads_by_hand():
    """In cycle 2 job 0 has left 6 bytes of sums that job 1 takes back, and the 10 bytes that job 2 reads are there.

    The sums go first, 2 to 8, and come back, 8 to 14; then the 10 bytes, to 24. Two sets of accumulators: for the sake
    of these the store could have waited until job 2.
    """
    narrow = OnChip(capacity_bytes=100, banks=1, width_bytes=1, latency_cycles=0)
    late = operand("activation", "activation", [10], [-1, -1, 0])
    one = layer([2] * 3, late, operand("weight", "weight", [1], [-1] * 3), [0, 0, 1], spilled=[3, 0, 0])
    replayed, log = logged(
        Case(machine_memory(bytes_per_cycle=5, activation_memory=narrow), pe_buffers(), (one,)).plan()
    )
    assert [event[1:] for event in log if event[0] == "activation_memory"] == [
        ("load activation", 0, 14, 24), ("load partial", 0, 8, 14), ("store", 0, 2, 8), ("store", 1, 24, 25),
    ]  # fmt: skip
    assert [(start, end) for where, _, _, start, end in log if where == "jobs"] == [(0, 2), (8, 14), (14, 24)]
    assert replayed.ends == [26]


ANOMALIES = [
    # what is improved, from, to; cycles before and after
    ("offchip.megabytes_per_second", 1000, 2000, 29, 36),
    ("buffers.activation.ports", 1, 2, 29, 36),
]


@pytest.mark.parametrize(("path", "worse", "better", "before", "after"), ANOMALIES)
def test_more_may_cost_where_a_port_chooses(path, worse, better, before, after):
    """The counter-example of docs/memory.md. Job 2 reads 10 bytes, in 10 cycles; job 1 needs job 0's accumulators.

    At 2 bytes a cycle the 10 are on chip at 5 and their load takes the port until 15, while at 8 job 0 ends and its
    store, more urgent but later, has to wait. So job 1 begins at 16 instead of 9. At a byte a cycle they come at 10,
    when the store is made. Likewise with 1 port, which loads them at 19, after job 1, and hides them under job 2.
    """
    place = OnChip(capacity_bytes=100, banks=1, width_bytes=1, latency_cycles=0)
    late = operand("activation", "activation", [10], [-1, -1, 0])
    one = layer([8, 10, 10], late, operand("weight", "weight", [1], [-1] * 3), [1, 0, 0])
    case = Case(machine_memory(bytes_per_cycle=2, activation_memory=place), pe_buffers(activation=10, sets=1), (one,))
    slow = case.change(path, worse)
    fast = case.change(path, better)
    assert replay(slow.plan()).ends == [before] and replay(fast.plan()).ends == [after]
    # In the slower machine's order nothing is lost.
    order = reference_memory.replay(slow.plan(), slow.memory.offchip).order
    assert reference_memory.replay(fast.plan(), fast.memory.offchip, order).ends[-1] <= before


STEPS = 143
DNNSIM = {
    # rows of the local buffer, how the two cycles of the global buffer are described → cycles of all steps
    ("busy", 1): 2 * STEPS,
    ("busy", 2): 2 * STEPS,
    ("late", 1): 3 * STEPS,
    ("late", 2): 3 * STEPS // 2 + 2,
}


@pytest.mark.parametrize(("how", "rows"), DNNSIM)
def test_the_pipeline_of_dnnsim(how, rows):
    """DNNsim, with an ideal DRAM, a global buffer of two cycles and a cycle of compute a step: 3.0 cycles a step where
    the local buffer has one row, 2.007 with two or more.

    Its global buffer is busy for both cycles, and a step begins when all its operands are there. So one row costs
    2 + 1, and two cost max(2, 1) and one cycle more in all: (2·143 + 1) / 143 = 2.007.

    We say in two keys what its one latency means. A memory that is *busy* for two cycles a step gives DNNsim's 2 a
    step with two rows; without the cycle more, since our PEs begin a job on its first byte. For the same reason one
    row, too, costs 2: the second cycle of the load is that of the compute. A memory that answers *late*, after two
    cycles, gives DNNsim's 3 with one row, since nothing comes early; with two rows requests overlap, which DNNsim's do
    not: 1.5.
    """
    width, latency = (1, 0) if how == "busy" else (0, 2)
    place = OnChip(capacity_bytes=1 << 20, banks=1, width_bytes=width, latency_cycles=latency)
    steps = operand("activation", "activation", [2] * STEPS, range(STEPS))
    one = layer([1] * STEPS, steps, operand("weight", "weight", [1], [-1] * STEPS), [0] * STEPS)
    memory = machine_memory(activation_memory=place, offchip=OffChip(preset="unlimited"))
    case = Case(memory, pe_buffers(activation=2 * rows), (one,))
    assert replay(case.plan()).ends == [DNNSIM[how, rows]]


# Formats


def test_stored_sizes_by_hand():
    """40 values of 16 bits, 5 of them not zero, 2 zeros spelled out."""
    part = replace(operand("gradient", "weight", [40], [0], nonzeros=[5]), placeholders=np.array([2]))
    sizes = {}
    for form in ("dense", "bitmask", "run_length", "zvc"):
        memory = machine_memory(value_bits=16, formats=Formats(activation="dense", weight="dense", gradient=form))
        sizes[form] = memory.stored_bytes(part).tolist()
    # 40·2; (40 + 5·16)/8; (5 + 2)·(16 + 4)/8 = 17.5; two masks of 32 bits and 5 values.
    assert sizes == {"dense": [80], "bitmask": [15], "run_length": [18], "zvc": [18]}


@pytest.mark.parametrize(("ns", "mhz", "cycles"), [(0, 1000, 0), (7, 1000, 7), (7, 300, 3), (10, 500, 5), (1, 1, 1)])
def test_a_latency_takes_whole_cycles(ns, mhz, cycles):
    assert machine_memory().offchip.model_copy(update={"latency_ns": ns}).latency_cycles(mhz) == cycles


def test_a_layer_feeds_its_neighbour_alone():
    """Where a layer between them was left out, what the first leaves is not what the second reads."""
    moved = operand("activation", "activation", [1], [0]), operand("weight", "weight", [1], [0])
    first, second, third = (layer([1], *moved, [1], position=n) for n in range(3))
    assert first.feeds(second) and second.feeds(third)
    assert not first.feeds(third)
    assert not second.feeds(first)  # of the next sample


@settings(deadline=None)
@given(data=st.data(), values=st.integers(0, 150), density=st.sampled_from([0, 0.01, 0.1, 0.5, 1]))
def test_run_length_codes_decode(data, values, density):
    """The kernel counts the zeros that a coder spells out, whose code decodes to the part."""
    from accelsim.hardware.kernels.zero_runs import tally

    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    parts = rng.random((3, values)) < density
    for part, nonzeros, count in zip(parts, *(column.tolist() for column in tally(parts)), strict=True):
        code = reference_memory.run_length(part)
        assert nonzeros == sum(part)
        assert count == sum(not value for _, value in code)
        decoded = [bit for zeros, value in code for bit in [False] * zeros + [value]]
        assert decoded + [False] * (values - len(decoded)) == part.tolist()
        assert all(0 <= zeros < 16 for zeros, _ in code)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=6, max_size=6),
       st.integers(0, 40))  # fmt: skip
def test_what_stays_within_a_room_fits_it(parts, sizes, room):
    """Held from the first visit to the last, recounted use by use; one part more would not fit."""
    visits = Visits.of(np.arange(len(parts)), np.array(parts), np.array(sizes))

    def peak(kept):
        held = [{p for p in kept if p in parts[: at + 1] and p in parts[at:]} for at in range(len(parts))]
        return max(sum(sizes[p] for p in now) for now in held)

    assert visits.peak_bytes == peak(set(parts))
    kept = {int(p) for p in np.flatnonzero(visits.kept_within(room))}
    first_first = list(dict.fromkeys(parts))
    assert kept == set(first_first[: len(kept)])
    assert peak(kept) <= room
    assert len(kept) == len(first_first) or peak(set(first_first[: len(kept) + 1])) > room


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "unlimited"])
def test_a_preset_moves_its_bandwidth(preset):
    """A megabyte takes as long as the sum of the channels says; a byte takes a burst, and its channel's time."""
    memory = OffChip(preset=preset)
    megabyte, byte = (memory.transfer_ticks(np.array([1 << 20, 1]), 1000) / TICKS).tolist()
    rate = memory.channels * memory.megabytes_per_second
    assert megabyte == pytest.approx((1 << 20) * 1000 / rate)
    assert byte == pytest.approx(memory.burst_bytes * 1000 / rate, abs=1 / TICKS)
    assert memory.timing(1000).burst / TICKS == memory.burst_bytes * 1000 / memory.megabytes_per_second
    assert memory.moved_bytes(np.array([1, memory.burst_bytes + 1])).tolist() == [
        memory.burst_bytes, 2 * memory.burst_bytes,
    ]  # fmt: skip


# Refusals


def refused(case):
    with pytest.raises(MachineError) as caught:
        case.plan()
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_machine_that_cannot_run_a_layer_says_why():
    one = layer([1], operand("activation", "activation", [8], [0]), operand("weight", "weight", [9], [0]), [4])
    case = Case(machine_memory(11), pe_buffers(), (one,))
    rule = "layer0: memory.activation_memory.capacity_bytes: must hold 12 bytes for a single job, got 11"
    assert refused(case) == rule
    case = Case(machine_memory(8).model_copy(update={"activation_memory": machine_memory().activation_memory}),
                pe_buffers(), (one,))  # fmt: skip
    assert refused(case) == "layer0: memory.weight_memory.capacity_bytes: must hold 9 bytes for a single job, got 8"
    crossed = replace(one, traffic=replace(one.traffic, crossed=True))
    case = Case(machine_memory(), pe_buffers(activation=7, weight=8), (crossed,))
    rule = "layer0: buffers: one operand's part must fit its buffer, they need activation 8 and weight 9 bytes"
    assert refused(case) == rule
    Case(machine_memory(), pe_buffers(activation=8, weight=8), (crossed,)).plan()


def small_machine(**memory):
    machine = load_machine("pe16x16.yaml")
    return machine.model_copy(update={"memory": machine.memory.model_copy(update=memory)})


def test_simulate_says_where_a_machine_was_refused(tiny):
    place = OnChip(capacity_bytes=16, banks=1, width_bytes=0, latency_cycles=0)
    with open_trace(tiny) as trace, pytest.raises(MachineError) as caught:
        list(simulate_records(small_machine(activation_memory=place), trace, passes="fwd"))
    text = str(caught.value)
    assert text.startswith("pe16x16: dense: fwd: conv1: memory.activation_memory.capacity_bytes: must hold ")
    assert text.endswith(" bytes for a single job, got 16") and text.isprintable()


def test_records_with_memory_add_up(tiny):
    """Slots to cycles × multipliers; bytes and accesses under their names; the same on any number of threads."""
    slow = small_machine(offchip=OffChip(preset="LPDDR4-3200"))
    with open_trace(tiny) as trace:
        records = list(simulate_records([slow, load_machine("bit-tactical.yaml")], trace))
        assert records == list(simulate_records([slow, load_machine("bit-tactical.yaml")], trace, jobs=3))
    for record in records:
        assert sum(record.slots.values()) == record.cycles * record.multipliers
        stalls = sum(n for cause, n in record.slots.items() if cause.startswith(("offchip", "onchip")))
        assert stalls == (record.cycles - record.compute_cycles) * record.multipliers
        assert set(record.actions) <= set(ledger.names("actions"))
        if record.cycles:
            assert record.actions["offchip_read_bytes"] >= 0 and record.actions["offchip_write_bytes"] > 0
    assert any(r.slots.get("offchip_weight") for r in records if r.machine == "pe16x16")


# The default machine on the shipped trace


@pytest.fixture(scope="module")
def resnet():
    """What each pass of each snapshot of the shipped trace moves on the machine of Table 6, in order of execution."""
    machine = load_machine("pe16x16.yaml")
    moved = {}
    with open_trace("resnet50.npz") as trace:
        for snapshot in trace.snapshots:
            for position, one in enumerate(snapshot.layers):
                for counted in Task(snapshot, one, position, PASSES).run([machine])[0]:
                    if counted.traffic:
                        moved.setdefault((snapshot.name, counted.record.which), []).append(counted.traffic)
    return machine, {key: layers if key[1] == "fwd" else layers[::-1] for key, layers in moved.items()}


def replayed_with(machine, layers, **sections):
    """A replay with other keys in some sections of the memory, and its plan."""
    memory = machine.memory.model_copy(
        update={name: getattr(machine.memory, name).model_copy(update=keys) for name, keys in sections.items()}
    )
    plan = Planner(memory, machine.buffers, machine.clock_mhz, layers).plan()
    return replay(plan), plan


def stalled(replayed):
    return sum(sum(lost.values()) for lost in replayed.stalls)


def test_the_default_machine_waits_for_its_first_fill_and_last_drain_only(resnet):
    """Forward and back, every snapshot, of a million cycles and more: 97 to 413 in all, 274 at most at the ends, and
    173 in between, where a layer of little work needs many weights or gradients and a refresh comes in its way."""
    machine, moved = resnet
    assert len(moved) == 9
    all_of = []
    for (_, which), layers in moved.items():
        replayed, plan = replayed_with(machine, layers)
        if which == "weight_grad":  # whose taps and blocks read the batch's activations and gradients again
            assert 0.015 < stalled(replayed) / sum(plan.job_cycles) < 0.045
            assert sum(replayed.stalls[-1].values()) == 18230  # conv1, 49 taps
            continue
        waiting = [number for number, lost in enumerate(replayed.stalls) if sum(lost.values())]
        between = sum(sum(lost.values()) for lost in replayed.stalls[1:-1])
        assert between <= 173 and stalled(replayed) - between <= 274
        assert len(set(waiting) - {0, len(layers) - 1}) <= 2
        first, last = +Counter(replayed.stalls[0]), +Counter(replayed.stalls[-1])
        assert set(first) <= {"offchip_weight", "offchip_activation", "offchip_gradient"}
        assert set(last) <= {"onchip_result", "offchip_result"}
        assert stalled(replayed) < sum(plan.job_cycles) / 1000, which
        all_of.append(stalled(replayed))
    assert (min(all_of), max(all_of)) == (97, 413)


@pytest.mark.parametrize("which", PASSES)
def test_less_bandwidth_or_capacity_and_the_stalls_come(resnet, which):
    """Each half of the bandwidth costs, and at a sixteenth of it each half of the capacity."""
    machine, moved = resnet
    layers, rate = moved["swat90", which], machine.memory.offchip.megabytes_per_second
    by_rate = [replayed_with(machine, layers, offchip={"megabytes_per_second": rate // n})[0] for n in (1, 2, 4, 8, 16)]
    stalls = [stalled(replayed) for replayed in by_rate]
    assert stalls == sorted(stalls) and stalls[-1] > 20 * stalls[0], stalls
    sizes = {name: getattr(machine.memory, name).capacity_bytes for name in ("activation_memory", "weight_memory")}
    slow, by_size, read = {"megabytes_per_second": rate // 16}, stalls[-1:], []
    for n in (2, 4):
        smaller = {name: {"capacity_bytes": size // n} for name, size in sizes.items()}
        replayed, plan = replayed_with(machine, layers, offchip=slow, **smaller)
        by_size.append(stalled(replayed))
        read.append(sum(counts["offchip_read_bytes"] for counts in plan.actions))
    assert by_size == sorted(by_size) and read == sorted(read), (by_size, read)
