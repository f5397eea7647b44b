"""Traces: what a training run multiplied. Trace → Snapshot → Layer → tensor, in an .npz file that is streamed.

The format, to the bit, is in traces/README.md. Every rule about the metadata is stated once, in metadata.py; the
writer holds its own entries against them before it writes a byte of a tensor.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import TraceError
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import (
    FORMAT,
    META,
    META_RULES,
    VERSION,
    Entry,
    check_keys,
    check_layer,
    check_snapshot,
    check_version,
    named,
    tensor_shape,
)
from accelsim.workload.npz import ENCODINGS, NpzReader, blame, json_bytes
from accelsim.workload.npz_writer import NpzWriter


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of one training step.

    Parameters
    ----------
    name : str
    kind : "conv" or "linear"
        Linear is a 1×1 convolution on a 1×1 map, or a T×1 map for T tokens.
    geometry : Geometry
    samples : int
        N: how many samples of the batch the tensors hold.
    input_grad : bool
        False where nobody needs the gradient of the input, as in the first layer.
    tensors : mapping of str to ndarray
        Masks (bool) or values. From a file each access reads the tensor anew, so keep what you use twice.
    origin : str
        What error messages put before the name: ``"FILE: SNAPSHOT/"``.
    """

    name: str
    kind: str
    geometry: Geometry
    samples: int
    input_grad: bool
    tensors: Mapping[str, np.ndarray]
    origin: str = ""

    def tensor(self, name: str) -> np.ndarray:
        """A tensor, 4-D, bool for a mask; "saved_activation" is the "activation" where no other one was saved.

        Raises
        ------
        TraceError
            If the layer has no such tensor, it has another shape than the geometry says, or its bytes are damaged.
        """
        if name == "saved_activation" and name not in self.tensors:
            name = "activation"
        label, shape = f"{self.origin}{self.name}/{name}", self.shape_of(name)
        if name not in self.tensors:
            raise TraceError(f"{label}: must be in the trace, whose layer has {', '.join(self.tensors) or 'no tensor'}")
        array = self.tensors[name]
        if array.shape != shape:
            raise TraceError(f"{label}: must have shape {shape}, got {array.shape}")
        return array

    def shape_of(self, name: str) -> tuple[int, int, int, int]:
        """The shape that a tensor must have: weight K,C/groups,R,S; activations N,C,H,W; gradient N,K,P,Q."""
        return tensor_shape(self.geometry, self.samples, name)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One training step.

    Parameters
    ----------
    name : str
    sparsity : float
        Target of the Top-K, 0 ≤ sparsity < 1: the share of zeros among the weights, not what was reached.
    step : int
        Training iterations before this one.
    algorithm : str
    batch, samples : int
        Samples of the training batch, and how many of them are stored.
    layers : tuple of Layer
        In the order of the forward pass.
    """

    name: str
    sparsity: float
    step: int
    algorithm: str
    batch: int
    samples: int
    layers: tuple[Layer, ...]


class Trace:
    """An open trace. Only the directory and the metadata are in memory; layers may be read from several threads.

    Attributes
    ----------
    path : Path
    version : int
    network, dataset : str
    provenance : dict
    snapshots : tuple of Snapshot
    """

    def __init__(self, file: NpzReader):
        self._file, self.path = file, file.path
        with blame(file.path):
            found = file.document(META)
            check_version(found)
            meta = check_keys(found, META_RULES, META)
            self.version: int = meta["version"]
            self.network: str = meta["network"]
            self.dataset: str = meta["dataset"]
            self.provenance: dict[str, Any] = meta["provenance"]
            self.snapshots = tuple(_read_snapshots(meta, file))
            self._check_members()

    def _check_members(self) -> None:
        declared = {META}
        for snapshot in self.snapshots:
            for layer in snapshot.layers:
                if isinstance(layer.tensors, _StoredTensors):  # as all of a file are
                    declared.update(layer.tensors.check())
        for name in self._file.members.keys() - declared:
            raise TraceError(f"{reprlib.repr(name)}: must be declared in {META}, is not")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Trace:
        """Open a trace; all of it is checked here but the bytes of the tensors, which are when they are read.

        Raises
        ------
        TraceError
            If the file is missing, no trace of version 1, truncated, damaged, or contradicts itself.
        """
        with blame(path):
            file = NpzReader(path)
        try:
            return cls(file)
        except BaseException:
            file.close()
            raise

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        with blame(self.path):
            return self._file.digest()

    def snapshot(self, name: str) -> Snapshot:
        """The snapshot of that name.

        Raises
        ------
        TraceError
            If there is none.
        """
        for snapshot in self.snapshots:
            if snapshot.name == name:
                return snapshot
        known = ", ".join(snapshot.name for snapshot in self.snapshots)
        raise TraceError(f"{self.path}: snapshot must be one of {known}; got {name!r}")

    def close(self) -> None:
        """Close the file; tensors can't be read any more."""
        self._file.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _StoredTensors(Mapping[str, np.ndarray]):
    """The tensors of one layer in a file: names are known, each access reads."""

    def __init__(self, file: NpzReader, prefix: str, stored: dict[str, tuple[str, tuple[int, ...]]]):
        self._file, self._prefix, self._stored = file, prefix, stored

    def __getitem__(self, name: str) -> np.ndarray:
        with blame(self._file.path):
            return self._file.tensor(self._prefix + name, *self._stored[name])

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the tensor
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def check(self) -> Iterator[str]:
        """Check that the file has each tensor, as declared; yield where."""
        for name, (encoding, shape) in self._stored.items():
            self._file.check(self._prefix + name, encoding, shape)
            yield self._prefix + name


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
        self._begin = 0
        self._layers: dict[str, tuple[Entry, Geometry]] = {}

    def snapshot(self, name: str, *, sparsity: float, step: int, algorithm: str, batch: int, samples: int) -> None:
        """Begin a snapshot; see :class:`Snapshot` for the parameters."""
        entry: Entry = {"name": name, "sparsity": sparsity, "step": step, "algorithm": algorithm}
        entry |= {"batch": batch, "samples": samples, "layers": []}
        with blame(self.path):
            check_snapshot(entry, "snapshot")
            if any(name == other["name"] for other in self._meta["snapshots"]):
                raise TraceError(f"{name}: name: must be new, is that of a snapshot before")
        self._begin, self._current, self._layers = self._file.mark(), entry, {}
        self._meta["snapshots"].append(entry)

    def layer(self, name: str, *, kind: str, geometry: Geometry, input_grad: bool) -> None:
        """Begin a layer; see :class:`Layer` for the parameters."""
        entry: Entry = {"name": name, "kind": kind, "input_grad": input_grad}
        entry |= {"geometry": geometry.as_dict(), "tensors": {}}
        with blame(self.path):
            current = self._under_way()
            origin = current["name"] + "/"
            check_layer(entry, f"{origin}layer", origin)
            if name in self._layers:
                raise TraceError(f"{origin}{name}: name: must be new, is that of a layer before")
        current["layers"].append(entry)
        self._layers[name] = entry, geometry

    def tensor(
        self,
        name: str,
        array: np.ndarray,
        *,
        layer: str | None = None,
        as_mask: bool = False,
        bfloat16: bool = False,
    ) -> None:
        """Write a tensor.

        Parameters
        ----------
        name : one of TENSORS
        array : ndarray, 4-D as :meth:`Layer.shape_of` says
            bool is stored as bits; float16, float32 and int16 as they are.
        layer : str, optional
            A layer of this snapshot begun before, by default the last one: gradients come when all layers have begun.
        as_mask : bool
            Store as bits where a number, of whatever dtype, is not zero.
        bfloat16 : bool
            The array is uint16 and holds the bits of bfloat16 numbers.
        """
        array = np.asarray(array)
        with blame(self.path):
            snapshot = self._under_way()
            layer = next(reversed(self._layers), None) if layer is None else layer
            if layer not in self._layers:
                raise TraceError(f"{snapshot['name']}: layer must have begun before its tensors, got {layer!r}")
            entry, geometry = self._layers[layer]
            member = f"{snapshot['name']}/{layer}/{name}"
            with blame(member):
                shape, encoding = tensor_shape(geometry, snapshot["samples"], name), _encoding(array, as_mask, bfloat16)
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


def _encoding(array: np.ndarray, as_mask: bool, bfloat16: bool) -> str:
    if bfloat16 and array.dtype != np.uint16:
        raise TraceError(f"bfloat16 must come as uint16, got {array.dtype}")
    if array.dtype == bool or (as_mask and array.dtype.kind in "iuf"):
        return "bits"
    encoding = "bfloat16" if bfloat16 else array.dtype.name
    if encoding not in ENCODINGS or as_mask:
        raise TraceError(f"dtype must be bool or one of {', '.join(list(ENCODINGS)[1:])}; got {array.dtype}")
    return encoding


def _read_snapshots(meta: Entry, file: NpzReader) -> Iterator[Snapshot]:
    for where, entry in named(meta["snapshots"], "snapshots"):
        check_snapshot(entry, where)
        yield Snapshot(**{**entry, "sparsity": float(entry["sparsity"]), "layers": tuple(_read_layers(entry, file))})


def _read_layers(snapshot: Entry, file: NpzReader) -> Iterator[Layer]:
    origin, samples = f"{snapshot['name']}/", snapshot["samples"]
    for where, entry in named(snapshot["layers"], f"{snapshot['name']}: layers"):
        geometry = check_layer(entry, where, origin)
        stored: dict[str, tuple[str, tuple[int, ...]]] = {
            name: (how["encoding"], tensor_shape(geometry, samples, name)) for name, how in entry["tensors"].items()
        }
        tensors = _StoredTensors(file, f"{origin}{entry['name']}/", stored)
        known = {key: entry[key] for key in ("name", "kind", "input_grad")}
        yield Layer(**known, geometry=geometry, samples=samples, tensors=tensors, origin=f"{file.path}: {origin}")
