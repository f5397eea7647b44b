"""How kernels are compiled."""

import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

from accelsim.errors import AccelsimWarning

# Arrays as kernels take them: the dtype is part of what is compiled.
Bools = npt.NDArray[np.bool_]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def kernel(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compiles a kernel, once for all runs; where no folder for a cache is writable, once for this run.

    A cache that fails later, on a full disk or because it is damaged, costs a warning and the time to compile.
    """
    try:
        compiled: Callable[Arguments, Result] = njit(nogil=True, cache=True)(function)
    except RuntimeError:
        compiled = njit(nogil=True)(function)
    _forgive(getattr(compiled, "_cache", None))  # none with the JIT off
    return compiled


def _forgive(cache: Any) -> None:
    """Numba saves what it has compiled before it is run, and would fail where it cannot."""

    def forgiving(method: Callable[..., Any]) -> Callable[..., Any]:
        def tried(*arguments: Any) -> Any:
            try:
                return method(*arguments)
            except Exception as error:
                reason = getattr(error, "strerror", None) or f"{type(error).__name__}, it may be damaged"
                text = f"Numba's cache {cache.cache_path}: {reason}; kernels are compiled anew in each run"
                warnings.warn(text, AccelsimWarning, stacklevel=2)
                return None

        return tried

    if cache is not None:
        cache.load_overload, cache.save_overload = map(forgiving, (cache.load_overload, cache.save_overload))


def inlined(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A part of a kernel, put in the place of its calls: a call counts references to each array that it hands on.

    It has one return, at its end, and no break: what jumps out of a loop counts references as well.
    """
    part: Callable[Arguments, Result] = njit(inline="always")(function)
    return part
