"""Rows of a store's arrays, read by whole chunks and kept while they are in use."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from wsolpipe.contract.arrays import ArrayView

    Array = NDArray[Any]


class ChunkCache:
    """Arrays of single rows, read a run of rows at a time, the runs used last kept in memory.

    A store that fits into `budget` is thereby read once and then held.

    Parameters
    ----------
    arrays : mapping of str to ArrayView
        What to read, under which name.
    run_rows : int
        Rows a run; a multiple of the inner chunk reads no chunk twice.
    least_runs : int
        Runs that are kept whatever they weigh: those which the order visits in turns.
    budget : int
        Bytes to keep.
    """

    def __init__(self, arrays: dict[str, ArrayView], *, run_rows: int, least_runs: int, budget: int) -> None:
        self.arrays = arrays
        self.run_rows = run_rows
        row_bytes = sum(array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in arrays.values())
        self.capacity = max(least_runs, budget // max(1, row_bytes * run_rows))
        self.runs: OrderedDict[int, dict[str, Array]] = OrderedDict()
        self.reads = 0

    def fetch(self, rows: Iterable[int]) -> dict[int, dict[str, Array]]:
        """Arrays by row, then by name; each run is read at most once."""
        return {row: {name: run[row % self.run_rows] for name, run in self._run(row).items()} for row in rows}

    def _run(self, row: int) -> dict[str, Array]:
        number = row // self.run_rows
        if number in self.runs:
            self.runs.move_to_end(number)
        else:
            span = slice(number * self.run_rows, (number + 1) * self.run_rows)
            self.runs[number] = {name: array[span] for name, array in self.arrays.items()}
            self.reads += 1
            if len(self.runs) > self.capacity:
                self.runs.popitem(last=False)
        return self.runs[number]
