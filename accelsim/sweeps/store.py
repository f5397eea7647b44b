"""A folder of results, one file a point: whole or not there, whoever writes and however it ends."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from accelsim.errors import OutputError

POINTS = "points"
# A file that a killed run left behind is younger than this only while that run may still be alive.
STALE_SECONDS = 24 * 3600


class Store:
    """Results by key, in ``DIR/points/KEY.parquet``. Several runs may use one store at once: equal keys, equal bytes.

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
            self._sweep_up()
            tempfile.TemporaryFile(dir=self.points).close()
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def known(self) -> set[str]:
        """The keys of all points."""
        return {path.stem for path in self.points.glob("*.parquet")}

    def put(self, key: str, rows: pd.DataFrame) -> None:
        """Writes a point; one of that key may be there."""
        self.write(self._path(key), lambda path: rows.to_parquet(path, index=False, write_page_checksum=True))

    def get(self, key: str) -> pd.DataFrame | None:
        """A point's rows; None if it is not there, or damaged by other hands: then it goes, to be computed again."""
        try:
            return pd.read_parquet(self._path(key), page_checksum_verification=True)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            with suppress(OSError):
                self._path(key).unlink()
            return None

    def write(self, path: Path, write: Callable[[str], object]) -> None:
        """``write`` fills a file beside, which then takes the place of ``path``."""
        beside = None
        try:
            handle, beside = tempfile.mkstemp(prefix=".accelsim-", dir=path.parent)
            os.close(handle)
            write(beside)
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except OSError as error:
            raise _cannot_write(path, error) from error
        finally:
            if beside is not None:
                with suppress(OSError):
                    os.unlink(beside)

    def _path(self, key: str) -> Path:
        return self.points / f"{key}.parquet"

    def _sweep_up(self) -> None:
        now = time.time()
        for path in self._leftovers():
            with suppress(OSError):
                if now - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()

    def _leftovers(self) -> Iterable[Path]:
        yield from self.points.glob(".accelsim-*")
        yield from self.folder.glob(".accelsim-*")


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot write: {error.strerror or error}")
