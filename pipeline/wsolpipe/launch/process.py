"""One worker process: its order comes as JSON on standard input, or in a file for a task of a job array.

On standard output it writes its events, a line of JSON each. A task of a job array writes a log for people instead, and
notes how it ended in a file beside its order, which a waiting run reads.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from wsolpipe.contract.errors import ClusterError, WsolError
from wsolpipe.engine.leases import Leases
from wsolpipe.engine.session import Session, software_versions
from wsolpipe.engine.worker import Worker
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.launch import slurm
from wsolpipe.launch.ending import EXIT_AGAIN, EXIT_DONE, EXIT_INTERRUPTED, Received, settle_end, stop_on_signals
from wsolpipe.launch.progress import LogLines

#: SLURM may send its signal that much earlier than requested (manual of sbatch).
EARLY_SECONDS = 60.0
TOKEN_PATIENCE = 5.0
#: Time between looks whether the run that waits is still there.
TOKEN_SECONDS = 5.0


@dataclass(frozen=True)
class WorkOrder:
    """Everything that a worker process needs to know.

    Attributes
    ----------
    config : RunConfig
        Configuration of a worker, with the keys of the indexes.
    versions : dict of str to str
        Software of the run with versions, which the worker must have too.
    token : str
        Lease in the store that the run holds while it waits: the worker must see it, and ends with it. Empty where
        nobody waits, or where workers are processes of the run's machine.
    lead : float
        Seconds before its wall time at which SLURM asks a task to end.
    requeues : int
        Times that a task which ran out of time goes back into the queue.
    idle : float or None
        Seconds without anything to do after which it ends though others are still at work; None for never.
    """

    config: RunConfig
    versions: dict[str, str] = field(default_factory=dict)
    token: str = ""
    lead: float = 0.0
    requeues: int = 0
    idle: float | None = None

    def to_json(self) -> str:
        """For a process."""
        return json.dumps({**asdict(self), "config": json.loads(self.config.to_json())}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> WorkOrder:
        """Inverse of `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "config": RunConfig.from_json(json.dumps(fields["config"]))})


class Channel:
    """Writes events to the process that started this one, which ends with it."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop, self.lock = stop, threading.Lock()
        self.file = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # whatever a library prints must not mix with the events
        follow(os.getppid(), stop)

    def emit(self, event: dict[str, Any]) -> None:
        """Write an event."""
        try:
            with self.lock:
                self.file.write(json.dumps(event) + "\n")
        except BrokenPipeError:  # the reading process was killed: end as if asked to
            self.stop.set()

    def failed(self, failure: Mapping[str, Any]) -> None:
        """Say what was wrong."""
        self.emit({"event": "fatal", **failure})

    def ended(self, code: int, why: str) -> int:  # noqa: ARG002
        """Return the exit code."""
        return code


class Log(LogLines):
    """Lines about a task of a job array, and the note of how it ended."""

    def __init__(self, folder: Path, requeues: int) -> None:
        super().__init__(_say)
        self.task = (os.environ.get("SLURM_ARRAY_JOB_ID", "0"), os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
        self.file, self.requeues = folder / f"{'_'.join(self.task)}.json", requeues
        self._note()
        _say(f"task {self.task[1]} of job {self.task[0]} on {platform.node()}")

    def emit(self, event: dict[str, Any]) -> None:
        """Write a line, with the traceback of a failure."""
        self(event)
        if event["event"] == "failure":
            print(event["traceback"], flush=True)

    def failed(self, failure: Mapping[str, Any]) -> None:
        """Note what was wrong."""
        self._note(code=1, **failure)

    def ended(self, code: int, why: str) -> int:
        """Note the end; a task whose time was up goes back into the queue, a limited number of times."""
        _say(f"ended: {why}")
        turn = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        if code == EXIT_AGAIN:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # requeueing ends this process: let it log that first
            if turn < self.requeues and slurm.requeue("_".join(self.task)):
                _say(f"back in the queue, for the {turn + 2}. time")
                return code
        if code in {EXIT_DONE, EXIT_AGAIN}:
            self._note(code=code)
        return code

    def _note(self, **fields: Any) -> None:
        self.file.write_text(json.dumps({"began": True, "time": _moment(), **fields}))


def main(words: list[str]) -> int:
    """Run the worker that an order describes.

    Returns
    -------
    int
        0 once nothing is left, 75 if it has to resume later, 130 if it was ended by a signal, or the code of the error.
    """
    stop = threading.Event()
    order = WorkOrder.from_json(Path(words[0]).read_text() if words else sys.stdin.read())
    report = Log(Path(words[0]).parent, order.requeues) if words else Channel(stop)
    try:
        with stop_on_signals(stop) as received:
            worker = begin(order, report, stop)
            worker.run()
    except WsolError as error:
        report.failed({"kind": type(error).__name__, "message": error.message, "hint": error.hint})
        return report.ended(error.exit_code, str(error))
    return report.ended(*_verdict(worker, received))


def begin(order: WorkOrder, report: Channel | Log, stop: threading.Event) -> Worker:
    """The worker of an order.

    Raises
    ------
    ClusterError
        If this machine has other versions than the run, or sees another store.
    """
    differ = version_differences(software_versions(), order.versions)
    if differ:
        msg = f"{platform.node()} has {', '.join(differ)}"
        raise ClusterError(msg, hint="install the same versions there: labels depend on them")
    lead = order.lead + min(order.lead, EARLY_SECONDS)
    try:
        session = Session.open(settle_end(order.config, lead=lead))
    except WsolError as error:
        if order.versions:
            error.message = f"{platform.node()}: {error.message}"
        raise
    if order.token:
        _follow_token(session, order.token, stop)
    return Worker(session, report.emit, stop, idle=order.idle)


def _verdict(worker: Worker, received: Received) -> tuple[int, str]:
    if worker.late or (received.first is not None and received.first.name == "SIGUSR1"):
        return EXIT_AGAIN, "its time is up and work is left"
    if received.first is not None:
        return EXIT_INTERRUPTED, received.first.name
    return EXIT_DONE, "nothing is left to do"


def version_differences(there: Mapping[str, str | None], wanted: Mapping[str, str]) -> list[str]:
    """Software that is missing or has another version than wanted; of Python only the minor version counts."""

    def shown(name: str, version: str | None) -> str | None:
        return ".".join(version.split(".")[:2]) if version and name == "python" else version

    pairs = {name: (shown(name, there.get(name)), shown(name, wanted[name])) for name in wanted}
    return [
        f"{name} {have} instead of {want}" if have else f"no {name}"
        for name, (have, want) in pairs.items()
        if have != want
    ]


def follow(parent: int, stop: threading.Event) -> None:
    """End when the process that started this one has ended, for whatever reason."""

    def watch() -> None:
        while not stop.wait(1.0):
            if os.getppid() != parent:
                stop.set()

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def _follow_token(session: Session, token: str, stop: threading.Event) -> None:
    """End when the run that holds a lease has ended.

    Raises
    ------
    ClusterError
        If the lease is not to be seen; a network file system may show it a moment late.
    """
    leases, deadline = Leases(session.backend, ttl=session.config.lease), time.monotonic() + TOKEN_PATIENCE
    while session.backend.size(token) is None:
        if time.monotonic() > deadline:
            msg = f"{platform.node()} sees another store at {session.config.store} than the machine of the run"
            hint = "name a store that both see: a shared folder by its absolute path, or s3://bucket/folder"
            raise ClusterError(msg, hint=hint)
        time.sleep(0.2)

    def watch() -> None:
        while not stop.wait(min(TOKEN_SECONDS, session.config.lease / 3)):
            with contextlib.suppress(OSError):  # out of reach for a moment
                if session.backend.size(token) is None or leases.is_stale(token, session.backend.get(token)):
                    stop.set()

    threading.Thread(target=watch, name="follow-run", daemon=True).start()


def _say(line: str) -> None:
    print(f"{_moment()} {line}", flush=True)


def _moment() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
