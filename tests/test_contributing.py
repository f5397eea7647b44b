"""Is something forgotten? The checklists of CONTRIBUTING.md, where no other test holds a step; and what they name."""

import ast
import re
from pathlib import Path

import machines
import pytest

from accelsim import cli, load_machine
from accelsim.errors import AccelsimError
from accelsim.workload import importers

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "accelsim" / "hardware" / "accelerators"
TESTS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").glob("*.py"))}


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


KNOWN = sorted(
    name
    for path in MODELS.rglob("*.py")
    for name in re.findall(r'^    model: Literal\["(\w+)"\]', path.read_text(encoding="utf-8"), re.M)
)
SHIPPED = {path.name: load_machine(path).accelerator.model for path in sorted((ROOT / "configs").glob("*.yaml"))}


def test_every_model_is_shipped_in_a_machine_file():
    """Which loads: the model is in the catalogue."""
    assert len(KNOWN) >= 8 and {*KNOWN} == {*SHIPPED.values()}


@pytest.mark.parametrize("model", KNOWN)
def test_every_model_is_held_to_the_laws_and_to_examples_by_hand(model):
    assert model in machines.MODELS
    names = {model, *(file.removesuffix(".yaml") for file in SHIPPED if SHIPPED[file] == model)}
    by_hand = TESTS["test_published.py"] + TESTS["test_golden.py"] + TESTS["test_tensordash.py"] + TESTS["test_scnn.py"]
    by_hand += TESTS["test_bit_level.py"]
    assert any(f'"{name}"' in by_hand for name in names)


def test_every_machine_has_its_section_and_every_model_its_rules():
    headings = "".join(re.findall(r"^###? .*$", page("docs/machines.md"), re.M))
    assert [file for file in SHIPPED if file not in headings] == []
    rules = "".join(re.findall(r"^## .*$", page("docs/model.md"), re.M))
    assert [model for model in KNOWN if f"`{model}`" not in rules] == []


FORMATS = [
    path.stem
    for path in sorted((ROOT / "accelsim" / "workload" / "importers").glob("*.py"))
    if re.search(r"^def read\(", path.read_text(encoding="utf-8"), re.M) and path.stem != "__init__"
]


@pytest.mark.parametrize("name", FORMATS)
def test_every_importer_can_be_asked_for_and_is_described(name, tmp_path):
    with pytest.raises(AccelsimError) as error:
        importers.read(tmp_path / "missing", name)
    assert "format: must be" not in str(error.value)
    assert re.search(rf"^\| `{name}` \|", page("docs/importers.md"), re.M)
    helps = {action.dest: action.help for action in commands()["import"]._actions}
    assert name in helps["format"]


def commands():
    """Commands on the command line, each with its parser."""
    (action,) = (action for action in cli.parser()._actions if action.dest == "==SUPPRESS==" and action.choices)
    return action.choices


def test_every_file_of_commands_is_on_the_command_line():
    files = {path.stem for path in (ROOT / "accelsim" / "commands").glob("*.py")} - {"__init__", "shared"}
    having = {path for path in files if "def add(" in page(f"accelsim/commands/{path}.py")}
    used = {ast.unparse(node) for node in ast.walk(ast.parse(page("accelsim/cli.py"))) if isinstance(node, ast.Name)}
    assert having - used == set()


def test_every_command_has_an_example_and_a_test():
    """Those of docs/start.md are run by test_docs.py."""
    examples = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    tests = "".join(TESTS.values())
    for name in commands():
        assert re.search(rf"^ *accelsim {name}\b", examples, re.M), name
        assert f'"{name}"' in tests or f"accelsim {name}" in tests, name


CONTRIBUTING = page("CONTRIBUTING.md")


def test_every_file_and_test_that_the_checklists_name_exists():
    named = re.findall(r"`(test_\w+)`", CONTRIBUTING)
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in "".join(TESTS.values())] == []
    paths = re.findall(
        r"`((?:accelsim|tests|docs|configs|benchmarks)/[\w/.-]*|[\w.-]+\.(?:md|cfg|toml))`", CONTRIBUTING
    )
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_step_of_a_checklist_names_a_test():
    steps = re.split(r"^\d+\. ", "".join(re.findall(r"^\d+\. .*?(?=^\n|\Z)", CONTRIBUTING, re.M | re.S)), flags=re.M)[
        1:
    ]
    assert len(steps) > 15
    assert [step for step in steps if "`test_" not in step and "No test" not in step] == []
