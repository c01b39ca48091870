"""Loaded into every worker of ``cluster=slurm`` before it starts: ends the process where Dask's own shutdown hangs.

A worker that gets a signal to end while a task runs, or after its scheduler is gone, may never end (distributed
2026.8), and neither does its job.
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
    """Start the guard thread; called by Dask."""
    threading.Thread(target=_watch, args=(worker,), name="guard", daemon=True).start()


def _watch(worker: Worker) -> None:
    from distributed.core import Status

    while worker.status not in {Status.closing, Status.closing_gracefully, Status.closed, Status.failed}:
        time.sleep(POLL_SECONDS)
    time.sleep(END_SECONDS)
    os._exit(1)
