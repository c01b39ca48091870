"""Whole commands on the workers of a Dask cluster that is already running; they share the folders of this machine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import ClusterError
from wsolpipe.launch.dask import SETTINGS, quiet
from wsolpipe.launch.dask_address import START_SECONDS, check_listens

if TYPE_CHECKING:
    import threading

    from distributed import Future

    from wsolpipe.launch.commands import CommandOrder
    from wsolpipe.launch.events import Emit

POLL_SECONDS = 0.2
ENDED = "ended"
"""File in the order's folder by which commands on workers are told that nobody waits for them any more."""


def run_futures(order: CommandOrder, emit: Emit, stop: threading.Event) -> dict[str, int]:
    """Run commands on the workers of a Dask scheduler; see `wsolpipe.launch.commands.Runner`.

    Raises
    ------
    ClusterError
        If the scheduler does not answer, has no worker, or loses a command too often.
    """
    import dask
    from distributed import Client

    check_listens(order.cluster)
    ended = (order.folder / ENDED).absolute()
    ended.unlink(missing_ok=True)
    waiting, codes = list(order.commands), dict[str, int]()
    running: dict[str, Future] = {}
    seen = time.monotonic()
    bound = order.profile.start_seconds or START_SECONDS
    with quiet(), dask.config.set(SETTINGS), Client(order.cluster, set_as_default=False, name="wsol") as client:
        emit({"event": "note", "text": f"Dask dashboard: {client.dashboard_link}"})
        try:
            while (waiting or running) and not stop.is_set():
                while waiting and len(running) < (order.parallel or len(order.commands)):
                    name = waiting.pop(0)
                    log = str(order.log(name).absolute())
                    running[name] = client.submit(
                        call, order.commands[name], log, str(ended), str(Path.cwd()), pure=False
                    )
                for name, future in list(running.items()):
                    if future.done():
                        codes[name] = _code(name, future)
                        del running[name]
                        emit({"event": "note", "text": f"{name} ended with {codes[name]}"})
                seen = time.monotonic() if client.scheduler_info()["workers"] else seen
                if time.monotonic() - seen > bound:
                    msg = f"the Dask scheduler at {order.cluster} has had no worker for {bound:.0f} s"
                    raise ClusterError(msg, hint="start some with: dask worker, and run again: it resumes")
                stop.wait(POLL_SECONDS)
        finally:
            ended.touch()
    return codes


def _code(name: str, future: Future) -> int:
    try:
        return int(future.result())
    except Exception as error:
        msg = f"{name} was lost on the Dask cluster: {error}"
        raise ClusterError(msg, hint="run again: it resumes") from error


def call(words: list[str], log: str, ended: str, folder: str) -> int:
    """Run a command in a folder, on a worker; append what it prints to `log`, and end it once a file `ended` exists."""
    with Path(log).open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if Path(ended).exists():
                process.terminate()
        return process.returncode
