"""A job: what a circuit is given, what it is to compute, and how many cycles we count for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from accelsim.rtl.circuit import Circuit
from accelsim.workload.lowering import Convolution

NOTHING = np.empty((0, 8), np.uint8)  # the entries of a circuit without


@dataclass(frozen=True, eq=False)
class Job:
    """What lies between two barriers of a tile or a PE.

    Parameters
    ----------
    where : str
        Which one of its convolution.
    cycles : int
        Counted for it, without the pipeline's drain.
    lines, entries : ndarray of uint8, (lines or entries, bytes)
        What comes in, one after another.
    places : ndarray of int32
        The partial sums that the circuit is asked for.
    sums : ndarray of int64
        What they must be.
    shown : callable
        Its masks as text, for a job that differs.
    """

    where: str
    cycles: int
    lines: np.ndarray
    entries: np.ndarray
    places: np.ndarray
    sums: np.ndarray
    shown: Callable[[], str]


class Twin(Protocol):
    """A machine's circuit, and the jobs that a convolution gives it."""

    @property
    def circuit(self) -> Circuit:
        """What is built."""

    @property
    def strided_input_grad(self) -> str:
        """How strided input gradients are lowered: "phase" or "dilate"."""

    def lacks(self, which: str) -> str:
        """Why a pass has no circuit, in a line; "" where it has one."""

    def count(self, conv: Convolution) -> int:
        """Jobs of a convolution."""

    def jobs(self, conv: Convolution, chosen: np.ndarray, rng: np.random.Generator) -> Iterator[Job]:
        """Those of them with these numbers, which ascend."""


def numbers(values: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Integers of so many bits, zero where the values are: integers as they are where they fit, else drawn."""
    kind = np.dtype(f"int{bits}")
    if values.dtype.kind in "iu" and values.size and _holds(values, kind):
        return values.astype(kind)
    info = np.iinfo(kind)
    drawn = rng.integers(info.min, info.max + 1, values.shape, kind)
    drawn[drawn == 0] = 1
    drawn[values == 0] = 0
    return drawn


def _holds(values: np.ndarray, kind: np.dtype[np.signedinteger]) -> bool:
    """Whether all integers fit."""
    info = np.iinfo(kind)
    return int(values.min()) >= info.min and int(values.max()) <= info.max


def as_bytes(values: np.ndarray) -> np.ndarray:
    """(lines, …) integers → (lines, bytes), little-endian."""
    flat = np.ascontiguousarray(values.reshape(len(values), int(np.prod(values.shape[1:]))))
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8)


def marks(streams: np.ndarray) -> str:
    """(streams, lines, lanes) as text: a line a row, `#` where a value is not zero."""
    rows = streams.swapaxes(0, 1)
    return "\n".join(
        f"{t:4}  " + "  ".join("".join(".#"[int(x != 0)] for x in stream) for stream in line)
        for t, line in enumerate(rows)
    )
