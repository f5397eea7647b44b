"""Files written beside their place and renamed when they are whole: on the disk first, and swept up after a kill.

A temporary file or folder is named ``.accelsim-*`` and locked as long as its process lives; the system lets go of the
lock when the process ends, however it ends. So what is not locked is nobody's, whatever pids, hosts and clocks say. On
a file system without locks nothing is swept up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelsim.interrupts import held_back

PREFIX = ".accelsim-"
# A folder of whole files that are on their way into the folder around it: from its renaming on they have taken place.
READY = ".accelsim-ready-"
ATTEMPTS = 100
PATIENCE_SECONDS = 30.0


class Temporary:
    """A new empty file or folder with a name of its own, which no other process takes for a dead one's.

    Permissions are as the umask has them. OSError where it cannot be made.
    """

    def __init__(self, parent: Path, *, folder: bool = False):
        self._lock = -1
        for _ in range(ATTEMPTS):
            self.path = parent / f"{PREFIX}{secrets.token_hex(8)}{'' if folder else '.tmp'}"
            try:
                with held_back():
                    self._make(folder)
                if self._is_locked_by_us():
                    return
            except BaseException:
                self.discard()
                raise
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(self.path))

    def _make(self, folder: bool) -> None:
        if folder:
            self.path.mkdir()
            self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            self._lock = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def _is_locked_by_us(self) -> bool:
        """False if another process, sweeping up, was faster than our lock; then the name is gone."""
        with suppress(OSError):  # no locks here: then nobody sweeps up either
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self.path), os.fstat(self._lock)):
                return True
        self.close()
        return False

    def close(self) -> None:
        """Lets go of the lock: it is in its place, or gone."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def discard(self) -> None:
        """Removes what is still there under its name."""
        with held_back():
            _remove(self.path)
            self.close()


@contextmanager
def temporary(parent: Path, *, folder: bool = False) -> Iterator[Path]:
    """A ``Temporary`` that is discarded at the end, unless it was renamed."""
    made = Temporary(parent, folder=folder)
    try:
        yield made.path
    finally:
        made.discard()


def read_whole(path: Path) -> bytes:
    """A file's bytes. OSError where it cannot be read, or is no file: a pipe would be waited for, for ever."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is a pipe or a device", str(path))
        return file.read()


def replace(beside: Path, path: Path) -> None:
    """Puts a file or folder in its place in one step, after its bytes are on the disk."""
    with held_back():
        _sync_whole(beside)
        os.replace(beside, path)
        sync(path.parent)


def publish(stage: Path, folder: Path) -> None:
    """Moves a folder's files into the folder around it, all or, if this process or the machine stops, none.

    From the moment when the stage is renamed ``READY…`` they are on their way; ``sweep_up`` finishes what was stopped.
    Of several who publish at once each waits for the one before.
    """
    for file in stage.iterdir():
        if (folder / file.name).is_dir() and not file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / file.name))
    files, ready = sorted(stage.iterdir()), folder / f"{READY}{secrets.token_hex(8)}"
    _sync_whole(stage)
    with _alone(folder), held_back():
        _finish(folder)  # else it would be finished later, over these
        os.replace(stage, ready)
        try:
            sync(folder)
            _arrive(ready, folder)
        except OSError:
            if len(files) == sum(1 for _ in ready.iterdir()):
                os.replace(ready, stage)  # none has moved, and none shall
            raise


@contextmanager
def _alone(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Whoever moves files into a folder holds its lock. BlockingIOError, unless ``wait``, where somebody does.

    Who holds it for ``PATIENCE_SECONDS`` moves no files, but is stopped, or a stranger. A temporary folder is nobody
    else's, and locked as long as it is one.
    """
    if folder.name.startswith(PREFIX):
        yield
        return
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _take(lock, PATIENCE_SECONDS if wait else None)
        yield
    finally:
        os.close(lock)


def _take(lock: int, seconds: float | None) -> None:
    until = time.monotonic() + (seconds or 0)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if seconds is None:
                raise
            if time.monotonic() < until:
                time.sleep(0.01)
                continue
        except OSError:  # no locks here
            pass
        return


def _finish(folder: Path) -> None:
    """Moves what dead processes had all but moved."""
    for ready in sorted(folder.glob(f"{READY}*")):
        with suppress(OSError), _claimed(ready) as is_ours:
            if is_ours and ready.is_dir():
                _arrive(ready, folder)


def _arrive(ready: Path, folder: Path) -> None:
    for file in sorted(ready.iterdir()):
        os.replace(file, folder / file.name)
    sync(folder)
    ready.rmdir()


def sweep_up(folder: Path) -> None:
    """Removes what dead processes have left in a folder, and finishes what they had all but finished.

    Best effort: what cannot be removed stays, and is in nobody's way.
    """
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.name.startswith(PREFIX))
    except OSError:
        return
    if any(name.startswith(READY) for name in found):
        with suppress(OSError), _alone(folder, wait=False):
            _finish(folder)
    for name in found:
        if not name.startswith(READY):
            with suppress(OSError), _claimed(folder / name):
                _remove(folder / name)


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Holds the lock of what nobody holds, else OSError; yields whether it belongs to this user."""
    kind = os.O_RDONLY if path.is_dir() else os.O_RDWR
    lock = os.open(path, kind | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        about = os.fstat(lock)
        if not os.path.samestat(about, os.lstat(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        yield about.st_uid == os.geteuid()
    finally:
        os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _sync_whole(path: Path) -> None:
    """A file, or a folder with all that is in it."""
    if path.is_dir():
        for inner in sorted(path.iterdir()):
            _sync_whole(inner)
    sync(path)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk. OSError where it does not get there."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:  # some file systems know no fsync of a folder
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise
    finally:
        os.close(handle)
