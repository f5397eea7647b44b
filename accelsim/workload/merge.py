"""Several traces of one training run as one: each process recorded its share of the batch.

What the processes share must agree: steps, layers, shapes, passes, and each weight, number by number.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from accelsim.errors import OutputError, TraceError
from accelsim.workload.metadata import WEIGHTS
from accelsim.workload.npz import blame
from accelsim.workload.trace import Layer, Snapshot, Trace
from accelsim.workload.trace_writer import TraceWriter

SHARED = ("sparsity", "step", "algorithm")  # of a snapshot
OF_LAYER = ("kind", "geometry", "passes", "part")
TOLD = 3  # names that an error gives


def merge(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Join the traces that the processes of one run recorded, each of its share of the batch.

    Samples follow one another in the order of the files; batches and coverage add up. One tensor of each file is in
    memory at a time. ``out`` appears when it is complete.

    Parameters
    ----------
    paths : sequence of path-like
        Two or more traces.
    out : path-like
    force : bool
        Replace a file that exists.

    Returns
    -------
    Path
        Of what was written.

    Raises
    ------
    TraceError
        One line that names the second of two files that do not agree, and in what.
    OutputError
        If ``out`` exists, or cannot be written.
    """
    out = Path(out)
    if len(paths) < 2:
        raise TraceError(f"traces: must be two or more, got {len(paths)}")
    if out.exists() and not force:
        raise OutputError(f"{out}: exists, and is kept; force=True replaces it")
    with ExitStack() as stack:
        traces = [stack.enter_context(Trace.open(path)) for path in paths]
        first, others = traces[0], traces[1:]
        for other in others:
            _check_same(other, first, ("network", "dataset"), f"{other.path}")
            _check_names(f"{other.path}: snapshots", other.snapshots, first.snapshots)
        provenance = {"merged": [{"sha256": t.digest, "provenance": t.provenance} for t in traces]}
        with TraceWriter(out, network=first.network, dataset=first.dataset, provenance=provenance) as writer:
            for own in zip(*(trace.snapshots for trace in traces), strict=True):
                _join(writer, own, [str(trace.path) for trace in traces])
    return out


def _join(writer: TraceWriter, own: Sequence[Snapshot], files: Sequence[str]) -> None:
    """One snapshot of all files."""
    first = own[0]
    for other, file in zip(own[1:], files[1:], strict=True):
        where = f"{file}: {other.name}"
        _check_same(other, first, SHARED, where)
        _check_names(f"{where}: layers", other.layers, first.layers)
    how = {key: getattr(first, key) for key in ("name", *SHARED)}
    writer.snapshot(**how, batch=sum(snapshot.batch for snapshot in own))
    for layers in zip(*(snapshot.layers for snapshot in own), strict=True):
        _join_layer(writer, layers)
    counted = [snapshot.coverage for snapshot in own]
    if None not in counted:
        missing: Counter[str] = Counter()
        for coverage in counted:
            missing.update(coverage["not_stored"] if coverage else {})
        writer.coverage(sum(c["multiplications"] for c in counted if c), missing)


def _join_layer(writer: TraceWriter, layers: Sequence[Layer]) -> None:
    first = layers[0]
    for other in layers[1:]:
        where = f"{other.origin}{other.name}"
        _check_same(other, first, OF_LAYER, where)
        _check_same_list(f"{where}: tensors", list(other.tensors), list(first.tensors))
    counts = {key: sum(getattr(layer, key) for layer in layers) for key in ("batch", "samples")}
    writer.layer(first.name, **{key: getattr(first, key) for key in OF_LAYER}, **counts)
    for name in first.tensors:
        parts = [layer.tensor(name) for layer in layers]
        for layer, part in zip(layers[1:], parts[1:], strict=True):
            with blame(f"{layer.origin}{layer.name}/{name}"):
                _check_part(layer, name, part, first, parts[0])
        is_shared = name in WEIGHTS and first.kind != "matmul"
        array = parts[0] if is_shared else np.concatenate(parts)
        is_bfloat16 = first.encoding(name) == "bfloat16"
        stored = (array.view(np.uint32) >> 16).astype(np.uint16) if is_bfloat16 else array
        writer.tensor(name, stored, bfloat16=is_bfloat16)


def _check_part(layer: Layer, name: str, part: np.ndarray, first: Layer, other: np.ndarray) -> None:
    """A tensor must be stored as the first file has it; a weight must be the same."""
    if layer.encoding(name) != first.encoding(name):
        raise TraceError(f"must be {first.encoding(name)} as in the first file, is {layer.encoding(name)}")
    if name in WEIGHTS and layer.kind != "matmul" and not np.array_equal(part, other, equal_nan=part.dtype.kind == "f"):
        differ = int(np.count_nonzero(part != other))
        raise TraceError(f"must be the first file's weight, differs in {differ} of {part.size}: not of one step")


def _check_same(found: object, wanted: object, keys: Sequence[str], where: str) -> None:
    for key in keys:
        got, rule = getattr(found, key), getattr(wanted, key)
        if got != rule:
            raise TraceError(f"{where}: {key}: must be the first file's, {rule}; got {got}")


def _check_names(where: str, found: Sequence[Snapshot | Layer], wanted: Sequence[Snapshot | Layer]) -> None:
    _check_same_list(where, [part.name for part in found], [part.name for part in wanted])


def _check_same_list(where: str, found: list[str], wanted: list[str]) -> None:
    if found != wanted:
        differing = [name for name in (*wanted, *found) if (name in wanted) != (name in found)] or found
        raise TraceError(f"{where}: must be the first file's, in its order; differ in {', '.join(differing[:TOLD])}")
