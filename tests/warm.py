"""Runs of the program that skip its imports: each is a fork of a process that has made them.

    done = PROGRAM.run(["info", "resnet50.npz"], folder, environment)

What a run prints, writes and returns is what ``python -m accelsim.cli`` does; how long it takes to start, and what the
environment changes while modules are imported, is not seen here.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import redirect_stdout
from pathlib import Path

LIMIT_SECONDS = 120


class Program:
    """The warm process, seen from the tests; there from the first run until the tests end."""

    _process: subprocess.Popen[str] | None = None

    def run(self, arguments: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        """One run in a folder, without a terminal."""
        if self._process is None:
            command = [sys.executable, __file__]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            atexit.register(self._process.communicate)
        with tempfile.TemporaryDirectory() as folder:
            out, err = (Path(folder, name) for name in ("out", "err"))
            asked = {"arguments": arguments, "cwd": str(cwd), "env": env, "out": str(out), "err": str(err)}
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, out.read_bytes(), err.read_bytes())


PROGRAM = Program()
# It makes every import, and loads every kernel from numba's cache.
FIRST = ["compare", "--trace", "resnet20-int8.npz", "--layers", "layer3.0.conv1", "--snapshots", "swat80", "--quiet"]


def serve() -> None:
    """Forks once a line of requests, and answers with the exit code."""
    from accelsim import cli

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        cli.main(FIRST)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            be_the_program(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def be_the_program(arguments: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """What is left to do in the fork."""
    from accelsim import cli

    signal.alarm(LIMIT_SECONDS)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, path in enumerate((os.devnull, out, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
    sys.argv = ["accelsim", *arguments]
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w", errors="backslashreplace", buffering=1)  # noqa: SIM115
    code: object = 1
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    serve()
