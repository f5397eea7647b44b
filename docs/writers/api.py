"""The API reference, filled from docstrings when Sphinx reads it: a page a public module, a page a package inside."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from accelsim.hardware.parameters import Parameters
from writers.markdown import code, escaped, joined, table, toctree

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "accelsim"
# What other people's programs import, in the order of the page; it changes with a note in CHANGELOG.md only.
PUBLIC = (
    "accelsim",
    "accelsim.capture",
    "accelsim.errors",
    "accelsim.pipeline",
    "accelsim.ledger",
    "accelsim.laws",
    "accelsim.hardware.machine",
    "accelsim.hardware.accelerators.base",
    "accelsim.hardware.accelerators.film",
    "accelsim.study.animation",
    "accelsim.study.results",
    "accelsim.testing",
    "accelsim.workload.geometry",
    "accelsim.workload.lowering",
    "accelsim.workload.trace",
)
INDEX = """\
# API reference

What programs import, from docstrings. What is not on this page may change from one version to the next; \
[what is inside](inside/index.md) has every other module, for those who read or change the code."""
INSIDE = """\
# Inside

Every module that is not for import from elsewhere, package by package; CONTRIBUTING says in which order to read."""


def modules() -> dict[str, str]:
    """Every module that has something to say, with the first paragraph of its docstring."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        if docstring:
            found[name] = " ".join(docstring.partition("\n\n")[0].split())
    return found


def pages() -> dict[str, str]:
    """The indexes and the pages of public modules and of packages, by their paths."""
    known = modules()
    made = {f"api/{name}.md": _public(name) for name in PUBLIC}
    listed = table(("module", "what it is"), ([f"[{code(name)}]({name}.md)", _words(known[name])] for name in PUBLIC))
    made["api/index.md"] = joined([INDEX, listed, toctree([*PUBLIC, "inside/index"], ":hidden:")])
    packages: dict[str, list[str]] = {}
    for name in known:
        if name not in PUBLIC:
            packages.setdefault(page(name).partition("#")[0], []).append(name)
    for path, inside in packages.items():
        sections = (f"## {code(name)}\n\n{_automodule(name)}" for name in inside)
        made[f"api/{path}"] = joined([f"# {code(Path(path).stem)}", *sections])
    names = [Path(path).stem for path in packages]
    rows = ([f"[{code(name)}]({name}.md)", ", ".join(map(code, packages[f"inside/{name}.md"]))] for name in names)
    made["api/inside/index.md"] = joined([INSIDE, table(("package", "modules"), rows), toctree(names, ":hidden:")])
    return made


def _is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).is_dir()


def _automodule(name: str) -> str:
    """Its own functions and classes, not those that it passes on."""
    return f"```{{eval-rst}}\n.. automodule:: {name}\n   :ignore-module-all:\n```"


def _public(name: str) -> str:
    """The page of a module, and where those functions and classes are that it passes on."""
    passed = [f"- `{what}`, of [`{where}`]({page(where)})" for what, where in _passed_on(name).items()]
    also = ["To be imported from here too:", "\n".join(passed)] if passed else []
    return joined([f"# {code(name)}", _automodule(name), *also])


def page(module: str) -> str:
    """Where a module is documented, seen from the index."""
    if module in PUBLIC:
        return f"{module}.md"
    package = module if _is_package(module) else module.rpartition(".")[0]
    return f"inside/{package}.md#{module.replace('.', '')}"


def _passed_on(name: str) -> dict[str, str]:
    """What a package offers (``__all__``) of its modules, at once or when it is asked for: each name's module."""
    file = ROOT / name.replace(".", "/") / "__init__.py"
    if not file.is_file():
        return {}
    found: dict[str, str] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("accelsim."):
            found |= {alias.name: str(node.module) for alias in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_WHERE":
            found |= {what: f"{name}.{where}" for what, where in ast.literal_eval(node.value).items()}
    return {what: where for what, where in found.items() if what in getattr(import_module(name), "__all__", ())}


def _words(docstring: str) -> str:
    """The docstring's words; its double backticks are Markdown's too."""
    parts = docstring.split("``")
    parts[::2] = [escaped(part) for part in parts[::2]]
    parts[1::2] = [code(part) for part in parts[1::2]]
    return "".join(parts)


def signature(app: object, what: str, name: str, obj: Any, *others: object) -> tuple[str, None] | None:
    """For autodoc: a section of a machine file takes its keys, which are listed below it."""
    return ("(**keys)", None) if what == "class" and issubclass(obj, Parameters) else None


def keys_of_sections(app: object, what: str, name: str, obj: Any, options: object, lines: list[str]) -> None:
    """For autodoc: the keys of a section of a machine file, which pydantic keeps out of docstrings."""
    if what == "class" and issubclass(obj, Parameters) and obj.model_fields:
        lines += ["", ".. list-table::", ""]
        for key, field in obj.model_fields.items():
            has_default = not field.is_required() and field.default not in (None, "")
            default = f"; by default ``{field.default}``" if has_default else ""
            meaning = (field.description or "").replace("`", "``")
            lines += [f"   * - ``{key}``", f"     - {meaning}{default}"]
        lines.append("")


def setup(app: Any) -> None:
    """Connects both."""
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", keys_of_sections)
