"""Reads a folder that a sweep left: only what its manifest vouches for."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from accelsim.errors import ResultsError
from accelsim.study import manifest

FILES = ("table.parquet", "layers.parquet", "sweep.json")


@dataclass(frozen=True, eq=False)
class Swept:
    """What ``accelsim sweep`` wrote: ``table``, a row a point and pass; ``layers``, a row a point, layer and pass."""

    folder: Path
    files: dict[str, bytes]

    @cached_property
    def table(self) -> pd.DataFrame:
        return _parquet(self.folder, self.files, "table.parquet", ("point", "pass", "error"))

    @cached_property
    def layers(self) -> pd.DataFrame:
        return _parquet(self.folder, self.files, "layers.parquet", ("point", "pass", "layer"))


def read_sweep(folder: Path) -> Swept:
    """A sweep's folder. Raises ResultsError where a file is missing, or not as it was written."""
    return Swept(folder, manifest.read(folder, FILES))


def _parquet(folder: Path, files: dict[str, bytes], name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(io.BytesIO(files[name]))
    except Exception as error:  # whatever pyarrow makes of bytes
        raise ResultsError(f"{folder / name}: must be a Parquet table: {type(error).__name__}") from error
    lacking = [column for column in columns if column not in table] if len(table) else []
    if lacking:
        raise ResultsError(f"{folder / name}: must have the columns {', '.join(lacking)}")
    return table
