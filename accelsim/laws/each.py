"""The laws, a function each: what is wrong, a sentence each; nothing where the law holds. ``LAWS`` has their words."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from accelsim.errors import MachineError
from accelsim.hardware.accelerators.base import SKIPS, Accelerator, Drawing, Summation
from accelsim.hardware.movement.traffic import Operand
from accelsim.laws.trial import Trial, convolve, effectual_products
from accelsim.workload.lowering import PASSES, READS

THREADS = 4


def _protocol(accelerator: Accelerator) -> Iterator[str]:
    a = accelerator
    kinds = {
        "model": isinstance(a.model, str),
        "strided_input_grad": a.strided_input_grad in ("phase", "dilate"),
        "multipliers": isinstance(a.multipliers, int) and a.multipliers > 0,
        "baseline_multipliers": isinstance(a.baseline_multipliers, int) and a.baseline_multipliers > 0,
        "summation": isinstance(a.summation, Summation),
        "drawing": isinstance(a.drawing, Drawing | None),
        "memory_needed_for": isinstance(a.memory_needed_for, str),
    }
    yield from (f"{name} is {getattr(a, name)!r}" for name, right in kinds.items() if not right)
    for which in PASSES:
        for tensor, how in a.skips(which).items():
            if tensor not in READS[which] or how not in SKIPS:
                yield f"skips({which!r}) has {tensor!r}: {how!r}"


def _workers(accelerator: Accelerator) -> Iterator[str]:
    kind: Any = type(accelerator)
    section: Any = accelerator
    try:
        again = [pickle.loads(pickle.dumps(section)), kind.model_validate(section.model_dump())]
        alike = all(other == section and hash(other) == hash(section) for other in again)
    except Exception as error:  # whatever a class may raise
        yield f"{type(error).__name__}: {error}"
        return
    if not alike:
        yield "a copy is another machine"


def _slots(trial: Trial) -> Iterator[str]:
    multipliers = trial.accelerator.multipliers
    for activity in trial.activities:
        slots, whole = activity.slots, activity.cycles * multipliers
        if min(slots.values(), default=0) < 0:
            yield f"they are {dict(slots)}"
        if activity.multipliers != multipliers:
            yield f"they are of {activity.multipliers} multipliers, not {multipliers}"
        if sum(slots.values()) != whole:
            yield f"they add up to {sum(slots.values())}, not {whole}"
        if min(activity.job_cycles, default=0) < 0:
            yield "a job takes less than no cycles"


def _effectual(trial: Trial) -> Iterator[str]:
    for conv, activity in zip(trial.convolutions, trial.activities, strict=True):
        own, right = activity.slots.get("effectual", 0), effectual_products(conv)
        if own != right:
            yield f"{own} slots are effectual, of {right} such products"


def _accesses(trial: Trial) -> Iterator[str]:
    for activity in trial.activities:
        counts, slots = activity.accesses, activity.slots
        executed = slots.get("effectual", 0) + slots.get("ineffectual", 0)
        if min(counts.values()) < 0:
            yield f"they are {dict(counts)}"
        elif counts["multiplications"] != executed:
            yield f"{counts['multiplications']} multiplications fill {executed} slots"
        elif slots.get("effectual"):
            yield from (f"there are products, and no {name}" for name, count in counts.items() if not count)


def _computes(trial: Trial) -> Iterator[str]:
    for conv, (result, _) in zip(trial.convolutions, trial.replayed, strict=True):
        right = convolve(conv)
        if result.shape != right.shape:
            yield f"the result is {result.shape}, not {right.shape}"
        for place in np.argwhere(result != right) if result.shape == right.shape else ():
            at = tuple(int(i) for i in place)
            yield f"place {at} is {result[at]}, not {right[at]}"


def _cycles(trial: Trial) -> Iterator[str]:
    for activity, (_, cycles) in zip(trial.activities, trial.replayed, strict=True):
        if activity.cycles != cycles:
            yield f"run counts {activity.cycles}, replay takes {cycles}"


def _filmed(trial: Trial) -> Iterator[str]:
    for activity, _, film in zip(trial.activities, trial.replayed, trial.films or (), strict=False):
        shown, counted = film.slots(), {cause: int(count) for cause, count in activity.slots.items() if count}
        for cause in shown | counted:
            if shown.get(cause, 0) != counted.get(cause, 0):
                yield f"{shown.get(cause, 0)} slots of {cause} are shown, {counted.get(cause, 0)} are counted"


def _untouched(trial: Trial) -> Iterator[str]:
    fresh = replace(trial)
    before = [(conv.input.copy(), conv.kernel.copy()) for conv in fresh.convolutions]
    for activity in fresh.activities:
        activity.traffic()
    for conv, (first, second) in zip(fresh.convolutions, before, strict=True):
        if not np.array_equal(conv.input, first) or not np.array_equal(conv.kernel, second):
            yield "a run writes to what it was given"


def _deterministic(trial: Trial) -> Iterator[str]:
    if replace(trial).counted() != trial.counted():
        yield "a second run counts otherwise"


def _threads(trial: Trial) -> Iterator[str]:
    names = READS[trial.which]
    variants = [trial, *(trial.plain(name, value) for name in names for value in (0, 1))]
    alone = [variant.counted() for variant in variants]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns within a run, not after it
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            together = list(pool.map(lambda variant: variant.counted(anew=True), variants))
    finally:
        sys.setswitchinterval(before)
    if together != alone:
        yield f"on {THREADS} threads at once it counts otherwise"


def _values(trial: Trial) -> Iterator[str]:
    free = [name for name in READS[trial.which] if trial.skips.get(name) != "bits"]
    other = trial.with_tensors(**{name: trial.layer.tensors[name] * 5 for name in free})
    if other.counted() != trial.counted():
        yield "with every value times five it counts otherwise"
    if len(free) == len(READS[trial.which]):
        masks = trial.with_tensors(**{name: trial.layer.tensors[name] != 0 for name in free})
        if masks.counted() != trial.counted():
            yield "with masks for values it counts otherwise"


def _skips(trial: Trial) -> Iterator[str]:
    for name in READS[trial.which]:
        for value, what in ((1, "ones"), (0, "zeros")) if name not in trial.skips else ():
            other = trial.plain(name, value).cycles
            if other != trial.cycles:
                yield f"with {what} for the {name} it takes {other} cycles, else {trial.cycles}"


def saves(trial: Trial, name: str) -> bool:
    """Whether zeros of a tensor save a cycle of this layer, against values of many bits."""
    try:
        return trial.plain(name, 0).cycles < trial.plain(name, 77).cycles
    except MachineError:
        return False


def _traffic(trial: Trial) -> Iterator[str]:
    for conv, activity in zip(trial.convolutions, trial.activities, strict=True):
        traffic = activity.traffic()
        jobs, cycles = traffic.job_cycles.size, int(traffic.job_cycles.sum())
        if cycles != activity.cycles:
            yield f"its jobs take {cycles} cycles, run's {activity.cycles}"
        results = conv.samples * conv.geometry.filters * int(np.prod(conv.geometry.output))
        if int(traffic.result.sum()) != results:
            yield f"jobs complete {int(traffic.result.sum())} of {results} results"
        lengths = {o.part.size for o in traffic.operands} | {traffic.result.size, traffic.spilled.size}
        if lengths != {jobs}:
            yield f"for {jobs} jobs there are {sorted(lengths)} entries"
        tensors = {operand.tensor: operand for operand in traffic.operands}
        wanted = [name.removeprefix("saved_") for name in READS[conv.which]]
        if set(tensors) != set(wanted):
            yield f"it moves {', '.join(tensors)}, not {', '.join(wanted)}"
            return
        for name, values in zip(wanted, (conv.stored, conv.kernel), strict=True):
            yield from _parts(tensors[name], values)


def _parts(operand: Operand, values: np.ndarray) -> Iterator[str]:
    """Parts cut a tensor without rest, and each is used."""
    name, used = operand.tensor, np.unique(operand.part[operand.part >= 0])
    if used.size and used[-1] >= operand.values.size:
        yield f"a job reads part {used[-1]} of {operand.values.size} of the {name}"
    for part in np.setdiff1d(np.flatnonzero(operand.values), used):
        yield f"no job reads part {part} of the {name}"
    if int(operand.values.sum()) != values.size:
        yield f"the parts of the {name} are {int(operand.values.sum())} of {values.size} values"
    if int(operand.nonzeros.sum()) != np.count_nonzero(values):
        yield f"the parts of the {name} have {int(operand.nonzeros.sum())} of {np.count_nonzero(values)} non-zeros"


OF_MACHINE: dict[str, Callable[[Accelerator], Iterator[str]]] = {"protocol": _protocol, "workers": _workers}
OF_TRIAL: dict[str, Callable[[Trial], Iterator[str]]] = {
    "untouched": _untouched,
    "deterministic": _deterministic,
    "threads": _threads,
    "slots": _slots,
    "effectual": _effectual,
    "accesses": _accesses,
    "computes": _computes,
    "cycles": _cycles,
    "filmed": _filmed,
    "values": _values,
    "skips": _skips,
    "traffic": _traffic,
}
# Each law by name, and in words; a page of the documentation lists them.
LAWS = {
    "protocol": "each piece of an accelerator is of its kind, and skips names tensors that the pass reads",
    "workers": "a copy, pickled or from its plain data, is an equal machine with an equal hash",
    "runs": "a layer is counted or refused with a MachineError, and of each pass some are counted",
    "slots": "the slots of a convolution, each from 0 and with a known cause, add up to cycles × multipliers",
    "effectual": "the effectual slots are as many as there are products of two non-zeros",
    "accesses": "multiplications fill the effectual and ineffectual slots, and what is multiplied is read and added up",
    "computes": "the schedule executed with numbers gives the convolution",
    "cycles": "the schedule executed with numbers takes as many cycles as run counts",
    "filmed": "a replay that takes a film shows in it the slots that run counts, cause by cause",
    "untouched": "a run leaves the operands as they are",
    "deterministic": "the same convolution counts the same",
    "threads": "convolutions counted at once count as one after another",
    "values": "what a value is changes nothing, only whether it is zero, where skips says no bits",
    "skips": "zeros of a tensor that skips does not name change no cycle",
    "saves": "zeros of a tensor that skips names save cycles in some layer",
    "traffic": "jobs take run's cycles, complete each result once, and read each part of both whole operands",
}
