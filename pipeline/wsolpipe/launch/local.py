"""``cluster=local``: this process alone, or several of them, which need no scheduler beside the store's leases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from wsolpipe.contract import errors
from wsolpipe.contract.errors import ClusterError, DeviceError, WsolError
from wsolpipe.engine.config import for_worker
from wsolpipe.engine.worker import Worker
from wsolpipe.launch.signals import EXIT_AGAIN

if TYPE_CHECKING:
    from wsolpipe.engine.session import Session
    from wsolpipe.launch.events import Emit

RESTARTS = 3


def run_local(session: Session, emit: Emit, stop: threading.Event) -> None:
    """Run in this process, or in ``workers=`` processes of this machine.

    Raises
    ------
    WsolError
        The error of a worker; the others are stopped.
    """
    if session.config.workers == 1:
        Worker(session, emit, stop).run()
        return
    crew = [_Process(session, emit, number) for number in range(session.config.workers)]
    try:
        while any([member.watch(stop) for member in crew]):  # a list: checks every member, not only up to the first
            if any(member.fatal for member in crew):
                stop.set()
            if stop.is_set():
                for member in crew:
                    member.terminate()
            stop.wait(0.1) if not stop.is_set() else threading.Event().wait(0.1)
    finally:
        for member in crew:
            member.terminate()
            member.join()
    for member in crew:
        if member.fatal:
            raise member.fatal


class _Process:
    """One worker process, restarted if it is killed."""

    def __init__(self, session: Session, emit: Emit, number: int) -> None:
        self.session, self.emit, self.number = session, emit, number
        self.fatal: WsolError | None = None
        self.fault: WsolError | None = None
        self.restarts = 0
        self._start()

    def _start(self) -> None:
        config = for_worker(self.session.config)
        threads = self.session.config.threads or max(1, (os.cpu_count() or 1) // self.session.config.workers)
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wsolpipe.launch.process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(config.to_json())
        self.process.stdin.close()
        self.reader = threading.Thread(target=self._read, name=f"worker-{self.number}", daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "fatal":
                kind = getattr(errors, event["kind"], WsolError)
                error = kind(event["message"], hint=event["hint"])
                if isinstance(error, DeviceError):
                    self.fault = error
                else:
                    self.fatal = error
            else:
                self.emit(event)

    def watch(self, stop: threading.Event) -> bool:
        """Whether this worker still runs; one that was killed is restarted up to `RESTARTS` times."""
        code = self.process.poll()
        if code is None:
            return True
        self.reader.join()
        if (code >= 0 and self.fault is None) or stop.is_set() or self.fatal:
            if code not in {0, EXIT_AGAIN} and not self.fatal and not stop.is_set():
                self.fatal = ClusterError(f"worker {self.number} ended with code {code}", hint="run again: it resumes")
            return False
        if self.restarts >= RESTARTS:
            self.fatal = self.fault or ClusterError(
                f"worker {self.number} was killed {RESTARTS + 1} times, last by signal {-code}",
                hint="run again with fewer workers=: it resumes",
            )
            return False
        self.restarts += 1
        how = self.fault.message if self.fault else f"it was killed by {signal.Signals(-code).name}"
        self.fault = None
        self.emit({"event": "warning", "text": f"worker {self.number}: {how}; it is restarted"})
        self._start()
        return True

    def terminate(self) -> None:
        """Ask the process to end cleanly."""
        if self.process.poll() is None:
            self.process.terminate()

    def join(self) -> None:
        """Wait for the end; kill the process if it does not end."""
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(timeout=5)
