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

# A number that is no literal: to Numba those are types of their own, and a function that takes both is compiled twice.
int64: Any = np.int64

# What is left out where nobody calls a kernel from there: each takes a tenth of a second to compile, or more.
NOT_FOR_C: dict[str, Any] = {"no_cfunc_wrapper": True}
NOT_FOR_PYTHON: dict[str, Any] = {"no_cpython_wrapper": True}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def kernel(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compiles a kernel, once for all runs; where no folder for a cache is writable, once for this run.

    A cache that fails later, on a full disk or because it is damaged, costs a warning and the time to compile.
    """
    try:
        compiled: Callable[Arguments, Result] = njit(nogil=True, cache=True, **NOT_FOR_C)(function)
    except RuntimeError:
        compiled = njit(nogil=True, **NOT_FOR_C)(function)
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


def part(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A part of a kernel, compiled with it and called by it alone: what Python would need to call it is left out.

    That is as much to compile as the part itself, where it is small.
    """
    called: Callable[Arguments, Result] = njit(nogil=True, **NOT_FOR_C, **NOT_FOR_PYTHON)(function)
    return called


def inlined(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A part of a kernel, put in the place of its calls: a call counts references to each array that it hands on.

    It has one return, at its end, and no break: what jumps out of a loop counts references as well.
    """
    part: Callable[Arguments, Result] = njit(inline="always")(function)
    return part
