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
from typing import Any

import numpy as np

from accelsim.errors import TraceError
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import (
    META,
    META_RULES,
    STANDS_IN,
    Entry,
    check_keys,
    check_layer,
    check_snapshot,
    check_version,
    named,
    tensor_shape,
    upgraded,
)
from accelsim.workload.npz import NpzReader, blame
from accelsim.workload.part import Part


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of one training step.

    Parameters
    ----------
    name : str
    kind : "conv", "linear" or "matmul"
        Linear is a 1×1 convolution on a 1×1 map, or a T×1 map for T tokens. Matmul is the product of two activations,
        X·Y of each head of each sample: X's rows are the map, its columns times the heads the channels, Y's columns
        times the heads the filters, the heads the groups; "weight" holds Y, of all samples one after another.
    geometry : Geometry
    samples : int
        N: how many samples of the batch the tensors hold.
    batch : int
        Samples that the layer multiplied in the step: those of the training batch, or more where a sample is cut up
        (windows), or fewer.
    passes : tuple of str
        Those of ``PASSES`` that ran: no "input_grad" where nobody needs the gradient of the input, as in the first
        layer, no "weight_grad" of a frozen weight.
    tensors : mapping of str to ndarray
        Masks (bool) or values. From a file each access reads the tensor anew, so keep what you use twice.
    origin : str
        What error messages put before the name: ``"FILE: SNAPSHOT/"``.
    part : Part, optional
        Which of its places the geometry and the tensors are, if not all.
    """

    name: str
    kind: str
    geometry: Geometry
    samples: int
    batch: int
    passes: tuple[str, ...]
    tensors: Mapping[str, np.ndarray]
    origin: str = ""
    part: Part | None = None

    def tensor(self, name: str) -> np.ndarray:
        """A tensor, 4-D, bool for a mask; "saved_activation" is the "activation" where no other one was saved, and
        "backward_weight" the "weight" where the input gradient used the same.

        Raises
        ------
        TraceError
            If the layer has no such tensor, it has another shape than the geometry says, or its bytes are damaged.
        """
        name = self.stored(name)
        label, shape = f"{self.origin}{self.name}/{name}", self.shape_of(name)
        if name not in self.tensors:
            raise TraceError(f"{label}: must be in the trace, whose layer has {', '.join(self.tensors) or 'no tensor'}")
        array = self.tensors[name]
        if array.shape != shape:
            raise TraceError(f"{label}: must have shape {shape}, got {array.shape}")
        return array

    def density(self, name: str) -> float:
        """The share of a tensor's values that are not zero. Raises as ``tensor`` does."""
        values = self.tensor(name)
        return int(np.count_nonzero(values)) / values.size

    def stored(self, name: str) -> str:
        """Under which name a tensor that a pass reads is in the trace."""
        return name if name in self.tensors else STANDS_IN.get(name, name)

    def encoding(self, name: str) -> str:
        """How a tensor is stored: one of ENCODINGS; of one in memory how it would be."""
        stored = self.tensors
        if isinstance(stored, _StoredTensors):
            return stored.encoding(name)
        dtype = stored[name].dtype
        return "bits" if dtype.kind == "b" else dtype.name

    def shape_of(self, name: str) -> tuple[int, int, int, int]:
        """The shape that a tensor must have: weight K,C/groups,R,S (matmul: N·K,C/groups,1,1); activations
        N,C,H,W; gradient N,K,P,Q."""
        return tensor_shape(self.geometry, self.samples, name, self.kind)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One training step.

    Parameters
    ----------
    name : str
    sparsity : float
        Target of the Top-K, 0 ≤ sparsity < 1: the share of zeros among the weights, not what was reached. Of a
        checkpoint that was recorded as it is, the share that its weights have.
    step : int
        Training iterations before this one.
    algorithm : str
    batch : int
        Samples of the training batch; each layer says how many of its own are stored.
    layers : tuple of Layer
        In the order of the forward pass.
    coverage : dict, optional
        ``multiplications`` of the whole step as they were counted while it ran, and of them what is ``not_stored``, by
        operator; None where nobody counted.
    """

    name: str
    sparsity: float
    step: int
    algorithm: str
    batch: int
    layers: tuple[Layer, ...]
    coverage: dict[str, Any] | None = None


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
            If the file is missing, no trace of a known version, truncated, damaged, or contradicts itself.
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

    def encoding(self, name: str) -> str:
        """How the file holds it."""
        return self._stored[name][0]

    def check(self) -> Iterator[str]:
        """Check that the file has each tensor, as declared; yield where."""
        for name, (encoding, shape) in self._stored.items():
            self._file.check(self._prefix + name, encoding, shape)
            yield self._prefix + name


def _read_snapshots(meta: Entry, file: NpzReader) -> Iterator[Snapshot]:
    for where, stored in named(meta["snapshots"], "snapshots"):
        entry = upgraded(stored, where) if meta["version"] == 1 else stored
        check_snapshot(entry, where)
        yield Snapshot(**{**entry, "sparsity": float(entry["sparsity"]), "layers": tuple(_read_layers(entry, file))})


def _read_layers(snapshot: Entry, file: NpzReader) -> Iterator[Layer]:
    origin = f"{snapshot['name']}/"
    for where, entry in named(snapshot["layers"], f"{snapshot['name']}: layers"):
        geometry = check_layer(entry, where, origin)
        shapes = {name: tensor_shape(geometry, entry["samples"], name, entry["kind"]) for name in entry["tensors"]}
        stored: dict[str, tuple[str, tuple[int, ...]]] = {
            name: (how["encoding"], shapes[name]) for name, how in entry["tensors"].items()
        }
        tensors = _StoredTensors(file, f"{origin}{entry['name']}/", stored)
        known = {key: entry[key] for key in ("name", "kind", "samples", "batch")} | {"passes": tuple(entry["passes"])}
        part = Part(**entry["part"]) if entry.get("part") else None
        yield Layer(**known, geometry=geometry, tensors=tensors, origin=f"{file.path}: {origin}", part=part)
