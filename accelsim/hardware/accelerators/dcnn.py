"""DCNN: SCNN's dense counterpart, with which its publication compares it: a wide dot product in each PE of its array.

Parashar et al., "SCNN", ISCA 2017. A PE owns a tile of the output map, as one of SCNN's does, and takes a cycle for
each output, tap and vector of channels. docs/model.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from accelsim.hardware.accelerators.base import (
    STRIDED_INPUT_GRAD,
    AcceleratorParameters,
    Activity,
    Drawing,
    Summation,
    Unused,
)
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.accelerators.pe_array.mapping import idle_pes
from accelsim.hardware.accelerators.tiled_traffic import BANDS, Grid, Work, lines_traffic, stretched
from accelsim.hardware.lines import Lines, to_lines
from accelsim.hardware.movement.traffic import Traffic, joined
from accelsim.hardware.parameters import integer, option
from accelsim.workload.lowering import Convolution


class DCNN(AcceleratorParameters):
    """Skips nothing: ceil(P/pe_rows) · ceil(Q/pe_columns) · K · R·S · ceil(C/lanes) cycles per sample and group."""

    model: Literal["dcnn"]
    pe_rows: int = integer(1, 256, "PEs along the height of the map")
    pe_columns: int = integer(1, 256, "PEs along the width of the map")
    lanes: int = integer(1, 64, "multipliers of a PE; their products are added up")
    strided_input_grad: Literal["phase", "dilate"] = option(STRIDED_INPUT_GRAD)

    @property
    def pes(self) -> int:
        return self.pe_rows * self.pe_columns

    @property
    def multipliers(self) -> int:
        return self.pes * self.lanes

    @property
    def summation(self) -> Summation:
        """An adder tree over the lanes, and a register behind it; see ``Accelerator``."""
        return Summation(additions="multiplications", partial_sums=1)

    @property
    def drawing(self) -> Drawing:
        """Its PEs; see ``Accelerator``."""
        return Drawing("PEs", self.pes, "lanes", rows=self.pe_rows, lanes=self.lanes)

    def skips(self, which: str) -> dict[str, str]:
        """Nothing; see ``Accelerator``."""
        return {}

    def unused(self, conv: Convolution) -> Unused | None:
        """PEs that own no part of the output map, or no channel; see ``Accelerator``."""
        if conv.which != "weight_grad":
            return idle_pes(conv.geometry.output, (self.pe_rows, self.pe_columns))
        channels = self._lines(conv)[0].windows
        rounds = -(-channels // self.pes)
        idle = Unused("PEs", rounds * self.pes, channels, f"a layer of {channels:,} channels", rounds)
        return idle if idle.share else None

    def run(self, conv: Convolution) -> Activity:
        """Counts the cycles of one convolution; see ``Accelerator``."""
        groups = self._lines(conv)
        jobs = np.array([self._cycles(lines) for lines in groups])
        products = sum(lines.partners * lines.shape[1] * lines.elements for lines in groups)
        executed = sum(lines.partners * lines.shape[1] * lines.shape[2] for lines in groups)
        slots = {
            "effectual": conv.effectual,
            "ineffectual": products - conv.effectual,
            "edge": int(jobs.sum()) * self.multipliers - products,
        }
        accesses = {
            "multiplications": products,
            "activation_buffer_reads": executed * self.lanes,
            "weight_buffer_reads": executed * self.lanes,
            "accumulator_updates": executed,
        }
        return Activity(self.multipliers, jobs, slots, accesses, lambda: self._traffic(groups))

    def replay(self, conv: Convolution, film: Film | None = None) -> tuple[np.ndarray, int]:
        """Executes the schedule with numbers; see ``Accelerator``."""
        groups, cycles = [], 0
        for lines in self._lines(conv):
            rows, columns, is_element = lines.rows()[0], lines.columns(), lines.places() >= 0
            products = np.zeros((1, len(rows), *columns.shape[:2]), np.result_type(rows, columns))
            for repeat, places in np.ndindex(lines.repeats, len(self._visits(lines))):
                windows = self._visits(lines)[places]
                for stream, line in np.ndindex(*rows.shape[:2]):
                    products[0, stream, repeat, windows] += columns[repeat, windows, line] @ rows[stream, line]
                    cycles += 1
                    if film is not None:
                        note = f"place {places} of each PE's share, filter {stream} of {len(rows)}"
                        shot = film.shoot(1, self.pes, self.lanes, cause="edge", note=note)[0]
                        both = (columns[repeat, windows, line] != 0) & (rows[stream, line] != 0)
                        made = np.where(both, film["effectual"], film["ineffectual"])
                        shot[self._pes_of(lines, windows)] = np.where(is_element[line], made, film["edge"])
            groups.append(lines.place(products))
        return np.concatenate(groups, axis=1), cycles

    def _lines(self, conv: Convolution) -> tuple[Lines, ...]:
        """Filters one after another. In the weight gradient each PE has channels of its own, whose taps take turns."""
        return to_lines(conv, self.lanes, "kernel")

    def _cycles(self, lines: Lines) -> int:
        rows, columns = self._share(lines)
        return lines.repeats * rows * columns * lines.shape[1] * lines.shape[2]

    def _share(self, lines: Lines) -> tuple[int, int]:
        """Rows and columns of a PE's tile of the map; in the weight gradient, which has channels there, a share."""
        if lines.conv.which == "weight_grad":
            return 1, -(-lines.windows // self.pes)
        places = lines.conv.geometry.output
        return -(-places[0] // self.pe_rows), -(-places[1] // self.pe_columns)

    def _visits(self, lines: Lines) -> list[np.ndarray]:
        """The windows that the PEs compute at the same time, each the same place of its tile."""
        rows, columns = self._share(lines)
        if lines.conv.which == "weight_grad":
            return [np.arange(column, lines.windows, columns) for column in range(columns)]
        numbers = np.arange(lines.windows).reshape(lines.conv.geometry.output)
        return [numbers[row::rows, column::columns].ravel() for row, column in np.ndindex(rows, columns)]

    def _pes_of(self, lines: Lines, windows: np.ndarray) -> np.ndarray:
        """The PE that computes each window."""
        rows, columns = self._share(lines)
        if lines.conv.which == "weight_grad":
            return windows // columns
        down, across = np.divmod(windows, lines.conv.geometry.output[1])
        return np.asarray(down // rows * self.pe_columns + across // columns)

    def _traffic(self, groups: tuple[Lines, ...]) -> Traffic:
        """Filters in bands, each against the map band by band: the map stays in the PEs, filters go to all of them."""
        moved = []
        for lines in groups:
            filters = lines.shape[1]
            grid = Grid(tiles=1, rows=-(-filters // BANDS), columns=self.pes, lanes=self.lanes, buffers=self.pes)
            streams = np.minimum(grid.rows, filters - grid.rows * np.arange(-(-filters // grid.rows)))
            executed = streams[None] * lines.shape[2]
            work = Work(lines, executed, executed, streams, executed[0], {}, {})
            traffic = lines_traffic(grid, work, lines.conv)
            first, second = traffic.operands
            spread = replace(first, units=self.pes, copies=1), replace(second, units=1, copies=self.pes)
            moved.append(stretched(replace(traffic, operands=spread), self._cycles(lines)))
        return joined(moved)
