"""What saturates first when a thousand workers sweep? ``benchmarks/thousand_workers.py [--write docs/sweeps.md]``.

Measures here what a point costs the process that stores it and writes the tables, and simulates the rest with SimPy:
chunks go through a scheduler (one server), to workers, and their results through the one process that writes.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import simpy
from page import print_or_write

from accelsim.sweeps.chunks import simulate_chunk
from accelsim.sweeps.store import Store
from accelsim.sweeps.study import load_study
from accelsim.sweeps.sweep import plan_sweep
from accelsim.sweeps.tables import write_tables

# Dask's documentation: about 1 ms a task.
SCHEDULER_SECONDS = 1e-3
TRACE_BYTES, LINK_BYTES_PER_SECOND = 8.4e6, 1e9 / 8
POINTS = 100_000
STUDY = {
    "trace": "resnet50.npz", "machine": "bit-tactical.yaml", "passes": ["fwd"], "snapshots": ["swat80"],
    "grid": {"accelerator.lookahead_h": [1, 2, 3, 4], "accelerator.rows": [4, 8, 16]},
}  # fmt: skip


def measured() -> tuple[float, float, float]:
    """CPU seconds of a point: computing, storing, its part of the tables."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        plan = plan_sweep(load_study(STUDY), store)
        chunk = plan.chunks[0]
        simulate_chunk(chunk)  # compiles
        start = time.process_time()
        rows = simulate_chunk(chunk)[0]
        compute = (time.process_time() - start) / len(chunk.keys)
        start = time.process_time()
        for key in plan.keys:
            store.put(key, rows)
        stored = time.process_time()
        write_tables(plan, store, {})
        count = len(plan.keys)
        return compute, (stored - start) / count, (time.process_time() - stored) / count


def simulated(workers: int, together: int, compute: float, store: float) -> tuple[float, dict[str, float]]:
    """Seconds until the last point is stored, and how busy each part was meanwhile."""
    env = simpy.Environment()
    scheduler, writer, slots = simpy.Resource(env), simpy.Resource(env), simpy.Resource(env, workers)
    busy = {"scheduler": 0.0, "writer": 0.0, "workers": 0.0}

    def use(resource, name: str, seconds: float):
        with resource.request() as turn:
            yield turn
            yield env.timeout(seconds)
            busy[name] += seconds

    def chunk():
        yield env.process(use(scheduler, "scheduler", SCHEDULER_SECONDS))
        yield env.process(use(slots, "workers", together * compute))
        yield env.process(use(writer, "writer", together * store))

    # The trace, to twice as many workers in each round.
    env.run(env.timeout((workers - 1).bit_length() * TRACE_BYTES / LINK_BYTES_PER_SECOND))
    for _ in range(POINTS // together):
        env.process(chunk())
    env.run()
    return env.now, {name: seconds / env.now / (workers if name == "workers" else 1) for name, seconds in busy.items()}


def lines() -> Iterator[str]:
    """A table, a Markdown line at a time."""
    compute, store, table = measured()
    yield f"A point (Bit-Tactical, forward pass of ResNet-50) takes {compute:.2f} CPU-s to compute,"
    yield f"{1e3 * store:.1f} ms to store and {1e3 * table:.1f} ms of the tables, measured."
    yield f"{POINTS:,} points in chunks of 8:"
    yield ""
    yield "| workers | points done after | workers busy | scheduler busy | writer busy | tables after that |"
    yield "|---|---|---|---|---|---|"
    rows = []
    for workers in (10, 100, 300, 1000, 3000):
        seconds, busy = simulated(workers, 8, compute, store)
        rows.append({"workers": workers, "seconds": seconds, **{f"{name}_busy": share for name, share in busy.items()}})
        shares = (f"{100 * busy[name]:.0f} %" for name in ("workers", "scheduler", "writer"))
        yield f"| {workers:,} | {seconds:,.0f} s | " + " | ".join(shares) + f" | {POINTS * table:,.0f} s |"
    full = pd.DataFrame(rows).query("writer_busy > 0.9")["workers"].min()
    yield ""
    yield f"The writer saturates first: at {1 / store:,.0f} points a second, that is {compute / store:,.0f} workers"
    yield f"of such points (in the table from {full:,} on);"
    yield f"the scheduler at {8 / SCHEDULER_SECONDS:,.0f} points a second."


if __name__ == "__main__":
    print_or_write("thousand_workers.py", __doc__.splitlines()[0], lines())
