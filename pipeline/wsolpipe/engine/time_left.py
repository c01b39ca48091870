"""The time that this process has left, and whether a unit can be finished in it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsolpipe.contract.manifest import CommitRecord
    from wsolpipe.engine.graph import Node
    from wsolpipe.engine.plan import Units
    from wsolpipe.keys.run_keys import RunConfig

MARGIN = 1.25
"""Time allowed for a unit, relative to the slowest similar unit."""
LAST_SECONDS = 5.0
"""Time reserved to abandon the running unit, keep its finished blocks on scratch, and release its lease; at most a
tenth of the whole."""


@dataclass
class TimeLeft:
    """Counts down to `ends_at` of a configuration; without one time is unlimited.

    A unit is started only if it can end in time: in `MARGIN` times the time per row of the slowest similar unit, as
    measured by this process, or else by the records in the store. Without a measurement it is started. A unit too long
    for the whole time of this process is started in the first half of it: finished blocks are kept.
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
        """Seconds left; infinite without a limit."""
        return float("inf") if self.ends is None else self.ends - time.monotonic()

    def is_up(self) -> bool:
        """Whether it is time to end."""
        return self.seconds <= min(LAST_SECONDS, self.whole / 10)

    def fits(self, node: Node, unit: int | None, units: Units) -> bool:
        """Whether a unit can end in time; `units` are the similar ones in the store."""
        if self.ends is None:
            return True
        if self.is_up():
            return False
        needed = self._needed(node, unit, units)
        left = self.seconds
        return needed is None or needed <= left or (needed > self.whole and left > self.whole / 2)

    def note(self, node: Node, record: CommitRecord) -> None:
        """Remember the time of a unit that this process made."""
        if record.taken_over_from is None:
            self._own[node.folder] = max(_pace(record), self._own.get(node.folder, 0.0))

    def _needed(self, node: Node, unit: int | None, units: Units) -> float | None:
        """Seconds that a unit may take, None if no similar one was measured."""
        others = (_pace(record) for record in units.records.values() if record.taken_over_from is None)
        pace = self._own.get(node.folder) or max(others, default=None)
        if pace is None:
            return None
        start, stop = (0, 1) if unit is None else node.shards.span(unit)
        return MARGIN * pace * (stop - start)


def _pace(record: CommitRecord) -> float:
    """Seconds a row."""
    return record.seconds / max(1, record.stop - record.start)
