"""A trace without a zero: what a machine's dense self multiplies, the same layers with full operands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from accelsim.workload.metadata import STANDS_IN
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.trace import Layer, Snapshot, Trace

# Of the greatest value the most bits that alternate, 0101…: as many terms as a value can have, Booth's or not.
ALTERNATING = 2 / 3


class _Full(Mapping[str, np.ndarray]):
    """The tensors of a layer, none of their values zero."""

    def __init__(self, layer: Layer):
        self._layer = layer
        # Without zeros the activation is what was saved, and the weight what both passes use.
        self._names = tuple(name for name in layer.tensors if name not in STANDS_IN)

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._layer.tensors[name]
        if tensor.dtype == bool:
            return np.ones(tensor.shape, bool)
        whole = np.issubdtype(tensor.dtype, np.integer)
        most = int(np.iinfo(tensor.dtype).max) if whole else 1
        signed = not np.issubdtype(tensor.dtype, np.unsignedinteger)
        value = -most * ALTERNATING if signed else most * ALTERNATING  # a sign is a bit too
        # Half a float has too few bits to alternate in.
        values = np.full(tensor.shape, round(value) if whole else value, tensor.dtype if whole else np.float32)
        values.flat[:1] = most  # the scale of the others
        return values

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the tensor
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def filled(
    trace: Trace | SyntheticTrace, snapshots: str | Iterable[str] | None = None
) -> tuple[SyntheticTrace, dict[str, str]]:
    """The layers of a trace with operands that have no zero.

    Parameters
    ----------
    trace : Trace or SyntheticTrace
    snapshots : str or iterable of str, optional
        By default all.

    Returns
    -------
    trace : SyntheticTrace
        Snapshots whose layers have the same shapes, samples and passes are one here.
    names : dict
        Of each snapshot of the other trace the one that stands for it.
    """
    chosen = {snapshots} if isinstance(snapshots, str) else snapshots and {*snapshots}
    kept: dict[tuple[object, ...], Snapshot] = {}
    names = {}
    for snapshot in trace.snapshots:
        if chosen is None or snapshot.name in chosen:
            alike = tuple((la.name, la.geometry, la.samples, la.batch, la.passes, la.part) for la in snapshot.layers)
            layers = tuple(replace(layer, tensors=_Full(layer)) for layer in snapshot.layers)
            one = kept.setdefault(alike, replace(snapshot, layers=layers, sparsity=0.0))
            names[snapshot.name] = one.name
    return SyntheticTrace(trace.path, trace.network, trace.dataset, tuple(kept.values())), names
