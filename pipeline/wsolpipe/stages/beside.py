"""Results of another stage for the rows of a block and for the frames beside them, which may lie in other shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.schema import Status

if TYPE_CHECKING:
    from wsolpipe.contract.reader import StageView
    from wsolpipe.stages.base import Array, Rows, Upstream


class Beside:
    """Rows that a stage of frames reads of another stage.

    Parameters
    ----------
    view : StageView
        The other stage, for the rows outside of the block.
    own : Upstream
        Its arrays for the rows of the block.
    rows : Rows
        The block.

    Attributes
    ----------
    places : int64 array [n, 2k + 1]
        Position in what `array` returns of the frames around each row, itself in the middle; −1 where there is none,
        or none with a result.
    """

    def __init__(self, view: StageView, own: Upstream, rows: Rows) -> None:
        self._view, self._own = view, own
        self._outside = np.setdiff1d(rows.beside[rows.beside >= 0], rows.numbers)
        numbers = np.concatenate([rows.numbers, self._outside])
        half = rows.beside.shape[1] // 2
        wanted = np.concatenate([rows.beside[:, :half], rows.numbers[:, None], rows.beside[:, half:]], axis=1)
        order = np.argsort(numbers)
        places = order[np.searchsorted(numbers[order], np.maximum(wanted, numbers.min()))]
        good = (wanted >= 0) & (self._with_outside("status", own.status)[places] == Status.OK)
        self.places = np.where(good, places, -1)

    def array(self, name: str) -> Array:
        """An array of the other stage: the rows of the block, then those of its frames outside."""
        return self._with_outside(name, self._own.arrays[name])

    def around(self, position: int) -> Array:
        """Places of the frames around a row that have a result, its own included, earliest first."""
        near = self.places[position]
        found: Array = near[near >= 0]
        return found

    def _with_outside(self, name: str, inside: Array) -> Array:
        return np.concatenate([inside, self._view[name][self._outside]]) if len(self._outside) else inside
