"""How much of a training batch the layers of a snapshot store: samples, the rows of those of the others, or a part of
their places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from accelsim.errors import TraceError
from accelsim.workload.lowering import operands
from accelsim.workload.trace import Layer, Snapshot


def is_routed(layer: Layer, snapshot: Snapshot) -> bool:
    """Whether a layer got rows one by one, as an expert does, and so stores those that the stored samples have."""
    g = layer.geometry
    if layer.part is not None:
        return False
    return layer.kind != "matmul" and (g.height, g.width, *g.kernel) == (1, 1, 1, 1) and layer.batch != snapshot.batch


def stored_samples(layer: Layer, snapshot: Snapshot) -> int:
    """Of the training batch: a layer may cut samples up, and one that gets rows has those of the others' samples."""
    if is_routed(layer, snapshot):
        layer = next((other for other in snapshot.layers if not is_routed(other, snapshot)), layer)
    return max(1, layer.samples * snapshot.batch // layer.batch)


def counted_samples(layer: Layer, snapshot: Snapshot, which: str) -> Fraction:
    """Of the training batch, as a pass of the layer counts them: where a part of the places is stored, a part of them.

    Its counts times the denominator are those of so many samples as the numerator says.
    """
    whole = stored_samples(layer, snapshot)
    return whole * (layer.part.share(layer.geometry, which) if layer.part else Fraction(1))


def of_pass(layer: Layer, which: str) -> Layer:
    """A layer as a pass runs it: of a part of its places the smaller layer; ``batch`` in its places, rounded up."""
    part = layer.part
    if part is None:
        return layer
    batch = layer.batch / part.share(layer.geometry, which)
    if which == "input_grad" and part.first is not None:
        kept = {name: layer.tensors[name] for name in operands(layer, which) if name in layer.tensors}
        layer = replace(layer, geometry=part.reached(layer.geometry), tensors=kept)
    return replace(layer, batch=-(-batch.numerator // batch.denominator))


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
