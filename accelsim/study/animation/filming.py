"""Films a pass of a layer: what a page shows, and whether it is what is counted.

What is shown is what the machine's ``replay`` does in each cycle (``accelsim.hardware.accelerators.film``), with its
waits for its memory in between, as the memory's replay has them. That this adds up to what ``simulate`` counts is
looked at each time: a page whose totals are other ones is not made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accelsim.errors import AccelsimError, TraceError
from accelsim.hardware.accelerators.film import Film, is_filmed
from accelsim.hardware.machine import Machine
from accelsim.hardware.movement.plan import STALLS, Plan
from accelsim.hardware.movement.replay_simpy import Observer
from accelsim.ledger import Record
from accelsim.pipeline import simulate_records
from accelsim.workload.lowering import lower
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.toy import cut, fitting
from accelsim.workload.trace import Layer, Snapshot

MOST_PRODUCTS = 1 << 20  # with nothing skipped: a replay makes them one by one, in some seconds
MOST_SLOTS = 1 << 26  # a byte each, before they are packed
MOST_CYCLES = 1 << 20


@dataclass(frozen=True, eq=False)
class Animation:
    """What a page shows.

    Parameters
    ----------
    machine : Machine
    layer : Layer
    record : Record
        What ``simulate`` counts.
    film : Film
        The cycles in which the array works.
    segments : list of (str, int)
        In order: so many cycles of the film (""), or in which all multipliers wait, with the cause.
    """

    machine: Machine
    layer: Layer
    record: Record
    film: Film
    segments: list[tuple[str, int]]

    def slots(self) -> dict[str, int]:
        """Slots by cause, of those that have any: what the page adds up."""
        found = self.film.slots()
        for cause, cycles in self.segments:
            if cause and cycles:
                found[cause] = found.get(cause, 0) + cycles * self.film.multipliers
        return found


def animated(machine: Machine, layer: Layer, which: str) -> Animation:
    """Films a pass of a layer.

    Raises
    ------
    AccelsimError
        If the layer is too large, with the cut to take; the pass did not run; the machine cannot run it, or its replay
        takes no film, or one whose slots are not those that ``run`` counts.
    """
    accelerator = machine.accelerator
    if not is_filmed(accelerator):
        raise AccelsimError(
            f"{machine.name}: accelerator.model: replay must take a film to be animated; docs/animate.md shows how"
        )
    if which not in layer.passes:
        raise TraceError(f"{layer.name}: passes: must have run {which}, ran {', '.join(layer.passes)}")
    if layer.part is not None:
        raise TraceError(f"{layer.name}: must hold all its places to be animated, holds a part of them")
    _refuse_large(machine, layer, which)
    record, stalls = _counted(machine, layer, which)
    if record.cycles > MOST_CYCLES:
        raise AccelsimError(
            f"{machine.name}: {layer.name}: takes {record.cycles:,} cycles with its memory, can be shown up to "
            f"{MOST_CYCLES:,}: take --memory none"
        )
    film = Film(accelerator.multipliers)
    for conv in lower(layer, which, strided=accelerator.strided_input_grad):
        accelerator.replay(conv, film)
    animation = Animation(machine, layer, record, film, _segments(record, film, stalls))
    shown, counted = animation.slots(), {cause: count for cause, count in record.slots.items() if count}
    if shown != counted or sum(cycles for _, cycles in animation.segments) != record.cycles:
        raise AccelsimError(f"{machine.name}: the film's slots must be those counted, {counted}, got {shown}")
    return animation


def fitting_cut(machine: Machine, layer: Layer, which: str) -> Layer:
    """A layer, or a corner of it that is small enough to be filmed."""
    return cut(layer, fitting(layer, lambda smaller: _fits(machine, smaller, which)))


def _fits(machine: Machine, layer: Layer, which: str) -> bool:
    most = max(1, MOST_SLOTS // machine.accelerator.multipliers)
    return _products(layer) <= MOST_PRODUCTS and _cycles(machine, layer, which) <= most


def _refuse_large(machine: Machine, layer: Layer, which: str) -> None:
    """Raises TraceError where a layer is too large, with a cut that is not."""
    if _fits(machine, layer, which):
        return
    found = fitting(layer, lambda smaller: _fits(machine, smaller, which))
    sizes = ",".join(f"{key}={size}" for key, size in found.items())
    raise TraceError(
        f"{layer.name}: must have at most {MOST_PRODUCTS:,} multiplications and {MOST_SLOTS:,} slots to be animated, "
        f"has {_products(layer):,} multiplications: take --cut {sizes}"
    )


def _products(layer: Layer) -> int:
    return layer.samples * layer.geometry.multiplications


def _cycles(machine: Machine, layer: Layer, which: str) -> int:
    """Of computing alone."""
    convolutions = lower(layer, which, strided=machine.accelerator.strided_input_grad)
    return sum(machine.accelerator.run(conv).cycles for conv in convolutions)


def _counted(machine: Machine, layer: Layer, which: str) -> tuple[Record, list[tuple[str, int, int]]]:
    """What ``simulate`` counts; and in order when the array waits for its memory: cause, first cycle, end."""
    stalls: list[tuple[str, int, int]] = []

    def observe(where: str, name: str, number: int, start: int, end: int) -> None:
        if where == STALLS:
            stalls.append((name, start, end))

    def observer(machine: Machine, snapshot: str, which: str, plan: Plan) -> Observer:
        return observe

    snapshot = Snapshot("shown", 0.0, 0, "none", layer.batch, (layer,))
    trace = SyntheticTrace(Path(layer.name), "", "", (snapshot,))
    (record,) = simulate_records(machine, trace, passes=which, timeline=observer)
    return record, sorted(stalls, key=lambda stall: stall[1])


def _segments(record: Record, film: Film, stalls: list[tuple[str, int, int]]) -> list[tuple[str, int]]:
    """Work and waiting one after another; what comes on top of multiplying comes in the end."""
    segments, now, worked = [], 0, 0
    for cause, start, end in stalls:
        segments += [("", start - now), (cause, end - start)]
        worked, now = worked + start - now, end
    segments.append(("", film.cycles - worked))
    shown = {*film.slots(), *(cause for cause, _, _ in stalls)}
    for cause, count in record.slots.items():
        if cause not in shown and count:
            segments.append((cause, count // record.multipliers))
    return [(cause, cycles) for cause, cycles in segments if cycles]


def share(animation: Animation, cause: str) -> float:
    """Of all slots."""
    slots = animation.record.cycles * animation.film.multipliers
    return float(np.divide(animation.slots().get(cause, 0), max(1, slots)))
