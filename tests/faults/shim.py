"""The shim of shim.c: compiled, loaded before everything, and armed in processes that are forked to die.

The parent is warm (imported, kernels compiled) and has no threads; a child costs what its command costs.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

COUNT, KILL_BEFORE, KILL_AFTER, FULL = range(4)
MOVES, TAKES_SPACE = 1, 2
MARK = "ACCELSIM_FAULT_SHIM"
SECONDS = 300


def reexecute() -> None:
    """Starts this program again with the shim loaded, unless it is. Needs a C compiler."""
    if MARK in os.environ:
        del os.environ["LD_PRELOAD"]  # workers and other programs are none of its business
        return
    library = compiled("shim.c")
    one = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    os.execve(
        sys.executable, [sys.executable, *sys.argv], os.environ | one | {MARK: str(library), "LD_PRELOAD": str(library)}
    )


def compiled(source: str) -> Path:
    """A library of a C file beside this one."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("needs a C compiler, cc or gcc")
    library = Path(tempfile.mkdtemp(prefix="shim-")) / Path(source).with_suffix(".so")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, Path(__file__).with_name(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, None where it was killed; its calls, where it lived to count; its words."""

    code: int | None
    calls: int
    said: str


def forked(work: Callable[[], int], under: Path, kind: int, ops: int, at: int = -1) -> Ended:
    """Runs work in a child, armed."""
    library = ctypes.CDLL(os.environ[MARK])
    library.fault_count.restype = ctypes.c_long
    counted, counts = os.pipe()
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if not pid:
            code = 70
            try:
                signal.alarm(SECONDS)
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                library.fault_arm(os.fsencode(under.resolve()), kind, ops, ctypes.c_long(at))
                code = work()
                sys.stdout.flush()
                sys.stderr.flush()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 71
            finally:
                os.write(counts, b"%d" % library.fault_count())
                os._exit(code)
        os.close(counts)
        _, status = os.waitpid(pid, 0)
        told = os.read(counted, 32)
        os.close(counted)
        said.seek(0)
        text = said.read().decode(errors="replace")
    was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return Ended(None if was_killed else os.waitstatus_to_exitcode(status), int(told or 0), text)
