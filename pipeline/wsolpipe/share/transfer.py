"""Push and pull: finished shards from one store to another, only what differs, checked on arrival, resumable.

A shard is committed as by a run: its objects are created without overwriting, its record last. So a transfer may be
killed at any moment and repeated, and it may run beside runs and other transfers on either store.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.backends.opening import check_place, open_backend
from wsolpipe.contract.errors import AccessError, ConfigError, SchemaMismatch, StoreError
from wsolpipe.contract.layout import Shards, shard_of
from wsolpipe.contract.manifest import MAX_JSON_BYTES, IndexManifest, StageManifest, parse
from wsolpipe.contract.reader import open_store
from wsolpipe.engine import zarr_metadata
from wsolpipe.engine.leases import GC, REPAIR, TRANSFER, Leases, is_marked, marked
from wsolpipe.share import inspection
from wsolpipe.share.inspection import Trust
from wsolpipe.share.selection import Selection, StoredResult, select
from wsolpipe.share.shard_transfer import Moved, ShardTransfer, move_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wsolpipe.contract.backends.base import Backend

REPAIR_PATIENCE = 60.0


@dataclass
class FolderLine:
    """Outcome of one folder.

    Attributes
    ----------
    shards, moved, same : int
        Shards that the source has, that were moved, and that were there already with the same bytes.
    kept : list of int or None
        Shards that the target holds with other bytes, which were left as they are.
    refused : list of str
        What was wrong with those that were not taken.
    """

    stage: str
    split: str | None
    key: str
    dataset: str
    shards: int = 0
    moved: int = 0
    same: int = 0
    kept: list[int | None] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    bytes: int = 0

    @classmethod
    def of(cls, folder: str, refused: str) -> FolderLine:
        """Line of a folder that was refused as a whole."""
        dataset, second, stage, key = folder.split("/")
        return cls(stage, None if second == "artifacts" else second, key, dataset, refused=[refused])

    def count(self, done: Moved) -> None:
        """Add the outcome of one shard."""
        if done.outcome == "moved":
            self.moved += 1
            self.bytes += done.bytes
        elif done.outcome == "same":
            self.same += 1
        elif done.outcome == "kept":
            self.kept.append(done.unit)
        elif done.outcome == "refused":
            self.refused.append(done.reason)
        elif done.outcome == "busy":
            self.refused.append(f"shard {done.unit} is held by a worker: run again when it is done")


@dataclass(frozen=True)
class Result:
    """Outcome of a transfer.

    Attributes
    ----------
    skipped : list of str
        Folders of the source that are not of a store.
    retried : dict
        Requests that were sent again, by verb.
    """

    lines: list[FolderLine]
    skipped: list[str]
    retried: dict[str, int]
    seconds: float
    stopped: bool

    @property
    def refused(self) -> list[str]:
        """Everything that was not taken, and why."""
        return [text for line in self.lines for text in line.refused]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"stages": self.lines, "skipped": self.skipped, "retried": self.retried, "seconds": self.seconds}


def push(store: str, to: str, wanted: Selection, **how: Any) -> Result:
    """Copy what `wanted` selects from `store` to the store `to`, as far as `to` lacks it.

    A shard that was made again here, as a later generation, replaces its earlier one there; any other whole shard that
    is there with other bytes stays.

    Parameters
    ----------
    **how
        ``check``, ``jobs``, ``emit`` and ``stop`` of `Transfer`.

    Raises
    ------
    WsolError
        If a store is out of reach, there is none at `store`, `to` is the same store or not writable, or `wanted` names
        what is not there.
    """
    check_place(to)
    target = open_backend(to)
    return Transfer(open_store(store).backend, target, wanted, Trust(), newer=True, **how).run()


def pull(source: str, store: str, wanted: Selection, *, trust: str | None = None, **how: Any) -> Result:
    """Copy what `wanted` selects from the store `source` to `store`, as far as `store` lacks it.

    Parameters
    ----------
    trust : str, optional
        As `Trust.of` takes it.
    **how
        ``newer``, ``check``, ``jobs``, ``emit`` and ``stop`` of `Transfer`.

    Raises
    ------
    WsolError
        If a store is out of reach, there is none at `source`, it is `store` itself or is not trusted, or `wanted`
        names what is not there.
    """
    origin = open_store(source).backend
    check_place(store)
    return Transfer(origin, open_backend(store), wanted, Trust.of(origin, trust), **how).run()


@dataclass
class Transfer:
    """One transfer under way.

    Attributes
    ----------
    newer : bool
        Whether a later generation of a shard replaces an earlier one; if not, the target's stays.
    check : bool
        Whether the bytes at the target are compared with its records, not only their sizes.
    jobs : int
        Shards transferred at a time.
    """

    source: Backend
    target: Backend
    wanted: Selection
    trust: Trust
    newer: bool = False
    check: bool = False
    jobs: int = 8
    emit: Callable[[dict[str, Any]], None] = lambda event: None
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Result:
        """Move everything that was selected.

        Raises
        ------
        WsolError
            If a store is out of reach or not writable, both are one, or the selection names what is not there.
        """
        began = time.perf_counter()
        check_two_stores(self.source, self.target)
        self._leases = Leases(self.target)
        selected = select(self.source, self.wanted)
        lines = [FolderLine.of(folder, reason) for folder, reason in selected.refused]
        with ThreadPoolExecutor(self.jobs, thread_name_prefix="transfer") as pool:
            for found in selected.found:
                line = FolderLine(found.stage, found.split, found.key, found.dataset)
                lines.append(line)
                if self.stop.is_set():
                    break
                try:
                    self._move_folder(found, line, pool)
                except AccessError:
                    raise  # the store is out of reach or out of space: so is the next folder
                except StoreError as error:
                    line.refused.append(error.message)
                self.emit({"event": "folder", **vars(line)})
        retried: Counter[str] = Counter()
        for backend in (self.source, self.target):
            retried.update(getattr(backend, "retried", {}))
        seconds = round(time.perf_counter() - began, 3)
        return Result(lines, selected.skipped, dict(retried), seconds, self.stop.is_set())

    def _move_folder(self, found: StoredResult, line: FolderLine, pool: ThreadPoolExecutor) -> None:
        inspection.check_link(self.source, f"{found.folder}/manifest.json")
        self.trust.check(f"{found.folder}/manifest.json", found.sha256)
        if isinstance(found.manifest, IndexManifest):
            inspection.check_own_place(found.manifest, found.folder, self.source.url)
            with marked(self._leases, found.folder, TRANSFER):
                self._wait_for_repair(found.folder)
                done = move_index(self.source, self.target, found.folder, found.manifest, check=self.check)
            self._leases.sweep(found.folder)  # leases of killed transfers
            line.shards = 1
            line.count(done)
            return
        shards = inspection.check_stage(found.manifest, found.folder, self.source.url)
        units = self._units(found, shards)
        line.shards = len(units)
        if not units:
            return
        with marked(self._leases, found.folder, TRANSFER):
            self._wait_for_repair(found.folder)
            self._move_units(found, found.manifest, shards, units, line, pool)
        self._leases.sweep(found.folder)

    def _move_units(
        self,
        found: StoredResult,
        manifest: StageManifest,
        shards: Shards,
        units: list[int | None],
        line: FolderLine,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._make_ready(found, manifest, shards)
        present = frozenset(self.target.names(f"{found.folder}/commits"))
        kind = "files" if found.split is None else "data.zarr"
        sizes = dict(self.target.walk(f"{found.folder}/{kind}")) if present else {}
        one = ShardTransfer(
            self.source, self.target, self._leases, self.trust, self.newer, self.check, found.folder, manifest, shards,
            present, sizes,
        )  # fmt: skip
        moved = []
        for done in _in_parallel(pool, self.jobs, self.stop, one.move, units):
            line.count(done)
            if done.outcome == "moved":
                moved.append(done.unit)
        for unit in one.settle(moved) if moved else ():
            line.moved -= 1
            line.count(Moved("busy", unit))
        self._make_ready(found, manifest, shards)  # repair may have removed the key while it had no shard

    def _wait_for_repair(self, folder: str) -> None:
        """Let a repair or gc of `folder` end that began before this transfer; one that begins later sees its marker.

        Raises
        ------
        StoreError
            If it does not end.
        """
        ends = time.monotonic() + REPAIR_PATIENCE
        while any(is_marked(self._leases, folder, command) for command in (REPAIR, GC)):
            if time.monotonic() > ends or self.stop.wait(0.1):
                msg = f"{folder} of {self.target.url} is under repair or gc"
                raise StoreError(msg, hint="run again when it is done")

    def _units(self, found: StoredResult, shards: Shards) -> list[int | None]:
        """Units that the source holds and that were asked for."""
        names = self.source.names(f"{found.folder}/commits")
        if found.split is None:
            return [None] if "artifact.json" in names else []
        first, last = self.wanted.rows
        numbers = {number for name in names if (number := shard_of(name)) is not None}
        asked = shards.covering(min(first, shards.rows), shards.rows if last is None else min(last, shards.rows))
        return [number for number in sorted(numbers) if number in asked]

    def _make_ready(self, found: StoredResult, manifest: StageManifest, shards: Shards) -> None:
        """Create the target's folder, or compare the manifest that it has with the source's.

        Raises
        ------
        StoreError
            If rows are cut in another way there, or its arrays are of other shapes.
        """
        name = f"{found.folder}/manifest.json"
        rows = shards if found.split is not None else None
        try:
            standing = parse(StageManifest, self.target.get(name, limit=MAX_JSON_BYTES), f"{self.target.url}/{name}")
        except FileNotFoundError:
            zarr_metadata.prepare_folder(self.target, found.folder, manifest, rows)
            return
        except (AccessError, SchemaMismatch):
            raise
        except StoreError:  # damaged: replaced by the source's if the arrays that are there have its metadata
            if rows is None or zarr_metadata.metadata_agrees(self.target, found.folder, manifest, rows):
                self.target.replace(name, manifest.to_bytes())
                return
            raise
        rows_as = ("rows", "shard_rows", "arrays", "checksum") if rows is not None else ()  # an artifact has no rows
        for what in ("fingerprint", *rows_as):
            if getattr(standing, what) != getattr(manifest, what):
                msg = f"{found.folder} has other {what} in {self.target.url} than in {self.source.url}"
                raise StoreError(msg, hint=f"move the folder away in {self.target.url} and run again")
        zarr_metadata.prepare_folder(self.target, found.folder, manifest, rows)


def check_two_stores(source: Backend, target: Backend) -> None:
    """Refuse to move a store to itself, or into a folder of itself.

    Raises
    ------
    ConfigError
        If one is the other or lies in it.
    """
    names = []
    for backend in (source, target):
        place = os.path.realpath(backend.root) if isinstance(backend, LocalBackend) else backend.url
        names.append(place.rstrip("/") + "/")
    if names[0].startswith(names[1]) or names[1].startswith(names[0]):
        msg = f"{source.url} and {target.url} are one store, or one lies in the other"
        raise ConfigError(msg, hint="name another store with to= or from=")


def _in_parallel(
    pool: ThreadPoolExecutor,
    jobs: int,
    stop: threading.Event,
    act: Callable[[int | None], Moved],
    units: list[int | None],
) -> Iterator[Moved]:
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
