"""The page of counts, from the ledger: a row for each, and what it costs."""

from __future__ import annotations

from typing import get_args

from accelsim import ledger
from writers.markdown import code, escaped, joined, table

INTRODUCTION = """\
# Counts

Every count that accelsim makes: its column in tables, unit and place, what it is, and what it costs. This page is
generated from `accelsim/ledger.py`, over whose rows everything that sums, prices, exports or draws counts loops; \
[What is simulated](model.md) has the rules, [Energy](energy.md) the prices."""
GROUPS = {
    "time": "Time and work",
    "slots": "Multiplier slots",
    "actions": "Actions",
    "energy": "Energy by component",
    "total": "Energy in total",
    "moved": "Bytes moved",
    "reads": "Values read",
}
HEADINGS = ("count", "unit", "where", "what it is", "what it costs")


def page() -> str:
    """The page: a table for each group that has a count."""
    parts = [INTRODUCTION]
    for group in get_args(ledger.Group):
        if counts := ledger.rows(group):
            columns = len(HEADINGS) if any(count.prices for count in counts) else len(HEADINGS) - 1
            rows = (_row(count)[:columns] for count in counts)
            parts += [f"## {GROUPS[group]}", table(HEADINGS[:columns], rows)]
    return joined(parts)


def _row(count: ledger.Count) -> list[str]:
    """A count in Markdown."""
    place = escaped(ledger.spelled(count.place))
    costs = "; ".join(map(_cost, count.prices))
    return [code(count.column), escaped(count.unit), place, escaped(count.meaning), costs]


def _cost(price: ledger.Price) -> str:
    """What it costs, and on whose account."""
    times = f"{len(price.uses)} × " if len(price.uses) > 1 else ""
    only = f", where they are its {price.if_counted_as}" if price.if_counted_as else ""
    return f"{times}{ledger.RATES[price.rate]} ({ledger.spelled(price.component)}{only})"
