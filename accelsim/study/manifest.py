"""The digests of a folder's files, written with them, last: what was changed, damaged or mixed afterwards is refused.

``sha256sum --check manifest.sha256`` checks them too. A digest finds damage; whoever can write the files can write
digests as well.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from accelsim.durable import read_whole, sweep_up
from accelsim.errors import ResultsError

NAME = "manifest.sha256"
LINE = re.compile(r"([0-9a-f]{64})  ([^/\x00-\x1f]+)")


def write(folder: Path) -> None:
    """Of all files of a folder. OSError if it cannot be written."""
    files = sorted(path for path in folder.iterdir() if path.name != NAME)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def read(folder: Path, needed: tuple[str, ...]) -> dict[str, bytes]:
    """The files that a folder's manifest names, as they were written. Those that were since removed are not there.

    What a killed process had all but put there is put there first.

    Raises
    ------
    ResultsError
        That names the file which is missing, though ``needed``, or is not as it was written.
    """
    sweep_up(folder)
    digests = _digests(folder)
    for name in needed:
        if name not in digests:
            raise ResultsError(f"{folder / NAME}: must name {name}, does not")
    files = {}
    for name, digest in digests.items():
        if name in needed or (folder / name).exists():
            files[name] = _bytes(folder / name)
            if hashlib.sha256(files[name]).hexdigest() != digest:
                raise ResultsError(f"{folder / name}: is not as it was written: its digest is not that of {NAME}")
    return files


def _digests(folder: Path) -> dict[str, str]:
    path = folder / NAME
    try:
        *lines, last = read_whole(path).decode().split("\n")
    except OSError as error:
        raise ResultsError(f"{path}: must be there, as accelsim writes it with results: {error.strerror}") from error
    except UnicodeDecodeError:
        lines, last = [], "no text"
    matches = [LINE.fullmatch(line) for line in lines]
    digests = {match[2]: match[1] for match in matches if match}
    if last or not lines or len(digests) != len(lines):
        raise ResultsError(f"{path}: must be lines of a SHA-256 and a file's name, once each; is damaged")
    return digests


def _bytes(path: Path) -> bytes:
    try:
        return read_whole(path)
    except OSError as error:
        raise ResultsError(f"{path}: cannot read: {error.strerror}") from error
