"""A machine description: read from YAML and validated once. The one place that knows YAML."""

from __future__ import annotations

import difflib
import reprlib
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from annotated_types import Ge, Le
from pydantic import Field, ValidationError

from accelsim.errors import ConfigError
from accelsim.files import find
from accelsim.hardware.accelerators.catalogue import MODELS
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.energy import EnergyTable
from accelsim.hardware.hierarchy import Buffer, Buffers, Memory
from accelsim.hardware.overheads import Overheads
from accelsim.hardware.parameters import Parameters, check, integer, option

LARGEST_FILE_BYTES = 1 << 20
# What PyYAML raises on text that is no YAML, or on a tagged scalar that is not what its tag says.
UNREADABLE = (yaml.YAMLError, RecursionError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError)

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 1

# By the value of their key ``model``.
_MODELS = {model.model_fields["model"].annotation.__args__[0]: model for model in MODELS}
Section = TypeVar("Section", bound=Parameters)
# Sections that may be the name of a file in a folder of their own, or ``none``.
SECTIONS: dict[str, type[Parameters]] = {"memory": Memory, "energy": EnergyTable, "overheads": Overheads}
AnyAccelerator = Annotated[reduce(or_, MODELS), Field(discriminator="model")]


class Machine(Parameters):
    """What a machine file says."""

    name: str = Field(min_length=1, max_length=60, description="a short name, for tables")
    description: str = option("what it is, in a sentence", default="")
    clock_mhz: int = integer(1, 100_000, "clock of the chip", default=606, unit="MHz")
    # Files know the shipped models. A copy takes any ``Accelerator``: machine.model_copy(update={"accelerator": mine}).
    accelerator: AnyAccelerator = Field(description="the compute array; `model` chooses which")
    buffers: Buffers | None = option("buffers of each PE or tile; needed with a memory", default=None)
    memory: Memory | None = option(
        "the memory hierarchy, or the name of a file with it; without, operands are always there", default=None
    )
    energy: EnergyTable | None = option(
        "pJ per action, or the name of a file with them; without, no energy is told", default=None
    )
    overheads: Overheads | None = option(
        "what sparse training costs besides multiplying, or the name of a file with it; without, nothing", default=None
    )

    @check
    def _memory_feeds_buffers(self):
        if self.memory and not self.buffers:
            raise ValueError("buffers: must be given where memory is")
        if not self.memory and getattr(self.accelerator, "spill_partial_sums", False):
            raise ValueError("accelerator.spill_partial_sums: must be false without a memory, which they would go to")
        return self

    @check
    def _names_are_printable(self):
        for key in ("name", "description"):
            if not getattr(self, key).isprintable():
                raise ValueError(f"{key} must be printable text on one line, got {_shown(getattr(self, key))}")
        return self

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, defaults filled in."""
        return self.model_dump(warnings=False)  # an accelerator of another class is fine


def load_machine(file: str | Path, **sections: str | None) -> Machine:
    """Reads and validates a machine file; a name without a path is looked up here, then among the shipped ones.

    Parameters
    ----------
    file : str or Path
    memory, energy, overheads : str, optional
        Name of a file with that section, or "none", instead of what the machine file says.

    Raises
    ------
    ConfigError
        With the file, the key's path, the rule and the value, in one line.
    """
    path, data = _read(file, "configs")
    if isinstance(data, dict):
        data |= {key: name for key, name in sections.items() if name is not None}
    return parse_machine(data, str(path))


def load_section(model: type[Section], file: str | Path, kind: str) -> Section:
    """Reads and validates another file, found as a machine file is, among those of a kind. Raises ConfigError."""
    path, data = _read(file, f"configs/{kind}")
    return validated(model, data, str(path))


def parse_machine(data: Any, source: str = "machine") -> Machine:
    """A machine from the plain data that its file holds. Raises ConfigError; ``source`` begins its text."""
    named = [key for key in SECTIONS if isinstance(data, dict) and isinstance(data.get(key), str)]
    for key in named:
        try:
            part = None if data[key] == "none" else load_section(SECTIONS[key], data[key], key)
        except ConfigError as error:
            raise ConfigError(f"{source}: {key}: {error}") from None
        data = data | {key: part}
    return validated(Machine, data, source)


def _read(file: str | Path, kind: str) -> tuple[Path, Any]:
    """The file of that name among those of a kind, and what its YAML says."""
    path = find(file, kind, ConfigError)
    try:
        if not path.is_file() and not path.is_dir():  # a pipe would be waited for
            raise ConfigError("must be a file")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ConfigError(f"must be at most {LARGEST_FILE_BYTES} bytes, got {path.stat().st_size}")
        return path, _parse_yaml(path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8 text, got byte {error.start} that is not") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{at}: {error.problem}") from error
    except UNREADABLE as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path}: must be YAML: {problem}") from error


def validated(model: type[Section], data: Any, source: str) -> Section:
    """A section from plain data. Raises ConfigError; ``source`` begins its text."""
    if not isinstance(data, dict):
        keys = " and ".join(name for name, field in model.model_fields.items() if field.is_required())
        raise ConfigError(f"{source}: must be a mapping with the keys {keys}, got {_shown(data)}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling comes first.
        first, *others = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        more = f" (and {len(others)} more)" if others else ""
        raise ConfigError(f"{source}: {_explain(model, first)}{more}") from None


def schema() -> dict[str, Any]:
    """The JSON Schema of machine files."""
    rules = Machine.model_json_schema(by_alias=True)
    for key in SECTIONS:
        named = {"type": "string", "description": "name of a file with the section, or none"}
        rules["properties"][key]["anyOf"].append(named)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **rules}


def baseline_of(machine: Machine) -> Machine:
    """The dense DaDianNao with as many multipliers, at the same clock, with the same memories and energy per action.

    Lanes of a bit-serial machine count for as many as they are worth. The tiles read weights from their memory
    directly, and activations through a buffer of 2 KiB (NBin; Chen et al., MICRO 2014, section 5.2). It rotates
    weights too, but neither selects nor converts: it trains densely.
    """
    overheads = machine.overheads and Overheads(rotate_weights=machine.overheads.rotate_weights)
    return Machine(
        name="dadiannao",
        description="the dense baseline",
        clock_mhz=machine.clock_mhz,
        accelerator=DaDianNao.with_multipliers(machine.accelerator.baseline_multipliers),
        buffers=Buffers(
            activation=Buffer(capacity_bytes=2048, ports=2),
            weight=Buffer(capacity_bytes=0, ports=2),
            accumulator_sets=2,
        ),
        memory=machine.memory,
        energy=machine.energy,
        overheads=overheads,
    )


def to_yaml(data: Any) -> str:
    """Plain data as YAML, keys in their order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _parse_yaml(text: str) -> Any:
    """YAML without surprises: a key given twice is an error."""
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _refuse_duplicates(node, "", set())
    return loader.construct_document(node)


def _refuse_duplicates(node, path, seen) -> None:
    """``seen``: nodes met before through another alias, not walked again."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, path, seen)
        return
    lines = {}
    for key, value in node.value:
        here = f"{path}{_name(key.value)}"
        if isinstance(key.value, str) and key.value in lines:
            raise ConfigError(f"{here}: given twice, in lines {lines[key.value]} and {key.start_mark.line + 1}")
        if isinstance(key.value, str):
            lines[key.value] = key.start_mark.line + 1
        _refuse_duplicates(value, f"{here}.", seen)


def _explain(model, error) -> str:
    """``accelerator.rows: must be 1…256, got 0``."""
    # A discriminated union puts the model's tag into the path; the file has no such level.
    location = [part for i, part in enumerate(error["loc"]) if not (i == 1 and error["loc"][0] == "accelerator")]
    fields = _fields(model, error["loc"])
    kind, value = error["type"], error["input"]
    if kind.startswith("union_tag"):
        location.append("model")
        value = value.get("model") if isinstance(value, dict) else value
    path = ".".join(map(_name, location))
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1])[:60], fields, n=1)
        return f"{path}: unknown key" + (f", did you mean {close[0]}?" if close else f"; known: {', '.join(fields)}")
    if kind == "missing" or (kind == "union_tag_not_found" and isinstance(error["input"], dict)):
        close = difflib.get_close_matches(str(location[-1]), map(str, error["input"]), n=1)
        return f"{path}: must be given" + (f"; is {_name(close[0])} a misspelling?" if close else "")
    if kind == "invalid_key":
        return f"{path}: keys must be text"
    if kind == "value_error":
        return f"{path}: {error['ctx']['error']}" if path else str(error["ctx"]["error"])
    return f"{path}: must be {_rule(error, fields.get(str(location[-1])))}, got {_shown(value)}"


def _fields(model, location) -> dict:
    """The keys known at an error's place."""
    fields = model.model_fields
    for at, key in enumerate(location[:-1]):
        if at == 1 and location[0] == "accelerator":
            fields = _MODELS[key].model_fields
            continue
        inner = fields[key].annotation if key in fields else None
        models = [t for t in (inner, *get_args(inner)) if isinstance(t, type) and issubclass(t, Parameters)]
        if len(models) == 1:
            fields = models[0].model_fields
    return fields


def _rule(error, field) -> str:
    """What the value must be, in words."""
    limits = {type(rule): rule for rule in field.metadata} if field else {}
    if Ge in limits and Le in limits:
        low, high = limits[Ge].ge, limits[Le].le
        return f"a number in {low:g}…{high:g}" if field.annotation is float else f"an integer in {low}…{high}"
    if error["type"] == "literal_error":
        return error["ctx"]["expected"]
    if error["type"].startswith("union_tag"):
        return "one of " + ", ".join(_MODELS)
    words = {"bool_type": "true or false", "string_type": "text"}
    words |= dict.fromkeys(("model_attributes_type", "model_type"), "a mapping of keys")
    return words.get(error["type"], error["msg"].removeprefix("Input should be ").removeprefix("String should "))


def _name(key) -> str:
    """A key as it goes into one line."""
    return key if isinstance(key, str) and key.isprintable() and len(key) <= 60 else _shown(key)


def _shown(value) -> str:
    """A value on one short line; one that aliases blow up without end is cut before it is spelled out."""
    try:
        text = _SHORT.repr(value)
        return text if len(text) <= 60 else f"{text[:57]}…"
    except ValueError:
        return "a number with more digits than Python prints"
