"""``cluster=tcp://host:port``: a Dask cluster that is already running; its machines need to share only a store.

The scheduler (``dask scheduler``) and its workers (``dask worker tcp://host:port --nthreads 1 --nworkers N``) must have
this package and the same versions of the packages that labels depend on.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wsolpipe.contract.errors import ClusterError, ConfigError
from wsolpipe.launch.dask import SETTINGS, Dispatch, quiet
from wsolpipe.launch.dask_site import await_worker, check_workers, site_order
from wsolpipe.launch.profiles import load_profile

if TYPE_CHECKING:
    import threading

    from wsolpipe.engine.session import Session
    from wsolpipe.launch.events import Emit

CONNECT_SECONDS = 3.0
RETURN_SECONDS = 15.0
"""Seconds to wait for an unreachable scheduler, after its connection was closed."""
START_SECONDS = 60.0


def run_at_address(session: Session, emit: Emit, stop: threading.Event) -> None:
    """Run on the workers of the scheduler that ``cluster=`` names.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached or is lost, if no worker connects, or if a worker cannot take part.
    """
    import dask
    from distributed import Client

    address = session.config.cluster
    check_listens(address)
    bound = _Bound(address, load_profile(session.config).start_seconds or START_SECONDS)
    with quiet(), dask.config.set(SETTINGS), site_order(session) as order:
        try:
            client = Client(address, timeout=RETURN_SECONDS, set_as_default=False, name="wsolpipe")
        except (OSError, ValueError) as error:
            msg = f"what listens at {address} does not answer as a Dask scheduler: {error}"
            raise ClusterError(msg, hint="start one with: dask scheduler") from error
        with client:
            emit({"event": "note", "text": f"Dask dashboard: {client.dashboard_link}"})
            await_worker(client, stop, seconds=bound.seconds, where=address)
            if stop.is_set():
                return
            check_workers(client, order)
            Dispatch(session, client, emit, stop, order=order, watch=bound).run()


def check_listens(address: str) -> None:
    """Check that a server listens at `address`.

    Raises
    ------
    ConfigError
        If the address is not of the form ``tcp://host:port``.
    ClusterError
        If none answers.
    """
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or not port:
        msg = f"cluster={address}: write the scheduler's address as {parts.scheme}://host:port"
        raise ConfigError(msg, hint="it is printed by: dask scheduler")
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            if time.monotonic() < deadline and not isinstance(error, socket.gaierror):
                time.sleep(1.0)
                continue
            msg = f"no Dask scheduler can be reached at {address}: {error.strerror or error}"
            raise ClusterError(msg, hint="start one there with: dask scheduler") from error
        return


class _Bound:
    """Ends the run once there has been no worker for `seconds`."""

    def __init__(self, address: str, seconds: float) -> None:
        self.address, self.seconds = address, seconds
        self.seen = time.monotonic()

    def __call__(self, workers: int) -> None:
        if workers:
            self.seen = time.monotonic()
        elif time.monotonic() - self.seen > self.seconds:
            msg = f"the Dask scheduler at {self.address} has had no worker for {self.seconds:.0f} s"
            raise ClusterError(msg, hint="start some, and run again: everything committed is kept")
