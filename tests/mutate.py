"""Is every wrong program of mutations.py noticed? Applied as accelsim is imported, it must fail a test that names it.

    python tests/mutate.py                   all of them, on all cores; exits with 1 where one is not noticed
    python tests/mutate.py NAME …            some; shell patterns
    ACCELSIM_MUTATION=NAME python -m pytest -p mutate tests/test_x.py     by hand, with tests on the PYTHONPATH

No file is changed. Kernels run uncompiled, so that no cache of theirs is written or read; ``compiled`` ones in a cache
of their own. What is no mutation must pass the same tests first: a test that fails anyway notices nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from fnmatch import fnmatchcase
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path

from mutations import MUTATIONS, Mutation

HERE = Path(__file__).parent
VARIABLE = "ACCELSIM_MUTATION"
# A wrong program may wait for what never comes; the right one is tried with the tests of all.
LIMIT_SECONDS = 300
PASSED, FAILED = 0, 1


class Mutated(SourceFileLoader):
    """Loads a file of accelsim as it is not."""

    def __init__(self, spec: ModuleSpec, mutation: Mutation):
        super().__init__(spec.name, spec.origin)
        self.mutation = mutation

    def get_code(self, fullname):
        return self.source_to_code(self.mutation.applied(self.get_source(fullname)), self.path)


class Finder(MetaPathFinder):
    """Finds the one module of a mutation."""

    def __init__(self, mutation: Mutation):
        self.mutation = mutation
        if mutation.module in sys.modules:
            raise RuntimeError(f"{mutation.module}: was imported too early to be mutated")

    def find_spec(self, fullname, path, target=None):
        if fullname != self.mutation.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        return importlib.util.spec_from_loader(fullname, Mutated(spec, self.mutation), origin=spec.origin)


def as_plugin(asked: str) -> None:
    """In pytest, before anything of accelsim is imported: a mutation, or none, and the same examples in any case.

    ``asked``: its name; or all of it, as JSON.
    """
    from hypothesis import Phase, settings

    settings.register_profile("mutation", derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutation")
    if asked:
        listed = {m.name: m for m in MUTATIONS}
        sys.meta_path.insert(0, Finder(Mutation(**json.loads(asked)) if asked.startswith("{") else listed[asked]))


def run(tests: Iterable[str], mutation: Mutation | None, compiled: bool) -> tuple[int, str]:
    """Pytest's exit code and what it printed."""
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        env |= {VARIABLE: json.dumps(asdict(mutation)) if mutation else ""}
        if not compiled:
            env |= {"NUMBA_DISABLE_JIT": "1"}
        elif mutation and mutation.is_kernel:
            env |= {"NUMBA_CACHE_DIR": cache}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "mutate"]
        # Kernels hash in 64 bits, which wrap around; as Python NumPy warns of it.
        command += ["-W", "ignore:overflow encountered:RuntimeWarning", *(f"tests/{test}" for test in tests)]
        try:
            done = subprocess.run(
                command, cwd=HERE.parent, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=LIMIT_SECONDS if mutation else None,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return -1, f"no end after {LIMIT_SECONDS} s"
    return done.returncode, done.stdout + done.stderr


def verdict(mutation: Mutation) -> tuple[bool, str]:
    """Whether all is as the list says, and a line that says so."""
    began = time.monotonic()
    code, output = run(mutation.tests, mutation, mutation.compiled)
    took = f"{time.monotonic() - began:.1f} s"
    if code not in (PASSED, FAILED):
        return False, f"{mutation.name}: cannot be judged, pytest ended with {code}\n{output}"
    found = re.search(r"^FAILED tests/(\S+)", output, re.M)
    said = f"noticed by {found[1]}" if found else "SURVIVES"
    if mutation.survives:
        return not found, f"{mutation.name}: {said if found else 'survives, as it may'} ({took})"
    return found is not None, f"{mutation.name}: {said} ({took})"


def unmutated(chosen: list[Mutation]) -> list[str]:
    """What the tests say of the program as it is: nothing, if they pass."""
    problems = []
    for compiled in (False, True):
        tests = list(dict.fromkeys(test for m in chosen if m.compiled == compiled for test in m.tests))
        code, output = run(tests, None, compiled) if tests else (PASSED, "")
        problems += [output] if code != PASSED else []
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=["*"], metavar="NAME")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    chosen = [m for m in MUTATIONS if any(fnmatchcase(m.name, name) for name in asked.names)]
    problems = unmutated(chosen)
    if problems or not chosen:
        print(*problems or ["no such mutation"], sep="\n")
        return 1
    wrong = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        for number, (fine, line) in enumerate(pool.map(verdict, chosen), start=1):
            print(f"{number}/{len(chosen)} {line}", flush=True)
            wrong += not fine
    print(f"{len(chosen) - wrong} of {len(chosen)} mutations are as they should be")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
if VARIABLE in os.environ:
    as_plugin(os.environ[VARIABLE])
