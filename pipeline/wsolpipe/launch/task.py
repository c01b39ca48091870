"""One task of a job array: ``python -m wsolpipe.launch.task ORDER``. It works until nothing is left or its time is up.

It writes its events to its log, one line each, and how it ended to a note beside the order, which a waiting run reads.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract import errors
from wsolpipe.contract.canonical import read_json
from wsolpipe.contract.errors import WsolError
from wsolpipe.engine.session import Session
from wsolpipe.engine.worker import Worker
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.launch import slurm
from wsolpipe.launch.progress import LogLines
from wsolpipe.launch.signals import EXIT_AGAIN, EXIT_DONE, EXIT_INTERRUPTED, stop_on_signals
from wsolpipe.launch.wall_time import settle_end

if TYPE_CHECKING:
    from wsolpipe.launch.slurm import Task

EARLY_SECONDS = 60.0
"""SLURM may send its signal that much earlier than requested (manual of sbatch)."""


@dataclass(frozen=True)
class Order:
    """Configuration that every task of an array gets.

    Attributes
    ----------
    config : RunConfig
        Configuration of a worker, with the keys of the indexes.
    lead : float
        Seconds before its wall time at which SLURM asks a task to end.
    requeues : int
        Times that a task which ran out of time goes back into the queue.
    """

    config: RunConfig
    lead: float
    requeues: int

    def write(self, path: Path) -> None:
        """Write as JSON that only this user can read."""
        path.touch(mode=0o600)
        path.write_text(json.dumps({**asdict(self), "config": json.loads(self.config.to_json())}, indent=1))

    @classmethod
    def read(cls, path: Path) -> Order:
        """Inverse of `write`."""
        fields = json.loads(path.read_text())
        return cls(**{**fields, "config": RunConfig.from_json(json.dumps(fields["config"]))})


def note_path(folder: Path, task: Task) -> Path:
    """File in which a task notes its progress."""
    return folder / f"{task[0]}_{task[1]}.json"


def read_note(folder: Path, task: Task) -> dict[str, Any]:
    """The note of a task; empty before it starts."""
    try:
        return dict(read_json(note_path(folder, task).read_text()))
    except (OSError, ValueError):
        return {}


def as_error(note: dict[str, Any]) -> WsolError | None:
    """The error that ended a task, None if there was none."""
    if "message" not in note:
        return None
    kind: type[WsolError] = getattr(errors, note["kind"], WsolError)
    return kind(note["message"], hint=note["hint"])


def main(words: list[str]) -> int:
    """Carry out an order.

    Returns
    -------
    int
        0 once nothing is left, 75 if it has to resume later, 130 if it was cancelled, or the code of the error.
    """
    path = Path(words[0])
    order = Order.read(path)
    task = (os.environ.get("SLURM_ARRAY_JOB_ID", "0"), int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")))
    note = note_path(path.parent, task)
    note.write_text(json.dumps({"began": _moment()}))
    _say(f"task {task[1]} of job {task[0]} on {platform.node()}")
    stop = threading.Event()
    try:
        with stop_on_signals(stop) as received:
            lead = order.lead + min(order.lead, EARLY_SECONDS)
            worker = Worker(Session.open(settle_end(order.config, lead=lead)), _Log(), stop)
            worker.run()
    except WsolError as error:
        failure = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        note.write_text(json.dumps({"began": True, "ended": _moment(), **failure}))
        _say(f"ended: {error}")
        return error.exit_code
    if worker.late or received.first == signal.SIGUSR1:
        _say("ended: its time is up and work is left")
        return _go_on_later(task, order)
    if received.first is not None:
        _say(f"ended: {received.first.name}")
        return EXIT_INTERRUPTED
    note.write_text(json.dumps({"ended": _moment(), "done": True}))
    _say("ended: nothing is left to do")
    return EXIT_DONE


def _go_on_later(task: Task, order: Order) -> int:
    """Requeue this task, a limited number of times; a run that waits resubmits a task that could not be requeued."""
    turn = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # requeueing ends this process: let it log that first
    if turn < order.requeues and slurm.requeue(f"{task[0]}_{task[1]}"):
        _say(f"back in the queue, for the {turn + 2}. time")
    return EXIT_AGAIN


class _Log(LogLines):
    """Lines about this task, with the traceback of a failure."""

    def __init__(self) -> None:
        super().__init__(_say)

    def __call__(self, event: dict[str, Any]) -> None:
        super().__call__(event)
        if event["event"] == "failure":
            print(event["traceback"], flush=True)


def _say(line: str) -> None:
    print(f"{_moment()} {line}", flush=True)


def _moment() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
