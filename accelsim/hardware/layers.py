"""Machine files that build on others: ``base: bit-tactical.yaml`` and what differs from it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.errors import ConfigError
from accelsim.hardware.area import is_stale
from accelsim.hardware.yaml_file import read_yaml, shown

DEEPEST = 8  # sections in sections; a file that goes deeper is refused by its keys


@dataclass
class Layered:
    """What a file and those that it builds on say together.

    Parameters
    ----------
    source : str
        The file, as errors name it.
    data : object
        All keys, those of the file before those of its base.
    bases : list of (str, dict)
        Each base by name with its own keys, the nearest first.
    """

    source: str
    data: Any
    bases: list[tuple[str, dict[Any, Any]]]

    @property
    def path(self) -> Path:
        return Path(self.source)

    def origin(self, location: tuple[Any, ...]) -> str:
        """``base b.yaml:`` and a space, where a key stands in a base and in no file nearer; else nothing."""
        if not self.bases or _has(self.bases[0][1], location):
            return ""
        return next((f"base {name}: " for name, own in self.bases[1:] if _has(own, location)), "")


def _has(data: Any, location: tuple[Any, ...]) -> bool:
    for key in location:
        if not isinstance(data, dict) or key not in data:
            return isinstance(data, str)  # a section's file, in which it is
        data = data[key]
    return True


def read_layers(file: str | Path, sections: Container[str]) -> Layered:
    """A machine file with all that it builds on.

    Raises
    ------
    ConfigError
        If one of them cannot be read, or a chain of bases comes back to itself.
    """
    chain: list[tuple[str, Any]] = []
    known: list[Path] = []
    wanted: Any = file
    while True:
        before = "".join(f"{name}: base: " for name, _ in chain)
        try:
            path, data = read_yaml(wanted, "configs")
        except ConfigError as error:
            raise ConfigError(f"{before}{error}") from None
        if path.resolve() in known:
            raise ConfigError(f"{before}{path}: must not build on itself")
        if chain and not isinstance(data, dict):
            raise ConfigError(f"{before}{path}: must be a mapping of keys, got {shown(data)}")
        known.append(path.resolve())
        chain.append((str(path), data))
        if not isinstance(data, dict) or "base" not in data:
            break
        wanted = data.pop("base")
        if not isinstance(wanted, str):
            raise ConfigError(f"{before}{path}: base: must be the name of a machine file, got {shown(wanted)}")
    merged = chain[-1][1]
    for _, data in reversed(chain[:-1]):
        if is_stale("area" in data, data):
            merged = {key: value for key, value in merged.items() if key != "area"}
        merged = over(_spelled_out(merged, data, sections), data)
    return Layered(chain[0][0], merged, chain if len(chain) > 1 else [])


def _spelled_out(base: dict[Any, Any], data: dict[Any, Any], sections: Container[str]) -> dict[Any, Any]:
    """A base's sections that are files of their own and that the other changes in part, read."""
    changed = [key for key, value in data.items() if key in sections and isinstance(value, dict)]
    files = [key for key in changed if isinstance(base.get(key), str) and base[key] != "none"]
    return base | {key: read_yaml(base[key], f"configs/{key}")[1] for key in files}


def over(base: Any, data: Any, depth: int = 0) -> Any:
    """What ``data`` says, and where it says nothing what its base says.

    A section with another ``model``, or with a ``preset``, which fills in all that is not beside it, is taken whole.
    """
    if not isinstance(base, dict) or not isinstance(data, dict) or depth == DEEPEST:
        return data
    if "preset" in data or data.get("model", base.get("model")) != base.get("model"):
        return data
    return base | {key: over(base.get(key), value, depth + 1) for key, value in data.items()}
