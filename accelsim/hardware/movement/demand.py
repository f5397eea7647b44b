"""What a pass asks of memories and buffers, in bytes: its values in the formats in which they are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from accelsim.hardware.hierarchy import Buffers, Memory
from accelsim.hardware.movement.residency import Moves
from accelsim.hardware.movement.traffic import ACTIVATIONS, WEIGHTS, LayerTraffic, Operand


@dataclass(frozen=True, eq=False)
class OperandDemand:
    """One operand of a layer.

    Parameters
    ----------
    tensor, buffer, memory : str
        What it is, the PEs' buffers that it goes through ("activation" or "weight"), and the memory before them.
    part : ndarray of int64, (jobs,)
        The part that each job reads; −1 where it reads none.
    stored_bytes, inside_bytes : ndarray of int64, (parts,)
        Bytes of each part off chip and in memory; in a buffer.
    streamed_bytes : ndarray of int64, (jobs,)
        What a job reads from memory if no buffer holds its part.
    """

    tensor: str
    buffer: str
    memory: str
    part: np.ndarray
    stored_bytes: np.ndarray
    inside_bytes: np.ndarray
    streamed_bytes: np.ndarray

    @classmethod
    def of(cls, operand: Operand, memory: Memory) -> OperandDemand:
        """From an operand in values."""
        stored = memory.stored_bytes(operand)
        passing = stored[operand.part] if operand.streamed is None else memory.value_bytes(operand.streamed)
        streamed = np.where(operand.part < 0, 0, passing)
        place = WEIGHTS if operand.tensor == "weight" else ACTIVATIONS
        return cls(
            operand.tensor, operand.buffer, place, operand.part, stored, -(-stored // operand.units), streamed
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class LayerDemand:
    """One pass of one layer.

    Parameters
    ----------
    name : str
    operands : tuple of OperandDemand
    result_memory : str
        Where its result goes.
    result_bytes : ndarray of int64, (jobs,)
        Bytes of the result that each job completes.
    spilled_bytes : ndarray of int64, (jobs,)
        Partial sums that a job leaves for the next one and no accumulator holds.
    reads_result : int
        Which operand is the result of the layer before; −1 if none.
    crossed : bool
        Whether every value of a part meets every value of the other operand's, so that a buffer must hold one.
    samples, batch : int
        Samples that its jobs are for, and how many there are before the next layer begins.
    summed : tuple of int
        Where jobs sum over the batch: samples that parts and results are a share of, and all of them.
    sums_bytes : int
        All partial sums, where they leave after these samples and come back for the next ones: ``spilled_bytes`` is the
        share of a job's, loaded before it and stored after it. 0 where they stay until all samples have come.
    in_groups : LayerDemand, optional
        The same where sums leave, if that may be.
    weight_share : tuple of int
        Of each fetch of weights so much is moved, numerator and denominator.
    """

    name: str
    operands: tuple[OperandDemand, ...]
    result_memory: str
    result_bytes: np.ndarray
    spilled_bytes: np.ndarray
    reads_result: int = -1
    crossed: bool = False
    samples: int = 1
    batch: int = 1
    summed: tuple[int, int] = (1, 1)
    weight_share: tuple[int, int] = (1, 1)
    sums_bytes: int = 0
    in_groups: LayerDemand | None = None

    @cached_property
    def all_results_bytes(self) -> int:
        """Bytes of the result of the samples that its jobs are for."""
        return self.of_batch(int(self.result_bytes.sum()))

    @cached_property
    def largest_result_bytes(self) -> int:
        """The most that a job completes."""
        return self.of_batch(int(self.result_bytes.max(initial=0)))

    @cached_property
    def most_spilled_bytes(self) -> int:
        """The most partial sums that are in memory at once."""
        return self.sums_bytes or int(self.spilled_bytes.max(initial=0))

    @property
    def together(self) -> tuple[int, int]:
        """Samples that parts are of, and those whose parts come between two jobs: all, unless sums leave first."""
        return (1, 1) if self.sums_bytes else self.summed

    def of_batch(self, share: int) -> int:
        """Bytes of all samples that jobs sum over, rounded up, of the share of some."""
        return -(-share * self.summed[1] // self.summed[0])

    def held_bytes(self, sizes: np.ndarray, moves: Moves) -> np.ndarray:
        """What is held of each move's part, of so many bytes: of all samples that jobs sum over, if for another job."""
        own, (some, every) = sizes[moves.part], self.together
        held: np.ndarray = np.where(moves.until > moves.job, -(-own * every // some), own)
        return held


@dataclass(frozen=True)
class Capacities:
    """Bytes of the memories and of the buffers in each PE or tile, and the pieces in which results leave."""

    memories: tuple[tuple[str, int], ...]
    buffers: tuple[tuple[str, int], ...]
    piece_bytes: int

    @classmethod
    def of(cls, memory: Memory, buffers: Buffers, piece_bytes: int) -> Capacities:
        """Those of a machine."""
        of_pes = ("activation", buffers.activation.capacity_bytes), ("weight", buffers.weight.capacity_bytes)
        sizes = memory.activation_memory.capacity_bytes, memory.weight_memory.capacity_bytes
        return cls(((ACTIVATIONS, sizes[0]), (WEIGHTS, sizes[1])), of_pes, piece_bytes)


def demands(memory: Memory, layers: list[LayerTraffic]) -> tuple[LayerDemand, ...]:
    """Of the layers of a pass, in the order of their execution."""
    resident = any(layer.turn is not None for layer in layers) and _weights_stay(memory, layers)
    made = []
    for index, layer in enumerate(layers):
        before, after = (layers[at] if 0 <= at < len(layers) else None for at in (index - 1, index + 1))
        made.append(_demand(memory, layer, before, after, _weight_share(layer, resident=resident)))
    return tuple(made)


def _demand(
    memory: Memory,
    layer: LayerTraffic,
    before: LayerTraffic | None,
    after: LayerTraffic | None,
    weight_share: tuple[int, int],
) -> LayerDemand:
    fed = before is not None and before.feeds(layer)
    handed_on = [operand is layer.handed_on for operand in layer.traffic.operands]
    of_batch, sums = (layer.samples, layer.batch), layer.which == "weight_grad"
    demand = LayerDemand(
        layer.name,
        tuple(OperandDemand.of(operand, memory) for operand in layer.traffic.operands),
        layer.result_memory,
        _result_bytes(memory, layer, after if after is not None and layer.feeds(after) else None),
        memory.partial_bytes(layer.traffic.spilled),
        handed_on.index(True) if fed and any(handed_on) else -1,
        layer.traffic.crossed,
        *((1, 1) if sums or layer.turn is not None else of_batch),
        of_batch if sums else (1, 1),
        weight_share,
    )
    partial = memory.partial_bytes(layer.traffic.result)
    if not (sums and layer.traffic.sums_leave and layer.samples < layer.batch and partial.any()):
        return demand
    share = -(-partial * (layer.batch - layer.samples) // layer.batch)
    return replace(demand, in_groups=replace(demand, spilled_bytes=share, sums_bytes=int(partial.sum())))


def _weights_stay(memory: Memory, layers: list[LayerTraffic]) -> bool:
    """Whether the weights of all layers stay in their memory from sample to sample: where there is room for all."""
    weights = [o for x in layers if not x.turn for o in x.traffic.operands if o.tensor == "weight"]
    sizes = (memory.stored_bytes(o)[np.unique(o.part[o.part >= 0])].sum() for o in weights)
    return bool(sum(sizes) <= memory.weight_memory.capacity_bytes)


def _weight_share(layer: LayerTraffic, *, resident: bool) -> tuple[int, int]:
    """Weights come once a batch, of which these are some samples; or with each sample, if they do not stay."""
    if layer.turn is not None and not resident:
        return 1, 1
    return (0, 1) if layer.turn else (layer.samples, layer.batch)


def _result_bytes(memory: Memory, layer: LayerTraffic, reader: LayerTraffic | None) -> np.ndarray:
    """Bytes of the result that each job completes: as the next layer stores them where one reads it, else dense."""
    sizes = memory.value_bytes(layer.traffic.result)
    operand = reader.handed_on if reader is not None else None
    if operand is not None:
        read = np.unique(operand.part[operand.part >= 0])  # by this sample, where one goes through all layers
        stored = int(memory.stored_bytes(operand)[read].sum())
        dense = int(memory.value_bytes(operand.values)[read].sum())
        if dense:  # else the next layer sees nothing but its padding
            return -(-sizes * stored // dense)
    if layer.which == "weight_grad":
        return -(-sizes * layer.samples // layer.batch)
    return sizes
