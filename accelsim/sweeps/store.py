"""A folder of results, one file a point: whole or not there, whoever writes and however it ends.

A point's file says whose it is and what its bytes must be, so that one which was damaged, exchanged or cut off is
noticed, whatever would have come of reading it. Then it goes, and is computed again.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from contextlib import suppress
from pathlib import Path

import pandas as pd

from accelsim.durable import read_whole, replace, sweep_up, temporary
from accelsim.errors import OutputError

POINTS = "points"
SUFFIX = ".point"
# Before the Parquet of a point: what it is, its key, and the SHA-256 of the key and the Parquet.
HEAD = "accelsim point 1\n{key}\n{digest}\n"


class Store:
    """Results by key, in ``DIR/points/KEY.point``. Several runs may use one store at once: equal keys, equal bytes.

    Raises
    ------
    OutputError
        From every method, if the folder cannot be written or the disk is full.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.points = self.folder / POINTS
        try:
            self.points.mkdir(parents=True, exist_ok=True)
            sweep_up(self.points)
            sweep_up(self.folder)
            tempfile.TemporaryFile(dir=self.points).close()
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def known(self) -> set[str]:
        """The keys of all points."""
        return {path.stem for path in self.points.glob(f"*{SUFFIX}")}

    def put(self, key: str, rows: pd.DataFrame) -> None:
        """Writes a point; one of that key may be there."""
        try:
            parquet = rows.to_parquet(index=False)
            with temporary(self.points) as beside:
                beside.write_bytes(_head(key, parquet) + parquet)
                replace(beside, self._path(key))
        except OSError as error:
            raise _cannot_write(self._path(key), error) from error

    def get(self, key: str) -> pd.DataFrame | None:
        """A point's rows; None if it is not there, or is not what ``put`` wrote: then it goes, to be computed again."""
        try:
            content = read_whole(self._path(key))
        except FileNotFoundError:
            return None
        except OSError:
            content = b""
        parquet = content[len(HEAD.format(key=key, digest="0" * 64)) :]
        if content and content == _head(key, parquet) + parquet:
            return pd.read_parquet(io.BytesIO(parquet))
        with suppress(OSError):
            self._path(key).unlink()
        return None

    def _path(self, key: str) -> Path:
        return self.points / f"{key}{SUFFIX}"


def _head(key: str, parquet: bytes) -> bytes:
    return HEAD.format(key=key, digest=hashlib.sha256(key.encode() + parquet).hexdigest()).encode()


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot write: {error.strerror or error}")
