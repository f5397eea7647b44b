"""What every accelerator must obey, and ``check``, which tries one on small layers of every kind.

    >>> import accelsim
    >>> accelsim.laws.check(accelsim.load_machine("bit-tactical.yaml").accelerator, layers=2)

A machine that breaks a law gets a ``LawError`` with the smallest layer found. docs/your_machine.md.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from accelsim.errors import AccelsimError, MachineError, printable
from accelsim.hardware.accelerators.base import Accelerator
from accelsim.hardware.accelerators.catalogue import refuse_incomplete
from accelsim.laws.each import LAWS, OF_MACHINE, OF_TRIAL, saves
from accelsim.laws.trial import Trial, Unaccountable
from accelsim.workload import random_layers
from accelsim.workload.lowering import PASSES, READS
from accelsim.workload.trace import Layer

__all__ = ["LAWS", "LawError", "check"]

LAYERS = 100
SECONDS = 25.0


class LawError(AccelsimError):
    """A machine breaks a law.

    Parameters
    ----------
    law : str
        One of ``LAWS``.
    what : str
        How, in a sentence.
    layer, which : Layer and str, optional
        The smallest layer found, and the pass; None where it is no layer's.
    """

    def __init__(self, law: str, what: str, layer: Layer | None = None, which: str | None = None):
        self.law, self.what, self.layer, self.which = law, what, layer, which
        at = "" if layer is None or which is None else f"; in {which} of {random_layers.said(layer, READS[which])}"
        super().__init__(printable(f"law {law}: {LAWS[law]}, but {what}{at}"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.law, self.what, self.layer, self.which)


def check(accelerator: Accelerator, *, layers: int = LAYERS, seed: int = 0, seconds: float = SECONDS) -> None:
    """Holds an accelerator to every law of ``LAWS``.

    Parameters
    ----------
    accelerator : Accelerator
        Small sizes show most: a tile of 2 × 2 has edges that one of 16 × 16 hides.
    layers : int
        How many are tried, in all three passes: one of each kind (strided, dilated, grouped, …), then random ones.
    seed : int
        Of the layers.
    seconds : float
        After which no more are tried; those of each kind always are. What fails is shrunk for as long at most.

    Raises
    ------
    LawError
        If one is broken: the first, with the smallest layer found, and how.
    ConfigError
        If it lacks a piece of an accelerator.
    """
    refuse_incomplete(type(accelerator))
    for law, of_machine in OF_MACHINE.items():
        for what in of_machine(accelerator):
            raise LawError(law, what)
    until, ran, saved = time.monotonic() + seconds, set(), set()
    for number, layer in enumerate(random_layers.layers(layers, seed)):
        if number >= len(random_layers.KINDS) and time.monotonic() > until:
            break
        for which in PASSES:
            trial = Trial(accelerator, layer, which)
            if broken := _broken(trial):
                raise _smallest(trial, broken[0], seconds)
            if not trial.is_refused:
                ran.add(which)
                saved |= {(which, name) for name in trial.skips if saves(trial, name)}
    for which in PASSES:
        if which not in ran:
            raise LawError("runs", f"every {which} is refused")
        unsaved = [name for name in accelerator.skips(which) if (which, name) not in saved]
        if unsaved and layers >= len(random_layers.KINDS):
            raise LawError("saves", f"zeros of the {unsaved[0]} saved no cycle of any {which}")


def _broken(trial: Trial) -> tuple[str, str] | None:
    """The first law that a trial breaks, and how; a layer that the machine refuses breaks none."""
    for law in OF_TRIAL:
        if found := _breaks(trial, law):
            return found
    return None


def _breaks(trial: Trial, law: str) -> tuple[str, str] | None:
    """How a trial breaks a law, or one that shows wherever it is run."""
    try:
        what = next(OF_TRIAL[law](trial), None)
    except MachineError:
        return None
    except Unaccountable as error:
        said = str(error).splitlines()[0]
        return "accesses" if "an accelerator's accesses" in said else "slots", said
    except Exception as error:  # whatever a model may raise
        return "runs", f"{type(error).__name__}: {error}"
    return None if what is None else (law, what)


def _smallest(trial: Trial, law: str, seconds: float) -> LawError:
    """The error with the smallest layer that breaks the same law."""

    def broken(layer: Layer) -> str | None:
        smaller = replace(trial, layer=layer)
        found = _broken(smaller) if law == "runs" else _breaks(smaller, law)
        return found[1] if found and found[0] == law else None

    smallest = random_layers.shrunk(trial.layer, lambda layer: broken(layer) is not None, seconds)
    return LawError(law, broken(smallest) or "not every time", smallest, trial.which)
