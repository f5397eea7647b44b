"""Folders of results with values, bytes and lines changed, and signed: what report, export and diff make of them.

``python tests/fuzz/results.py [--count 100000] [--seed 0]`` prints each fault with the folder that gives it, which is
kept. None may give a traceback, more than a line, or a file elsewhere. The suite runs a few (tests/test_report.py).
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from importers import mutated  # noqa: E402

from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.study import manifest  # noqa: E402
from accelsim.study.diff import diff_runs, shown  # noqa: E402
from accelsim.study.report import write_report  # noqa: E402
from accelsim.study.scalesim_reports import reports  # noqa: E402

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 1 << 62, 1 << 63, 1 << 64, 10**400, 0.5, -0.0, 1e308, 5e-324, "",
    "x", "\ud800", "\0", "\n", "../../x", "=1+1", "<script>", "\u202e", "€" * 300, [], {}, [None],
    {"": None}, [[]], {"name": "\ud800"},
)  # fmt: skip
CELLS = (
    "",
    "0",
    "-1",
    "1e9",
    "0.5",
    "nan",
    "inf",
    "9223372036854775808",
    "x",
    '"',
    "'",
    "=1+1",
    "../x",
    "\x1b[2J",
    "é",
)


def changed(data: Any, rng: np.random.Generator) -> Any:
    """Plain data with a node of it made another, gone, or there twice."""
    if isinstance(data, dict) and data and rng.random() < 0.93:
        key = list(data)[int(rng.integers(len(data)))]
        if rng.random() < 0.04:
            return {name: value for name, value in data.items() if name != key}
        if rng.random() < 0.02:
            return {("\ud800" if name == key else name): value for name, value in data.items()}
        return data | {key: changed(data[key], rng)}
    if isinstance(data, list) and data and rng.random() < 0.93:
        at = int(rng.integers(len(data)))
        middle = [[changed(data[at], rng)], [], [data[at], data[at]]][int(rng.choice(3, p=(0.9, 0.05, 0.05)))]
        return [*data[:at], *middle, *data[at + 1 :]]
    return ODD[int(rng.integers(len(ODD)))]


def with_cell(text: str, rng: np.random.Generator) -> str:
    """A table with a cell, sometimes of its head, made another."""
    lines = text.split("\n")
    row = int(rng.integers(len(lines)))
    cells = lines[row].split(",")
    cells[int(rng.integers(len(cells)))] = CELLS[int(rng.integers(len(CELLS)))]
    return "\n".join([*lines[:row], ",".join(cells), *lines[row + 1 :]])


def spoil(folder: Path, rng: np.random.Generator) -> None:
    """Changes one to three things in a folder, and signs it; one time in ten the digests are changed after that."""
    for _ in range(int(rng.integers(1, 4))):
        how, name = int(rng.integers(8)), ("run.json", "layers.csv")[int(rng.integers(2))]
        path = folder / name
        if how <= 3:
            path = folder / "run.json"
            try:
                path.write_text(json.dumps(changed(json.loads(path.read_bytes()), rng)))
            except (ValueError, RecursionError):  # it was spoilt before
                continue
        elif how <= 5:
            path = folder / "layers.csv"
            path.write_text(with_cell(path.read_text("utf-8", "replace"), rng), "utf-8")
        elif how == 6:
            path.write_bytes(mutated(path.read_bytes(), rng))
        else:
            other = folder / ("layers.parquet", "summary.txt", "action_counts.yaml")[int(rng.integers(3))]
            other.write_bytes(rng.bytes(int(rng.integers(100))))
    manifest.write(folder)
    if rng.random() < 0.1:
        path = folder / manifest.NAME
        path.write_bytes(mutated(path.read_bytes(), rng))


def fault(folder: Path, good: Path) -> str:
    """What is wrong with what becomes of a folder; nothing, if all is well, or it is refused in a line."""
    uses = {
        "report": lambda: write_report(folder, folder.parent / "report.html"),
        "export": lambda: [(folder / name).resolve().relative_to(folder) for name, _ in written(folder)],
        "diff": lambda: list(shown(diff_runs(good, folder))),
    }
    for name, use in uses.items():
        try:
            use()
        except AccelsimError as error:
            if not str(error).isprintable() or len(error.lines) != 1:
                return f"{name}: more than a line: {str(error)[:200]!r}"
        except Exception as error:
            return f"{name}: {type(error).__name__}: {str(error)[:200]}"
    return ""


def written(folder: Path) -> list[tuple[str, bytes]]:
    """The files that an export would write."""
    return [(name, text.encode()) for name, text in reports(folder)]


def faults(good: Path, count: int, seed: int, folder: Path) -> Iterator[tuple[Path, str]]:
    """Of so many spoilt copies of a good folder those that show a fault, which are kept."""
    rng = np.random.default_rng([seed, 18])
    for number in range(count):
        copy = Path(shutil.copytree(good, folder / f"{number}" / "results"))
        spoil(copy, rng)
        wrong = fault(copy.resolve(), good)
        if wrong:
            yield copy, wrong
        else:
            shutil.rmtree(copy.parent)


def main() -> int:
    """Exit code 1 if there is a fault."""
    import conftest

    from accelsim import cli

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="folders (100000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    folder, wrong = Path(tempfile.mkdtemp(prefix="fuzz-")), 0
    conftest.write_tiny.__wrapped__()(folder / "tiny.npz")
    run = ["run", "--config", "pe8x8.yaml", "--trace", str(folder / "tiny.npz"), "--quiet", "--layers", "conv1"]
    assert cli.main([*run, "--out", str(folder / "good")]) == 0
    for path, what in faults(folder / "good", options.count, options.seed, folder / "tried"):
        wrong += 1
        print(f"{path}: {what}", flush=True)
    print(f"{options.count} folders, {wrong} faults" + (f", kept in {folder}" if wrong else ""))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
