"""A page for each shipped machine, and for each memory, energy table and overheads, from its YAML and its model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from accelsim.hardware.accelerators.base import SKIPS
from accelsim.hardware.machine import SECTIONS, Machine, load_machine, load_section
from accelsim.hardware.parameters import Parameters
from accelsim.study.describe import keys
from accelsim.workload.lowering import PASSES
from writers.markdown import code, escaped, joined, table, toctree

CONFIGS = Path(__file__).parents[2] / "configs"
PASS_NAMES = {"fwd": "forward", "input_grad": "input gradient", "weight_grad": "weight gradient"}
HEADINGS = ("key", "value", "unit", "meaning", "why this value")


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
    yield escaped(opening(file))
    yield f"```sh\naccelsim run --config {file.name} --trace resnet50.npz\n```"
    yield (
        f"It has {accelerator.multipliers:,} multipliers and is compared with a dense machine of "
        f"{accelerator.baseline_multipliers:,}."
    )
    yield "## What it skips"
    yield table(("pass", "operand", "zeros that may save time"), _skips(accelerator))
    yield "## Keys"
    given = _given(file)
    named = {kind: given[kind] for kind in SECTIONS if isinstance(given.get(kind), str) and given[kind] != "none"}
    yield table(HEADINGS, _rows(machine, comments(file), named))
    yield "## Its model"
    model = type(accelerator)
    yield f"`model: {accelerator.model}` is [`{model.__name__}`](../api/{model.__module__}.md):"
    yield from (f"> {line}".rstrip() for line in ["\n> ".join(inspect.cleandoc(model.__doc__ or "").splitlines())])
    yield "## The file"
    yield f"```yaml\n{file.read_text(encoding='utf-8')}```"


def _part(file: Path, kind: str) -> Iterator[str]:
    """The page of a file with one section."""
    yield f"# {file.stem}"
    yield escaped(opening(file))
    yield f"```sh\naccelsim run --config pe16x16.yaml --trace resnet50.npz --{kind} {file.name}\n```"
    yield "## Keys"
    yield table(HEADINGS, _rows(load_section(SECTIONS[kind], file, kind), comments(file), {}))
    yield "## The file"
    yield f"```yaml\n{file.read_text(encoding='utf-8')}```"


def _skips(accelerator: Any) -> Iterator[list[str]]:
    for which in PASSES:
        skipped = accelerator.skips(which) or {"none": ""}
        for operand, how in skipped.items():
            yield [PASS_NAMES[which], operand.replace("_", " "), SKIPS.get(how, "")]


def _rows(section: Parameters, why: dict[str, str], named: dict[str, str]) -> Iterator[list[str]]:
    """A row for each key; a section that is another file's is one row that leads there."""
    told = set()
    for path, value, unit, meaning in keys(section):
        kind = path.partition(".")[0]
        if kind not in named:
            yield [code(path), code(value), escaped(unit), escaped(meaning), escaped(why.get(path, ""))]
        elif kind not in told:
            told.add(kind)
            link = f"[{named[kind]}]({kind}/{Path(named[kind]).stem}.md)"
            meaning = type(section).model_fields[kind].description or ""
            yield [code(kind), link, "file", escaped(meaning), escaped(why.get(kind, ""))]


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

    walk(yaml.compose(text), "")
    return found
