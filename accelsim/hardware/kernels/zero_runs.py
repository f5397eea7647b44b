"""Run-length coding of zeros: how many zeros have to be spelled out."""

import numpy as np

from accelsim.hardware.kernels.jit import Bools, Int64s, kernel

# SCNN (ISCA 2017, section 3) and EIE (ISCA 2016, section 3) both count the zeros before a value in four bits.
RUN_BITS = 4


@kernel
def placeholders(parts: Bools) -> Int64s:
    """Zeros that stand among the values of each part because a run before a value is too long for its counter.

    Parameters
    ----------
    parts : bool[parts, values]

    Returns
    -------
    int64[parts]
        Of each run of z zeros before a non-zero, floor(z / 2**RUN_BITS): a run of 15 and the zero itself make 16.
        Zeros at the end of a part are not coded.
    """
    counts = np.zeros(parts.shape[0], np.int64)
    for part in range(parts.shape[0]):
        run = 0
        for value in parts[part]:
            if value:
                counts[part] += run >> RUN_BITS
                run = 0
            else:
                run += 1
    return counts
