"""Each command, killed at every rename and fsync, and on a disk that is full from every write on.

``python tests/faults/kills.py [COMMAND …] [--writes 1]`` prints what was tried. Files that were there are as they
were or as they become, all of them; what is left behind is gone after the next start, which gives what it always gives.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import shim  # noqa: E402

STUDY = "trace: tiny.npz\nmachine: dadiannao.yaml\nsnapshots: [swat80]\ngrid: {accelerator.tiles: [%s]}\n"
RUN = ("run", "--config", "pe8x8.yaml", "--trace", "tiny.npz", "--quiet", "--jobs", "1")
MODEL = """
import torch
class Tiny(torch.nn.Sequential):
    def __init__(self, num_classes=10):
        last = torch.nn.Flatten(), torch.nn.Linear(144, num_classes)
        super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), *last)
"""
COMPARE = ("compare", "--trace", "tiny.npz", "--quiet", "--machines")
SWEEP = ("sweep", "--out", "out", "--quiet")
IMPORT = ("import", "m.mtx", "--out", "m.npz")
CAPTURE = ("capture", "--model", "faults_model:Tiny", "--batch", "2", "--image-size", "8", "--steps", "1", "--quiet")
ASK = ("ask", "tiny.npz", "--machines", "pe8x8.yaml,ideal.yaml", "--quiet", "--out", "out")
ANIMATE = ("animate", "--config", "pe8x8.yaml", "--memory", "none", "--out", "a.html", "--toy")
REPRODUCE = ("reproduce", "--quiet", "--out", "out")
TOY = "channels=2,filters=2,height=4,width=4"
MTX = "%%MatrixMarket matrix coordinate real general\n3 4 3\n1 1 5\n2 3 -1\n3 4 2\n"


@dataclass(frozen=True)
class Command:
    """Arguments, and those that wrote what was there before; none: nothing was."""

    name: str
    arguments: tuple[str, ...]
    before: tuple[str, ...] = ()
    refuses: bool = False  # a folder that is there


COMMANDS = (
    Command("run, new folder", (*RUN, "--out", "new")),
    Command("run, over results", (*RUN, "--out", "out"), (*RUN, "--out", "out", "--passes", "fwd")),
    Command("run, pictures", (*RUN, "--plots", "out"), (*RUN, "--plots", "out", "--passes", "fwd")),
    Command("run, timeline", (*RUN, "--timeline", "t.json"), (*RUN, "--timeline", "t.json", "--passes", "fwd")),
    Command("compare", (*COMPARE, "pe8x8.yaml,ideal.yaml", "--out", "out"), (*COMPARE, "pe8x8.yaml", "--out", "out")),
    Command("compare, picture", (*COMPARE, "pe8x8.yaml,ideal.yaml", "--plot", "p.svg"),
            (*COMPARE, "pe8x8.yaml", "--plot", "p.svg")),
    Command("ask", ASK, (*ASK, "--layers", "conv1")),
    Command("sweep", (*SWEEP, "two.yaml"), (*SWEEP, "one.yaml")),
    Command("sweep, new folder", (*SWEEP, "two.yaml")),
    Command("report", ("report", "results")),
    Command("report, elsewhere", ("report", "results", "--out", "r.html"), ("report", "comparison", "--out", "r.html")),
    Command("animate", (*ANIMATE, f"{TOY},seed=1"), (*ANIMATE, TOY)),
    Command("merge", ("merge", "--force", "-o", "m.npz", "tiny.npz", "again.npz"),
            ("merge", "-o", "m.npz", "tiny.npz", "again.npz", "again.npz")),
    Command("reproduce", (*REPRODUCE, "table4", "memory"), (*REPRODUCE, "table4")),
    Command("rtl export", ("rtl", "export", "--config", "tensordash.yaml", "--out", "out"),
            ("rtl", "export", "--config", "tensordash.yaml", "--set", "accelerator.lanes=8", "--out", "out")),
    Command("import", (*IMPORT, "--force", "--seed", "1"), IMPORT),
    Command("export", ("export", "--trace", "tiny.npz", "--format", "timeloop", "--out", "out"), refuses=True),
    Command("export, results", ("export", "--results", "results", "--format", "scalesim", "--out", "out"),
            refuses=True),
    Command("new machine", ("new", "machine", "mine", "--out", "out"), refuses=True),
    Command("validate", ("validate", "cnvlutin", "--out", "out", "--quiet")),
    Command("capture", (*CAPTURE, "--out", "c.npz", "--force", "--seed", "1"), (*CAPTURE, "--out", "c.npz")),
)  # fmt: skip


def main() -> int:
    """Exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="COMMAND", help="by default all")
    parser.add_argument("--writes", type=int, default=1, metavar="N", help="of full disks try each nth only (1)")
    options = parser.parse_args()
    shim.reexecute()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    prepared(folder / "start")
    wrong = 0
    for command in COMMANDS:
        if not options.names or command.name in options.names:
            found = list(faults(command, folder, options.writes))
            for fault in filter(None, found):
                wrong += 1
                print(f"{command.name}: {fault}", flush=True)
            print(f"{command.name}: {len(found)} faults tried", flush=True)
    print(f"{wrong} wrong")
    shutil.rmtree(folder)
    return int(wrong > 0)


def prepared(start: Path) -> None:
    """A folder with what commands read; and everything imported and compiled that they need."""
    from concurrent.futures import ThreadPoolExecutor

    import conftest
    import matplotlib
    import numba  # noqa: F401

    import accelsim
    from accelsim.study import accelergy, compare, export, plots, report, scalesim_reports, tables  # noqa: F401
    from accelsim.study.validation import catalogue, page  # noqa: F401
    from accelsim.sweeps import sweep, text, workers  # noqa: F401
    from accelsim.workload.exporters import timeloop  # noqa: F401
    from accelsim.workload.importers import mtx, said  # noqa: F401

    matplotlib.use("agg")
    workers.ProcessPoolExecutor = lambda count, **how: ThreadPoolExecutor(
        count
    )  # where points are computed is no matter
    start.mkdir()
    os.chdir(start)
    for name in ("tiny", "again"):
        conftest.write_tiny.__wrapped__()(start / f"{name}.npz")
    for name, tiles in (("one", "4"), ("two", "4, 8")):
        (start / f"{name}.yaml").write_text(STUDY % tiles)
    (start / "m.mtx").write_text(MTX)
    (start / "faults_model.py").write_text(MODEL)
    sys.path.insert(0, str(start))
    with accelsim.open_trace("tiny.npz") as trace:
        for name in ("pe8x8.yaml", "dadiannao.yaml", "ideal.yaml"):
            list(accelsim.simulate_records(accelsim.load_machine(name), trace))
    for arguments in ((*RUN, "--out", "results"), (*COMPARE, "pe8x8.yaml", "--out", "comparison")):
        done = run(arguments, start)
        assert done.code == 0, done.said


def faults(command: Command, folder: Path, writes: int) -> Iterator[str]:
    """Of each fault tried what was wrong then; nothing, if nothing was."""
    old, new = folder / "old", folder / "whole"
    for place, runs in ((old, (command.before,)), (new, (command.before, command.arguments))):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "start", place)
        for arguments in filter(None, runs):
            done = run(arguments, place)
            assert done.code == 0, done.said
    ends = content(old), content(new)
    for kind, ops in (
        (shim.KILL_BEFORE, shim.MOVES),
        (shim.KILL_AFTER, shim.MOVES),
        (shim.FULL, shim.MOVES | shim.TAKES_SPACE),
    ):
        place = copied(old, folder)
        calls = run(command.arguments, place, shim.COUNT, ops).calls
        for at in range(0, calls, writes if kind == shim.FULL else 1):
            yield one(command, copied(old, folder), kind, ops, at, ends)


def one(
    command: Command, place: Path, kind: int, ops: int, at: int, ends: tuple[dict[str, bytes], dict[str, bytes]]
) -> str:
    """What is wrong after a fault: where it left off, and after the next start, which is left to sweep up itself."""
    what = f"{('', 'killed before', 'killed after', 'full from')[kind]} call {at}"
    done = run(command.arguments, place, kind, ops, at)
    if kind == shim.FULL:
        if done.code == 0 and content(place) == ends[1]:
            return ""  # it could do without
        if done.code != 2 or len(done.said.strip().splitlines()) != 1 or "Traceback" in done.said:
            return f"{what}: exit code {done.code}: {done.said[-300:]}"
    elif done.code is not None:
        return f"{what}: was not killed: {done.code}: {done.said[-300:]}"
    old, new = ends
    if content(place) == old and names(place) == names(place.with_name("old")):
        return ""  # as if it had never been started
    found = content(swept(place))
    points = {name: data for name, data in found.items() if name.startswith("out/points/")}
    bare = {name: data for name, data in found.items() if name not in points}
    if bare not in [{name: data for name, data in end.items() if "out/points/" not in name} for end in (old, new)]:
        odd = [name for name in found.keys() | new.keys() if found.get(name) != new.get(name)]
        return f"{what}: neither old nor new: {odd}"
    if not points.items() <= new.items() or not {name for name in old if "out/points/" in name} <= points.keys():
        return f"{what}: points were lost, or are not whole: {sorted(points)}"
    if command.refuses and found == new:
        return ""  # it mixes with nothing that is there
    again = run(command.arguments, place)
    if again.code != 0 or content(place) != new:
        return f"{what}: the next start does not finish: {again.code}: {again.said[-300:]}"
    left = [str(path) for path in place.rglob(".accelsim-*")]
    return f"{what}: left behind: {left}" if left else ""


def swept(place: Path) -> Path:
    """A copy of a folder, as whoever reads in it finds it."""
    from accelsim.durable import sweep_up

    copy = place.with_name("seen")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy)
    for inner in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        sweep_up(inner)
    return copy


def run(
    arguments: tuple[str, ...], place: Path, kind: int = shim.COUNT, ops: int = shim.MOVES, at: int = -1
) -> shim.Ended:
    """A command in a folder, in a process of its own."""
    from accelsim import cli

    def work() -> int:
        os.chdir(place)
        return cli.main(list(arguments))

    return shim.forked(work, place, kind, ops, at)


def copied(old: Path, folder: Path) -> Path:
    """The folder to try in, as it was."""
    place = folder / "work"
    shutil.rmtree(place, ignore_errors=True)
    return Path(shutil.copytree(old, place))


def content(place: Path) -> dict[str, bytes]:
    """Files that have come to stay; the folder's own name, in outputs that hold it, made one."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes().replace(bytes(place.resolve()), b"PLACE")
        for path in sorted(place.rglob("*"))
        if path.is_file() and "/.accelsim-" not in f"/{path.relative_to(place)}" and "__pycache__" not in path.parts
    }


def names(place: Path) -> set[Path]:
    """Of everything that is there."""
    return {path.relative_to(place) for path in place.rglob("*") if "__pycache__" not in path.parts}


if __name__ == "__main__":
    sys.exit(main())
