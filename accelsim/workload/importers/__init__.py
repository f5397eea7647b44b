"""Files of other tools as traces: one module a format, each with a function ``read``; formats.py has their rows.

A file gives layers and, of their tensors, what it holds; the rest is drawn from a seed, alike or like a real trace.
What is the file's and what was drawn is kept in the trace's provenance, tensor by tensor.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from accelsim.errors import ImportFormatError, printable
from accelsim.workload.formats import Format, listed, named, readers
from accelsim.workload.importers import said
from accelsim.workload.importers.base import Imported, ImportedLayer, Names, blame
from accelsim.workload.importers.nm import Pattern
from accelsim.workload.mask_model import MaskModel
from accelsim.workload.metadata import FIRST_LAYER, PASSES
from accelsim.workload.patterns import Spread
from accelsim.workload.synthetic import Blueprint, Source, SyntheticTrace, assemble, fit, reference_of
from accelsim.workload.trace import Layer, Trace

LARGEST_FOLDER = 4096  # files


def read(path: str | os.PathLike[str], format: str = "auto", **options: Any) -> Imported:
    """Read a file of another tool.

    Parameters
    ----------
    path : path-like
    format : str
        The name of a row of FORMATS, or "auto": told by the name, and where two have the same ending by the content.
    **options
        Those of ``formats.OPTIONS`` that the format takes; None is as if not given. A ``topology`` is a file to be
        read, or already an :class:`Imported`.

    Raises
    ------
    ImportFormatError
        If the format is not known, the file is not of it, or it takes no such option.
    """
    path = Path(path)
    row = _format(path) if format == "auto" else named(format, readers())
    if row is None:
        raise ImportFormatError(f"format: must be one of {listed(readers())}; got {format}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - set(row.options):
        takers = ", ".join(other.name for other in readers() if name in other.options) or "no format"
        raise ImportFormatError(f"{path}: {name.replace('_', '-')}: is for {takers}, and the format is {row.name}")
    if isinstance(given.get("topology"), str | os.PathLike):
        given["topology"] = read(given["topology"])
    _exists(path)
    reader: Callable[..., Imported] = _module(row).read
    try:
        if path.is_dir() and row.is_layer:
            return _folder(path, row, partial(reader, **given))
        return reader(path, **given)
    except ImportFormatError as error:  # what it quotes of the file is the file's
        raise ImportFormatError(printable(str(error))) from error


def _exists(path: Path) -> None:
    """Before any package is asked for: who has mistyped a name need not install one to learn it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ImportFormatError(printable(f"{path}: no such file")) from None
    except OSError:
        pass  # its reader says why


def _module(row: Format) -> ModuleType:
    return import_module(f"accelsim.workload.importers.{row.reader}")


def _format(path: Path) -> Format:
    """Whose file it is: by its ending, and by its content where a format of that ending can tell."""
    _exists(path)
    rows = [row for row in readers() if path.is_dir() or not row.endings or path.suffix.lower() in row.endings]
    for row in rows:
        tells: Callable[[Path], bool] | None = getattr(_module(row), "tells", None)
        if tells(path) if tells else row.endings and not path.is_dir():
            return row
    if path.is_dir():
        for row in rows:
            if row.is_layer and any(child.suffix.lower() in row.endings for child in path.iterdir()):
                return row
    what = "folder" if path.is_dir() else f"ending {path.suffix!r}"
    raise ImportFormatError(f"{path}: format: the {what} does not tell; --format says which: {listed(readers())}")


def _folder(path: Path, row: Format, reader: Callable[[Path], Imported]) -> Imported:
    """A network whose layers have a file each, in the order of the numbers and words of their names."""
    with blame(path):
        files = [child for child in path.iterdir() if child.suffix.lower() in row.endings and child.is_file()]
    if not 0 < len(files) <= LARGEST_FOLDER:
        raise ImportFormatError(f"{path}: must hold 1…{LARGEST_FOLDER} files of {row.name}, holds {len(files)}")
    files = getattr(_module(row), "chosen", list)(files)
    files.sort(key=lambda file: [(not part.isdigit(), part.zfill(12)) for part in re.split(r"(\d+)", file.name)])
    parts, names, layers = [reader(file) for file in files], Names(), []
    for part in parts:
        for layer in part.layers:
            layers.append(replace(layer, name=names.add(layer.name), samples=part.samples_of(layer)))
    told = [f"{file.name}: {text}" for file, part in zip(files, parts, strict=True) for text in part.told]
    left_out = [left for part in parts for left in part.left_out]
    samples = min(layer.samples or 1 for layer in layers)
    return Imported(path, row.name, path.absolute().name, tuple(layers), samples, None, tuple(left_out), tuple(told))


def to_trace(
    imported: Imported,
    sparsities: Sequence[float] = (0.0,),
    *,
    density_activation: float = 0.5,
    density_gradient: float = 1.0,
    like: Trace | None = None,
    batch: int | None = None,
    pattern: Pattern | None = None,
    seed: int = 0,
) -> SyntheticTrace:
    """A trace of what was imported: its own tensors where it has them, the others drawn.

    A network's first layer is never sparsified, as in SWAT-U, and nobody needs the gradient of its input.

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
    pattern : Pattern, optional
        N:M, which weights have before any Top-K; not a network's first layer, and none whose axis M does not divide.
    seed : int

    Raises
    ------
    AccelsimError
        If a density or sparsity is out of its range, or ``like`` lacks a tensor.
    """
    for name, density in (("activation", density_activation), ("gradient", density_gradient)):
        if not 0 < density <= 1:
            raise ImportFormatError(f"density of {name}: must be in (0, 1], got {density}")
    first = imported.layers[0].name if imported.is_network else None
    drawn = {
        layer.name: _uniform(1.0 if layer.name == first else density_activation, density_gradient)
        for layer in imported.layers
    }
    if like is not None:
        drawn = _like(imported, like)
        batch = batch or imported.batch or max(imported.samples, reference_of(like).batch)
    batch = batch or imported.batch or imported.samples
    blueprints = []
    for layer in imported.layers:
        blueprint = _blueprint(layer, drawn[layer.name], layer.name == first)
        if pattern is not None and layer.name != first and pattern.fits(layer):
            blueprint = replace(blueprint, weight=pattern.of(blueprint.weight))
        n = imported.samples_of(layer)
        blueprints.append(replace(blueprint, samples=n, batch=max(n, batch * n // imported.samples)))
    words = {name: how.words for name, how in drawn.items()}
    if first is not None and "weight" not in imported.layers[0].tensors:
        words[first] = {**words[first], "weight": "drawn, density 1"}
    by_layer = said.words(imported, words)
    if pattern is not None:
        for layer in imported.layers:
            is_left = layer.name != first and pattern.fits(layer)
            by_layer[layer.name] += f"; weight {pattern.words}" if is_left else f"; weight not {pattern.words}"
    origin = said.provenance(imported, by_layer)
    if like is not None:
        origin["like"] = f"{like.path.name}, sha256 {like.digest}"
    return assemble(
        blueprints, sparsities, path=imported.path, network=imported.network, samples=imported.samples,
        batch=batch, seed=seed, provenance=origin,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Where the tensors of a layer come from that the file does not hold, and that in words."""

    sources: Mapping[str, Source]
    words: Mapping[str, str]
    saved: MaskModel | None = None


def _uniform(activation: float, gradient: float) -> _Drawn:
    """Sources without structure."""
    densities = {"weight": 1.0, "activation": activation, "gradient": gradient}
    words = {name: f"drawn, density {density:g}" for name, density in densities.items()}
    return _Drawn({name: MaskModel.uniform(density) for name, density in densities.items()}, words)


def _like(imported: Imported, like: Trace) -> dict[str, _Drawn]:
    real = reference_of(like).layers
    numbers = {layer.name: number for number, layer in enumerate(real)}
    last = max(1, len(imported.layers) - 1)
    chosen = [
        numbers.get(layer.name, round(number * (len(real) - 1) / last)) for number, layer in enumerate(imported.layers)
    ]
    fits = {number: _fitted(real[number], like.path.name) for number in sorted(set(chosen))}
    return {layer.name: fits[number] for layer, number in zip(imported.layers, chosen, strict=True)}


def _fitted(layer: Layer, trace: str) -> _Drawn:
    model = fit(layer)
    how = f"drawn like {layer.name} of {trace}"
    sources = {name: getattr(model, name) for name in said.TENSORS}
    words = {name: f"{how}, density {source.density:.3g}" for name, source in sources.items() if name != "weight"}
    return _Drawn(sources, words | {"weight": how}, model.saved)


def _blueprint(layer: ImportedLayer, drawn: _Drawn, is_first: bool) -> Blueprint:
    sources = {**drawn.sources, **layer.tensors}
    if is_first and "weight" not in layer.tensors:  # whatever it is like: nothing of it is sparsified
        sources["weight"] = MaskModel.uniform(1.0)
    saved = None if "activation" in layer.tensors else drawn.saved
    if layer.spread != (1, 1) and "activation" not in layer.tensors:
        sources["activation"], saved = Spread(sources["activation"], layer.spread), None
    return Blueprint(
        layer.name,
        layer.kind,
        layer.geometry,
        FIRST_LAYER if is_first else PASSES,
        sources["weight"],
        sources["activation"],
        sources["gradient"],
        saved=saved,
        dense=is_first,
    )
