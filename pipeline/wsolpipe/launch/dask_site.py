"""Checks of remote workers before work starts: the same software, the same store, the same images."""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ClusterError
from wsolpipe.engine.config import for_worker
from wsolpipe.engine.leases import Leases
from wsolpipe.engine.session import software_versions
from wsolpipe.launch.dask_task import SAME_VERSIONS, Order, differences, look

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from distributed import Client

    from wsolpipe.engine.session import Session

POLL_SECONDS = 0.5
LOOK_SECONDS = 60.0
TOKEN = "launch-"


@contextlib.contextmanager
def site_order(session: Session, *, lead: float = 0.0) -> Iterator[Order]:
    """The order for workers that may run elsewhere: absolute paths, and a token in the store that they must find.

    The token is a lease: it is removed when this process ends, or by the next run if this one is killed.

    Parameters
    ----------
    lead : float
        Seconds before the end of a worker's job at which it must have ended.
    """
    leases, folder = Leases(session.backend, ttl=session.config.lease), session.dataset.name
    for name in session.backend.names(folder):
        left = leases.acquire(f"{folder}/{name}") if name.startswith(TOKEN) else None
        if left is not None:
            left.release()
    token = leases.acquire(f"{folder}/{TOKEN}{secrets.token_hex(8)}.json")
    assert token is not None
    config = for_worker(session.config)
    whole: dict[str, Any] = {name: _whole(getattr(config, name)) for name in ("dataset", "store", "stages", "root")}
    with token.beating():
        yield Order(replace(config, **whole).to_json(), token.name, tuple(software_versions().items()), lead)


def _whole(text: str | None) -> str | None:
    """A path made absolute: workers may run in another folder. Names and URLs are kept."""
    return str(Path(text).absolute()) if text and "://" not in text and Path(text).exists() else text


def await_worker(client: Client, stop: threading.Event, *, seconds: float, where: str) -> None:
    """Wait for the first worker.

    Raises
    ------
    ClusterError
        If none has connected after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not stop.is_set() and not client.nthreads():
        if time.monotonic() > deadline:
            msg = f"no worker has connected to the Dask scheduler at {where} in {seconds:.0f} s"
            hint = f"start some with: dask worker {where} --nthreads 1 --nworkers N"
            raise ClusterError(msg, hint=hint)
        stop.wait(POLL_SECONDS)


def check_workers(client: Client, order: Order) -> None:
    """Check that the scheduler can pass the tasks of a run on, and that every worker can take part.

    Raises
    ------
    ClusterError
        If one lacks wsolpipe or has other versions, or a worker sees other images or another store.
    """
    wanted = dict(order.versions)
    found = client.get_versions(packages=[name for name in wanted if name != "python"])
    _compare("the Dask scheduler", found["scheduler"], {name: wanted[name] for name in ("python", "wsolpipe")})
    for worker, there in found["workers"].items():
        _compare(f"the worker at {worker}", there, wanted)
    for worker, problem in client.run(look, order, on_error="return").items():
        if isinstance(problem, BaseException):
            msg = f"the worker at {worker} cannot take part: {type(problem).__name__}: {problem}"
            raise ClusterError(msg, hint="see the worker's own log") from problem
        if problem:
            msg_0 = f"the worker at {worker} on {problem[0]}"
            raise ClusterError(msg_0, hint=problem[1])


def _compare(process: str, there: dict[str, Any], wanted: dict[str, str]) -> None:
    differ = differences({**there["packages"], "python": there["host"]["python"]}, wanted)
    if differ:
        msg = f"{process} has {', '.join(differ)}"
        raise ClusterError(msg, hint=SAME_VERSIONS)
