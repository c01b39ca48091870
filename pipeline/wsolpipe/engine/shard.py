"""Making one shard of a rows stage: read rows, run the stage block by block, encode, commit."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.canonical import digest, sha256_bytes
from wsolpipe.contract.errors import StoreError, TornShardError
from wsolpipe.contract.layout import Shards
from wsolpipe.contract.manifest import CommitRecord, Quarantined, StageManifest
from wsolpipe.contract.reader import StageView
from wsolpipe.contract.records import read_record
from wsolpipe.contract.schema import RETIRED, Status
from wsolpipe.engine import commit, zarr_metadata
from wsolpipe.engine.checkpoint import Checkpoint
from wsolpipe.engine.clock import now
from wsolpipe.engine.encoding import encode_shard
from wsolpipe.engine.faults import fault_point
from wsolpipe.engine.image_files import LOST
from wsolpipe.engine.isolation import Streak, process_guarded
from wsolpipe.engine.pace import Pace
from wsolpipe.engine.plan import upstream_contents
from wsolpipe.images.index_tables import rows_digest
from wsolpipe.stages.base import Rows, Stage, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pyarrow as pa

    from wsolpipe.contract.parquet import ParquetRows
    from wsolpipe.contract.reader import Index
    from wsolpipe.engine.graph import Node
    from wsolpipe.engine.leases import Lease
    from wsolpipe.engine.session import Session
    from wsolpipe.stages.kept_work import Parts

Array = np.ndarray[Any, Any]
READ_ALWAYS = ("row", "image_id", "path", "labels", "width", "height", "orientation", "sha256", "reason")


@dataclass
class Memory:
    """State that a process keeps between shards.

    Attributes
    ----------
    paces : dict
        Number of rows that each stage gets at once.
    streak : Streak
        Rows in a row that made a stage raise.
    """

    paces: dict[str, Pace] = field(default_factory=dict)
    streak: Streak = field(default_factory=Streak)
    _spans: dict[str, ParquetRows] = field(default_factory=dict)

    def spans(self, index: Index) -> ParquetRows:
        """Rows of an index, whose row groups are read once for all the shards that lie in them."""
        if index.folder not in self._spans:
            self._spans = {index.folder: index.spans()}
        return self._spans[index.folder]


@dataclass
class ShardJob:
    """One shard being made.

    Attributes
    ----------
    stage : Stage
        Set up in this process.
    manifest : StageManifest
        As written in the node's folder.
    on_rows : callable
        Called with (rows done, rows of the shard) after every block; may raise to abandon the shard.
    memory : Memory
        Added to.
    stopping : callable
        Whether this process was asked to stop.
    """

    session: Session
    node: Node
    stage: Stage[Any]
    manifest: StageManifest
    shard: int
    lease: Lease
    on_rows: Callable[[int, int], None]
    generation: int = 1
    memory: Memory = field(default_factory=Memory)
    stopping: Callable[[], bool] = lambda: False
    _summary: dict[str, float] = field(default_factory=dict)

    def make(self) -> CommitRecord:
        """Make and commit the shard; return its record in the store."""
        began = time.perf_counter()
        start, stop = self.node.shards.span(self.shard)
        assert self.node.index is not None
        columns = [*READ_ALWAYS, *(name for name in self.node.columns if name not in READ_ALWAYS)]
        table = self.memory.spans(self.node.index).table(columns, start=start, stop=stop)
        found_rows = digest_of_rows(self.node, table, start)
        contents = upstream_contents(self.session, self.node, self.shard)
        upstream = self._read_upstream(start, stop)
        if upstream_contents(self.session, self.node, self.shard) != contents:
            msg = f"what shard {self.shard} of {self.node.stage} reads was remade meanwhile"
            raise TornShardError(msg)
        checkpoint = Checkpoint.of(
            self.session.config, self.node, self.shard, found_rows, contents, self.generation, self.stage.grain()
        )
        arrays, status, reasons = self._run_blocks(table, start, stop, upstream, checkpoint)
        seconds = checkpoint.spent + time.perf_counter() - began
        quarantined = _quarantined(table, start, status, reasons)
        record = CommitRecord(
            shard=self.shard,
            start=start,
            stop=stop,
            rows_digest=found_rows,
            objects={},
            upstream=contents,
            ok=int((status == Status.OK).sum()),
            no_object=int((status == Status.NO_OBJECT).sum()),
            quarantined=quarantined,
            summary=dict(self._summary),
            seconds=round(seconds, 3),
            rows_per_second=round((stop - start) / max(seconds, 1e-9), 2),
            device=self.stage.context.used_device,
            batch=int(getattr(self.stage.params, self.stage.batch_key(), 0) or 0),
            host=socket.gethostname(),
            time=now(),
            generation=self.generation,
        )
        return commit_arrays(
            self.session, self.node.folder, self.manifest, record, {**arrays, "status": status}, self.lease
        )

    def take_over(self, older: Sequence[StageView]) -> CommitRecord | None:
        """Copy this shard from one of the `older_views`; None if none has it."""
        node, backend = self.node, self.session.backend
        assert node.index is not None
        start, stop = node.shards.span(self.shard)
        for view in older:
            if view.manifest.checksum != self.manifest.checksum:
                continue  # its bytes do not fit the arrays here
            record = view.record(self.shard)
            if record is None or (record.start, record.stop) != (start, stop):
                continue
            table = node.index.table([*node.columns, "reason"], start=start, stop=stop)
            alike = {digest_of_rows(node, table, start), digest_of_rows(node, table, start, retired=False)}
            if record.rows_digest not in alike or record.upstream != upstream_contents(
                self.session, self.node, self.shard
            ):
                continue
            objects = {
                name: (commit.object_name(node.folder, self.manifest.arrays, name, self.shard), backend.get(source))
                for name, source in commit.object_names(view.folder, view.manifest, record).items()
            }
            if any(sha256_bytes(data) != record.objects[name].sha256 for name, (_, data) in objects.items()):
                continue
            taken = record.model_copy(update={"taken_over_from": view.key, "generation": self.generation})
            commit.put(backend, node.folder, taken, objects, self.lease)
            return read_record(backend, node.folder, self.shard)
        return None

    def _read_upstream(self, start: int, stop: int) -> dict[str, tuple[StageView, Upstream, dict[int, str]]]:
        """Arrays and reasons of every rows stage that is read, for the whole shard."""
        found = {}
        for node in self.node.upstream:
            if node.split is None:
                continue
            view = StageView(self.session.store, node.dataset, node.split, node.stage, str(node.key))
            reasons = self._reasons(view, self.node.reads(node, self.shard))
            arrays = {name: view[name][start:stop] for name in [*view.manifest.arrays, "status"]}
            upstream = Upstream(arrays, arrays.pop("status"), view.manifest.params)
            found[node.stage] = (view, upstream, reasons)
        return found

    def _reasons(self, view: StageView, numbers: Iterable[int | None]) -> dict[int, str]:
        """Why rows of the shards that are read are quarantined; their objects are verified as they are read.

        Raises
        ------
        TornShardError
            If one of the shards is missing.
        """
        reasons: dict[int, str] = {}
        for number in numbers:
            assert number is not None
            record = view.record(number)
            if record is None:
                msg = f"shard {number} of {view.stage} is needed and missing"
                raise TornShardError(msg)
            reasons.update({item.row: item.reason for item in record.quarantined})
        return reasons

    def _run_blocks(
        self,
        table: pa.Table,
        start: int,
        stop: int,
        upstream: dict[str, tuple[StageView, Upstream, dict[int, str]]],
        checkpoint: Checkpoint,
    ) -> tuple[dict[str, Array], Array, dict[int, str]]:
        specs = self.manifest.arrays
        arrays = {name: spec.empty(stop - start) for name, spec in specs.items()}
        status = np.zeros(stop - start, np.uint8)
        reasons: dict[int, str] = {}
        done = checkpoint.restore(arrays, status, reasons, self._summary)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        self.on_rows(done, stop - start)
        pace, first = self._pace(), done
        while first < stop - start:
            last = pace.stop(first, stop - start)
            parts = checkpoint.parts(first, self.stopping)
            rows = self._rows(columns, first, last, start, upstream, parts)
            inputs = {name: _cut(item, first, last) for name, (_, item, _) in upstream.items()}
            began = time.perf_counter()
            try:
                made = process_guarded(self.stage, rows, inputs, specs, self.memory.streak)
            except BaseException:  # stopped or failed inside a block: the rows before it are kept
                checkpoint.save(first, arrays, status, reasons, self._summary, at_once=first > done)
                raise
            pace.learn(last - first, time.perf_counter() - began)
            for name, values in made.items():
                arrays[name][first:last] = values
            status[first:last] = rows.status
            reasons.update({first + position: reason for position, reason in rows.reasons.items()})
            for name, value in self.stage.summary(made, rows).items():
                self._summary[name] = self._summary.get(name, 0) + value
            checkpoint.save(last, arrays, status, reasons, self._summary)
            parts.drop()
            fault_point("block")
            try:
                self.on_rows(last, stop - start)
            except BaseException:  # asked to stop: the next worker of this machine resumes here
                checkpoint.save(last, arrays, status, reasons, self._summary, at_once=True)
                raise
            first = last
        paths = columns["path"]
        lost = [paths[position] for position, reason in reasons.items() if reason.startswith(LOST)]
        self.session.files.confirm_lost(lost, [paths[at] for at in np.flatnonzero(status == Status.OK)] if lost else [])
        checkpoint.drop()
        return arrays, status, reasons

    def _pace(self) -> Pace:
        key = f"{self.node.folder} {self.stage.grain()}"
        return self.memory.paces.setdefault(key, Pace(self.node.entry.block, self.stage.grain()))

    def _rows(
        self,
        columns: Mapping[str, list[Any]],
        first: int,
        last: int,
        start: int,
        upstream: dict[str, tuple[StageView, Upstream, dict[int, str]]],
        parts: Parts,
    ) -> Rows:
        part = {name: values[first:last] for name, values in columns.items()}
        status = np.full(last - first, Status.OK, np.uint8)
        reasons: dict[int, str] = {}
        for position in range(last - first):
            if part["reason"][position] == RETIRED:
                status[position] = Status.ABSENT
                continue
            if part["reason"][position]:
                status[position], reasons[position] = Status.QUARANTINED, part["reason"][position]
                continue
            for name, (_, item, why) in upstream.items():
                if item.status[first + position] == Status.QUARANTINED:
                    status[position] = Status.QUARANTINED
                    reasons[position] = f"{name}: {why.get(start + first + position, 'quarantined')}"
                elif item.status[first + position] == Status.NO_OBJECT:
                    status[position] = Status.NO_OBJECT
        files = self.session.files

        def load(position: int) -> Array:
            return files.read(part["path"][position], part["sha256"][position], part["orientation"][position])

        numbers = np.arange(start + first, start + last, dtype=np.int64)
        return Rows(
            numbers, part, load, status=status, reasons=reasons, threads=self.stage.context.threads, parts=parts,
            beside=self.node.beside(start + first, start + last),
        )  # fmt: skip


def digest_of_rows(node: Node, table: pa.Table, start: int, *, retired: bool = True) -> str:
    """Digest of the index rows from `start` on that a shard is made of, and of which rows are beside them.

    Parameters
    ----------
    retired : bool
        Whether it says which rows are retired and so were not made; a shard with all its rows will do as well.
    """
    found, near = rows_digest(table, node.columns), node.beside(start, start + len(table))
    left = np.flatnonzero(table.column("reason").to_numpy(zero_copy_only=False) == RETIRED) if retired else near[:0]
    found = digest([found, left.tolist()]) if left.size else found
    return digest([found, sha256_bytes(near.astype("<i8").tobytes())]) if near.size else found


def older_views(session: Session, node: Node, manifest: StageManifest) -> list[StageView]:
    """Other keys of a stage that differ from the node's only in other rows, newest first."""
    assert node.split is not None
    present = session.store[node.dataset][node.split].keys(node.stage)
    views = [StageView(session.store, node.dataset, node.split, node.stage, key) for key in reversed(present)]
    alike = (manifest.basis, manifest.shard_rows, manifest.arrays)
    return [
        view
        for view in views
        if view.key != node.key and (view.manifest.basis, view.manifest.shard_rows, view.manifest.arrays) == alike
    ]


def _cut(item: Upstream, first: int, last: int) -> Upstream:
    return Upstream(
        {name: values[first:last] for name, values in item.arrays.items()}, item.status[first:last], item.params
    )


def _quarantined(table: pa.Table, start: int, status: Array, reasons: Mapping[int, str]) -> tuple[Quarantined, ...]:
    positions = np.flatnonzero(status == Status.QUARANTINED)
    ids, paths = table.column("image_id"), table.column("path")
    return tuple(
        Quarantined(
            row=start + int(position),
            image_id=ids[int(position)].as_py(),
            path=paths[int(position)].as_py() or "",
            reason=reasons.get(int(position), "no reason given"),
        )
        for position in positions
    )


def commit_arrays(
    session: Session,
    folder: str,
    manifest: StageManifest,
    record: CommitRecord,
    arrays: Mapping[str, Array],
    lease: Lease,
) -> CommitRecord:
    """Encode the arrays of one shard and commit them; return its record in the store."""
    assert record.shard is not None
    shards = Shards(manifest.rows, manifest.shard_rows)
    objects = {
        name: (
            commit.object_name(folder, manifest.arrays, name, record.shard),
            encode_shard(spec, shards, record.shard, arrays[name], manifest.checksum),
        )
        for name, spec in zarr_metadata.all_arrays(manifest.arrays).items()
    }
    commit.put(session.backend, folder, record, objects, lease)
    standing = read_record(session.backend, folder, record.shard)
    if standing is None:
        msg = f"shard {record.shard} of {folder} was not committed: its lease was taken by another worker"
        raise StoreError(msg)
    return standing
