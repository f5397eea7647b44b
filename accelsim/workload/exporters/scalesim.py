"""SCALE-Sim topologies: the shapes of a snapshot's layers."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.errors import AccelsimError
from accelsim.workload.trace import Layer, Snapshot

HEADER = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, "


def files(snapshot: Snapshot, network: str) -> Iterator[tuple[str, str]]:
    """NETWORK.csv and its text; raises as :func:`topology`."""
    yield f"{network}.csv", topology(snapshot)


def topology(snapshot: Snapshot) -> str:
    """A topology file, which SCALE-Sim reads in any version unless strides differ along height and width (version 2).

    Where a layer has several samples there is version 3's column Batch Size. SCALE-Sim knows no padding: the map is
    written as large as what the windows cover. A depthwise layer gets the DP in its name that SCALE-Sim knows it by.

    Raises
    ------
    AccelsimError
        If a layer has a dilation, or groups that are not its channels, which SCALE-Sim does not know.
    """
    square = all(layer.geometry.stride[0] == layer.geometry.stride[1] for layer in snapshot.layers)
    batched = any(layer.samples > 1 for layer in snapshot.layers)
    lines = [HEADER + ("Strides," if square else "Stride height, Stride width,") + (" Batch Size," if batched else "")]
    for layer in snapshot.layers:
        lines.append(_line(layer, square) + (f" {layer.samples}," if batched else ""))
    return "\n".join(lines) + "\n"


def _line(layer: Layer, square: bool) -> str:
    g = layer.geometry
    if g.dilation != (1, 1):
        raise AccelsimError(f"{layer.origin}{layer.name}: dilation: must be 1 for SCALE-Sim, got {g.dilation}")
    if g.groups not in (1, g.channels):
        raise AccelsimError(f"{layer.origin}{layer.name}: groups: must be 1 or channels for SCALE-Sim, got {g.groups}")
    # Its own parser cuts cells at commas and comments at #.
    name = "".join("_" if c in ",#\t" else c for c in layer.name)
    if name.startswith(tuple("=+-@")):
        name = f"_{name}"  # a spreadsheet would take it for a formula
    if g.groups == 1:
        name = name.replace("DP", "Dp")  # SCALE-Sim would take it for depthwise
    elif "DP" not in name:
        name = f"DP_{name}"
    size = [(places - 1) * st + taps for places, st, taps in zip(g.output, g.stride, g.kernel, strict=True)]
    filters = g.filters // g.groups
    cells = [name, *size, *g.kernel, g.channels, filters, *(g.stride[:1] if square else g.stride)]
    return ", ".join(map(str, cells)) + ","
