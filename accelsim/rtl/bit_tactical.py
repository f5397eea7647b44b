"""Bit-Tactical's tile as a circuit: it replays the schedule that a set of rows was given beforehand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.lines import to_words
from accelsim.hardware.machine import Machine
from accelsim.rtl.circuit import Circuit, packed, value_bits
from accelsim.rtl.job import Job, as_bytes, numbers
from accelsim.rtl.tiles import TileJobs, pe_parameters, shown, summed

EXECUTE = 128  # in an entry's first byte; below it the lines by which the window moves on


class BitTacticalTwin(TileJobs):
    """A tile with a window on its columns, and on its rows weights that say where in it they find their activation."""

    def __init__(self, machine: Machine, accelerator: BitTactical):
        super().__init__(accelerator, value_bits(machine))
        self.machine, self.accelerator = machine, accelerator
        self.ports = accelerator.ports
        self.search = ((0, 0), *accelerator.search_map)
        self.choice_bits = max(1, (len(self.search) - 1).bit_length())

    @property
    def circuit(self) -> Circuit:
        """What is built."""
        a = self.accelerator
        given = pe_parameters(a, self.bits, a.pipeline_drain_cycles) | {
            "DEPTH": 1 + a.lookahead_h, "PORTS": self.ports, "CHOICES": len(self.search), "CHOICE": self.choice_bits,
            "AHEAD": packed([ahead for ahead, _ in self.search]),
            "ASIDE": packed([aside % a.lanes for _, aside in self.search]),
        }  # fmt: skip
        return Circuit(
            name=self.machine.name, tile="bit_tactical_tile",
            files=("bit_tactical_tile.sv", "window.sv", "pick.sv", "pe.sv"), parameters=given,
            line_bits=a.columns * a.lanes * self.bits, ports=self.ports, sum_bits=int(given["SUM"]),
            entry_bits=8 + a.rows * a.lanes * (self.bits + self.choice_bits), drain_cycles=a.pipeline_drain_cycles,
            by_entries=True,
        )  # fmt: skip

    def job(self, where: str, rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> Job:
        """Of a set of rows with a group of columns; the schedule is that of ``BitTactical.executed``."""
        values = self.filled(rows, self.accelerator.rows), self.filled(columns, self.accelerator.columns)
        held = [numbers(streams, self.bits, rng) for streams in values]
        sources = np.empty((1, *rows.shape), np.int64)
        executed = int(self.accelerator.executed(to_words(rows)[None], sources)[0])
        entries = self._entries(self.filled(sources[0], self.accelerator.rows), held[0], len(rows))
        lines = as_bytes(held[1].swapaxes(0, 1))
        return Job(where, executed, lines, entries, *summed(*held), lambda: shown(*values))

    def _entries(self, sources: np.ndarray, values: np.ndarray, used: int) -> np.ndarray:
        """A schedule as the tile reads it: entries that fill its window, then one for each line that is executed."""
        rows, depth, lanes = sources.shape
        kept = np.flatnonzero((sources[:used] != -2).any(axis=(0, 2)))
        sources = sources[:, kept]
        sources[used:] = -1
        place = np.where(sources >= 0, sources, 0)
        chosen = np.where(sources >= 0, np.take_along_axis(values.reshape(rows, 1, -1), place, 2), 0)
        ahead, aside = place // lanes - kept[:, None], (place - np.arange(lanes)) % lanes
        choice = np.zeros(sources.shape, np.uint8)
        for j, (down, along) in enumerate(self.search):
            choice[(ahead == down) & (aside == along % lanes)] = j
        fill = self._fill(int(kept[0]) if kept.size else depth)
        moves = [EXECUTE + after - line for line, after in pairwise([*kept.tolist(), depth])]
        moves = [min(move, EXECUTE + self.ports) for move in moves]  # nothing is read behind the last
        head = np.array([*fill, *moves], np.uint8)[:, None]
        body = np.concatenate([_bits(chosen.swapaxes(0, 1).astype(values.dtype), self.bits),
                               _bits(choice.swapaxes(0, 1), self.choice_bits)], axis=1)  # fmt: skip
        packed_body = np.packbits(body, axis=1, bitorder="little")
        blank = np.zeros((len(fill), packed_body.shape[1]), np.uint8)
        return np.concatenate([head, np.concatenate([blank, packed_body])], axis=1)

    def _fill(self, first: int) -> list[int]:
        """Moves until the first line that is executed is in front: the lookahead, then a line and what is dropped."""
        moves, left = [], self.accelerator.lookahead_h
        while left > 0:
            moves.append(min(left, self.ports))
            left -= moves[-1]
        return [*moves, min(1 + first, self.ports)]


def _bits(values: np.ndarray, bits: int) -> np.ndarray:
    """(entries, …) integers → (entries, bits of all), the lowest of the first value first."""
    all_bits = np.unpackbits(as_bytes(values), axis=1, bitorder="little")
    each = all_bits.reshape(len(values), int(np.prod(values.shape[1:])), 8 * values.itemsize)[:, :, :bits]
    return each.reshape(len(values), each.shape[1] * bits)
