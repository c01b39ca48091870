"""Commits of shards: objects are put without overwriting, the record last; without a record a shard does not exist."""

from __future__ import annotations

import contextlib
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.layout import commit_name, sha256_bytes, shard_object
from wsolpipe.contract.manifest import CommitRecord, StageManifest, StoredObject, read_record, standing_record
from wsolpipe.contract.schema import STATUS_SPEC, ArraySpec
from wsolpipe.engine.leases import Lease, fault_point

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from wsolpipe.contract.backends.base import Backend


def now() -> str:
    """UTC, ISO 8601 with microseconds, so that text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def object_name(folder: str, manifest_arrays: Mapping[str, ArraySpec], name: str, shard: int | None) -> str:
    """Name in the store of an object that a record calls `name`."""
    if shard is None:
        return f"{folder}/files/{name}"
    spec = STATUS_SPEC if name == "status" else manifest_arrays[name]
    return shard_object(folder, name, shard, 1 + len(spec.shape))


def object_names(folder: str, manifest: StageManifest, record: CommitRecord) -> dict[str, str]:
    """Name in the store of every object of a record; unknown arrays are left out."""
    names = [name for name in record.objects if record.shard is None or name == "status" or name in manifest.arrays]
    return {name: object_name(folder, manifest.arrays, name, record.shard) for name in names}


class Standing(NamedTuple):
    """State of a shard or artifact: its record, None without one that can be parsed, and what is wrong; empty if whole.

    Plan, worker, `verify`, `adopt` and transfers all judge by it.
    """

    record: CommitRecord | None
    wrong: str = ""


def judge(
    backend: Backend,
    folder: str,
    manifest: StageManifest,
    shard: int | None,
    *,
    deep: bool = False,
    sizes: Mapping[str, int] | None = None,
) -> Standing:
    """State of a shard or artifact by its record and objects.

    Parameters
    ----------
    deep, sizes
        As those of `damage`.

    Raises
    ------
    AccessError, SchemaMismatch
        If something cannot be read, or was written by a newer wsolpipe.
    """
    record, wrong = standing_record(backend, folder, shard)
    if record is not None:
        wrong = damage(backend, folder, manifest, record, deep=deep, sizes=sizes)
    return Standing(record, wrong)


def damage(
    backend: Backend,
    folder: str,
    manifest: StageManifest,
    record: CommitRecord,
    *,
    deep: bool = False,
    sizes: Mapping[str, int] | None = None,
) -> str:
    """First object of a record that is not as recorded, and how it differs; empty if none does.

    Parameters
    ----------
    deep : bool
        Whether all bytes are read and hashed; if not, sizes are compared.
    sizes : mapping of str to int, optional
        Sizes of the objects by name, as they were listed; without it each is looked up.
    """
    for key, name in object_names(folder, manifest, record).items():
        stored, size = record.objects[key], backend.size(name) if sizes is None else sizes.get(name)
        if size is None:
            return f"{name} is missing"
        if size != stored.bytes:
            return f"{name} has {size} bytes, recorded {stored.bytes}"
        try:
            if deep and sha256_bytes(backend.get(name)) != stored.sha256:
                return f"{name} has other bytes than recorded"
        except FileNotFoundError:  # removed just now
            return f"{name} is missing"
    return ""


def new_record(shard: int | None, start: int, stop: int, seconds: float, **fields: Any) -> CommitRecord:
    """The record of rows `start` … `stop` - 1 that this machine made just now, without objects yet."""
    pace = round((stop - start) / max(seconds, 1e-9), 2)
    return CommitRecord(
        shard=shard, start=start, stop=stop, objects={}, seconds=round(seconds, 3), rows_per_second=pace,
        host=socket.gethostname(), time=now(), **fields,
    )  # fmt: skip


def commit(
    backend: Backend, folder: str, record: CommitRecord, objects: Mapping[str, tuple[str, bytes]], lease: Lease
) -> CommitRecord:
    """Commit as `put` does; return the record that stands in the store, this one or that of a worker before.

    Raises
    ------
    StoreError
        If none stands, because another worker took the lease.
    """
    put(backend, folder, record, objects, lease)
    standing = read_record(backend, folder, record.shard)
    if standing is None:
        what = folder if record.shard is None else f"shard {record.shard} of {folder}"
        msg = f"{what} was not committed: its lease was taken by another worker"
        raise StoreError(msg)
    return standing


def put(
    backend: Backend, folder: str, record: CommitRecord, objects: Mapping[str, tuple[str, bytes]], lease: Lease
) -> bool:
    """Commit one shard or artifact.

    Parameters
    ----------
    objects : mapping
        Array or file name -> (name in the store, bytes).
    lease : Lease
        Held on this shard; only its holder removes objects that a killed worker left.

    Returns
    -------
    bool
        Whether this call made the record; False if another worker finished first, whose result is kept, or if the
        lease was lost and another owner wrote different bytes, so that nothing is committed.
    """
    stored = {name: StoredObject(sha256=sha256_bytes(data), bytes=len(data)) for name, (_, data) in objects.items()}
    record = record.model_copy(update={"objects": stored})
    fault_point("before_put")
    for name, (target, data) in sorted(objects.items()):
        made = backend.create(target, data, sync=False)
        if not made and not _clear_orphan(backend, folder, record, target, name, lease):
            return False
        if not made and backend.size(target) is None:
            backend.create(target, data, sync=False)
        fault_point("between_arrays")
    fault_point("before_record")
    made = put_record(backend, folder, record, [target for target, _ in objects.values()])
    fault_point("after_record")
    if made and lease.still_mine():
        return True
    return _record_is_valid(backend, folder, record, objects) and made


def put_record(backend: Backend, folder: str, record: CommitRecord, objects: Collection[str]) -> bool:
    """Put the record of objects that are in place; return whether this call made it.

    A power cut may leave objects without a record, never a record without its objects. All are synced together,
    since waiting for the disk is the cost.
    """
    name = commit_name(folder, record.shard)
    backend.sync(objects)
    made = backend.create(name, record.to_bytes(), sync=False)
    backend.sync([name])
    return made


def _record_is_valid(
    backend: Backend, folder: str, record: CommitRecord, objects: Mapping[str, tuple[str, bytes]]
) -> bool:
    """Whether the record in the store agrees with its objects; if not, it is removed, so that the shard is remade.

    Two owners can meet here when one was suspended past the end of its lease. If they made the same bytes, the first
    wins. If not (on another device, for example), the record of one could name objects of the other.
    """
    current = read_record(backend, folder, record.shard)
    if current is None:
        return False
    for name, (target, _) in objects.items():
        try:
            whole = sha256_bytes(backend.get(target)) == current.objects[name].sha256
        except (FileNotFoundError, KeyError):
            whole = False
        if not whole:
            backend.delete(commit_name(folder, record.shard))
            return False
    return True


def _clear_orphan(backend: Backend, folder: str, record: CommitRecord, target: str, name: str, lease: Lease) -> bool:
    """Remove an object that a killed worker left without a record; False if the shard exists or the lease is lost."""
    expected = record.objects[name]
    with contextlib.suppress(FileNotFoundError):
        if backend.size(target) == expected.bytes and sha256_bytes(backend.get(target)) == expected.sha256:
            return True
    if read_record(backend, folder, record.shard) is not None or not lease.still_mine():
        return False
    backend.delete(target)
    return True


def discard(backend: Backend, folder: str, manifest: StageManifest, record: CommitRecord, lease: Lease) -> None:
    """Remove a shard, its record first, so that no reader meets a record without its objects.

    Raises
    ------
    StoreError
        If the lease was lost.
    """
    if not lease.still_mine():
        msg = f"the lease of shard {record.shard} of {folder} was taken by another worker"
        raise StoreError(msg)
    backend.delete(commit_name(folder, record.shard))
    for name in object_names(folder, manifest, record).values():
        backend.delete(name)
