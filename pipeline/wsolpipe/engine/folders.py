"""The folders of a store by their names alone, and markers of commands that work on a whole folder.

What is in a folder may be damaged, unfinished or not readable. A marker is a lease that names a command instead of a
shard. A transfer creates the objects of many shards without a lease on each; `repair` must not remove them as orphans,
and `gc` must remove nothing that work in progress reads. Each command creates its own marker first and then looks for
the other's, so that at least one of two sees the other; a worker's lease and manifest stand in for its marker.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.layout import is_key, is_name, stage_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.engine.leases import Lease, Leases


ARTIFACTS = "artifacts"
#: How folders beside the stages begin that hold requests and not results.
NOTES = "index-"


@dataclass(frozen=True)
class Folder:
    """Folder of one key of a stage; ``split`` is None for an artifact, ``stage`` may be ``index``."""

    dataset: str
    split: str | None
    stage: str
    key: str

    @property
    def path(self) -> str:
        """Relative to the store."""
        return stage_folder(self.dataset, self.split, self.stage, self.key)


def list_folders(
    backend: Backend,
    *,
    datasets: tuple[str, ...] = (),
    splits: tuple[str, ...] = (),
    stages: tuple[str, ...] = (),
) -> tuple[list[Folder], list[str]]:
    """Folders of every key, and folders whose name no data set, split, stage or key can have (a backup copy, say).

    Parameters
    ----------
    datasets, splits, stages : tuple of str
        Only these; empty means all. Artifacts belong to every split.
    """
    strange: list[str] = []

    def below(folder: str, wanted: tuple[str, ...], fits: Callable[[str], bool] = is_name) -> Iterator[str]:
        for item in backend.names(folder):
            name = item[:-1]
            if not item.endswith("/") or name.startswith(NOTES) or (wanted and name not in wanted):
                continue
            if fits(name):
                yield name
            else:
                strange.append(f"{folder}/{name}".strip("/"))

    found = [
        Folder(dataset, None if second == ARTIFACTS else second, stage, key)
        for dataset in below("", datasets)
        for second in below(dataset, (*splits, ARTIFACTS) if splits else ())
        for stage in below(f"{dataset}/{second}", stages)
        for key in below(f"{dataset}/{second}/{stage}", (), is_key)
    ]
    return found, strange


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
