"""One worker process: a configuration on standard input, events as JSON lines on standard output."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from wsolpipe.contract.errors import WsolError
from wsolpipe.engine.session import Session
from wsolpipe.engine.worker import Worker
from wsolpipe.keys.run_keys import RunConfig
from wsolpipe.launch.signals import EXIT_AGAIN, stop_on_signals


def main() -> int:
    """Run a worker until nothing is left; the exit code is 0, that of the error, or 75 if its time was up."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not mix with the events
    lock = threading.Lock()

    parent = os.getppid()
    stop = threading.Event()

    def emit(event: dict[str, Any]) -> None:
        try:
            with lock:
                channel.write(json.dumps(event) + "\n")
        except BrokenPipeError:  # the reading process was killed: end as if asked to
            stop.set()

    follow(parent, stop)
    try:
        with stop_on_signals(stop):
            worker = Worker(Session.open(RunConfig.from_json(sys.stdin.read())), emit, stop)
            worker.run()
    except WsolError as error:
        emit({"event": "fatal", "kind": type(error).__name__, "message": error.message, "hint": error.hint})
        return error.exit_code
    return EXIT_AGAIN if worker.late else 0


def follow(parent: int, stop: threading.Event) -> None:
    """End when the process that started this one has ended, for whatever reason."""

    def watch() -> None:
        while not stop.wait(1.0):
            if os.getppid() != parent:
                stop.set()

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
