"""Progress of the stages of a run, added up from its events: rows, rate and time left; and the lines of a log."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsolpipe.keys.console import LINE_SECONDS, duration
from wsolpipe.launch.events import describe

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class StageProgress:
    """Rows of one stage on one split, or steps of an artifact.

    Attributes
    ----------
    name : str
        Stage and split.
    total : int or None
        Rows of the split, or steps; None where this process does not know.
    finished : int
        Rows of shards committed since the run began.
    partial : dict
        Shard -> rows of it done so far.
    steps : int or None
        Of an artifact, which has no rows.
    """

    name: str
    began: float
    total: int | None = None
    finished: int = 0
    partial: dict[Any, int] = field(default_factory=dict)
    steps: int | None = None

    @property
    def done(self) -> int:
        """Rows or steps done since the run began."""
        return self.finished + sum(self.partial.values()) if self.steps is None else self.steps

    def rate(self, now: float) -> float | None:
        """Rows or steps a second; None in the first second."""
        seconds = now - self.began
        return self.done / seconds if seconds > 1 and self.done else None

    def line(self, now: float) -> str:
        """Like ``proposals val: 340 of 520 rows, 2.1 img/s, 1 min 25 s left``."""
        unit = "rows" if self.steps is None else "steps"
        parts = [f"{self.done:,}{f' of {self.total:,}' if self.total else ''} {unit}"]
        rate = self.rate(now)
        if rate:
            parts.append(f"{rate:.1f} {'img' if self.steps is None else 'steps'}/s")
        if rate and self.total and self.total > self.done:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        return f"{self.name}: {', '.join(parts)}"


class RunProgress:
    """Adds up events.

    Parameters
    ----------
    clock : callable
        Seconds; monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._totals: dict[str, int] = {}
        self._stages: dict[tuple[str, str | None], StageProgress] = {}

    def note(self, event: dict[str, Any]) -> StageProgress | None:
        """Count an event; return the progress of its stage, None for an event without one."""
        kind = event["event"]
        if kind == "index":
            self._totals[event["split"]] = event["rows"]
        if kind not in {"begin", "rows", "progress", "shard"}:
            return None
        key = (event["stage"], event["split"])
        if key not in self._stages:
            name = f"{event['stage']} {event['split'] or ''}".strip()
            self._stages[key] = StageProgress(name, self.clock(), self._totals.get(event["split"] or ""))
        stage = self._stages[key]
        if kind == "rows":
            stage.partial[event["shard"]] = event["done"]
        elif kind == "progress" and event["split"] is None:
            stage.steps, stage.total = event["done"], event["total"]
        elif kind == "shard":
            stage.partial.pop(event["shard"], None)
            stage.finished += event["rows"]
            if event["split"] is None and stage.total is not None:
                stage.steps = stage.total
        return stage


class LogLines:
    """Lines of a log without a terminal: one for each event that has one, and one a minute for a stage under way.

    Parameters
    ----------
    write : callable
        Receives a line.
    progress : RunProgress
        Shared with a display, or of its own.
    """

    def __init__(self, write: Callable[[str], None], progress: RunProgress | None = None) -> None:
        self.write = write
        self.progress = progress or RunProgress()
        self._last: dict[str, float] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        """Write what the event says."""
        stage = self.progress.note(event)
        text = describe(event)
        if text is not None:
            self.write(text)
        if stage is None:
            return
        now = self.progress.clock()
        since = self._last.setdefault(stage.name, now)
        if text is None and now - since >= LINE_SECONDS:
            self.write(stage.line(now))
        if text is not None or now - since >= LINE_SECONDS:
            self._last[stage.name] = now
