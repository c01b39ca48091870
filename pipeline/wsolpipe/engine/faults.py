"""Fault points: named moments at which a test can kill the process. Silent unless ``WSOLPIPE_FAULT`` asks."""

from __future__ import annotations

import os
import signal
from collections import Counter

PHASES = ("before_put", "between_arrays", "before_record", "after_record", "heartbeat", "block")
_reached: Counter[str] = Counter()


def fault_point(phase: str) -> None:
    """Kill this process with SIGKILL if ``WSOLPIPE_FAULT=phase:n`` names this phase and it is reached the n-th time."""
    wanted, _, count = os.environ.get("WSOLPIPE_FAULT", "").partition(":")
    if wanted != phase:
        return
    _reached[phase] += 1
    if _reached[phase] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
