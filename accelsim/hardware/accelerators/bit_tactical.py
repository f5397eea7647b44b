"""Bit-Tactical's front-end: weights scheduled beforehand into the lanes that zeros leave empty.

Delmas Lascorz et al., "Bit-Tactical: A Software/Hardware Approach to Exploiting Value and Bit Sparsity in Neural
Networks", ASPLOS 2019: the search shapes L⟨h,d⟩ and T⟨2,5⟩ and the scheduler are those of its section 3. The back-end
here is bit-parallel, a line a cycle; activations do not matter.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.tiled import TiledParameters
from accelsim.hardware.lines import Lines
from accelsim.hardware.parameters import check, integer, option

T_SHAPE = ((1, -1), (1, 0), (1, 1), (1, 3), (2, -2), (2, 0), (2, 2))


class BitTactical(TiledParameters):
    """Skips zeros of the operand on the rows: weights, and in the weight gradient the saved activations.

    Rows of a tile run in lock-step; the speedup over ``DaDianNao`` of the same shape cannot pass 1 + lookahead_h.
    """

    model: Literal["bit_tactical"]
    search_shape: Literal["L", "T"] = option("where an empty lane may take a weight from")
    lookahead_h: int = integer(0, 127, "lines ahead that a lane may take a weight from", unit="lines")
    lookaside_d: int = integer(0, 127, "lanes aside in the next line that a lane may take a weight from", unit="lanes")

    @check
    def _t_has_one_size(self):
        if self.search_shape == "T" and (self.lookahead_h, self.lookaside_d) != (2, 5):
            raise ValueError(
                f"search_shape T means lookahead_h 2 and lookaside_d 5, got {self.lookahead_h} and {self.lookaside_d}"
            )
        return self

    @property
    def search_map(self) -> tuple[tuple[int, int], ...]:
        """(lines ahead, lanes aside) of each candidate, in the order in which they are tried."""
        if self.search_shape == "T":
            return T_SHAPE
        ahead = [(i, 0) for i in range(1, self.lookahead_h + 1)]
        aside = [(1, -j) for j in range(1, self.lookaside_d + 1)] if self.lookahead_h else []
        return tuple(sorted(ahead + aside))

    def _schedule(self, lines: Lines):
        """Per set: lines executed and rows in use; weights on lanes in all; what an empty lane of a used row is."""
        words = lines.words()
        executed = self._executed_lines(words, np.empty((0, 0, 0, 0), np.int64))
        filled = int(np.bitwise_count(words).sum(dtype=np.int64))
        return executed, self._sets(*words.shape[:2]), filled, "lookahead"

    def _sources(self, lines: Lines) -> np.ndarray:
        """The place of the weight that each slot executes, as the kernel chose it."""
        words = lines.words()
        sources = np.empty((*words.shape, self.lanes), np.int64)
        self._executed_lines(words, sources)
        return sources

    def _executed_lines(self, words: np.ndarray, sources: np.ndarray) -> np.ndarray:
        from accelsim.hardware.kernels.promotion import executed_lines

        ahead, aside = np.array(self.search_map, np.int64).reshape(-1, 2).T
        return executed_lines(words, self.rows, self.lanes, self.lookahead_h, ahead.copy(), aside % self.lanes, sources)
