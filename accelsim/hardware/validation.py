"""Sections of a machine file from plain data, and what is wrong with them, in a line for each key."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from annotated_types import Ge, Le
from pydantic import ValidationError

from accelsim.errors import ConfigError
from accelsim.hardware.parameters import Parameters
from accelsim.hardware.yaml_file import shown, shown_key

MOST_FAULTS = 20  # lines told of one file

Section = TypeVar("Section", bound=Parameters)


@dataclass(frozen=True)
class Fault:
    """What is wrong at a place: the keys that lead there, and the line, which begins with them."""

    location: tuple[Any, ...]
    line: str
    misspelt: bool = False


def validated(model: type[Section], data: Any, source: str) -> Section:
    """A section from plain data. Raises ConfigError with all that is wrong; ``source`` begins its text."""
    section, faults = examined(model, data)
    if section is None:
        raise refusal(source, [fault.line for fault in faults])
    return section


def refusal(source: str, lines: list[str]) -> ConfigError:
    """All that is wrong with a file as one error, whose first line names it."""
    first, *others = lines
    if len(lines) > MOST_FAULTS:
        others = [*others[: MOST_FAULTS - 1], f"and {len(lines) - MOST_FAULTS:,} more"]
    return ConfigError(f"{source}: {first}", *others)


def examined(
    model: type[Section], data: Any, at: tuple[str, ...] = ()
) -> tuple[Section, list[Fault]] | tuple[None, list[Fault]]:
    """A section from plain data, or what is wrong with it: misspelt keys first. ``at`` leads to the section."""
    prefix = "".join(f"{key}: " for key in at)
    if not isinstance(data, dict):
        keys = " and ".join(name for name, field in model.model_fields.items() if field.is_required())
        rule = "a mapping of keys" if at else f"a mapping with the keys {keys}"
        return None, [Fault(at, f"{prefix}must be {rule}, got {shown(data)}")]
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling comes first, and alone where it says what was meant.
        errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        meant = {(*e["loc"][:-1], close) for e in errors if (close := _meant(model, e))}
        return None, [
            Fault((*at, *e["loc"]), _explain(model, e, at), e["type"] == "extra_forbidden")
            for e in errors
            if e["type"] != "missing" or e["loc"] not in meant
        ]


def _meant(model: type[Parameters], error: Any) -> str | None:
    """The key that an unknown one is close to."""
    if error["type"] != "extra_forbidden":
        return None
    fields = _fields(model, error["loc"])
    return next(iter(difflib.get_close_matches(str(error["loc"][-1])[:60], fields, n=1)), None)


def _explain(model: type[Parameters], error: Any, at: tuple[str, ...]) -> str:
    """``accelerator.rows: must be 1…256, got 0``."""
    location = error["loc"]
    path = ".".join(map(shown_key, (*at, *location)))
    fields, kind = _fields(model, location), error["type"]
    if kind == "extra_forbidden":
        close = _meant(model, error)
        return f"{path}: unknown key" + (f", did you mean {close}?" if close else f"; known: {', '.join(fields)}")
    if kind == "missing":
        return f"{path}: must be given{misspelling(str(location[-1]), error['input'])}"
    if kind == "invalid_key":
        return f"{path}: keys must be text"
    if kind in ("value_error", "assertion_error"):
        return f"{path}: {error['ctx']['error']}" if path else str(error["ctx"]["error"])
    if not location:  # of a key, which has no place of its own
        return (
            f"{path + ': ' if path else ''}keys must be text that can be written as UTF-8, got {shown(error['input'])}"
        )
    return f"{path}: must be {_rule(error, fields.get(str(location[-1])))}, got {shown(error['input'])}"


def misspelling(key: str, data: dict[Any, Any]) -> str:
    """``; is rowes a misspelling?`` where a mapping has a key that is close to one that it lacks."""
    close = difflib.get_close_matches(key, map(str, data), n=1)
    return f"; is {shown_key(close[0])} a misspelling?" if close else ""


def _fields(model: type[Parameters], location: tuple[Any, ...]) -> dict[str, Any]:
    """The keys known at an error's place."""
    fields: dict[str, Any] = model.model_fields
    for key in location[:-1]:
        inner = fields[key].annotation if key in fields else None
        models = [t for t in (inner, *get_args(inner)) if isinstance(t, type) and issubclass(t, Parameters)]
        if len(models) == 1:
            fields = models[0].model_fields
    return fields


def _rule(error: Any, field: Any) -> str:
    """What the value must be, in words."""
    limits = {type(rule): rule for rule in field.metadata} if field else {}
    if Ge in limits and Le in limits:
        low, high = limits[Ge].ge, limits[Le].le
        return f"a number in {low:g}…{high:g}" if field.annotation is float else f"an integer in {low}…{high}"
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    words = {"bool_type": "true or false", "string_type": "text"}
    words |= dict.fromkeys(("model_attributes_type", "model_type"), "a mapping of keys")
    said = str(error["msg"]).removeprefix("Input should be ").removeprefix("String should ")
    return words.get(error["type"], said)
