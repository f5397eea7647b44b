"""What a sweep leaves: a row a point and pass, a row a point, layer and pass, and what they came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from accelsim import ledger
from accelsim.errors import AccelsimError
from accelsim.files import staged
from accelsim.study import manifest
from accelsim.study.csv_file import write_csv
from accelsim.study.export import versions
from accelsim.study.json_file import to_json
from accelsim.study.results import evened, fold
from accelsim.sweeps.store import Store
from accelsim.sweeps.study import OWN, Point, code_digest

if TYPE_CHECKING:
    from accelsim.sweeps.plan import Plan

# Rows of layers.parquet that are in memory at once.
GROUP_ROWS = 50_000
TEXTS = ("error", "machine")


def write_tables(
    plan: Plan, store: Store, errors: dict[str, str], fidelity: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, int]:
    """``table.csv``, ``table.parquet``, ``layers.parquet``, ``sweep.json``, in the study's order, with their digests,
    and ``fidelity.csv`` where there is one; all or none. Equal points give equal bytes.

    Returns
    -------
    DataFrame
    int
        Points that are not, or no longer, in the store and have no error: damaged ones.
    """
    with staged(store.folder) as stage:
        written = _write(stage, plan, store, errors, fidelity)
        manifest.write(stage)
    if fidelity is None:  # what another sweep left is not ours
        (store.folder / "fidelity.csv").unlink(missing_ok=True)
    return written


def _write(
    stage: Path, plan: Plan, store: Store, errors: dict[str, str], fidelity: pd.DataFrame | None
) -> tuple[pd.DataFrame, int]:
    rows: list[pd.DataFrame] = []
    settings = _settings(plan.points)
    damaged = 0

    def tables() -> Iterator[pd.DataFrame]:
        nonlocal damaged
        for number, (point, key) in enumerate(zip(plan.points, plan.keys, strict=True)):
            problem = point.error or errors.get(key or "")
            counts = None if problem else store.get(key or "")
            if counts is None and not problem:
                problem = "damaged: run again"
                damaged += 1
            varied = {name: column[number] for name, column in settings.items()}
            rows.append(_point_rows(number, point, varied, counts, problem, plan.study.passes))
            if counts is not None:
                yield counts.assign(point=number, **varied)

    _write_groups(stage / "layers.parquet", tables())
    table = _typed(pd.concat(rows, ignore_index=True), settings)
    write_csv(table, stage / "table.csv")
    table.to_parquet(stage / "table.parquet", index=False)
    if fidelity is not None:
        write_csv(fidelity, stage / "fidelity.csv")
    origin = {
        "accelsim": versions() | {"code": code_digest()},
        "study": plan.study.named(),
        "traces": {name: {"sha256": digest} for name, digest in plan.digests.items()},
        "machines": _machines(plan),
    }
    (stage / "sweep.json").write_text(to_json(origin), encoding="utf-8")
    return table, damaged


def _typed(table: pd.DataFrame, settings: dict[str, list[Any]]) -> pd.DataFrame:
    """Its columns as text, numbers that may be missing, or whatever the study sets."""
    counts = [row.column for row in ledger.rows()]
    for name in table.columns:
        kinds = set(map(type, table[name].dropna()))
        if name in settings:
            table[name] = table[name].infer_objects()
        elif name in TEXTS:
            table[name] = table[name].astype("string")
        elif kinds and all(issubclass(kind, int | np.integer) for kind in kinds):
            table[name] = table[name].astype("Int64")  # a point without counts leaves no number
        elif name in counts or (kinds and all(issubclass(kind, float | np.floating) for kind in kinds)):
            table[name] = table[name].astype(float)  # also one that is known of no point
    return table


def _machines(plan: Plan) -> dict[str, Any]:
    """The machine files, resolved, before the points change them."""
    machines = {}
    for name in dict.fromkeys(point.settings["machine"] for point in plan.points):
        with suppress(AccelsimError):
            machines[name] = plan.study.load(name, allow_code=plan.allow_code).resolved()
    return machines


def _write_groups(path: Path, tables: Iterable[pd.DataFrame]) -> None:
    """One Parquet file of many tables, some at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        writer: Any = None
        waiting: list[Any] = []
        for rows in tables:
            table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
            writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
            waiting.append(table.cast(writer.schema))
            if sum(map(len, waiting)) >= GROUP_ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    if writer is None:
        pd.DataFrame().to_parquet(path)


def _settings(points: tuple[Point, ...]) -> dict[str, list[Any]]:
    """What the points set, a column each: as it is where all are of one kind, else as text."""
    names = dict.fromkeys(name for p in points for name in p.settings if name not in OWN)
    columns = {name: [p.settings.get(name) for p in points] for name in names}
    for name, values in columns.items():
        if {type(value) for value in values} not in ({int}, {float}, {bool}, {str}):
            columns[name] = ["" if value is None else str(value) for value in values]
    return columns


def _point_rows(
    number: int,
    point: Point,
    varied: dict[str, Any],
    counts: pd.DataFrame | None,
    problem: str | None,
    passes: Iterable[str],
) -> pd.DataFrame:
    """A row for each pass of a point, summed over layers."""
    worth = point.machine.accelerator.baseline_multipliers if point.machine else None
    mm2 = point.machine.area.mm2 if point.machine and point.machine.area else None
    place = {
        "point": number, "trace": point.settings["trace"], "machine_file": point.settings["machine"],
        "snapshot": point.snapshot, "made": point.sparsity is not None, **varied, "error": problem,
    }  # fmt: skip
    if counts is None:
        nothing = dict.fromkeys(("machine", "multipliers")) | {"baseline_multipliers": worth, "chip_mhz": None}
        nothing |= {"area_mm2": mm2, "sparsity": point.sparsity}
        return pd.DataFrame([place | nothing | {"pass": which} for which in passes], dtype=object)
    first = counts.iloc[0]
    own = {"machine": first["machine"], "multipliers": first["multipliers"], "baseline_multipliers": worth}
    own |= {"chip_mhz": first["clock_mhz"], "area_mm2": mm2, "sparsity": first["sparsity"]}
    sums = fold(evened(counts), ["pass"])
    return sums.assign(**place, **own)[[*place, *own, *sums.columns]].astype(object)
