"""Which elements of a tensor survive, and how many each layer may keep: SWAT's Top-K and its three distributions.

Sections 3.3.1–3.3.3 and appendices A.1, A.4, A.5 of the paper. Numpy only; ``accelsim.capture`` does the same to live
tensors. Sparsity is the fraction of zeros, density = 1 − sparsity. A layer is named, its weight has the shape
(F, C/groups, R, S) or (F, C).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, prod
from numbers import Real

import numpy as np

from accelsim.errors import AccelsimError

# Leading axes that number the groups of a Top-K: 'CHW' selects within each sample (or filter), and so on (A.5).
SCOPES = {"NCHW": 0, "CHW": 1, "HW": 2}
DISTRIBUTIONS = ("uniform", "erk", "momentum")

# A layer without momentum still gets one part in 10⁹ of what the greatest gets: never nothing, so it can come back.
LEAST_SCORE = 1e-9


def check_sparsity(sparsity: object, name: str = "sparsity") -> float:
    """The sparsity as a float, if it lies in [0, 1); AccelsimError if not."""
    if not isinstance(sparsity, Real) or isinstance(sparsity, bool) or not 0 <= float(sparsity) < 1:
        raise AccelsimError(f"{name}: must be a number in [0, 1), got {sparsity!r}")
    return float(sparsity)


def kept(count: int, sparsity: float) -> int:
    """How many of `count` elements Top-K keeps: ⌈(1 − sparsity)·count⌉, as SWAT's own code.

    Read as the decimal that was meant: (1 − 0.7)·10 is 3, though in floating point it is just above.
    """
    return min(count, max(0, ceil((1 - sparsity) * count - 4 * np.finfo(float).eps * count)))


def threshold(values: np.ndarray, sparsity: float) -> float:
    """The exact k-th greatest magnitude, k = :func:`kept`; 0 where fewer than k elements are non-zero.

    By introselect (``numpy.partition``, appendix A.4), on the non-zeros alone: half a tensor of equal zeros, as a ReLU
    leaves it, would slow the selection 20-fold.

    Raises
    ------
    AccelsimError
        If the sparsity is outside [0, 1) or a value is NaN.
    """
    magnitude = _magnitude(values).ravel()
    k = kept(magnitude.size, check_sparsity(sparsity))
    magnitude = magnitude[magnitude > 0]
    if k == 0 or magnitude.size < k:
        return 0.0
    return float(np.partition(magnitude, magnitude.size - k)[magnitude.size - k])


def top_k_mask(values: np.ndarray, sparsity: float, scope: str = "NCHW") -> np.ndarray:
    """Which elements are among the k of greatest magnitude.

    Of equal magnitudes at the edge those with the lowest index (C order) survive, so that exactly k do. A zero never
    survives: with fewer than k non-zeros the mask holds these and no more.

    Parameters
    ----------
    values : ndarray
        (N, C, H, W), or a weight in that order; any number of axes.
    sparsity : float
        In [0, 1); k = :func:`kept` of a group's size.
    scope : {"NCHW", "CHW", "HW"}
        What a group is: the whole tensor, each sample (filter), each channel's map (appendix A.5). A tensor of one or
        two axes has no maps: there HW means CHW.

    Returns
    -------
    ndarray of bool, the shape of `values`

    Raises
    ------
    AccelsimError
        If the sparsity is outside [0, 1), the scope is unknown, or a value is NaN.
    """
    sparsity = check_sparsity(sparsity)
    magnitude = _magnitude(values)
    lead = group_axes(scope, magnitude.ndim)
    groups = prod(magnitude.shape[:lead])
    rows = magnitude.reshape(groups, -1) if magnitude.size else magnitude.reshape(groups, 0)
    edges = np.array([[threshold(row, sparsity)] for row in rows]).reshape(groups, 1).astype(rows.dtype)
    above, ties = rows > edges, (rows == edges) & (edges > 0)
    spare = kept(rows.shape[1], sparsity) - np.count_nonzero(above, axis=1, keepdims=True)
    if np.any(np.count_nonzero(ties, axis=1, keepdims=True) > spare):
        ties &= np.cumsum(ties, axis=1) <= spare
    mask: np.ndarray = above | ties
    return mask.reshape(magnitude.shape)


def channel_mask(weight: np.ndarray, sparsity: float) -> np.ndarray:
    """Structured Top-K (section 3.3.1): of each filter, the input channels whose R×S kernels have the greatest L1 norm.

    Each filter chooses its own ⌈(1 − sparsity)·C/groups⌉ channels; equal norms: the lowest channel; a kernel of zeros
    is never chosen. A zero inside a chosen kernel is marked like its neighbours.

    Parameters
    ----------
    weight : ndarray, (F, C/groups, R, S) or (F, C)
    sparsity : float

    Returns
    -------
    ndarray of bool, the shape of `weight`

    Raises
    ------
    AccelsimError
        As :func:`top_k_mask`.
    """
    weight = np.asarray(weight)
    norms = _magnitude(weight).astype(float).reshape(*weight.shape[:2], -1).sum(axis=2)
    chosen = top_k_mask(norms, sparsity, "CHW")
    return np.broadcast_to(chosen.reshape(*chosen.shape, *[1] * (weight.ndim - 2)), weight.shape).copy()


def structured_mask(values: np.ndarray, n: int, m: int, axis: int = 1) -> np.ndarray:
    """Which elements an n:m pattern keeps: of every m consecutive ones along an axis the n of greatest magnitude.

    As NVIDIA prunes for 2:4 (Mishra et al., 2021). Equal magnitudes: the lowest index; a zero is never kept. The last
    group may have fewer than m elements.

    Parameters
    ----------
    values : ndarray
        A weight (F, C/groups, R, S); of a mask the first n of a group's non-zeros are kept.
    n, m : int
        0 < n ≤ m.
    axis : int
        The reduction: 1 for the forward pass, 0 for the input gradient.

    Returns
    -------
    ndarray of bool, the shape of `values`

    Raises
    ------
    AccelsimError
        If n and m are no pattern, or a value is NaN.
    """
    if not 0 < n <= m:
        raise AccelsimError(f"n:m: must be 0 < n ≤ m, got {n}:{m}")
    magnitude = np.moveaxis(_magnitude(values), axis, -1)
    size = magnitude.shape[-1]
    groups = np.zeros((*magnitude.shape[:-1], -(-size // m) * m), magnitude.dtype)
    groups[..., :size] = magnitude
    groups = groups.reshape(*magnitude.shape[:-1], -1, m)
    # The greatest come last, and of equals the lowest index, for the order is that of the reversed group.
    order = m - 1 - np.argsort(groups[..., ::-1], axis=-1, kind="stable")
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, order[..., m - n :], True, axis=-1)
    mask &= groups != 0
    return np.moveaxis(mask.reshape(*magnitude.shape[:-1], -1)[..., :size], -1, axis)


def structured_loss(values: np.ndarray, n: int, m: int, axis: int = 1) -> tuple[float, float | None]:
    """What forcing an n:m pattern on a tensor would drop: the share of its non-zeros, and of its L1 norm.

    Parameters and raises as :func:`structured_mask`. Of a mask the second is None: it has no magnitudes.
    """
    values = np.asarray(values)
    magnitude = _magnitude(values)
    dropped = (magnitude != 0) & ~structured_mask(values, n, m, axis)
    count = int(np.count_nonzero(dropped)) / max(1, int(np.count_nonzero(magnitude)))
    if values.dtype == bool:
        return count, None
    magnitude = magnitude.astype(float)
    return count, float(magnitude[dropped].sum() / (magnitude.sum() or 1.0))


def uniform(
    shapes: Mapping[str, tuple[int, ...]], sparsity: float, dense: Iterable[str] | None = None
) -> dict[str, float]:
    """SWAT-U (section 3.3.2): every layer at the same density but the first, which stays dense.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Weight shapes by layer.
    sparsity : float
        In [0, 1).
    dense : iterable of str, optional
        The layers that stay dense, in place of the first.

    Returns
    -------
    dict of str to float
        Density by layer, in (0, 1].

    Raises
    ------
    AccelsimError
        If the sparsity is outside [0, 1), a shape is no shape, there is no layer, or `dense` names none of them.
    """
    density = 1 - check_sparsity(sparsity)
    names = list(_sizes(shapes))
    dense = names[:1] if dense is None else list(dense)
    for name in dense:
        if name not in shapes:
            raise AccelsimError(f"dense: there is no layer {name!r}")
    return {name: 1.0 if name in dense else density for name in names}


def erk(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """SWAT-ERK (section 3.3.2), the Erdős–Rényi-kernel distribution as RigL defines it.

    A layer's density is ε·(F + C + R + S)/(F·C·R·S). Where that passes 1 the layer is dense and ε is solved again,
    until the density of all layers together is exactly 1 − sparsity.

    Parameters, returns and raises as :func:`uniform`.
    """
    density = 1 - check_sparsity(sparsity)
    return _share(_sizes(shapes), {name: float(sum(shape)) for name, shape in shapes.items()}, density)


def momentum(
    shapes: Mapping[str, tuple[int, ...]], sparsity: float, magnitudes: Mapping[str, float]
) -> dict[str, float]:
    """SWAT-M (section 3.3.2), after Sparse Networks from Scratch.

    A layer's non-zeros are proportional to the mean magnitude of the momentum of its active weights. What a layer
    cannot hold goes to the others in the same proportion, so that the total density is exactly 1 − sparsity.

    Parameters
    ----------
    shapes, sparsity
        As :func:`uniform`.
    magnitudes : mapping of str to float
        Mean \\|momentum\\| of the active weights by layer. All zero: every layer gets the same density.

    Returns
    -------
    dict of str to float
        Density by layer, in (0, 1].

    Raises
    ------
    AccelsimError
        As :func:`uniform`, or if a layer's magnitude is missing, negative or not finite.
    """
    density = 1 - check_sparsity(sparsity)
    sizes, scores = _sizes(shapes), {}
    for name in sizes:
        scores[name] = float(magnitudes.get(name, -1))
        if not 0 <= scores[name] < np.inf:
            raise AccelsimError(f"momentum of {name}: must be a finite number ≥ 0, got {magnitudes.get(name)!r}")
    greatest = max(scores.values())
    if greatest == 0:
        return dict.fromkeys(sizes, density)
    return _share(sizes, {name: max(score / greatest, LEAST_SCORE) for name, score in scores.items()}, density)


def group_axes(scope: str, axes: int) -> int:
    """How many leading axes of a tensor of `axes` axes number the groups of a scope; AccelsimError if unknown."""
    if scope not in SCOPES:
        raise AccelsimError(f"scope: must be one of {', '.join(SCOPES)}, got {scope!r}")
    return min(SCOPES[scope], 1 if axes <= 2 else 2, axes)


def _share(sizes: dict[str, int], scores: dict[str, float], density: float) -> dict[str, float]:
    """Densities with non-zeros ∝ scores (all positive), none above its layer's size, in all density·Σ sizes."""
    size = np.array([sizes[name] for name in sizes], float)
    score = np.array([scores[name] for name in sizes])
    full = np.zeros(len(size), bool)
    while not full.all():
        unit = max(0.0, density * size.sum() - size[full].sum()) / score[~full].sum()
        over = ~full & (unit * score > size)
        if not over.any():
            break
        full |= over
    share = np.ones(len(size)) if full.all() else np.where(full, 1.0, np.minimum(1.0, unit * score / size))
    return dict(zip(sizes, share.tolist(), strict=True))


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Elements by layer, shapes checked."""
    if not shapes:
        raise AccelsimError("shapes: must name a layer, got none")
    for name, shape in shapes.items():
        if not shape or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
            raise AccelsimError(f"shape of {name}: must be positive integers, got {shape!r}")
    return {name: prod(int(n) for n in shape) for name, shape in shapes.items()}


def _magnitude(values: np.ndarray) -> np.ndarray:
    """|values|, none of them NaN."""
    magnitude: np.ndarray = np.abs(np.asarray(values))
    if magnitude.dtype.kind == "f" and np.isnan(magnitude).any():
        raise AccelsimError("values: must be numbers, got NaN")
    return magnitude
