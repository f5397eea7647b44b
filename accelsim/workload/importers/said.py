"""What the command prints and the trace keeps: which tensors are the file's, which were drawn, what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from accelsim.errors import ImportFormatError
from accelsim.workload.formats import ENOUGH
from accelsim.workload.importers.base import Imported

TENSORS = ("weight", "activation", "gradient")
SHOWN = 12  # of what was left out; the trace keeps all


def words(imported: Imported, drawn: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """By layer, where each of its tensors comes from.

    Parameters
    ----------
    imported : Imported
    drawn : mapping of layer to mapping of tensor to str
        How those that the file does not hold are drawn.
    """
    found = {}
    for layer in imported.layers:
        parts = []
        for tensor in TENSORS:
            held = layer.words.get(tensor, "from the file")
            parts.append(f"{tensor} {held if tensor in layer.tensors else drawn[layer.name][tensor]}")
        found[layer.name] = "; ".join(parts)
    return found


def provenance(imported: Imported, by_layer: Mapping[str, str]) -> dict[str, Any]:
    """For the trace's own, plain JSON."""
    found: dict[str, Any] = {"imported": f"{imported.path.name} ({imported.format})", "tensors": dict(by_layer)}
    left_out: dict[str, str] = {}
    for part in imported.left_out:
        left_out[_unused(part.name, left_out)] = f"{part.what}: {_share(imported, part.multiplications)}"
    if left_out:
        found["left out"] = left_out
    found["read"] = _read(imported)
    if imported.told:
        found["told"] = {str(number): text for number, text in enumerate(imported.told, start=1)}
    return found


def lines(imported: Imported, by_layer: Mapping[str, str]) -> Iterator[str]:
    """For a user: layers of which the same is to be said stand together; the last line is what share was read."""
    for text, group in groupby(by_layer.items(), key=lambda item: item[1]):
        names = [name for name, _ in group]
        label = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)} layers)"
        yield f"  {label}: {text}"
    for text in imported.told:
        yield f"  note: {text}"
    for part in imported.left_out[:SHOWN]:
        yield f"  left out: {part.name}, {part.what}: {_share(imported, part.multiplications)}"
    if len(imported.left_out) > SHOWN:
        yield f"  left out: {len(imported.left_out) - SHOWN} more, which accelsim info lists"
    enough = imported.share_read is not None and imported.share_read >= ENOUGH
    yield f"read: {_read(imported)}{'' if enough else f'; LESS THAN {100 * ENOUGH:g} %, so this is not the whole file'}"


def check_enough(imported: Imported) -> None:
    """ImportFormatError if less than ENOUGH of the multiplications was read, or their number is not known."""
    share = imported.share_read
    if share is None or share < ENOUGH:
        parts = ", ".join(f"{part.name} ({part.what})" for part in imported.left_out[:3])
        rule = f"--strict: {100 * ENOUGH:g} % of the multiplications must be read, got {_read(imported)}"
        raise ImportFormatError(f"{imported.path}: {rule}; left out: {parts}")


def _read(imported: Imported) -> str:
    share, count = imported.share_read, imported.multiplications
    if share is None:
        known = sum(part.multiplications or 0 for part in imported.left_out)
        unknown = sum(part.multiplications is None for part in imported.left_out)
        more = f"and {known:,} left out, and {unknown} operators' whose number is not known"
        return f"{count:,} multiplications of the forward pass, {more}"
    total = count + sum(part.multiplications or 0 for part in imported.left_out)
    return f"{_percent(share)} of {total:,} multiplications of the forward pass"


def _share(imported: Imported, multiplications: int | None) -> str:
    if multiplications is None:
        return "how many multiplications is not known"
    total = imported.multiplications + sum(part.multiplications or 0 for part in imported.left_out)
    return f"{_percent(multiplications / total)} of the multiplications"


def _percent(share: float) -> str:
    """Never rounded up to 100 or down to 0."""
    if share in (0.0, 1.0):
        return f"{100 * share:g} %"
    digits = next((n for n in range(1, 6) if 0 < round(100 * share, n) < 100), 6)
    return f"{100 * share:.{digits}f} %"


def _unused(name: str, taken: Mapping[str, str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}#{number}"
    return unique
