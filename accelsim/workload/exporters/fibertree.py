"""Tensors as fibertrees in YAML, as the fibertree library and TeAAL's simulators take them: a file a tensor.

Only what is not zero is there, as 1. Ranks are K C R S of weights, N C H W of activations, N K P Q of gradients.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from accelsim.workload.exporters.names import stem
from accelsim.workload.trace import Snapshot

RANKS = {"weight": "K, C, R, S", "activation": "N, C, H, W", "gradient": "N, K, P, Q"}


def files(snapshot: Snapshot, network: str) -> Iterator[tuple[str, str]]:
    """Names and texts, of the tensors that a layer has."""
    for number, layer in enumerate(snapshot.layers):
        for name in RANKS.keys() & set(layer.tensors):
            title = f"{number:03}_{stem(layer.name)}.{name}"
            yield f"{title}.yaml", tree(layer.tensor(name) != 0, name)


def tree(mask: np.ndarray, name: str) -> str:
    """One tensor's text.

    Parameters
    ----------
    mask : ndarray of bool
    name : str
        "weight", "activation" or "gradient".
    """
    head = f"tensor:\n  name: {name}\n  rank_ids: [ {RANKS[name]} ]\n  shape: [ {', '.join(map(str, mask.shape))} ]\n"
    return head + "  root:\n" + "\n".join(_fiber(mask, "  ")) + "\n"


def _fiber(mask: np.ndarray, indent: str) -> Iterator[str]:
    """A fiber: the coordinates beneath which something is not zero, and what is there."""
    coords = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    yield f"{indent}- fiber:"
    yield f"{indent}    coords: [ {', '.join(map(str, coords))} ]"
    if mask.ndim == 1:
        yield f"{indent}    payloads: [ {', '.join('1' * len(coords))} ]"
        return
    yield f"{indent}    payloads:{'' if len(coords) else ' [ ]'}"
    for coord in coords:
        yield from _fiber(mask[coord], f"{indent}    ")
