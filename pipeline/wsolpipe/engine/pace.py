"""How many rows a stage is given at once: a whole block of a fast stage, seconds of work of a slow one."""

from __future__ import annotations

from dataclasses import dataclass

from wsolpipe.engine.isolation import FAILURES_IN_A_ROW

SECONDS = 10.0
"""Work between two places at which a shard can be left and taken up again, where the stage's grain allows it."""


@dataclass
class Pace:
    """Rows at once for one stage in this process, learned from how long its rows take.

    Attributes
    ----------
    block : int
        Rows of a block, whose boundaries are never crossed.
    grain : int or None
        Rows after each of which a block may be cut without changing a result; None where it may not be.
    """

    block: int
    grain: int | None
    _rows: int = FAILURES_IN_A_ROW

    def stop(self, first: int, rows: int) -> int:
        """One past the last row to hand over with `first`, of a shard of `rows`."""
        end = min((first // self.block + 1) * self.block, rows)
        if self.grain is None:
            return end
        return min(end, first + -(-self._rows // self.grain) * self.grain)

    def learn(self, rows: int, seconds: float) -> None:
        """Note how long some rows took; at most four times as many are handed over next.

        Never fewer than it takes to tell a broken stage from a bad row.
        """
        if self.grain is not None:
            fitting = int(rows * min(4.0, SECONDS / max(seconds, 1e-6)))
            self._rows = max(FAILURES_IN_A_ROW, fitting // self.grain * self.grain)
