"""A machine description: read from its file, or several that build on each other, and validated once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainValidator
from pydantic.json_schema import models_json_schema

from accelsim.errors import ConfigError
from accelsim.hardware.accelerators import catalogue
from accelsim.hardware.accelerators.base import Accelerator
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.area import Area, is_stale
from accelsim.hardware.energy import EnergyTable
from accelsim.hardware.hierarchy import Buffer, Buffers, Memory
from accelsim.hardware.layers import Layered, read_layers
from accelsim.hardware.overheads import Overheads
from accelsim.hardware.parameters import Parameters, check, integer, option
from accelsim.hardware.validation import Fault, Section, examined, misspelling, refusal, validated
from accelsim.hardware.yaml_file import parse_setting, read_yaml, shown, shown_key

# Sections that may be the name of a file in a folder of their own, or ``none``.
SECTIONS: dict[str, type[Parameters]] = {"memory": Memory, "energy": EnergyTable, "overheads": Overheads}
# Stands for an accelerator that is refused, so that what is wrong besides is told too.
_PLACEHOLDER = DaDianNao.with_multipliers(1)


def _whole(accelerator: Accelerator) -> Accelerator:
    """What Python gives as an accelerator: no file is read that could be refused."""
    try:
        catalogue.refuse_incomplete(type(accelerator))
    except ConfigError as error:
        raise ValueError(f"accelerator: {error}") from error
    return accelerator


class Machine(Parameters):
    """What a machine file says."""

    name: str = Field(min_length=1, max_length=60, description="a short name, for tables")
    description: str = option("what it is, in a sentence", default="")
    clock_mhz: int = integer(1, 100_000, "clock of the chip", default=606, unit="MHz")
    # Validated by its own class, which ``model`` names; ``schema`` says what it may be.
    accelerator: Annotated[Accelerator, PlainValidator(_whole, json_schema_input_type=Any)] = Field(
        description="the compute array; `model` chooses which"
    )
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
    area: Area | None = option("its measured area; without, nothing is told for each mm²", default=None)

    @check
    def _memory_feeds_buffers(self) -> Machine:
        if self.memory and not self.buffers:
            raise ValueError("buffers: must be given where memory is")
        needs = self.accelerator.memory_needed_for
        if not self.memory and needs:
            raise ValueError(f"accelerator.{needs}: must be false without a memory, which they would go to")
        return self

    @check
    def _names_are_printable(self) -> Machine:
        for key in ("name", "description"):
            if not getattr(self, key).isprintable():
                raise ValueError(f"{key} must be printable text on one line, got {shown(getattr(self, key))}")
        return self

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, defaults filled in; a file that says so is this machine."""
        data = self.model_dump(warnings=False)
        data["accelerator"]["model"] = catalogue.reference_of(type(self.accelerator))
        return data


def load_machine(
    file: str | Path,
    *,
    allow_code: bool = False,
    settings: Mapping[str, Any] | None = None,
    **sections: str | None,
) -> Machine:
    """Reads and validates a machine file; a name without a path is looked up here, then among the shipped ones.

    Parameters
    ----------
    file : str or Path
    allow_code : bool
        Whether an accelerator ``model: package.module:Class`` may be imported, which runs its code.
    settings : mapping, optional
        Values to take instead, by the path of their key: ``{"accelerator.lanes": 8}``. See ``machine_with``.
    memory, energy, overheads : str, optional
        Name of a file with that section, or "none", instead of what the machine file says.

    Raises
    ------
    ConfigError
        With the file, and for all that is wrong the key's path, the rule and the value, a line each.
    """
    layers = read_layers(file, SECTIONS)
    if isinstance(layers.data, dict):
        given = {key: name for key, name in sections.items() if name is not None}
        layers.data.update(given)
        if is_stale(False, given):
            layers.data.pop("area", None)
    machine = _machine(layers, allow_code)
    return machine_with(machine, settings, str(layers.path), allow_code=allow_code) if settings else machine


def load_section(model: type[Section], file: str | Path, kind: str) -> Section:
    """Reads and validates another file, found as a machine file is, among those of a kind. Raises ConfigError."""
    path, data = read_yaml(file, f"configs/{kind}")
    return validated(model, data, str(path))


def parse_machine(data: Any, source: str = "machine", *, allow_code: bool = False) -> Machine:
    """A machine from the plain data that its file holds. Raises ConfigError; ``source`` begins its text."""
    return _machine(Layered(source, data, []), allow_code)


def machine_with(
    machine: Machine, settings: Mapping[str, Any], source: str = "machine", *, allow_code: bool = False
) -> Machine:
    """A machine with some keys changed, whole sections and presets before what is in them.

    Where what its area is of is changed and no area is set, it has none.

    Raises
    ------
    ConfigError
        If a key is unknown or its value not allowed; it names the keys that were set.
    """
    data = copy.deepcopy(machine.resolved())
    changed = ", ".join(f"{name}={value}" for name, value in settings.items())
    source = f"{source} with {changed}" if changed else source
    if is_stale(any(name.partition(".")[0] == "area" for name in settings), settings):
        data["area"] = None
    for name in sorted(settings, key=lambda name: (name.count("."), not name.endswith(".preset"))):
        *path, last = name.split(".")
        section: Any = data
        for part in path:
            section = section.get(part)
            if not isinstance(section, dict):
                raise ConfigError(f"{source}: {name}: must be a key of a section that the machine has")
        if last == "preset":  # it fills in what is not given, so nothing else may be
            section.clear()
        section[last] = settings[name]
        if name in SECTIONS and isinstance(settings[name], str):  # what is in it may be set as well
            data = parse_machine(data, source, allow_code=allow_code).resolved()
    return parse_machine(data, source, allow_code=allow_code)


def with_settings(machines: Iterable[Machine], settings: Iterable[str], *, allow_code: bool = False) -> list[Machine]:
    """Machines with what ``KEY=VALUE`` says to all that have the key, and ``NAME:KEY=VALUE`` to the one of that name.

    Raises
    ------
    ConfigError
        If a setting is none, no machine has its name or key, or a machine will not have it.
    """
    machines = list(machines)
    changes: dict[str, dict[str, Any]] = {machine.name: {} for machine in machines}
    for text in settings:
        key, value = parse_setting(text)
        name, colon, own = key.rpartition(":")
        if colon and name not in changes:
            raise ConfigError(f"--set: {shown_key(name)}: must be one of {', '.join(changes)}")
        having = [name] if colon else [machine.name for machine in machines if _has(machine, key)]
        for one in having or list(changes)[:1]:  # which says that it does not know the key
            changes[one][own] = value
    changed = [machine for machine in machines if changes[machine.name]]
    new = {m.name: machine_with(m, changes[m.name], m.name, allow_code=allow_code) for m in changed}
    return [new.get(machine.name, machine) for machine in machines]


def _has(machine: Machine, key: str) -> bool:
    """Whether a machine has a key."""
    *path, last = key.split(".")
    data: Any = machine.resolved()
    for part in path:
        data = data.get(part)
        if not isinstance(data, dict):
            return False
    return last in data


def _machine(layers: Layered, allow_code: bool) -> Machine:
    """Every section examined, so that all faults are told; each with the file of the chain that it is in."""
    if not isinstance(layers.data, dict):
        return validated(Machine, layers.data, layers.source)
    data: dict[str, Any] = dict(layers.data)
    faults: list[Fault] = []
    for key, model in SECTIONS.items():
        if isinstance(data.get(key), str):
            data[key], found = _named_section(key, model, data[key])
            faults += found
    if "accelerator" in data and not isinstance(data["accelerator"], Parameters):
        accelerator, found = _accelerator(data["accelerator"], allow_code)
        data["accelerator"] = _PLACEHOLDER if accelerator is None else accelerator
        faults += found
    machine, found = examined(Machine, data)
    faults = sorted([*faults, *found], key=lambda fault: not fault.misspelt)
    if faults or machine is None:
        raise refusal(layers.source, [f"{layers.origin(fault.location)}{fault.line}" for fault in faults])
    return machine


def _named_section(key: str, model: type[Parameters], file: str) -> tuple[Parameters | None, list[Fault]]:
    """A section that is in a file of its own."""
    if file == "none":
        return None, []
    try:
        return load_section(model, file, key), []
    except ConfigError as error:
        return None, [Fault((key,), f"{key}: {line}") for line in error.lines]


def _accelerator(data: Any, allow_code: bool) -> tuple[Accelerator | None, list[Fault]]:
    """The accelerator's section, validated by the class that its ``model`` names."""
    at = ("accelerator",)
    if not isinstance(data, dict):
        return None, [Fault(at, f"accelerator: must be a mapping of keys, got {shown(data)}")]
    if "model" not in data:
        return None, [Fault(at, f"accelerator.model: must be given{misspelling('model', data)}")]
    try:
        kind = catalogue.model(data["model"], allow_code=allow_code)
    except ConfigError as error:
        return None, [Fault((*at, "model"), f"accelerator.model: {error}")]
    # A class that calls itself something keeps its name, whatever files call it.
    named = getattr(kind.model_fields["model"].annotation, "__args__", (data["model"],))
    accelerator, faults = examined(kind, data | {"model": named[0]}, at)
    try:
        hash(accelerator)
    except TypeError as error:
        return None, [Fault(at, f"accelerator: its values must be such that it can be hashed: {error}")]
    return accelerator, faults


def schema(*models: str, allow_code: bool = False) -> dict[str, Any]:
    """The JSON Schema of machine files.

    Parameters
    ----------
    models : str
        Classes by their ``package.module:Class`` to be described too; those installed are.
    allow_code : bool
        Whether these may be imported.

    Raises
    ------
    ConfigError
        If one is none.
    """
    known: dict[str, type[Any]] = {**catalogue.SHIPPED}
    known |= {name: catalogue.model(name, allow_code=allow_code) for name in (*catalogue.installed(), *models)}
    classes: list[type[Any]] = [*dict.fromkeys(known.values()), Machine]
    places, rules = models_json_schema([(kind, "validation") for kind in classes])
    sections = rules["$defs"]
    of = {kind: places[kind, "validation"]["$ref"].rsplit("/", 1)[1] for kind in classes}
    rules |= sections.pop(of[Machine])
    one_of: list[dict[str, Any]] = [{"$ref": f"#/$defs/{of[kind]}"} for kind in catalogue.SHIPPED.values()]
    for name, kind in known.items():
        if name not in catalogue.SHIPPED:  # it may call itself otherwise
            section = sections[of[kind]]
            one_of.append(section | {"properties": section["properties"] | {"model": {"const": name}}})
    said = {"type": "string", "pattern": catalogue.REFERENCE, "not": {"enum": [*known]}}
    other = {"type": "object", "required": ["model"], "properties": {"model": said}}
    rules["properties"]["accelerator"] |= {"oneOf": [*one_of, other]}
    for key in SECTIONS:
        text = {"type": "string", "description": "name of a file with the section, or none"}
        rules["properties"][key]["anyOf"].append(text)
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
