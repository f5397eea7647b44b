"""Which models there are: those shipped, those that installed packages bring, and any class by its name.

A machine file's ``model`` is the name of a shipped model; or the name of an entry point in the group
``accelsim.accelerators`` of an installed package; or ``package.module:Class``. To import what only a file names is to
run it, so that asks for consent. A new shipped machine is one file beside this one, and one line below.
"""

from __future__ import annotations

import hashlib
import os
import pkgutil
import re
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from accelsim.errors import ConfigError
from accelsim.hardware.accelerators.base import Accelerator
from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.accelerators.bit_tactical_serial import TCLe, TCLp
from accelsim.hardware.accelerators.cambricon_x import CambriconX
from accelsim.hardware.accelerators.cnvlutin import Cnvlutin
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.dcnn import DCNN
from accelsim.hardware.accelerators.dstc import DSTC
from accelsim.hardware.accelerators.ideal import Ideal
from accelsim.hardware.accelerators.laconic import Laconic
from accelsim.hardware.accelerators.loom import Loom
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.accelerators.pragmatic import Pragmatic
from accelsim.hardware.accelerators.scnn import SCNN
from accelsim.hardware.accelerators.shapeshifter import ShapeShifter
from accelsim.hardware.accelerators.sigma import Sigma
from accelsim.hardware.accelerators.stripes import Stripes
from accelsim.hardware.accelerators.structured import Structured
from accelsim.hardware.accelerators.tensordash import TensorDash
from accelsim.hardware.parameters import Parameters

BASE = "accelsim.hardware.accelerators.base.AcceleratorParameters"
GROUP = "accelsim.accelerators"
SHIPPED: dict[str, type[Any]] = {
    "dadiannao": DaDianNao,
    "bit_tactical": BitTactical,
    "tensordash": TensorDash,
    "pe_array": PEArray,
    "scnn": SCNN,
    "dcnn": DCNN,
    "sigma": Sigma,
    "dstc": DSTC,
    "cambricon_x": CambriconX,
    "cnvlutin": Cnvlutin,
    "structured": Structured,
    "stripes": Stripes,
    "shapeshifter": ShapeShifter,
    "loom": Loom,
    "pragmatic": Pragmatic,
    "laconic": Laconic,
    "tclp": TCLp,
    "tcle": TCLe,
    "ideal": Ideal,
}
REFERENCE = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
# Packages whose code is accounted for otherwise.
OWN = ("accelsim", "pydantic", "typing", "abc", "builtins")
PIECES = sorted({name for name in (*vars(Accelerator), *Accelerator.__annotations__) if not name.startswith("_")})


def installed() -> dict[str, EntryPoint]:
    """The entry points of installed packages, by name; a shipped model's name is not theirs to take."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in SHIPPED}


def model(name: object, *, allow_code: bool = False) -> type[Any]:
    """The class that a machine file's ``model`` means.

    Parameters
    ----------
    name : object
        What the file says: a name, or "package.module:Class".
    allow_code : bool
        Whether code that is no entry point of an installed package may be imported, also from the current folder.

    Raises
    ------
    ConfigError
        If there is none of that name, it must not or cannot be imported, or is no accelerator.
    """
    if isinstance(name, str) and name in SHIPPED:
        return SHIPPED[name]
    points = installed()
    if isinstance(name, str) and name in points:
        return _accelerator(points[name].value)
    if not isinstance(name, str) or not re.match(REFERENCE, name):
        known = ", ".join([*SHIPPED, *points])
        raise ConfigError(f"must be one of {known}, or package.module:Class, got {name!r:.60}")
    if not allow_code and name not in [point.value for point in points.values()]:
        raise ConfigError(
            f"would import and run {name}, code that is not accelsim's: allow it with --allow-code "
            f"(in Python allow_code=True), or install its package with an entry point in {GROUP}"
        )
    return _accelerator(name)


def _accelerator(reference: str) -> type[Any]:
    """Imports a class and looks whether it is whole."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that no file there hides an installed module
    try:
        kind: type[Any] = pkgutil.resolve_name(reference)
    except Exception as error:  # a module may raise anything while it is imported
        raise ConfigError(f"cannot import {reference}: {type(error).__name__}: {error}") from error
    refuse_incomplete(kind, reference)
    return kind


def refuse_incomplete(kind: object, name: str | None = None) -> None:
    """Raises ConfigError if something is no class of parameters, or lacks a piece of ``base.Accelerator``."""
    if not isinstance(kind, type) or not issubclass(kind, Parameters):
        raise ConfigError(f"{name or kind}: must be a class derived from {BASE}")
    there = {name for name in dir(kind) if name not in kind.__abstractmethods__} | {*kind.model_fields}
    lacking = [piece for piece in PIECES if piece not in there]
    lacking += sorted(kind.__abstractmethods__.difference(lacking))
    if lacking:
        where = "docs/your_machine.md says what each is"
        raise ConfigError(f"{name or reference_of(kind)}: lacks {', '.join(lacking)} of an accelerator; {where}")


def reference_of(kind: type[Any]) -> str:
    """What a machine file calls a class: a name for those shipped and installed, else ``package.module:Class``."""
    for name, shipped in SHIPPED.items():
        if kind is shipped:
            return name
    own = f"{kind.__module__}:{kind.__qualname__}"
    return next((point.name for point in installed().values() if point.value == own), own)


@cache
def source_digest(kind: type[Any]) -> str | None:
    """Digest of the code behind a class that is not accelsim's: all of its packages, and of those that it builds on.

    None for a shipped model. Results of other code are other results.
    """
    modules = {base.__module__ for base in kind.__mro__}
    foreign = [name for name in modules if name.partition(".")[0] not in OWN]
    if not foreign:
        return None
    digest = hashlib.sha256()
    for path in sorted({path for name in foreign for path in _files(name)}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _files(module: str) -> list[Path]:
    """The source of a module; of one in a package all of the package's."""
    top = sys.modules.get(module.partition(".")[0])
    own = getattr(top if hasattr(top, "__path__") else sys.modules[module], "__file__", None)
    if not own:
        return []
    return sorted(Path(own).parent.rglob("*.py")) if hasattr(top, "__path__") else [Path(own)]
