"""YAML of other tools: plain data, and no surprises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import blame_all, read_text

LARGEST_YAML = 1 << 22  # bytes
MERGE = "<<<"
DEEPEST = 12  # mappings in one another in which <<< is looked for
# Timeloop's front end puts other files' texts where these stand, and merges what <<< names.
INCLUDE = re.compile(r"\{\{\s*include_text\(\s*['\"]([^'\"]{1,200})['\"]\s*\)\s*\}\}")


def parse(path: Path) -> Any:
    """What a file says.

    Raises
    ------
    ImportFormatError
        One line, with the place where there is one, if it is no YAML.
    """
    text = INCLUDE.sub(lambda match: _included(path, match[1]), read_text(path, LARGEST_YAML))
    with blame_all(path, "must be YAML: "):
        try:
            return _merged(yaml.safe_load(text))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            raise ImportFormatError(f"{at}{error.problem}") from error


def _merged(content: Any, depth: int = 0) -> Any:
    """Mappings with what <<< names beneath them, key by key down to the last."""
    if isinstance(content, dict) and MERGE in content and depth < DEEPEST:
        base = content[MERGE]
        own = {key: value for key, value in content.items() if key != MERGE}
        content = _over(base, own, depth) if isinstance(base, dict) else own
    if isinstance(content, dict) and depth < DEEPEST:
        return {key: _merged(value, depth + 1) for key, value in content.items()}
    return content


def _over(base: dict[Any, Any], own: dict[Any, Any], depth: int) -> dict[Any, Any]:
    found = dict(base)
    for key, value in own.items():
        below = found.get(key)
        if isinstance(below, dict) and isinstance(value, dict) and depth < DEEPEST:
            found[key] = _over(below, value, depth + 1)
        else:
            found[key] = value
    return found


def _included(path: Path, name: str) -> str:
    """The text of a file beside this one, or in the folder above."""
    folder = path.absolute().parent
    file = (folder / name).resolve()
    if file.parent not in (folder.resolve(), folder.parent.resolve()) or not file.is_file():
        raise ImportFormatError(f"{path}: include_text: must name a file beside it or above, names {name[:60]!r}")
    return read_text(file, LARGEST_YAML)
