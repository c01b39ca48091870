"""When and how processes end: exit codes, the signals that end them cleanly, and the wall time of a job around them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from wsolpipe.keys.run_keys import RunConfig

#: `EXIT_AGAIN` is EX_TEMPFAIL of sysexits.h: time was up, the same command resumes. Sites name it in RequeueExit.
EXIT_DONE, EXIT_FAILED, EXIT_PENDING, EXIT_AGAIN, EXIT_INTERRUPTED = 0, 1, 2, 75, 130
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1
_YEAR = 365 * 86400.0
_END = re.compile(r"\bEndTime=(\S+)")


@dataclass
class Received:
    """Which signal came first; None before any."""

    first: signal.Signals | None = None


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[Received]:
    """Set `stop` at the first SIGINT, SIGTERM or SIGUSR1; a second SIGINT interrupts at once.

    The running unit is then abandoned at its next block, and what is committed is kept.
    """
    received = Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.first = received.first or signal.Signals(number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def settle_end(config: RunConfig, *, lead: float = 0.0) -> RunConfig:
    """The configuration with its `ends_at`: whichever comes first of ``wall_time=`` and the end of the surrounding job.

    One that has it already is left as it is.

    Parameters
    ----------
    lead : float
        Seconds before the job's end at which its scheduler asks it to end.
    """
    if config.ends_at is not None:
        return config
    ends = [time.time() + config.wall_time] if config.wall_time is not None else []
    job = job_end()
    if job is not None:
        ends.append(job - lead)
    return replace(config, ends_at=min(ends)) if ends else config


def job_end() -> float | None:
    """End of the SLURM job around this process, in seconds since the epoch; None outside a job or without a limit.

    SLURM 23.02 and later set a variable; older ones are queried.
    """
    end, job = os.environ.get("SLURM_JOB_END_TIME"), os.environ.get("SLURM_JOB_ID")
    if end and end.isdigit():
        return _bounded(float(end))
    if not job:
        return None
    try:
        asked = subprocess.run(
            ["scontrol", "show", "job", "-o", job], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _END.search(asked.stdout)
    try:
        return _bounded(datetime.fromisoformat(match[1]).timestamp()) if match else None
    except ValueError:  # Unknown, or NONE
        return None


def _bounded(end: float) -> float | None:
    """None for a job without a limit, for which SLURM reports a year."""
    return end if end < time.time() + 0.9 * _YEAR else None
