"""Reading YAML that users write, without surprises. The one place that knows YAML."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import yaml

from accelsim.errors import ConfigError
from accelsim.files import find

LARGEST_FILE_BYTES = 1 << 20
# What PyYAML raises on text that is no YAML, or on a tagged scalar that is not what its tag says.
UNREADABLE = (yaml.YAMLError, RecursionError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError)

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 1


def read_yaml(file: str | Path, kind: str) -> tuple[Path, Any]:
    """The file of that name, found as ``files.find`` does among those of a kind, and what its YAML says.

    Raises
    ------
    ConfigError
        If there is none, or it is not YAML; it names the file, and the line where there is one.
    """
    path = find(file, kind, ConfigError)
    try:
        if not path.is_file() and not path.is_dir():  # a pipe would be waited for
            raise ConfigError("must be a file")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ConfigError(f"must be at most {LARGEST_FILE_BYTES} bytes, got {path.stat().st_size}")
        return path, _parse(path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8 text, got byte {error.start} that is not") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{at}: {error.problem}") from error
    except UNREADABLE as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path}: must be YAML: {problem}") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """``accelerator.lanes=8`` as a key and a value, which is read as in a file.

    Raises
    ------
    ConfigError
        If it is none.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set: must be KEY=VALUE, such as accelerator.lanes=8, got {shown(text)}")
    try:
        return key.strip(), _parse(value)
    except (ConfigError, *UNREADABLE) as error:
        raise ConfigError(f"--set: {shown_key(key)}: must be a value in YAML, got {shown(value)}") from error


def to_yaml(data: Any) -> str:
    """Plain data as YAML, keys in their order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _parse(text: str) -> Any:
    """YAML without surprises: a key given twice is an error."""
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _refuse_duplicates(node, "", set())
    return loader.construct_document(node)


def _refuse_duplicates(node: yaml.Node, path: str, seen: set[int]) -> None:
    """``seen``: nodes met before through another alias, not walked again."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, path, seen)
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        here = f"{path}{shown_key(key.value)}"
        if isinstance(key.value, str) and key.value in lines:
            raise ConfigError(f"{here}: given twice, in lines {lines[key.value]} and {key.start_mark.line + 1}")
        if isinstance(key.value, str):
            lines[key.value] = key.start_mark.line + 1
        _refuse_duplicates(value, f"{here}.", seen)


def shown_key(key: object) -> str:
    """A key as it goes into one line."""
    return key if isinstance(key, str) and key.isprintable() and len(key) <= 60 else shown(key)


def shown(value: object) -> str:
    """A value on one short line; one that aliases blow up without end is cut before it is spelled out."""
    try:
        text = _SHORT.repr(value)
        return text if len(text) <= 60 else f"{text[:57]}…"
    except ValueError:
        return "a number with more digits than Python prints"
