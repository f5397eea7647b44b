"""Synthetic traces: shapes from anywhere, masks drawn from a seed, alike or as a real trace's statistics say.

A trace is drawn layer by layer when a tensor is asked for, the same each time, so none is too large. At each sparsity
weights and saved activations are what SWAT-U's Top-K would leave: exactly as many, and those of a greater sparsity are
among those of a smaller one. Activations and output gradients keep their own density.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from accelsim.errors import TraceError
from accelsim.workload.geometry import Geometry
from accelsim.workload.mask_model import MaskModel
from accelsim.workload.metadata import tensor_shape
from accelsim.workload.npz import blame
from accelsim.workload.part import Part
from accelsim.workload.patterns import Stored
from accelsim.workload.sparsify import check_sparsity, kept
from accelsim.workload.tiles import NEVER, TILE, Block, Field, Pieces, Shape, blocks
from accelsim.workload.trace import Layer, Snapshot, Trace
from accelsim.workload.trace_writer import TraceWriter

DRAWN = ("weight", "activation", "gradient")


class Source(Protocol):
    """Where a mask comes from: a model (``MaskModel``), numbers that a file holds, a pattern."""

    @property
    def has_zeros(self) -> bool:
        """Whether some positions are zero whatever the sparsity."""

    @property
    def is_divisible(self) -> bool:
        """Whether a block of a tensor can be had alone."""

    def scores(self, shape: Shape, rng: np.random.Generator, block: Block | None = None) -> np.ndarray:
        """A number for each position, float32; the greatest survive a Top-K, and none that is ``NEVER``."""

    def count(self, size: int) -> int:
        """How many of so many positions are non-zero before any Top-K, but for those that are ``NEVER``."""


@dataclass(frozen=True, eq=False)
class Blueprint:
    """One layer, and where its masks come from.

    Parameters
    ----------
    name, kind, geometry, passes
        As in :class:`accelsim.workload.trace.Layer`.
    weight, activation, gradient : Source
    saved : MaskModel, optional
        Of the activation's Top-K, where it is known to differ from a higher threshold on the activation alone.
    dense : bool
        Nothing of it is ever sparsified, as of the first layer.
    samples, batch : int, optional
        By default the trace's.
    part : Part, optional
        As of the layer.
    """

    name: str
    kind: str
    geometry: Geometry
    passes: tuple[str, ...]
    weight: Source
    activation: Source
    gradient: Source
    saved: MaskModel | None = None
    dense: bool = False
    samples: int | None = None
    batch: int | None = None
    part: Part | None = None


@dataclass(frozen=True, eq=False)
class SyntheticTrace:
    """What the simulator takes in place of a :class:`accelsim.workload.trace.Trace`; ``path`` is what it is like."""

    path: Path
    network: str
    dataset: str
    snapshots: tuple[Snapshot, ...]
    provenance: dict[str, Any] = field(default_factory=dict)


class _Tensors(Mapping[str, np.ndarray]):
    """The tensors of one layer at one sparsity, drawn at each access."""

    def __init__(self, blueprint: Blueprint, sparsity: float, samples: int, seed: int, origin: str):
        self._of, self._sparsity, self._samples, self._origin = blueprint, sparsity, samples, origin
        self._seed = [seed, zlib.crc32(blueprint.name.encode())]
        saved = () if blueprint.dense or not sparsity else ("saved_activation",)
        self._names = (*DRAWN[:2], *saved, *DRAWN[2:])

    def __getitem__(self, name: str) -> np.ndarray:
        with blame(f"{self._origin}{self._of.name}/{name}"):
            return self.pieces(name).whole()

    def pieces(self, name: str) -> Pieces:
        """A tensor in pieces, of which one at a time is in memory."""
        if name not in self._names:
            raise KeyError(name)
        if name == "saved_activation":
            return self._saved()
        field, source = self._field(name), getattr(self._of, name)
        size = prod(field.shape)
        count = source.count(size) if name != "weight" or self._of.dense else kept(size, self._sparsity)
        if count >= size and not source.has_zeros:
            starts = range(0, size, TILE)
            return Pieces(field.shape, lambda: (np.ones(min(TILE, size - start), bool) for start in starts))
        return Pieces(field.shape, field.greatest(count))

    def _field(self, name: str, source: Source | None = None) -> Field:
        source = source or getattr(self._of, name)
        shape, seed = tensor_shape(self._of.geometry, self._samples, name), [*self._seed, DRAWN.index(name)]
        if prod(shape) <= TILE or not source.is_divisible:
            return Field(shape, lambda: iter([source.scores(shape, np.random.default_rng(seed))]))
        return Field(
            shape,
            lambda: (
                source.scores(shape, np.random.default_rng([*seed, number]), block)
                for number, block in enumerate(blocks(shape))
            ),
        )

    def _saved(self) -> Pieces:
        """Of the activation the greatest: of the same field, with the offsets that saved activations have."""
        field = self._field("activation")
        size = prod(field.shape)
        active = field.greatest(self._of.activation.count(size))
        saved = self._field("activation", self._of.saved) if self._of.saved else field
        left = Field(
            field.shape,
            lambda: (np.where(mask, scores, NEVER) for mask, scores in zip(active(), saved.tiles(), strict=True)),
        )
        return Pieces(field.shape, left.greatest(kept(size, self._sparsity)))

    def __contains__(self, name: object) -> bool:  # Mapping's own would draw the tensor
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def assemble(
    blueprints: Iterable[Blueprint],
    sparsities: Sequence[float],
    *,
    path: str | os.PathLike[str],
    network: str,
    dataset: str = "synthetic",
    samples: int = 1,
    batch: int | None = None,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> SyntheticTrace:
    """A trace with a snapshot for each sparsity: "dense", "swat80", …

    Raises
    ------
    AccelsimError
        If a sparsity is outside [0, 1), or occurs twice, or there is no layer.
    """
    blueprints, sparsities = tuple(blueprints), [check_sparsity(sparsity) for sparsity in sparsities]
    if not blueprints:
        raise TraceError(f"{path}: must have a layer, has none")
    if not sparsities or len(set(sparsities)) < len(sparsities):
        raise TraceError(f"sparsity: must be one or more, each once, got {sparsities}")
    batch = batch or samples
    if not 1 <= samples <= batch:
        raise TraceError(f"samples: must be in 1…batch, {batch}; got {samples}")
    if seed < 0:
        raise TraceError(f"seed: must be 0 or more, got {seed}")
    snapshots = []
    for sparsity in sparsities:
        name = f"swat{100 * sparsity:g}" if sparsity else "dense"
        layers = []
        for b in blueprints:
            origin = f"{path}: {name}/"
            n, of = b.samples or samples, b.batch or batch
            tensors = _Tensors(b, sparsity, n, seed, origin)
            layers.append(Layer(b.name, b.kind, b.geometry, n, of, b.passes, tensors, origin, b.part))
        algorithm = "SWAT-U" if sparsity else "dense"
        snapshots.append(Snapshot(name, sparsity, 0, algorithm, batch, tuple(layers)))
    provenance = {"synthetic": f"accelsim, seed {seed}", **(provenance or {})}
    return SyntheticTrace(Path(path), network, dataset, tuple(snapshots), provenance)


def fit(layer: Layer, seed: int = 0) -> Blueprint:
    """What a real layer's masks are like. A weight without a zero is taken for one that is never sparsified.

    Raises
    ------
    TraceError
        If it has no weight, activation or gradient, or their bytes are damaged.
    """
    weight, activation, gradient = (MaskModel.fit(layer.tensor(name) != 0, seed) for name in DRAWN)
    saved = None
    if "saved_activation" in layer.tensors:
        # The activation's own field is cut at another threshold: its correlation is the activation's, and how its
        # offsets grow is seen between the two.
        saved = MaskModel.fit(layer.tensor("saved_activation") != 0, seed)
        saved = replace(saved, correlation=activation.correlation).growing_from(activation)
    dense = weight.density == 1
    return Blueprint(
        layer.name, layer.kind, layer.geometry, layer.passes, weight.of_magnitudes(), activation, gradient,
        saved=saved, dense=dense, samples=layer.samples, batch=layer.batch, part=layer.part,
    )  # fmt: skip


def reference_of(trace: Trace, name: str | None = None) -> Snapshot:
    """The snapshot that a trace is fitted to: of that name, or the first that is sparse, or else the first."""
    if name is not None:
        return trace.snapshot(name)
    return next((snapshot for snapshot in trace.snapshots if snapshot.sparsity), trace.snapshots[0])


def nearest(trace: Trace, sparsity: float) -> Snapshot:
    """The snapshot that masks at a sparsity are best fitted to: the nearest that is sparse, else the first."""
    sparse = [snapshot for snapshot in trace.snapshots if snapshot.sparsity]
    return min(sparse, key=lambda s: abs(s.sparsity - sparsity)) if sparse else trace.snapshots[0]


def fitted(
    trace: Trace, sparsities: Sequence[float] | None = None, *, reference: str | None = None, seed: int = 0
) -> SyntheticTrace:
    """A synthetic trace like a real one, at any sparsities.

    Parameters
    ----------
    trace : Trace
    sparsities : sequence of float, optional
        By default those of the trace.
    reference : str, optional
        The snapshot it is fitted to, by default the first that is sparse; layers whose weights are dense there stay
        dense.
    seed : int

    Returns
    -------
    SyntheticTrace
        Its own statistics are in memory, a few numbers for each filter, channel and place.

    Raises
    ------
    AccelsimError
        As :func:`fit` and :func:`assemble`.
    """
    snapshot = reference_of(trace, reference)
    if sparsities is None:
        sparsities = [s.sparsity for s in trace.snapshots]
    blueprints = [fit(layer) for layer in snapshot.layers]
    if not snapshot.sparsity:  # every weight is dense there; only the first layer stays so
        blueprints = [replace(b, dense=number == 0) for number, b in enumerate(blueprints)]
    return assemble(
        blueprints, sparsities, path=trace.path, network=trace.network, dataset=trace.dataset,
        samples=snapshot.batch, batch=snapshot.batch, seed=seed,
        provenance={"fitted to": f"{trace.path.name}: {snapshot.name}", "sha256": trace.digest},
    )  # fmt: skip


def resparsified(trace: Trace, reference: str, sparsities: Sequence[float]) -> SyntheticTrace:
    """Top-K at other sparsities of the numbers that a snapshot holds; its first layer stays as it is."""
    snapshot = trace.snapshot(reference)
    blueprints = []
    for number, layer in enumerate(snapshot.layers):
        weight, activation, gradient = (Stored(partial(layer.tensor, name)) for name in DRAWN)
        blueprint = Blueprint(
            layer.name,
            layer.kind,
            layer.geometry,
            layer.passes,
            weight,
            activation,
            gradient,
            dense=number == 0,
            samples=layer.samples,
            batch=layer.batch,
            part=layer.part,
        )
        blueprints.append(blueprint)
    return assemble(
        blueprints, sparsities, path=trace.path, network=trace.network, dataset=trace.dataset,
        samples=snapshot.batch, batch=snapshot.batch,
        provenance={"Top-K of": f"{trace.path.name}: {snapshot.name}", "sha256": trace.digest},
    )  # fmt: skip


def write(trace: SyntheticTrace, path: str | os.PathLike[str]) -> None:
    """Write a synthetic trace as a file, streamed, whole or not at all.

    Raises
    ------
    TraceError, OutputError
        As ``TraceWriter``, or as what its tensors are read from.
    """
    with TraceWriter(path, network=trace.network, dataset=trace.dataset, provenance=trace.provenance) as out:
        for s in trace.snapshots:
            out.snapshot(s.name, sparsity=s.sparsity, step=s.step, algorithm=s.algorithm, batch=s.batch)
            for layer in s.layers:
                out.layer(
                    layer.name, kind=layer.kind, geometry=layer.geometry, passes=layer.passes,
                    samples=layer.samples, batch=layer.batch, part=layer.part,
                )  # fmt: skip
                for name in layer.tensors:
                    out.tensor(name, _written(layer, name), as_mask=True)


def _written(layer: Layer, name: str) -> np.ndarray | Pieces:
    """A tensor, in pieces where it is too large to be held as a whole."""
    if isinstance(layer.tensors, _Tensors) and prod(layer.shape_of(name)) > TILE:
        return layer.tensors.pieces(name)
    return layer.tensor(name)
