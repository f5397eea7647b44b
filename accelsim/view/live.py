"""Counts what sliders ask for: some layers of a trace, kept in memory, on a machine with some keys changed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

from accelsim.errors import AccelsimError, ConfigError
from accelsim.hardware.machine import Machine, load_machine, machine_with
from accelsim.pipeline import simulate_records
from accelsim.sweeps.chunks import alike
from accelsim.sweeps.study import has_values, made_of
from accelsim.view.points import LayerAccount, Point, point_of
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.toy import cut
from accelsim.workload.trace import Layer, Snapshot, Trace

# Multiplications of a sample in the layers that are counted at once: some tenths of a second.
BUDGET = 1 << 30
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of PEs, and of bandwidth
# What a machine's size is, the first of these that it has and that stays a whole number.
SIZES = ("tiles", "pes", "pe_rows", "multipliers", "step_rows", "rows")
KEPT_SPARSITIES, KEPT_POINTS = 4, 512


@dataclass(frozen=True)
class Setting:
    """Where the sliders stand.

    Parameters
    ----------
    trace, machine : str
        Of those that the page offers.
    which : str
        A pass, or "all".
    sparsity_percent : int
    pes, bandwidth : int
        Which of ``FACTORS``.
    lookahead : int or None
        None: the machine's own, or it has none.
    everything : bool
        All layers, however long it takes.
    """

    trace: str
    machine: str
    which: str
    sparsity_percent: int
    pes: int = 2
    bandwidth: int = 2
    lookahead: int | None = None
    everything: bool = False


@dataclass(frozen=True)
class Counted:
    """A point, its layers, and the layers that it was counted from."""

    point: Point
    layers: tuple[LayerAccount, ...]
    machine: Machine
    snapshot: Snapshot
    left_out: int
    seconds: float


class Live:
    """Traces and machines of a page; what was counted is kept."""

    def __init__(self, traces: Mapping[str, Trace], machines: Mapping[str, str | Path], *, allow_code: bool = False):
        self.traces, self.machines, self.allow_code = dict(traces), dict(machines), allow_code
        self._lock = threading.Lock()  # a page asks for one thing after another; two pages wait for each other
        self.machine = lru_cache(64)(self._machine)
        self.snapshot = lru_cache(KEPT_SPARSITIES)(self._snapshot)
        self._count = lru_cache(KEPT_POINTS)(self._counted)

    def count(self, setting: Setting) -> Counted:
        """Counts a setting. Raises AccelsimError where the machine cannot be, or cannot run it."""
        with self._lock:
            return self._count(setting)

    def _machine(self, name: str) -> Machine:
        return load_machine(self.machines[name], allow_code=self.allow_code)

    def _snapshot(self, trace: str, percent: int, everything: bool) -> tuple[Snapshot, int]:
        """One sample of some layers, in memory, and how many layers are left out."""
        source = self.traces[trace]
        own = [found for found in source.snapshots if round(100 * found.sparsity) == percent]
        if own:
            found = own[0]
        else:
            reference = made_of(source, percent / 100)
            if percent / 100 < reference.sparsity and has_values(reference):
                least = f"{100 * reference.sparsity:.0f} %"
                raise ConfigError(f"sparsity: must be {least} or more, what {reference.name} has, got {percent} %")
            found = alike(source, reference.name, [percent / 100]).snapshots[0]
        every = 1 if everything else -(-sum(layer.geometry.multiplications for layer in found.layers) // BUDGET)
        chosen = found.layers[every // 2 :: every]
        layers = tuple(cut(layer, {"samples": 1}) for layer in chosen)
        return replace(found, layers=layers, batch=1), len(found.layers) - len(layers)

    def _counted(self, setting: Setting) -> Counted:
        began = perf_counter()
        snapshot, left_out = self.snapshot(setting.trace, setting.sparsity_percent, setting.everything)
        machine = changed(self.machine(setting.machine), setting, allow_code=self.allow_code)
        passes = ("fwd", "input_grad", "weight_grad") if setting.which == "all" else (setting.which,)
        trace = SyntheticTrace(self.traces[setting.trace].path, "", "", (snapshot,))
        records = list(simulate_records(machine, trace, passes=passes, jobs=2))
        layers = tuple(LayerAccount.of(record) for record in records if record.cycles)
        work = sum(record.dense_multiplications for record in records)
        label = f"{machine.name}, {setting.sparsity_percent} % zeros{_changes(setting)}"
        group = f"{setting.trace}, {setting.which}, {setting.sparsity_percent}, {setting.everything}"
        point = point_of(label, group, layers, work, machine.accelerator.baseline_multipliers)
        return Counted(point, layers, machine, snapshot, left_out, perf_counter() - began)

    def layer(self, counted: Counted, account: LayerAccount) -> Layer:
        """The tensors behind an account."""
        return next(layer for layer in counted.snapshot.layers if layer.name == account.layer)


def changed(machine: Machine, setting: Setting, *, allow_code: bool = False) -> Machine:
    """A machine with what the sliders say. Raises ConfigError where it cannot be."""
    changes: dict[str, Any] = {}
    accelerator = machine.accelerator
    if FACTORS[setting.pes] != 1:
        changes |= _size(accelerator, FACTORS[setting.pes])
    own = lookahead_of(machine)
    if setting.lookahead is not None and own is not None and setting.lookahead != own:
        changes |= {"accelerator.search_shape": "L", "accelerator.lookahead_h": setting.lookahead}
    rate = bandwidth_of(machine)
    if FACTORS[setting.bandwidth] != 1 and rate:
        changes["memory.offchip.megabytes_per_second"] = max(1, round(rate * FACTORS[setting.bandwidth]))
    return machine_with(machine, changes, machine.name, allow_code=True) if changes else machine


def _size(accelerator: Any, factor: float) -> dict[str, int]:
    """The key that makes a machine so many times larger."""
    for key in SIZES:
        value = getattr(accelerator, key, None)
        if isinstance(value, int) and key in type(accelerator).model_fields and (value * factor).is_integer():
            return {f"accelerator.{key}": int(value * factor)}
    raise AccelsimError(f"PEs: {accelerator.model} cannot be had {factor:g} times as large")


def lookahead_of(machine: Machine) -> int | None:
    """Lines ahead that a machine looks; None where it does not."""
    value = getattr(machine.accelerator, "lookahead_h", None)
    return value if isinstance(value, int) else None


def bandwidth_of(machine: Machine) -> int:
    """MB/s of a channel off chip; 0 where it is unlimited, or there is no memory."""
    return machine.memory.offchip.megabytes_per_second if machine.memory else 0


def _changes(setting: Setting) -> str:
    told = [f"{FACTORS[setting.pes]:g}× PEs"] * (FACTORS[setting.pes] != 1)
    told += [f"lookahead {setting.lookahead}"] * (setting.lookahead is not None)
    told += [f"{FACTORS[setting.bandwidth]:g}× bandwidth"] * (FACTORS[setting.bandwidth] != 1)
    return "".join(f", {each}" for each in told)
