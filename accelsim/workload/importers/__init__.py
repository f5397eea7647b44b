"""Files of other tools as traces: one module a format, each with a function ``read``.

A file gives layers and, of their tensors, what it holds; the rest is drawn from a seed, alike or like a real trace.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelsim.errors import ImportFormatError
from accelsim.workload.importers import dnnsim, onnx, pytorch, scalesim, trace
from accelsim.workload.importers.base import Imported, ImportedLayer
from accelsim.workload.mask_model import MaskModel
from accelsim.workload.metadata import FIRST_LAYER, PASSES
from accelsim.workload.synthetic import Blueprint, Source, SyntheticTrace, assemble, fit, reference_of
from accelsim.workload.trace import Trace

# How a format is told by the file's ending.
SUFFIXES = {
    ".csv": "scalesim", ".onnx": "onnx", ".npz": "trace",
    ".pt": "pytorch", ".pth": "pytorch", ".bin": "pytorch", ".safetensors": "pytorch",
}  # fmt: skip
FORMATS = ("scalesim", "dnnsim", "onnx", "pytorch", "trace")


def read(
    path: str | os.PathLike,
    format: str = "auto",
    *,
    topology: str | os.PathLike | None = None,
    tensors: str | os.PathLike | None = None,
) -> Imported:
    """Read a file of another tool.

    Parameters
    ----------
    path : path-like
    format : str
        One of FORMATS, or "auto": told by the name.
    topology : path-like, optional
        For PyTorch's weights: the file that says strides and sizes.
    tensors : path-like, optional
        For DNNsim: the folder of its .npy files.

    Raises
    ------
    ImportFormatError
        If the format is not known or the file is not of it.
    """
    path = Path(path)
    if format == "auto":
        format = _format(path)
    if topology is not None and format != "pytorch":
        raise ImportFormatError(f"{path}: topology: is for pytorch alone, and the format is {format}")
    if tensors is not None and format != "dnnsim":
        raise ImportFormatError(f"{path}: tensors: is for dnnsim alone, and the format is {format}")
    if format == "pytorch":
        return pytorch.read(path, None if topology is None else read(topology))
    if format == "dnnsim":
        return dnnsim.read(path, tensors)
    readers = {"scalesim": scalesim.read, "onnx": onnx.read, "trace": trace.read}
    if format not in readers:
        raise ImportFormatError(f"format: must be one of {', '.join(FORMATS)}; got {format}")
    return readers[format](path)


def _format(path: Path) -> str:
    if path.is_dir() or path.name in dnnsim.MODELS:
        return "dnnsim"
    if path.suffix.lower() not in SUFFIXES:
        raise ImportFormatError(f"{path}: format: must be given, one of {', '.join(FORMATS)}; the name does not tell")
    return SUFFIXES[path.suffix.lower()]


def to_trace(
    imported: Imported,
    sparsities: Sequence[float] = (0.0,),
    *,
    density_activation: float = 0.5,
    density_gradient: float = 1.0,
    like: Trace | None = None,
    batch: int | None = None,
    seed: int = 0,
) -> SyntheticTrace:
    """A trace of what was imported: its own tensors where it has them, the others drawn.

    The first layer is never sparsified, as in SWAT-U, and nobody needs the gradient of its input.

    Parameters
    ----------
    imported : Imported
    sparsities : sequence of float
        A snapshot each; at 0 the file's own weights as they are, above it their Top-K.
    density_activation, density_gradient : float
        Of what is drawn, in (0, 1].
    like : Trace, optional
        What is drawn is like this trace, and has its densities: a layer like the one of its name, or else like the one
        as far from the first layer.
    batch : int, optional
        Samples of the training batch, by default as the file says, or ``like``, or those imported.
    seed : int

    Raises
    ------
    AccelsimError
        If a density or sparsity is out of its range, or ``like`` lacks a tensor.
    """
    for name, density in (("activation", density_activation), ("gradient", density_gradient)):
        if not 0 < density <= 1:
            raise ImportFormatError(f"density of {name}: must be in (0, 1], got {density}")
    models = [
        Blueprint("", "", layer.geometry, PASSES, MaskModel.uniform(1.0),
                  MaskModel.uniform(1.0 if number == 0 else density_activation), MaskModel.uniform(density_gradient))
        for number, layer in enumerate(imported.layers)
    ]  # fmt: skip
    origin = {"imported": f"{imported.path.name} ({imported.format})"}
    if like is not None:
        models = _like(imported, like)
        batch = batch or imported.batch or max(imported.samples, reference_of(like).batch)
        origin["like"] = f"{like.path.name}, sha256 {like.digest}"
    blueprints = [
        _blueprint(i, layer, model) for i, (layer, model) in enumerate(zip(imported.layers, models, strict=True))
    ]
    return assemble(
        blueprints, sparsities, path=imported.path, network=imported.network, samples=imported.samples,
        batch=batch or imported.batch, seed=seed, provenance=origin,
    )  # fmt: skip


def _like(imported: Imported, like: Trace) -> list[Blueprint]:
    real = reference_of(like).layers
    names = {layer.name: number for number, layer in enumerate(real)}
    last = max(1, len(imported.layers) - 1)
    chosen = [
        names.get(layer.name, round(number * (len(real) - 1) / last)) for number, layer in enumerate(imported.layers)
    ]
    fits = {number: fit(real[number]) for number in sorted(set(chosen))}
    return [fits[number] for number in chosen]


def _blueprint(number: int, layer: ImportedLayer, model: Blueprint) -> Blueprint:
    def source(tensor: str) -> Source:
        if tensor == "weight" and number == 0:  # whatever it is like: nothing of it is sparsified
            return layer.tensors.get(tensor, MaskModel.uniform(1.0))
        return layer.tensors.get(tensor, getattr(model, tensor))

    return replace(
        model, name=layer.name, kind=layer.kind, geometry=layer.geometry,
        passes=PASSES if number else FIRST_LAYER, samples=None, batch=None,
        weight=source("weight"), activation=source("activation"), gradient=source("gradient"),
        saved=None if "activation" in layer.tensors else model.saved, dense=number == 0,
    )  # fmt: skip
