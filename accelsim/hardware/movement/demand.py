"""What a pass asks of memories and buffers, in bytes: its values in the formats in which they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from accelsim.hardware.hierarchy import Buffers, Memory
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
    weight_share: tuple[int, int] = (1, 1)

    @cached_property
    def all_results_bytes(self) -> int:
        """Bytes of the result of the samples that its jobs are for."""
        return int(self.result_bytes.sum())

    @cached_property
    def largest_result_bytes(self) -> int:
        """The most that a job completes."""
        return int(self.result_bytes.max(initial=0))

    @cached_property
    def most_spilled_bytes(self) -> int:
        """The most partial sums that a job leaves."""
        return int(self.spilled_bytes.max(initial=0))


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
    made = []
    resident = any(layer.turn is not None for layer in layers) and _weights_stay(memory, layers)
    for index, layer in enumerate(layers):
        before, after = (layers[at] if 0 <= at < len(layers) else None for at in (index - 1, index + 1))
        fed = before is not None and before.feeds(layer)
        handed_on = [operand is layer.handed_on for operand in layer.traffic.operands]
        made.append(
            LayerDemand(
                layer.name,
                tuple(OperandDemand.of(operand, memory) for operand in layer.traffic.operands),
                layer.result_memory,
                _result_bytes(memory, layer, after if after is not None and layer.feeds(after) else None),
                memory.partial_bytes(layer.traffic.spilled),
                handed_on.index(True) if fed and any(handed_on) else -1,
                layer.traffic.crossed,
                *((layer.samples, layer.batch) if layer.turn is None else (1, 1)),
                _weight_share(layer, resident=resident),
            )
        )
    return tuple(made)


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
        stored = int(memory.stored_bytes(operand).sum())
        dense = int(memory.value_bytes(operand.values).sum())
        if dense:  # else the next layer sees nothing but its padding
            return -(-sizes * stored // dense)
    if layer.which == "weight_grad":
        return -(-sizes * layer.samples // layer.batch)
    return sizes
