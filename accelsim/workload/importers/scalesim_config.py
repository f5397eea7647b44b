"""SCALE-Sim's configuration (.cfg), as far as it says which weights are zero: the section [sparsity] of version 3."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import blame, integer, read_text
from accelsim.workload.patterns import LARGEST_BLOCK


@dataclass(frozen=True)
class Sparsity:
    """What the section says.

    Parameters
    ----------
    is_on : bool
        SparsitySupport: whether the topology's N:M counts.
    size : int
        M of N:M with an N of each filter's own (OptimizedMapping), 0 where the topology's N:M holds.
    seed : int
        Of these N.
    """

    is_on: bool
    size: int = 0
    seed: int = 40

    @property
    def said(self) -> str:
        """For the user."""
        if not self.is_on:
            return "SparsitySupport is off: the topology's N:M are not taken"
        return (
            f"OptimizedMapping: N:{self.size} with an N of each filter" if self.size else "N:M is that of the topology"
        )


def read_config(path: Path) -> Sparsity | None:
    """Read a configuration; None if it is not SCALE-Sim's.

    Raises
    ------
    ImportFormatError
        One line that names file and key, if it is no configuration or a value makes no sense.
    """
    text = read_text(path)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ImportFormatError(f"{path}: must be a configuration: {' '.join(str(error).split())[:160]}") from error
    if not parser.has_section("architecture_presets") and not parser.has_section("sparsity"):
        return None
    if not parser.has_section("sparsity") or not _is_true(parser, path, "SparsitySupport"):
        return Sparsity(False)
    if not _is_true(parser, path, "OptimizedMapping"):
        return Sparsity(True)
    with blame(f"{path}: sparsity"):
        size = integer(parser.get("sparsity", "BlockSize", fallback=""), "BlockSize", 2)
        if size > LARGEST_BLOCK:
            raise ImportFormatError(f"BlockSize: must be at most {LARGEST_BLOCK}, got {size}")
        seed = integer(parser.get("sparsity", "RandomNumberGeneratorSeed", fallback="40"), "seed", 0)
        return Sparsity(True, size, seed % (1 << 32))


def _is_true(parser: configparser.ConfigParser, path: Path, key: str) -> bool:
    value = parser.get("sparsity", key, fallback="false").strip().lower()
    if value not in ("true", "false"):
        raise ImportFormatError(f"{path}: sparsity: {key}: must be true or false, got {value[:40]!r}")
    return value == "true"
