"""How the loops of this package are compiled: at first call, kept on disk, without the interpreter lock.

Numba keeps the machine code of a function and renews it when *the function's own file* changes, though functions and
constants of other files are compiled into it. So a compiled function uses nothing of other files: `compiled` refuses a
compiled function of another module, and constants stand beside the loops that read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core.dispatcher import Dispatcher

F = TypeVar("F", bound="Callable[..., Any]")


def compiled(function: F) -> F:
    """Compile a loop over arrays with numba.

    Compilation happens at the first call with each set of dtypes, never at import; the machine code is cached beside
    the module or in numba's user folder. The lock is released, so that decoding threads can run at the same time.

    Raises
    ------
    TypeError
        If it calls a compiled function of another module, whose changes its cache would miss.
    """
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        if isinstance(used, Dispatcher) and used.py_func.__module__ != function.__module__:
            msg = f"{function.__qualname__} is compiled with {name} of {used.py_func.__module__}: move it beside {name}"
            raise TypeError(msg)
    return cast("F", numba.njit(cache=True, nogil=True)(function))
