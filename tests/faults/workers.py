"""A sweep whose workers, or whose cluster's scheduler, are killed at random moments: nothing is lost, nothing wrong.

``python tests/faults/workers.py [--count 50] [--victims jobs,local,elsewhere,scheduler]`` prints what was tried. Where
one of two workers dies the sweep makes up for it. Without its scheduler it ends in a line, keeps what it has, and the
same command, as processes, goes on.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import conftest  # noqa: E402
from sweeps import started  # noqa: E402
from test_sweep import TILES, children, dask, files  # noqa: E402

from accelsim.sweeps.sweep import sweep  # noqa: E402

SECONDS = 300


@contextmanager
def cluster_of(victim: str, folder: Path) -> Iterator[tuple[str | None, Callable[[int], list[int]]]]:
    """The cluster that a sweep runs on, and who may be killed, given the sweep's process."""
    if victim in ("jobs", "local"):
        yield None if victim == "jobs" else "local", children
        return
    from distributed import Client

    with dask(folder, 2) as address:
        with Client(address) as client:
            client.wait_for_workers(2, timeout=60)
            workers, scheduler = client.run(os.getpid), client.run_on_scheduler(os.getpid)
        yield address, lambda _: [scheduler] if victim == "scheduler" else list(workers.values())


def one(folder: Path, study: Path, whole: dict[str, bytes], victim: str, chance: random.Random) -> tuple[bool, str]:
    """Whether the sweep was still at it when it was hit, and what was wrong after that."""
    out = folder / "out"
    with cluster_of(victim, folder / "dask") as (cluster, victims):
        process = started(study, out, victim, cluster)
        points = chance.randrange(18)  # stored until then
        while process.poll() is None and len(list(out.glob("points/*.point"))) < points:
            time.sleep(0.01)
        time.sleep(chance.random() / 5)
        hit, pids = process.poll() is None, victims(process.pid)
        if pids:
            os.kill(chance.choice(pids), signal.SIGKILL)
        _, said = process.communicate(timeout=SECONDS)
    if victim == "scheduler" and process.returncode == 2:
        lines = said.decode().strip().splitlines()
        if len(lines) != 1 or not lines[0].startswith("accelsim: error: cluster: "):
            return hit, f"not a line: {said[-300:]!r}"
        process = started(study, out, "jobs", None)
        _, said = process.communicate(timeout=SECONDS)
    if process.returncode or files(out) != whole:
        return hit, f"{process.returncode}: {said[-300:]!r}"
    return hit, "left behind" if list(out.rglob(".accelsim-*")) else ""


def main() -> int:
    """Exit code 1 if anything was lost, wrong or left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50, metavar="N", help="kills of each kind (50)")
    parser.add_argument("--victims", default="jobs,local,elsewhere,scheduler", metavar="V,…")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        trace = conftest.write_tiny.__wrapped__()(folder / "tiny.npz")
        study = folder / "study.yaml"
        tiles = ", ".join(map(str, range(1, 21)))
        study.write_text(f"trace: {trace}\nmachine: dadiannao.yaml\ngrid: {{{TILES}: [{tiles}]}}\n")
        sweep(study, folder / "whole")
        whole = files(folder / "whole")
        for victim in options.victims.split(","):
            chance, hits = random.Random(f"{victim}{options.seed}"), 0
            for number in range(options.count):
                hit, what = one(folder / "one", study, whole, victim, chance)
                hits, wrong = hits + hit, wrong + bool(what)
                shutil.rmtree(folder / "one")
                print(f"{victim}: {number + 1} kills, {hits} while it swept{what and ': '}{what}", flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
