"""What a forward pass multiplies by, where a checkpoint keeps it in parts: masks, norms, thresholds.

=================================================  ==============================================================
``weight_orig``, ``weight_mask``                   torch.nn.utils.prune: their product
``parametrizations.weight.original``, ``.0.mask``  torch.ao.pruning: their product; its masks may be in the sparsifier's
                                                   own state, without which there is a note
``weight_v``, ``weight_g``                         weight_norm: g · v / ‖v‖; also as ``original1``, ``original0``
``weight_orig``, ``weight_u``, ``weight_v``        spectral_norm: what is divided by one number for all of them
``sparseThreshold``                                STR: what is not above its sigmoid is 0
``weight``, ``….mask`` or any name with "mask"     their product; the word may stand before the layer's name too
=================================================  ==============================================================

A tensor of a weight's shape of which nothing is known is named, and so is what is called a mask and fits no weight.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from functools import partial

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.tensors import Tensor

SUFFIX = ".weight"
ORIGINALS = ("weight", "weight_orig", "parametrizations.weight.original")
NORMS = (("weight_v", "weight_g"), ("parametrizations.weight.original1", "parametrizations.weight.original0"))
PACKED = "_packed_params._packed_params.0"  # of torch.ao.nn.quantized.Linear
AXES = range(2, 6)  # of weights; those of norms have one
MASK = re.compile("(pruning_|weight_)?masks?", re.IGNORECASE)
THRESHOLDS = ("sparseThreshold", "sparse_threshold", "threshold")


def weights(tensors: dict[str, Tensor], told: list[str]) -> dict[str, Tensor]:
    """Weights by the names of their layers; each says of which of the tensors it was made.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        All of a checkpoint.
    told : list of str
        Gets what was made of the parts, and what was not.
    """
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        module, _, part = _split(_as_ending(name, tensors))
        modules[module][part] = replace(tensor, parts=(name,))
    found: dict[str, Tensor] = {}
    how: dict[str, list[str]] = defaultdict(list)
    for module, parts in modules.items():
        weight = _weight(module, parts, how)
        if weight is not None:
            found[module] = weight
    applied = {part for weight in found.values() for part in weight.parts}
    for name in sorted(tensors.keys() - applied):
        ends = name.split(".")
        if any(MASK.search(end) for end in (ends[0], ends[-1])) and not ends[-1].endswith(("weight", "bias")):
            how["NOT APPLIED: what is called a mask and fits no weight"].append(name)
    told += [f"{text}: {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}" for text, names in how.items()]
    if not found:  # arrays that have the layers' own names
        found = {name: tensor for name, tensor in tensors.items() if len(tensor.shape) in AXES}
    return found


def _as_ending(name: str, tensors: dict[str, Tensor]) -> str:
    """A mask's name with that word behind the weight's, where it stands before it; else as it is."""
    ends = name.split(".")
    for at, end in enumerate(ends[:-1]):
        if MASK.search(end):
            plain = MASK.sub("", end).strip("_")
            rest = ".".join((*ends[:at], *([plain] if plain else ()), *ends[at + 1 :]))
            for weight in {rest, f"{rest}{SUFFIX}"} & tensors.keys():
                if _spread(tensors[name].shape, tensors[weight].shape) is not None:
                    return f"{weight}.mask"
    return name


def _split(name: str) -> tuple[str, str, str]:
    """The module's name, and what of it the tensor is."""
    for inner in (f".{PACKED}", ".parametrizations."):
        if inner in name:
            module, _, rest = name.partition(inner)
            return module, ".", f"{inner[1:]}{rest}"
    for ending in (".weight.mask", ".weight.scores"):
        if name.endswith(ending):
            return name.removesuffix(ending), ".", ending[1:]
    module, dot, part = name.rpartition(".")
    return module, dot, part


def _weight(module: str, parts: dict[str, Tensor], how: dict[str, list[str]]) -> Tensor | None:
    """The weight of one module."""
    weight, used = next(((parts[key], {key}) for key in (*ORIGINALS, PACKED) if key in parts), (None, set[str]()))
    for v, g in NORMS:
        if v in parts and g in parts and weight is None:
            weight, used = Tensor(parts[v].shape, partial(_normed, parts[v], parts[g])), {v, g}
            how["weight_norm's g · v / ‖v‖"].append(module)
    if weight is None or len(weight.shape) not in AXES:
        return None
    for name, tensor in parts.items():
        if "mask" in name.lower() and (shape := _spread(tensor.shape, weight.shape)) is not None:
            weight = Tensor(weight.shape, partial(_masked, weight, tensor, shape))
            used.add(name)
            how["weights times the masks beside them"].append(module)
        elif name in THRESHOLDS and (shape := _spread(tensor.shape, weight.shape)) is not None:
            weight = Tensor(weight.shape, partial(_thresholded, weight, tensor, shape))
            used.add(name)
            how[f"weights cut at the sigmoid of {name}, as STR does"].append(module)
    if used in ({ORIGINALS[1]}, {ORIGINALS[2]}) and not any("_u" in name for name in parts):
        how["NOT APPLIED: a parametrization of the weight, whose mask the file does not hold"].append(module)
    for name in sorted(parts.keys() - used):
        if parts[name].shape == weight.shape:
            how[f"NOT USED: a tensor {name} that has the weight's shape"].append(module)
    return replace(weight, parts=tuple(parts[name].parts[0] for name in sorted(used)))


def _spread(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape with which a mask meets a weight: its own, one for each filter, or one for all; None if it does not."""
    if len(shape) == 1 and shape[0] == wanted[0]:
        return shape + (1,) * (len(wanted) - 1)
    if all(n == 1 for n in shape):
        return (1,) * len(wanted)
    fits = len(shape) == len(wanted) and all(n in (1, m) for n, m in zip(shape, wanted, strict=True))
    return shape if fits else None


def _masked(weight: Tensor, mask: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(weight.read() * (mask.read() != 0).reshape(shape))


def _thresholded(weight: Tensor, threshold: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    cut = 1 / (1 + np.exp(-threshold.read().astype(np.float32).reshape(shape)))
    values = weight.read().astype(np.float32)
    return np.asarray(np.sign(values) * np.maximum(np.abs(values) - cut, 0))


def _normed(v: Tensor, g: Tensor) -> np.ndarray:
    """g has one number for each index of one axis, ones elsewhere; or one for all."""
    values, sizes = v.read().astype(np.float32), g.read().astype(np.float32)
    pairs = zip(sizes.shape, values.shape, strict=False)
    if sizes.ndim not in (0, values.ndim) or any(n not in (1, m) for n, m in pairs):
        raise ImportFormatError(f"weight_g: must have a number for each filter of {v.shape}, has shape {g.shape}")
    axes = tuple(axis for axis in range(values.ndim) if sizes.ndim == 0 or sizes.shape[axis] == 1)
    norm = np.sqrt(np.sum(values * values, axis=axes, keepdims=True))
    return np.asarray(sizes * values / np.where(norm == 0, 1, norm))
