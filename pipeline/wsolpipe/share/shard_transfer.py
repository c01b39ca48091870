"""Moving one shard, artifact or index from one store to another, as a commit of the target."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from wsolpipe.contract.budget import check_parquet
from wsolpipe.contract.errors import AccessError, SchemaMismatch, StoreError, TornShardError
from wsolpipe.contract.layout import Shards, commit_name, lease_name, sha256_bytes, shard_of
from wsolpipe.contract.manifest import MAX_JSON_BYTES, CommitRecord, IndexManifest, StageManifest, parse
from wsolpipe.engine import commit
from wsolpipe.engine.leases import Leases, fault_point
from wsolpipe.share import inspection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.share.inspection import Trust


FETCHES = 3

#: Array or file name -> (name in the store, bytes).
Objects = dict[str, tuple[str, bytes]]


class Moved(NamedTuple):
    """Outcome of one unit: moved, same, kept, busy, refused (with the reason), or gone before it was read."""

    outcome: str
    unit: int | None
    bytes: int = 0
    reason: str = ""


@dataclass(frozen=True)
class ShardTransfer:
    """Moves units of one folder.

    Attributes
    ----------
    newer : bool
        Whether a later generation of a shard replaces an earlier one.
    check : bool
        Whether the bytes at the target are compared with the records; if not, their sizes are.
    present : frozenset of str
        Files below ``commits`` of the target, as listed in the beginning.
    sizes : dict
        Sizes of the objects of the target by name, likewise.
    """

    source: Backend
    target: Backend
    leases: Leases
    trust: Trust
    newer: bool
    check: bool
    folder: str
    manifest: StageManifest
    shards: Shards
    present: frozenset[str]
    sizes: dict[str, int]

    def move(self, unit: int | None) -> Moved:
        """Move one unit as far as the target lacks it.

        Raises
        ------
        AccessError
            If a store is out of reach or not writable.
        """
        try:
            record = self._read_record(unit)
            if record is None:
                return Moved("gone", unit)
            if commit_name(self.folder, unit).rpartition("/")[2] not in self.present:
                objects = self._fetch(record)
                outcome = self._put(record, objects)
            else:
                left = self._left_as_it_is(self._standing(unit, self.sizes), record)
                if left:
                    return Moved(left, unit)
                objects = self._fetch(record)
                outcome = self._put_under_lease(record, objects)
        except AccessError:
            raise
        except StoreError as error:
            return Moved("refused", unit, 0, error.message)
        return Moved(outcome, unit, sum(len(data) for _, data in objects.values()))

    def settle(self, units: Iterable[int | None]) -> list[int | None]:
        """Check the units again that were moved while a worker held their lease; return those that were damaged since.

        The worker may have created an object between two of ours. If it has ended, it found our record and handled
        the conflict itself.
        """
        moved, lost = set(units), []
        present = set(self.target.names(f"{self.folder}/commits"))
        for file in self.target.names(f"{self.folder}/leases"):
            unit = None if file == "artifact.json" else shard_of(file)
            if unit not in moved or file not in present or (unit is None and file != "artifact.json"):
                continue
            record, wrong = commit.judge(self.target, self.folder, self.manifest, unit, deep=True)
            if record is not None and wrong:
                self.target.delete(commit_name(self.folder, unit))
                lost.append(unit)
        return lost

    # -- the source -----------------------------------------------------------------------------------------------

    def _read_record(self, unit: int | None) -> CommitRecord | None:
        name = commit_name(self.folder, unit)
        inspection.check_link(self.source, name)
        said = f"{self.source.url}/{name}"
        try:
            data = self.source.get(name, limit=MAX_JSON_BYTES)
        except FileNotFoundError:
            return None
        self.trust.check(name, sha256_bytes(data))
        record = parse(CommitRecord, data, said)
        inspection.check_record(record, unit, self.manifest, self.shards, said)
        return record

    def _fetch(self, record: CommitRecord) -> Objects:
        objects = {}
        for key, name in commit.object_names(self.folder, self.manifest, record).items():
            data = fetch(self.source, name, record.objects[key].sha256, record.objects[key].bytes)
            if record.shard is not None:
                said = f"{self.source.url}/{name}"
                inspection.check_shard_bytes(data, self.manifest, key, record.shard, said)
            objects[key] = (name, data)
        return objects

    # -- the target -----------------------------------------------------------------------------------------------

    def _standing(self, unit: int | None, sizes: dict[str, int] | None) -> commit.Standing:
        """State of the target, by `sizes` that were listed, or looked up now."""
        listed = None if self.check else sizes
        return commit.judge(self.target, self.folder, self.manifest, unit, deep=self.check, sizes=listed)

    def _left_as_it_is(self, standing: commit.Standing, record: CommitRecord) -> str:
        """Why the target's shard stays: same or kept; empty if it is torn, missing or outdated."""
        if standing.record is None or standing.wrong:
            return ""
        if standing.record.content == record.content:
            return "same"
        return "" if self.newer and record.generation > standing.record.generation else "kept"

    def _put(self, record: CommitRecord, objects: Objects) -> str:
        """Put a shard that the target does not have."""
        fault_point("before_put")
        for key, (name, data) in sorted(objects.items()):
            made = self.target.create(name, data, sync=False)
            if not made and not self._is_there(name, record.objects[key].sha256):
                return self._put_under_lease(record, objects)  # other bytes are there, or half of ours
            fault_point("between_arrays")
        fault_point("before_record")
        made = commit.put_record(self.target, self.folder, record, [name for name, _ in objects.values()])
        fault_point("after_record")
        if made:
            return "moved"
        return self._left_as_it_is(self._standing(record.shard, None), record) or "kept"

    def _put_under_lease(self, record: CommitRecord, objects: Objects) -> str:
        """Replace the shard that is there, unless another process holds its lease."""
        lease = self.leases.acquire(lease_name(self.folder, record.shard))
        if lease is None:
            return "busy"
        with lease.beating():
            standing = self._standing(record.shard, None)
            left = self._left_as_it_is(standing, record)
            if left:
                return left
            if standing.record is not None:
                commit.discard(self.target, self.folder, self.manifest, standing.record, lease)
            elif standing.wrong:
                self.target.delete(commit_name(self.folder, record.shard))
            return "moved" if commit.put(self.target, self.folder, record, objects, lease) else "kept"

    def _is_there(self, name: str, sha256: str) -> bool:
        try:
            return sha256_bytes(self.target.get(name)) == sha256
        except FileNotFoundError:
            return False


def fetch(source: Backend, name: str, sha256: str, size: int) -> bytes:
    """Bytes of an object, read again if they do not arrive as recorded.

    Raises
    ------
    TornShardError
        If the object is missing or has other bytes, or lies behind a link.
    """
    inspection.check_link(source, name)
    said = f"{source.url}/{name}"
    for attempt in range(FETCHES):
        try:
            data = source.get(name, limit=size)
            inspection.check_digest(data, sha256, size, said)
        except FileNotFoundError as error:
            msg = f"{said} is missing"
            raise TornShardError(msg) from error
        except TornShardError:
            if attempt == FETCHES - 1:
                raise
        else:
            return data
    raise AssertionError


TABLES = ("index.parquet", "annotations.parquet")


def move_index(source: Backend, target: Backend, folder: str, manifest: IndexManifest, *, check: bool) -> Moved:
    """Move an index, unless the target holds it: whole by the sizes of its tables, or with `check` by their bytes.

    Raises
    ------
    StoreError
        If its tables are damaged or are not what its manifest says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if _stands(target, folder, check=check):
        return Moved("same", None)  # rows and ground truth are in the key
    name = f"{folder}/manifest.json"
    if set(manifest.objects) != set(TABLES):
        msg = f"{source.url}/{name} names other tables than {' and '.join(TABLES)}"
        raise StoreError(msg)
    data = {
        table: fetch(source, f"{folder}/{table}", stored.sha256, min(stored.bytes, inspection.MAX_FILE_BYTES))
        for table, stored in manifest.objects.items()
    }
    for table in TABLES:
        check_parquet(io.BytesIO(data[table]), len(data[table]), f"{source.url}/{folder}/{table}")
    try:
        tables = [pq.read_table(io.BytesIO(data[table])) for table in TABLES]
    except (pa.ArrowException, OSError, ValueError) as error:
        msg = f"a table of {source.url}/{folder} cannot be read: {str(error)[:200]}"
        raise TornShardError(msg) from error
    inspection.check_index(manifest, tables[0], tables[1], f"{source.url}/{folder}")
    objects = {**{f"{folder}/{table}": content for table, content in data.items()}, name: manifest.to_bytes()}
    for target_name, content in objects.items():
        if not target.create(target_name, content):
            target.replace(target_name, content)
    return Moved("moved", None, sum(map(len, data.values())))


def _stands(target: Backend, folder: str, *, check: bool) -> bool:
    name = f"{folder}/manifest.json"
    try:
        manifest = parse(IndexManifest, target.get(name, limit=MAX_JSON_BYTES), f"{target.url}/{name}")
        for table, stored in manifest.objects.items():
            if target.size(f"{folder}/{table}") != stored.bytes:
                return False
            if check and sha256_bytes(target.get(f"{folder}/{table}")) != stored.sha256:
                return False
    except FileNotFoundError:
        return False
    except (AccessError, SchemaMismatch):
        raise
    except StoreError:
        return False
    return True
