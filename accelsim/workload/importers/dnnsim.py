"""DNNsim's layouts: a model as CSV, its tensors as .npy files.

The model, one layer a line, cells with commas between, no header:

=================  ===========================================================================================
model.csv          name, type (conv, fc, rnn or lstm), stride, padding
trace_params.csv   name, [input layer,] filters, kernel X, kernel Y, stride, padding            (2018 and 2019)
conv_params.csv    network, name, type, filters, channels, kernel X, kernel Y, kernel size, stride, padding, …
=================  ===========================================================================================

The tensors, as DNNsim reads them from ``net_traces/NETWORK`` beside ``models/NETWORK``, or from the model's own folder:

=========  ============================================================================================
inference  wgt-LAYER.npy, act-LAYER-BATCH.npy
training   weights/LAYER-EPOCH-BATCH-w.npy, input/LAYER-EPOCH-BATCH-in.npy,
           outGrad/LAYER-EPOCH-BATCH-outGrad.npy
=========  ============================================================================================

Beside the model may be precision.txt, after a line of words the bits before and after the point of activations and of
weights, layer by layer with ; between: then what rounds to zero in them is zero, as DNNsim computes it.

A / in a layer's name is a - in its files'. Weights are (F, C, R, S) or (F, C), activations (N, C, H, W) or (N, C), of
an LSTM (steps, N, C). As in DNNsim, groups are the activation's channels over the weight's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import (
    LARGEST_TENSOR,
    Imported,
    ImportedLayer,
    Names,
    blame,
    blame_all,
    integer,
    read_text,
)
from accelsim.workload.patterns import Stored

MODELS = ("model.csv", "trace_params.csv", "conv_params.csv")
TYPES = {"conv": "conv", "fc": "fc", "lstm": "lstm", "rnn": "lstm"}
MOST_BITS = 32  # of a number in precision.txt, before and after the point


@dataclass(frozen=True)
class _Line:
    """One layer of a model file; kernel and filters where the file says them."""

    name: str
    type: str
    stride: int
    padding: int
    filters: int | None = None
    kernel: tuple[int, int] | None = None


def read(path: str | os.PathLike[str], tensors: str | os.PathLike[str] | None = None) -> Imported:
    """Read a model and its tensors.

    Parameters
    ----------
    path : path-like
        The model file, or the folder that holds it.
    tensors : path-like, optional
        The folder of the .npy files; by default as DNNsim keeps them.

    Raises
    ------
    ImportFormatError
        One line that names the file and the line or layer, if something is missing or does not fit together.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in MODELS if (path / name).is_file()]
        if not found:
            raise ImportFormatError(f"{path}: must hold one of {', '.join(MODELS)}")
        path = found[0]
    lines = list(_lines(path))
    folder = Path(tensors) if tensors is not None else _folder(path)
    files = _training(folder) if (folder / "weights").is_dir() else _inference(folder)
    precisions = _precisions(path.parent / "precision.txt", len(lines))
    names, layers = Names(), []
    samples: dict[int, str] = {}
    for number, line in enumerate(lines):
        with blame(f"{path}: {line.name}"):
            name = names.add(line.name)
            n, kind, geometry, stored = _layer(line, files)
            samples.setdefault(n, name)
            quantised, words = _quantised(stored, {t: bits[number] for t, bits in precisions.items()})
            layers.append(ImportedLayer(name, kind, geometry, quantised, words))
    if len(samples) > 1:
        (n, one), (m, other) = list(samples.items())[:2]
        raise ImportFormatError(f"{path}: all layers must have as many samples, {one} has {n}, {other} {m}")
    return Imported(path, "dnnsim", path.absolute().parent.name, tuple(layers), next(iter(samples), 1))


def tells(path: Path) -> bool:
    """Whether it is a model file, or a folder with one."""
    return path.name in MODELS or (path.is_dir() and any((path / name).is_file() for name in MODELS))


# ---- precisions


def _precisions(path: Path, count: int) -> dict[str, list[tuple[int, int]]]:
    """Of activations and weights, layer by layer, bits before (the sign included) and after the point."""
    if not path.is_file():
        return {}
    lines = [line for line in read_text(path).splitlines() if line.strip()][1:]
    if len(lines) < 4:
        raise ImportFormatError(f"{path}: must have a line of words and four of numbers, has {len(lines) + 1} lines")
    numbers = []
    for number, line in enumerate(lines[:4], start=2):
        with blame(f"{path}: line {number}"):
            bits = [integer(cell, "bits", -MOST_BITS) for cell in line.split(";") if cell.strip()]
            if len(bits) < count or max(bits) > MOST_BITS:
                raise ImportFormatError(f"must have a number of at most {MOST_BITS} for each of {count} layers")
            numbers.append(bits[:count])
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return dict(zip(("activation", "weight"), ([*zip(*pair, strict=True)] for pair in pairs), strict=True))


def _quantised(
    tensors: dict[str, Stored], bits: dict[str, tuple[int, int]]
) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors as fixed-point numbers of so many bits, and that in words."""
    found, words = dict(tensors), {}
    for tensor in tensors.keys() & bits.keys():
        before, after = bits[tensor]
        read = tensors[tensor].read
        found[tensor] = Stored(partial(_quantise_read, read, before, after))
        words[tensor] = f"from the file, in {before} + {after} bits by precision.txt"
    return found, words


def _quantise_read(read: Callable[[], np.ndarray], before: int, after: int) -> np.ndarray:
    return quantise(read(), before, after)


def quantise(values: np.ndarray, before: int, after: int) -> np.ndarray:
    """Fixed-point numbers with so many bits before the point, the sign included, and after it; halves away from 0."""
    largest = 2.0 ** max(0, before - 1 + after) - 1
    scaled = np.abs(values.astype(np.float64)) * 2.0**after
    return np.asarray(np.sign(values) * np.minimum(np.floor(scaled + 0.5), largest))


# ---- the model


def _lines(path: Path) -> Iterator[_Line]:
    parse = {"model.csv": _model, "conv_params.csv": _conv_params}.get(path.name, _trace_params)
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        cells = [cell.strip() for cell in text.split(",")]
        if cells != [""]:
            with blame(f"{path}: line {number}"):
                yield parse(cells)


def _cells(cells: list[str], counts: tuple[int, ...], what: str) -> None:
    if len(cells) not in counts:
        rule = " or ".join(map(str, counts))
        raise ImportFormatError(f"must have {rule} cells ({what}), has {len(cells)}")


def _type(text: str) -> str:
    if text not in TYPES:
        raise ImportFormatError(f"type: must be one of {', '.join(TYPES)}; got {text[:40]!r}")
    return TYPES[text]


def _model(cells: list[str]) -> _Line:
    _cells(cells, (4,), "name, type, stride, padding")
    return _Line(cells[0], _type(cells[1]), integer(cells[2], "stride"), integer(cells[3], "padding", 0))


def _trace_params(cells: list[str]) -> _Line:
    _cells(cells, (6, 7), "name, [input layer,] filters, kernel X, kernel Y, stride, padding")
    name, (filters, x, y, stride, padding) = cells[0], cells[-5:]
    known = {"fc": "fc", "inner_prod": "fc", "Linear": "fc", "lstm": "lstm", "rnn": "lstm"}
    kind = next((type for part, type in known.items() if part in name), "conv")
    kernel = integer(x, "kernel X"), integer(y, "kernel Y")
    return _Line(
        name, kind, integer(stride, "stride"), integer(padding, "padding", 0), integer(filters, "filters"), kernel
    )


def _conv_params(cells: list[str]) -> _Line:
    _cells(cells, (12,), "network, name, type, filters, channels, kernel X, Y, size, stride, padding, precision, …")
    kernel = integer(cells[5], "kernel X"), integer(cells[6], "kernel Y")
    stride, padding = integer(cells[8], "stride"), integer(cells[9], "padding", 0)
    return _Line(cells[1], _type(cells[2]), stride, padding, integer(cells[3], "filters"), kernel)


# ---- the tensors


def _folder(path: Path) -> Path:
    """Where DNNsim looks for the tensors of models/NETWORK/model.csv, or where the model is."""
    own = path.absolute().parent
    apart = own.parent.parent / "net_traces" / own.name
    return apart if apart.is_dir() else own


def _inference(folder: Path) -> Callable[[str, str], Path | None]:
    def find(layer: str, tensor: str) -> Path | None:
        if tensor == "weight":
            return folder / f"wgt-{layer}.npy"
        return _first(folder, rf"act-{re.escape(layer)}-(\d+)\.npy") if tensor == "activation" else None

    return find


def _training(folder: Path) -> Callable[[str, str], Path | None]:
    places = {"weight": ("weights", "w"), "activation": ("input", "in"), "gradient": ("outGrad", "outGrad")}

    def find(layer: str, tensor: str) -> Path | None:
        place, suffix = places[tensor]
        return _first(folder / place, rf"{re.escape(layer)}-(\d+)-(\d+)-{suffix}\.npy")

    return find


def _first(folder: Path, pattern: str) -> Path | None:
    """Of the files of that name the one of the first epoch and batch."""
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    found = [(tuple(map(int, match.groups())), name) for name in names if (match := re.fullmatch(pattern, name))]
    return folder / min(found)[1] if found else None


def _layer(line: _Line, files: Callable[[str, str], Path | None]) -> tuple[int, str, Geometry, dict[str, Stored]]:
    base = line.name.replace("/", "-")
    opened = {tensor: files(base, tensor) for tensor in ("weight", "activation", "gradient")}
    for tensor in ("weight", "activation"):
        file = opened[tensor]
        if file is None or not file.is_file():
            raise ImportFormatError(f"{tensor}: its .npy file must be there, is not")
    shapes = {tensor: open_npy(file).shape for tensor, file in opened.items() if file}
    n, kind, geometry = _shape(line, shapes["weight"], shapes["activation"])
    wanted = {"weight": geometry.weight_shape, "activation": geometry.activation_shape(n)}
    wanted["gradient"] = geometry.gradient_shape(n)
    for tensor, shape in shapes.items():
        if not _fits(line, tensor, shape, wanted[tensor]):
            raise ImportFormatError(f"{tensor}: must have shape {wanted[tensor]}, got {shape}")
    steps_first = {"activation", "gradient"} if line.type == "lstm" else set()
    stored = {t: Stored(_reader(file, wanted[t], t in steps_first)) for t, file in opened.items() if file}
    return n, kind, geometry, stored


def _fits(line: _Line, tensor: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a file's array is a tensor of that shape, in the layout that DNNsim has for the type of layer."""
    if line.type == "lstm" and tensor != "weight":
        wanted = (wanted[2], *wanted[:2])
    elif line.type == "fc":  # what is flattened in between
        shape = (shape[0], prod(shape[1:]))
    return shape == wanted[: len(shape)] and prod(wanted[len(shape) :]) == 1


def _shape(line: _Line, weight: tuple[int, ...], activation: tuple[int, ...]) -> tuple[int, str, Geometry]:
    filters, kernel = weight[0] if weight else 0, weight[2:] or (1, 1)
    if line.kernel and (line.filters, line.kernel) != (filters, kernel):
        rule = f"must be {line.filters} filters of {line.kernel}, as the model says"
        raise ImportFormatError(f"weight: {rule}, got {filters} of {kernel}")
    ranks = {"conv": ((2, 4), (2, 4)), "fc": ((2, 4), (2, 4)), "lstm": ((2,), (3,))}[line.type]
    for tensor, shape, allowed in zip(("weight", "activation"), (weight, activation), ranks, strict=True):
        if len(shape) not in allowed:
            rule = " or ".join(map(str, allowed))
            raise ImportFormatError(f"{tensor}: must have {rule} axes in a layer of type {line.type}, got {shape}")
    if line.type == "lstm":
        return activation[1], "linear", Geometry(activation[2], activation[0], 1, filters, (1, 1))
    if line.type == "fc":
        return activation[0], "linear", Geometry(prod(activation[1:]), 1, 1, filters, (1, 1))
    n, channels, height, width = (*activation, 1, 1)[:4]
    if not weight[1] or channels % weight[1]:
        raise ImportFormatError(
            f"activation: must have a multiple of the weight's {weight[1]} channels, got {channels}"
        )
    sizes = (line.stride,) * 2, (line.padding,) * 4
    return (
        n,
        "conv",
        Geometry(channels, height, width, filters, (kernel[0], kernel[1]), *sizes, groups=channels // weight[1]),
    )


def _reader(file: Path, shape: tuple[int, ...], steps_first: bool) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        array = open_npy(file)
        if steps_first:  # (steps, N, C) → (N, C, steps)
            array = array.transpose(1, 2, 0)
        return np.ascontiguousarray(array).reshape(shape)

    return read


def open_npy(file: Path) -> np.ndarray:
    """An array that is mapped, so that nothing is allocated on the word of its header, and no pickle is read.

    Raises
    ------
    ImportFormatError
        If it is missing, damaged, too large, or does not hold plain numbers.
    """
    with blame_all(file.name):
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            raise
        except Exception as error:  # whatever numpy's parser of headers makes of one that is none
            raise ImportFormatError("must be a whole .npy file, its header is damaged") from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise ImportFormatError(f"must hold plain numbers, got dtype {getattr(array, 'dtype', 'of an archive')}")
        if not 0 < array.size <= LARGEST_TENSOR:
            raise ImportFormatError(f"must have 1…{LARGEST_TENSOR} elements, has shape {array.shape}")
    return array
