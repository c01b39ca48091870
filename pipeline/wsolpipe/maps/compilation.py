"""How the loops of this package are compiled: at first call, kept on disk, without the interpreter lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

F = TypeVar("F", bound="Callable[..., Any]")


def compiled(function: F) -> F:
    """Compile a loop over arrays with numba.

    Compilation happens at the first call with each set of dtypes, never at import; the machine code is cached beside
    the module or in numba's user folder. The lock is released, so that decoding threads go on meanwhile.
    """
    return cast("F", numba.njit(cache=True, nogil=True)(function))
