"""Parts and jobs: what a pass moves, before it is known through which buffers and memories."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass
class Part:
    """Values, those that are not zero, and zeros that a run-length code spells out."""

    values: int
    nonzeros: int
    spelled: int

    @classmethod
    def of(cls, mask: np.ndarray) -> Part:
        """Of a mask whose elements lie in memory in this order."""
        run = spelled = 0
        for there in mask.ravel().tolist():
            if there:
                spelled, run = spelled + run // 16, 0
            else:
                run += 1
        return cls(mask.size, int(mask.sum()), spelled)

    def larger(self, other: Part) -> Part:
        return Part(*(max(getattr(self, n), getattr(other, n)) for n in ("values", "nonzeros", "spelled")))

    def stored_bytes(self, form: str, bits: int) -> int:
        """docs/memory.md, formats."""
        size = {
            "dense": self.values * bits,
            "bitmask": self.values + self.nonzeros * bits,
            "run_length": (self.nonzeros + self.spelled) * (bits + 4),
            "zvc": -(-self.values // 32) * 32 + self.nonzeros * bits,
        }[form]
        return bytes_of(size, 1)


def bytes_of(count: int, bits: int) -> int:
    """Whole bytes of so many values of so many bits."""
    return -(-count * bits // 8)


@dataclass
class Operand:
    """Parts, and for each job the part that it reads (or None) and the values that pass if no buffer holds it.

    ``passing`` None: the part as it is stored.
    """

    tensor: str
    buffer: str
    units: int
    copies: int
    parts: list[Part] = field(default_factory=list)
    uses: list[int | None] = field(default_factory=list)
    passing: list[int] | None = None


@dataclass
class Moved:
    """What convolutions move and count: operands, and for each job values of the result and partial sums spilled.

    ``sample``: the one that each job is for; None where jobs sum over samples.
    """

    operands: list[Operand]
    results: list[int]
    spilled: list[int]
    crossed: bool
    counts: dict[str, int]
    sample: list[int] | None = None

    def of_sample(self, sample: int) -> Moved:
        """Its jobs alone."""
        jobs = [job for job, of in enumerate(self.sample) if of == sample]
        own = lambda column: column and [column[job] for job in jobs]  # noqa: E731
        operands = [replace(o, uses=own(o.uses), passing=own(o.passing)) for o in self.operands]
        return replace(self, operands=operands, results=own(self.results), spilled=own(self.spilled))


def one_after_another(all_moved: list[Moved], phases: bool = False) -> Moved:
    """Groups share nothing. Stride phases have the gradient in common: with as many parts, they are the same parts."""
    first = all_moved[0]
    operands = []
    for number, operand in enumerate(first.operands):
        of_each = [moved.operands[number] for moved in all_moved]
        units, copies = max(o.units for o in of_each), max(o.copies for o in of_each)
        whole = Operand(operand.tensor, operand.buffer, units, copies)
        whole.passing = None if operand.passing is None else [n for o in of_each for n in o.passing]
        begins: dict[int, int] = {}
        for own in of_each:
            begin = len(whole.parts)
            if phases and own.tensor == "gradient":
                begin = begins.setdefault(len(own.parts), begin)
            for at, part in enumerate(own.parts, start=begin):
                if at < len(whole.parts):
                    whole.parts[at] = whole.parts[at].larger(part)
                else:
                    whole.parts.append(part)
            whole.uses += [None if use is None else begin + use for use in own.uses]
        operands.append(whole)
    return Moved(
        operands,
        [n for moved in all_moved for n in moved.results],
        [n for moved in all_moved for n in moved.spilled],
        first.crossed,
        {name: sum(moved.counts[name] for moved in all_moved) for name in first.counts},
        None if first.sample is None else [n for moved in all_moved for n in moved.sample],
    )
