"""Random memories and random passes for the property tests of the memory."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import reference_placement
import reference_plan
from hypothesis import strategies as st

from accelsim.hardware.hierarchy import Buffer, Buffers, Formats, Memory, OffChip, OnChip
from accelsim.hardware.movement import planner
from accelsim.hardware.movement.plan import Plan, Stream
from accelsim.hardware.movement.port import TICKS
from accelsim.hardware.movement.replay import play
from accelsim.hardware.movement.traffic import LayerTraffic, Operand, Traffic, in_order
from accelsim.workload.geometry import Geometry

CLOCK_MHZ = 1000  # 1000 MB/s are a byte a cycle
OPERANDS = {
    "fwd": (("activation", "activation"), ("weight", "weight")),
    "input_grad": (("gradient", "activation"), ("weight", "weight")),
    "weight_grad": (("activation", "activation"), ("gradient", "weight")),
}


@dataclass(frozen=True)
class Case:
    """A machine's memory and the layers of a pass, in pieces of so many bytes."""

    memory: Memory
    buffers: Buffers
    layers: tuple[LayerTraffic, ...]
    piece_bytes: int = planner.PIECE_BYTES

    def plan(self):
        with mock.patch.object(planner, "PIECE_BYTES", self.piece_bytes):
            return planner.Planner(self.memory, self.buffers, CLOCK_MHZ, list(self.layers)).plan()

    def change(self, path: str, value) -> Case:
        """The same with another value at a path such as "offchip.channels" or "buffers.weight.ports"."""
        *above, key = path.split(".")
        if above[:1] == ["buffers"]:
            return replace(self, buffers=_changed(self.buffers, [*above[1:], key], value))
        return replace(self, memory=_changed(self.memory, [*above, key], value))


def _changed(section, path, value):
    first, *rest = path
    return section.model_copy(update={first: _changed(getattr(section, first), rest, value) if rest else value})


def offchips():
    refreshes = st.sampled_from([(0, 0), (0, 0), (1, 8), (5, 50), (7, 8)])
    return st.builds(
        lambda refresh, **keys: OffChip(refresh_ns=refresh[0], refresh_interval_ns=refresh[1], **keys),
        refresh=refreshes,
        channels=st.integers(1, 3),
        megabytes_per_second=st.sampled_from([0, 100, 500, 1000, 1000, 3000, 16000]),
        burst_bytes=st.sampled_from([1, 4, 16]),
        latency_ns=st.sampled_from([0, 0, 1, 7]),
        read_to_write_ns=st.sampled_from([0, 2]),
        write_to_read_ns=st.sampled_from([0, 9]),
        queue_bursts=st.sampled_from([0, 1, 3]),
    )


def onchips(capacities):
    return st.builds(
        OnChip,
        capacity_bytes=capacities,
        banks=st.integers(1, 2),
        width_bytes=st.sampled_from([0, 1, 3, 16]),
        latency_cycles=st.sampled_from([0, 0, 1, 4]),
    )


CAPACITIES = st.one_of(st.sampled_from([1 << 20]), st.integers(8, 600))
FORMATS = st.sampled_from(["dense", "bitmask", "run_length", "zvc"])


def memories():
    return st.builds(
        Memory,
        value_bits=st.sampled_from([8, 16, 32]),
        accumulator_bits=st.sampled_from([16, 32]),
        offchip=offchips(),
        activation_memory=onchips(CAPACITIES),
        weight_memory=onchips(CAPACITIES),
        formats=st.builds(Formats, activation=FORMATS, weight=FORMATS, gradient=FORMATS),
        write_back=st.sampled_from(["always", "unless_kept"]),
        order=st.sampled_from(["layer", "sample"]),
    )


def buffers():
    buffer = st.builds(
        Buffer, capacity_bytes=st.one_of(st.sampled_from([0, 1 << 20]), st.integers(1, 120)),
        ports=st.sampled_from([1, 2]),
    )  # fmt: skip
    return st.builds(Buffers, activation=buffer, weight=buffer, accumulator_sets=st.sampled_from([1, 2]))


def orders(parts, jobs):
    """The part that each job reads, or none: in any order, or one after another, again and again."""
    sweeps = st.integers(0, parts - 1).map(lambda first: [(first + job) % parts for job in range(jobs)])
    return st.one_of(st.lists(st.integers(-1, parts - 1), min_size=jobs, max_size=jobs), sweeps)


@st.composite
def operands(draw, tensor, buffer, sample, largest=24):
    jobs = sample.size
    parts = draw(st.integers(1, 4))
    values = draw(st.lists(st.integers(0, largest), min_size=parts, max_size=parts))
    values[0] = max(1, values[0])
    nonzeros = [draw(st.integers(0, n)) for n in values]
    placeholders = [draw(st.integers(0, (n - z) // 16)) for n, z in zip(values, nonzeros, strict=True)]
    part = draw(orders(parts, jobs))
    streamed = draw(st.one_of(st.none(), st.lists(st.integers(0, 2 * largest), min_size=jobs, max_size=jobs)))
    if buffer == "activation":  # what a layer before may have left is read by some job of each sample
        for job in np.unique(sample, return_index=True)[1].tolist():
            part[job] = 0
            streamed = streamed and [*streamed[:job], max(1, streamed[job]), *streamed[job + 1 :]]
    counts = (np.array(c, np.int64) for c in (values, nonzeros, placeholders, part))
    return Operand(
        tensor, buffer, *counts, draw(st.integers(1, 3)), draw(st.integers(1, 3)),
        None if streamed is None else np.array(streamed, np.int64),
    )  # fmt: skip


@st.composite
def layer_traffics(draw, which, position, geometry, batch, samples):
    jobs = draw(st.integers(samples, 6))
    sample = np.arange(jobs) * samples // jobs
    numbers = lambda most: np.array(draw(st.lists(st.integers(0, most), min_size=jobs, max_size=jobs)))  # noqa: E731
    spilled = numbers(8) if draw(st.integers(0, 3)) == 0 else np.zeros(jobs, np.int64)
    spilled[np.append(np.diff(sample) > 0, True)] = 0
    moved = tuple(draw(operands(*names, sample)) for names in OPERANDS[which])
    columns = numbers(12), moved, numbers(draw(st.sampled_from([0, 6, 40]))), spilled, draw(st.booleans())
    sums = which == "weight_grad"
    traffic = Traffic(*columns, None if sums else sample, sums and not spilled.any() and draw(st.booleans()))
    accesses = dict.fromkeys(
        ("multiplications", "accumulator_updates", "activation_buffer_reads", "weight_buffer_reads"), 5
    )
    return LayerTraffic(f"layer{position}", which, position, geometry, samples, batch, accesses, traffic)


@st.composite
def passes(draw, most=4, which=None):
    """Layers of a pass as a trace has them, in the order of their execution; one feeds the next, or does not."""
    which, count = which or draw(st.sampled_from(list(OPERANDS))), draw(st.integers(1, most))
    samples = draw(st.integers(1, 4))
    batch = samples * draw(st.sampled_from([1, 1, 4]))
    channels = [draw(st.sampled_from([2, 2, 2, 3])) for _ in range(2 * count)]
    shapes = [Geometry(channels[2 * n], 1, 1, channels[2 * n + 1], (1, 1)) for n in range(count)]
    layers = [draw(layer_traffics(which, n, shape, batch, samples)) for n, shape in enumerate(shapes)]
    return tuple(layers if which == "fwd" else layers[::-1])


@st.composite
def tight_cases(draw):
    """Memories that hold what each layer cannot do without, and a few bytes more or none."""
    case = draw(cases(st.one_of(passes(), passes(which="fwd"))))
    memories = {name: draw(st.sampled_from([1, 1, 1 << 20])) for name in ("activation_memory", "weight_memory")}
    for name in ("activation_memory", "weight_memory"):
        case = case.change(f"{name}.capacity_bytes", memories[name])
    while True:
        try:
            reference_plan.Plan(case, CLOCK_MHZ)
        except reference_placement.Refused as refused:
            _, name, needed, *_ = refused.args
            if name == "buffers":
                return case
            case = case.change(f"{name}.capacity_bytes", needed)
        else:
            break
    for name in ("activation_memory", "weight_memory"):
        least = getattr(case.memory, name).capacity_bytes
        case = case.change(f"{name}.capacity_bytes", least + draw(st.integers(0, 40)))
    return case


STREAMS = (
    # name, port, operand
    ("fetch activation", "offchip", "activation"),
    ("fetch weight", "offchip", "weight"),
    ("load activation", "activation_memory", "activation"),
    ("load gradient", "activation_memory", "gradient"),
    ("load weight", "weight_memory", "weight"),
    ("load partial", "activation_memory", "partial"),
    ("store", "activation_memory", "result"),
    ("write", "offchip", "result"),
)


def direct_plan(rng, offchip):
    """A plan that no planner makes: what is to happen is in some order, each thing waits for any that come before, and
    all are for the same few jobs and take no time or little, so that much is ready at once.
    """
    names = ["jobs", *(name for name, _, _ in STREAMS)]
    things = [*rng.choice(names, rng.integers(1, 30)).tolist(), "jobs"]
    numbers = {name: [at for at, thing in enumerate(things) if thing == name] for name in names}
    few = lambda name: rng.choice([0, 0, 0, 1, 2], len(numbers[name]))  # noqa: E731

    def some(name, of):
        """For each thing of a name, how many of another that come before it are waited for."""
        most = [bisect(numbers[of], at - 1) for at in numbers[name]]
        return np.array([rng.integers(0, count + 1) for count in most], np.int64)

    made = {}
    for at in rng.permutation(len(STREAMS)):
        name, port, operand = STREAMS[at]
        size = few(name)
        ticks = offchip.transfer_ticks(size, CLOCK_MHZ) if port == "offchip" else size * TICKS
        needs = {of: some(name, of) for of in rng.choice(names, rng.integers(0, 4), replace=False).tolist()}
        latency = int(rng.choice([0, 0, 1, 2]))
        made[name] = Stream(name, port, operand, latency, "", few(name), size, ticks, needs, 0 * size - 1)
    loads = {name: some("jobs", name) - 1 for name in made if name.startswith("load")}
    ends = np.unique([*rng.integers(1, len(numbers["jobs"]) + 1, 2), len(numbers["jobs"])])
    timing = offchip.timing(CLOCK_MHZ)
    return Plan(["layer"] * ends.size, ends, few("jobs"), made, loads, some("jobs", "store"), [], {}, timing)


def events(plan):
    """What the compiled replay says of transfers and jobs, as an observer of SimPy's is told it."""
    played = play(plan)
    told = [("jobs", "", n, *times) for n, times in enumerate(played.jobs.tolist())]
    for (name, stream), times in zip(plan.streams.items(), played.transfers, strict=True):
        told += [(stream.port, name, n, a, c - stream.latency) for n, (a, _, c) in enumerate(times.tolist())]
    return sorted(told)


def cases(layers=None):
    """Anything, sensible or not; some are refused. Layers are as the order of the batch has them."""
    drawn = passes() if layers is None else layers
    return st.builds(Case, memories(), buffers(), drawn, st.sampled_from([5, 32, 1 << 14])).map(_in_turn)


def _in_turn(case):
    return replace(case, layers=tuple(moved for _, moved in in_order(case.layers, case.memory.order)))
