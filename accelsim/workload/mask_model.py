"""A statistical model of a mask: what a real one is like, and masks like it at any density.

A tensor (A, B, H, W) is cut out of a Gaussian field at a threshold. Each index of axis 0 (filters of a weight, samples
of an activation), each of axis 1 (channels) and each place (H, W) moves the threshold by an offset of its own, fitted
to the densities counted there; places next to each other are correlated so that they are non-zero together as often as
in the real mask. Masks of one seed at growing sparsities are nested, as Top-K's are.

Offsets may grow with the threshold, so that a mask drawn at another density than the fit's is like one there. Of
weights an offset is a factor on magnitudes: a filter with weights half as large again has a few non-zeros more than
others at 50 %, and several times as many at 98 %. How offsets of activations grow is seen where the activation and its
Top-K are both known, two cuts of one field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt

import numpy as np
import numpy.typing as npt

SWEEPS = 4  # over the margins of a fit; offsets move by less than 0.01 afterwards
PAIRS = 1 << 15  # neighbours that the correlation is fitted on
STRONGEST = 0.98  # correlation of neighbours
# What a factor on magnitudes moves a threshold z by, in standard deviations: its logarithm × 2 t φ(t) / φ(z), the share
# above z being that of |x| above t. From 50 % to 98 % zeros that is 1.05 + 0.71 z within 3 %.
OF_MAGNITUDES = 0.71 / 1.05
LEAST_APART = 0.3  # of two thresholds, for growth to be seen between them
GROWTH = (-0.3, 1.0)  # what is believed of a growth that was seen
STEEPEST = 0.8  # of how much a position's threshold follows the mask's
# The Gaussian distribution function by its tanh approximation, within 0.0002, and its inverse by this table.
_GRID = np.linspace(-5, 5, 4001)


def _below(x: np.ndarray) -> np.ndarray:
    """The share of a standard Gaussian below x."""
    share: np.ndarray = 0.5 * (1 + np.tanh(0.7978846 * (x + 0.044715 * x * x * x)))
    return share


_SHARES = _below(_GRID)


def _quantile(share: npt.ArrayLike) -> np.ndarray:
    return np.asarray(np.interp(np.asarray(share), _SHARES, _GRID))


@dataclass(frozen=True, eq=False)
class MaskModel:
    """What masks are drawn from.

    Parameters
    ----------
    density : float
        The share of non-zeros.
    first, second : ndarray, (A,) and (B,)
        Offsets of the indices of axes 0 and 1, in standard deviations of the field: positive is denser.
    places : ndarray, (H, W)
        Offsets of places.
    correlation : (float, float)
        Of the field between places one below the other, and side by side.
    growth : (float, float, float)
        Of the offsets of axis 0, of axis 1 and of places: what part of an offset comes on for each standard deviation
        that the threshold lies above the fit's.
    """

    density: float
    first: np.ndarray
    second: np.ndarray
    places: np.ndarray
    correlation: tuple[float, float] = (0.0, 0.0)
    growth: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def uniform(cls, density: float) -> MaskModel:
        """Every position alike and on its own."""
        return cls(density, np.zeros(1), np.zeros(1), np.zeros((1, 1)))

    @classmethod
    def fit(cls, mask: np.ndarray, seed: int = 0) -> MaskModel:
        """The model of a real mask, (A, B, H, W) of bool."""
        density = float(mask.mean())
        offsets = [np.zeros(mask.shape[0]), np.zeros(mask.shape[1]), np.zeros(mask.shape[2:])]
        if density in (0.0, 1.0):
            return cls(density, offsets[0], offsets[1], offsets[2])
        margins = [(mask.mean(axis=axes), axes) for axes in ((1, 2, 3), (0, 2, 3), (0, 1))]
        targets = [_without_noise(share, mask.size // share.size, density) for share, _ in margins]
        base = np.float32(_quantile(density))
        for _ in range(SWEEPS):
            for number, (share, axes) in enumerate(margins):
                if share.size > 1:
                    now = _below(_threshold(base, offsets)).mean(axis=axes, dtype=np.float64)
                    offsets[number] = offsets[number] + _quantile(targets[number]) - _quantile(now)
        threshold = _threshold(base, offsets)
        rng = np.random.default_rng(seed)
        below, beside = (_correlation(mask, threshold, axis, rng) for axis in (2, 3))
        return cls(density, offsets[0], offsets[1], offsets[2], (below, beside))

    has_zeros = False  # no position is zero whatever the sparsity
    is_divisible = True

    def scores(
        self,
        shape: tuple[int, int, int, int],
        rng: np.random.Generator,
        block: tuple[slice, slice, slice] | None = None,
    ) -> np.ndarray:
        """A draw of the field, offsets added: the greatest of the scores are the non-zeros.

        Where the shape is not the model's, offsets of axes 0 and 1 are drawn from its, places taken from the nearest.
        Of a block, a part of axes 0, 1 and 2, the offsets are those that the whole has.
        """
        if block is None:
            offsets = (
                _resampled(self.first, shape[0], rng),
                _resampled(self.second, shape[1], rng),
                _nearest(self.places, shape[2:]),
            )
            return self._scores(offsets, shape, rng)
        same = np.random.default_rng(prod(shape) % (1 << 32))  # for all blocks of a tensor
        first, second = _resampled(self.first, shape[0], same), _resampled(self.second, shape[1], same)
        offsets = first[block[0]], second[block[1]], _nearest(self.places, shape[2:])[block[2]]
        height, width = offsets[2].shape
        sizes = offsets[0].size, offsets[1].size, height, width
        return self._scores(offsets, sizes, rng)

    def _scores(
        self, offsets: Sequence[np.ndarray], shape: tuple[int, int, int, int], rng: np.random.Generator
    ) -> np.ndarray:
        """Above a threshold z where the field and offsets are, grown by ``growth`` · (z − the fit's)."""
        field = _field(shape, self.correlation, rng)
        field += _threshold(np.float32(0), offsets)
        if any(self.growth):
            fitted = np.float32(self.threshold)
            grown = [growth * offset for growth, offset in zip(self.growth, offsets, strict=True)]
            slope = np.minimum(_threshold(np.float32(0), grown), np.float32(STEEPEST))
            field = fitted + (field - fitted) / (1 - slope)
        return field

    @property
    def threshold(self) -> float:
        """Above which so much of the field lies as the mask has non-zeros."""
        return -float(_quantile(self.density))

    def of_magnitudes(self) -> MaskModel:
        """The same mask at its own density, of magnitudes on which offsets are factors."""
        growth = OF_MAGNITUDES / max(0.25, 1 + OF_MAGNITUDES * self.threshold)
        return replace(self, growth=(growth, growth, growth))

    def growing_from(self, denser: MaskModel) -> MaskModel:
        """The same mask at its own density, with the growth that is seen from a denser one of the same tensor."""
        apart = self.threshold - denser.threshold
        if apart < LEAST_APART:
            return self
        growth = []
        pairs = (self.first, denser.first), (self.second, denser.second), (self.places, denser.places)
        for here, there in pairs:
            square = float((here * here).sum())
            seen = (1 - float((here * there).sum()) / square) / apart if square else 0.0
            growth.append(min(max(seen, GROWTH[0]), GROWTH[1]))
        return replace(self, growth=(growth[0], growth[1], growth[2]))

    def count(self, size: int) -> int:
        """How many of so many positions are non-zero at the model's own density."""
        return round(self.density * size)


def greatest(scores: np.ndarray, count: int) -> np.ndarray:
    """The mask of the `count` greatest scores; of equal ones the first in C order."""
    flat = scores.reshape(-1)
    if count <= 0 or count >= flat.size:
        return np.full(scores.shape, count > 0)
    edge = np.partition(flat, flat.size - count)[flat.size - count]
    mask: np.ndarray = flat > edge
    ties = flat == edge
    mask[np.flatnonzero(ties)[: count - np.count_nonzero(mask)]] = True
    return mask.reshape(scores.shape)


def pair_density(mask: np.ndarray, axis: int) -> float:
    """How often a place and the next along an axis (2: below, 3: to the right) are both non-zero; 0 with no next."""
    here, there = _neighbours(mask, axis)
    return float((here & there).mean()) if here.size else 0.0


def _neighbours(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    if axis == 2:
        return array[:, :, :-1], array[:, :, 1:]
    return array[..., :-1], array[..., 1:]


def _threshold(base: np.float32, offsets: Sequence[np.ndarray]) -> np.ndarray:
    first, second, places = (np.asarray(offset, np.float32) for offset in offsets)
    return np.asarray((base + first[:, None] + second)[..., None, None] + places)


def _without_noise(share: np.ndarray, count: int, density: float) -> np.ndarray:
    """Densities counted over `count` positions each, pulled together by as much as a draw spreads them again."""
    spread = share.var()
    noise = density * (1 - density) / count
    shrunk = density + sqrt(max(0.0, 1 - noise / spread)) * (share - density) if spread > 0 else share
    return np.clip(shrunk, 0.5 / count, 1 - 0.5 / count)


def _correlation(mask: np.ndarray, threshold: np.ndarray, axis: int, rng: np.random.Generator) -> float:
    """The field's correlation of neighbours that makes them non-zero together as often as in the mask, by bisection."""
    here, there = (part.reshape(-1) for part in _neighbours(threshold, axis))
    if not here.size:
        return 0.0
    alone = float((_below(here) * _below(there)).mean(dtype=np.float64))
    wanted = pair_density(mask, axis) - alone
    picked = rng.integers(0, here.size, min(PAIRS, here.size * 8))
    here, there = here[picked].astype(float), there[picked].astype(float)
    noise = _quantile(rng.random(picked.size))
    lit = noise < here
    low, high = -STRONGEST, STRONGEST
    for _ in range(16):
        middle = (low + high) / 2
        together = np.where(lit, _below((there - middle * noise) / sqrt(1 - middle * middle)) - _below(there), 0.0)
        low, high = (middle, high) if together.mean() < wanted else (low, middle)
    return (low + high) / 2


def _field(shape: tuple[int, int, int, int], correlation: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Standard Gaussians; neighbours below and beside are correlated, those further apart by the product."""
    field = rng.standard_normal(shape, np.float32)
    down, right = correlation
    if down:
        for row in range(1, shape[2]):
            field[:, :, row] = down * field[:, :, row - 1] + sqrt(1 - down * down) * field[:, :, row]
    if right:
        for column in range(1, shape[3]):
            field[..., column] = right * field[..., column - 1] + sqrt(1 - right * right) * field[..., column]
    return field


def _resampled(offsets: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return offsets if offsets.size == size else rng.choice(offsets, size)


def _nearest(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape, places.shape, strict=True))
    return places[np.ix_(rows, columns)]
