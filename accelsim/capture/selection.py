"""What of a recorded step is kept: which samples of which layers, as masks or as numbers."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from accelsim.capture import quantise
from accelsim.capture.quantise import Scales, Values
from accelsim.errors import TraceError


@dataclass(frozen=True)
class Selection:
    """What to keep of each recorded step; the rest is counted.

    Parameters
    ----------
    samples : int or sequence of int
        How many samples of the batch (fewer, where it has fewer), or which.
    seed : int, optional
        Draw so many at random, anew in each step, instead of the first ones. The trace's provenance says which.
    values : bool or str
        Store numbers, as float16, bfloat16 or float32 (to which float64 is rounded), instead of masks. "int8", "int16":
        integers in proportion to the greatest magnitude; "bf16": bfloat16; "as_trained": as True.
    scales : str
        Of these integers: "tensor", or "channel", where each filter of the weights has its own.
    places : int, optional
        Of each sample at most so many tokens of a sequence or places of a map, spread evenly, or with ``seed`` drawn;
        by default all. The trace says of which layers it has a part, and what is simulated of it is scaled to all.
    layers, skip : str or iterable of str
        Patterns of the names, as in ``model.named_modules()``, of the layers to record and to leave out.
    calls : int, optional
        Record at most so many calls of a layer in a step, by default all. With gradient accumulation, 1 records the
        first micro-batch only.
    allow_nan : bool
        Record NaN, as non-zero, instead of refusing it.
    level : int, optional
        Of deflate, 0 (fastest, nothing is compressed) to 9 (small); by default 6 for masks and integers, and 0 for
        numbers, whose compression takes longer than many a training step.

    Raises
    ------
    TraceError
        If a value makes no sense.
    """

    samples: int | Sequence[int] = 1
    seed: int | None = None
    values: bool | Values = False
    scales: Scales = "tensor"
    places: int | None = None
    layers: str | Iterable[str] = "*"
    skip: str | Iterable[str] = ()
    calls: int | None = None
    allow_nan: bool = False
    level: int | None = None

    def __post_init__(self) -> None:
        quantise.check(self.values, self.scales)
        for name in ("layers", "skip"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        if not isinstance(self.samples, int):
            object.__setattr__(self, "samples", _checked(self.samples))
        if isinstance(self.samples, int) and (self.samples < 1 or isinstance(self.samples, bool)):
            raise TraceError(f"samples: {SAMPLES}; got {self.samples!r}")
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0 or not isinstance(self.samples, int)):
            rule = "must be an integer from 0, and samples a number of them"
            raise TraceError(f"seed: {rule}; got {self.seed!r} with samples {self.samples!r}")
        for name in ("places", "calls"):
            most = getattr(self, name)
            if most is not None and (type(most) is not int or most < 1):
                raise TraceError(f"{name}: must be an integer from 1 or None, got {most!r}")
        if self.level is not None and self.level not in range(10):
            raise TraceError(f"level: must be 0…9, got {self.level!r}")

    @property
    def deflate_level(self) -> int:
        """Of the file."""
        if self.level is not None:
            return self.level
        return 0 if self.values and self.values not in quantise.BITS else 6

    def wants(self, name: str) -> bool:
        """Whether a product of that name is to be recorded, by its name or that of its module."""
        names = {name, name.partition(":")[0]}
        return any(_matches(n, self.layers) for n in names) and not any(_matches(n, self.skip) for n in names)

    def of(self, batch: int, step: int) -> tuple[int, ...]:
        """The samples to keep of a batch of that size; none, where none of those asked for is in it."""
        if not isinstance(self.samples, int):
            return tuple(sample for sample in self.samples if sample < batch)
        count = min(self.samples, batch)
        if self.seed is None:
            return tuple(range(count))
        drawn = np.random.default_rng([self.seed, step]).choice(batch, count, replace=False)
        return tuple(sorted(int(sample) for sample in drawn))

    def check_batch(self, batch: int) -> None:
        """TraceError if a sample that was asked for is not in a batch of that size."""
        if not isinstance(self.samples, int) and max(self.samples) >= batch:
            raise TraceError(f"samples: must be below the batch's size {batch}, got {max(self.samples)}")


SAMPLES = "must be an integer from 1, or different integers from 0"


def _checked(samples: Sequence[int]) -> tuple[int, ...]:
    try:
        chosen = tuple(operator.index(sample) for sample in samples)
    except TypeError:
        chosen = ()
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        raise TraceError(f"samples: {SAMPLES}; got {samples!r}")
    return chosen


def _matches(name: str, patterns: str | Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
