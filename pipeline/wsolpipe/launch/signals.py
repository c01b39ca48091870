"""Signals that end a run cleanly: the running unit is abandoned at its next block, what is committed is kept.

Also the exit codes of all processes.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

EXIT_DONE, EXIT_FAILED, EXIT_PENDING, EXIT_AGAIN, EXIT_INTERRUPTED = 0, 1, 2, 75, 130
"""`EXIT_AGAIN` is EX_TEMPFAIL of sysexits.h: time was up, the same command resumes. Sites name it in RequeueExit."""
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1


@dataclass
class Received:
    """Which signal came first; None before any."""

    first: signal.Signals | None = None


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[Received]:
    """Set `stop` at the first SIGINT, SIGTERM or SIGUSR1; a second SIGINT interrupts at once."""
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
