"""``accelsim new``: a package for a machine of one's own, which works as it is written."""

from __future__ import annotations

import argparse
import keyword
from importlib.util import find_spec
from pathlib import Path

from accelsim.commands.shared import Commands, show
from accelsim.errors import AccelsimError, OutputError
from accelsim.files import staged

SKELETON = Path(__file__).parent / "skeleton"
# Where each file of the skeleton goes; my_machine and MyMachine stand for the names, in it and in the paths.
PLACES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "machine.yaml": "my_machine.yaml",
    "model.py": "my_machine/model.py",
    "test_model.py": "tests/test_model.py",
}


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser("new", parents=[common], help="write a package for a machine of your own")
    kinds = command.add_subparsers(required=True, metavar="WHAT")
    machine = kinds.add_parser(
        "machine",
        parents=[common],
        help="an accelerator: its model, a machine file, and a test that holds it to the laws",
        description="Writes a package that can be installed: a model of some 60 lines that obeys every law, to be "
        "changed into yours, a machine file for it, and its tests. docs/your_machine.md says what each piece is.",
    )
    machine.add_argument("name", metavar="NAME", help="of the package, e.g. my_array; its class is then MyArray")
    machine.add_argument("--out", type=Path, metavar="DIR", help="a new folder (default: NAME, in the current one)")
    machine.set_defaults(command=new_machine)


def new_machine(options: argparse.Namespace) -> None:
    """A name → a folder with a package, and a line about what to do with it."""
    folder = write_machine(options.name, options.out or Path(options.name))
    show(f"{folder}: now, in it: python -m pytest\n")


def write_machine(name: str, out: Path) -> Path:
    """Writes the skeleton of a machine's package; whole, or nothing.

    Parameters
    ----------
    name : str
        Of the package and the model: letters, digits, and _ or -.
    out : Path
        A folder that is not there yet, or is empty.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    AccelsimError
        If the name will not do for a package, or for a model of accelsim.
    OutputError
        If there is something in the folder, or it cannot be written.
    """
    package = name.replace("-", "_")
    _check_name(name, package)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: must be a new folder, nothing in it is replaced")
    names = {"my_machine": package, "MyMachine": "".join(part[:1].upper() + part[1:] for part in package.split("_"))}
    with staged(out) as stage:
        for source, place in PLACES.items():
            text = (SKELETON / f"{source}.txt").read_text(encoding="utf-8")
            for old, new in names.items():
                text, place = text.replace(old, new), place.replace(old, new)
            (stage / place).parent.mkdir(exist_ok=True)
            (stage / place).write_text(text, encoding="utf-8")
        (stage / package / "__init__.py").write_text(f'"""{names["MyMachine"]}, for accelsim."""\n', encoding="utf-8")
    return out


def _check_name(name: str, package: str) -> None:
    """Raises AccelsimError if a package or a model must not be called so."""
    from accelsim.hardware.accelerators.catalogue import SHIPPED

    if not package.isidentifier() or not package.isascii() or keyword.iskeyword(package) or len(package) > 40:
        raise AccelsimError(f"name: must be letters, digits and _, as a package's, at most 40, got {name[:60]}")
    if package in SHIPPED:
        raise AccelsimError(f"name: must be no model that accelsim ships, got {name}")
    if find_spec(package):
        raise AccelsimError(f"name: must be no module that can be imported already, got {name}")
