"""Markers of commands that work on a whole folder of a store: leases that name the command instead of a shard.

A transfer creates the objects of many shards without a lease on each; `repair` must not remove them as orphans, and
`gc` must remove nothing that work in progress reads. Each command creates its own marker first and then looks for the
other's, so that at least one of two sees the other; a worker's lease and manifest stand in for its marker.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.engine.leases import Lease, Leases

TRANSFER, REPAIR, GC = "transfer", "repair", "gc"


@contextlib.contextmanager
def marked(leases: Leases, folder: str, command: str) -> Iterator[Lease]:
    """Hold a marker of `command` on `folder` while the body runs.

    Raises
    ------
    StoreError
        If this process holds one already.
    """
    lease = leases.acquire(f"{folder}/leases/{command}-{leases.owner.token}.json")
    if lease is None:
        msg = f"{folder} is marked by another {command} of this process"
        raise StoreError(msg)
    with lease.beating():
        yield lease


def is_marked(leases: Leases, folder: str, command: str) -> bool:
    """Whether a `command` that is not known to be dead works on `folder`.

    Marks of dead ones are removed: a process that was only suspended finds its mark gone when it wakes.
    """
    for file in leases.backend.names(f"{folder}/leases"):
        if file.startswith(f"{command}-"):
            name = f"{folder}/leases/{file}"
            with contextlib.suppress(FileNotFoundError):
                if not leases.is_stale(name, leases.backend.get(name)):
                    return True
                leases.backend.delete(name)
    return False


def is_held(leases: Leases, folder: str) -> bool:
    """Whether any lease on `folder`, of a shard or of a command, is held by another process that may be alive."""
    for file in leases.backend.names(f"{folder}/leases"):
        name = f"{folder}/leases/{file}"
        if leases.owner.token not in name:
            with contextlib.suppress(FileNotFoundError):
                if not leases.is_stale(name, leases.backend.get(name)):
                    return True
    return False
