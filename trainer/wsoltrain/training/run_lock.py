"""The lock of a run's folder: one training at a time writes into it, and what a dead one held is taken over."""

from __future__ import annotations

import json
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import ConfigError, RunFailed
from wsolpipe.contract.writing import writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from wsolpipe.engine.leases import Lease, Leases

NAME = "run.lease"
_log = logging.getLogger(__name__)


class RunLock:
    """A folder that is held; a tracker, so that a training whose folder was taken over ends before it writes there."""

    def __init__(self, lease: Lease, out: Path) -> None:
        self.lease, self.out = lease, out

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:  # noqa: ARG002 - a tracker's
        """Make sure that the folder is still held.

        Raises
        ------
        RunFailed
            If another training took it, as this process stood still for too long.
        """
        if self.lease.lost:
            msg = f"{self.out} was taken over by another training at step {step}, as this one gave no sign of life"
            raise RunFailed(msg, hint="the other one continues from the last checkpoint")

    def close(self) -> None:
        """Do nothing; the folder is given back by `hold`."""


@contextmanager
def hold(out: Path) -> Iterator[RunLock]:
    """Hold a run's folder, by a lease as shards of a store are held, for as long as the block runs.

    A lease of a process that has ended is taken over at once, one from another machine when it is not renewed for its
    time to live.

    Raises
    ------
    ConfigError
        If another training holds it.
    AccessError
        If the folder cannot be written.
    """
    from wsolpipe.engine.leases import Leases

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    leases = Leases(LocalBackend(out))
    with _taken(leases, out).beating() as lease:
        yield RunLock(lease, out)


def _taken(leases: Leases, out: Path) -> Lease:
    """Take the lease; where its holder cannot be looked up from here, wait for a sign of life."""
    here, first = (leases.owner.boot, leases.owner.pids), b""
    while (lease := leases.acquire(NAME)) is None:
        try:
            seen = leases.backend.get(NAME)
        except FileNotFoundError:
            continue
        owner = _owner(seen)
        if seen != (first or seen) or (owner.get("boot"), owner.get("pids")) == here:
            msg = f"{out} is held by another training: process {owner.get('pid')} on {owner.get('host')}"
            raise ConfigError(msg, hint="out=FOLDER for a second run; wait for the first one, or end it")
        if not first:
            _log.warning("%s was held on %s: waiting %.0f s for a sign of life", out, owner.get("host"), leases.ttl)
        first = seen
        time.sleep(min(1.0, leases.ttl / 10))
    return lease


def _owner(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)["owner"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
