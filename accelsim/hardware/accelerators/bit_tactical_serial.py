"""Bit-Tactical's bit-serial back-ends: lines of scheduled weights, multiplied bit by bit or power by power.

Delmas Lascorz et al., ASPLOS 2019, with the front-end of ``bit_tactical``. A line takes what the activations that its
slots present take: TCLp as ShapeShifter, their widest; TCLe as Bit-Pragmatic, their powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from accelsim.hardware.accelerators.bit_level.mapping import Mapping, Steps
from accelsim.hardware.accelerators.bit_level.model import BitLevel
from accelsim.hardware.accelerators.bit_level.terms import Terms
from accelsim.hardware.accelerators.bit_level.widths import GroupWidths
from accelsim.hardware.accelerators.search import SearchParameters
from accelsim.hardware.lines import to_words
from accelsim.hardware.parameters import integer, option


@dataclass(frozen=True, eq=False)
class Schedule:
    """Lines that the sets of a group execute.

    Parameters
    ----------
    executed : ndarray of int64, (sets,)
    sources : ndarray of int64, (sets, filters, lines, lanes)
        The place, line·lanes + lane, of the weight in each slot of each executed line; −1 where it has none.
    presented : ndarray of int64, of the same shape
        The place of the activation there; −1: none.
    """

    executed: np.ndarray
    sources: np.ndarray
    presented: np.ndarray


class SerialTactical(SearchParameters, BitLevel):
    """What both back-ends share."""

    empty_slots: Literal["present", "silent"] = option(
        "a slot whose weight is zero, and that the scheduler could not fill: presents the activation of its place, "
        "which its column then works off (as DNNsim), or none",
        default="present",
    )
    column_registers: int = integer(0, 64, "steps that columns may run ahead of each other", default=0, unit="steps")

    @property
    def _registers(self) -> int:
        return self.column_registers

    @property
    def _empty_lane(self) -> str:
        return "lookahead"

    def skips(self, which: str) -> dict[str, str]:
        """Bits of what is on the columns, and what is on the rows as far as the lookahead; see ``Accelerator``."""
        # Without lookahead too a line waits for those values only that its weights meet, if empty slots are silent.
        rows = "zeros" if self.lookahead_h else "bits" if self.empty_slots == "silent" else ""
        return ({self._row_tensor(which): rows} if rows else {}) | {self._column_tensor(which): "bits"}

    def _seen(self, mapping: Mapping) -> Schedule:
        key = "schedule", mapping.filters, self.search_map, self.empty_slots
        return mapping.lines.conv.once(key, lambda: self._scheduled(mapping))

    def _scheduled(self, mapping: Mapping) -> Schedule:
        from accelsim.hardware.kernels.promotion import executed_lines

        depth, lanes, filters = mapping.lines.shape[2], mapping.lanes, mapping.filters
        executed = []
        sources, presented = np.full((2, len(mapping.sets), filters, depth, lanes), -1, np.int64)
        places, number = np.arange(depth * lanes).reshape(depth, lanes), 0
        for block in mapping.lines.blocks():
            own = np.empty((1, *block.shape), np.int64)
            words = to_words(block[None])
            search = self.search_arrays(lanes)
            executed.append(executed_lines(words, filters, lanes, self.lookahead_h, *search, own))
            shown = np.where((own[0] == -1) & (block == 0) & (self.empty_slots == "present"), places, own[0])
            for first in range(0, len(block), filters):
                kept = (own[0, first, :, 0] != -2).nonzero()[0]
                rows = slice(first, first + filters)
                sources[number, : len(block[rows]), : kept.size] = own[0, rows][:, kept]
                presented[number, : len(block[rows]), : kept.size] = shown[rows][:, kept]
                number += 1
        return Schedule(np.concatenate(executed), sources, presented)

    def _steps(self, mapping: Mapping) -> Steps:
        """The executed lines: the j-th of all tiles of a round together; see ``BitLevel``."""
        schedule = self._seen(mapping)
        filled = (schedule.sources >= 0).sum(axis=(1, 3))
        count = mapping.by_round(schedule.executed).max(axis=1)
        return Steps(count, schedule.executed, mapping.by_round(filled).sum(axis=1))

    def _multiplied(self, mapping: Mapping) -> list[np.ndarray]:
        """What was scheduled; see ``BitLevel``."""
        schedule = self._seen(mapping)
        sets = zip(mapping.sets, schedule.sources, schedule.executed, strict=True)
        return [sources[:streams, :steps] for streams, sources, steps in sets]

    def _products(self, mapping: Mapping, steps: Steps) -> int:
        """Those of the non-zeros on the rows; see ``BitLevel``."""
        return int(steps.filled.sum()) * mapping.lines.partners

    def _at_places(self, mapping: Mapping, of_columns: np.ndarray) -> np.ndarray:
        """(visits, columns, T, lanes) → (places, visits·columns), as the kernels take it."""
        visits, columns = of_columns.shape[:2]
        return np.ascontiguousarray(of_columns.reshape(visits * columns, -1).T)

    def _by_visit(self, mapping: Mapping, cycles: np.ndarray) -> np.ndarray:
        """(rounds, steps, visits·columns) → (visits, rounds, steps, columns), 0 without a window."""
        of_visits = cycles.reshape(*cycles.shape[:2], mapping.visits, -1).transpose(2, 0, 1, 3)
        return np.asarray(of_visits * mapping.has_window[:, None, None])

    def _product(self, mapping: Mapping, windows: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Line after line of each set, what its slots present worked off in the step's cycles; see ``BitLevel``."""
        schedule, lines = self._seen(mapping), mapping.lines
        places = windows.reshape(len(windows), -1)
        total = []
        for number, own in enumerate(mapping.row_sets()):
            weights, result = own.reshape(len(own), -1), np.zeros((len(own), len(windows)), np.int64)
            for t in range(schedule.executed[number]):
                shown, source = (each[number, : len(own), t] for each in (schedule.presented, schedule.sources))
                cycles = mapping.of_windows(costs[:, number // self.tiles, t : t + 1]).repeat(len(own), axis=2)
                values = np.where(shown >= 0, places[:, shown], 0)
                values = self._worked_off(mapping.on_columns, values, cycles)
                multiplied = np.where(source >= 0, np.take_along_axis(weights, np.maximum(source, 0), axis=1), 0)
                result += np.einsum("wsl,sl->sw", values, multiplied)
            total.append(result)
        return np.concatenate(total).reshape(*lines.shape[:2], -1)


class TCLp(SerialTactical, GroupWidths):
    """A group of columns takes the bits of the widest activation that any slot of the tile presents to it."""

    model: Literal["tclp"]

    def _costs(self, mapping: Mapping, rows: object, windows: np.ndarray) -> np.ndarray:
        """Cycles of each column in each step; see ``BitLevel``."""
        from accelsim.hardware.kernels.presented import presented_widths

        schedule, operand = cast(Schedule, rows), mapping.on_columns
        # A lane each: the bits of every place apart.
        high, low = self._extents(operand, windows.reshape(len(windows), -1, 1))
        starts = np.arange(0, mapping.in_use, self.group_size)
        high, low = (
            np.bitwise_or.reduceat(mapping.on_each_column(each), starts, axis=1)[..., None] for each in (high, low)
        )
        cycles = presented_widths(
            schedule.presented, schedule.executed, self.tiles, self._at_places(mapping, high),
            self._at_places(mapping, low), int(operand.signed), self.minor_bit,
        )  # fmt: skip
        groups = cycles.reshape(*cycles.shape[:2], mapping.visits, -1)
        columns = groups.repeat(self.group_size, axis=3)[..., : mapping.in_use]
        return self._by_visit(mapping, columns.reshape(*cycles.shape[:2], -1))


class TCLe(SerialTactical, Terms):
    """A column takes as long as the filter of the tile whose lanes need the most to drop their powers of two."""

    model: Literal["tcle"]
    bits_first_stage: int = integer(
        0, 4, "bits of each lane's own shift: a power 2^this above the lowest of all lanes, or more, waits", unit="bits"
    )

    @property
    def _reach(self) -> int:
        return 1 << self.bits_first_stage

    def _costs(self, mapping: Mapping, rows: object, windows: np.ndarray) -> np.ndarray:
        """Cycles of each column in each step; see ``BitLevel``."""
        from accelsim.hardware.kernels.presented import presented_counts, presented_terms

        schedule = cast(Schedule, rows)
        words = self._at_places(mapping, mapping.on_each_column(self._powers(mapping.on_columns, windows)))
        lines = schedule.presented, schedule.executed, self.tiles
        if int(words.max(initial=0)) < 1 << self._reach:
            cycles = presented_counts(*lines, np.bitwise_count(words).astype(np.int64))
        else:
            cycles = presented_terms(*lines, words, self._reach)
        return self._by_visit(mapping, cycles)
