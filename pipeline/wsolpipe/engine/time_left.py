"""The time that this process has left, and whether a unit of work can end in it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsolpipe.contract.manifest import CommitRecord
    from wsolpipe.engine.config import RunConfig
    from wsolpipe.engine.graph import Node
    from wsolpipe.engine.plan import Units

MARGIN = 1.25
"""What a unit may take, over what the slowest of those like it took."""
LAST_SECONDS = 5.0
"""Time in which work that is still under way is given up, its finished blocks kept on scratch, and its lease given
back; at most a tenth of the whole."""


@dataclass
class TimeLeft:
    """Counts down to `ends_at` of a configuration; without one there is always time.

    A unit is begun only if it can end in time: `MARGIN` times what the slowest unit like it took, by rows, as measured
    by this process, or else by the records in the store. Where nothing was measured yet it is begun. One that would
    not fit into all the time that this process had is begun in the first half of it: blocks that get done are kept.
    """

    ends: float | None
    whole: float = 0.0
    _own: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, config: RunConfig) -> TimeLeft:
        """From a configuration, at the start of a process."""
        if config.ends_at is None:
            return cls(None)
        whole = config.ends_at - time.time()
        return cls(time.monotonic() + whole, whole)

    @property
    def seconds(self) -> float:
        """Seconds left; infinite without a bound."""
        return float("inf") if self.ends is None else self.ends - time.monotonic()

    def is_up(self) -> bool:
        """Whether it is time to end."""
        return self.seconds <= min(LAST_SECONDS, self.whole / 10)

    def fits(self, node: Node, unit: int | None, units: Units) -> bool:
        """Whether a unit can end in time; `units` are the records of those like it."""
        if self.ends is None:
            return True
        if self.is_up():
            return False
        needed = self._needed(node, unit, units)
        left = self.seconds
        return needed is None or needed <= left or (needed > self.whole and left > self.whole / 2)

    def note(self, node: Node, record: CommitRecord) -> None:
        """Remember what a unit took that this process made."""
        if record.taken_over_from is None:
            self._own[node.folder] = max(_pace(record), self._own.get(node.folder, 0.0))

    def _needed(self, node: Node, unit: int | None, units: Units) -> float | None:
        """Seconds that a unit may take, None if nothing like it was measured."""
        others = (_pace(record) for record in units.records.values() if record.taken_over_from is None)
        pace = self._own.get(node.folder) or max(others, default=None)
        if pace is None:
            return None
        start, stop = (0, 1) if unit is None else node.shards.span(unit)
        return MARGIN * pace * (stop - start)


def _pace(record: CommitRecord) -> float:
    """Seconds a row."""
    return record.seconds / max(1, record.stop - record.start)
