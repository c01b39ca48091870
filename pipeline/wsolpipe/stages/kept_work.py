"""Where a stage keeps work that is not done yet, so that a kill costs little of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    Array = np.ndarray[Any, Any]


class Parts:
    """Named results of parts of a block, which the engine keeps where a kill cannot reach; this one keeps nothing."""

    def get(self, name: str) -> Array | None:
        """The part `name` as an earlier attempt at the same block kept it."""

    def due(self) -> bool:
        """Whether it is time to keep what was made since the last time."""
        return False

    def keep(self, parts: Mapping[str, Array]) -> None:
        """Keep these parts too."""


class Unfinished:
    """Where an artifact stage keeps work that is not done, so that a kill costs a minute and not all of it.

    Parameters
    ----------
    path : Path, optional
        File that only this stage writes, removed once the artifact is committed; its name holds everything that the
        result depends on. None keeps nothing.
    every : float
        Seconds between two savings.
    stopping : callable
        Whether this process was asked to stop: then it is time to save.
    """

    def __init__(
        self, path: Path | None = None, *, every: float = 30.0, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.path = path
        self._every, self._stopping = every, stopping
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save; counted from the last time that it was."""
        if self.path is None or not (self._stopping() or time.monotonic() - self._last >= self._every):
            return False
        self._last = time.monotonic()
        return True
