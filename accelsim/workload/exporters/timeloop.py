"""Timeloop problems with measured densities: one for each layer and pass, as the convolution that the pass is.

Timeloop knows no padding: its inputs are what the windows cover, zeros around the map included, and the density written
is that of just these. An input gradient with a stride is one convolution on the gradient with zeros between its
elements; its density counts these zeros too. Output channels are M, and R, P go along the width and S, Q along the
height, as in the public exercises, whose designs take these files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from accelsim.workload.exporters.names import stem
from accelsim.workload.lowering import PASSES, Convolution, lower, pad
from accelsim.workload.trace import Snapshot

# Timeloop's cnn_layer (version 0.4 spells data_spaces and read_write with _). With groups, G leads.
SHAPE = """\
  shape:
    name: {name}
    dimensions: [ {dimensions} ]
    coefficients:
      - {{ name: Wstride, default: 1 }}
      - {{ name: Hstride, default: 1 }}
      - {{ name: Wdilation, default: 1 }}
      - {{ name: Hdilation, default: 1 }}
    data_spaces:
      - name: Weights
        projection: [ {g}[ [C] ], [ [M] ], [ [R] ], [ [S] ] ]
      - name: Inputs
        projection: [ {g}[ [N] ], [ [C] ], [ [R, Wdilation], [P, Wstride] ], [ [S, Hdilation], [Q, Hstride] ] ]
      - name: Outputs
        projection: [ {g}[ [N] ], [ [M] ], [ [Q] ], [ [P] ] ]
        read_write: True
"""


def problems(snapshot: Snapshot, passes: Sequence[str] = PASSES) -> Iterator[tuple[str, str]]:
    """Names of files, NUMBER_LAYER.PASS.yaml, and their texts; none for a gradient that nobody needs.

    Raises
    ------
    TraceError
        If a layer lacks a tensor that a pass reads.
    """
    for number, layer in enumerate(snapshot.layers):
        for which in passes:
            for conv in lower(layer, which, strided="dilate"):
                title = f"{layer.name}, {which}, Top-K {100 * snapshot.sparsity:g} %, by accelsim"
                yield f"{number:03}_{stem(layer.name)}.{which}.yaml", problem(conv, title)


def files(snapshot: Snapshot, network: str) -> Iterator[tuple[str, str]]:
    """As :func:`problems`, of all passes."""
    yield from problems(snapshot)


def problem(conv: Convolution, title: str) -> str:
    """One convolution as a Timeloop problem, in YAML."""
    geometry, groups = conv.geometry, conv.groups
    bounds = {"G": groups} if groups > 1 else {}
    bounds |= {"R": geometry.kernel[1], "S": geometry.kernel[0], "P": geometry.output[1], "Q": geometry.output[0]}
    bounds |= {"C": geometry.channels // groups, "M": geometry.filters // groups, "N": conv.samples}
    shape = SHAPE.format(
        name="CNN_Layer_Grouped" if groups > 1 else "CNN_Layer",
        dimensions=", ".join(bounds),
        g="[ [G] ], " if groups > 1 else "",
    )
    bounds |= {"Wstride": geometry.stride[1], "Hstride": geometry.stride[0]}
    bounds |= {"Wdilation": geometry.dilation[1], "Hdilation": geometry.dilation[0]}
    instance = "".join(f"    {name}: {size}\n" for name, size in bounds.items())
    densities = {"Weights": _density(conv.kernel), "Inputs": _density(_covered(conv)), "Outputs": 1.0}
    lines = "".join(
        f"      {name}: {{ distribution: hypergeometric, density: {density!r} }}\n"
        for name, density in densities.items()
    )
    return f"# {title}\nproblem:\n  version: 0.4\n{shape}  instance:\n{instance}    densities:\n{lines}"


def _covered(conv: Convolution) -> np.ndarray:
    """The input that windows cover, with its padding."""
    geometry = conv.geometry
    rows, columns = (
        (places - 1) * st + extent
        for places, st, extent in zip(geometry.output, geometry.stride, geometry.kernel_extent, strict=True)
    )
    return pad(conv.input, conv.padding)[..., :rows, :columns]


def _density(tensor: np.ndarray) -> float:
    return int(np.count_nonzero(tensor)) / tensor.size
