"""What ``accelsim info`` tells: a trace layer by layer, or a machine with every key resolved and explained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from accelsim.errors import printable
from accelsim.study.layout import new_table
from accelsim.workload.coverage import coverage_text
from accelsim.workload.formats import ENOUGH
from accelsim.workload.metadata import TENSORS
from accelsim.workload.trace import Layer, Snapshot, Trace

if TYPE_CHECKING:
    from accelsim.hardware.machine import Machine
    from accelsim.hardware.parameters import Parameters


def trace_facts(trace: Trace) -> dict[str, Any]:
    """Everything about a trace as plain data; reads every tensor once, one at a time."""
    facts = {"path": str(trace.path), "bytes": trace.path.stat().st_size, "sha256": trace.digest}
    facts |= {key: getattr(trace, key) for key in ("version", "network", "dataset", "provenance")}
    keys = ("name", "sparsity", "algorithm", "step", "batch", "coverage")
    facts["snapshots"] = [
        {key: getattr(s, key) for key in keys}
        | {"covers": coverage_text(s)}
        | {"layers": [_layer_facts(layer) for layer in s.layers]}
        for s in trace.snapshots
    ]
    return facts


def _layer_facts(layer: Layer) -> dict[str, Any]:
    tensors = {}
    for name in TENSORS:
        if name in layer.tensors:
            array = layer.tensor(name)
            stored = "mask" if array.dtype == bool else str(array.dtype)
            tensors[name] = {"stored": stored, "elements": array.size, "nonzeros": int(np.count_nonzero(array))}
    facts: dict[str, Any] = {key: getattr(layer, key) for key in ("name", "kind", "samples", "batch")}
    facts["passes"] = list(layer.passes)
    facts["part"] = layer.part and layer.part.as_dict()
    return facts | {"geometry": layer.geometry.as_dict(), "output": list(layer.geometry.output), "tensors": tensors}


def zeros_of(snapshot: Snapshot) -> dict[str, float | None]:
    """The share of zeros of each tensor over all layers; None of one that no layer has. Y of a matmul is no weight."""
    layers = [_layer_facts(layer) for layer in snapshot.layers]
    shares: dict[str, float | None] = {}
    for name in TENSORS:
        kinds = [layer for layer in layers if name != "weight" or layer["kind"] != "matmul"]
        found = [layer["tensors"][name] for layer in kinds if name in layer["tensors"]]
        elements = sum(t["elements"] for t in found)
        shares[name] = 1 - sum(t["nonzeros"] for t in found) / elements if elements else None
    return shares


def trace_tables(facts: dict[str, Any]) -> Iterator[Table | Text]:
    """``trace_facts`` for people."""
    yield Text(f"{facts['path']}: accelsim trace, version {facts['version']}, {facts['bytes']:,} bytes")
    yield Text(f"  sha256   {facts['sha256']}")
    yield Text(f"  network  {facts['network']} on {facts['dataset']}")
    for key, value in facts["provenance"].items():
        inner = value.items() if isinstance(value, dict) else [(None, value)]
        for i, (name, text) in enumerate(inner):
            label = printable(key) if i == 0 else " " * len(printable(key))
            part = "" if name is None else f"  {printable(name)}"
            yield Text(f"  {label}{part}: {printable(str(text))}")
    for snapshot in facts["snapshots"]:
        yield _snapshot_table(snapshot)
        if snapshot["covers"]:
            counted = snapshot["coverage"]
            is_enough = sum(counted["not_stored"].values()) <= (1 - ENOUGH) * counted["multiplications"]
            yield Text(f"{snapshot['name']} holds {snapshot['covers']}", style="" if is_enough else "red")


def _snapshot_table(snapshot: dict[str, Any]) -> Table:
    s = snapshot
    table = new_table(
        f"{s['name']}: Top-K {100 * s['sparsity']:g} %, {s['algorithm']}, step {s['step']}, "
        f"batch {s['batch']}; samples: stored of those multiplied; densities (share of non-zeros)",
    )
    for heading in ("layer", "input C×H×W", "weight K×C×R×S", "stride", "output K×P×Q"):
        table.add_column(heading, no_wrap=True)
    table.add_column("samples", justify="right")
    names = [n for n in TENSORS if n != "backward_weight" or any(n in layer["tensors"] for layer in s["layers"])]
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for layer in s["layers"]:
        table.add_row(layer["name"], *_shapes(layer), _stored(layer), *(_density([layer], name) for name in names))
    table.add_section()
    table.add_row(f"{len(s['layers'])} layers", "", "", "", "", "", *(_density(s["layers"], name) for name in names))
    return table


def _stored(layer: dict[str, Any]) -> str:
    """Samples of those multiplied, and where it is a part, places of all along the axis."""
    part = layer["part"]
    samples = f"{layer['samples']}/{layer['batch']}"
    return f"{samples}, places {layer['output'][part['axis']]}/{part['output']}" if part else samples


def _shapes(layer: dict[str, Any]) -> list[str]:
    g = layer["geometry"]
    weight = (g["filters"], g["channels"] // g["groups"], *g["kernel"])
    stride = "×".join(map(str, dict.fromkeys(g["stride"])))
    shapes = ((g["channels"], g["height"], g["width"]), weight, (g["filters"], *layer["output"]))
    texts = ["×".join(map(str, shape)) for shape in shapes]
    return [texts[0], texts[1], stride, texts[2]]


def _density(layers: list[dict[str, Any]], name: str) -> str:
    found = [layer["tensors"][name] for layer in layers if name in layer["tensors"]]
    if not found:
        return "–"
    return f"{sum(t['nonzeros'] for t in found) / sum(t['elements'] for t in found):.3f}"


def machine_tables(machine: Machine, source: str) -> Iterator[Table | Text]:
    """Every key of a machine with its value, unit and meaning."""
    yield Text(f"{source}: machine {machine.name}, {machine.accelerator.multipliers:,} multipliers")
    yield Text(f"  {machine.description}")
    table = new_table()
    for heading in ("key", "value", "unit", "meaning"):
        table.add_column(heading, max_width=60)
    for row in keys(machine):
        table.add_row(*row)
    yield table


def keys(section: Parameters, path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Path, value, unit and meaning of each key of a section and of those in it."""
    from accelsim.hardware.parameters import Parameters  # here, for who describes a trace needs no machine

    inner = []
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, Parameters):
            inner.append((value, f"{path}{key}."))
        else:
            extra = field.json_schema_extra
            unit = extra.get("unit", "") if isinstance(extra, dict) else ""
            yield f"{path}{key}", str(value), str(unit), field.description or ""
    for value, below in inner:
        yield from keys(value, below)
