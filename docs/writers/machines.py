"""A page for each shipped machine, and for each memory, energy table and overheads, from its YAML and its model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from accelsim.hardware.accelerators.base import SKIPS
from accelsim.hardware.machine import SECTIONS, Machine, load_machine, load_section
from accelsim.hardware.parameters import Parameters
from accelsim.study.describe import keys
from accelsim.workload.lowering import PASSES
from writers import api
from writers.markdown import code, escaped, joined, table, toctree

CONFIGS = Path(__file__).parents[2] / "configs"
PASS_NAMES = {"fwd": "forward", "input_grad": "input gradient", "weight_grad": "weight gradient"}
HEADINGS = ("key", "value", "what it means, and why it has this value")
NO_UNITS = ("", "count", "option")
TOLD = ("name", "description", "accelerator.model")  # in words, elsewhere on the page


def pages() -> dict[str, str]:
    """The index and all pages, by their paths."""
    machines = {file: load_machine(file) for file in sorted(CONFIGS.glob("*.yaml"))}
    parts = {file: kind for kind in SECTIONS for file in sorted((CONFIGS / kind).glob("*.yaml"))}
    made = {f"machines/{file.stem}.md": joined(_machine(file, machine)) for file, machine in machines.items()}
    made |= {f"machines/{kind}/{file.stem}.md": joined(_part(file, kind)) for file, kind in parts.items()}
    return made | {"machines/index.md": joined(_index(machines, parts))}


def _index(machines: dict[Path, Machine], parts: dict[Path, str]) -> Iterator[str]:
    yield "# Machine files"
    yield (
        "Each machine that accelsim ships, with every key, its value, unit and meaning, and why it has this value. "
        "Generated from the files in `configs/` and the models that read them; `accelsim info FILE` says the same of "
        "yours. [The machines](../machines.md) says how far to trust each."
    )
    yield table(
        ("machine", "multipliers", "what it is"),
        ([f"[{m.name}]({file.stem}.md)", f"{m.accelerator.multipliers:,}", escaped(m.description)]
         for file, m in machines.items()),
    )  # fmt: skip
    yield toctree([file.stem for file in machines], ":hidden:")
    yield "## Memories, energies, overheads"
    yield "A machine file names one of each, or holds the section itself; `accelsim run --memory FILE` takes another."
    yield table(
        ("file", "section", "what it is"),
        ([f"[{file.stem}]({kind}/{file.stem}.md)", kind, escaped(opening(file).partition(". ")[0])]
         for file, kind in parts.items()),
    )  # fmt: skip
    yield toctree([f"{kind}/{file.stem}" for file, kind in parts.items()], ":hidden:")


def _machine(file: Path, machine: Machine) -> Iterator[str]:
    """The page of a machine."""
    accelerator = machine.accelerator
    yield f"# {machine.name}"
    yield escaped(machine.description) + "."
    yield _linked(opening(file), "..")
    yield f"```sh\naccelsim run --config {file.name} --trace resnet50.npz\n```"
    yield (
        f"It has {accelerator.multipliers:,} multipliers and is compared with a dense machine of "
        f"{accelerator.baseline_multipliers:,}."
    )
    yield "## What it skips"
    yield table(("pass", "operand", "zeros that may save time"), _skips(accelerator))
    yield "## Keys"
    yield from _keys(machine, file, "..")
    yield "## Its model"
    model = type(accelerator)
    yield f"`model: {accelerator.model}` is [`{model.__name__}`](../api/{api.page(model.__module__)}):"
    yield from (f"> {line}".rstrip() for line in ["\n> ".join(inspect.cleandoc(model.__doc__ or "").splitlines())])
    yield "## The file"
    yield f"```yaml\n{file.read_text(encoding='utf-8')}```"


def _part(file: Path, kind: str) -> Iterator[str]:
    """The page of a file with one section."""
    yield f"# {file.stem} ({kind})"
    yield _linked(opening(file), "../..")
    yield f"```sh\naccelsim run --config pe16x16.yaml --trace resnet50.npz --{kind} {file.name}\n```"
    yield "## Keys"
    yield from _keys(load_section(SECTIONS[kind], file, kind), file, "../..")
    yield "## The file"
    yield f"```yaml\n{file.read_text(encoding='utf-8')}```"


def _skips(accelerator: Any) -> Iterator[list[str]]:
    """A row for each pass and way to skip."""
    for which in PASSES:
        skipped = accelerator.skips(which)
        for how in dict.fromkeys(skipped.values()):
            operands = [operand.replace("_", " ") for operand in skipped if skipped[operand] == how]
            yield [PASS_NAMES[which], ", ".join(operands), SKIPS[how]]
        if not skipped:
            yield [PASS_NAMES[which], "none", ""]


def _keys(section: Parameters, file: Path, up: str) -> Iterator[str]:
    """A table of the keys of each section. One that is a file of its own is a link to its page."""
    why, given = comments(file), _given(file)
    elsewhere = {kind: str(given[kind]) for kind in SECTIONS if isinstance(given.get(kind), str)}
    tables: dict[str, list[list[str]]] = {"": []}
    for path, value, unit, meaning in keys(section):
        inside, _, key = path.rpartition(".")
        if path.partition(".")[0] not in elsewhere and path not in TOLD:
            shown = code(value) if unit in NO_UNITS else f"{code(value)} {escaped(unit)}"
            tables.setdefault(inside, []).append([code(key), shown, _both(meaning, why.get(path, ""), up)])
    for kind, name in elsewhere.items():
        link = code(name) if name == "none" else f"[{name}]({kind}/{Path(name).stem}.md)"
        field = type(section).model_fields[kind]
        tables[""].append([code(kind), link, _both(field.description or "", why.get(kind, ""), up)])
    for path, rows in tables.items():
        if path:
            yield f"### {path}"
        if rows:
            yield table(HEADINGS, rows)


def _both(meaning: str, why: str, up: str) -> str:
    """What a key means; what the file says about its value behind the unit, which stands beside the value here."""
    own = why.removeprefix("option: ") if why.startswith("option: ") else why.partition(". ")[2] or why
    return f"{escaped(meaning)}. *{_linked(own, up)}*" if own else escaped(meaning)


def _linked(text: str, up: str) -> str:
    """A comment of a file, whose names of pages are links."""
    return re.sub(r"docs/(\w+)\.md", rf"[docs/\1.md]({up}/\1.md)", escaped(text))


def opening(file: Path) -> str:
    """The comment that a file begins with."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def _given(file: Path) -> dict[str, Any]:
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    return given if isinstance(given, dict) else {}


def comments(file: Path) -> dict[str, str]:
    """What the file says behind the value of each key, by the key's path."""
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    found: dict[str, str] = {}

    def walk(node: yaml.MappingNode, path: str) -> None:
        for key, value in node.value:
            here = f"{path}{key.value}"
            if isinstance(value, yaml.MappingNode):
                walk(value, f"{here}.")
                continue
            rest = lines[value.end_mark.line][value.end_mark.column :] if value.end_mark.line < len(lines) else ""
            found[here] = rest.partition("# ")[2].strip()

    root = yaml.compose(text)
    if isinstance(root, yaml.MappingNode):
        walk(root, "")
    return found
