"""A machine whose clock jumps by years, ten times a second: commands write the same bytes, and lose nothing.

``python tests/faults/clocks.py [--rounds 3]`` prints what was tried. Sweeps are killed half way and started again. On a
cluster it jumps by hours, each second: Dask's timers follow the machine's clock, and wait for years if it says so.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import conftest  # noqa: E402
import shim  # noqa: E402

STUDY = "trace: tiny.npz\nmachine: dadiannao.yaml\ngrid: {accelerator.tiles: [1, 2, 3, 4, 5, 6, 7, 8]}\n"
MTX = "%%MatrixMarket matrix coordinate real general\n3 4 3\n1 1 5\n2 3 -1\n3 4 2\n"
RUN = ("run", "--config", "pe8x8.yaml", "--trace", "tiny.npz", "--quiet")
SWEEP = ("sweep", "study.yaml", "--quiet", "--out", "out", "--jobs", "2")
COMMANDS = {
    "run": (
        "run",
        "--config",
        "pe8x8.yaml",
        "--trace",
        "tiny.npz",
        "--quiet",
        "--out",
        "out",
        "--timeline",
        "t.json.gz",
    ),
    "import": ("import", "m.mtx", "--out", "m.npz"),
    "report": ("report", "results"),
    "sweep": SWEEP,
    "sweep on a cluster": (*SWEEP, "--cluster", "local"),
}
YEARS = {"CLOCK_TENTHS": "1", "CLOCK_SECONDS": str(10 * 365 * 86400)}
HOURS = {"CLOCK_TENTHS": "10", "CLOCK_SECONDS": str(2 * 3600)}
KILLED_AFTER = 3  # points


def ended(command: tuple[str, ...], folder: Path, env: dict[str, str], killed: bool) -> str:
    """A command in a folder; a sweep is killed half way first. What it said, if it failed."""
    line = [sys.executable, "-m", "accelsim.cli", *command]
    if killed:
        process = subprocess.Popen(line, cwd=folder, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(folder.glob("out/points/*.point"))) < KILLED_AFTER:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    return done.stderr[-300:] if done.returncode else ""


def content(folder: Path) -> dict[str, bytes]:
    """Files byte for byte; hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made(folder: Path, env: dict[str, str]) -> Path:
    """A folder with what commands read, ``results`` among them."""
    folder.mkdir()
    conftest.write_tiny.__wrapped__()(folder / "tiny.npz")
    (folder / "study.yaml").write_text(STUDY)
    (folder / "m.mtx").write_text(MTX)
    said = ended((*RUN, "--out", "results"), folder, env, killed=False)
    assert not said, said
    return folder


def main() -> int:
    """Exit code 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    options = parser.parse_args()
    steady = dict(os.environ)
    shimmed = steady | {"LD_PRELOAD": str(shim.compiled("clock.c"))}
    wrong = 0
    for number in range(options.rounds):
        for name, command in COMMANDS.items():
            jumping = shimmed | (HOURS if "cluster" in name else YEARS)
            with tempfile.TemporaryDirectory() as place:
                wanted, got = made(Path(place) / "steady", steady), made(Path(place) / "jumping", jumping)
                said = ended(command, wanted, steady, killed=False)
                said = said or ended(command, got, jumping, killed=name.startswith("sweep"))
                odd = [] if said else [path for path, data in content(wanted).items() if content(got).get(path) != data]
                wrong += bool(said or odd or len(content(got)) != len(content(wanted)))
                print(f"{name}: {number + 1} rounds{said and ': '}{said} {odd or ''}".rstrip(), flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
