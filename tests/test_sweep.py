"""Does a sweep compute what its study says, once, whatever is killed; and does it say why a point has no counts?"""

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import pandas as pd
import pytest

import accelsim
from accelsim.errors import AccelsimError, OutputError
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.machine import machine_with, parse_machine
from accelsim.study import manifest
from accelsim.sweeps import chunks
from accelsim.sweeps import plan as plans
from accelsim.sweeps import sweep as sweeps
from accelsim.sweeps.chunks import Chunk, _private, simulate_chunk
from accelsim.sweeps.estimate import estimate
from accelsim.sweeps.store import Store
from accelsim.sweeps.study import load_study, points_of
from accelsim.sweeps.sweep import compute, plan_sweep, run_chunks, sweep
from accelsim.sweeps.tables import write_tables
from accelsim.sweeps.workers import Workers
from accelsim.workload.synthetic import nearest
from accelsim.workload.trace import Trace

HERE = Path(__file__).parent
FILES = ("table.csv", "table.parquet", "layers.parquet", "sweep.json", "manifest.sha256")
TILES = "accelerator.tiles"
quick = pytest.mark.usefixtures("threads")


@pytest.fixture
def study(tiny):
    """A function: plain data of a study of the tiny trace on a machine without compiled kernels."""

    def make(**changes):
        return {"trace": str(tiny), "machine": "dadiannao.yaml", "snapshots": ["swat80"], **changes}

    return make


@pytest.fixture
def threads(monkeypatch):
    """Workers that start at once: threads of this process, for tests of what is computed rather than where."""
    monkeypatch.setattr("accelsim.sweeps.workers.ProcessPoolExecutor", lambda count, **how: ThreadPoolExecutor(count))


def files(folder, names=FILES):
    """What a finished sweep left, byte for byte."""
    return {name: (folder / name).read_bytes() for name in names}


# Studies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"grid": {TILES: []}}, "study: grid.accelerator.tiles: must have a value, has none"),
        ({"grid": {TILES: 4}}, "study: grid.accelerator.tiles: must be a valid list, got 4"),
        ({"grids": {}}, "study: grids: unknown key, did you mean grid?"),
        ({"passes": ["forward"]}, "study: passes: must be one of fwd, input_grad, weight_grad, got forward"),
        ({"passes": ["fwd", "fwd"]}, "study: passes: must be given once each, got fwd, fwd"),
        ({"layers": []}, "study: layers: must have a value, has none"),
        ({"grid": {"sparsity": [1.5]}}, "study: grid.sparsity: must be a number in [0, 1), got 1.5"),
        ({"points": [{"machine": 3}]}, "study: points.0.machine: must be a name, got 3"),
        ({"grid": {TILES: [1] * 1001, "clock_mhz": [1] * 1000}}, "at most 1,000,000 points, got 1,001,000"),
    ],
)  # fmt: skip
def test_a_wrong_study_gets_one_line(study, changes, line):
    with pytest.raises(AccelsimError) as error:
        load_study(study(**changes))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_the_line_names_the_file(study, tmp_path):
    (tmp_path / "mine.yaml").write_text("trace: tiny.npz\n")
    with pytest.raises(AccelsimError, match=r"mine.yaml: machine: must be given"):
        load_study(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"snapshots": ["swat99"]}, "snapshots: must be one of dense, swat80, got swat99"),
        ({"layers": ["conv9"]}, r"layers: must match a layer of a trace \(conv1, .*\), got conv9"),
        ({"trace": "none.npz"}, "none.npz: no such file"),
        ({"machine": "none.yaml"}, "none.yaml: no such file"),
        ({"grid": {"accelerator.tile": [4]}}, "accelerator.tile: unknown key, did you mean tiles?"),
        ({"grid": {"memory.x.y": [4]}}, "memory.x.y: must be a key of a section that the machine has"),
    ],
)
def test_a_study_of_which_no_point_can_be_gets_one_line(study, tmp_path, changes, line):
    with pytest.raises(AccelsimError, match=line):
        sweep(study(**changes), tmp_path / "out")


def test_a_grid_takes_all_combinations_and_points_come_after(study, tiny):
    made = study(grid={TILES: [1, 2], "clock_mhz": [606, 800]}, points=[{TILES: 3}, {"machine": "ideal.yaml"}])
    with accelsim.open_trace(tiny) as trace:
        points = list(points_of(load_study(made), {str(tiny): trace}))
    shown = [(p.settings.get(TILES), p.settings.get("clock_mhz"), p.machine.name) for p in points]
    grid = [(1, 606), (1, 800), (2, 606), (2, 800)]
    assert shown == [*((*pair, "dadiannao") for pair in grid), (3, None, "dadiannao"), (None, None, "ideal")]


@quick
def test_traces_machines_and_snapshots_may_be_lists(study, tiny, write_tiny, tmp_path):
    other = str(write_tiny(tmp_path / "other.npz", snapshots=(("dense", 0.0),)))
    made = study(trace=[str(tiny), other], machine=["dadiannao.yaml", "ideal.yaml"], snapshots=["dense", "swat80"])
    table = sweep(made | {"passes": ["fwd"]}, tmp_path / "out")
    rows = list(zip(table["trace"], table["machine"], table["snapshot"], strict=True))
    first = [(str(tiny), m, s) for m in ("dadiannao", "ideal") for s in ("dense", "swat80")]
    assert rows == [*first, (other, "dadiannao", "dense"), (other, "ideal", "dense")]
    assert made["trace"] == [str(tiny), other]


BASE = accelsim.load_machine("bit-tactical.yaml")


@pytest.mark.parametrize("order", [1, -1])
def test_sections_and_presets_are_set_before_what_is_in_them(order):
    settings = {"memory.offchip.channels": 3, "memory.offchip.preset": "LPDDR4-3200", "memory": "ddr4.yaml"}
    memory = machine_with(BASE, dict(list(settings.items())[::order])).memory
    assert (memory.offchip.preset, memory.offchip.channels, memory.offchip.burst_bytes) == ("LPDDR4-3200", 3, 32)
    assert memory.activation_memory.width_bytes == 128  # what ddr4.yaml says


@quick
def test_memory_may_be_swept_by_file_and_by_preset(study, tmp_path):
    made = study(
        machine="bit-tactical.yaml", passes=["fwd"],
        grid={"memory": ["ddr4.yaml", "layer-at-a-time.yaml"], "memory.offchip.preset": ["HBM2", "DDR4-3200"]},
    )  # fmt: skip
    table = sweep(made, tmp_path / "out")
    assert table["error"].isna().all() and table["cycles"].nunique() == 4


# Keys ---------------------------------------------------------------------------------------------------------------


def keys(made, folder):
    return plan_sweep(load_study(made), Store(folder)).keys


def test_a_key_changes_with_what_determines_the_result_and_with_nothing_else(study, tmp_path, monkeypatch, write_tiny):
    (key,) = keys(study(), tmp_path)
    machine = tmp_path / "mine.yaml"
    shipped = (HERE.parent / "configs" / "dadiannao.yaml").read_text(encoding="utf-8")
    machine.write_text(shipped.replace("description:", "description: other words,"), encoding="utf-8")
    copied = tmp_path / "copied.npz"
    copied.write_bytes(Path(study()["trace"]).read_bytes())
    same = [{"machine": str(machine)}, {"trace": str(copied)}, {"grid": {TILES: [16]}}]
    assert [keys(study(**changes), tmp_path) for changes in same] == [(key,)] * len(same)
    other = str(write_tiny(tmp_path / "other.npz", dataset="other"))
    changed = [
        {"grid": {TILES: [8]}}, {"snapshots": ["dense"]}, {"passes": ["fwd"]}, {"layers": ["conv1"]},
        {"trace": other}, {"grid": {"sparsity": [0.5]}}, {"grid": {"clock_mhz": [607]}},
    ]  # fmt: skip
    found = [keys(study(**changes), tmp_path) for changes in changed]
    monkeypatch.setattr("accelsim.sweeps.study.code_digest", lambda: "other code")
    found.append(keys(study(), tmp_path))
    assert len({key, *(k for (k,) in found)}) == len(changed) + 2


# Results ------------------------------------------------------------------------------------------------------------


@quick
def test_the_table_sums_what_the_pipeline_counts(study, tiny, tmp_path):
    table = sweep(study(grid={TILES: [4, 16]}), tmp_path / "out")
    with accelsim.open_trace(tiny) as trace:
        expected = accelsim.simulate(accelsim.load_machine("dadiannao.yaml"), trace, snapshots="swat80")
    assert table.loc[table[TILES] == 16, "cycles"].tolist() == expected.groupby("pass")["cycles"].sum().tolist()
    layers = pd.read_parquet(tmp_path / "out" / "layers.parquet")
    same = layers[layers[TILES] == 16].drop(columns=["point", TILES]).reset_index(drop=True)
    pd.testing.assert_frame_equal(same, expected, check_dtype=False)
    read = pd.read_parquet(tmp_path / "out" / "table.parquet")
    pd.testing.assert_frame_equal(read, table, check_dtype=False)


@quick
def test_a_bad_point_is_a_row_that_says_why_and_types_stay(study, tmp_path):
    good = sweep(study(grid={TILES: [4, 16]}), tmp_path / "good")
    made = study(grid={TILES: [4, 0, 16]}, points=[{"snapshot": "swat99"}, {"machine": "tcle.yaml"}])
    table = sweep(made, tmp_path / "out")
    reasons = table.drop_duplicates("point")["error"].tolist()
    assert pd.isna(reasons[0]) and pd.isna(reasons[2]) and len(table) == 15
    assert "dadiannao.yaml with accelerator.tiles=0: accelerator.tiles: must be an integer in 1…" in reasons[1]
    assert reasons[3].endswith("snapshot: must be one of dense, swat80, got swat99")
    assert reasons[4].startswith("tcle: swat80/conv1: fwd: accelerator.model: tcle needs values")
    counted = [name for name in good if name not in (TILES,)]
    assert table[counted].dtypes.tolist() == good[counted].dtypes.tolist()
    assert table["cycles"].dtype == "Int64" and good[TILES].dtype == "int64"


def test_a_defect_is_a_row_too(study, tmp_path, monkeypatch):
    (chunk,) = plan_sweep(load_study(study(grid={TILES: [1, 2]})), Store(tmp_path)).chunks[:1]

    def simulate(machines, *_, **__):
        raise {1: ZeroDivisionError("x"), 2: MemoryError()}[machines[0].accelerator.tiles]

    monkeypatch.setattr("accelsim.sweeps.chunks.simulate_records", simulate)
    machine = parse_machine(chunk.machines[0])
    both = replace(chunk, machines=tuple(machine_with(machine, {TILES: n}).resolved() for n in (1, 2)))
    assert simulate_chunk(replace(both, keys=("a", "b"))) == [
        "defect: ZeroDivisionError: x",
        "out of memory",
    ]


def test_the_same_bytes_whatever_the_jobs_and_the_order(study, tmp_path):
    made = study(grid={TILES: [1, 2, 3, 4, 5]}, snapshots=["dense", "swat80"])
    sweep(made, tmp_path / "one", jobs=1)
    sweep(study(grid={TILES: [4, 2]}), tmp_path / "two")  # some of them before, by another study
    told = []
    sweep(made, tmp_path / "two", jobs=2, progress=told.append)
    assert (told[-1].found, told[-1].done, told[-1].total) == (2, 8, 10)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_machines_that_share_work_count_as_each_by_itself(study, tmp_path):
    """Equal accelerators with other memories, and other accelerators, in one chunk."""
    made = study(machine="bit-tactical.yaml", grid={"memory": ["ddr4.yaml", "layer-at-a-time.yaml"], TILES: [2, 4]})
    plan = plan_sweep(load_study(made), Store(tmp_path))
    chunks = [one for chunk in plan.chunks for one in chunk.singly(0)]
    together = replace(chunks[0], machines=tuple(c.machines[0] for c in chunks), keys=tuple(c.keys[0] for c in chunks))
    for rows, chunk in zip(simulate_chunk(together), chunks, strict=True):
        pd.testing.assert_frame_equal(rows, simulate_chunk(chunk)[0])


def test_what_machines_share_is_counted_once_whoever_cannot_run(study, tmp_path, monkeypatch):
    """Six memories behind one array, two of them too small for a job: each says so in its own name, as alone."""
    bytes_of = {"memory.activation_memory.capacity_bytes": [1 << n for n in (6, 16, 7, 18, 20, 22)]}
    plan = plan_sweep(load_study(study(machine="pe8x8.yaml", grid=bytes_of)), Store(tmp_path))
    machines = tuple(machine for chunk in plan.chunks for machine in chunk.machines)
    chunk, counted = replace(plan.chunks[0], machines=machines, keys=tuple(map(str, range(6)))), []
    run = PEArray.run
    monkeypatch.setattr(PEArray, "run", lambda self, conv: counted.append(conv) or run(self, conv))
    together, once = simulate_chunk(chunk), len(counted)
    alone = [simulate_chunk(one)[0] for one in chunk.singly(0)]
    assert len(counted) == 7 * once
    assert sum(isinstance(rows, str) for rows in alone) == 2
    for rows, own in zip(together, alone, strict=True):
        if isinstance(own, str):
            assert rows == own and rows.startswith("pe8x8: swat80: fwd: ")
        else:
            pd.testing.assert_frame_equal(rows, own)


def test_a_chunk_has_some_accelerators_and_many_memories(study, tmp_path, monkeypatch):
    """Up to 3 accelerators or 4 machines, those of one accelerator next to each other."""
    monkeypatch.setattr(plans, "ACCELERATORS", 3)
    monkeypatch.setattr(plans, "MACHINES", 4)
    clocks = {TILES: [1, 2, 3, 4], "clock_mhz": [100, 200, 300, 400, 500, 600]}
    of = [load_study(study(grid=grid)) for grid in (clocks, {TILES: list(range(1, 25))})]
    memories, arrays = (
        [
            [machine["accelerator"]["tiles"] for machine in chunk.machines]
            for chunk in plan_sweep(s, Store(tmp_path)).chunks
        ]
        for s in of
    )
    assert list(map(len, memories)) == [4] * 6 and all(len(set(tiles)) <= 2 for tiles in memories)
    assert list(map(len, arrays)) == [3] * 8 and sorted(chain(*arrays)) == list(range(1, 25))


@quick
@pytest.mark.parametrize("reference", ["dense", "swat80"])
def test_a_sparsity_is_made_and_its_error_reported(study, tmp_path, reference):
    table = sweep(study(snapshots=[reference], passes=["fwd"], grid={"sparsity": [0.5, 0.8]}), tmp_path / "out")
    assert table["error"].isna().all() and table["sparsity"].tolist() == [0.5, 0.8]
    errors = pd.read_csv(tmp_path / "out" / "fidelity.csv")
    assert errors["sparsity"].tolist() == [0.0, 0.8] and (errors["reference"] == reference).all()
    sweep(study(), tmp_path / "out")
    assert not (tmp_path / "out" / "fidelity.csv").exists()


@quick
def test_a_sparsity_that_the_trace_has_is_taken_from_it(study, tmp_path):
    grid = {"sparsity": [0, 0.5, 0.8]}
    table = sweep(study(snapshots=None, passes=["fwd"], grid=grid), tmp_path / "out")
    assert table["snapshot"].tolist() == ["dense", "swat80", "swat80"]
    assert table["made"].tolist() == [False, True, False]
    real = sweep(study(snapshots=None, passes=["fwd"]), tmp_path / "real")
    assert table["cycles"].tolist()[::2] == real["cycles"].tolist() and not real["made"].any()


@quick
def test_masks_are_drawn_like_the_nearest_sparse_ones(tmp_path):
    with accelsim.open_trace("resnet50-levels.npz") as trace:
        chosen = {sparsity: nearest(trace, sparsity).name for sparsity in (0.1, 0.55, 0.84, 0.86, 0.99)}
    assert chosen == {0.1: "swat50", 0.55: "swat50", 0.84: "swat80", 0.86: "swat90", 0.99: "swat98"}
    made = load_study(
        {"trace": "resnet50-levels.npz", "machine": "dadiannao.yaml", "grid": {"sparsity": [0.93, 0.9, 0.99]}}
    )
    points = plan_sweep(made, Store(tmp_path)).points
    assert [(p.snapshot, p.sparsity) for p in points] == [("swat95", 0.93), ("swat90", None), ("swat98", 0.99)]


@quick
def test_numbers_get_another_top_k_and_may_not_lose_fewer(study, write_tiny, tmp_path):
    import numpy as np

    def numbers(snapshot, layer, tensor, mask):
        return mask * np.random.default_rng(1).random(mask.shape, np.float32), {}

    values = write_tiny(tmp_path / "values.npz", change=numbers)
    grid = {"snapshot": ["dense", "swat80"], "sparsity": [0.5, 0.9]}
    table = sweep(study(trace=str(values), passes=["fwd"], snapshots=None, grid=grid), tmp_path / "out")
    reasons = table["error"].tolist()
    assert reasons[2].endswith("sparsity: must be 0.8 or more, what swat80 has, got 0.5")
    assert [pd.isna(reason) for reason in reasons] == [True, True, False, True]
    assert table["effectual_slots"][1] < table["effectual_slots"][0]
    table = sweep(study(trace=str(values), passes=["fwd"], snapshots=None, grid={"sparsity": [0.5]}), tmp_path / "out")
    assert table["snapshot"].tolist() == ["dense"]


@quick
def test_the_estimate_is_of_what_is_missing(study, tmp_path):
    made = load_study(study(grid={TILES: [1, 2, 3, 4]}))
    guess = estimate(plan_sweep(made, Store(tmp_path)), 2)
    assert 0 < guess.seconds < 60 and 1e7 < guess.memory_bytes < 1e10
    sweep(made, tmp_path)
    assert estimate(plan_sweep(made, Store(tmp_path)), 2) is None


# Nothing lost, nothing twice ----------------------------------------------------------------------------------------


def start(study_file, out, *more):
    """The command, as a process group of its own, as in a terminal."""
    command = [sys.executable, "-m", "accelsim.cli", "sweep", str(study_file), "--out", str(out), "--jobs", "2", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def gone(pids, seconds=20):
    """Whether processes end within some time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(Path(f"/proc/{pid}").exists() and " Z " not in _stat(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _stat(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return " Z "


def stored(folder):
    return len(list((folder / "points").glob("*.point")))


def wait_for(condition, process=None, seconds=60):
    """Until it holds, or the process has ended."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until and (process is None or process.poll() is None):
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_at_random_moments_it_finishes_with_the_same_bytes(study, tmp_path):
    made = study(grid={TILES: list(range(1, 21))}, snapshots=["dense", "swat80"])
    (tmp_path / "study.yaml").write_text(json.dumps(made))
    out, chance = tmp_path / "out", random.Random(os.urandom(8))
    for how in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        process = start(tmp_path / "study.yaml", out, "--quiet")
        before = stored(out) if out.exists() else 0
        goal = before + chance.randrange(8)  # before the first, or somewhere later
        wait_for(lambda goal=goal: stored(out) > goal, process)
        time.sleep(chance.random() / 20)
        workers = children(process.pid)
        process.kill() if how == signal.SIGKILL else os.killpg(process.pid, how)
        _, err = process.communicate(timeout=60)
        assert gone(workers), f"workers outlive {how!r}"
        if how != signal.SIGKILL and process.returncode:
            assert process.returncode == 128 + how, err
            assert not list(out.rglob(".accelsim-*"))
            line = f"accelsim: interrupted; {stored(out)} of 40 points are in {out}; the same command goes on\n"
            assert err == line
    process = start(tmp_path / "study.yaml", out)
    stdout, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.startswith("accelsim: 40 points, ") and "40 points computed, 0 failed" in stdout
    sweep(made, tmp_path / "whole")
    assert files(out) == files(tmp_path / "whole")
    assert stored(out) == 40 and not list(out.rglob(".accelsim-*"))


@pytest.mark.slow
def test_two_sweeps_at_once_share_a_store(study, tmp_path):
    made = study(grid={TILES: list(range(1, 7))})
    (tmp_path / "study.yaml").write_text(json.dumps(made))
    both = [start(tmp_path / "study.yaml", tmp_path / "out", "--json") for _ in range(2)]
    reports = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert reports[0] == reports[1] and reports[0]["points"] == 6
    sweep(made, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@quick
@pytest.mark.parametrize("at", range(8))
def test_a_full_disk_leaves_nothing_half_written(study, tmp_path, monkeypatch, at):
    """Of two points, the folder of five tables, and each of these: what then has moved, all of it moves."""
    made, out = study(grid={TILES: [1, 2]}), tmp_path / "out"
    count, real = iter(range(100)), os.replace

    def full(beside, path):
        if next(count) == at:
            if beside.suffix == ".tmp":
                beside.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(beside, path)

    with monkeypatch.context() as patched:
        patched.setattr("accelsim.durable.os.replace", full)
        with pytest.raises(OutputError, match=r"cannot write: No space left on device$"):
            sweep(made, out)
    assert all(Store(out).get(path.stem) is not None for path in (out / "points").iterdir())
    assert not list(out.rglob(".accelsim-*"))
    assert [path.name for path in out.iterdir()] == ["points"] or len(manifest.read(out, FILES[:4])) == 4
    sweep(made, out)
    sweep(made, tmp_path / "whole")
    assert files(out) == files(tmp_path / "whole")


@quick
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:150] + b"\xff" + b[151:]])
def test_a_damaged_point_is_computed_again(study, tmp_path, damage):
    made, out = study(grid={TILES: [1, 2, 3]}), tmp_path / "out"
    sweep(made, out)
    whole = files(out)
    path = sorted((out / "points").iterdir())[1]
    path.write_bytes(damage(path.read_bytes()))
    told = []
    sweep(made, out, progress=told.append)
    assert files(out) == whole and told[-1].done == 1


@quick
def test_points_that_were_exchanged_are_computed_again(study, tmp_path):
    made, out = study(grid={TILES: [1, 2]}), tmp_path / "out"
    sweep(made, out)
    whole = files(out)
    first, second = (out / "points").iterdir()
    other = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(other)
    told = []
    sweep(made, out, progress=told.append)
    assert files(out) == whole and told[-1].done == 2


def test_every_bit_of_a_point_matters(tmp_path):
    store, rows = Store(tmp_path), pd.DataFrame({"cycles": [1, 2], "layer": ["a", "b"]})
    store.put("key", rows)
    path = tmp_path / "points" / "key.point"
    content = path.read_bytes()
    for at in range(0, 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        assert store.get("key") is None and not path.exists(), at
    store.put("key", rows)
    pd.testing.assert_frame_equal(store.get("key"), rows)


# Workers ------------------------------------------------------------------------------------------------------------


def deadly(chunk, content=None):
    """Kills its worker where a machine has three tiles."""
    if any(data["accelerator"]["tiles"] == 3 for data in chunk.machines):
        os.kill(os.getpid(), signal.SIGKILL)
    return simulate_chunk(chunk, content)


def deadly_once(chunk, content=None):
    """Kills its worker the first time."""
    try:
        (Path(chunk.trace).parent / "died").touch(exist_ok=False)
    except FileExistsError:
        return simulate_chunk(chunk, content)
    os.kill(os.getpid(), signal.SIGKILL)


def slowly(chunk, content=None):
    """Takes its time."""
    time.sleep(0.3)
    return simulate_chunk(chunk, content)


def blindly(chunk, content=None):
    """On a worker that does not see the trace."""
    return simulate_chunk(replace(chunk, trace="/nowhere/tiny.npz"), content)


def always_deadly(chunk, content=None):
    """Kills its worker."""
    os.kill(os.getpid(), signal.SIGKILL)


def swept(made, folder, **how):
    """A sweep with its own idea of what workers do: its failures."""
    store = Store(folder)
    plan = plan_sweep(load_study(made), store)
    errors = dict(compute(plan, store, **how))
    table, damaged = write_tables(plan, store, errors)
    assert damaged == 0
    return table[table["error"].notna()]


def test_a_worker_that_dies_is_made_up_for(study, tmp_path, tiny):
    (tmp_path / "tiny.npz").write_bytes(tiny.read_bytes())
    made = study(trace=str(tmp_path / "tiny.npz"), grid={TILES: list(range(1, 9))})
    assert swept(made, tmp_path / "out", jobs=2, work=deadly_once).empty
    assert (tmp_path / "died").exists()
    sweep(made, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_point_that_always_kills_its_worker_is_a_row_and_the_others_are_computed(study, tmp_path):
    made = study(grid={TILES: list(range(1, 7))}, passes=["fwd"])
    failed = swept(made, tmp_path / "out", jobs=2, work=deadly)
    assert failed[TILES].tolist() == [3] and failed["error"].tolist() == ["its worker died, each of 3 times"]
    assert stored(tmp_path / "out") == 5


def test_workers_that_all_die_end_the_sweep(study, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "MOST_DEATHS", 2)
    plan = plan_sweep(load_study(study(grid={TILES: [1, 2, 3, 4]})), Store(tmp_path))
    with pytest.raises(AccelsimError, match="workers: all die before they give a result"):
        list(run_chunks(plan.chunks, 1, work=always_deadly))


def test_a_trace_that_changes_meanwhile_ends_the_sweep(study, tmp_path, tiny, write_tiny):
    (tmp_path / "tiny.npz").write_bytes(tiny.read_bytes())
    plan = plan_sweep(load_study(study(trace=str(tmp_path / "tiny.npz"))), Store(tmp_path))
    write_tiny(tmp_path / "tiny.npz", dataset="other")
    with pytest.raises(AccelsimError, match=r"changed since the sweep began"):
        list(run_chunks(plan.chunks, 1))


def test_a_worker_with_other_code_is_refused(study, tmp_path):
    chunk = plan_sweep(load_study(study()), Store(tmp_path)).chunks[0]
    with pytest.raises(AccelsimError, match="workers must run the same accelsim"):
        simulate_chunk(Chunk(**vars(chunk) | {"code": "other"}))


def test_threads_of_a_worker_share_the_trace_that_the_first_opens(tiny, monkeypatch):
    """What a second one opened would be lost, and never closed."""
    opened, together = [], Barrier(4)

    def slowly(path):
        opened.append(path)
        time.sleep(0.05)
        return Trace.open(path)

    monkeypatch.setattr(chunks, "Trace", SimpleNamespace(open=slowly))

    def open_it(_):
        together.wait()
        return chunks._opened(str(tiny), "a digest of its own", "swat80", None)

    with ThreadPoolExecutor(4) as pool:
        traces = list(pool.map(open_it, range(4)))
    assert len(opened) == 1 and all(trace is traces[0] for trace in traces)
    chunks._OPEN.pop((str(tiny), "a digest of its own", "swat80", None))[0].close()


def test_a_copy_of_a_trace_is_kept_where_nobody_else_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"accelsim-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(AccelsimError, match="must be a folder of this user alone"):
        _private()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(AccelsimError, match="must be a folder of this user alone"):
        _private()
    folder.unlink()
    assert _private() == folder and folder.stat().st_mode & 0o777 == 0o700


# Dask ---------------------------------------------------------------------------------------------------------------


@contextmanager
def dask(folder, workers, protocol="tcp", **settings):
    """A scheduler and workers, processes of their own in another folder; its address."""
    pytest.importorskip("distributed")
    (folder / "away").mkdir(parents=True)
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "TMPDIR": str(folder / "away")} | settings
    how = {"cwd": folder / "away", "env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    file = folder / "scheduler.json"
    run = [sys.executable, "-m"]
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    scheduler = [*run, "distributed.cli.dask_scheduler", "--host", f"{protocol}://127.0.0.1", "--port", "0"]
    worker = [*run, "distributed.cli.dask_worker", "--nthreads", "1", "--nworkers", str(workers)]
    commands = ([*scheduler, *common], [*worker, *common])
    processes = [subprocess.Popen(command, start_new_session=True, **how) for command in commands]
    try:
        wait_for(lambda: file.is_file() and file.read_text().endswith("}"))  # older schedulers write it in place
        yield json.loads(file.read_text())["address"]
    finally:
        for process in processes:  # with the workers' own processes; each is a group
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


@pytest.fixture
def certificates(tmp_path, monkeypatch):
    """Of a cluster over TLS, named in Dask's configuration: that of this process, and of all that it starts."""
    distributed = pytest.importorskip("distributed")
    import dask

    security = distributed.Security.temporary()
    files = {"ca-file": security.tls_ca_file}
    files |= {f"{role}.{kind}": getattr(security, f"tls_{role}_{kind}")
              for role in ("scheduler", "worker", "client") for kind in ("key", "cert")}  # fmt: skip
    settings = {}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        settings[f"distributed.comm.tls.{name}"] = str(tmp_path / name)
        key = f"TLS__{name}".upper().replace(".", "__").replace("-", "_")
        monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__{key}", str(tmp_path / name))
    with dask.config.set(settings):
        yield


def test_dask_workers_without_the_trace_get_it_and_the_bytes_are_the_same(study, tmp_path, certificates):
    made = study(grid={TILES: list(range(1, 9))})
    with dask(tmp_path / "dask", 2, "tls") as address:
        assert address.startswith("tls://")
        assert swept(made, tmp_path / "out", jobs=1, cluster=address, work=blindly).empty
        digest = json.loads((tmp_path / "out" / "sweep.json").read_text())["traces"][made["trace"]]["sha256"]
        kept = tmp_path / "dask" / "away" / f"accelsim-{os.getuid()}" / f"{digest}.npz"
        assert kept.is_file() and kept.parent.stat().st_mode & 0o777 == 0o700
        process = start_on(made, tmp_path, "--cluster", address)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0 and "8 points computed, 0 failed" in out, err
    sweep(made, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole") == files(tmp_path / "by command")


def start_on(made, tmp_path, *more):
    (tmp_path / "study.yaml").write_text(json.dumps(made))
    return start(tmp_path / "study.yaml", tmp_path / "by command", *more)


@pytest.mark.slow
def test_a_dask_worker_killed_mid_point_is_made_up_for(study, tmp_path):
    distributed = pytest.importorskip("distributed")
    made = study(grid={TILES: list(range(1, 13))})
    with dask(tmp_path / "dask", 2) as address, distributed.Client(address) as client:
        client.wait_for_workers(2, timeout=60)
        victim, *_ = client.run(os.getpid).values()
        store = Store(tmp_path / "out")
        plan = plan_sweep(load_study(made), store)
        killed = []

        def kill(progress):
            if progress.done and not killed:
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

        errors = dict(compute(plan, store, jobs=1, cluster=address, progress=kill, work=slowly))
        write_tables(plan, store, errors)
    assert killed and not errors
    sweep(made, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.slow
def test_a_point_that_kills_dask_workers_is_a_row(study, tmp_path):
    made = study(grid={TILES: list(range(1, 5))}, passes=["fwd"])
    with dask(tmp_path / "dask", 1, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as address:
        failed = swept(made, tmp_path / "out", jobs=1, cluster=address, work=deadly)
    assert failed[TILES].tolist() == [3] and failed["error"].tolist() == ["its worker died, each of 3 times"]


@pytest.mark.parametrize("place", ["nowhere", "tcp://10.0.0.1:8786", "http://127.0.0.1:1", "tcp://scheduler:8786"])
def test_a_cluster_that_anybody_may_join_is_refused(study, tmp_path, place):
    pytest.importorskip("distributed")
    with pytest.raises(AccelsimError, match=f"must be local, tls://HOST:PORT or, on this machine, .* got {place}"):
        sweep(study(), tmp_path / "out", cluster=place)


def test_a_cluster_without_certificates_gets_one_line(study, tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(AccelsimError, match=r"cluster: must be a Dask scheduler that answers, got tls://127"):
        sweep(study(), tmp_path / "out", cluster="tls://127.0.0.1:1")


def listening(pids):
    """Host and port that processes listen at."""
    sockets = {link.readlink().name for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = []
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                host, port = fields[1].split(":")
                found.append((host, int(port, 16)))
    return found


def test_a_local_cluster_is_on_loopback_and_speaks_tls_to_its_own(study, tmp_path):
    """The scheduler, two workers and their keepers listen; to no other does any of them answer."""
    distributed = pytest.importorskip("distributed")
    with Workers(2, "local") as workers:
        address = workers._client.scheduler.address
        pids = [os.getpid(), *workers._client.run(os.getpid).values()]
        places = listening(pids)
        assert len(places) == 5 and {host for host, _ in places} == {"0100007F"}
        for _, port in places:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
                stranger.sendall(b"GET /info HTTP/1.0\r\n\r\n")
                with suppress(ConnectionResetError):
                    assert not stranger.recv(100).startswith(b"HTTP")
        assert address.startswith("tls://127.0.0.1:")
        other = distributed.Security.temporary()
        other.tls_ca_file = workers._client.security.tls_ca_file  # believes the scheduler, which does not believe it
        with pytest.raises(OSError):
            distributed.Client(address, security=other, timeout="2s")
    made = study(grid={TILES: [1, 2]}, passes=["fwd"])
    process = start_on(made, tmp_path, "--cluster", "local")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "2 points computed, 0 failed" in out, err


# The command --------------------------------------------------------------------------------------------------------


def test_a_local_cluster_s_certificate_does_not_ask_the_clock():
    pytest.importorskip("distributed")
    from cryptography import x509

    from accelsim.sweeps.cluster import own_security

    one, other = own_security(), own_security()
    found = x509.load_pem_x509_certificate(one.tls_ca_file.encode())
    assert (found.not_valid_before_utc.year, found.not_valid_after_utc.year) == (1970, 9999)
    assert one.tls_worker_key == one.tls_client_key != other.tls_client_key and one.require_encryption


def test_a_local_cluster_that_cannot_start_is_one_line(study, tmp_path, monkeypatch):
    pytest.importorskip("distributed")

    def fail(workers):
        raise RuntimeError("Nanny failed\nto start.")

    monkeypatch.setattr("accelsim.sweeps.cluster._local", fail)
    with pytest.raises(AccelsimError, match=r"^cluster: cannot start one on this machine \(Nanny failed to start.\)$"):
        sweep(study(), tmp_path / "out", cluster="local")


@pytest.mark.slow
def test_a_scheduler_that_goes_away_ends_the_sweep_in_a_line_and_what_was_stored_is_kept(study, tmp_path):
    distributed = pytest.importorskip("distributed")
    made = study(grid={TILES: list(range(1, 21))})
    with dask(tmp_path / "dask", 2) as address:
        with distributed.Client(address) as client:
            scheduler = client.run_on_scheduler(os.getpid)
        process = start_on(made, tmp_path, "--quiet", "--cluster", address)
        wait_for(lambda: (tmp_path / "by command").exists() and stored(tmp_path / "by command") > 2, process)
        os.kill(scheduler, signal.SIGKILL)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and err == f"accelsim: error: cluster: the scheduler {address} is gone\n"
    kept = stored(tmp_path / "by command")
    told = []
    sweep(made, tmp_path / "by command", progress=told.append)
    assert told[0].found == kept > 2 and told[-1].done == 20 - kept


def test_the_command_fails_where_no_point_works(study, tmp_path):
    process = start_on(study(machine="tcle.yaml", passes=["fwd"]), tmp_path, "--quiet")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and err == ""
    assert "0 points computed, 1 failed\n  1 × tcle: swat80/conv1: fwd: accelerator.model: tcle needs values" in out


def test_the_command_shows_a_sparsity_s_error(study, tmp_path):
    process = start_on(study(passes=["fwd"], grid={"sparsity": [0.5]}), tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "cycles made against cycles real" in out and "fidelity.csv" in out


@pytest.mark.slow
def test_a_script_that_calls_it_whenever_it_is_imported_is_told_in_one_error(study, tmp_path):
    """Its workers import it too; each would call ``sweep`` again, and say so at length."""
    made = study(grid={TILES: [1, 2, 3, 4]})
    call = f"accelsim.sweep({json.loads(json.dumps(made))!r}, {str(tmp_path / 'out')!r}, jobs=2)"
    script = tmp_path / "script.py"
    script.write_text(f"import accelsim\n{call}\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert last.endswith('must call it below `if __name__ == "__main__":`, for workers import the script')
    script.write_text(f'import accelsim\nif __name__ == "__main__":\n    {call}\n')
    assert subprocess.run([sys.executable, script], cwd=tmp_path).returncode == 0
