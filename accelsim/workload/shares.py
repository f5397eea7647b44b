"""How much of a training batch the layers of a snapshot store: so many samples, or the rows of those of the others."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from accelsim.errors import TraceError
from accelsim.workload.trace import Layer, Snapshot


def is_routed(layer: Layer, snapshot: Snapshot) -> bool:
    """Whether a layer got rows one by one, as an expert does, and so stores those that the stored samples have."""
    g = layer.geometry
    return layer.kind != "matmul" and (g.height, g.width, *g.kernel) == (1, 1, 1, 1) and layer.batch != snapshot.batch


def stored_samples(layer: Layer, snapshot: Snapshot) -> int:
    """Of the training batch: a layer may cut samples up, and one that gets rows has those of the others' samples."""
    if is_routed(layer, snapshot):
        layer = next((other for other in snapshot.layers if not is_routed(other, snapshot)), layer)
    return max(1, layer.samples * snapshot.batch // layer.batch)


def check_samples(path: object, snapshot: Snapshot, layers: Iterable[Layer]) -> None:
    """Totals over layers scale each by its samples of the training batch; where shares differ these must be whole.

    Raises
    ------
    TraceError
        Where they are not, and the layer did not get its rows one by one.
    """
    layers = [layer for layer in layers if not is_routed(layer, snapshot)]
    shares = {Fraction(layer.samples, layer.batch) for layer in layers}
    for layer in layers:
        if len(shares) > 1 and layer.samples * snapshot.batch % layer.batch:
            raise TraceError(
                f"{path}: {snapshot.name}/{layer.name}: samples: must be whole samples of the batch of "
                f"{snapshot.batch} where layers store different shares, got {layer.samples} of {layer.batch}"
            )
