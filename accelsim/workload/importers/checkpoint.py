"""A checkpoint as tensors by name: which of its entries is read, under which wrappers, from how many files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.importers import safetensors, torch_archive
from accelsim.workload.importers.base import LONGEST_LIST, blame, blame_all, read_text
from accelsim.workload.importers.tensors import Tensor, check_size
from accelsim.workload.importers.torch_pickle import Husk, inside, named

# Under which training scripts keep what they train, the first that is there first; what follows is its copies.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module",
    "state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema", "model_ema_state_dict", "ema_model",
)  # fmt: skip
BESIDE = re.compile(r"(.*_)?masks?|sparsifier")  # next to a wrapper: masks of what it wraps
NOT_MODELS = ("optim", "sched", "scaler", "callback", "loops", "amp")
INDEX = ".index.json"
ENDINGS_OF_PARTS = (".safetensors", ".bin")


def tensors(path: Path, entry: str | None, told: list[str]) -> dict[str, Tensor]:
    """The tensors of a file, or of all files of a folder or an index, by name.

    Parameters
    ----------
    path : Path
    entry : str, optional
        The key under which they are, where there are several.
    told : list of str
        Gets what the user must know.

    Raises
    ------
    ImportFormatError
        One line that names the file, if it is damaged or holds no tensors.
    """
    if path.is_dir() or path.name.endswith(INDEX):
        return _joined(path, told)
    if not path.is_file():
        raise ImportFormatError(f"{path}: no such file")
    if path.suffix.lower() == ".safetensors":
        found = safetensors.tensors(path)
    elif path.suffix.lower() == ".npz":
        found = _arrays(path)
    else:
        found = _of(path, torch_archive.content(path), entry, told)
        entry = None
    if entry is not None:
        found = {name.removeprefix(f"{entry}."): tensor for name, tensor in found.items() if name.startswith(entry)}
    if not found:
        raise ImportFormatError(f"{path}: must hold tensors by name{f' under {entry}' if entry else ''}, holds none")
    return found


# ---- several files


def _joined(path: Path, told: list[str]) -> dict[str, Tensor]:
    with blame(path):
        if path.is_dir():
            indices = sorted(path.glob(f"*{INDEX}"))
            parts = _indexed(indices[0]) if indices else _parts(path)
        else:
            parts = _indexed(path)
    found: dict[str, Tensor] = {}
    for part in parts:
        found |= tensors(part, None, told)
    told.append(f"read from {len(parts)} files: {parts[0].name} … {parts[-1].name}")
    return found


def _parts(folder: Path) -> list[Path]:
    for ending in ENDINGS_OF_PARTS:
        if files := sorted(folder.glob(f"*{ending}")):
            return files
    raise ImportFormatError(f"must hold {' or '.join(f'*{ending}' for ending in ENDINGS_OF_PARTS)}, holds none")


def _indexed(index: Path) -> list[Path]:
    """The files that an index names, in its own folder."""
    content = json.loads(read_text(index))
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ImportFormatError("weight_map: must name the file of each tensor")
    files = [index.parent / name for name in dict.fromkeys(names.values())]
    for file in files:
        if file.parent != index.parent or file.name.endswith(INDEX) or not file.is_file():
            raise ImportFormatError(f"weight_map: {str(file.name)[:60]}: must be a file beside the index")
    return files


# ---- what is in a file


def _arrays(path: Path) -> dict[str, Tensor]:
    """Of an .npz; arrays are read when they are asked for, and no pickle ever."""
    found = {}
    with blame_all(path, "must be an .npz of arrays: "), np.load(path, allow_pickle=False) as file:
        for name in file.files:
            with file.zip.open(f"{name}.npy") as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
            check_size(shape)
            if dtype.kind in "fiub":
                found[name.replace("/", ".")] = Tensor(shape, partial(_array, path, name))
    return found


def _array(path: Path, name: str) -> np.ndarray:
    with blame_all(path), np.load(path, allow_pickle=False) as file:
        return np.asarray(file[name])


def _of(path: Path, content: Any, entry: str | None, told: list[str]) -> dict[str, Tensor]:
    """The tensors of the chosen entry, with masks that lie beside it."""
    with blame_all(path):
        top = dict(inside(content))
        chosen = entry or _chosen(top, told)
        if chosen is None:
            return dict(named(content, LONGEST_LIST * 4))
        if chosen not in top:
            below = {
                name.removeprefix(f"{chosen}."): tensor
                for name, tensor in named(content, LONGEST_LIST * 4)
                if name.startswith(f"{chosen}.")
            }
            if below:
                return below
            rule = f"entry: must be one of {', '.join(map(str, top))[:200]}"
            raise ImportFormatError(f"{rule}; got {chosen[:40]}")
        inner = top[chosen]
        if entry is None and _is_wrapper(inner):
            found = _of(path, inner, None, told)
        else:
            found = dict(named(inner, LONGEST_LIST * 4))
        for key in filter(BESIDE.fullmatch, top):
            for name, mask in named(top[key], LONGEST_LIST):
                found[f"{_masked_by(name)}.mask" if isinstance(top[key], dict) else f"{key}.{name}"] = mask
    return found


def _masked_by(name: str) -> str:
    """The tensor that a mask of that name is of; a sparsifier of torch.ao has its masks under ``state``."""
    return name.removeprefix("state.").removesuffix(".mask").removesuffix("_mask")


def _chosen(top: Mapping[str, object], told: list[str]) -> str | None:
    """The key of what is read; None where the tensors stand at the top."""
    if any(isinstance(value, Tensor) for value in top.values()):
        return None
    models = [key for key, value in top.items() if _is_model(key, value)]
    known = [key for key in WRAPPERS if key in models]
    if not known:
        return None
    others = [key for key in models if key != known[0] and (key in WRAPPERS or "ema" in key.lower())]
    if others:
        told.append(f"of {', '.join([known[0], *others])}, {known[0]} is read (--entry {others[0]} reads another)")
    return known[0]


def _is_model(key: str, value: object) -> bool:
    if any(part in key.lower() for part in NOT_MODELS) or BESIDE.fullmatch(key) or not isinstance(value, dict | Husk):
        return False
    return any(len(tensor.shape) > 1 for _, tensor in named(value, LONGEST_LIST * 4))


def _is_wrapper(value: object) -> bool:
    top = dict(inside(value))
    return not any(isinstance(part, Tensor) for part in top.values()) and any(key in WRAPPERS for key in top)
