"""Laconic: powers of two of activations times powers of two of weights. Sharify et al., ISCA 2019."""

from __future__ import annotations

from typing import Literal, cast

import numpy as np

from accelsim.hardware import bits
from accelsim.hardware.accelerators.bit_level.mapping import Mapping, Operand
from accelsim.hardware.accelerators.bit_level.terms import Terms


class Laconic(Terms):
    """All wait for the pair of values with the most pairs of powers of two."""

    model: Literal["laconic"]

    @property
    def _bits_of_a_product(self) -> int:
        return self.column_bits * self.row_bits

    def skips(self, which: str) -> dict[str, str]:
        """Bits of both; see ``Accelerator``."""
        return {self._column_tensor(which): "bits", self._row_tensor(which): "bits"}

    def _needs_values(self, side: Literal["columns", "rows"]) -> bool:
        return True

    def _seen(self, mapping: Mapping) -> object:
        """The most powers of two on the rows of each set, (sets, lines, lanes)."""
        most = [self._counts(mapping.on_rows, own).max(axis=(0, 1)) for own in mapping.row_sets()]
        return np.stack(most).astype(np.int64)

    def _costs(self, mapping: Mapping, rows: object, windows: np.ndarray) -> np.ndarray:
        """Cycles of each column in each step: one for all; see ``BitLevel``."""
        from accelsim.hardware.kernels.bit_level import dearest_products

        most = mapping.on_each_column(self._counts(mapping.on_columns, windows)).max(axis=1).astype(np.int64)
        cycles = dearest_products(most, cast(np.ndarray, rows), self.tiles)
        in_use = mapping.on_each_column(np.ones((len(windows), mapping.on_columns.slices), np.int64))
        return np.asarray(cycles[..., None] * in_use[:, None, None])

    def _worked(self, mapping: Mapping, values: np.ndarray, side: Literal["columns", "rows"]) -> np.ndarray:
        """Powers of two of each value, on both sides; see ``BitLevel``."""
        operand = mapping.on_columns if side == "columns" else mapping.on_rows
        return np.asarray(self._counts(operand, values).sum(axis=1, dtype=np.uint8))

    def _product(self, mapping: Mapping, windows: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Of each slice of a value and of a weight a pair of powers of two in each cycle; see ``BitLevel``."""
        lines = mapping.lines
        cycles = costs.max(axis=3).repeat(mapping.windows, axis=0)[: lines.windows]
        of_sets = cycles.repeat(self.tiles, axis=1)[:, : len(mapping.sets)].repeat(mapping.sets, axis=1)
        total = np.zeros((of_sets.shape[1], lines.windows), np.int64)
        columns = self._powers_in_order(mapping.on_columns, windows)
        for own in self._powers_in_order(mapping.on_rows, lines.rows().reshape(-1, *windows.shape[1:])):
            for other in columns:
                # Powers one after another along the last axis: pair (i, j) is multiplied in cycle i · powers + j.
                powers = np.count_nonzero(own, axis=-1)
                for i, j in np.ndindex(other.shape[-1], own.shape[-1]):
                    when = i * powers[:, None] + j
                    is_done = when < of_sets.swapaxes(0, 1)[..., None]
                    total += (own[:, None, ..., j] * other[None, ..., i] * is_done).sum(axis=(2, 3))
        return total.reshape(*lines.shape[:2], -1)

    def _powers_in_order(self, operand: Operand, values: np.ndarray) -> list[np.ndarray]:
        """Of each slice the signed powers that make it up, the lowest first: (n, T, lanes, most of a value) each."""
        slices, signs = self._slices(operand, values), np.sign(values)
        found = []
        for i in range(operand.slices):
            own, left = [], bits.powers(slices[:, i], self.booth_encoding).astype(np.int64)
            while left.any():
                power = left & -left
                own.append((power * self._signs(slices[:, i], power) << (self.pe_width * i)) * signs)
                left ^= power
            found.append(np.stack(own, axis=-1) if own else np.zeros((*values.shape, 0), np.int64))
        return found
