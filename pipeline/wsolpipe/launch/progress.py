"""Progress of a run: events as lines of a log, and rows and rates, from these events or from the store alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.layout import read_json
from wsolpipe.engine.graph import Node, resolve
from wsolpipe.engine.indexing import IndexWork
from wsolpipe.engine.plan import State, Units, examine
from wsolpipe.engine.worker import is_ready
from wsolpipe.keys.console import LINE_SECONDS, duration

if TYPE_CHECKING:
    from wsolpipe.engine.session import Session

#: Receives every event of a run: a plain dictionary with a field ``event``.
Emit = Callable[[dict[str, Any]], None]


def describe_event(event: dict[str, Any]) -> str | None:
    """One line for an event of a run; None for those that only move a progress bar."""
    kind = event["event"]
    if kind in {"note", "late"}:
        return str(event["text"])
    if kind == "warning":
        return f"warning: {event['text']}"
    if kind == "failure":
        where = f"{event['stage']} {event['split'] or ''} shard {event['shard']}"
        return f"failed (try {event['tries']}): {where}: {event['error']}"
    if kind == "shard":
        bad = f", {event['quarantined']} quarantined" if event["quarantined"] else ""
        what = "made" if event["split"] is None else f"shard {event['shard']}: {event['rows']} rows{bad}"
        how = "taken over" if event.get("taken_over") else f"{event['seconds']:.1f} s"
        return f"{event['stage']} {event['split'] or ''} {what}, {how}"
    return None


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
        text = describe_event(event)
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


@dataclass
class StoreWatch:
    """Polls a store, and emits an event for every shard made since the last look, for workers that are not heard."""

    session: Session
    emit: Emit
    _seen: dict[str, Units] = field(default_factory=dict)
    _failures: dict[str, bytes] = field(default_factory=dict)

    def look(self) -> int | None:
        """Report what is new; return how many units could be made now, None if everything asked for is made.

        The first look reports nothing of what was there before.
        """
        first = not self._seen
        graph = resolve(self.session)
        known: dict[tuple[str, str | None], Units] = {}
        missing = [split for split, index in graph.indexes.items() if index is None]
        ready, whole = sum(self._scans(split) for split in missing), not missing
        for node in graph.nodes:
            if node.blocked:
                whole = False
                continue
            before = self._seen.get(node.folder, Units())
            units = known[node.stage, node.split] = examine(self.session, node, known, before)
            if node.folder not in self._seen and units.pending():
                self.emit({"event": "begin", "stage": node.stage, "split": node.split, "shard": None})
            if not first:
                self._report_records(node, before, units)
            self._report_failures(node, silent=first)
            self._seen[node.folder] = units
            whole = whole and not units.pending()
            ready += sum(1 for unit in units.pending() if is_ready(node, unit, known))
        return None if whole else ready

    def _scans(self, split: str) -> int:
        """Shards of an index that are to be scanned; the last worker puts it together."""
        return max(1, len(IndexWork(self.session, split, self.session.config.index[split]).pending()))

    def _report_records(self, node: Node, before: Units, units: Units) -> None:
        for unit, record in units.records.items():
            if units.states[unit] is State.DONE and record != before.records.get(unit):
                self.emit({
                    "event": "shard", "stage": node.stage, "split": node.split, "shard": unit,
                    "rows": record.stop - record.start, "quarantined": len(record.quarantined),
                    "seconds": record.seconds, "taken_over": record.taken_over_from is not None,
                })  # fmt: skip

    def _report_failures(self, node: Node, *, silent: bool) -> None:
        backend = self.session.backend
        for name in backend.names(f"{node.folder}/failures"):
            path = f"{node.folder}/failures/{name}"
            try:
                content = backend.get(path)
                note = read_json(content)
                reported = {name: note[name] for name in ("error", "tries", "traceback")}
            except (FileNotFoundError, ValueError, KeyError, TypeError):  # being written, or damaged
                continue
            if self._failures.get(path) != content and not silent:
                unit = name.removesuffix(".json")
                self.emit({"event": "failure", "stage": node.stage, "split": node.split, "shard": unit, **reported})
            self._failures[path] = content
