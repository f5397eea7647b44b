"""Writing a trace, one tensor at a time. The format, to the bit, is in traces/README.md."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import TraceError
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import (
    FORMAT,
    META,
    META_RULES,
    PASSES,
    VERSION,
    Entry,
    check_keys,
    check_layer,
    check_snapshot,
    tensor_shape,
)
from accelsim.workload.npz import ENCODINGS, blame, json_bytes
from accelsim.workload.npz_writer import NpzWriter
from accelsim.workload.part import Part
from accelsim.workload.tiles import Pieces


class TraceWriter:
    """Write a trace, one tensor at a time; ``path`` appears, or is replaced, when the last byte is written.

    Use it in a ``with`` block: left in good order it closes the trace, left by an exception it leaves nothing behind.
    To keep what was recorded before an interruption, catch it inside the block and call :meth:`close`, after
    :meth:`abandon_snapshot` if the step under way is of no use.

    Parameters
    ----------
    path : path-like
    network, dataset : str
    provenance : dict, optional
        Plain JSON: where the tensors come from. It is written last, so it may still grow.
    level : int
        Of deflate, 0 (fastest, nothing is compressed) to 9 (small).

    Raises
    ------
    TraceError
        Here and in each method, for what would not make a valid trace; what was written before stays as it is.
    OutputError
        Here and in each method, if the system does not let us write.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        network: str,
        dataset: str,
        provenance: dict[str, Any] | None = None,
        level: int = 6,
    ):
        self.path = Path(path)
        self._meta: Entry = {"format": FORMAT, "version": VERSION, "network": network, "dataset": dataset}
        self._meta |= {"provenance": {} if provenance is None else provenance, "snapshots": []}
        with blame(path):
            check_keys(self._meta, META_RULES, META)
            with blame("provenance"):
                json_bytes(self._meta["provenance"])
        self._file = NpzWriter(path, level)
        self._current: Entry | None = None  # the snapshot under way, where it begins in the file, and its layers
        self._begin = self._samples = 0
        self._layers: dict[str, tuple[Entry, Geometry]] = {}

    def snapshot(
        self, name: str, *, sparsity: float, step: int, algorithm: str, batch: int, samples: int | None = None
    ) -> None:
        """Begin a snapshot; see :class:`Snapshot` for the parameters.

        ``samples``, by default all of the batch, are what its layers store unless they say otherwise.
        """
        entry: Entry = {"name": name, "sparsity": sparsity, "step": step, "algorithm": algorithm}
        entry |= {"batch": batch, "coverage": None, "layers": []}
        with blame(self.path):
            check_snapshot(entry, "snapshot")
            if any(name == other["name"] for other in self._meta["snapshots"]):
                raise TraceError(f"{name}: name: must be new, is that of a snapshot before")
        self._begin, self._current, self._layers = self._file.mark(), entry, {}
        self._samples = batch if samples is None else samples
        self._meta["snapshots"].append(entry)

    def layer(
        self,
        name: str,
        *,
        kind: str,
        geometry: Geometry,
        passes: Iterable[str] = PASSES,
        samples: int | None = None,
        batch: int | None = None,
        part: Part | None = None,
    ) -> None:
        """Begin a layer; see :class:`Layer` for the parameters. ``samples``, ``batch``: by default the snapshot's."""
        with blame(self.path):
            current = self._under_way()
            entry: Entry = {"name": name, "kind": kind, "passes": list(passes)}
            entry |= {"batch": current["batch"] if batch is None else batch}
            entry |= {"samples": self._samples if samples is None else samples}
            entry |= {"geometry": geometry.as_dict(), "tensors": {}}
            entry |= {} if part is None else {"part": part.as_dict()}
            origin = current["name"] + "/"
            check_layer(entry, f"{origin}layer", origin)
            if name in self._layers:
                raise TraceError(f"{origin}{name}: name: must be new, is that of a layer before")
        current["layers"].append(entry)
        self._layers[name] = entry, geometry

    def passes(self, layer: str, passes: Iterable[str]) -> None:
        """Say which passes of a layer begun before ran, where that is known only now."""
        with blame(self.path):
            snapshot = self._under_way()
            if layer not in self._layers:
                raise TraceError(f"{snapshot['name']}: layer must have begun before its passes, got {layer!r}")
            entry, _ = self._layers[layer]
            changed = entry | {"passes": list(passes)}
            check_layer(changed, f"{snapshot['name']}/layer", snapshot["name"] + "/")
        entry["passes"] = changed["passes"]

    def coverage(self, multiplications: int, not_stored: Mapping[str, int]) -> None:
        """Say what the whole step under way multiplied, and what of it is not stored; see :class:`Snapshot`."""
        with blame(self.path):
            current = self._under_way()
            coverage = {"multiplications": multiplications, "not_stored": dict(not_stored)}
            check_snapshot(current | {"coverage": coverage}, "snapshot")
            current["coverage"] = coverage

    def tensor(
        self,
        name: str,
        array: np.ndarray | Pieces,
        *,
        layer: str | None = None,
        as_mask: bool = False,
        bfloat16: bool = False,
    ) -> None:
        """Write a tensor.

        Parameters
        ----------
        name : one of TENSORS
        array : ndarray, 4-D as :meth:`Layer.shape_of` says, or a mask in pieces
            bool is stored as bits; float16, float32 and int16 as they are.
        layer : str, optional
            A layer of this snapshot begun before, by default the last one: gradients come when all layers have begun.
        as_mask : bool
            Store as bits where a number, of whatever dtype, is not zero.
        bfloat16 : bool
            The array is uint16 and holds the bits of bfloat16 numbers.
        """
        if not isinstance(array, Pieces):
            array = np.asarray(array)
        with blame(self.path):
            snapshot = self._under_way()
            layer = next(reversed(self._layers), None) if layer is None else layer
            if layer not in self._layers:
                raise TraceError(f"{snapshot['name']}: layer must have begun before its tensors, got {layer!r}")
            entry, geometry = self._layers[layer]
            member = f"{snapshot['name']}/{layer}/{name}"
            with blame(member):
                shape = tensor_shape(geometry, entry["samples"], name, entry["kind"])
                encoding = _encoding(array, as_mask, bfloat16)
                if array.shape != shape:
                    raise TraceError(f"must have shape {shape}, got {array.shape}")
                if name in entry["tensors"]:
                    raise TraceError("must be written once, is written already")
        self._file.tensor(member, array, encoding, bfloat16)
        entry["tensors"][name] = {"encoding": encoding}

    def abandon_snapshot(self) -> None:
        """Forget the snapshot under way, if there is one, and its tensors; the ones before it stay."""
        if self._current is not None:
            self._file.rewind(self._begin)
            self._meta["snapshots"].pop()
            self._current, self._layers = None, {}

    def close(self) -> None:
        """Finish the file with all that was written, and move it to its place; again, do nothing.

        If the file cannot be written, nothing is left of it. A snapshot without layers is a TraceError and changes
        nothing: :meth:`abandon_snapshot` helps.
        """
        if self._file.closed:
            return
        snapshots = self._meta["snapshots"]
        if not snapshots or not all(snapshot["layers"] for snapshot in snapshots):
            raise TraceError(f"{self.path}: must hold a snapshot, and each snapshot a layer")
        try:
            self._file.document(META, self._meta)
            self._file.commit()
        except BaseException:
            self._file.discard()
            raise

    def _under_way(self) -> Entry:
        if self._current is None:
            raise TraceError("a snapshot must begin before its layers and tensors")
        return self._current

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._file.discard()


def _encoding(array: np.ndarray | Pieces, as_mask: bool, bfloat16: bool) -> str:
    if isinstance(array, Pieces):
        return "bits"
    if bfloat16 and array.dtype != np.uint16:
        raise TraceError(f"bfloat16 must come as uint16, got {array.dtype}")
    if array.dtype == bool or (as_mask and array.dtype.kind in "iuf"):
        return "bits"
    encoding = "bfloat16" if bfloat16 else array.dtype.name
    if encoding not in ENCODINGS or as_mask:
        raise TraceError(f"dtype must be bool or one of {', '.join(list(ENCODINGS)[1:])}; got {array.dtype}")
    return encoding
