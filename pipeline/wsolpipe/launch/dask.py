"""``cluster=dask-local``: worker processes of `distributed`; the scheduler carries unit names, never arrays."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ClusterError, TornShardError
from wsolpipe.engine.config import RunConfig, for_worker
from wsolpipe.engine.graph import resolve
from wsolpipe.engine.indexing import IndexWork
from wsolpipe.engine.plan import examine
from wsolpipe.engine.session import Session
from wsolpipe.engine.worker import Worker, is_ready

if TYPE_CHECKING:
    import threading

    from distributed import Client

    from wsolpipe.engine.plan import Units
    from wsolpipe.launch.launcher import Emit

Unit = tuple[str, "str | None", "int | None"]
ALLOWED_FAILURES = 20


def run_dask_local(session: Session, emit: Emit, stop: threading.Event) -> None:
    """Run on a Dask cluster of ``workers=`` processes of this machine."""
    import dask
    from distributed import Client, LocalCluster

    settings = {"distributed.scheduler.allowed-failures": ALLOWED_FAILURES, "distributed.worker.daemon": False}
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=session.config.workers, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        emit({"event": "note", "text": f"Dask dashboard: {cluster.dashboard_link}"})
        run_on_client(session, client, emit, stop)


def run_on_client(session: Session, client: Client, emit: Emit, stop: threading.Event) -> None:
    """Submit whatever is ready, round by round, until nothing is left.

    Raises
    ------
    WsolError
        What a worker raised.
    ClusterError
        If workers die again and again on the same unit.
    """
    tries: Counter[Unit] = Counter()
    while not stop.is_set():
        units = [unit for unit in _ready_units(session) if tries[unit] <= session.config.retries]
        if not units:
            return
        busy = _submit(session, client, units, tries, emit, stop)
        if busy == len(units):
            time.sleep(0.2)  # all of them are in the hands of another run


def _ready_units(session: Session) -> list[Unit]:
    """Units whose inputs are made: scans first, then the first pending units of every stage."""
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
    known: dict[tuple[str, str | None], Units] = {}
    found: list[Unit] = []
    for node in resolve(session, fetch=True).nodes:
        if node.blocked:
            continue
        units = known[node.stage, node.split] = examine(session, node, known)
        found += [(node.stage, node.split, unit) for unit in units.pending() if is_ready(node, unit, known)]
    return found


def _submit(
    session: Session, client: Client, units: list[Unit], tries: Counter[Unit], emit: Emit, stop: threading.Event
) -> int:
    """Run `units`; return how many were found in other hands."""
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    text = for_worker(session.config).to_json()
    futures = {client.submit(_task, text, unit, pure=False): unit for unit in units}
    busy = 0
    for future in as_completed(futures):
        unit = futures[future]
        if stop.is_set():
            client.cancel(list(futures))
            return busy
        if future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                msg = f"unit {unit} killed its worker {ALLOWED_FAILURES} times"
                raise ClusterError(msg, hint="run again with fewer workers=: it resumes") from error
            raise error
        events, outcome = future.result()
        for event in events:
            emit(event)
        busy += outcome == "busy"
        tries[unit] += outcome == "failed"
        future.release()
    return busy


@functools.lru_cache(maxsize=1)
def _worker(text: str) -> tuple[Worker, list[dict[str, Any]]]:
    """This process's worker for a configuration, with its models kept between tasks, and where its events go."""
    events: list[dict[str, Any]] = []
    return Worker(Session.open(RunConfig.from_json(text)), events.append), events


def _task(text: str, unit: Unit) -> tuple[list[dict[str, Any]], str]:
    """Make one unit; return its events and made, busy or failed."""
    worker, events = _worker(text)
    events.clear()
    outcome = worker.run_unit(*unit)
    return list(events), outcome
