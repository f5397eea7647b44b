"""Which sample of the batch each element of a tensor belongs to, followed from the model's inputs through a step.

Along one axis of a tensor lie its samples: a vector says of each index there to which one it belongs. Where an
operation puts them, :func:`follow` knows from what it did and from the shapes, without looking at a number but the
indices of a look-up. What it does not know has no samples; then nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

ANY = -2  # of an element that belongs to every sample, such as a class token


@dataclass(frozen=True, eq=False)
class Rows:
    """The samples of a tensor: ``labels[i]`` is that of all elements whose index along ``axis`` is i."""

    axis: int
    labels: np.ndarray

    def even(self, batch: int) -> np.ndarray | None:
        """The indices of each sample, (batch, n), where each has equally many; else None."""
        counts = np.bincount(self.labels, minlength=batch) if self.labels.min(initial=0) >= 0 else np.zeros(1)
        if len(counts) != batch or counts.min() != counts.max() or not counts[0]:
            return None
        return np.argsort(self.labels, kind="stable").reshape(batch, -1)

    def constant(self) -> int | None:
        """The sample, where there is but one."""
        return int(self.labels[0]) if len(self.labels) and (self.labels == self.labels[0]).all() else None


Find = Callable[[torch.Tensor], Rows | None]
Shape = Sequence[int]


def follow(func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    """The samples of ``output``, one of the results of an operation, from those of its arguments."""
    rule = RULES.get(func._schema.name.removeprefix("aten::"))
    if rule is None:
        return _broadcast(args, output.shape, find)
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    rows: Rows | None = rule(given, output, find)
    fits = rows is not None and rows.axis < output.ndim and len(rows.labels) == output.shape[rows.axis]
    return rows if fits else None


def as_before(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Sequence[Any]:
    """The arguments with a tensor that was transposed in place as it was, where its samples are known."""
    name = func._schema.name.removeprefix("aten::")
    if name not in TURNED or args[0].ndim < 2:
        return args
    dims = (*args[1:], *kwargs.values()) or (0, 1)
    return args[0].transpose(*dims), *args[1:]


def _broadcast(args: Sequence[Any], shape: Shape, find: Find) -> Rows | None:
    """Elementwise operations, normalisations, pooling: the axis stays, counted from the right."""
    best = None
    for tensor in tensors_in(args):
        rows = find(tensor)
        if rows is None or tensor.ndim > len(shape):
            continue
        axis = rows.axis + len(shape) - tensor.ndim
        if shape[axis] != tensor.shape[rows.axis]:
            continue
        if best is None or (best.labels == ANY).any():
            best = Rows(axis, rows.labels)
    return best


def tensors_in(args: Any) -> list[torch.Tensor]:
    """The tensors among arguments, lists of them included."""
    found: list[torch.Tensor] = []
    for value in args.values() if isinstance(args, dict) else args:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple | dict):
            found += tensors_in(value)
    return found


def reshaped(rows: Rows, old: Shape, new: Shape) -> Rows | None:
    """The order of the elements stays: the axis that holds all of the old one, or a part on which alone they depend."""
    inner = math.prod(old[rows.axis + 1 :])
    if not len(rows.labels) or not inner:
        return None
    run, labels = _shortest(rows.labels)
    inner, count = inner * run, len(labels)
    for axis, size in enumerate(new):
        stride = math.prod(new[axis + 1 :])
        whole = stride * size
        if stride <= inner and whole >= inner * count and inner % stride == 0 and whole % (inner * count) == 0:
            return Rows(axis, labels[np.arange(size) // (inner // stride) % count])
        if stride >= inner and whole <= inner * count and stride % inner == 0 and (inner * count) % whole == 0:
            parts = labels.reshape(-1, size, stride // inner)
            if size > 1 and (parts == parts[:1, :, :1]).all():
                return Rows(axis, parts[0, :, 0])
    return _constant(rows, new)


def _shortest(labels: np.ndarray) -> tuple[int, np.ndarray]:
    """Labels that come in runs of equal length, and again and again: the length, and one label for each run, once."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    run = math.gcd(len(labels), *map(int, changes))
    labels = labels[::run]
    again = np.flatnonzero(labels[1:] == labels[0]) + 1
    if len(again) and len(labels) % again[0] == 0 and (labels.reshape(-1, again[0]) == labels[: again[0]]).all():
        labels = labels[: again[0]]
    return run, labels


def _constant(rows: Rows, new: Shape) -> Rows | None:
    label = rows.constant()
    return None if label is None or not new else Rows(0, np.full(new[0], label))


def _of_self(rule: Callable[..., Rows | None]) -> Callable[..., Rows | None]:
    """A rule for operations that take samples from their first argument alone."""

    def apply(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
        source = given.get("self", given.get("input"))
        rows = find(source) if isinstance(source, torch.Tensor) else None
        return None if rows is None else rule(given, output, rows, source)

    return apply


@_of_self
def _view(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    return reshaped(rows, source.shape, output.shape)


@_of_self
def _permute(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    dims = [d % source.ndim for d in given["dims"]]
    return Rows(dims.index(rows.axis), rows.labels)


@_of_self
def _transpose(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    if source.ndim < 2:
        return rows
    a, b = (given.get(name, default) % source.ndim for name, default in (("dim0", 0), ("dim1", 1)))
    return Rows({a: b, b: a}.get(rows.axis, rows.axis), rows.labels)


@_of_self
def _unsqueeze(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    return Rows(rows.axis + (given["dim"] % output.ndim <= rows.axis), rows.labels)


@_of_self
def _squeeze(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    dims = given.get("dim", list(range(source.ndim)))
    dims = {d % source.ndim for d in ([dims] if isinstance(dims, int) else dims)}
    gone = {d for d in dims if source.shape[d] == 1}
    if rows.axis in gone:
        return _constant(rows, output.shape)
    return Rows(rows.axis - sum(d < rows.axis for d in gone), rows.labels)


@_of_self
def _select(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    dim = given["dim"] % source.ndim
    if dim == rows.axis:
        label = rows.labels[given["index"]]
        return Rows(0, np.full(output.shape[0], label)) if output.ndim else None
    return Rows(rows.axis - (dim < rows.axis), rows.labels)


@_of_self
def _slice(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    if given.get("dim", 0) % source.ndim != rows.axis:
        return rows
    return Rows(rows.axis, rows.labels[given.get("start") : given.get("end") : given.get("step", 1)])


@_of_self
def _part(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    """One of the results of a split: where it begins is read off its place in memory, for all are views or copies."""
    dim = given.get("dim", 0) % source.ndim
    if dim != rows.axis:
        return Rows(rows.axis - (dim < rows.axis), rows.labels) if output.ndim < source.ndim else rows
    stride = source.stride(dim)
    start = (output.storage_offset() - source.storage_offset()) // stride if stride else 0
    if output.ndim < source.ndim:  # unbind
        return Rows(0, np.full(output.shape[0], rows.labels[start])) if output.ndim else None
    return Rows(dim, rows.labels[start : start + output.shape[dim]])


@_of_self
def _expand(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    axis = rows.axis + output.ndim - source.ndim
    size = output.shape[axis]
    return Rows(axis, rows.labels if size == len(rows.labels) else np.full(size, rows.labels[0]))


@_of_self
def _repeat(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    axis = rows.axis + output.ndim - source.ndim
    return Rows(axis, np.tile(rows.labels, given["repeats"][axis]))


@_of_self
def _reduce(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    dims = given.get("dim")
    dims = list(range(source.ndim)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    gone = {d % source.ndim for d in dims}
    if rows.axis in gone:
        return _constant(rows, output.shape) if rows.constant() is not None else None
    if output.ndim == source.ndim:
        return rows
    return Rows(rows.axis - sum(d < rows.axis for d in gone), rows.labels)


@_of_self
def _roll(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    for shift, dim in zip(given["shifts"], given.get("dims", ()), strict=False):
        if dim % source.ndim == rows.axis:
            rows = Rows(rows.axis, np.roll(rows.labels, shift))
    return rows


@_of_self
def _flip(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    return Rows(rows.axis, rows.labels[::-1]) if rows.axis in {d % source.ndim for d in given["dims"]} else rows


@_of_self
def _unfold(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    return None if given["dimension"] % source.ndim == rows.axis else rows


def _cat(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    dim = given.get("dim", 0) % output.ndim
    parts = [t for t in given["tensors"] if t.ndim == output.ndim]
    found = [find(tensor) for tensor in parts]
    labelled = [rows for rows in found if rows is not None]
    if not labelled:
        return None
    if all(rows.axis != dim for rows in labelled):
        return labelled[0]
    if len(labelled) == len(parts) and all(rows.axis == dim for rows in labelled):
        return Rows(dim, np.concatenate([rows.labels for rows in labelled]))
    return None


def _indexed(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    """``x[i]``, ``x[:, i]``, ``x[mask]``, ``x[i, j]``: a look-up of samples, or of a table by samples' indices."""
    source, indices = given["self"], list(given["indices"])
    at = [place for place, index in enumerate(indices) if index is not None]
    first, lead = at[0], indices[at[0]]
    rows = find(source)
    if rows is None:
        inner = find(lead)
        return None if inner is None else Rows(inner.axis + first, inner.labels)
    if len(at) == 1 and lead.dtype == torch.bool and lead.ndim > 1:
        if not first <= rows.axis < first + lead.ndim:
            return None
        shape = [1] * lead.ndim
        shape[rows.axis - first] = -1
        labels = np.broadcast_to(rows.labels.reshape(shape), lead.shape)
        return Rows(first, labels[_numbers(lead)])
    if rows.axis in at and indices[rows.axis].ndim == 1:
        return Rows(first, rows.labels[_numbers(indices[rows.axis])])
    if len(at) == 1 and rows.axis not in at:
        return Rows(rows.axis + (lead.ndim - 1 if rows.axis > first else 0), rows.labels)
    return None


def _index_select(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    rows = find(given["self"])
    if rows is None or given["dim"] % given["self"].ndim != rows.axis:
        return rows
    return Rows(rows.axis, rows.labels[_numbers(given["index"])])


def _embedding(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    return find(given["indices"])


def _put(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    """``out[i] = x`` and ``out.index_add_(0, i, x)``: rows of samples come into a tensor that had none."""
    before = find(given["self"])
    index = given.get("index", given.get("indices"))
    index = index[0] if isinstance(index, list | tuple) and len(index) == 1 else index
    source = given.get("source", given.get("values"))
    rows = find(source) if isinstance(source, torch.Tensor) else None
    dim = given.get("dim", 0) % output.ndim
    if rows is None or rows.axis != dim or not isinstance(index, torch.Tensor) or index.ndim != 1:
        return before
    labels = np.full(output.shape[dim], ANY) if before is None or before.axis != dim else before.labels.copy()
    labels[_numbers(index)] = rows.labels
    return Rows(dim, labels)


@_of_self
def _leading(given: dict[str, Any], output: torch.Tensor, rows: Rows, source: torch.Tensor) -> Rows | None:
    """Patches of an image, and the image of patches: samples are the first axis, channels are not."""
    return rows if rows.axis == 0 and min(source.ndim, output.ndim) > 2 else None


def _packed(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    """Of each step the rows of the sequences that are so long."""
    rows = find(given["input"])
    if rows is None or rows.axis != int(not given["batch_first"]) or output.ndim != given["input"].ndim - 1:
        return None
    longer = _numbers(given["lengths"])[None, :] > np.arange(int(given["lengths"].max()))[:, None]
    return Rows(0, np.broadcast_to(rows.labels, longer.shape)[longer])


def _first(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    """Convolutions and attention: the first axis of the input stays, or what it has become."""
    source = given.get("input", given.get("query", given.get("grad_output")))
    rows = find(source) if isinstance(source, torch.Tensor) else None
    is_first = rows is not None and rows.axis == 0 and source is not None and output.ndim == source.ndim
    return rows if is_first else None


def _input_gradient(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    """The gradient of a convolution's input has its samples; those of its weight and bias have none."""
    rows = find(given["input"]) or find(given["grad_output"])
    is_input = output.shape == given["input"].shape != given["weight"].shape
    return rows if is_input and rows is not None and rows.axis == 0 else None


def _matrix(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    """Products of matrices: rows of the first, columns of the second, and the batch of both."""
    first, second = (given[a] for a in (("mat1", "mat2") if "mat1" in given else _factors(given)))
    x, y = find(first), find(second)
    if x is not None and x.axis < first.ndim - 1:
        return x
    if y is not None and y.axis != second.ndim - 2:
        return Rows(min(y.axis, output.ndim - 1), y.labels)
    return None if y is None or x is not None else _constant(y, output.shape)


def _factors(given: dict[str, Any]) -> tuple[str, str]:
    for names in (("batch1", "batch2"), ("self", "mat2"), ("mat", "vec"), ("self", "vec"), ("self", "tensor")):
        if all(name in given for name in names):
            return names
    raise KeyError(", ".join(given))


def _numbers(index: torch.Tensor) -> np.ndarray:
    numbers: np.ndarray = index.detach().cpu().clone().numpy()
    return numbers


def _none(given: dict[str, Any], output: torch.Tensor, find: Find) -> Rows | None:
    return None


TURNED = ("transpose_", "t_", "swapaxes_", "swapdims_")
RULES: dict[str, Callable[..., Rows | None]] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "_unsafe_reshape"), _view),
    **dict.fromkeys(("transpose", "t", *TURNED), _transpose),
    **dict.fromkeys(("split", "split_with_sizes", "unbind", "unsafe_split", "unsafe_split_with_sizes"), _part),
    **dict.fromkeys(
        ("sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "logsumexp", "prod", "any"), _reduce
    ),
    **dict.fromkeys(
        ("all", "var", "std", "var_mean", "norm", "linalg_vector_norm", "median", "count_nonzero"), _reduce
    ),
    **dict.fromkeys(("index_add_", "index_add", "index_copy_", "index_copy", "index_put_", "index_put"), _put),
    **dict.fromkeys(("_unsafe_index_put", "_index_put_impl_"), _put),
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"), _matrix),
    **dict.fromkeys(("nonzero", "as_strided"), _none),
    **dict.fromkeys(("im2col", "col2im"), _leading),
    "_pack_padded_sequence": _packed,
    "convolution_backward": _input_gradient,
    "convolution": _first,
    "permute": _permute,
    "unsqueeze": _unsqueeze,
    "unsqueeze_": _unsqueeze,
    "squeeze": _squeeze,
    "select": _select,
    "slice": _slice,
    "expand": _expand,
    "repeat": _repeat,
    "roll": _roll,
    "flip": _flip,
    "unfold": _unfold,
    "cat": _cat,
    "index": _indexed,
    "_unsafe_index": _indexed,
    "index_select": _index_select,
    "embedding": _embedding,
}
