"""One typed way to compile a numba kernel, so that strict typing survives the decorator.

Kernels are serial on purpose: numba's thread pools abort when two Python threads or a forked Ray
worker enter them together. They release the GIL, so callers may run several in threads. numba is
imported when a kernel is first called, for reading a config needs none.
"""

import threading
from collections.abc import Callable
from types import FunctionType
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# One thread compiles at a time; a kernel compiles those that it calls.
_compiling = threading.RLock()


class Kernel(Generic[P, R]):
    """A function that is compiled when it is first called, by Python or by another kernel."""

    def __init__(self, function: Callable[P, R]) -> None:
        """Take a function of a module."""
        self.__doc__ = function.__doc__
        self._function = function
        self._compiled: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the compiled function."""
        return self.compiled()(*args, **kwargs)

    def compiled(self) -> Callable[P, R]:
        """Return numba's function: nopython mode, cached on disk, without the GIL."""
        if self._compiled is None:
            with _compiling:
                self._compiled = self._compiled or self._compile()
        return self._compiled

    def _compile(self) -> Callable[P, R]:
        from numba import njit

        function = self._function
        assert isinstance(function, FunctionType)
        # numba knows its own functions only, so the kernels that this one calls stand for them.
        names = {
            name: value.compiled() if isinstance(value, Kernel) else value
            for name, value in function.__globals__.items()
            if name in function.__code__.co_names
        }
        plain = FunctionType(
            function.__code__,
            function.__globals__ | names,
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        plain.__module__, plain.__qualname__ = function.__module__, function.__qualname__
        compiled: Callable[P, R] = njit(cache=True, nogil=True)(plain)
        return compiled


def kernel(function: Callable[P, R]) -> Kernel[P, R]:
    """Compile `function` with numba when it is first called."""
    return Kernel(function)
