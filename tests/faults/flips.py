"""One bit of a store of points, or of results, is another: what was not written is never believed.

``python tests/faults/flips.py [--count 10000] [--seed 0]`` says what was tried. Each flip is read as commands read,
in each hundredth of a store the sweep itself runs and must write the same tables.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import conftest  # noqa: E402

from accelsim import cli  # noqa: E402
from accelsim.errors import ResultsError  # noqa: E402
from accelsim.study.report.folders import read_run  # noqa: E402
from accelsim.sweeps import workers  # noqa: E402
from accelsim.sweeps.store import Store  # noqa: E402
from accelsim.sweeps.sweep import sweep  # noqa: E402

TABLES = ("table.csv", "table.parquet", "layers.parquet", "sweep.json", "manifest.sha256")
WHOLE = 100  # of so many flips one is left for the command


def flips(files: list[Path], count: int, seed: int, read: Callable[[Path], str], whole: Callable[[], str]) -> list[str]:
    """What was wrong after so many flips, each of a random bit of a random file."""
    rng, wrong = np.random.default_rng([seed, len(files)]), []
    for number in range(count):
        path = files[int(rng.integers(len(files)))]
        content = path.read_bytes()
        at = int(rng.integers(8 * len(content)))
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        what = whole() if number % WHOLE == 0 else read(path)
        if what:
            wrong.append(f"{path.name}: bit {at}: {what}")
        path.write_bytes(content)
    return wrong


def of_store(folder: Path, trace: Path, count: int, seed: int) -> list[str]:
    """Flips over the points of a sweep."""
    study = {"trace": str(trace), "machine": "dadiannao.yaml", "grid": {"accelerator.tiles": [2, 4]}}
    sweep(study, folder)
    tables = {name: (folder / name).read_bytes() for name in TABLES}
    store = Store(folder)

    def read(path: Path) -> str:
        return "" if store.get(path.stem) is None and not path.exists() else "was believed"

    def whole() -> str:
        sweep(study, folder)
        same = {name: (folder / name).read_bytes() for name in TABLES} == tables
        return "" if same else "the sweep's tables are others"

    return flips(sorted((folder / "points").iterdir()), count, seed, read, whole)


def of_results(folder: Path, trace: Path, count: int, seed: int) -> list[str]:
    """Flips over what run --out wrote."""
    run = ["run", "--config", "pe8x8.yaml", "--trace", str(trace), "--quiet", "--out", str(folder)]
    assert cli.main(run) == 0
    good = read_run(folder)

    def read(path: Path) -> str:
        try:
            found = read_run(folder)
        except ResultsError as error:
            return "" if str(folder) in str(error) else f"the error does not say where: {error}"
        believed = (
            found.data == good.data and found.table.equals(good.table) and found.files.items() <= good.files.items()
        )
        return "" if believed else "was believed"

    return flips(sorted(folder.iterdir()), count, seed, read, lambda: read(folder))


def main() -> int:
    """Exit code 1 if a wrong bit was believed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="flips of each (10000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    workers.ProcessPoolExecutor = lambda count, **how: ThreadPoolExecutor(count)  # where it is computed is no matter
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        trace = conftest.write_tiny.__wrapped__()(Path(place) / "tiny.npz")
        for of in (of_store, of_results):
            found = of(Path(place) / of.__name__, trace, options.count, options.seed)
            print(*found, f"{of.__name__}: {options.count} flips, {len(found)} wrong", sep="\n", flush=True)
            wrong += found
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
