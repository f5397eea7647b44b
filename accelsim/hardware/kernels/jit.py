"""How kernels are compiled."""

from collections.abc import Callable

from numba import njit


def kernel(function: Callable) -> Callable:
    """Compiles a kernel, once for all runs; where no folder for a cache is writable, once for this run."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)
