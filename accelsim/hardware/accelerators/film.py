"""A film: what each multiplier does in each cycle of a replay, as the replay tells it. ``accelsim animate`` shows it.

A replay that is given a film appends the cycles of its schedule as it executes them. That the film's slots are those
that ``run`` counts is a law (``accelsim.laws``): what is seen is the schedule that is counted.
"""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from accelsim import ledger


@dataclass(frozen=True, eq=False)
class Watched:
    """What is in queues or windows meanwhile, beside the multipliers.

    Parameters
    ----------
    name : str
        Of what is watched, e.g. "queue".
    start : int
        The first cycle of the film that ``levels`` tells.
    levels : ndarray of uint8, (cycles, units, rows, columns)
        Of each place of each unit of ``Drawing``, or of one for all, how much is there.
    kind : "queue" or "window"
        Whether a level is a length, or of a value: 1 it waits, 2 it is taken.
    rows : int
        That belong together.
    """

    name: str
    start: int
    levels: np.ndarray
    kind: Literal["queue", "window"]
    rows: int


class Film:
    """Cycles of an array of multipliers, each with a cause; and notes of what is worked on meanwhile.

    Parameters
    ----------
    multipliers : int
        Of the array, in the order of ``Drawing``: unit by unit, in each row by row, column by column, lane by lane.
    """

    def __init__(self, multipliers: int):
        self.multipliers, self.cycles = multipliers, 0
        self.causes = ledger.names("slots")
        self.notes: list[tuple[int, str]] = []
        self.watched: list[Watched] = []
        self._code = {cause: np.uint8(code) for code, cause in enumerate(self.causes)}
        self._shots: list[np.ndarray] = []

    def __getitem__(self, cause: str) -> np.uint8:
        """What stands for a cause, a name of the ledger's, in frames."""
        return self._code[cause]

    def shoot(self, cycles: int, *shape: int, cause: str, note: str = "") -> np.ndarray:
        """Appends so many cycles in which all multipliers are lost to ``cause``, to be overwritten where they are not.

        Parameters
        ----------
        cycles : int
        *shape : int
            Of the array; its product is ``multipliers``.
        cause : str
        note : str
            What is worked on, until the next note.

        Returns
        -------
        ndarray of uint8, (cycles, \\*shape)
            A view that writes to the film.
        """
        shot = np.full((cycles, *shape), self[cause], np.uint8)
        assert shot.size == cycles * self.multipliers, (shape, self.multipliers)
        if note and cycles and (not self.notes or self.notes[-1][1] != note):
            self.notes.append((self.cycles, note))
        self._shots.append(shot.reshape(cycles, self.multipliers))
        self.cycles += cycles
        self.__dict__.pop("frames", None)
        return shot

    def watch(self, name: str, levels: np.ndarray, kind: Literal["queue", "window"] = "queue", rows: int = 1) -> None:
        """Tells what is in queues or windows in the last cycles shot; see ``Watched``."""
        self.watched.append(Watched(name, self.cycles - len(levels), levels.astype(np.uint8), kind, rows))

    @cached_property
    def frames(self) -> np.ndarray:
        """All of it: (cycles, multipliers), an index of ``causes`` each."""
        empty = np.empty((0, self.multipliers), np.uint8)
        return np.concatenate([empty, *self._shots])

    def slots(self) -> dict[str, int]:
        """How many slots each cause has, of those that have any."""
        found: Counter[str] = Counter()
        for shot in self._shots:
            counts = np.bincount(shot.ravel(), minlength=len(self.causes)).tolist()
            found.update({cause: count for cause, count in zip(self.causes, counts, strict=True) if count})
        return dict(found)


def is_filmed(accelerator: Any) -> bool:
    """Whether an accelerator's replay tells its slots cycle by cycle; older ones, and some strangers', do not."""
    return "film" in inspect.signature(accelerator.replay).parameters
