"""Reading the manifests and commit records of a store."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.layout import commit_name
from wsolpipe.contract.manifest import MAX_JSON_BYTES, CommitRecord, IndexManifest, StageManifest, parse

if TYPE_CHECKING:
    from wsolpipe.contract.backends.base import Backend

M = TypeVar("M", IndexManifest, StageManifest)
R = TypeVar("R", IndexManifest, StageManifest, CommitRecord)


def read_record(backend: Backend, folder: str, shard: int | None) -> CommitRecord | None:
    """Commit record of a shard or artifact; None if it does not exist.

    Raises
    ------
    StoreError
        If the record is unreadable or of a newer schema.
    """
    name = commit_name(folder, shard)
    try:
        return _parse_object(backend, CommitRecord, name)
    except FileNotFoundError:
        return None


def total_seconds(backend: Backend, folder: str) -> float:
    """Seconds that all shards of a folder took together; 0 where another store made them."""
    seconds = 0.0
    for name in backend.names(f"{folder}/commits"):
        with contextlib.suppress(StoreError, ValueError):  # a torn record only lacks its time
            record = read_record(backend, folder, int(name.removesuffix(".json")))
            seconds += record.seconds if record else 0.0
    return round(seconds, 3)


def read_manifest(backend: Backend, kind: type[M], name: str) -> M:
    """A manifest.

    Raises
    ------
    StoreError
        If it is missing, unreadable or of a newer schema.
    """
    try:
        return _parse_object(backend, kind, name)
    except FileNotFoundError as error:
        msg = f"{backend.url}/{name} is missing"
        raise StoreError(msg, hint=f"wsolpipe status store={backend.url}") from error


def _parse_object(backend: Backend, kind: type[R], name: str) -> R:
    """A manifest or record, read only if it is not too large to be one."""
    return parse(kind, backend.get(name, limit=MAX_JSON_BYTES), f"{backend.url}/{name}")
