"""Where an empty lane may take a value from: the search shapes of Bit-Tactical's and TensorDash's front-ends.

Delmas Lascorz et al., ASPLOS 2019, section 3: L⟨h,d⟩ and T⟨2,5⟩; Mahmoud et al., MICRO 2020, has the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelsim.hardware.parameters import Parameters, check, integer, option

T_SHAPE = ((1, -1), (1, 0), (1, 1), (1, 3), (2, -2), (2, 0), (2, 2))


class SearchParameters(Parameters):
    """Keys of a front-end that fills empty lanes from a window of lines, and its search map."""

    search_shape: Literal["L", "T"] = option("where an empty lane may take a value from")
    lookahead_h: int = integer(0, 127, "lines ahead that a lane may take a value from", unit="lines")
    lookaside_d: int = integer(0, 127, "lanes aside in the next line that a lane may take a value from", unit="lanes")

    @check
    def _t_has_one_size(self) -> SearchParameters:
        if self.search_shape == "T" and (self.lookahead_h, self.lookaside_d) != (2, 5):
            raise ValueError(
                f"search_shape T means lookahead_h 2 and lookaside_d 5, got {self.lookahead_h} and {self.lookaside_d}"
            )
        return self

    @property
    def _lines_in_sight(self) -> int:
        """Lines that the front-end looks at together; see ``TiledParameters``."""
        return 1 + self.lookahead_h

    @property
    def search_map(self) -> tuple[tuple[int, int], ...]:
        """(lines ahead, lanes aside) of each candidate, in the order in which they are tried."""
        if self.search_shape == "T":
            return T_SHAPE
        ahead = [(i, 0) for i in range(1, self.lookahead_h + 1)]
        aside = [(1, -j) for j in range(1, self.lookaside_d + 1)] if self.lookahead_h else []
        return tuple(sorted(ahead + aside))

    def search_arrays(self, lanes: int) -> tuple[np.ndarray, np.ndarray]:
        """The search map as kernels take it: lines ahead, and lanes aside modulo ``lanes``."""
        ahead, aside = np.array(self.search_map, np.int64).reshape(-1, 2).T
        return ahead.copy(), aside % lanes


class WindowParameters(SearchParameters):
    """Keys of a window that moves on by as many lines as it has ports for."""

    window_ports: int = integer(
        0, 128, "lines that can enter the window in a cycle; 0: as many as it holds, 1 + lookahead_h", unit="lines",
        default=0,
    )  # fmt: skip

    @property
    def ports(self) -> int:
        """Lines that enter together at most, and so leave: one is executed, the others are empty."""
        return min(self.window_ports or 1 + self.lookahead_h, 1 + self.lookahead_h)
