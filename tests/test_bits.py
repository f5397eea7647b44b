"""Is a mask the same after packing and unpacking, and is what is no packed mask refused?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from accelsim.errors import TraceError
from accelsim.workload.bits import pack, packed_size, unpack


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9)))
def test_unpack_undoes_pack(mask):
    packed = pack(mask)
    assert packed.dtype == np.uint8 and packed.shape == (packed_size(mask.size),)
    assert sum(bin(byte).count("1") for byte in packed.tolist()) == mask.sum()
    unpacked = unpack(packed, mask.shape)
    assert unpacked.dtype == bool
    np.testing.assert_array_equal(unpacked, mask)


def test_first_position_is_the_highest_bit_and_order_is_c():
    mask = np.zeros((2, 5), bool)
    mask[0, 0] = mask[1, 0] = mask[1, 4] = True  # positions 0, 5 and 9
    assert pack(mask).tolist() == [0b10000100, 0b01000000]
    assert pack(np.asfortranarray(mask)).tolist() == [0b10000100, 0b01000000]


@given(st.integers(1, 40), st.integers(0, 6))
def test_wrong_size_is_refused(count, size):
    if size != packed_size(count):
        with pytest.raises(TraceError, match=f"mask of {packed_size(count)} bytes, got uint8"):
            unpack(np.zeros(size, np.uint8), (count,))


def test_wrong_dtype_is_refused():
    with pytest.raises(TraceError, match="got int8"):
        unpack(np.zeros(1, np.int8), (8,))


@pytest.mark.parametrize("bit", range(3))
def test_filling_must_be_zero(bit):
    with pytest.raises(TraceError, match="last 3 bits must be zero"):
        unpack(np.array([1 << bit], np.uint8), (5,))
    assert unpack(np.array([1 << 3], np.uint8), (5,)).tolist() == [False] * 4 + [True]
