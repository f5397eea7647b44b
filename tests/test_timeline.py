"""Does a timeline show what the replay did: every cycle, byte and stall, at each detail, in a file of bounded size?"""

import gzip
import json
import math
import re
import tracemalloc
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim
from accelsim import cli
from accelsim.errors import AccelsimError
from accelsim.files import shipped
from accelsim.hardware.hierarchy import Memory
from accelsim.hardware.machine import load_section
from accelsim.hardware.movement.plan import JOBS, Plan
from accelsim.hardware.movement.replay_simpy import replay
from accelsim.pipeline import simulate_records
from accelsim.study import timeline
from accelsim.study.timeline import DETAILS, recording
from accelsim.study.tracks import Slices, Track

RUN = ["run", "--trace", "tiny.npz", "--quiet", "--config"]


def machine_with(config, memory="ddr4.yaml", capacity_bytes=None, channels=None):
    """A shipped machine, with less memory on chip or other channels off it."""
    machine, memory = accelsim.load_machine(config), load_section(Memory, memory, "memory")
    if capacity_bytes:
        small = {"capacity_bytes": capacity_bytes}
        places = {
            name: getattr(memory, name).model_copy(update=small) for name in ("activation_memory", "weight_memory")
        }
        memory = memory.model_copy(update=places)
    if channels:
        memory = memory.model_copy(update={"offchip": memory.offchip.model_copy(update={"channels": channels})})
    return machine.model_copy(update={"memory": memory})


MACHINES = {
    "pes": lambda: machine_with("pe16x16.yaml"),
    "little room": lambda: machine_with("pe8x8.yaml", capacity_bytes=1500, channels=3),
    "tiles": lambda: machine_with("bit-tactical.yaml", channels=20),
    "unlimited": lambda: accelsim.load_machine("dadiannao.yaml"),
}


def record(machine, trace_file, path, detail="auto", **choice):
    """A run with a timeline: the records, and what the file holds."""
    with accelsim.open_trace(trace_file) as trace, recording(path, machine, 6, detail=detail) as watch:
        records = list(simulate_records(machine, trace, timeline=watch, **choice))
    return records, load(path)


def load(path):
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return json.loads(text, parse_constant=lambda name: pytest.fail(name))


@pytest.fixture(scope="module", params=[(name, detail) for name in MACHINES for detail in DETAILS], ids="-".join)
def run(request, tiny, tmp_path_factory):
    """A machine, its records of the tiny trace, and its timeline at a detail; little enough that some is merged."""
    name, detail = request.param
    machine = MACHINES[name]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "MOST_EVENTS", 1800)
        return machine, *record(machine, tiny, tmp_path_factory.mktemp("timeline") / "t.json", detail), detail


def tracks(data, phase="X"):
    """Events by process and track, by their names."""
    names = {(e["pid"], e["tid"], e["name"]): e["args"].get("name") for e in data["traceEvents"] if e["ph"] == "M"}
    found = defaultdict(list)
    for event in data["traceEvents"]:
        if event["ph"] == phase:
            pid, tid = event["pid"], event["tid"]
            track = names[pid, tid, "thread_name"] if phase == "X" else event["name"]
            found[names[pid, 0, "process_name"], track].append(event)
    return found


def cycles_of(records):
    totals = Counter()
    for r in records:
        totals[f"{r.snapshot} {r.which}"] += r.cycles
    return totals


def test_every_event_has_what_a_viewer_needs(run):
    _, records, data, _ = run
    assert set(data) == {"displayTimeUnit", "traceEvents", "otherData"}
    for event in data["traceEvents"]:
        assert event["ph"] in "MXC" and event["name"] and event["args"]
        assert type(event["pid"]) is int and type(event["tid"]) is int and event["ts"] >= 0
        assert event["ph"] != "X" or event["dur"] >= 0
    processes = {e["args"]["name"] for e in data["traceEvents"] if e["name"] == "process_name"}
    assert processes == {f"{r.snapshot} {r.which}" for r in records}


def test_slices_of_a_track_do_not_overlap(run):
    for events in tracks(run[2]).values():
        for first, then in pairwise(events):
            assert first["args"]["cycle"] + first["args"]["cycles"] <= then["args"]["cycle"]
            assert round(1000 * first["ts"]) + round(1000 * first["dur"]) <= round(1000 * then["ts"])


def test_time_is_cycles_at_the_machine_s_clock(run):
    machine, _, data, _ = run
    for events in tracks(data).values():
        for event in events:
            assert abs(event["ts"] - event["args"]["cycle"] / machine.clock_mhz) <= 0.001
            assert abs(event["dur"] - event["args"]["cycles"] / machine.clock_mhz) <= 0.002


def test_pes_work_and_wait_in_every_cycle_of_the_records(run):
    _, records, data, _ = run
    by_track = tracks(data)
    for process, cycles in cycles_of(records).items():
        events = by_track[process, "PE array"]
        assert sum(event["args"]["cycles"] for event in events) == cycles
        assert events[0]["args"]["cycle"] == 0 and events[-1]["args"]["cycle"] + events[-1]["args"]["cycles"] == cycles


def test_layers_span_their_cycles_and_tell_their_stalls(run):
    _, records, data, _ = run
    by_track = tracks(data)
    for process in cycles_of(records):
        mine = [r for r in records if f"{r.snapshot} {r.which}" == process and r.cycles]
        mine = mine if process.endswith("fwd") else mine[::-1]
        spans = by_track[process, "layers"]
        assert [(e["name"], e["args"]["cycles"]) for e in spans] == [(r.layer, r.cycles) for r in mine]
        for span, r in zip(spans, mine, strict=True):
            waits = {k: n // r.multipliers for k, n in r.slots.items() if k.startswith(("offchip_", "onchip_")) and n}
            told = {k.replace(" ", "_"): n for k, n in span["args"].items() if k.startswith(("offchip", "onchip"))}
            assert told == waits and span["args"]["busy"] == r.compute_cycles


def test_channels_carry_every_byte_of_the_records(run):
    _, records, data, _ = run
    moved = Counter()
    for (process, track), events in tracks(data).items():
        if track.startswith("off-chip"):
            moved[process] += sum(event["args"]["bytes"] for event in events)
    expected = Counter()
    for r in records:
        expected[f"{r.snapshot} {r.which}"] += r.actions.get("offchip_read_bytes", 0)
        expected[f"{r.snapshot} {r.which}"] += r.actions.get("offchip_write_bytes", 0)
    assert moved == expected


def test_counters_stay_within_their_capacity_and_end_empty(run):
    _, _, data, detail = run
    counters = tracks(data, "C")
    assert counters
    for (_, name), events in counters.items():
        capacity = int(re.search(r"of ([\d,]+) bytes", name)[1].replace(",", ""))
        levels = [event["args"]["bytes"] for event in events]
        assert all(0 <= level <= capacity for level in levels) and max(levels) > 0
        assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)
        assert levels[-1] == 0 or detail != "jobs"


@pytest.mark.parametrize("name", MACHINES)
def test_details_agree_on_totals(name, tiny, tmp_path, monkeypatch):
    """What each name of each track adds up to does not depend on what is put together; nor do the records."""
    monkeypatch.setattr(timeline, "MOST_EVENTS", 1500)
    machine, told, sizes = MACHINES[name](), [], []
    with accelsim.open_trace(tiny) as trace:
        plain = list(simulate_records(machine, trace))
    for detail in DETAILS:
        records, data = record(machine, tiny, tmp_path / f"{detail}.json", detail)
        assert records == plain
        totals = Counter()
        for place, events in tracks(data).items():
            for event in events:
                for key in ("cycles", "bytes", "count"):
                    totals[place, event["name"], key] += event["args"].get(key, 0)
        told.append(totals)
        sizes.append(len(data["traceEvents"]))
    assert told[0] == told[1] == told[2]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("most", [1200, 2400])
def test_auto_keeps_to_the_number_of_events_and_says_what_it_put_together(tiny, tmp_path, monkeypatch, most):
    monkeypatch.setattr(timeline, "MOST_EVENTS", most)
    _, data = record(MACHINES["pes"](), tiny, tmp_path / "t.json")
    events = [event for event in data["traceEvents"] if event["ph"] != "M"]
    assert len(events) <= most + len([event for event in events if event["tid"] == 1])
    windows = data["otherData"]["window_cycles"]
    assert windows and all(w == "layer" or w > 0 for tracks in windows.values() for w in tracks.values())


def test_what_fits_is_not_put_together(tiny, tmp_path):
    """And equals the detail of every job and transfer."""
    machine = MACHINES["pes"]()
    _, auto = record(machine, tiny, tmp_path / "a.json")
    _, jobs = record(machine, tiny, tmp_path / "j.json", "jobs")
    assert auto["traceEvents"] == jobs["traceEvents"] and auto["otherData"]["window_cycles"] == {}
    assert all(
        event["args"]["count"] == 1 for (_, track), es in tracks(auto).items() if track != "layers" for event in es
    )


def test_what_is_written_early_is_all_there(tiny, tmp_path, monkeypatch):
    """Where nothing is put together tracks are written as they fill."""
    machine, key = MACHINES["pes"](), lambda event: json.dumps(event, sort_keys=True)
    _, late = record(machine, tiny, tmp_path / "late.json", "jobs")
    monkeypatch.setattr(timeline, "CHUNK", 3)
    _, early = record(machine, tiny, tmp_path / "early.json", "jobs")
    late, early = ([e for e in data["traceEvents"] if e["ph"] != "C"] for data in (late, early))
    assert sorted(early, key=key) == sorted(late, key=key)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from("abc"), st.booleans()), max_size=80),
    st.integers(3, 30),
)
def test_a_track_keeps_cycles_order_and_size(happened, most):
    track, at, layer, total = Track("t", most, 0), 0, 0, Counter()
    for gap, cycles, name, new in happened:
        at, layer = at + gap, layer + new
        track.add(Slices(layer, at, at + cycles, {name: (cycles, 1, 1, 0)}))
        at, total[name] = at + cycles, total[name] + cycles
    shown = [event for entry in track.entries for event in entry.events()]
    found = Counter()
    for name, _, cycles, _ in shown:
        found[name] += cycles
    assert found == total
    assert all(a[1] + a[2] <= b[1] for a, b in pairwise(shown))
    assert track.size == len(shown) <= max(most, 3 * (layer + 1))


@pytest.mark.slow
def test_memory_is_bounded_however_many_jobs(tmp_path):
    """A million happenings, of which a share is kept."""
    jobs = 250_000
    plan = Plan(["l"], np.array([jobs]), np.full(jobs, 2), {}, {}, np.zeros(jobs, int), [{}], {})
    machine = MACHINES["pes"]()
    path = tmp_path / "t.json.gz"
    with recording(path, machine, 9) as watch:
        observe = watch(machine, "dense", "fwd", plan)
        tracemalloc.start()
        try:
            for job in range(jobs):
                observe(JOBS, "", job, 2 * job, 2 * job + 2)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8e6
    assert sum(event["args"]["cycles"] for event in tracks(load(path))["dense fwd", "PE array"]) == 2 * jobs


def test_a_replay_is_the_same_watched_or_not_and_tells_every_stall(tiny):
    """``memory.replay`` tells as many cycles of each cause as it counts."""
    plans = []
    machine = MACHINES["little room"]()
    with accelsim.open_trace(tiny) as trace:
        list(simulate_records(machine, trace, timeline=lambda machine, snapshot, which, plan: plans.append(plan)))
    assert len(plans) == 6
    for plan in plans:
        told, worked = Counter(), []

        def observe(place, name, number, start, end, told=told, worked=worked):
            if place == "stalls":
                told[name] += end - start
                assert end > start
            elif place == JOBS:
                worked.append((number, start, end))

        played = replay(plan, observe)
        assert played == replay(plan)
        assert told == sum((Counter(lost) for lost in played.stalls), Counter())
        assert [number for number, _, _ in worked] == list(range(len(plan.job_cycles)))


def test_only_the_machine_asked_for_is_written(tiny, tmp_path):
    machine, other = MACHINES["pes"](), MACHINES["tiles"]()
    path = tmp_path / "t.json"
    with accelsim.open_trace(tiny) as trace, recording(path, machine, 6) as watch:
        both = list(simulate_records([machine, other], trace, timeline=watch))
    _, alone = record(machine, tiny, tmp_path / "alone.json")
    assert load(path)["traceEvents"] == alone["traceEvents"] and len(both) == 60


def test_compressed_it_is_the_same_and_the_same_each_time(tiny, tmp_path):
    machine = MACHINES["pes"]()
    for name in ("a.json", "a.json.gz", "b.json.gz"):
        record(machine, tiny, tmp_path / name)
    plain, packed, again = ((tmp_path / name).read_bytes() for name in ("a.json", "a.json.gz", "b.json.gz"))
    assert gzip.decompress(packed) == plain and packed == again and len(packed) < len(plain) / 4


# Files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, tiny, monkeypatch):
    """The current folder of the program: it has the tiny trace in it and a machine without a memory."""
    (tmp_path / "tiny.npz").write_bytes(tiny.read_bytes())
    text = (shipped("configs") / "dadiannao.yaml").read_text(encoding="utf-8")
    (tmp_path / "bare.yaml").write_text(re.sub(r"^memory:.*$", "", text, flags=re.M))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_program_writes_one_with_its_provenance_and_replaces_an_older_one(here):
    (here / "t.json.gz").write_text("old")
    assert cli.main([*RUN, "dadiannao.yaml", "--timeline", "t.json.gz", "--timeline-detail", "layers"]) == 0
    about = load(here / "t.json.gz")["otherData"]
    assert about["machine"] == "dadiannao" and about["clock_mhz"] == 606 and about["detail"] == "layers"
    assert about["provenance"]["trace"]["sha256"] and "--timeline-detail" in about["provenance"]["command"]
    assert sorted(path.name for path in here.iterdir()) == ["bare.yaml", "t.json.gz", "tiny.npz"]


@pytest.mark.parametrize(
    ("config", "path", "text"),
    [
        ("bare.yaml", "t.json", "memory: must be given for a timeline"),
        ("dadiannao.yaml", "t.txt", "t.txt: must end in .json or .json.gz"),
        ("dadiannao.yaml", "folder.json", "folder.json: must be a file"),
        ("dadiannao.yaml", "tiny.npz/t.json", "tiny.npz: must be a folder"),
        ("dadiannao.yaml", "/proc/t.json", "/proc"),
        ("dadiannao.yaml", "x" * 300 + ".json", "xxx"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(here, capfd, config, path, text):
    (here / "folder.json").mkdir()
    before = sorted(here.rglob("*"))
    assert cli.main([*RUN, config, "--timeline", path]) == 2
    error = capfd.readouterr().err
    assert text in error and len(error.splitlines()) == 1
    assert sorted(here.rglob("*")) == before


def test_an_unknown_detail_is_refused(tiny, tmp_path):
    with pytest.raises(AccelsimError, match="detail must be one of layers, auto, jobs, got all"):
        record(MACHINES["pes"](), tiny, tmp_path / "t.json", "all")


@pytest.mark.parametrize(
    "problem", [KeyboardInterrupt, AccelsimError("corrupt"), OSError(28, "No space left on device")]
)
def test_what_was_not_finished_leaves_the_older_file(tiny, tmp_path, problem):
    path, machine = tmp_path / "t.json.gz", MACHINES["pes"]()
    path.write_text("old")
    with pytest.raises((KeyboardInterrupt, AccelsimError)), recording(path, machine, 6) as watch:
        with accelsim.open_trace(tiny) as trace:
            next(simulate_records(machine, trace, timeline=watch))
        raise problem
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_pass_without_work_has_no_process(tiny, tmp_path):
    """The first layer's input gradient is not computed."""
    records, data = record(
        MACHINES["pes"](), tiny, tmp_path / "t.json", layers="conv1", passes=["input_grad", "fwd"], snapshots="dense"
    )
    assert {process for process, _ in tracks(data)} == {"dense fwd"}
    assert math.isclose(sum(r.cycles for r in records), records[0].cycles)
