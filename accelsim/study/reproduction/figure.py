"""What a reproduced figure is: ours beside the paper's, the difference, and a verdict with its tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

AGREES, DIFFERS, KNOWN = "agrees", "DIFFERS", "differs, as known"
FITS, RESTATES = "fits, chosen so", "restates"
NOT_COMPUTED, ALONE = "not computed", "ours alone"
# What a figure within its tolerance is worth, and what it is called then. Only the first two are agreement.
KINDS = {
    "exact": AGREES,  # equals what an independent program counts
    "computed": AGREES,  # from inputs that somebody else published, compared with their result
    "chosen": FITS,  # a free parameter was picked with this figure in view
    "identity": RESTATES,  # an input said again, or its arithmetic
}


@dataclass(frozen=True)
class Comparison:
    """One number.

    Parameters
    ----------
    row, column : str
        Which one it is.
    ours, paper : float or None
        In ``unit``. Ours is None where it cannot be computed here; ``note`` then says why.
    tolerance : float
        Largest ``|ours − paper|`` that agrees, in ``unit``; with ``relative`` as a share of the paper's, 0.05 for 5 %.
    unit : str
    relative : bool
    factor : bool
        Tolerance is the largest of ours / paper and paper / ours that agrees: 2 for within a factor of 2.
    at_most : bool
        The paper's is a bound: whatever is below agrees.
    kind : str
        What it is worth if it is within the tolerance: of ``KINDS``.
    expected : bool
        Whether it should be within the tolerance. If it should and does not, ``accelsim reproduce`` fails.
    note : str
        Why it differs, or is not computed.
    digits : int
        After the point, when printed.
    """

    row: str
    column: str
    ours: float | None
    paper: float | None
    tolerance: float = 0.0
    unit: str = "%"
    relative: bool = False
    factor: bool = False
    at_most: bool = False
    kind: str = "computed"
    expected: bool = True
    note: str = ""
    digits: int = 2

    @property
    def difference(self) -> float | None:
        """Ours − the paper's, in ``unit``; as a share of the paper's where ``relative`` or ``factor``."""
        if self.ours is None or self.paper is None:
            return None
        return (self.ours - self.paper) / (self.paper if self.relative or self.factor else 1)

    @property
    def verdict(self) -> str:
        """One of the seven above."""
        if self.ours is None:
            return NOT_COMPUTED
        if self.difference is None:
            return ALONE
        if self.factor:
            ratio = 1 + self.difference
            far = ratio <= 0 or max(ratio, 1 / ratio) > self.tolerance
            return (DIFFERS if self.expected else KNOWN) if far else KINDS[self.kind]
        # A figure printed with one digit may be off by just the tolerance; binary fractions may not decide that.
        difference = self.difference if self.at_most else abs(self.difference)
        if difference <= self.tolerance + 1e-9:
            return KINDS[self.kind]
        return DIFFERS if self.expected else KNOWN

    def cells(self) -> list[str]:
        """Row, column, ours, the paper's, difference, tolerance, kind, verdict, as text."""
        paper = "–" if self.paper is None else f"{_shortest(self.paper, self.digits)}{_unit(self.unit)}"
        ours = "–" if self.ours is None else f"{self.ours:,.{self.digits}f}{_unit(self.unit)}"
        points = "points" if self.unit == "%" else self.unit
        if self.difference is None:
            difference = "–"
        elif self.relative or self.factor:
            difference = f"{100 * self.difference:+.1f} %"
        else:
            difference = f"{_zero(self.difference, self.digits):+,.{self.digits}f}{_unit(points)}"
        tolerance = f"{100 * self.tolerance:g} %" if self.relative else f"{self.tolerance:g}{_unit(points)}"
        tolerance = f"factor {self.tolerance:g}" if self.factor else tolerance
        if self.paper is None or self.ours is None:
            tolerance = "–"
        tolerance = f"at most +{tolerance}" if self.at_most else tolerance
        paper = f"≤ {paper}" if self.at_most else paper
        return [self.row, self.column, ours, paper, difference, tolerance, self.kind, self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, unrounded."""
        keys = (
            "row",
            "column",
            "ours",
            "paper",
            "difference",
            "tolerance",
            "unit",
            "relative",
            "factor",
            "kind",
            "verdict",
            "note",
        )
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Grid:
    """More of ours, as text: a title, column headings, rows."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """One of the paper's figures, reproduced.

    Parameters
    ----------
    name : str
        As the command line has it.
    title, how : str
        What it is, and how ours is computed.
    comparisons : tuple of Comparison
    grids : tuple of Grid
    notes : tuple of str
        What a reader should know.
    """

    name: str
    title: str
    how: str
    comparisons: tuple[Comparison, ...]
    grids: tuple[Grid, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> list[Comparison]:
        """Those that were expected to agree and do not."""
        return [c for c in self.comparisons if c.verdict == DIFFERS]

    def count(self, verdict: str) -> int:
        """How many comparisons have this verdict."""
        return sum(c.verdict == verdict for c in self.comparisons)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "how": self.how,
            "comparisons": [c.as_dict() for c in self.comparisons],
            "grids": [{"title": g.title, "headings": g.headings, "rows": g.rows} for g in self.grids],
            "notes": self.notes,
        }


def _shortest(value: float, digits: int) -> str:
    """As the paper prints it: no zeros at the end."""
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _zero(value: float, digits: int) -> float:
    """Rounded, and never a negative zero."""
    return round(value, digits) + 0.0


def _unit(unit: str) -> str:
    return unit if unit in ("", "×") else f" {unit}"
