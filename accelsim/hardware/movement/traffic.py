"""What a pass moves: each operand cut into the parts in which it travels, and the result as jobs complete it.

Accelerators say it in values, part by part and job by job; they know neither bytes nor memories.
``accelsim.hardware.movement.plan`` decides from it what is fetched when, and what stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from accelsim.workload.geometry import Geometry

ACTIVATIONS, WEIGHTS = "activation_memory", "weight_memory"
# The operand that is the result of the layer executed before, where there is one.
HANDED_ON = {"fwd": "activation", "input_grad": "gradient", "weight_grad": None}


@dataclass(frozen=True, eq=False)
class Operand:
    """One operand of a pass.

    Parameters
    ----------
    tensor : str
        "weight", "activation" or "gradient".
    buffer : str
        The PEs' buffers that it goes through: "weight" or "activation".
    values, nonzeros, placeholders : ndarray of int64, (parts,)
        Of each part: its values, those that are not zero, and the zeros that a run-length code has to spell out.
    part : ndarray of int64, (jobs,)
        The part that each job reads; −1 where it reads none.
    units : int
        Buffers over which a part is spread; 1 where each holds all of it.
    copies : int
        Buffers that hold the same values.
    streamed : ndarray of int64, (jobs,), optional
        Values that pass from memory to the PEs in a job when no buffer holds its part; by default the part, once.
    """

    tensor: str
    buffer: str
    values: np.ndarray
    nonzeros: np.ndarray
    placeholders: np.ndarray
    part: np.ndarray
    units: int
    copies: int
    streamed: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Traffic:
    """What one or more convolutions of a pass move.

    Parameters
    ----------
    job_cycles : ndarray of int64, (jobs,)
        Cycles of each job in execution order; no coarser than those of the ``Activity``.
    operands : tuple of Operand
    result : ndarray of int64, (jobs,)
        Values of the result that are complete when a job ends.
    spilled : ndarray of int64, (jobs,)
        Partial sums that a job leaves and no accumulator holds: written after it, read before the next.
    crossed : bool
        Whether every value of a part meets every value of the other operand's, so that one of the two must be held.
    sample : ndarray of int64, (jobs,), optional
        The sample that each job is for; None where jobs sum over samples.
    sums_leave : bool
        Whether sums over samples may go to memory before they are complete, and come back: where each is in one place
        and none is spilled.
    """

    job_cycles: np.ndarray
    operands: tuple[Operand, ...]
    result: np.ndarray
    spilled: np.ndarray
    crossed: bool = False
    sample: np.ndarray | None = None
    sums_leave: bool = False

    def of_sample(self, sample: int) -> Traffic:
        """The jobs of one sample."""
        assert self.sample is not None
        own = self.sample == sample
        operands = tuple(
            replace(o, part=o.part[own], streamed=None if o.streamed is None else o.streamed[own])
            for o in self.operands
        )
        columns = (column[own] for column in (self.job_cycles, self.result, self.spilled, self.sample))
        cycles, result, spilled, of = columns
        return Traffic(cycles, operands, result, spilled, self.crossed, of)


Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class LayerTraffic:
    """One pass of one layer; a plan is made from those of a pass in the order of their execution.

    ``turn`` is the sample whose jobs these are, where a sample goes through all layers before the next; else None.
    ``whole``: channels and places of the whole input and output of a layer of which this is a part of the places.
    """

    name: str
    which: str
    position: int
    geometry: Geometry
    samples: int
    batch: int
    accesses: Mapping[str, int]
    traffic: Traffic
    turn: int | None = None
    whole: tuple[Shape, Shape] | None = None

    @property
    def ends(self) -> tuple[Shape, Shape]:
        """Channels and places of its input and of its output; of the whole ones where it is a part."""
        g = self.geometry
        return self.whole or ((g.channels, g.height, g.width), (g.filters, *g.output))

    def feeds(self, other: LayerTraffic) -> bool:
        """Whether the other reads this one's result: its neighbour, if the shapes agree. A trace knows no graph."""
        forward = self.which == "fwd"
        first, second = (self.ends, other.ends) if forward else (other.ends, self.ends)
        same = first[1] == second[0]
        next_one = other.position - self.position == (1 if forward else -1)
        return same and next_one and HANDED_ON[self.which] is not None

    def of_sample(self, sample: int) -> LayerTraffic:
        """One sample's jobs; accesses are told with the first one's."""
        accesses = self.accesses if sample == 0 else dict.fromkeys(self.accesses, 0)
        return replace(self, turn=sample, accesses=accesses, traffic=self.traffic.of_sample(sample))

    @property
    def handed_on(self) -> Operand | None:
        """The operand that the layer executed before may have left on chip."""
        return next((o for o in self.traffic.operands if o.tensor == HANDED_ON[self.which]), None)

    @property
    def result_memory(self) -> str:
        """Where its result goes."""
        return WEIGHTS if self.which == "weight_grad" else ACTIVATIONS


def in_order(layers: Sequence[LayerTraffic], order: str) -> list[tuple[int, LayerTraffic]]:
    """The layers of a pass as the batch goes through them, each with its number: all samples of a layer, then the next;
    or, with ``order`` "sample", a sample through all layers, then the next.

    A weight gradient is a sum over samples, so its layers always have all of them at once.
    """
    numbered = list(enumerate(layers))
    if order == "layer" or any(layer.traffic.sample is None for layer in layers):
        return numbered
    most = max((layer.samples for layer in layers), default=0)
    return [(at, x.of_sample(turn)) for turn in range(most) for at, x in numbered if turn < x.samples]


@dataclass(frozen=True, eq=False)
class Parts:
    """Of each part: its values, those that are not zero, and the zeros that a run-length code has to spell out."""

    values: np.ndarray
    nonzeros: np.ndarray
    placeholders: np.ndarray

    @classmethod
    def of(cls, blocks: Iterable[np.ndarray]) -> Parts:
        """Counts values, (parts, values) a block, one block after another."""
        from accelsim.hardware.kernels.zero_runs import tally

        sizes, counts = [], []
        for block in blocks:
            sizes.append(np.full(len(block), block.shape[1], np.int64))
            counts.append(tally(block if block.dtype == bool else block != 0))
        nonzeros, spelled = zip(*counts, strict=True)
        return cls(np.concatenate(sizes), np.concatenate(nonzeros), np.concatenate(spelled))


def measured(
    tensor: str,
    buffer: str,
    blocks: Iterable[np.ndarray] | Parts,
    part: np.ndarray,
    *,
    units: int = 1,
    copies: int = 1,
    streamed: np.ndarray | None = None,
) -> Operand:
    """An operand from its values: ``blocks`` of shape (parts, values), one after another; or from what they count."""
    own = blocks if isinstance(blocks, Parts) else Parts.of(blocks)
    of_job = np.ascontiguousarray(part, np.int64)
    return Operand(tensor, buffer, own.values, own.nonzeros, own.placeholders, of_job, units, copies, streamed)


def joined(traffics: list[Traffic], *, shared: bool = False) -> Traffic:
    """Convolutions one after another.

    ``shared``: they are the stride phases of one input gradient, which read the same gradient; where it is cut alike
    its parts are the same parts. Groups of a convolution share nothing.
    """
    first, *others = traffics
    if not others:
        return first
    return Traffic(
        np.concatenate([traffic.job_cycles for traffic in traffics]),
        tuple(_joined(list(of_each), shared) for of_each in zip(*(t.operands for t in traffics), strict=True)),
        np.concatenate([traffic.result for traffic in traffics]),
        np.concatenate([traffic.spilled for traffic in traffics]),
        first.crossed,
        None if first.sample is None else np.concatenate([t.sample for t in traffics if t.sample is not None]),
        first.sums_leave,
    )


def _joined(operands: list[Operand], shared: bool) -> Operand:
    """One operand of convolutions one after another."""
    first, size, at = operands[0], 0, []
    begins: dict[int, int] = {}
    for operand in operands:
        # Phases that cut the gradient into as many parts have them in common.
        parts = operand.values.size
        at.append(begins.setdefault(parts, size) if shared and operand.tensor != "weight" else size)
        size = max(size, at[-1] + parts)
    counts = {name: np.zeros(size, np.int64) for name in ("values", "nonzeros", "placeholders")}
    for begin, operand in zip(at, operands, strict=True):
        for name, known in counts.items():
            own = known[begin : begin + operand.values.size]
            np.maximum(own, getattr(operand, name), out=own)  # what one phase reads may be cut at the border
    part = [np.where(o.part < 0, -1, o.part + begin) for begin, o in zip(at, operands, strict=True)]
    streamed = [o.streamed for o in operands if o.streamed is not None]
    return replace(
        first,
        part=np.concatenate(part),
        streamed=np.concatenate(streamed) if streamed else None,
        units=max(operand.units for operand in operands),
        copies=max(operand.copies for operand in operands),
        values=counts["values"],
        nonzeros=counts["nonzeros"],
        placeholders=counts["placeholders"],
    )
