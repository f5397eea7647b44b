"""What does a timeline cost? Against the same run without one, in turns in one run."""

import json
import time

import pytest

import accelsim
from accelsim.hardware.hierarchy import Memory
from accelsim.hardware.machine import load_section
from accelsim.pipeline import simulate_records
from accelsim.study.timeline import MOST_EVENTS, recording

ROUNDS = 3
CHOICE = {"snapshots": "swat90", "jobs": 1}


def seconds_of(trace, machine, timeline=None):
    """CPU seconds of a run, and its cycles."""
    start = time.process_time()
    cycles = sum(record.cycles for record in simulate_records(machine, trace, timeline=timeline, **CHOICE))
    return time.process_time() - start, cycles


@pytest.mark.parametrize(("detail", "most_ratio"), [("layers", 2), ("auto", 3), ("jobs", 5)])
def test_timeline_cost(tmp_path, capsys, detail, most_ratio):
    memory = load_section(Memory, "ddr4.yaml", "memory")
    machine = accelsim.load_machine("pe16x16.yaml").model_copy(update={"memory": memory})
    without, with_it, path = [], [], tmp_path / "t.json"
    with accelsim.open_trace("resnet50.npz") as trace:
        seconds_of(trace, machine)  # compiles the kernels
        for _ in range(ROUNDS):
            without.append(seconds_of(trace, machine))
            start = time.process_time()
            with recording(path, machine, 3, detail=detail) as timeline:
                _, cycles = seconds_of(trace, machine, timeline)
            with_it.append((time.process_time() - start, cycles))
    assert {cycles for _, cycles in without} == {cycles for _, cycles in with_it}
    events, size = json.loads(path.read_bytes())["traceEvents"], path.stat().st_size
    assert detail == "jobs" or (len(events) <= MOST_EVENTS and size <= 30e6)
    plain, told = min(without)[0], min(with_it)[0]
    with capsys.disabled():
        print(f"\n  {detail}: {told:.2f} s, {told / plain:.2f}× the {plain:.2f} s without; ", end="")
        print(f"{len(events):,} events, {size / 1e6:.1f} MB")
    assert told / plain <= most_ratio
