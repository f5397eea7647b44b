"""What share of a training step's multiplications a trace holds, in words."""

from __future__ import annotations

from accelsim.workload.formats import ENOUGH
from accelsim.workload.trace import Snapshot

UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
MOST = 3  # of what is not stored, by name


def stored_share(snapshot: Snapshot) -> float | None:
    """Of the step's multiplications; None where nobody counted them."""
    if snapshot.coverage is None or not snapshot.coverage["multiplications"]:
        return None
    missing: int = sum(snapshot.coverage["not_stored"].values())
    return 1 - missing / int(snapshot.coverage["multiplications"])


def is_enough(snapshot: Snapshot) -> bool:
    """Whether so little is missing that the snapshot may stand for the step, or nobody counted."""
    share = stored_share(snapshot)
    return share is None or share >= ENOUGH


def coverage_text(snapshot: Snapshot) -> str | None:
    """``98.7 % of 2.31 G multiplications; not stored: …``; None where nobody counted."""
    share = stored_share(snapshot)
    if share is None or snapshot.coverage is None:
        return None
    total = snapshot.coverage["multiplications"]
    text = f"{_percent(share)} of {_short(total)} multiplications"
    text += parts_text(snapshot)
    missing = sorted(snapshot.coverage["not_stored"].items(), key=lambda item: -item[1])
    if not missing:
        return text
    named = [f"{name} {_percent(count / total)}" for name, count in missing[:MOST]]
    return f"{text}; not stored: {', '.join(named)}{', …' if len(missing) > MOST else ''}"


def parts_text(snapshot: Snapshot) -> str:
    """``, of 3 of 9 layers a part of the places, 6.2 % at least``; nothing where all layers have all of them."""
    shares = [layer.part.share(layer.geometry, "fwd") for layer in snapshot.layers if layer.part]
    if not shares:
        return ""
    of = f"{len(shares)} of {len(snapshot.layers)} layers"
    return f", of {of} a part of the places, {_percent(float(min(shares)))} at least"


def _percent(share: float) -> str:
    """One decimal, and never 100 % where something is missing."""
    return f"{100 * share:.1f} %" if share >= 1 or share < 0.9995 else f"{int(share * 10**5) / 1000:.3f} %"


def _short(count: int) -> str:
    for unit, letter in UNITS:
        if count >= unit:
            return f"{count / unit:.3g} {letter}"
    return str(count)
