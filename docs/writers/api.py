"""The API reference: a page for each module, filled from docstrings when Sphinx reads it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from writers.markdown import code, escaped, joined, table, toctree

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "accelsim"
# What other people's programs import, in the order of the page; it changes with a note in CHANGELOG.md only.
PUBLIC = (
    "accelsim",
    "accelsim.capture",
    "accelsim.errors",
    "accelsim.hardware.accelerators.base",
    "accelsim.hardware.machine",
    "accelsim.pipeline",
    "accelsim.study.results",
    "accelsim.testing",
    "accelsim.workload.geometry",
    "accelsim.workload.lowering",
    "accelsim.workload.trace",
)


def modules() -> dict[str, str]:
    """Every module with the first line of its docstring, those in order of their imports' direction."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        found[name] = " ".join(docstring.partition("\n\n")[0].split())
    return found


def pages() -> dict[str, str]:
    """The index and the pages of modules, by their paths."""
    known = modules()
    made = {f"api/{name}.md": _page(name) for name in known}
    return made | {"api/index.md": joined(_index(known))}


def _index(known: dict[str, str]) -> Iterator[str]:
    yield "# API reference"
    yield (
        "What a program of yours imports, first; every other module below it, for those who read or change the code. "
        "Generated from docstrings."
    )
    yield "## Public modules"
    yield _listed({name: known[name] for name in PUBLIC})
    yield "## Every module"
    inside = {name: words for name, words in known.items() if name not in PUBLIC and words}
    yield _listed(inside)
    yield toctree([*PUBLIC, *(name for name in known if name not in PUBLIC)], ":hidden:")


def _listed(some: dict[str, str]) -> str:
    return table(
        ("module", "what it is"), ([f"[{code(name)}]({name}.md)", _words(text)] for name, text in some.items())
    )


def _words(docstring: str) -> str:
    """The docstring's words; its double backticks are Markdown's too."""
    parts = docstring.split("``")
    parts[::2] = [escaped(part) for part in parts[::2]]
    parts[1::2] = [code(part) for part in parts[1::2]]
    return "".join(parts)


def _page(name: str) -> str:
    """A module's own functions and classes, and where those are that it passes on."""
    own = f"```{{eval-rst}}\n.. automodule:: {name}\n   :ignore-module-all:\n```"
    passed = [f"- `{what}`, of [`{where}`]({where}.md)" for what, where in _passed_on(name).items()]
    also = ["To be imported from here too:", "\n".join(passed)] if passed else []
    return joined([f"# {code(name)}", own, *also])


def _passed_on(name: str) -> dict[str, str]:
    """What a package offers (``__all__``) of its modules, at once or when it is asked for: each name's module."""
    file = ROOT / name.replace(".", "/") / "__init__.py"
    if not file.is_file():
        return {}
    found = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("accelsim."):
            found |= {alias.name: str(node.module) for alias in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_WHERE":
            found |= {what: f"{name}.{where}" for what, where in ast.literal_eval(node.value).items()}
    return {what: where for what, where in found.items() if what in getattr(import_module(name), "__all__", ())}
