"""Trained weights into a model: whatever the importer of checkpoints reads, and .npz files of packed weights.

Files are untrusted. No pickle is executed, and all is compared with the model before anything in it changes.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from accelsim.capture.arrays import stored_array
from accelsim.errors import AccelsimError, TraceError
from accelsim.workload.importers import masked
from accelsim.workload.importers.base import blame_all
from accelsim.workload.importers.checkpoint import tensors
from accelsim.workload.importers.pytorch import unprefixed
from accelsim.workload.importers.tensors import Tensor as Stored
from accelsim.workload.npz import NpzReader

Shapes = Mapping[str, tuple[int, ...]]
# The names in torchvision's published DenseNet weights, which no longer are legal names of modules.
OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)")
NAMED = 3  # names that an error gives of each kind


@dataclass(frozen=True)
class Fit:
    """How a checkpoint and a model fit.

    Attributes
    ----------
    loaded : tuple of str
    missing : tuple of str
        In the model and not in the file. A batch norm's ``num_batches_tracked``, which old files lack, does not count.
    extra : tuple of str
        In the file and not in the model.
    misshapen : tuple of str
        In both, with different shapes: the name and the two shapes.
    told : tuple of str
        What was made of weights that the file keeps in parts, and other choices that it left.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    misshapen: tuple[str, ...]
    told: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What does not fit, in one line."""
        kinds = {"missing in the file": self.missing, "not in the model": self.extra}
        kinds["of another shape"] = self.misshapen
        return "; ".join(f"{len(names)} {kind} ({_few(names)})" for kind, names in kinds.items() if names)


def load(model: nn.Module, file: str | os.PathLike[str], *, strict: bool = True) -> Fit:
    """Put the weights in a file into a model, wherever its parameters are.

    Parameters
    ----------
    model : nn.Module
    file : path-like
        ``.npz`` with an array for each name, or for a weight ``L.weight`` the arrays ``L.weight.mask`` (the bits of the
        flat weight's non-zeros, as by ``numpy.packbits``), ``.values`` and ``.shape``, or ``L.centroids``,
        ``L.assignments`` and ``L.n_blocks`` of a vector-quantised one. Anything else as
        :func:`accelsim.workload.importers.checkpoint.tensors` reads it: what ``torch.save`` wrote, safetensors, an
        index of several files or their folder. Weights in parts, such as ``weight_orig`` and ``weight_mask``, are put
        together as :func:`accelsim.workload.importers.masked.weights` does, unless the model has the same parts.
    strict : bool
        Whether each name must be on both sides. Without it, what fits by name and shape is loaded.

    Returns
    -------
    Fit

    Raises
    ------
    AccelsimError
        One line that begins with the file, if it cannot be read or does not fit; the model is then as it was.
    """
    file = Path(file)
    if not file.exists():
        raise AccelsimError(f"{file}: no such file")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    told: list[str] = []
    stored = _read_npz(file, shapes) if file.suffix.lower() == ".npz" else tensors(file, None, told)
    found = _whole(_rename(unprefixed(stored), shapes), shapes, told)
    fits = {name: value for name, value in found.items() if shapes.get(name) == value.shape}
    fit = Fit(
        loaded=tuple(fits),
        missing=tuple(n for n in shapes if n not in found and not n.endswith(".num_batches_tracked")),
        extra=tuple(name for name in found if name not in shapes),
        misshapen=tuple(
            f"{name} must be {shapes[name]}, is {value.shape}"
            for name, value in found.items()
            if name in shapes and name not in fits
        ),
        told=tuple(told),
    )
    if not fits or (strict and str(fit)):
        raise AccelsimError(f"{file}: {'must' if fits else 'nothing in it does'} fit the model: {fit}")
    model.load_state_dict(_numbers(file, fits, model.state_dict()), strict=False)
    return fit


def zeros(model: nn.Module) -> float:
    """The share of zeros among a model's weights: parameters of more than one axis, under their masks."""
    masks = dict(model.named_buffers())
    zeros = total = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            mask = masks.get(f"{name.removesuffix('_orig')}_mask")
            used = parameter if mask is None else parameter * mask
            zeros += used.numel() - int(torch.count_nonzero(used))
            total += used.numel()
    return zeros / max(1, total)


def _whole(found: dict[str, Stored], shapes: Shapes, told: list[str]) -> dict[str, Stored]:
    """With weights that the file keeps in parts put together, where the model has none of these parts."""
    how: list[str] = []
    whole = {f"{module}.weight".lstrip("."): weight for module, weight in masked.weights(found, how).items()}
    made = {n: w for n, w in whole.items() if n in shapes and any(part not in shapes for part in w.parts)}
    if made:
        told += how
    parts = {part for weight in made.values() for part in weight.parts}
    return {name: value for name, value in found.items() if name not in parts} | made


def _numbers(file: Path, fits: dict[str, Stored], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is to be loaded, read: finite numbers, fractions where the model has them."""
    read, broken, whole = {}, [], []
    for name, stored in fits.items():
        with blame_all(f"{file}: {name}"):
            value = torch.from_numpy(np.array(stored.read()))
        broken += [] if torch.isfinite(value).all() else [name]
        whole += [name] if wanted[name].is_floating_point() and not value.is_floating_point() else []
        read[name] = value
    if broken:
        raise AccelsimError(f"{file}: must be finite numbers, {len(broken)} tensors have NaN or ∞ ({_few(broken)})")
    if whole:
        raise AccelsimError(f"{file}: must be numbers as trained, {len(whole)} tensors are integers ({_few(whole)})")
    return read


def _rename(found: dict[str, Stored], shapes: Shapes) -> dict[str, Stored]:
    def new(name: str) -> str:
        match = OLD_DENSENET.fullmatch(name)
        joined = "".join(match.groups()) if match else name
        return joined if name not in shapes and joined in shapes else name

    return {new(name): value for name, value in found.items()}


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


# ---- .npz


def _read_npz(file: Path, shapes: Shapes) -> dict[str, Stored]:
    """Arrays by name, those of a packed weight put together."""
    found: dict[str, Stored] = {}
    try:
        with closing(NpzReader(file)) as reader:
            for name in reader.members:
                weight, decode = _packed(reader, name, shapes)
                if weight not in found:
                    # Nothing is unpacked for which the model has no place; its name alone is reported.
                    known = decode is None or weight in shapes
                    array = (stored_array(reader, name) if decode is None else decode()) if known else np.zeros(0)
                    found[weight] = Stored(array.shape, partial(np.asarray, array))
    except TraceError as error:
        raise AccelsimError(f"{file}: {error}") from error
    return found


def _packed(reader: NpzReader, name: str, shapes: Shapes) -> tuple[str, Callable[[], np.ndarray] | None]:
    """The name of the weight that an array belongs to, and what unpacks it if it is but a part."""
    base, _, part = name.rpartition(".")
    members = reader.members
    if part in ("mask", "values", "shape") and f"{base}.mask" in members and base not in members:
        return base, lambda: _sparse(reader, base)
    if part in ("centroids", "assignments", "n_blocks") and f"{base}.centroids" in reader.members:
        return f"{base}.weight", lambda: _quantised(reader, base, shapes[f"{base}.weight"])
    return name, None


def _sparse(reader: NpzReader, name: str) -> np.ndarray:
    """Bits of the flat weight, and the values of those set."""
    bits, values = (stored_array(reader, f"{name}.{part}") for part in ("mask", "values"))
    shape = tuple(int(size) for size in stored_array(reader, f"{name}.shape").reshape(-1))
    count = math.prod(shape)
    if min(shape, default=1) < 0 or bits.dtype != np.uint8 or bits.shape != (-(-count // 8),):
        raise TraceError(f"{name}.mask: must be the packed bits of shape {shape}, got {bits.dtype} {bits.shape}")
    mask = np.unpackbits(bits, count=count).astype(bool)
    if values.shape != (np.count_nonzero(mask),):
        raise TraceError(f"{name}.values: must be {np.count_nonzero(mask)} for its mask, got shape {values.shape}")
    weight = np.zeros(count, values.dtype)
    weight[mask] = values
    return weight.reshape(shape)


def _quantised(reader: NpzReader, layer: str, wanted: tuple[int, ...]) -> np.ndarray:
    """Each filter is ``n_blocks`` code words, stored block by block."""
    words, codes = (stored_array(reader, f"{layer}.{part}") for part in ("centroids", "assignments"))
    blocks = stored_array(reader, f"{layer}.n_blocks")
    if words.ndim != 2 or codes.ndim != 1 or codes.dtype.kind not in "iu" or blocks.size != 1:
        raise TraceError(f"{layer}: must have centroids (words, length), assignments (blocks·filters) and one n_blocks")
    block_count, filters = int(blocks.reshape(-1)[0]), wanted[0] if wanted else 0
    if codes.size != block_count * filters or codes.size * words.shape[1] != math.prod(wanted):
        got = f"{codes.size} words of {words.shape[1]} in {block_count} blocks"
        raise TraceError(f"{layer}: must give a weight of shape {wanted}, has {got}")
    if codes.size and not 0 <= codes.min() <= codes.max() < len(words):
        raise TraceError(f"{layer}.assignments: must be 0…{len(words) - 1}, are {codes.min()}…{codes.max()}")
    weight: np.ndarray = words[codes]
    return weight.reshape(block_count, filters, -1).transpose(1, 0, 2).reshape(wanted)
