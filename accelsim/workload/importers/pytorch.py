"""Weights as PyTorch and its kin keep them: .pt, .pth, .bin, .ckpt, .safetensors, .npz; none of their code is run.

A checkpoint knows no strides and no sizes of maps, so they come from a topology: any other file that can be imported,
such as a trace, an ONNX model or a SCALE-Sim topology. Layers are matched by a map, by name, or, where names differ,
by a shape that occurs once, never by order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers import checkpoint, masked
from accelsim.workload.importers.base import Imported, ImportedLayer, blame
from accelsim.workload.importers.masked import SUFFIX
from accelsim.workload.importers.tensors import Tensor
from accelsim.workload.patterns import Stored

PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile


def read(
    path: str | os.PathLike[str],
    topology: Imported | None = None,
    map: Mapping[str, str] | None = None,
    entry: str | None = None,
) -> Imported:
    """Read weights, and put them into the layers of a topology.

    Parameters
    ----------
    path : path-like
        A file, an index of several, or their folder.
    topology : Imported
    map : mapping of str to str, optional
        From a layer's name to that of its tensor.
    entry : str, optional
        Of a checkpoint, the key under which the tensors are.

    Raises
    ------
    ImportFormatError
        One line that names the file, if it cannot be read or does not fit the topology, or there is no topology.
    """
    path = Path(path)
    if topology is None:
        rule = "weights alone know no strides and no sizes of maps: give a --topology"
        raise ImportFormatError(f"{path}: {rule} (SCALE-Sim .csv, .onnx, or a trace)")
    told: list[str] = []
    found = unprefixed(checkpoint.tensors(path, entry, told))
    weights = masked.weights(found, told)
    named = _mapped(path, map or {}, topology, found, weights)
    layers = []
    chosen = named | _by_name(topology, weights, named, told)
    chosen |= _by_shape(path, topology, weights, chosen, told)
    for layer in topology.layers:
        layers.append(_filled(path, layer, *chosen[layer.name]))
    return replace(topology, path=path, format="pytorch", layers=tuple(layers), told=(*topology.told, *told))


def tells(path: Path) -> bool:
    """Whether it is a checkpoint: any file of its endings, an index of safetensors, a folder with either."""
    if path.is_dir():
        return any(path.glob("*.safetensors")) or any(path.glob(f"*{checkpoint.INDEX}"))
    return path.suffix.lower() not in (".json", ".npz") or path.name.endswith((checkpoint.INDEX, ".npz"))


def unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that they have without what DataParallel and torch.compile put before all of them."""
    for prefix in PREFIXES * 2:  # either may be around the other
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: weight for name, weight in tensors.items()}
    return tensors


# ---- which weight is of which layer

Chosen = dict[str, tuple[str, Tensor]]


def _mapped(
    path: Path, map: Mapping[str, str], topology: Imported, tensors: dict[str, Tensor], weights: dict[str, Tensor]
) -> Chosen:
    """The layers that the user has named tensors for."""
    names = {layer.name for layer in topology.layers}
    found: Chosen = {}
    for layer, name in map.items():
        tensor = weights.get(name.removesuffix(SUFFIX)) or tensors.get(name)
        if layer not in names:
            raise ImportFormatError(f"{path}: map: {layer[:60]}: must be a layer of {topology.path}")
        if tensor is None:
            raise ImportFormatError(f"{path}: map: {layer[:60]}: must name a tensor of the file, names {name[:60]!r}")
        found[layer] = name, tensor
    return found


def _by_name(topology: Imported, weights: dict[str, Tensor], done: Chosen, told: list[str]) -> Chosen:
    """Layers whose names the file has, all after the same prefix."""
    names = [layer.name for layer in topology.layers if layer.name not in done]
    plain = {name.replace(".", "/"): name for name in weights} | {name: name for name in weights}
    if not names or any(name in plain for name in names):
        return {name: (plain[name], weights[plain[name]]) for name in names if name in plain}
    prefixes = [name.removesuffix(names[0]) for name in weights if name.endswith(f".{names[0]}")]
    whole = [prefix for prefix in prefixes if all(f"{prefix}{name}" in weights for name in names)]
    if not whole:
        return {}
    others = f" (--entry {whole[1].rstrip('.')} reads another)" if whole[1:] else ""
    told.append(f"layers are those of the file that begin with {whole[0]}{others}")
    return {name: (f"{whole[0]}{name}", weights[f"{whole[0]}{name}"]) for name in names}


def _by_shape(path: Path, topology: Imported, weights: dict[str, Tensor], done: Chosen, told: list[str]) -> Chosen:
    """Each other layer's only weight of its shape; never by order, which two files need not share."""
    taken = {name for name, _ in done.values()}
    left = [layer for layer in topology.layers if layer.name not in done]
    found: Chosen = {}
    for layer in left:
        wanted = layer.geometry.weight_shape
        fits = [name for name, w in weights.items() if name not in taken and _is_shape(w.shape, wanted)]
        rivals = [other for other in left if other.geometry.weight_shape == wanted]
        if len(fits) != 1 or len(rivals) != 1:
            counts = f"{len(weights)} weights for {len(topology.layers)} layers"
            rule = (
                f"no weight {layer.name}{SUFFIX}, and {counts}; {len(fits)} have shape {wanted} of {len(rivals)} layers"
            )
            how = f"; --map {layer.name}={fits[0] if fits else 'TENSOR'},… says which is which"
            raise ImportFormatError(
                f"{path}: must fit {topology.path} by names or by shapes that occur once: {rule}{how}"
            )
        told.append(f"{layer.name} is {fits[0]}, the only weight of its shape")
        found[layer.name] = fits[0], weights[fits[0]]
    return found


def _is_shape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return shape == wanted[: len(shape)] and prod(wanted[len(shape) :]) == 1


def _filled(path: Path, layer: ImportedLayer, name: str, weight: Tensor) -> ImportedLayer:
    wanted = layer.geometry.weight_shape
    if prod(weight.shape) != prod(wanted) or weight.shape[:2] != wanted[:2]:
        raise ImportFormatError(f"{path}: {name}{SUFFIX}: must have shape {wanted} of {layer.name}, got {weight.shape}")

    def numbers() -> np.ndarray:
        with blame(f"{path}: {name}"):
            return weight.read().reshape(wanted)

    return replace(layer, tensors={**layer.tensors, "weight": Stored(numbers)})
