"""Do jobs that a memory cannot hold run in slices, with every value moved, and nothing else otherwise than before?"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory import layer, machine_memory, operand, pe_buffers

from accelsim import load_machine
from accelsim.errors import MachineError
from accelsim.hardware import lines, strips
from accelsim.hardware.accelerators import tensordash
from accelsim.hardware.accelerators.pe_array import traffic as pe_traffic
from accelsim.hardware.hierarchy import OnChip
from accelsim.hardware.lines import to_lines
from accelsim.hardware.movement import slices
from accelsim.hardware.movement.planner import Planner
from accelsim.hardware.movement.traffic import Operand
from accelsim.workload import lowering
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import Convolution, lower_tensors

CLOCK_MHZ = 1000


@st.composite
def traffics(draw):
    """One to four jobs that read one of three parts each, or none."""
    jobs = draw(st.integers(1, 4))
    counts = st.lists(st.integers(0, 40), min_size=jobs, max_size=jobs)
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    operands = []
    for name in ("activation", "weight"):
        nonzeros, zeros, placeholders = rng.integers(0, 50, (3, 3))
        streamed = rng.integers(0, 90, jobs) if draw(st.booleans()) else None
        counted = nonzeros + zeros, nonzeros, placeholders
        operands.append(Operand(name, name, *counted, rng.integers(-1, 3, jobs), 1, 1, streamed))
    made = layer(draw(counts), *operands, draw(counts), draw(counts)).traffic
    return replace(made, sample=np.arange(jobs)) if draw(st.booleans()) else made


@settings(max_examples=40)
@given(traffic=traffics(), count=st.integers(1, 7), cut=st.sampled_from([(0,), (1,), (0, 1)]))
def test_slices_are_a_job_s_share(traffic, count, cut):
    """Slice by slice, with Python's integers: numbers add up to the job's, as equal as they go; parts likewise."""
    got = slices.sliced(traffic, count, cut)
    share = lambda number, k: number * (k + 1) // count - number * k // count  # noqa: E731
    for job in range(traffic.job_cycles.size):
        for k in range(count):
            at, is_last = job * count + k, k == count - 1
            assert got.job_cycles[at] == share(int(traffic.job_cycles[job]), k)
            assert got.result[at] == (traffic.result[job] if is_last else 0)
            assert got.spilled[at] == (traffic.spilled[job] if is_last else 0)
            assert traffic.sample is None or got.sample[at] == traffic.sample[job]
            for number, (now, before) in enumerate(zip(got.operands, traffic.operands, strict=True)):
                assert before.streamed is None or now.streamed[at] == share(int(before.streamed[job]), k)
                part, was = int(now.part[at]), int(before.part[job])
                if was < 0 or number not in cut:
                    assert part == was
                    continue
                zeros = int(before.values[was] - before.nonzeros[was])
                assert part == was * count + k
                assert now.nonzeros[part] == share(int(before.nonzeros[was]), k)
                assert now.values[part] - now.nonzeros[part] == share(zeros, k)
                assert now.placeholders[part] == share(int(before.placeholders[was]), k)


def fetched(plan, tensor):
    return int(sum(plan.streams[f"fetch {tensor}"].size))


def small(activation, weight=1 << 20):
    """A memory of that many bytes for activations, with pieces of 16 KiB in front of it."""
    places = {"activation_memory": activation, "weight_memory": weight}
    return machine_memory(
        **{name: OnChip(capacity_bytes=size, banks=1, width_bytes=0, latency_cycles=0) for name, size in places.items()}
    )


def parts_of(values, tensor="activation", part=(0, 1)):
    return operand(tensor, tensor, list(values), list(part))


def test_a_map_that_a_memory_cannot_hold_is_fetched_in_slices():
    one = layer([4000, 4000], parts_of([90_000, 70_000]), parts_of([10, 10], "weight"), [0, 100])
    with pytest.raises(MachineError, match=r"activation_memory\.capacity_bytes: must hold 90,"):
        Planner(small(80_000), pe_buffers(0, 0), CLOCK_MHZ, [one]).plan()
    plan = slices.plan(small(80_000), pe_buffers(0, 0), CLOCK_MHZ, [one])
    assert fetched(plan, "activation") == 160_000 and fetched(plan, "weight") == 20
    assert plan.job_cycles.sum() == 8000 and plan.job_cycles.size == 2 * 4  # two of 22,500 in the 47 KB beside pieces
    assert max(plan.streams["fetch activation"].size) <= 1 << 14 and plan.actions[0]["offchip_write_bytes"] == 100


def test_what_fits_has_the_plan_that_it_had():
    one = layer([40, 40], parts_of([900, 700]), parts_of([10, 10], "weight"), [0, 100])
    plan, before = (make(small(80_000), pe_buffers(0, 0), CLOCK_MHZ, [one]) for make in (slices.plan, Planner))
    assert plan.job_cycles.size == 2 and plan.actions == before.plan().actions
    capacities = Planner(small(80_000), pe_buffers(0, 0), CLOCK_MHZ, [one]).capacities
    assert slices.fitting(one, small(80_000), capacities) is one


def test_where_all_meets_all_only_one_operand_is_cut():
    """Activations in three slices, two of which fit their buffer; the weights pass by each. Or the other way round."""
    one = layer([40, 40], parts_of([900, 700]), parts_of([500, 500], "weight"), [0, 100], crossed=True)
    memory, tight = small(1 << 20), pe_buffers(activation=600, weight=200)
    with pytest.raises(MachineError, match="one operand's part must fit its buffer"):
        Planner(memory, tight, CLOCK_MHZ, [one]).plan()
    plan = slices.plan(memory, tight, CLOCK_MHZ, [one])
    assert plan.job_cycles.size == 6 and fetched(plan, "activation") == 1600 and fetched(plan, "weight") == 1000
    assert sum(plan.streams["load activation"].size) == 1600 and sum(plan.streams["load weight"].size) == 3 * 1000
    large = replace(one, traffic=replace(one.traffic, operands=one.traffic.operands[::-1]))
    assert slices.plan(memory, tight, CLOCK_MHZ, [large]).job_cycles.size == 6
    nothing = pe_buffers(activation=0, weight=0)
    with pytest.raises(MachineError, match=r"they need activation 900 and weight 500 bytes$"):
        slices.plan(memory, nothing, CLOCK_MHZ, [one])


def test_what_no_slices_make_fit_is_refused_as_before():
    one = layer([40, 40], parts_of([90_000, 700]), parts_of([10, 10], "weight"), [0, 100])
    with pytest.raises(MachineError, match="must hold 90,100 bytes for a single job, got 16"):
        slices.plan(small(16), pe_buffers(0, 0), CLOCK_MHZ, [one])


def test_channels_of_very_many_jobs_are_moved_together(monkeypatch):
    """The same cycles, bytes and results in fewer jobs; each filter group's exchange stays a job of its own."""
    accelerator, rng = load_machine("pe8x8.yaml").accelerator, np.random.default_rng(0)
    conv = Convolution("fwd", rng.random((2, 7, 9, 9)) < 0.5, rng.random((5, 7, 3, 3)) < 0.5, (1, 1), (1, 1, 1, 1))
    single = accelerator.run(conv).traffic()
    monkeypatch.setattr(pe_traffic, "MOST_JOBS", 6)
    blocks = accelerator.run(conv).traffic()
    assert single.job_cycles.size == 2 * 8 and blocks.job_cycles.size == 2 * (3 + 1)
    one, three = single.job_cycles[:8].tolist(), blocks.job_cycles[:4].tolist()
    assert three == [sum(one[:3]), sum(one[3:6]), one[6], one[7]] and blocks.result.sum() == single.result.sum()
    for a, b in zip(single.operands, blocks.operands, strict=True):
        assert (a.values.sum(), a.nonzeros.sum()) == (b.values.sum(), b.nonzeros.sum())


@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 16), groups=st.sampled_from([1, 2]), which=st.sampled_from(lowering.PASSES))
def test_effectual_work_is_counted_some_channels_at_a_time(seed, groups, which):
    rng = np.random.default_rng(seed)
    g = Geometry(4, 5, 6, 6, (3, 2), (1, 2), (1, 0, 1, 1), groups=groups)
    shapes = {"activation": (3, 4, 5, 6), "gradient": (3, 6, *g.output), "weight": g.weight_shape}
    operands = [rng.random(shapes[name.removeprefix("saved_")]) < 0.4 for name in lowering.READS[which]]
    counted = {}
    for most in (1 << 20, 1, 70):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lowering, "COUNTED", most)
            counted[most] = sum(conv.effectual for conv in lower_tensors(g, which, *operands))
    assert len(set(counted.values())) == 1


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1 << 16), which=st.sampled_from(["fwd", "weight_grad"]), multiple=st.integers(1, 5),
    side=st.sampled_from(["input", "kernel"]),
)  # fmt: skip
def test_windows_in_strips_are_those_at_once(seed, which, multiple, side):
    """In the same order, of both samples and sides; each strip but the last of a multiple of streams."""
    rng = np.random.default_rng(seed)
    g = Geometry(5, 6, 7, 4, (3, 2), (1, 2), (1, 0, 1, 1))
    shapes = {"activation": (2, 5, 6, 7), "gradient": (2, 4, *g.output), "weight": g.weight_shape}
    operands = [rng.random(shapes[name.removeprefix("saved_")]) < 0.4 for name in lowering.READS[which]]
    (conv,) = lower_tensors(g, which, *operands)
    (grouped,) = to_lines(conv, 3, side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "GATHERED", 90)
        found = list(grouped.row_strips(multiple)), list(grouped.column_strips(multiple))
    for got, wanted in zip(found, (grouped.blocks(), grouped.column_blocks()), strict=True):
        assert np.array_equal(np.concatenate(got), np.concatenate(list(wanted)))
    windows = found[side == "kernel"] if which == "fwd" else []
    ends = np.cumsum([len(strip) for strip in windows]).tolist()
    places = g.output[0] * g.output[1]
    assert all(end % places % multiple == 0 or end % places == 0 for end in ends) and (not ends or len(ends) > 2)


@pytest.mark.parametrize("name", ["dstc.yaml", "cnvlutin.yaml", "sigma.yaml", "ampere.yaml", "tensordash.yaml"])
def test_machines_count_strips_as_they_count_all(name, monkeypatch):
    rng = np.random.default_rng(1)
    conv = Convolution("fwd", rng.random((2, 20, 9, 9)) < 0.5, rng.random((40, 20, 3, 3)) < 0.5)
    whole = load_machine(name).accelerator.run(conv)
    monkeypatch.setattr(lines, "GATHERED", 2000)
    monkeypatch.setattr(strips, "COUNTED", 3000)
    monkeypatch.setattr(tensordash, "PACKED", 2500)
    again = load_machine(name).accelerator.run(replace(conv))
    assert np.array_equal(whole.job_cycles, again.job_cycles)
    assert dict(whole.slots) == dict(again.slots) and dict(whole.accesses) == dict(again.accesses)
