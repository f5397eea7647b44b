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
from accelsim.workload.part import Part

TENSORS = ("weight", "backward_weight", "activation", "saved_activation", "gradient")
# What a pass reads instead, where a step had no other one.
STANDS_IN = {"saved_activation": "activation", "backward_weight": "weight"}
WEIGHTS = ("weight", "backward_weight")
PASSES = ("fwd", "input_grad", "weight_grad")
FIRST_LAYER = ("fwd", "weight_grad")  # whose input nobody needs the gradient of
KINDS = ("conv", "linear", "matmul")
FORMAT, VERSION = "accelsim-trace", 2
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


def _is_passes(v: object) -> bool:
    return type(v) is list and bool(v) and v == [which for which in PASSES if which in v]


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
    "version": _integer(1, VERSION),
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
    "coverage": ("an object or null", lambda v: v is None or type(v) is dict),
    "layers": LIST,
}
LAYER_RULES: dict[str, Rule] = {
    "name": PATH,
    "kind": (f"one of {', '.join(KINDS)}", lambda v: isinstance(v, str) and v in KINDS),
    "passes": (f"a list of some of {', '.join(PASSES)}, in this order", _is_passes),
    "batch": _integer(1, LARGEST_SIZE),
    "samples": _integer(1, LARGEST_SIZE),
    "geometry": OBJECT,
    "tensors": OBJECT,
    "part": ("an object or null", lambda v: v is None or type(v) is dict),
}
PART_RULES: dict[str, Rule] = {
    "axis": _integer(0, 1),
    "input": _integer(1, LARGEST_SIZE),
    "output": _integer(1, LARGEST_SIZE),
    "first": (f"an integer in 0…{LARGEST_SIZE} or null", lambda v: v is None or _integer(0, LARGEST_SIZE)[1](v)),
}
COUNT = _integer(0, (1 << 63) - 1)
COVERAGE_RULES = {"multiplications": COUNT, "not_stored": OBJECT}
# Version 1 had one number of samples for all layers of a snapshot, and but one pass that might be missing.
SNAPSHOT_RULES_1 = {key: rule for key, rule in SNAPSHOT_RULES.items() if key != "coverage"}
SNAPSHOT_RULES_1["samples"] = LAYER_RULES["samples"]
LAYER_RULES_1 = {key: LAYER_RULES[key] for key in ("name", "kind", "geometry", "tensors")}
LAYER_RULES_1["kind"] = ("conv or linear", lambda v: v in ("conv", "linear"))
LAYER_RULES_1["input_grad"] = ("true or false", lambda v: type(v) is bool)
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
    if type(found.get("version")) is not int or not 1 <= found["version"] <= VERSION:
        got = reprlib.repr(found.get("version"))
        raise TraceError(f"version {got} is not known; this accelsim reads versions 1 to {VERSION}")


def check_snapshot(found: object, where: str) -> None:
    """Hold a snapshot against its rules; TraceError says which it breaks."""
    entry = check_keys(found, SNAPSHOT_RULES, where)
    if entry["coverage"] is not None:
        with blame(entry["name"]):
            check_keys(entry["coverage"], COVERAGE_RULES, "coverage")
            _check_not_stored(**entry["coverage"])


def _check_not_stored(multiplications: int, not_stored: dict[object, Any]) -> None:
    rule, is_good = COUNT
    for name, count in not_stored.items():
        if not _is_text(name):
            raise TraceError(f"coverage: not_stored: a name must be {TEXT[0]}, got {reprlib.repr(name)}")
        if not is_good(count):
            raise TraceError(f"coverage: not_stored: {name}: must be {rule}, got {reprlib.repr(count)}")
    if sum(not_stored.values()) > multiplications:
        rule = f"at most the step's {multiplications:,} multiplications"
        raise TraceError(f"coverage: not_stored: must be {rule} together, got {sum(not_stored.values()):,}")


def upgraded(found: object, where: str) -> Entry:
    """A snapshot of version 1 as one of this version; TraceError says which rule of version 1 it breaks."""
    snapshot = check_keys(found, SNAPSHOT_RULES_1, where)
    own = {key: value for key, value in snapshot.items() if key != "samples"}
    shared = {key: snapshot[key] for key in ("batch", "samples")}
    layers = []
    for number, layer in enumerate(snapshot["layers"]):
        check_keys(layer, LAYER_RULES_1, f"{snapshot['name']}: layers[{number}]", f"{snapshot['name']}/")
        passes = list(PASSES if layer["input_grad"] else FIRST_LAYER)
        layers.append({key: value for key, value in layer.items() if key != "input_grad"} | shared | {"passes": passes})
    return own | {"coverage": None, "layers": layers}


def check_layer(found: object, where: str, origin: str) -> Geometry:
    """Hold a layer against its rules, and return its geometry; TraceError says which it breaks."""
    entry = check_keys({"part": None} | found if type(found) is dict else found, LAYER_RULES, where, origin)
    with blame(origin + entry["name"]):
        if entry["samples"] > entry["batch"]:
            raise TraceError(f"samples: must be at most batch, {entry['batch']}; got {entry['samples']}")
        check_keys(entry["geometry"], GEOMETRY_RULES, "geometry")
        with blame("geometry"):
            sizes: dict[str, Any] = {k: tuple(v) if type(v) is list else v for k, v in entry["geometry"].items()}
            geometry = Geometry(**sizes)
        pointwise = Geometry(geometry.channels, geometry.height, 1, geometry.filters, (1, 1))
        if entry["kind"] == "linear" and geometry != pointwise:
            raise TraceError(f"a linear layer must be a plain 1×1 convolution on a T×1 map, got {geometry}")
        stack = Geometry(geometry.channels, geometry.height, 1, geometry.filters, (1, 1), groups=geometry.groups)
        if entry["kind"] == "matmul" and geometry != stack:
            raise TraceError(f"a matmul layer must be a plain 1×1 convolution in groups on a T×1 map, got {geometry}")
        if entry["part"] is not None:
            Part(**check_keys(entry["part"], PART_RULES, "part")).check(geometry)
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


def tensor_shape(geometry: Geometry, samples: int, tensor: str, kind: str = "conv") -> tuple[int, int, int, int]:
    """The shape of a tensor of a layer. Of a matmul each sample has a second operand of its own."""
    if tensor in WEIGHTS:
        filters, *rest = geometry.weight_shape
        return filters * (samples if kind == "matmul" else 1), rest[0], rest[1], rest[2]
    if tensor == "gradient":
        return geometry.gradient_shape(samples)
    if tensor in TENSORS:
        return geometry.activation_shape(samples)
    raise TraceError(f"tensor must be one of {', '.join(TENSORS)}; got {reprlib.repr(tensor)}")
