"""Bit-Tactical's front-end: weights scheduled beforehand into the lanes that zeros leave empty.

Delmas Lascorz et al., "Bit-Tactical: A Software/Hardware Approach to Exploiting Value and Bit Sparsity in Neural
Networks", ASPLOS 2019: the search shapes L⟨h,d⟩ and T⟨2,5⟩ and the scheduler are those of its section 3. Here a line
takes a cycle; ``bit_tactical_serial`` has its bit-serial back-ends.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import DrainParameters
from accelsim.hardware.accelerators.search import WindowParameters
from accelsim.hardware.accelerators.tiled import FixedRows
from accelsim.hardware.lines import Lines


class BitTactical(DrainParameters, WindowParameters, FixedRows):
    """Skips zeros of the operand on the rows: weights, and in the weight gradient the saved activations.

    Rows of a tile run in lock-step; the speedup over ``DaDianNao`` of the same shape cannot pass 1 + lookahead_h.
    """

    model: Literal["bit_tactical"]

    def skips(self, which: str) -> dict[str, str]:
        """What is on the rows, as far as the lookahead; see ``Accelerator``."""
        return {self._row_tensor(which): "zeros"} if self.lookahead_h else {}

    def _schedule(self, lines: Lines) -> tuple[np.ndarray, int, str]:
        """Lines that each set executes; products executed; what an empty lane of a used row is."""
        words = lines.words
        key = "executed", self.rows, self.search_map, self.ports  # not how many tiles or columns there are
        executed = lines.conv.once(key, lambda: self.executed(words, np.empty((0, 0, 0, 0), np.int64)))
        return executed, lines.partners * int(np.bitwise_count(words).sum(dtype=np.int64)), "lookahead"

    def _sources(self, lines: Lines) -> np.ndarray:
        """The place of the weight that each slot executes, as the kernel chose it."""
        sources = np.empty((*lines.words.shape, self.lanes), np.int64)
        self.executed(lines.words, sources)
        return sources

    def executed(self, words: np.ndarray, sources: np.ndarray) -> np.ndarray:
        from accelsim.hardware.kernels.promotion import executed_lines

        search = self.search_arrays(self.lanes)
        return executed_lines(words, self.rows, self.lanes, self.ports - 1, *search, sources)
