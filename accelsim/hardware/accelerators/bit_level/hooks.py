"""What a bit-level machine says of itself, for the account of its slots and for its replay."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np

from accelsim.hardware import bits
from accelsim.hardware.accelerators.bit_level.mapping import Mapping, Operand, Steps
from accelsim.hardware.accelerators.tiled import EveryLine
from accelsim.hardware.parameters import integer, option


class Hooks(EveryLine):
    """A tiled machine whose lanes multiply bits; a model says what a step costs (``_costs``) and what is worked off."""

    pe_width: int = integer(1, 16, "bits that a PE takes of a value; the others go to its neighbours", unit="bits")
    staggered_linear: bool = option(
        "the steps of a linear layer, which has one window, are dealt to the windows' columns in turn, one begun a "
        "cycle at most",
        default=True,
    )

    @property
    def _registers(self) -> int:
        """Steps that columns may run ahead of each other."""
        return 0

    @property
    def _waits(self) -> str:
        """Why a product takes longer than its own bits: the cause of these slots."""
        return "precision"

    @abstractmethod
    def _costs(self, mapping: Mapping, rows: object, windows: np.ndarray) -> np.ndarray:
        """Cycles of each column in each step, int64 (visits, rounds or 1, steps, columns); 0 without a window.

        ``rows`` is what ``_seen`` made of the rows; ``windows`` (windows, T, lanes) the integers of one repeat.
        """

    @abstractmethod
    def _worked(self, mapping: Mapping, values: np.ndarray, side: Literal["columns", "rows"]) -> np.ndarray:
        """Bits or powers of two that each value is worked off in, 0 for 0; on bit-parallel rows 1."""

    @abstractmethod
    def _executed(self, operand: Operand, slices: np.ndarray, cycles: np.ndarray) -> np.ndarray:
        """What is worked off of each slice, (n, slices, T, lanes), in so many cycles (n, slices, T): for ``replay``."""

    @property
    def _empty_lane(self) -> str:
        """What a lane of a used row without a value to multiply with is lost to."""
        return "edge"

    def _products(self, mapping: Mapping, steps: Steps) -> int:
        """Products executed, of zeros too."""
        blocks, streams, _ = mapping.lines.shape
        return mapping.lines.partners * blocks * streams * mapping.lines.elements

    def _as_seen(self, mapping: Mapping, windows: np.ndarray) -> np.ndarray:
        """What the columns work on in place of the windows (windows, T, lanes) of a repeat."""
        return windows

    def _as_meant(self, mapping: Mapping, products: np.ndarray) -> np.ndarray:
        """Products of the windows from those of what the columns worked on, (blocks, streams, windows)."""
        return products

    def _needs_values(self, side: Literal["columns", "rows"]) -> bool:
        """Whether a mask is not enough of what is there."""
        return side == "columns"

    def _seen(self, mapping: Mapping) -> object:
        """What ``_costs`` needs of the rows, made once for all repeats."""
        return None

    def _steps(self, mapping: Mapping) -> Steps:
        """Every line is a step, and every lane with a value holds one to multiply with."""
        depth, sets = mapping.lines.shape[2], mapping.sets
        used = mapping.by_round(sets).sum(axis=1)
        lanes = np.full(depth, mapping.lanes, np.int64)
        piece, pieces = depth // mapping.lines.pieces, mapping.lines.pieces
        lanes.reshape(pieces, piece)[:, -1] -= piece * mapping.lanes - mapping.lines.elements // pieces
        return Steps(np.full(used.size, depth, np.int64), np.full(sets.size, depth, np.int64), used[:, None] * lanes)

    def _multiplied(self, mapping: Mapping) -> list[np.ndarray]:
        """Of each set the places that its lanes multiply in each step, (streams, steps, lanes); below 0 none."""
        places = mapping.lines.places()
        return [np.broadcast_to(places, (streams, *places.shape)) for streams in mapping.sets]

    def _product(self, mapping: Mapping, windows: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """What one repeat comes to, worked off in ``costs`` cycles: (blocks, streams, windows)."""
        values = self._worked_off(mapping.on_columns, windows, mapping.of_windows(costs[:, 0]))
        return np.asarray(np.einsum("bstl,wtl->bsw", mapping.lines.rows(), values))

    def _worked_off(self, operand: Operand, values: np.ndarray, cycles: np.ndarray) -> np.ndarray:
        """Integers (n, T, lanes) as they come out of so many cycles (n, slices, T)."""
        slices = self._executed(operand, self._slices(operand, values), cycles)
        whole = (slices << (self.pe_width * np.arange(operand.slices))[:, None, None]).sum(axis=1)
        return np.asarray(whole if operand.signed else whole * np.sign(values))

    def _slices(self, operand: Operand, values: np.ndarray) -> np.ndarray:
        """Two's complement where values are signed, else magnitudes."""
        return bits.sliced(values if operand.signed else np.abs(values), self.pe_width, operand.slices)
