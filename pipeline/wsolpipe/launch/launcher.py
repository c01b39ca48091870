"""The seam between a run and where its shards run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from wsolpipe.engine.config import ADDRESSES

if TYPE_CHECKING:
    import threading

    from wsolpipe.engine.session import Session

Emit = Callable[[dict[str, Any]], None]


class Launcher(Protocol):
    """Makes everything that a session asks for; returns when nothing is left or `stop` is set.

    What is left undone, and why, is read from the store afterwards, not from a launcher.
    """

    def __call__(self, session: Session, emit: Emit, stop: threading.Event) -> None: ...


def find(cluster: str) -> Launcher:
    """Launcher of ``cluster=``; `wsolpipe.engine.config.CLUSTERS` lists the names."""
    if cluster.startswith(ADDRESSES):
        from wsolpipe.launch.dask_address import run_at_address

        return run_at_address
    if cluster == "dask-local":
        from wsolpipe.launch.dask_machine import run_dask_local

        return run_dask_local
    if cluster == "dask-cuda":
        from wsolpipe.launch.dask_machine import run_dask_cuda

        return run_dask_cuda
    from wsolpipe.launch.local import run_local

    return run_local
