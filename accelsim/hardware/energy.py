"""The ``energy`` section of a machine file: pJ per action. ``pricing`` multiplies with it."""

from __future__ import annotations

from math import sqrt

from accelsim.hardware.parameters import Parameters, check, integer, number


class EnergyTable(Parameters):
    """The ``energy`` section of a machine file, or a file of its own that the section names: pJ per action."""

    node_nm: int = integer(1, 1000, "technology node that the figures are for", unit="nm")
    multiply_pj: float = number(0, 1e6, "a multiplication", unit="pJ")
    bit_operation_pj: float = number(
        0, 1e6, "a bit or power of two of a value times another value, and its addition", default=0.05, unit="pJ"
    )
    add_pj: float = number(0, 1e6, "an addition, or a comparison", unit="pJ")
    sram_pj: float = number(0, 1e6, "32 bits read from or written to an SRAM of sram_bytes", unit="pJ/32 bits")
    sram_bytes: int = integer(1, 1 << 40, "SRAM that sram_pj is for; others cost the root of their size", unit="bytes")
    sram_smallest_bytes: int = integer(1, 1 << 40, "arrays smaller than this cost as much as it", unit="bytes")
    edram_pj: float = number(0, 1e6, "32 bits read from or written to a memory on chip", unit="pJ/32 bits")
    offchip_pj: float = number(0, 1e6, "32 bits read from or written to off-chip memory", unit="pJ/32 bits")
    leakage_mw_per_multiplier: float = number(0, 1e6, "drawn by a multiplier's logic at rest", unit="mW")
    leakage_mw_per_mib: float = number(0, 1e6, "drawn by 2^20 bytes of memory on chip at rest", unit="mW")

    @check
    def _smallest_is_smaller(self) -> EnergyTable:
        if self.sram_smallest_bytes > self.sram_bytes:
            raise ValueError(
                f"sram_smallest_bytes: must be at most sram_bytes, {self.sram_bytes}, got {self.sram_smallest_bytes}"
            )
        return self

    def sram_pj_per_word(self, capacity_bytes: int) -> float:
        """pJ of 32 bits read from or written to an SRAM: proportional to the root of its capacity."""
        return self.sram_pj * sqrt(max(capacity_bytes, self.sram_smallest_bytes) / self.sram_bytes)
