"""Units of a run on a Dask cluster, started here or elsewhere; the scheduler carries unit names, never arrays."""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import sys
import time
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from wsolpipe.contract.errors import ClusterError, TornShardError, WsolError
from wsolpipe.engine.data_check import check_before_stages
from wsolpipe.engine.graph import resolve
from wsolpipe.engine.indexing import IndexWork
from wsolpipe.engine.plan import examine
from wsolpipe.engine.worker import is_ready
from wsolpipe.launch.dask_task import run_task

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from distributed import Client, Future

    from wsolpipe.engine.plan import Units
    from wsolpipe.engine.session import Session
    from wsolpipe.launch.dask_task import Order, Unit
    from wsolpipe.launch.events import Emit

ALLOWED_FAILURES = 20
LINK_SECONDS = 60
"""Seconds that a connection may be silent before either end closes it, on clusters that are started here."""
SETTINGS: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    "distributed.scheduler.worker-saturation": 1.0,  # a unit waits at the scheduler, where any worker can take it
    "distributed.comm.timeouts.tcp": f"{LINK_SECONDS}s",
    "distributed.worker.daemon": False,
    "distributed.worker.profile.enabled": False,
}
POLL_SECONDS = 0.5
REST_SECONDS = 1.0
IDLE_SECONDS = 5.0
WATCH_SECONDS = 2.0
FETCH_SECONDS = 10.0


class Dispatch:
    """Keeps a cluster's workers supplied with whatever is ready, until nothing is left.

    Parameters
    ----------
    order : Order
        Configuration that every task gets.
    watch : callable
        Called every few seconds with the number of workers; raises ClusterError to end the run.
    """

    def __init__(
        self, session: Session, client: Client, emit: Emit, stop: threading.Event, *, order: Order,
        watch: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.session, self.client, self.emit, self.stop = session, client, emit, stop
        self.order, self.watch = order, watch
        self.address = client.scheduler.address
        self.flying: dict[Unit, Future] = {}
        self.landed: queue.SimpleQueue[tuple[Unit, Future]] = queue.SimpleQueue()
        self.resting: dict[Unit, float] = {}
        self.failed: Counter[Unit] = Counter()
        self.late: Counter[Unit] = Counter()
        self.seen: dict[str, Units] = {}
        self.workers, self.watched, self.look_again, self.cut = 0, float("-inf"), float("-inf"), False

    def run(self) -> None:
        """Supply, collect, watch.

        Raises
        ------
        WsolError
            What a worker raised.
        ClusterError
            If the scheduler is lost, workers die repeatedly on the same unit, or `watch` ends the run.
        """
        self.client.subscribe_topic(self.order.topic, lambda event: self.emit(event[1]))  # (time, event)
        try:
            while not self.stop.is_set():
                self._watch()
                if self._hungry() and not self._supply() and not self.flying and not self.resting:
                    break
                self._collect()
            if self.order.ends_here and self.late:
                self.emit({"event": "late", "text": "too little of the wall time is left for another shard"})
        finally:
            with contextlib.suppress(Exception):  # a lost cluster needs no cleaning up
                self.client.cancel(list(self.flying.values()))

    def _hungry(self) -> bool:
        """Whether a worker may be idle, the connection works, and it is time to read the store again."""
        free = self.client.status == "running" and len(self.flying) <= self.workers
        return free and time.monotonic() >= self.look_again

    def _supply(self) -> int:
        """Submit every unit that is ready and not running; return how many."""
        now = time.monotonic()
        self.resting = {unit: until for unit, until in self.resting.items() if until > now}
        ready = [unit for unit in ready_units(self.session, self.seen, self.emit) if self._wanted(unit)]
        for unit in ready:
            future = self.client.submit(run_task, self.order, unit, pure=False, key=_task_name(unit))
            self.flying[unit] = future
            future.add_done_callback(lambda future, unit=unit: self.landed.put((unit, future)))
        self.look_again = now + (REST_SECONDS if self.resting else IDLE_SECONDS)
        return len(ready)

    def _wanted(self, unit: Unit) -> bool:
        done_for = self.failed[unit] > self.session.config.retries or (self.order.ends_here and self.late[unit])
        return not done_for and unit not in self.flying and unit not in self.resting

    def _collect(self) -> None:
        """Wait briefly for results, and handle all that have arrived."""
        with contextlib.suppress(queue.Empty):
            unit, future = self.landed.get(timeout=POLL_SECONDS)
            while True:
                if self.flying.get(unit) is future:
                    del self.flying[unit]
                    self._take_in(unit, future)
                    self.look_again = float("-inf")
                unit, future = self.landed.get_nowait()

    def _take_in(self, unit: Unit, future: Future) -> None:
        """Handle the result of a unit; one lost with its connection or worker is ready again."""
        from distributed import CancelledError

        if future.status == "error":
            _explain(unit, future.exception(timeout=FETCH_SECONDS))
        if future.status != "finished":
            return
        try:
            events, outcome = future.result(timeout=FETCH_SECONDS)
        except (TimeoutError, OSError, CancelledError):
            return
        for event in events:
            if event["event"] != "late":  # not reported: other workers replace the one that ends
                self.emit(event)
        if outcome in {"busy", "late"}:  # held by another run, or by a worker that ends
            self.resting[unit] = time.monotonic() + REST_SECONDS
        self.failed[unit] += outcome == "failed"
        self.late[unit] += outcome == "late"
        if self.late[unit] > ALLOWED_FAILURES:
            msg = f"{_unit_name(unit)} did not fit into the wall time of {self.late[unit]} workers"
            raise ClusterError(msg, hint="give workers more time (profile.time=), or make shards smaller (shard_rows=)")

    def _watch(self) -> None:
        """Check the connection and the number of workers, every few seconds."""
        status = self.client.status
        if status == "closed":
            msg = f"the Dask scheduler at {self.address} was lost"
            raise ClusterError(msg, hint="everything committed is kept: run again once there is a scheduler")
        if self.cut != (status == "connecting"):
            self.cut = not self.cut
            state = "is lost; reconnecting" if self.cut else "is restored"
            self.emit({"event": "warning", "text": f"the connection to the Dask scheduler at {self.address} {state}"})
            self.flying = {unit: future for unit, future in self.flying.items() if not future.cancelled()}
            self.look_again = float("-inf")
        if self.cut or time.monotonic() - self.watched < WATCH_SECONDS:
            return
        with contextlib.suppress(TimeoutError, OSError):
            self.workers = len(self.client.sync(self.client.scheduler.ncores, callback_timeout=FETCH_SECONDS))
            self.watched = time.monotonic()
            self.watch(self.workers)


def ready_units(session: Session, seen: dict[str, Units], emit: Emit) -> list[Unit]:
    """Units whose inputs are complete: scans first, then the pending units of every stage.

    `seen` keeps the units by folder, so that the next call reads only what is new.
    """
    scans: list[Unit] = []
    for split, key in session.config.index.items():
        if session.index_of(split) is None:
            work = IndexWork(session, split, key)
            pending = work.pending()
            scans += [("index", split, shard) for shard in pending]
            if not pending:
                with contextlib.suppress(TornShardError):  # damaged scans are pending again
                    work.assemble()
                scans += [("index", split, shard) for shard in work.pending()]
    if scans:
        return scans
    check_before_stages(session, emit)
    known: dict[tuple[str, str | None], Units] = {}
    ready: list[Unit] = []
    for node in resolve(session, fetch=True).nodes:
        if node.blocked:
            continue
        units = examine(session, node, known, seen.get(node.folder))
        known[node.stage, node.split] = seen[node.folder] = units
        ready += [(node.stage, node.split, unit) for unit in units.pending() if is_ready(node, unit, known)]
    return ready


def _task_name(unit: Unit) -> str:
    """Name of a task; the dashboard groups tasks by its prefix."""
    stage, split, shard = unit
    return f"{stage}-{split or 'artifact'}-{shard or 0}-{secrets.token_hex(8)}"


def _explain(unit: Unit, error: BaseException) -> NoReturn:
    """Raise the error of a unit with an explanation."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, WsolError):
        raise error
    if isinstance(error, KilledWorker):
        msg = f"{_unit_name(unit)} killed {error.allowed_failures + 1} workers"
        raise ClusterError(msg, hint="give workers more memory, or fewer of them a machine, and run again: it resumes")
    if isinstance(error, ImportError) or any(mark in str(error) for mark in ("deserializ", "Can't get attribute")):
        msg = f"{_unit_name(unit)}: the cluster could not load the code of the task: {error}"
        hint = "install the same wsolpipe for the scheduler and every worker, and your own stages for the workers"
        raise ClusterError(msg, hint=hint) from error
    raise error


def _unit_name(unit: Unit) -> str:
    stage, split, shard = unit
    return " ".join(str(part) for part in (stage, split, None if shard is None else f"shard {shard}") if part)


def no_bound(workers: int) -> None:
    """Watch nothing."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Dask's own log off the terminal, except with ``--debug``: events and errors report what matters."""
    import distributed  # noqa: F401 - creates its loggers, each with its own level

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    before = {name: logging.getLogger(name).level for name in names}
    if "--debug" not in sys.argv:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def dashboard_note(link: str) -> dict[str, Any]:
    """Event with the address of the dashboard of a scheduler in this process."""
    pages = "" if find_spec("bokeh") else " (its pages need bokeh: pip install bokeh)"
    return {"event": "note", "text": f"Dask dashboard: {link}{pages}"}
