"""Trained weights into a model: state_dicts of PyTorch, safetensors, and .npz files of arrays.

Files are untrusted. No pickle is executed, and all is compared with the model before anything in it changes.
"""

from __future__ import annotations

import math
import os
import re
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from accelsim.capture.arrays import stored_array
from accelsim.errors import AccelsimError, TraceError
from accelsim.workload.npz import NpzReader

Shapes = Mapping[str, tuple[int, ...]]
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # under which training scripts keep a state_dict
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
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
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    misshapen: tuple[str, ...]

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
        ``.safetensors``; ``.npz`` with an array for each name, or for a weight ``L.weight`` the arrays
        ``L.weight.mask`` (the bits of the flat weight's non-zeros, as by ``numpy.packbits``), ``.values`` and
        ``.shape``, or ``L.centroids``, ``L.assignments`` and ``L.n_blocks`` of a vector-quantised one; anything else is
        read as PyTorch's, a state_dict or a dictionary with one under ``state_dict``, ``model`` or ``net``. A prefix
        ``module.`` common to all names is dropped.
    strict : bool
        Whether each name must be on both sides. Without it, what fits by name and shape is loaded.

    Returns
    -------
    Fit

    Raises
    ------
    AccelsimError
        One line that begins with the file, if it cannot be read, holds more than plain tensors, or does not fit; the
        model is then as it was.
    """
    file = Path(file)
    if not file.is_file():
        raise AccelsimError(f"{file}: no such file")
    wanted = model.state_dict()
    shapes = {name: tuple(value.shape) for name, value in wanted.items() if isinstance(value, Tensor)}
    read: Callable[[Path, Shapes], dict[str, Any]] = {".npz": _read_npz, ".safetensors": _read_safetensors}.get(
        file.suffix.lower(), _read_torch
    )
    found = _rename(_check(file, read(file, shapes)), shapes)
    fits = {name: value for name, value in found.items() if shapes.get(name) == tuple(value.shape)}
    fit = Fit(
        loaded=tuple(fits),
        missing=tuple(n for n in shapes if n not in found and not n.endswith(".num_batches_tracked")),
        extra=tuple(name for name in found if name not in shapes),
        misshapen=tuple(
            f"{name} must be {shapes[name]}, is {tuple(value.shape)}"
            for name, value in found.items()
            if name in shapes and name not in fits
        ),
    )
    if not fits or (strict and str(fit)):
        raise AccelsimError(f"{file}: {'must' if fits else 'nothing in it does'} fit the model: {fit}")
    model.load_state_dict(fits, strict=False)
    return fit


def _check(file: Path, tensors: dict[str, Any]) -> dict[str, Tensor]:
    """Plain tensors with finite numbers only, without common prefixes."""
    strange = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    strange += [name for name, value in tensors.items() if name not in strange and not _is_plain(value)]
    if strange:
        raise AccelsimError(f"{file}: must hold plain tensors only, {len(strange)} are not ({_few(strange)})")
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise AccelsimError(f"{file}: must be finite numbers, {len(broken)} tensors have NaN or ∞ ({_few(broken)})")
    for prefix in PREFIXES * 2:  # either may be around the other
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
    return tensors


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_complex()


def _rename(tensors: dict[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
    def new(name: str) -> str:
        match = OLD_DENSENET.fullmatch(name)
        joined = "".join(match.groups()) if match else name
        return joined if name not in shapes and joined in shapes else name

    return {new(name): value for name, value in tensors.items()}


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


# ---- PyTorch and safetensors


def _read_torch(file: Path, shapes: Shapes) -> dict[str, Any]:
    """A state_dict, out of its wrapper."""
    if tarfile.is_tarfile(file):  # before 2.6, PyTorch executed the pickles in these whatever it was told
        raise AccelsimError(f"{file}: refused: a tar archive of PyTorch 0.1; save it anew as a state_dict")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything
        raise AccelsimError(f"{file}: {_torch_reason(error)}") from error
    while isinstance(content, Mapping):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        raise AccelsimError(f"{file}: must hold a state_dict, tensors by name, holds {type(content).__name__}")
    return dict(content)


def _torch_reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    code = re.search(r"(?:GLOBAL|[Uu]nsupported class) ([\w.]+)", text)
    if code:
        return f"refused: a pickle with more than tensors, loading it would run {code[1]}; save the state_dict alone"
    if "weights_only" in text:
        return "refused: a pickle with more than tensors, which would run code; save the state_dict alone"
    return f"must be a file of torch.save: {(text or type(error).__name__)[:200]}"


def _read_safetensors(file: Path, shapes: Shapes) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise AccelsimError(f"{file}: needs safetensors: pip install safetensors") from error
    try:
        return load_file(file, device="cpu")
    except Exception as error:  # its own class, OSError, and on damage others
        raise AccelsimError(f"{file}: must be a safetensors file: {' '.join(str(error).split())[:200]}") from error


# ---- .npz


def _read_npz(file: Path, shapes: Shapes) -> dict[str, Any]:
    """Arrays by name, those of a packed weight put together."""
    tensors: dict[str, Tensor] = {}
    try:
        with closing(NpzReader(file)) as reader:
            for name in reader.members:
                weight, decode = _packed(reader, name, shapes)
                if weight not in tensors:
                    # Nothing is unpacked for which the model has no place; its name alone is reported.
                    known = decode is None or weight in shapes
                    array = (stored_array(reader, name) if decode is None else decode()) if known else np.zeros(0)
                    tensors[weight] = torch.from_numpy(np.array(array))
    except (TraceError, TypeError) as error:  # TypeError: a dtype that PyTorch does not have
        raise AccelsimError(f"{file}: {error}") from error
    return tensors


def _packed(reader: NpzReader, name: str, shapes: Shapes) -> tuple[str, Callable[[], np.ndarray] | None]:
    """The name of the weight that an array belongs to, and what unpacks it if it is but a part."""
    base, _, part = name.rpartition(".")
    if part in ("mask", "values", "shape") and f"{base}.mask" in reader.members:
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
