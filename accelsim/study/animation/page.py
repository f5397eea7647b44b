"""The page of an animation: one HTML file with its style, its script, and the film, packed; it fetches nothing."""

from __future__ import annotations

import base64
import zlib
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from accelsim import ledger
from accelsim.hardware.accelerators.base import Drawing
from accelsim.hardware.accelerators.film import Watched
from accelsim.study.animation.filming import Animation
from accelsim.study.report.page import HERE as REPORT
from accelsim.study.report.page import document, esc
from accelsim.version import __version__

HERE = Path(__file__).parent
PASSES = {"fwd": "forward pass", "input_grad": "input gradient", "weight_grad": "weight gradient"}


def to_html(animation: Animation) -> str:
    """The file."""
    machine, record = animation.machine, animation.record
    generator = f"accelsim {__version__}"
    title = f"{animation.layer.name} on {machine.name}, {PASSES[record.which]}"
    return document(
        title,
        f'<h1>{esc(title)}</h1><p class="lead">{esc(_lead(animation))}</p>',
        (HERE / "page.html").read_text(encoding="utf-8").strip(),
        _data(animation),
        generator=generator,
        footer=f"{generator}. {machine.description}",
        style="\n".join((folder / "page.css").read_text(encoding="utf-8") for folder in (REPORT, HERE)),
        scripts=[(HERE / "page.js").read_text(encoding="utf-8")],
    )


def _lead(animation: Animation) -> str:
    g, record = animation.layer.geometry, animation.record
    shape = f"{animation.layer.samples} × {g.channels} × {g.height} × {g.width} values, {g.filters} filters "
    shape += f"{g.kernel[0]} × {g.kernel[1]}" + (f", {g.groups} groups" if g.groups > 1 else "")
    return f"{shape}: {record.cycles:,} cycles of {record.multipliers:,} multipliers"


def _data(animation: Animation) -> dict[str, Any]:
    """What the script draws from."""
    film, record = animation.film, animation.record
    counted = {cause: count for cause, count in record.slots.items() if count}
    used = [row for row in ledger.rows("slots") if row.name in counted]
    codes = np.zeros(len(film.causes), np.uint8)
    for code, row in enumerate(used):
        codes[film.causes.index(row.name)] = code
    names = [row.name for row in used]
    return {
        "multipliers": film.multipliers,
        "grid": grid(animation.machine.accelerator.drawing, film.multipliers),
        "causes": list(map(_cause, used, _keys(names))),
        "counted": [counted[name] for name in names],
        "cycles": record.cycles,
        "segments": [[names.index(cause) if cause else -1, cycles] for cause, cycles in animation.segments],
        "notes": film.notes,
        "frames": _packed(codes[film.frames]),
        "watched": [_watched(name, list(of_name)) for name, of_name in _by_name(film.watched)],
    }


def _cause(row: ledger.Count, key: str) -> dict[str, str]:
    bar = row.bar or ledger.Bar(row.words)
    return {"words": row.words, "meaning": row.meaning, "fill": bar.fill, "hatch": bar.hatch,
            "ink": bar.ink, "key": key}  # fmt: skip


def _keys(names: list[str]) -> list[str]:
    """A letter for each, that colour is not all that tells them apart."""
    keys: list[str] = []
    for name in names:
        letters = (*name.upper().replace("_", ""), *"0123456789")
        keys.append(next(letter for letter in letters if letter not in keys))
    return keys


def grid(drawing: Drawing | None, multipliers: int) -> dict[str, Any]:
    """How multipliers stand: units, in each rows and columns, in each of these lanes in rows as near to a square as
    they go."""
    if drawing is None:
        drawing = Drawing("array", 1, "lanes", lanes=multipliers)
    down, across, lanes = drawing.down, drawing.across, drawing.lanes
    if drawing.inside == "product":
        down, across = across, down  # as multipliers are numbered
    inside = drawing.count * down * across * lanes
    if inside != multipliers:
        raise ValueError(f"drawing: must be of {multipliers} multipliers, is of {inside}")
    wide = min((n for n in range(1, lanes + 1) if lanes % n == 0), key=lambda n: abs(across * n - down * lanes // n))
    columns = -(-drawing.count // drawing.rows) if drawing.rows else int(np.ceil(np.sqrt(drawing.count)))
    return {"units": drawing.count, "name": drawing.units.removesuffix("s"), "columns": columns, "down": down,
            "across": across, "lanes": lanes, "wide": wide}  # fmt: skip


def _by_name(watched: list[Watched]) -> Any:
    """All shots of what has one name."""
    return groupby(sorted(watched, key=lambda each: each.name), key=lambda each: each.name)


def _watched(name: str, shots: list[Watched]) -> dict[str, Any]:
    _, units, rows, columns = shots[0].levels.shape
    levels = np.concatenate([shot.levels for shot in shots])
    return {
        "name": name, "kind": shots[0].kind, "together": shots[0].rows, "units": units, "rows": rows,
        "columns": columns, "most": int(levels.max(initial=1)),
        "parts": [[shot.start, len(shot.levels)] for shot in shots], "levels": _packed(levels),
    }  # fmt: skip


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 6)).decode("ascii")
