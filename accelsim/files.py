"""Where files are found, and how folders and files are written: all of them or none (``durable``)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelsim.durable import PREFIX, publish, replace, sweep_up, temporary
from accelsim.errors import AccelsimError, OutputError

PACKAGE = Path(__file__).parent


def shipped(kind: str) -> Path:
    """The folder of shipped files ("configs", "configs/memory", "traces"): inside the installed package or beside
    it.
    """
    installed = PACKAGE / kind
    return installed if installed.is_dir() else PACKAGE.parent / kind


def find(name: str | Path, kind: str, error: type[AccelsimError]) -> Path:
    """The file of that name: as given, or, for a name without a path, among those shipped.

    Raises
    ------
    AccelsimError
        Of the class given, if there is none.
    """
    path = Path(name)
    try:
        if path.exists():
            return path
    except OSError as problem:
        raise error(f"{path.name}: {problem.strerror}") from problem
    if path.name != str(name):
        raise error(f"{name}: no such file")
    if (shipped(kind) / path).is_file():
        return shipped(kind) / path
    suffix = "*.npz" if kind == "traces" else "*.yaml"
    known = ", ".join(sorted(file.name for file in shipped(kind).glob(suffix)))
    raise error(f"{name}: no such file here, nor among the shipped {kind} ({known or 'none'})")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new empty folder; on a clean exit its files move into ``folder``, all or none, replacing those of their names.

    On any exception, a full disk and Ctrl-C included, it goes and ``folder`` is as it was. It lies inside ``folder``
    where that exists (which may be a file system of its own), else beside it. What a killed process has left at
    either place is swept up first.

    Raises
    ------
    OutputError
        If the folder cannot be made or written to.
    """
    folder = Path(folder)
    made: list[Path] = []
    try:
        folder = folder.absolute()
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: must be a folder, but is a file")
        if folder.is_symlink() and not folder.exists():
            raise OutputError(f"{folder}: must be a folder, but is a link to {folder.readlink()}, which is not there")
        made = _make_parents(folder)
        is_new = not folder.exists()
        place = folder.parent if is_new else folder
        sweep_up(place)
        with temporary(place, folder=True) as stage:
            yield stage
            _put(stage, folder, is_new)
        made = []
    except OSError as error:
        name = folder if PREFIX in str(error.filename or PREFIX) else error.filename  # of what is temporary no word
        raise OutputError(f"{name}: cannot write: {error.strerror or error}") from error
    finally:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def _put(stage: Path, folder: Path, is_new: bool) -> None:
    if is_new:
        try:
            return replace(stage, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not folder.is_dir():
                raise  # else another process has made it meanwhile
    publish(stage, folder)


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """A path to write to; on a clean exit the file there replaces ``path``, and on any exception it goes.

    Raises
    ------
    OutputError
        If it cannot be written, or something that is no file has its name.
    """
    path = Path(path)
    with staged(path.parent) as stage:
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: must be a file, but is something else")
        yield stage / path.name


def _make_parents(folder: Path) -> list[Path]:
    """Makes the folders that ``folder`` is to lie in; returns those that were not there, the innermost first."""
    missing = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    return missing
