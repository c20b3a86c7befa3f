"""One typed way to compile a numba kernel, so that strict typing survives the decorator.

Kernels are serial on purpose: numba's thread pools abort when two Python threads or a forked Ray
worker enter them together. They release the GIL, so callers may run several in threads.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` with numba in nopython mode, cached on disk, without the GIL."""
    compiled: Callable[P, R] = njit(cache=True, nogil=True)(function)
    return compiled
