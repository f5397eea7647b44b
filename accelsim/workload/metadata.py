"""The metadata of a trace: every rule about it, stated once. Reader and writer hold entries against the same rules.

The format, to the bit, is in traces/README.md.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeGuard

from accelsim.errors import TraceError
from accelsim.workload.geometry import LARGEST_SIZE, Geometry
from accelsim.workload.npz import ENCODINGS, blame

TENSORS = ("weight", "activation", "saved_activation", "gradient")
FORMAT, VERSION = "accelsim-trace", 1
META = "meta"
LONGEST_NAME = 255

# For each key its rule, in words and as a test. Rules that join keys are in the functions below.
Rule = tuple[str, Callable[[Any], bool]]
Entry = dict[str, Any]  # an object of the metadata


def _integer(low: int, high: int) -> Rule:
    return f"an integer in {low}…{high}", lambda v: type(v) is int and low <= v <= high


def _is_text(v: object) -> TypeGuard[str]:
    return isinstance(v, str) and v.isprintable() and 0 < len(v) <= LONGEST_NAME


def _is_path(v: object) -> bool:
    return _is_text(v) and "\\" not in v and not any(part in ("", ".", "..") for part in v.split("/"))


def _is_sizes(v: object) -> bool:
    return all(type(size) is int for size in (v if type(v) is list and len(v) <= 4 else [v]))


def _is_share(v: object) -> bool:
    return isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v < 1


TEXT = f"a text of 1…{LONGEST_NAME} printable characters", _is_text
PART: Rule = f"{TEXT[0]} without / and \\, not . or ..", lambda v: _is_path(v) and "/" not in v
PATH = f"{TEXT[0]} without \\ and without an empty part, . or ..", _is_path
SIZES = "an integer or a list of at most 4", _is_sizes
LIST: Rule = "a list", lambda v: type(v) is list
OBJECT: Rule = "an object", lambda v: type(v) is dict

META_RULES: dict[str, Rule] = {
    "format": (repr(FORMAT), lambda v: v == FORMAT),
    "version": _integer(VERSION, VERSION),
    "network": TEXT,
    "dataset": TEXT,
    "provenance": OBJECT,
    "snapshots": LIST,
}
SNAPSHOT_RULES: dict[str, Rule] = {
    "name": PART,
    "sparsity": ("a number, 0 ≤ sparsity < 1", _is_share),
    "step": _integer(0, (1 << 53) - 1),
    "algorithm": TEXT,
    "batch": _integer(1, LARGEST_SIZE),
    "samples": _integer(1, LARGEST_SIZE),
    "layers": LIST,
}
LAYER_RULES: dict[str, Rule] = {
    "name": PATH,
    "kind": ("conv or linear", lambda v: v in ("conv", "linear")),
    "input_grad": ("true or false", lambda v: type(v) is bool),
    "geometry": OBJECT,
    "tensors": OBJECT,
}
GEOMETRY_RULES = dict.fromkeys((field.name for field in fields(Geometry)), SIZES)  # which has rules of its own
TENSOR_RULES: dict[str, Rule] = {
    "encoding": (f"one of {', '.join(ENCODINGS)}", lambda v: isinstance(v, str) and v in ENCODINGS)
}


def check_keys(entry: object, rules: Mapping[str, Rule], where: str, origin: str = "") -> Entry:
    """Hold an object against its rules, and return it. It is called `where` until its name is known to be one."""
    if type(entry) is not dict:
        raise TraceError(f"{where}: must be an object with keys {', '.join(rules)}; got {reprlib.repr(entry)}")
    for key in entry:
        if key not in rules:
            raise TraceError(f"{where}: {reprlib.repr(key)}: unknown key; known are {', '.join(rules)}")
    for key, (rule, is_good) in rules.items():
        if key not in entry:
            raise TraceError(f"{where}: {key}: must be given, is missing")
        if not is_good(entry[key]):
            raise TraceError(f"{where}: {key}: must be {rule}, got {reprlib.repr(entry[key])}")
        if key == "name":
            where = origin + entry["name"]
    return entry


def check_version(meta: object) -> None:
    """First of all, since another version may have other keys."""
    found: Entry = meta if type(meta) is dict else {}
    if found.get("format") != FORMAT:
        raise TraceError(f"{META}: format: must be {FORMAT!r}, got {reprlib.repr(found.get('format'))}")
    if type(found.get("version")) is not int or found["version"] != VERSION:
        got = reprlib.repr(found.get("version"))
        raise TraceError(f"version {got} is not known; this accelsim reads version {VERSION}")


def check_snapshot(found: object, where: str) -> None:
    """Hold a snapshot against its rules; TraceError says which it breaks."""
    entry = check_keys(found, SNAPSHOT_RULES, where)
    if entry["samples"] > entry["batch"]:
        raise TraceError(f"{entry['name']}: samples: must be at most batch, {entry['batch']}; got {entry['samples']}")


def check_layer(found: object, where: str, origin: str) -> Geometry:
    """Hold a layer against its rules, and return its geometry; TraceError says which it breaks."""
    entry = check_keys(found, LAYER_RULES, where, origin)
    with blame(origin + entry["name"]):
        check_keys(entry["geometry"], GEOMETRY_RULES, "geometry")
        with blame("geometry"):
            sizes: dict[str, Any] = {k: tuple(v) if type(v) is list else v for k, v in entry["geometry"].items()}
            geometry = Geometry(**sizes)
        pointwise = Geometry(geometry.channels, geometry.height, 1, geometry.filters, (1, 1))
        if entry["kind"] == "linear" and geometry != pointwise:
            raise TraceError(f"a linear layer must be a plain 1×1 convolution on a T×1 map, got {geometry}")
        for name, how in entry["tensors"].items():
            if name not in TENSORS:
                raise TraceError(f"tensors: must be of {', '.join(TENSORS)}; got {reprlib.repr(name)}")
            check_keys(how, TENSOR_RULES, f"tensors.{name}")
    return geometry


def named(entries: Sequence[Entry], where: str) -> Iterator[tuple[str, Entry]]:
    """Where each entry is, and what it is. The caller checks it; then its name must be new, and there must be one."""
    names: set[str] = set()
    for index, entry in enumerate(entries):
        yield f"{where}[{index}]", entry
        if entry["name"] in names:
            raise TraceError(f"{where}[{index}]: name: must be new, got {entry['name']!r} again")
        names.add(entry["name"])
    if not names:
        raise TraceError(f"{where}: must hold at least one")


def tensor_shape(geometry: Geometry, samples: int, tensor: str) -> tuple[int, int, int, int]:
    """The shape of a tensor of a layer."""
    if tensor == "weight":
        return geometry.weight_shape
    if tensor == "gradient":
        return geometry.gradient_shape(samples)
    if tensor in TENSORS:
        return geometry.activation_shape(samples)
    raise TraceError(f"tensor must be one of {', '.join(TENSORS)}; got {reprlib.repr(tensor)}")
