"""A worker: takes a lease on a unit that is ready, makes it, commits it, until nothing or no time is left.

Workers of every ``cluster=`` run this; none needs to know of the others.
"""

from __future__ import annotations

import json
import random
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import AccessError, StoreError, TornShardError, WsolError
from wsolpipe.contract.layout import file_of, lease_name
from wsolpipe.contract.named import missing_package
from wsolpipe.engine.commit import now
from wsolpipe.engine.data_check import check_before_stages
from wsolpipe.engine.graph import Graph, Node, resolve
from wsolpipe.engine.indexing import IndexWork
from wsolpipe.engine.leases import Leases
from wsolpipe.engine.maker import Abandoned, Maker, failure_name
from wsolpipe.engine.plan import State, Units, examine
from wsolpipe.engine.session import Session, name_keys
from wsolpipe.networks.devices import device_error, is_device_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsolpipe.contract.manifest import CommitRecord
    from wsolpipe.keys.run_keys import RunConfig


#: Time allowed for a unit, relative to the slowest similar unit.
MARGIN = 1.25
#: Time reserved to abandon the running unit, keep its finished blocks on scratch, and release its lease; at most a
#: tenth of the whole.
LAST_SECONDS = 5.0


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


POLL_SECONDS = 0.2


class Outcome(StrEnum):
    """Result of an attempt at one unit."""

    MADE = "made"
    EXISTED = "another worker made it before"
    HELD = "another worker holds its lease"
    AGAIN = "failed, to be tried again"
    FAILED = "failed for good"


@dataclass
class Worker:
    """Runs units of one session in this process.

    Attributes
    ----------
    emit : callable
        Receives events: plain dictionaries with a field ``event``.
    stop : threading.Event
        Set when this process is to end: the running unit is abandoned at its next block.
    idle : float or None
        Seconds without anything to do after which it ends though others are still at work; None for never.
    late : bool
        Whether it ended, with work left, because of its wall time.
    """

    session: Session
    emit: Callable[[dict[str, Any]], None]
    stop: threading.Event = field(default_factory=threading.Event)
    idle: float | None = None
    late: bool = False
    _short: bool = False
    _tries: Counter[str] = field(default_factory=Counter)
    _torn: Counter[str] = field(default_factory=Counter)
    _seen: dict[str, Units] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.leases = Leases(self.session.backend, ttl=self.session.config.lease)
        self.rng = random.Random(self.leases.owner.token)
        self.maker = Maker(self.session, self.leases, self.emit, self._must_end)
        self.time_left = TimeLeft.of(self.session.config)

    def run(self) -> None:
        """Work until everything asked for is made, has failed for good, `stop` is set or time is up."""
        for split, key in self.session.config.index.items():
            self._finish_index(IndexWork(self.session, split, key))
        if not self._must_end():
            check_before_stages(self.session, self.emit)
        since = time.monotonic()
        while not self._must_end():
            made, waiting = self._round(resolve(self.session, fetch=True))
            if made:
                since = time.monotonic()
                continue
            if self._short:
                self._end_late()
            if not waiting or (self.idle is not None and time.monotonic() - since > self.idle):
                return
            self.stop.wait(POLL_SECONDS)

    def _must_end(self) -> bool:
        """Whether to end now, on request or because time is up."""
        if not self.stop.is_set() and self.time_left.is_up():
            self._end_late()
        return self.stop.is_set()

    def _end_late(self) -> None:
        self.late = True
        left = max(0.0, self.time_left.seconds)
        self.emit({"event": "late", "text": f"{left:.0f} s of the wall time are left: too few for another shard"})
        self.stop.set()

    def _finish_index(self, work: IndexWork) -> None:
        """Scan, perhaps beside other workers, then assemble."""
        while not self._must_end() and self.session.index_of(work.split) is None:
            made = [self._scan(work, shard) for shard in work.pending() if not self.stop.is_set()]
            if not work.pending():
                damaged = work.damaged_scans()
                for shard in damaged:
                    work.discard_scan(shard)  # pending again
                if not damaged:
                    work.assemble()
            elif not any(made):
                self.stop.wait(POLL_SECONDS)

    def _scan(self, work: IndexWork, shard: int) -> bool:
        lease = self.leases.acquire(lease_name(work.folder, shard))
        if lease is None:
            return False
        try:
            with lease.beating():
                record = work.scan(shard, lease, self.maker.check)
        except Abandoned:
            self.stop.set()
            return False
        rows = record.stop - record.start
        counts = {"rows": rows, "ok": record.ok, "quarantined": rows - record.ok}
        self.maker.report("shard", work, shard=shard, **counts, seconds=record.seconds)
        return True

    def _round(self, graph: Graph) -> tuple[int, bool]:
        """Go through all nodes once; return the number of units made, and whether other workers hold some."""
        known: dict[tuple[str, str | None], Units] = {}
        made, waiting = 0, False
        self._short = False
        for node in graph.nodes:
            if node.blocked:
                continue
            units = examine(self.session, node, known, self._seen.get(node.folder))
            known[node.stage, node.split] = self._seen[node.folder] = units
            more, busy = self._work_through(node, units, known)
            made, waiting = made + more, waiting or busy
            if self.stop.is_set():
                return made, False
            if node.split is None and made:
                return made, waiting  # keys that depend on this artifact are known now
        return made, waiting

    def _work_through(self, node: Node, units: Units, known: dict[tuple[str, str | None], Units]) -> tuple[int, bool]:
        """Make what is pending of one node and ready.

        A worker goes on in order until it meets another one's work. Then it reads the remaining units and goes on from
        a random place: so workers spread over the shards instead of following each other.
        """
        left = [unit for unit in units.pending() if not self._has_failed(node, unit) and is_ready(node, unit, known)]
        place, made, waiting = 0, 0, False
        while left and not self.stop.is_set():
            unit = left.pop(place % len(left))
            if not self.time_left.fits(node, unit, units):
                self._short = True
                continue
            outcome, record = self._attempt(node, unit)
            waiting = waiting or outcome in {Outcome.HELD, Outcome.AGAIN}
            if record is not None:
                made += 1
                units.states[unit], units.records[unit] = State.DONE, record
                if outcome is Outcome.MADE:
                    self.time_left.note(node, record)
            if outcome in {Outcome.HELD, Outcome.EXISTED}:
                standing = set(self.session.backend.names(f"{node.folder}/commits"))
                left = [
                    unit for unit in left if units.states[unit] is not State.MISSING or file_of(unit) not in standing
                ]
                place = self.rng.randrange(len(left)) if left else 0
        return made, waiting

    def _attempt(self, node: Node, unit: int | None) -> tuple[Outcome, CommitRecord | None]:
        """Make one unit if its lease is free; return the outcome, and the record in the store."""
        lease = self.leases.acquire(lease_name(node.folder, unit))
        if lease is None:
            return Outcome.HELD, None
        try:
            with lease.beating():
                record, made = self.maker.make(node, unit, lease)
                return Outcome.MADE if made else Outcome.EXISTED, record
        except Abandoned:
            self.stop.set()
            return Outcome.FAILED, None
        except TornShardError as error:
            self._torn[lease.name] += 1  # its upstream is remade first, unless that does not help
            if self._torn[lease.name] > self.session.config.retries + 1:
                self._note_failure(node, unit, error)
        except WsolError as error:
            if lease.lost:
                return Outcome.HELD, None
            name_keys(error, node.stage, node.params)
            if not isinstance(error, StoreError) or isinstance(error, AccessError):
                raise
            self._note_failure(node, unit, error)
        except Exception as error:
            if isinstance(error, ImportError) and (missing := missing_package(error)):
                raise missing from error
            if is_device_fault(error):
                raise device_error(error, self.session.device()) from error
            self._note_failure(node, unit, error)
        return Outcome.FAILED if self._has_failed(node, unit) else Outcome.AGAIN, None

    def _has_failed(self, node: Node, unit: int | None) -> bool:
        return self._tries[failure_name(node.folder, unit)] > self.session.config.retries

    def _note_failure(self, node: Node, unit: int | None, error: Exception) -> None:
        name = failure_name(node.folder, unit)
        self._tries[name] += 1
        text = f"{type(error).__name__}: {error}"
        note = {"error": text, "traceback": traceback.format_exc(), "tries": self._tries[name], "time": now()}
        self.session.backend.replace(name, json.dumps(note).encode())
        details = {"error": text, "tries": self._tries[name], "traceback": note["traceback"]}
        self.maker.report("failure", node, shard=unit, **details)


def is_ready(node: Node, unit: int | None, known: dict[tuple[str, str | None], Units]) -> bool:
    """Whether everything that a unit reads is complete."""
    for need in node.upstream:
        units = known.get((need.stage, need.split))
        if units is None or any(units.states.get(shard) is not State.DONE for shard in node.reads(need, unit)):
            return False
    return True
