"""What of a machine file may be changed against each cause of lost slots; what a change is worth is simulated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from accelsim import ledger
from accelsim.errors import ConfigError
from accelsim.hardware.accelerators import catalogue
from accelsim.hardware.machine import Machine, machine_with

# A cause is worth a change where it has this share of the slots; of changes that are worth it, so many are tried.
SHARE, MOST = 0.05, 16

_PES = ("pe_rows÷2 pe_columns÷2", "pe_rows÷2", "pe_columns÷2", "pes÷2", "pes÷2 lanes×2", "pes×2 lanes÷2")
_TILES = (
    "tiles÷2", "rows÷2", "columns÷2", "lanes÷2", "tiles÷2 columns×2", "tiles÷2 rows×2", "rows÷2 columns×2",
    "columns÷2 rows×2", "columns÷2 tiles×2", "rows÷2 tiles×2",
)  # fmt: skip
_VECTORS = (
    "activation_width÷2", "weight_width÷2", "activation_width÷2 weight_width×2", "activation_width×2 weight_width÷2"
)  # fmt: skip
_STEPS = ("step_rows÷2", "step_columns÷2", "step_rows÷2 step_columns×2", "step_rows×2 step_columns÷2")
_OFFCHIP = (
    "memory.offchip.megabytes_per_second×2", "memory.activation_memory.capacity_bytes×2",
    "memory.weight_memory.capacity_bytes×2",
)  # fmt: skip
_ONCHIP = (
    "memory.activation_memory.width_bytes×2", "memory.weight_memory.width_bytes×2",
    "buffers.activation.capacity_bytes×2", "buffers.weight.capacity_bytes×2", "buffers.accumulator_sets=2",
    "buffers.activation.ports=2 buffers.weight.ports=2",
)  # fmt: skip
# Cause → changes: `key÷2`, `key×2`, `key+1`, `key=value`, several at once with a space between. A key without a section
# is the accelerator's. A machine that lacks a key, or will not have the value, is not tried with it.
CHANGES: dict[str, tuple[str, ...]] = {
    "ineffectual": (
        "skipping=two_sided", "stride_phases=true", "scheduled_operand=sparser", "image_encoded=true",
        "weight_grad_rows=gradient", "weight_grad_rows=activation", "weight_grad_skips=gradient",
        "weight_grad_skips=activation", "strided_input_grad=phase", *_STEPS,
    ),
    "serial": ("booth_encoding=true", "differential=true", "precision=layer"),
    "precision": ("group_size÷2", "precision=layer", "minor_bit=true", "dynamic_weights=true", "columns÷2 tiles×2"),
    "synchronisation": (
        "column_registers+1", "column_registers×2", "group_size÷2", "bits_first_stage×2", "empty_slots=silent",
        "columns÷2", "lanes÷2", "columns÷2 tiles×2",
    ),
    "edge": (*_PES, *_TILES, "space_to_depth=true", "multipliers÷2", *_STEPS, "tile_rows÷2", "tile_columns÷2"),
    "imbalance": (
        *_VECTORS, "accumulators×2", "group_filters×2", "brick÷2", "window×2", "reduction_cut×2", "multipliers÷2",
        *_STEPS, *_PES, "lanes÷2",
    ),
    "barrier": (
        *_PES, "sample_barrier=false", "accumulators×2", "group_filters×2", "brick÷2", "lanes÷2", "tiles÷2", "rows÷2",
        "tiles÷2 columns×2", "rows÷2 columns×2", "tile_rows×2", "tile_columns×2",
    ),
    "bank_conflict": ("banks×2", "queue_depth×2", "queue_depth+1", *_VECTORS),
    "lookahead": (
        "search_shape=L lookahead_h×2", "search_shape=L lookahead_h×2 lookaside_d+1", "lookahead_h×2", "lookaside_d×2",
        "search_shape=T lookahead_h=2 lookaside_d=5", "skipping=two_sided", "rows÷2", "rows÷2 columns×2", "lanes÷2",
    ),
    "exchange": ("reduction_width×2", "accumulators×2", "pe_rows÷2 pe_columns÷2"),
    "load": ("load_width×2", "reduction_cut×2", "multipliers÷2"),
    "offchip_weight": ("memory.formats.weight=bitmask", *_OFFCHIP),
    "offchip_activation": ("memory.formats.activation=bitmask", *_OFFCHIP),
    "offchip_gradient": ("memory.formats.gradient=bitmask", *_OFFCHIP),
    "offchip_result": ("memory.formats.activation=bitmask", "memory.formats.gradient=bitmask", *_OFFCHIP),
    "onchip_weight": ("memory.formats.weight=bitmask", *_ONCHIP),
    "onchip_activation": ("memory.formats.activation=bitmask", *_ONCHIP),
    "onchip_gradient": ("memory.formats.gradient=bitmask", *_ONCHIP),
    "onchip_partial": ("accumulators×2", *_ONCHIP),
    "onchip_result": _ONCHIP,
    "rotate": ("overheads.rotate_weights.bytes_per_cycle×2",),
    "top_k": ("overheads.top_k.comparisons_per_cycle×2",),
    "format": ("overheads.format_conversion.values_per_cycle×2",),
}  # fmt: skip
_ONE = re.compile(r"([\w.]+)([÷×+=])(\w+)")


@dataclass(frozen=True)
class Change:
    """Another machine: the values of keys that differ, by path, what they were, and the machine that has them."""

    settings: dict[str, Any]
    before: dict[str, Any]
    machine: Machine

    def __str__(self) -> str:
        """``8×8 PEs instead of 16×16``, ``lookahead_h=4 instead of 2``."""
        if [*self.settings] == ["accelerator.pe_rows", "accelerator.pe_columns"]:
            now, was = ("×".join(map(str, values.values())) for values in (self.settings, self.before))
            return f"{now} PEs instead of {was}"
        parts = [
            f"{key.removeprefix('accelerator.')} {_shown(value)} instead of {_shown(self.before[key])}"
            for key, value in self.settings.items()
        ]
        return " and ".join(parts)


def changes(machine: Machine, shares: Mapping[str, float]) -> list[Change]:
    """The changes that are tried: the first against each loss, the largest loss first, then the second against each.

    Parameters
    ----------
    machine : Machine
        A model that is not shipped has each of its integer keys halved and doubled as well.
    shares : mapping
        Of causes, by name, the share of the slots that each has.
    """
    lost = sorted((name for name in shares if name != ledger.EFFECTUAL.name), key=lambda name: -shares[name])
    worth = [name for name in lost if shares[name] >= SHARE] or lost[:1]
    in_turn = chain.from_iterable(zip_longest(*(CHANGES.get(name, ()) for name in worth)))
    texts = [text for text in in_turn if text]
    keys = dict(_keys(machine.resolved()))
    if type(machine.accelerator) not in catalogue.SHIPPED.values():
        texts = [*_of_any_keys(keys), *texts]
    found: list[Change] = []
    for text in dict.fromkeys(texts):
        settings, before = _settings(keys, text)
        if settings and settings not in [change.settings for change in found]:
            found += _allowed(machine, settings, before)
        if len(found) == MOST:
            break
    return found


def _allowed(machine: Machine, settings: dict[str, Any], before: dict[str, Any]) -> Iterator[Change]:
    """The machine so changed, if its own rules let it be; its code, if any, was consented to when it was loaded."""
    try:
        yield Change(settings, before, machine_with(machine, settings, allow_code=True))
    except ConfigError:
        return


def _settings(keys: dict[str, Any], text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a change sets, by path, and what that was; nothing where the machine lacks a key, or changes nothing."""
    settings, before = {}, {}
    for key, sign, given in _ONE.findall(text):
        path = key if "." in key else f"accelerator.{key}"
        if path not in keys:
            return {}, {}
        old, new = keys[path], _changed(keys[path], sign, given)
        if new != old:
            settings[path], before[path] = new, old
        elif sign != "=":
            return {}, {}
    return settings, before


def _changed(old: Any, sign: str, given: str) -> Any:
    if sign == "=":
        return {"true": True, "false": False}.get(given, int(given) if given.isdecimal() else given)
    if not isinstance(old, int) or isinstance(old, bool):
        return old
    by = int(given)
    return {"÷": old // by if old >= by else old, "×": old * by, "+": old + by}[sign]


def _keys(section: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a machine by their paths, with their values."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _of_any_keys(keys: Mapping[str, Any]) -> Iterator[str]:
    """Of a model whose keys nobody here knows: each integer halved and doubled."""
    for path, value in keys.items():
        if path.startswith("accelerator.") and isinstance(value, int) and not isinstance(value, bool):
            yield from (f"{path}÷2", f"{path}×2")


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value).lower()
