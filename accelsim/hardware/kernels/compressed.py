"""Cambricon-X: cycles of a compressed stream of weights whose inputs are chosen by step indices."""

import numpy as np

from accelsim.hardware.kernels.jit import Bools, Int64s, kernel


@kernel
def compressed_cycles(mask: Bools, lanes: int, window: int) -> Int64s:
    """Cycles that each stream takes.

    A cycle takes the next ``lanes`` non-zeros, or as many as lie among the next ``window`` places. Behind the last
    non-zero nothing is looked at.

    Parameters
    ----------
    mask : bool[streams, elements]
    lanes, window : int

    Returns
    -------
    int64[streams]
    """
    streams, elements = mask.shape
    cycles = np.zeros(streams, np.int64)
    for s in range(streams):
        left = 0
        for place in range(elements):
            left += mask[s, place]
        place = 0
        while left:
            cycles[s] += 1
            stop = min(place + window, elements)
            free = lanes
            while place < stop and free and left:
                free -= mask[s, place]
                left -= mask[s, place]
                place += 1
    return cycles
