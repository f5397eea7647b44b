"""A sweep that is killed at random moments, again and again, as a process or several, and on Dask, here or elsewhere.

``python tests/faults/sweeps.py [--count 200] [--modes serial,jobs,local,elsewhere]`` prints what was tried. After each
few kills the sweep is let finish: its tables are byte for byte those of one undisturbed, nothing is left over.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]
import conftest  # noqa: E402
from test_sweep import TILES, children, dask, files, gone  # noqa: E402

from accelsim.sweeps.sweep import sweep  # noqa: E402

KILLS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ROUND = 10  # kills before the sweep is let finish
LONGEST = {"serial": 6, "jobs": 6, "local": 14, "elsewhere": 8}  # seconds until a kill


def started(study: Path, out: Path, mode: str, cluster: str | None) -> subprocess.Popen:
    """The command."""
    where = ["--jobs", "1" if mode == "serial" else "2", *(["--cluster", cluster] if cluster else [])]
    command = [sys.executable, "-m", "accelsim.cli", "sweep", str(study), "--out", str(out), "--quiet", *where]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def killed(study: Path, out: Path, mode: str, cluster: str | None, how: signal.Signals, chance: random.Random) -> str:
    """What was wrong with how it ended."""
    process = started(study, out, mode, cluster)
    time.sleep(chance.random() * LONGEST[mode])
    workers = children(process.pid)
    process.kill() if how == signal.SIGKILL else os.killpg(process.pid, how)
    _, said = process.communicate(timeout=120)
    began = b"<frozen site>" not in said  # Python itself was still starting
    if how != signal.SIGKILL and began and process.returncode not in (0, 128 + how, -how):  # -how: so was accelsim
        return f"{how!r}: exit code {process.returncode}: {said[-300:]!r}"
    if process.returncode == 128 + how and list(out.rglob(".accelsim-*")):
        return f"{how!r}: left {list(out.rglob('.accelsim-*'))}"
    return "" if gone(workers, 30) else f"{how!r}: workers outlive it"


def one_round(
    folder: Path, study: Path, whole: dict[str, bytes], mode: str, count: int, chance: random.Random
) -> list[str]:
    """So many kills, and the end; what was wrong."""
    out, wrong = folder / "out", []
    elsewhere = dask(folder / "dask", 2) if mode == "elsewhere" else nullcontext("local" if mode == "local" else None)
    with elsewhere as cluster:
        for number in range(count):
            wrong.append(killed(study, out, mode, cluster, KILLS[number % len(KILLS)], chance))
        process = started(study, out, mode, cluster)
        _, said = process.communicate(timeout=600)
    if process.returncode or files(out) != whole:
        wrong.append(f"the end: {process.returncode}: {said[-300:]!r}")
    if list(out.rglob(".accelsim-*")):
        wrong.append("left behind")
    return [what for what in wrong if what]


def main() -> int:
    """Exit code 1 if anything was lost, wrong or left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, metavar="N", help="kills of each mode (200)")
    parser.add_argument("--modes", default="serial,jobs,local,elsewhere", metavar="M,…")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        trace = conftest.write_tiny.__wrapped__()(folder / "tiny.npz")
        study = folder / "study.yaml"
        study.write_text(
            f"trace: {trace}\nmachine: dadiannao.yaml\ngrid: {{{TILES}: [{', '.join(map(str, range(1, 21)))}]}}\n"
        )
        sweep(study, folder / "whole")
        whole = files(folder / "whole")
        for mode in options.modes.split(","):
            chance, done, found = random.Random(f"{mode}{options.seed}"), 0, []
            while done < options.count:
                count = min(ROUND, options.count - done)
                found += one_round(folder / f"{mode}{done}", study, whole, mode, count, chance)
                done += count
                print(*found, f"{mode}: {done} kills, {len(found)} wrong", sep="\n", flush=True)
            wrong += len(found)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
