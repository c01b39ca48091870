"""Loaded into every worker of ``cluster=slurm`` before it starts: ends the process where Dask's own end hangs.

A worker that is told to end by a signal, with work under way or its scheduler gone, may wait for itself for ever
(distributed 2026.8), and its job with it.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Worker

END_SECONDS = 45.0
POLL_SECONDS = 1.0


def dask_setup(worker: Worker) -> None:
    """Begin to watch; Dask calls this."""
    threading.Thread(target=_watch, args=(worker,), name="guard", daemon=True).start()


def _watch(worker: Worker) -> None:
    from distributed.core import Status

    while worker.status not in {Status.closing, Status.closing_gracefully, Status.closed, Status.failed}:
        time.sleep(POLL_SECONDS)
    time.sleep(END_SECONDS)
    os._exit(1)
