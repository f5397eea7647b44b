"""The tables that a sweep leaves: a row a point and pass, and a row a point, layer and pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from accelsim.study.store import Store
from accelsim.study.study import OWN, Point

if TYPE_CHECKING:
    from accelsim.study.sweep import Plan


def write_tables(plan: Plan, store: Store, errors: dict[str, str]) -> pd.DataFrame:
    """``table.csv``, ``table.parquet`` and ``layers.parquet``, in the study's order: equal points, equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[pd.DataFrame] = []
    settings = _settings(plan.points)

    def write_layers(path: str) -> None:
        writer = None
        try:
            for number, (point, key) in enumerate(zip(plan.points, plan.keys, strict=True)):
                counts = None if key is None or key in errors else store.get(key)
                problem = point.error or errors.get(key) or (None if counts is not None else "lost: run again")
                varied = {name: column[number] for name, column in settings.items()}
                rows.append(_point_rows(number, point, varied, counts, problem, plan.study.passes))
                if counts is None:
                    continue
                counts = counts.drop(columns="machine_number").assign(point=number, **varied)
                table = pa.Table.from_pandas(counts, preserve_index=False).replace_schema_metadata(None)
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table.cast(writer.schema))
        finally:
            if writer:
                writer.close()

    store.write(store.folder / "layers.parquet", write_layers)
    table = pd.concat(rows, ignore_index=True)
    for name in table.columns.difference([*settings, "error"]):
        kinds = set(map(type, table[name].dropna()))
        if kinds and all(issubclass(kind, int | np.integer) for kind in kinds):
            table[name] = table[name].astype("Int64")  # a point without counts leaves no number
        elif kinds and all(issubclass(kind, float | np.floating) for kind in kinds):
            table[name] = table[name].astype(float)
    store.write(store.folder / "table.csv", lambda path: table.to_csv(path, index=False))
    store.write(store.folder / "table.parquet", lambda path: table.to_parquet(path, index=False))
    return table


def _settings(points: tuple[Point, ...]) -> dict[str, list]:
    """What the points set, a column each: as it is where all are of one kind, else as text."""
    names = dict.fromkeys(name for p in points for name in p.settings if name not in OWN)
    columns = {name: [p.settings.get(name) for p in points] for name in names}
    for name, values in columns.items():
        if {type(value) for value in values} not in ({int}, {float}, {bool}, {str}):
            columns[name] = ["" if value is None else str(value) for value in values]
    return columns


def _point_rows(number: int, point: Point, varied, counts, problem: str | None, passes: Iterable[str]) -> pd.DataFrame:
    """A row for each pass of a point, summed over layers."""
    place = {
        "point": number, "trace": point.settings["trace"], "machine_file": point.settings["machine"],
        "snapshot": point.snapshot, **varied, "error": problem,
    }  # fmt: skip
    if counts is None:
        nothing = {"machine": None, "multipliers": None, "sparsity": point.sparsity}
        return pd.DataFrame([place | nothing | {"pass": which} for which in passes], dtype=object)
    first = counts.iloc[0]
    own = {name: first[name] for name in ("machine", "multipliers", "sparsity")}
    summed = [c for c in counts.columns[counts.columns.get_loc("cycles") :] if c != "machine_number"]
    sums = counts.groupby("pass", sort=False)[summed].sum().reset_index()
    return sums.assign(**place, **own)[[*place, *own, *sums.columns]].astype(object)
