"""What does the memory cost? Its replay against the counting of compute, and the whole of Table 6 with it."""

import os
import subprocess
import sys
import time

import pytest

import accelsim
from accelsim.errors import AccelsimError
from accelsim.files import find
from accelsim.hardware.movement import replay_simpy
from accelsim.hardware.movement.planner import Planner
from accelsim.hardware.movement.replay import replay
from accelsim.pipeline import Task

JOBS_PER_SECOND = 3_000_000
PLAN_SECONDS = 0.010


@pytest.fixture(scope="module")
def moved():
    """What the forward pass at 90 % moves on the machine of Table 6, and the CPU seconds that counting it took."""
    machine = accelsim.load_machine("pe16x16.yaml")
    with accelsim.open_trace("resnet50.npz") as trace:
        snapshot = trace.snapshot("swat90")
        tasks = [Task(snapshot, layer, number, ("fwd",)) for number, layer in enumerate(snapshot.layers)]
        tasks[0].run([machine])  # compiles
        start = time.process_time()
        layers = [task.run([machine])[0][0].traffic for task in tasks]
        return machine, layers, time.process_time() - start


def cpu(function, rounds=5):
    """CPU seconds of a call, the least of some: others use the machine too."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def test_jobs_per_second(moved):
    """From a plan's arrays to what records need; against SimPy's replay of the same plan."""
    machine, layers, compute = moved
    plan = Planner(machine.memory, machine.buffers, machine.clock_mhz, layers).plan()
    jobs, transfers = len(plan.job_cycles), sum(len(stream.job) for stream in plan.streams.values())
    replayed = replay(plan)  # compiles
    assert replayed == replay_simpy.replay(plan)
    assert replayed.ends[-1] == sum(plan.job_cycles) + sum(sum(lost.values()) for lost in replayed.stalls)
    seconds, simpy = cpu(lambda: replay(plan)), cpu(lambda: replay_simpy.replay(plan), 1)
    print(f"\n{jobs:,} jobs, {transfers:,} transfers: {seconds * 1e3:.1f} ms, {jobs / seconds:,.0f} jobs/s", end=" ")
    print(f"(target {JOBS_PER_SECOND:,}), {simpy / seconds:.0f}× SimPy's {jobs / simpy:,.0f};", end=" ")
    print(f"{seconds / compute:.3f}× the {compute:.2f} s that counting compute and traffic takes")
    assert jobs / seconds > JOBS_PER_SECOND / 3


def test_milliseconds_a_plan(moved):
    machine, layers, _ = moved
    plan = Planner(machine.memory, machine.buffers, machine.clock_mhz, layers).plan
    plan()
    seconds = cpu(lambda: Planner(machine.memory, machine.buffers, machine.clock_mhz, layers).plan())
    print(f"\n{len(layers)} layers: {seconds * 1e3:.1f} ms a plan (target {PLAN_SECONDS * 1e3:.0f}; 86 before)")
    assert seconds < 3 * PLAN_SECONDS


@pytest.mark.parametrize("memory", ["layer-at-a-time.yaml", "ddr4.yaml"])
def test_table6_with_memory_as_a_process(tmp_path, memory):
    """All snapshots and passes on 2 cores, with the memory that hides everything and with one that does not."""
    shipped = find("pe16x16.yaml", "configs", AccelsimError)
    config = tmp_path / "machine.yaml"
    config.write_text(shipped.read_text(encoding="utf-8").replace("layer-at-a-time.yaml", memory), encoding="utf-8")
    command = [sys.executable, "-m", "accelsim.cli", "run", "--config", str(config), "--trace", "resnet50.npz"]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--jobs", "2"], stdout=subprocess.PIPE, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds, peak_mb = time.perf_counter() - start, usage.ru_maxrss / 1024
    assert status == 0
    assert ("5.80×" in printed) == (memory == "layer-at-a-time.yaml")
    print(f"\nTable 6, {memory}: {seconds:.1f} s (limit 90), peak {peak_mb:.0f} MB")
    assert seconds < 90
    assert peak_mb < 1000


def test_compare_as_a_process():
    """All machines that ship, all snapshots and passes, their dense selves too: CPU seconds of both cores."""
    command = [sys.executable, "-m", "accelsim.cli", "compare", "--trace", "resnet50.npz", "--quiet", "--json"]
    before = os.times()
    assert '"rows"' in subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"\ncompare: {seconds:.1f} CPU-s (target 15; 81 before)")
