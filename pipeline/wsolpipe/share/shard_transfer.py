"""Moving one shard or artifact from one store to another, as a commit of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import AccessError, SchemaMismatch, StoreError, TornShardError
from wsolpipe.contract.layout import commit_name, lease_name, shard_of
from wsolpipe.contract.manifest import MAX_JSON_BYTES, CommitRecord, parse
from wsolpipe.contract.records import read_record
from wsolpipe.engine import commit
from wsolpipe.engine.faults import fault_point
from wsolpipe.share import inspection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.layout import Shards
    from wsolpipe.contract.manifest import StageManifest
    from wsolpipe.engine.leases import Leases
    from wsolpipe.share.trust import Trust

FETCHES = 3

Objects = dict[str, tuple[str, bytes]]
"""Array or file name -> (name in the store, bytes)."""


class Moved(NamedTuple):
    """Outcome of one unit: moved, same, kept, busy, refused (with the reason), or gone before it was read."""

    outcome: str
    unit: int | None
    bytes: int = 0
    reason: str = ""


class Standing(NamedTuple):
    """State of a unit at the target: its record, None if there is none or it is torn; and whether it is whole."""

    record: CommitRecord | None
    whole: bool


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
        """Check units again that were moved without a lease while a worker held one; return those that did not last.

        The worker may have created an object between two of ours. If it has ended, it found our record and handled
        the conflict itself.
        """
        moved, lost = set(units), []
        present = set(self.target.names(f"{self.folder}/commits"))
        for file in self.target.names(f"{self.folder}/leases"):
            unit = None if file == "artifact.json" else shard_of(file)
            if unit not in moved or file not in present or (unit is None and file != "artifact.json"):
                continue
            record, _ = self._standing(unit, None)
            if record is not None and commit.damaged_objects(self.target, self.folder, self.manifest, record):
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

    def _standing(self, unit: int | None, sizes: dict[str, int] | None) -> Standing:
        """State of the target, by `sizes` that were listed, or looked up now."""
        try:
            record = read_record(self.target, self.folder, unit)
        except (AccessError, SchemaMismatch):
            raise
        except StoreError:
            return Standing(None, whole=False)
        if record is None:
            return Standing(None, whole=True)
        if self.check:
            return Standing(record, not commit.damaged_objects(self.target, self.folder, self.manifest, record))
        if sizes is None:
            return Standing(record, not commit.missing_objects(self.target, self.folder, self.manifest, record))
        names = commit.object_names(self.folder, self.manifest, record)
        return Standing(record, all(sizes.get(name) == record.objects[key].bytes for key, name in names.items()))

    def _left_as_it_is(self, standing: Standing, record: CommitRecord) -> str:
        """Why the target's shard stays: same or kept; empty if it is torn, missing or outdated."""
        if standing.record is None or not standing.whole:
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
        """Replace what is there, unless somebody else holds its lease."""
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
            elif not standing.whole:
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
