"""Run-length coding of zeros: how many zeros have to be spelled out."""

import numpy as np

from accelsim.hardware.kernels.jit import Bools, Bytes, Int64s, kernel

# SCNN (ISCA 2017, section 3) and EIE (ISCA 2016, section 3) both count the zeros before a value in four bits.
RUN_BITS = 4
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(bool)
# Of each byte the bits that are set, and the zeros before the first of them and behind the last.
SET = _BITS.sum(axis=1)
BEFORE, BEHIND = (np.where(SET > 0, order.argmax(axis=1), 8) for order in (_BITS, _BITS[:, ::-1]))


def tally(parts: Bools) -> tuple[Int64s, Int64s]:
    """Non-zeros of each part, bool[parts, values], and its placeholders, as below."""
    return placeholders(np.packbits(parts, axis=1, bitorder="little"))


@kernel
def placeholders(parts: Bytes) -> tuple[Int64s, Int64s]:
    """Values of each part, and zeros that stand among them because a run before a value is too long for its counter.

    Parameters
    ----------
    parts : uint8[parts, bytes]
        A bit a place, set where it is not zero, the lowest first. Within a byte no run is too long.

    Returns
    -------
    nonzeros : int64[parts]
    placeholders : int64[parts]
        Of each run of z zeros before a non-zero, floor(z / 2**RUN_BITS): a run of 15 and the zero itself make 16.
        Zeros at the end of a part are not coded.
    """
    nonzeros, counts = np.zeros(parts.shape[0], np.int64), np.zeros(parts.shape[0], np.int64)
    for part in range(parts.shape[0]):
        run = 0
        for byte in parts[part]:
            nonzeros[part] += SET[byte]
            if byte:
                counts[part] += (run + BEFORE[byte]) >> RUN_BITS
                run = 0
            run += BEHIND[byte]
    return nonzeros, counts
