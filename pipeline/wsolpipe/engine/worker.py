"""A worker: takes a lease on whatever is ready, makes it, commits it, until nothing is left.

One process alone, several of them, or tasks of a Dask cluster all run this; none needs to know of the others.
"""

from __future__ import annotations

import contextlib
import json
import threading
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import StoreError, TornShardError, WsolError
from wsolpipe.contract.layout import lease_name
from wsolpipe.engine.clock import now
from wsolpipe.engine.graph import Graph, Node, resolve
from wsolpipe.engine.indexing import IndexWork
from wsolpipe.engine.leases import Leases
from wsolpipe.engine.maker import Abandoned, Maker, failure_name
from wsolpipe.engine.plan import State, Units, examine

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsolpipe.contract.manifest import CommitRecord
    from wsolpipe.engine.session import Session

POLL_SECONDS = 0.2


@dataclass
class Worker:
    """Runs units of one session in this process.

    Attributes
    ----------
    emit : callable
        Receives events: plain dictionaries with a field ``event``.
    stop : threading.Event
        Set when this process shall end: the unit under way is abandoned at its next block.
    """

    session: Session
    emit: Callable[[dict[str, Any]], None]
    stop: threading.Event = field(default_factory=threading.Event)
    _tries: Counter[str] = field(default_factory=Counter)
    _torn: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.leases = Leases(self.session.backend, ttl=self.session.config.lease)
        self.maker = Maker(self.session, self.leases, self.emit, self.stop.is_set)

    def run(self) -> None:
        """Work until everything asked for is made, has failed for good, or `stop` is set."""
        for split, key in self.session.config.index.items():
            self._finish_index(IndexWork(self.session, split, key))
        while not self.stop.is_set():
            made, waiting = self._round(resolve(self.session, fetch=True))
            if made:
                continue
            if not waiting:
                return
            self.stop.wait(POLL_SECONDS)

    def run_unit(self, stage: str, split: str | None, unit: int | None) -> str:
        """Make one unit that a scheduler chose; return ``made``, ``busy`` (somebody else holds it) or ``failed``."""
        if stage == "index":
            assert split is not None
            assert unit is not None
            return (
                "made" if self._scan(IndexWork(self.session, split, self.session.config.index[split]), unit) else "busy"
            )
        record, busy = self._attempt(resolve(self.session, fetch=True).find(stage, split), unit)
        return "made" if record is not None else "busy" if busy else "failed"

    def _finish_index(self, work: IndexWork) -> None:
        """Scan with whoever else scans, then assemble."""
        while not self.stop.is_set() and self.session.index_of(work.split) is None:
            made = [self._scan(work, shard) for shard in work.pending() if not self.stop.is_set()]
            if not work.pending():
                with contextlib.suppress(TornShardError):  # damaged scans are pending again
                    work.assemble()
            elif not any(made):
                self.stop.wait(POLL_SECONDS)

    def _scan(self, work: IndexWork, shard: int) -> bool:
        lease = self.leases.acquire(lease_name(work.folder, shard))
        if lease is None:
            return False
        with lease.beating():
            record = work.scan(shard, lease)
        rows = record.stop - record.start
        self.emit({"event": "shard", "stage": "index", "split": work.split, "shard": shard, "rows": rows,
                   "ok": record.ok, "quarantined": rows - record.ok, "seconds": record.seconds})  # fmt: skip
        return True

    def _round(self, graph: Graph) -> tuple[int, bool]:
        """Go through all nodes once; count what was made, and tell whether others are at work."""
        known: dict[tuple[str, str | None], Units] = {}
        made, waiting = 0, False
        for node in graph.nodes:
            if node.blocked:
                continue
            units = known[node.stage, node.split] = examine(self.session, node, known)
            for unit in units.pending():
                if self.stop.is_set():
                    return made, False
                if self._given_up(node, unit) or not is_ready(node, unit, known):
                    continue
                record, busy = self._attempt(node, unit)
                waiting = waiting or busy
                if record is not None:
                    made += 1
                    units.states[unit], units.records[unit] = State.DONE, record
            if node.split is None and made:
                return made, waiting  # keys that waited for this artifact can be known now
        return made, waiting

    def _attempt(self, node: Node, unit: int | None) -> tuple[CommitRecord | None, bool]:
        """Make one unit if its lease is free; (record, False), (None, True) if busy, (None, False) if it failed."""
        lease = self.leases.acquire(lease_name(node.folder, unit))
        if lease is None:
            return None, True
        try:
            with lease.beating():
                return self.maker.make(node, unit, lease), False
        except Abandoned:
            self.stop.set()
            return None, False
        except TornShardError as error:
            self._torn[lease.name] += 1  # its upstream is made again first, unless that does not help
            if self._torn[lease.name] > self.session.config.retries + 1:
                self._note_failure(node, unit, error)
        except WsolError as error:
            if lease.lost:
                return None, True
            if not isinstance(error, StoreError) or isinstance(error.__cause__, OSError):
                raise
            self._note_failure(node, unit, error)
        except Exception as error:
            self._note_failure(node, unit, error)
        return None, not self._given_up(node, unit)

    def _given_up(self, node: Node, unit: int | None) -> bool:
        return self._tries[failure_name(node.folder, unit)] > self.session.config.retries

    def _note_failure(self, node: Node, unit: int | None, error: Exception) -> None:
        name = failure_name(node.folder, unit)
        self._tries[name] += 1
        text = f"{type(error).__name__}: {error}"
        note = {"error": text, "traceback": traceback.format_exc(), "tries": self._tries[name], "time": now()}
        self.session.backend.replace(name, json.dumps(note).encode())
        self.emit({"event": "failure", "stage": node.stage, "split": node.split, "shard": unit, "error": text,
                   "tries": self._tries[name], "traceback": note["traceback"]})  # fmt: skip


def is_ready(node: Node, unit: int | None, known: dict[tuple[str, str | None], Units]) -> bool:
    """Whether everything that a unit reads is made."""
    for need in node.upstream:
        units = known.get((need.stage, need.split))
        if units is None or any(units.states.get(shard) is not State.DONE for shard in node.reads(need, unit)):
            return False
    return True
