"""The memory that a layer takes at least, and what there is: a file of some hundred bytes may ask for any amount.

A lower bound, so that nothing is refused which would fit: the tensors that a pass reads, its padded map, and counts of
non-zeros at each place of one channel of it (``Convolution.effectual``).
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path

from accelsim.errors import TraceError
from accelsim.workload.trace import Layer

COUNT_BYTES = 8
SMALL_BYTES = 1 << 28  # for less nobody asks the system
CGROUP = Path("/sys/fs/cgroup")


def check(where: str, layer: Layer, reads: Iterable[str]) -> None:
    """Whether there is memory for a layer's tensors of these names.

    Raises
    ------
    TraceError
        That says how many bytes it needs, before any of them is taken.
    """
    needed = needed_bytes(layer, reads)
    if needed > SMALL_BYTES and needed > (there := available_bytes()):
        g = layer.geometry
        rule = f"needs at least {needed:,} bytes of memory, there are {there:,}"
        raise TraceError(f"{where}: {rule}; its map is {g.height} × {g.width}, padded by {g.padding}")


def needed_bytes(layer: Layer, reads: Iterable[str]) -> int:
    """Of the tensors named, a byte an element, and of the padded map where one of them has one."""
    names = set(reads)
    needed = sum(prod(layer.shape_of(name)) for name in names)
    if names & {"activation", "saved_activation"}:
        top, bottom, left, right = layer.geometry.padding
        padded = (layer.geometry.height + top + bottom) * (layer.geometry.width + left + right)
        channels = layer.geometry.channels
        needed += padded * (channels * layer.samples + COUNT_BYTES)
    return needed


def available_bytes() -> int:
    """Memory that this process may still take: of the machine, of its container, of its own limit."""
    return min(_limits(), default=1 << 62)


def _limits() -> Iterator[int]:
    with suppress(OSError, ValueError, KeyError):
        lines = [line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()]
        kibibytes = {name: int(count) for name, count, *_ in lines}
        yield 1024 * (kibibytes["MemAvailable:"] + kibibytes["SwapFree:"])
    with suppress(OSError, ValueError):  # "max" is none
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        yield max(0, int((CGROUP / "memory.max").read_text(encoding="ascii")) - used)
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            yield max(0, most - pages * resource.getpagesize())
