"""The memory hierarchy's parameters: off-chip memory → activation and weight memory → buffers of PEs or tiles.

They are the ``memory`` and ``buffers`` sections of a machine file; docs/memory.md says what each means.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from accelsim.hardware.movement.port import TICKS, PortTiming, in_ticks
from accelsim.hardware.movement.traffic import Operand
from accelsim.hardware.parameters import Parameters, check, fill, integer, option

# Per channel. latency_ns: row to column delay plus read latency, a closed row. refresh_ns: rows are closed, all banks
# refreshed and rows opened again, tRTP + tRP + tRFC + tRCD, in each tREFI. The bus is idle between a read's data and a
# write's for 2 clocks, between a write's and a read's for tWTR_L and the read latency. Controllers of the kind that
# Ramulator 2.1 simulates have queues of 32.
NO_DRAM = dict.fromkeys(
    ("refresh_ns", "refresh_interval_ns", "read_to_write_ns", "write_to_read_ns", "queue_bursts"), 0
)
PRESETS: dict[str, dict[str, int]] = {
    # JESD79-4: 64 bits × 3200 MT/s, bursts of 8; speed bin 3200AA: tRCD = tRP = tAA = 13.75 ns; 8 Gb: tRFC1 = 350 ns,
    # tREFI = 7.8 µs; tRTP = tWTR_L = 7.5 ns; 2 clocks of 1600 MHz; 7.5 + 13.75 ns.
    "DDR4-3200": {
        "channels": 1, "megabytes_per_second": 25600, "burst_bytes": 64, "latency_ns": 28,
        "refresh_ns": 385, "refresh_interval_ns": 7800,
        "read_to_write_ns": 2, "write_to_read_ns": 22, "queue_bursts": 32,
    },
    # JESD209-4: 16 bits × 3200 MT/s, bursts of 16; tRCD = 18 ns, read latency 28 clocks of 1600 MHz; 4 Gb a channel:
    # tRFCab = 180 ns, tREFI = 3.904 µs; tRPab = 21 ns, tRTP = 7.5 ns; tDQSCK = 3.5 ns and 2 clocks; tWTR = 10 ns.
    "LPDDR4-3200": {
        "channels": 2, "megabytes_per_second": 6400, "burst_bytes": 32, "latency_ns": 36,
        "refresh_ns": 227, "refresh_interval_ns": 3904,
        "read_to_write_ns": 5, "write_to_read_ns": 28, "queue_bursts": 32,
    },
    # JESD235A: a stack of 8 channels of 128 bits × 2 GT/s, bursts of 4; tRCD = tRP = tAA = 14 ns; 8 Gb: all banks
    # refreshed at once, tRFC = 350 ns, tREFI = 3.9 µs; tRTP = 5 ns, tWTR_L = 8 ns; 2 clocks of 1000 MHz.
    "HBM2": {
        "channels": 8, "megabytes_per_second": 32000, "burst_bytes": 64, "latency_ns": 28,
        "refresh_ns": 383, "refresh_interval_ns": 3900,
        "read_to_write_ns": 2, "write_to_read_ns": 22, "queue_bursts": 32,
    },
    # Chen et al., MICRO 2014, section 5.3: four HyperTransport 2.0 links, 6.4 GB/s per direction and 80 ns each.
    "DaDianNao-links": {"channels": 4, "megabytes_per_second": 6400, "burst_bytes": 32, "latency_ns": 80}
    | NO_DRAM,
    "unlimited": {"channels": 1, "megabytes_per_second": 0, "burst_bytes": 1, "latency_ns": 0} | NO_DRAM,
}  # fmt: skip

Format = Literal["dense", "bitmask", "run_length", "zvc"]
# The zero-value compression of the compressing DMA engine takes 32 values at a time (Rhu et al., HPCA 2018, section
# 5.1).
ZVC_VALUES = 32


class OffChip(Parameters):
    """Memory beside the chip; addresses interleave its channels burst by burst."""

    preset: Literal["DDR4-3200", "LPDDR4-3200", "HBM2", "DaDianNao-links", "unlimited", "none"] = option(
        "where keys that are not given come from; none: all are given", default="none"
    )
    channels: int = integer(1, 1024, "channels, each with a burst of every transfer in turn")
    megabytes_per_second: int = integer(
        0, 1 << 30, "10⁶ bytes/s of a channel, reads and writes together; 0: unlimited", unit="MB/s"
    )
    burst_bytes: int = integer(1, 1 << 16, "a channel moves whole bursts", unit="bytes")
    latency_ns: int = integer(0, 1 << 20, "from a request to its first byte; requests overlap", unit="ns")
    refresh_ns: int = integer(0, 1 << 20, "nothing is moved while all banks are refreshed", unit="ns", default=0)
    refresh_interval_ns: int = integer(
        0, 1 << 30, "from the start of a refresh to the next; 0: none is needed", unit="ns", default=0
    )
    read_to_write_ns: int = integer(0, 1 << 16, "bus idle between a read and a write", unit="ns", default=0)
    write_to_read_ns: int = integer(0, 1 << 16, "bus idle between a write and a read", unit="ns", default=0)
    queue_bursts: int = integer(
        0, 1 << 16, "of a channel before its bus turns: fewer pay their share; 0: all pay the whole turn", default=0
    )

    @fill
    @classmethod
    def _preset(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("preset"), str):
            return PRESETS.get(data["preset"], {}) | data
        return data

    @check
    def _refresh(self) -> OffChip:
        if self.refresh_ns and self.refresh_ns >= self.refresh_interval_ns:
            raise ValueError(
                f"refresh_ns: must be less than refresh_interval_ns = {self.refresh_interval_ns}, got {self.refresh_ns}"
            )
        return self

    def latency_cycles(self, clock_mhz: int) -> int:
        """The latency in cycles of the chip's clock."""
        return -(-self.latency_ns * clock_mhz // 1000)

    def transfer_ticks(self, sizes_bytes: np.ndarray, clock_mhz: int) -> np.ndarray:
        """Ticks that transfers keep the port, all channels together."""
        if not self.megabytes_per_second:
            return np.zeros_like(sizes_bytes)
        rate = self.channels * self.megabytes_per_second
        whole, rest = np.divmod(self.moved_bytes(sizes_bytes) * clock_mhz, rate)
        ticks: np.ndarray = in_ticks(whole) - (-rest * TICKS // rate)
        return ticks

    def timing(self, clock_mhz: int) -> PortTiming:
        """What the port's time goes to beside transfers; times in ns are rounded up to ticks."""
        rate = self.megabytes_per_second
        burst = -(-self.burst_bytes * clock_mhz * TICKS // rate) if rate else 0

        def ticks(ns: int) -> int:
            return -(-ns * clock_mhz * TICKS // 1000)

        return PortTiming(
            burst,
            refresh=ticks(self.refresh_ns),
            interval=ticks(self.refresh_interval_ns),
            to_write=ticks(self.read_to_write_ns),
            to_read=ticks(self.write_to_read_ns),
            queue=self.queue_bursts * burst,
        )

    def moved_bytes(self, sizes_bytes: np.ndarray) -> np.ndarray:
        """Bytes of whole bursts."""
        return -(-sizes_bytes // self.burst_bytes) * self.burst_bytes


class OnChip(Parameters):
    """A memory on the chip, with a port for the PEs' side and one for the off-chip side."""

    capacity_bytes: int = integer(1, 1 << 50, "bytes", unit="bytes")
    banks: int = integer(1, 1 << 16, "banks, each with a word of every transfer in turn")
    width_bytes: int = integer(0, 1 << 20, "bytes of a bank's word, one a cycle; 0: unlimited", unit="bytes/cycle")
    latency_cycles: int = integer(0, 1 << 16, "from a request to its first word; requests overlap", unit="cycles")

    def transfer_ticks(self, sizes_bytes: np.ndarray) -> np.ndarray:
        """Ticks that transfers keep the port: whole cycles."""
        word = self.banks * self.width_bytes
        return in_ticks(-(-sizes_bytes // word)) if word else np.zeros_like(sizes_bytes)


class Buffer(Parameters):
    """A PE's or tile's buffer of one operand."""

    capacity_bytes: int = integer(0, 1 << 40, "bytes in a PE or tile; 0: PEs read the memory directly", unit="bytes")
    ports: Literal[1, 2] = option("2: filled while it is read; 1: filled or read")


class Buffers(Parameters):
    """Buffers of each PE (pe_array) or tile."""

    activation: Buffer = option("buffer of activations; of tiled machines: of what is on the columns")
    weight: Buffer = option("buffer of weights; of tiled machines: of what is on the rows")
    accumulator_sets: Literal[1, 2] = option(
        "2: finished results leave while the next are accumulated in a second set; 1: PEs wait for them to leave"
    )


class Formats(Parameters):
    """How tensors are stored, off chip and in the memories on chip."""

    activation: Format = option("activations", default="dense")
    weight: Format = option("weights", default="dense")
    gradient: Format = option("output gradients, and the input gradients that become them", default="dense")


class Memory(Parameters):
    """The ``memory`` section of a machine file, or a file of its own that the section names."""

    value_bits: Literal[8, 16, 32] = option("bits of a weight, activation or gradient")
    accumulator_bits: Literal[16, 24, 32, 64] = option("bits of a partial sum")
    offchip: OffChip = option("memory beside the chip")
    activation_memory: OnChip = option("holds activations and gradients")
    weight_memory: OnChip = option("holds weights and weight gradients")
    formats: Formats = option("how tensors are stored", default=Formats())
    write_back: Literal["always", "unless_kept"] = option(
        "always: every result goes off chip, as training needs; unless_kept: not if the next layer finds it on chip",
        default="always",
    )
    order: Literal["layer", "sample"] = option(
        "layer: the batch's samples of a layer, then the next layer, as training runs; sample: a sample through all "
        "layers, then the next sample",
        default="layer",
    )

    def stored_bytes(self, operand: Operand) -> np.ndarray:
        """Bytes of each part in the format of its tensor, metadata included."""
        form = getattr(self.formats, operand.tensor)
        values, nonzeros = operand.values, operand.nonzeros
        if form == "bitmask":
            bits: np.ndarray = values + nonzeros * self.value_bits
        elif form == "run_length":
            from accelsim.hardware.kernels.zero_runs import RUN_BITS

            bits = (nonzeros + operand.placeholders) * (self.value_bits + RUN_BITS)
        elif form == "zvc":
            bits = -(-values // ZVC_VALUES) * ZVC_VALUES + nonzeros * self.value_bits
        else:
            bits = values * self.value_bits
        return -(-bits // 8)

    def value_bytes(self, values: np.ndarray) -> np.ndarray:
        """Bytes of so many values, nothing compressed."""
        return -(-values * self.value_bits // 8)

    def partial_bytes(self, sums: np.ndarray) -> np.ndarray:
        """Bytes of so many partial sums."""
        return -(-sums * self.accumulator_bits // 8)
