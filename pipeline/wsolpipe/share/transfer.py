"""Moving finished shards from one store to another: only what differs, in parallel, checked on arrival, resumable.

A shard that arrives goes the way of one that is made: its objects are put without overwriting, its record last. So a
transfer may be killed at any moment and repeated, and it may run beside runs and other transfers on either store.
"""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import StoreError, TornShardError
from wsolpipe.contract.layout import Shards, commit_name, file_of, lease_name
from wsolpipe.contract.manifest import MAX_JSON_BYTES, CommitRecord, IndexManifest, StageManifest, parse
from wsolpipe.contract.reader import read_record
from wsolpipe.engine import commit
from wsolpipe.engine.faults import fault_point
from wsolpipe.engine.leases import Leases
from wsolpipe.share import inspection
from wsolpipe.share.result import Line, Moved, count, line_of
from wsolpipe.share.selection import Found, Selection, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.share.trust import Trust

TABLES = ("index.parquet", "annotations.parquet")
FETCHES = 3


@dataclass
class Transfer:
    """One transfer under way.

    Attributes
    ----------
    newer : bool
        Whether a later generation of a shard takes the place of an earlier one; if not, the target's stays.
    jobs : int
        Shards on their way at a time.
    """

    source: Backend
    target: Backend
    wanted: Selection
    trust: Trust
    newer: bool = False
    jobs: int = 8
    emit: Callable[[dict[str, Any]], None] = lambda event: None
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Moved:
        """Move everything that was selected.

        Raises
        ------
        WsolError
            If a store is out of reach or not writable, or the selection names what is not there.
        """
        began = time.perf_counter()
        self._leases = Leases(self.target)
        folders, refused = select(self.source, self.wanted)
        lines = [line_of(folder, [reason]) for folder, reason in refused]
        with ThreadPoolExecutor(self.jobs, thread_name_prefix="transfer") as pool:
            for found in folders:
                line = Line(found.stage, found.split, found.key, found.dataset)
                lines.append(line)
                if self.stop.is_set():
                    break
                try:
                    self._move_folder(found, line, pool)
                except TornShardError as error:
                    line.refused.append(error.message)
                except StoreError as error:
                    if isinstance(error.__cause__, OSError):
                        raise  # the store is out of reach or out of space: so is the next folder
                    line.refused.append(error.message)
                self.emit({"event": "folder", **line.to_json()})
        retried: Counter[str] = Counter()
        for backend in (self.source, self.target):
            retried.update(getattr(backend, "retried", {}))
        return Moved(lines, dict(retried), round(time.perf_counter() - began, 3), self.stop.is_set())

    def _move_folder(self, found: Found, line: Line, pool: ThreadPoolExecutor) -> None:
        inspection.check_link(self.source, f"{found.folder}/manifest.json")
        self.trust.check(f"{found.folder}/manifest.json", found.sha256)
        if isinstance(found.manifest, IndexManifest):
            self._move_index(found, found.manifest, line)
            return
        shards = inspection.check_stage(found.manifest, found.folder, self.source.url)
        units = self._units(found, shards)
        line.shards = len(units)
        if not units:
            return
        self._make_ready(found, found.manifest, shards)
        present = set(self.target.names(f"{found.folder}/commits"))
        for result in _in_parallel(
            pool, self.jobs, self.stop, lambda unit: self._move_unit(found, shards, unit, present), units
        ):
            count(line, *result)
        if line.moved:
            self._settle_contested(found, found.manifest, line)

    def _units(self, found: Found, shards: Shards) -> list[int | None]:
        """Units that the source holds and that were asked for."""
        names = self.source.names(f"{found.folder}/commits")
        if found.split is None:
            return [None] if "artifact.json" in names else []
        first, last = self.wanted.rows
        numbers = {int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()}
        asked = shards.covering(min(first, shards.rows), shards.rows if last is None else min(last, shards.rows))
        return [number for number in sorted(numbers) if number in asked]

    def _make_ready(self, found: Found, manifest: StageManifest, shards: Shards) -> None:
        """Make the target's folder ready, or hold the manifest that it has against the source's.

        Raises
        ------
        StoreError
            If rows are cut in another way there, or its arrays are of other shapes.
        """
        name = f"{found.folder}/manifest.json"
        try:
            standing = parse(StageManifest, self.target.get(name, limit=MAX_JSON_BYTES), f"{self.target.url}/{name}")
        except FileNotFoundError:
            commit.prepare_folder(self.target, found.folder, manifest, shards if found.split is not None else None)
            return
        for what in ("fingerprint", "rows", "shard_rows", "arrays"):
            if getattr(standing, what) != getattr(manifest, what):
                msg = f"{found.folder} has other {what} in {self.target.url} than in {self.source.url}"
                raise StoreError(msg, hint=f"move the folder away in {self.target.url} and run again")

    # -- one shard -----------------------------------------------------------------------------------------------

    def _move_unit(self, found: Found, shards: Shards, unit: int | None, present: set[str]) -> tuple[Any, ...]:
        """(what became of it, unit, bytes moved, reason)."""
        assert isinstance(found.manifest, StageManifest)
        try:
            record = self._read_record(found, found.manifest, shards, unit)
            if record is None:
                return "gone", unit, 0, ""
            standing = self._standing(found.folder, unit) if file_of(unit) in present else None
            if standing is not None and standing.content == record.content:
                return "same", unit, 0, ""
            replaces = standing is not None and self.newer and record.generation > standing.generation
            if standing is not None and not replaces:
                return "kept", unit, 0, ""
            objects = self._fetch(found, found.manifest, shards, record)
            done = self._replace(found, standing, record, objects) if standing else self._put(found, record, objects)
        except TornShardError as error:
            return "refused", unit, 0, error.message
        except StoreError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return "refused", unit, 0, error.message
        return done, unit, sum(len(data) for _, data in objects.values()), ""

    def _read_record(
        self, found: Found, manifest: StageManifest, shards: Shards, unit: int | None
    ) -> CommitRecord | None:
        name = commit_name(found.folder, unit)
        inspection.check_link(self.source, name)
        said = f"{self.source.url}/{name}"
        try:
            data = self.source.get(name, limit=MAX_JSON_BYTES)
        except FileNotFoundError:
            return None
        self.trust.check(name, sha256_bytes(data))
        record = parse(CommitRecord, data, said)
        inspection.check_record(record, unit, manifest, shards, said)
        return record

    def _standing(self, folder: str, unit: int | None) -> CommitRecord | None:
        try:
            return read_record(self.target, folder, unit)
        except TornShardError:
            raise
        except StoreError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return None  # a torn record: what arrives takes its place

    def _fetch(
        self, found: Found, manifest: StageManifest, shards: Shards, record: CommitRecord
    ) -> dict[str, tuple[str, bytes]]:
        objects = {}
        specs = commit.all_arrays(manifest.arrays)
        for key, name in commit.object_names(found.folder, manifest, record).items():
            data = self._fetch_object(name, record.objects[key].sha256, record.objects[key].bytes)
            if record.shard is not None:
                inspection.check_shard_bytes(data, specs[key], shards, record.shard, f"{self.source.url}/{name}")
            objects[key] = (name, data)
        return objects

    def _fetch_object(self, name: str, sha256: str, size: int) -> bytes:
        """Bytes of an object, read again if they do not arrive as recorded."""
        inspection.check_link(self.source, name)
        said = f"{self.source.url}/{name}"
        for attempt in range(FETCHES):
            try:
                data = self.source.get(name, limit=size)
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

    def _put(self, found: Found, record: CommitRecord, objects: dict[str, tuple[str, bytes]]) -> str:
        """Put a shard that the target does not have."""
        folder, unit = found.folder, record.shard
        fault_point("before_put")
        for key, (name, data) in sorted(objects.items()):
            made = self.target.create(name, data, sync=False)
            if not made and not self._is_there(name, record.objects[key].sha256):
                return self._put_under_lease(found, record, objects)  # left by somebody with other bytes
            fault_point("between_arrays")
        fault_point("before_record")
        made = commit.put_record(self.target, folder, record, [name for name, _ in objects.values()])
        fault_point("after_record")
        if made:
            return "moved"
        standing = self._standing(folder, unit)
        return "same" if standing is not None and standing.content == record.content else "kept"

    def _settle_contested(self, found: Found, manifest: StageManifest, line: Line) -> None:
        """Look again at shards that a worker is at: between two of our objects it may have put its own.

        A worker that is gone by now met our record and settled the matter itself.
        """
        present = set(self.target.names(f"{found.folder}/commits"))
        for name in self.target.names(f"{found.folder}/leases"):
            unit = None if name == "artifact.json" else int(name[:-5]) if name[:-5].isdigit() else -1
            record = self._standing(found.folder, unit) if name in present else None
            if record is not None and commit.damaged_objects(self.target, found.folder, manifest, record):
                self.target.delete(commit_name(found.folder, unit))
                line.moved -= 1
                count(line, "busy", unit, 0, "")

    def _put_under_lease(self, found: Found, record: CommitRecord, objects: dict[str, tuple[str, bytes]]) -> str:
        lease = self._leases.acquire(lease_name(found.folder, record.shard))
        if lease is None:
            return "busy"
        with lease.beating():
            return "moved" if commit.put(self.target, found.folder, record, objects, lease) else "kept"

    def _replace(
        self, found: Found, standing: CommitRecord, record: CommitRecord, objects: dict[str, tuple[str, bytes]]
    ) -> str:
        assert isinstance(found.manifest, StageManifest)
        lease = self._leases.acquire(lease_name(found.folder, record.shard))
        if lease is None:
            return "busy"
        with lease.beating():
            commit.discard(self.target, found.folder, found.manifest, standing, lease)
            return "moved" if commit.put(self.target, found.folder, record, objects, lease) else "kept"

    def _is_there(self, name: str, sha256: str) -> bool:
        try:
            return sha256_bytes(self.target.get(name)) == sha256
        except FileNotFoundError:
            return False

    # -- an index ------------------------------------------------------------------------------------------------

    def _move_index(self, found: Found, manifest: IndexManifest, line: Line) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        line.shards = 1
        inspection.check_place(manifest, found.folder, self.source.url)
        name = f"{found.folder}/manifest.json"
        if self.target.size(name) is not None:
            line.same = 1  # a key names its rows; ground truth that was changed since has another key
            return
        if set(manifest.objects) != set(TABLES):
            msg = f"{self.source.url}/{name} names other tables than {' and '.join(TABLES)}"
            raise StoreError(msg)
        data = {
            table: self._fetch_object(
                f"{found.folder}/{table}",
                manifest.objects[table].sha256,
                min(manifest.objects[table].bytes, inspection.MAX_FILE_BYTES),
            )
            for table in TABLES
        }
        try:
            tables = [pq.read_table(io.BytesIO(data[table])) for table in TABLES]
        except (pa.ArrowException, OSError, ValueError) as error:
            msg = f"a table of {self.source.url}/{found.folder} cannot be read: {str(error)[:200]}"
            raise TornShardError(msg) from error
        inspection.check_index(manifest, tables[0], tables[1], f"{self.source.url}/{found.folder}")
        for table, content in data.items():
            if not self.target.create(f"{found.folder}/{table}", content):
                self.target.replace(f"{found.folder}/{table}", content)
        self.target.create(name, manifest.to_bytes())
        line.moved, line.bytes = 1, sum(map(len, data.values()))


def _in_parallel(
    pool: ThreadPoolExecutor,
    jobs: int,
    stop: threading.Event,
    act: Callable[[int | None], tuple[Any, ...]],
    units: list[int | None],
) -> Iterator[tuple[Any, ...]]:
    """Results of `act` in the order they come, with few units in memory; the rest is not begun once `stop` is set."""
    todo = iter(units)
    running = {pool.submit(act, unit) for unit in islice(todo, 2 * jobs)}
    try:
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                if not stop.is_set() and (unit := next(todo, _END)) is not _END:
                    running.add(pool.submit(act, unit))  # type: ignore[arg-type]
    finally:
        for future in running:
            future.cancel()


_END = object()
