"""Advice as sentences, and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.text import Text

from accelsim import ledger
from accelsim.study.guidance.advise import WORTH, Advice, Guidance, WhatIf
from accelsim.study.tables import HEADINGS


def sentence(advice: Advice) -> str:
    """``layer4.2.conv1, forward: 81 % edge: a 7×7 map leaves 207 of 256 PEs idle; 8×8 PEs …``."""
    if not advice.cause:
        return f"{_place(advice)}: every slot does useful work."
    return f"{_place(advice)}: {_cause(advice)}; {_remedy(advice)}."


def limit(advice: Advice, of: str = "") -> str:
    """``the limit is lookahead, 47 % of the slots: empty lanes that …; lanes 8 instead of 16 would …``."""
    if not advice.cause:
        return "nothing limits it: every slot does useful work"
    words = next(row.words for row in ledger.rows("slots") if row.name == advice.cause)
    share, rest = _percent(advice.cause_share), _cause(advice).partition(": ")[2]
    return f"the limit{of} is {words}, {share} of the slots: {rest}; {_remedy(advice)}"


def lines(guidance: Guidance) -> Iterator[Text]:
    """For a terminal: a paragraph a pass, the layers below it."""
    yield Text(
        f"What limits {guidance.machine}, snapshot {guidance.snapshot}, and what to change; changes were simulated on "
        f"the {guidance.layers} layers with most cycles of each pass:",
        style="bold",
    )
    for advice in guidance.advice:
        yield Text(f"{'    ' if advice.layer else '  '}{sentence(advice)}")


def report(guidance: Guidance) -> dict[str, Any]:
    """As plain data, with the sentences."""
    advice = [asdict(each) | {"sentence": sentence(each)} for each in guidance.advice]
    return asdict(guidance) | {"advice": advice}


def _place(advice: Advice) -> str:
    which = " ".join(HEADINGS[advice.which].split())
    if advice.layer is None:
        return f"{which}, all layers"
    return f"{advice.layer}, {which} ({_percent(advice.cycles_share)} of its cycles)"


def _cause(advice: Advice) -> str:
    meaning = next(row.meaning for row in ledger.rows("slots") if row.name == advice.cause)
    words = next(row.words for row in ledger.rows("slots") if row.name == advice.cause)
    return f"{_percent(advice.cause_share)} {words}: {advice.idle or meaning}"


def _remedy(advice: Advice) -> str:
    if not advice.tried:
        return "no key of the machine file is known to change that"
    if advice.best is None and advice.same_size is None:
        tried = f"none of the {advice.tried} changes" if advice.tried > 1 else "not even the one change"
        return f"{tried} that were tried gains {100 * (WORTH - 1):.0f} %".replace("change that were", "change that was")
    told = [advice.best] if advice.layer and advice.best else [advice.best, advice.same_size]
    parts = [_gain(advice, what) for what in told if what is not None]
    if advice.layer is None and advice.cycles_share < 1:
        many = "layer" if advice.tried_on == 1 else f"{advice.tried_on} layers"
        parts[0] = f"on the {many} with {_percent(advice.cycles_share)} of its cycles, {parts[0]}"
    return ", or ".join(parts)


def _gain(advice: Advice, what: WhatIf) -> str:
    """By cycles, or where there are fewer multipliers or more of them, by cycles for each, and what that is made of."""
    words = next(row.words for row in ledger.rows("slots") if row.name == advice.cause)
    left = f"{words} then {_percent(what.cause_share)}"
    if what.multipliers == advice.multipliers:
        return f"{what.change} would take {_times(what.fewer_cycles)} fewer cycles ({left})"
    fewer = what.fewer_cycles
    cycles = f"{_times(fewer)} fewer" if fewer >= 1.005 else f"{_times(1 / fewer)} the" if fewer <= 0.995 else "as many"
    size = f"{what.multipliers:,} multipliers instead of {advice.multipliers:,}"
    made = f"{cycles} cycles on {size}, {left}"
    return f"{what.change} would take {_times(what.fewer_slots)} fewer cycles per multiplier ({made})"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}×" if ratio >= 1.15 else f"{ratio:.2f}×"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
