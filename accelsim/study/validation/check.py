"""What a validation is: ours beside theirs, the difference, how far to trust it, and a verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

AGREES, DIFFERS, KNOWN, SHOWN = "agrees", "DIFFERS", "differs, as known", "shown only"
# Kinds of evidence. Theirs may be known from others' notes on a publication alone.
EXACT, COMPUTED, SECONDARY = "exact", "computed", "computed; theirs from secondary sources"
OURS = "inputs are ours"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One number.

    Parameters
    ----------
    what : str
    ours : float
        The mean, where it depends on a seed.
    theirs : float or (float, float)
        As published; a range holds whatever lies in it.
    unit : str
        "×", "cycles" or nothing.
    tolerance : float, optional
        Largest ``|ours − theirs| / theirs`` that agrees. None: shown beside each other without a verdict.
    evidence : str
        One of the kinds above.
    spread : float, optional
        Largest minus smallest over the seeds, as a share of the mean; None where nothing is random.
    expected : bool
        Whether it should agree. If it should and does not, ``accelsim validate`` fails.
    note : str
        Why it differs, or has no verdict.
    """

    what: str
    ours: float
    theirs: float | tuple[float, float]
    unit: str = "×"
    tolerance: float | None = 0.0
    evidence: str = COMPUTED
    spread: float | None = None
    expected: bool = True
    note: str = ""

    @property
    def difference(self) -> float:
        """Ours from theirs, as a share of theirs; from the nearer end of a range, 0 within."""
        low, high = self.theirs if isinstance(self.theirs, tuple) else (self.theirs, self.theirs)
        return max(self.ours / high - 1, 0.0) or min(self.ours / low - 1, 0.0)

    @property
    def verdict(self) -> str:
        """One of the four above."""
        if self.tolerance is None:
            return SHOWN
        # Binary fractions may not decide what is just at the tolerance.
        if abs(self.difference) <= self.tolerance + 1e-9:
            return AGREES
        return DIFFERS if self.expected else KNOWN

    def cells(self) -> list[str]:
        """What, ours, theirs, difference, tolerance, evidence, spread and verdict, as text."""
        ends = self.theirs if isinstance(self.theirs, tuple) else (self.theirs,)
        allowed = {None: "–", 0.0: "within" if len(ends) == 2 else "none"}
        return [
            self.what,
            self._text(self.ours),
            " to ".join(self._text(end) for end in ends),
            f"{100 * self.difference + 0.0:+.1f} %",
            allowed.get(self.tolerance) or f"{100 * (self.tolerance or 0):g} %",
            self.evidence,
            "–" if self.spread is None else f"{100 * self.spread:.1f} %",
            self.verdict,
        ]

    def _text(self, value: float) -> str:
        return f"{value:,.0f}" if self.unit == "cycles" else f"{value:.3g}{self.unit}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, unrounded."""
        return {**asdict(self), "difference": self.difference, "verdict": self.verdict}


@dataclass(frozen=True)
class Table:
    """More of ours, as text: a title, column headings, rows."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Validation:
    """A machine beside its publication.

    Parameters
    ----------
    name : str
        As the command line has it.
    title, source, how : str
        What it is, where theirs is from, and how ours is computed.
    checks : tuple of Check
    tables : tuple of Table
    notes : tuple of str
        What a reader should know: what was assumed, and what it is worth.
    """

    name: str
    title: str
    source: str
    how: str
    checks: tuple[Check, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> list[Check]:
        """Those that were expected to agree and do not."""
        return [check for check in self.checks if check.verdict == DIFFERS]

    def count(self, verdict: str) -> int:
        """How many checks have this verdict."""
        return sum(check.verdict == verdict for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "checks": [check.as_dict() for check in self.checks]}
