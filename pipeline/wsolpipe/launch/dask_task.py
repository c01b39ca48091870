"""Code that runs in a Dask worker: a check before work, then one unit after another with models kept loaded."""

from __future__ import annotations

import functools
import platform
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ClusterError, WsolError
from wsolpipe.engine.config import for_worker
from wsolpipe.engine.session import Session, software_versions
from wsolpipe.engine.worker import Worker
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.launch.wall_time import settle_end

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distributed import Worker as DaskWorker

Unit = tuple[str, "str | None", "int | None"]
TOKEN_PATIENCE = 5.0
LEAVE_SECONDS = 2.0
"""Time for fetching the last result of a worker before it ends."""
SAME_VERSIONS = "install the same versions there: labels depend on them"
UNDER_WAY = frozenset(["begin", "rows", "progress"])
REPORT_SECONDS = 1.0
_last_report = [float("-inf")]
_ALONE = threading.Lock()
"""One unit at a time per process, whatever its number of threads: a device holds one set of models."""


@dataclass(frozen=True)
class Order:
    """Configuration that every task of a run gets.

    Attributes
    ----------
    config : str
        The run's configuration as JSON.
    token : str
        Object that the submitting process wrote to the store; empty where workers run on its machine.
    versions : tuple of (str, str)
        Software of the submitting process with versions, which the worker must have too.
    lead : float
        Seconds before the end of the job around a worker at which it must have ended.
    ends_here : bool
        Whether all workers end at one time, which the configuration already holds.
    """

    config: str
    token: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    lead: float = 0.0

    ends_here: bool = False

    @property
    def topic(self) -> str:
        """Topic for reports of progress: one per run, since runs may share a cluster."""
        return f"wsolpipe {self.token}"

    @classmethod
    def here(cls, config: RunConfig) -> Order:
        """The order for workers on this machine, which end with the process that starts them."""
        return cls(for_worker(config).to_json(), ends_here=config.ends_at is not None)

    def settled(self) -> RunConfig:
        """The configuration, with the end of this process in it."""
        config = RunConfig.from_json(self.config)
        return config if self.ends_here else settle_end(config, lead=self.lead)


class _Leaving(threading.Event):
    """Set once this Dask worker is asked to end: the running unit is then abandoned at its next block."""

    def __init__(self, worker: DaskWorker) -> None:
        super().__init__()
        self.worker = worker

    def is_set(self) -> bool:
        from distributed.core import Status

        return super().is_set() or self.worker.status not in {Status.running, Status.paused}


def run_task(order: Order, unit: Unit) -> tuple[list[dict[str, Any]], str]:
    """Make one unit; return its events and the result of `Worker.run_unit`.

    Raises
    ------
    WsolError
        An error that ends the whole run; ClusterError if this worker cannot take part in it.
    """
    with _ALONE:
        worker, events = _worker(order)
        events.clear()
        outcome = worker.run_unit(*unit)
        if outcome == "late" and not order.ends_here:
            _leave()
        return list(events), outcome


@functools.lru_cache(maxsize=1)
def _worker(order: Order) -> tuple[Worker, list[dict[str, Any]]]:
    """This process's worker for an order, with models kept loaded between tasks, and the list of its events."""
    from distributed import get_worker

    problem = look(order)
    if problem:
        raise ClusterError(problem[0], hint=problem[1])
    events: list[dict[str, Any]] = []
    emit = functools.partial(_emit, get_worker(), order.topic, events)
    return Worker(Session.open(order.settled()), emit, _Leaving(get_worker())), events


def _emit(worker: DaskWorker, topic: str, events: list[dict[str, Any]], event: dict[str, Any]) -> None:
    """Keep an event until its unit is done; reports of progress are sent at once, at most every `REPORT_SECONDS`."""
    if event["event"] not in UNDER_WAY:
        events.append(event)
    elif event["event"] == "begin" or time.monotonic() - _last_report[0] > REPORT_SECONDS:
        _last_report[0] = time.monotonic()
        worker.log_event(topic, event)


def _leave() -> None:
    """Let this Dask worker end soon: its replacement has the full wall time."""
    from distributed import get_worker

    worker = get_worker()
    worker.loop.call_later(LEAVE_SECONDS, functools.partial(worker.close_gracefully, reason="wall time"))


def look(order: Order) -> tuple[str, str | None] | None:
    """Why this machine cannot take part, and what to do about it; None if it can."""
    differ = differences(software_versions(), dict(order.versions))
    if differ:
        return f"{platform.node()} has {', '.join(differ)}", SAME_VERSIONS
    try:
        session = Session.open(RunConfig.from_json(order.config))
        if order.token and not _sees(session, order.token):
            return (
                f"{platform.node()} sees another store at {session.config.store} than this machine",
                "name a store that both see: a shared folder by its absolute path, or s3://bucket/folder",
            )
    except WsolError as error:
        hint = error.hint or "data sets, weights and stores must be reachable under the same names there"
        return f"{platform.node()} cannot take part: {error.message}", hint
    return None


def differences(there: Mapping[str, str | None], wanted: Mapping[str, str]) -> list[str]:
    """Software that is missing or has another version than wanted; of Python only the minor version counts."""

    def shown(name: str, version: str | None) -> str | None:
        return ".".join(version.split(".")[:2]) if version and name == "python" else version

    pairs = {name: (shown(name, there.get(name)), shown(name, wanted[name])) for name in wanted}
    return [
        f"{name} {have} instead of {want}" if have else f"no {name}"
        for name, (have, want) in pairs.items()
        if have != want
    ]


def _sees(session: Session, token: str) -> bool:
    """Whether the store holds the token; waits a moment, since a network file system may show it late."""
    deadline = time.monotonic() + TOKEN_PATIENCE
    while session.backend.size(token) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
