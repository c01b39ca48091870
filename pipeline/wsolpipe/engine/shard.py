"""Making one shard, by reading rows, running the stage block by block, encoding and committing; or one artifact."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import TornShardError
from wsolpipe.contract.layout import Shards, digest, sha256_bytes
from wsolpipe.contract.manifest import CommitRecord, Quarantined, StageManifest
from wsolpipe.contract.reader import Index, StageView
from wsolpipe.contract.schema import RETIRED, Status
from wsolpipe.engine import commit, zarr_metadata
from wsolpipe.engine.checkpoint import Checkpoint
from wsolpipe.engine.image_files import LOST
from wsolpipe.engine.isolation import Pace, Streak, process_guarded
from wsolpipe.engine.leases import Lease, fault_point
from wsolpipe.engine.plan import upstream_contents
from wsolpipe.engine.zarr_metadata import encode_shard
from wsolpipe.images.index_tables import rows_digest
from wsolpipe.stages.base import ArtifactStage, Rows, Stage, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pyarrow as pa

    from wsolpipe.contract.parquet import ParquetRows
    from wsolpipe.engine.graph import Node
    from wsolpipe.engine.session import Session
    from wsolpipe.networks.saved_state import Parts

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


@dataclass(frozen=True)
class Unit:
    """One shard or artifact (number None) that this process holds the lease of.

    Attributes
    ----------
    manifest : StageManifest
        As written in the node's folder.
    generation : int
        How often it was to be made, from 1.
    """

    session: Session
    node: Node
    number: int | None
    manifest: StageManifest
    lease: Lease
    generation: int

    def upstream(self) -> dict[str, dict[str, str]]:
        """Contents of what it reads, as they are now."""
        return upstream_contents(self.session, self.node, self.number)

    def commit(self, record: CommitRecord, objects: Mapping[str, bytes]) -> CommitRecord:
        """Commit what was made of it; return the record that stands in the store.

        Raises
        ------
        StoreError
            If none stands, because another worker took the lease.
        """
        folder, arrays = self.node.folder, self.manifest.arrays
        named = {name: (commit.object_name(folder, arrays, name, self.number), data) for name, data in objects.items()}
        return commit.commit(self.session.backend, folder, record, named, self.lease)


@dataclass
class ShardJob:
    """One shard being made.

    Attributes
    ----------
    stage : Stage
        Set up in this process.
    memory : Memory
        Added to.
    on_rows : callable
        Called with (rows done, rows of the shard) after every block; may raise to abandon the shard.
    stopping : callable
        Whether this process was asked to stop.
    """

    unit: Unit
    stage: Stage[Any]
    memory: Memory = field(default_factory=Memory)
    on_rows: Callable[[int, int], None] = lambda done, total: None
    stopping: Callable[[], bool] = lambda: False
    _summary: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.unit.number is not None
        assert self.unit.node.index is not None
        self.session, self.node, self.manifest = self.unit.session, self.unit.node, self.unit.manifest
        self.shard, self.index = self.unit.number, self.unit.node.index

    def make(self) -> CommitRecord:
        """Make and commit the shard; return its record in the store."""
        began = time.perf_counter()
        start, stop = self.node.shards.span(self.shard)
        columns = [*READ_ALWAYS, *(name for name in self.node.columns if name not in READ_ALWAYS)]
        table = self.memory.spans(self.index).table(columns, start=start, stop=stop)
        found_rows = digest_of_rows(self.node, table, start)
        contents = self.unit.upstream()
        upstream = self._read_upstream(start, stop)
        if self.unit.upstream() != contents:
            msg = f"what shard {self.shard} of {self.node.stage} reads was remade while it was read"
            raise TornShardError(msg)
        made_of = (found_rows, contents, self.unit.generation, self.stage.grain())
        checkpoint = Checkpoint.of(self.session.config, self.node, self.shard, *made_of)
        arrays, status, reasons = self._run_blocks(table, start, stop, upstream, checkpoint)
        record = commit.new_record(
            self.shard, start, stop, checkpoint.spent + time.perf_counter() - began,
            rows_digest=found_rows, upstream=contents, generation=self.unit.generation,
            ok=int((status == Status.OK).sum()), no_object=int((status == Status.NO_OBJECT).sum()),
            quarantined=_quarantined(table, start, status, reasons), summary=dict(self._summary),
            device=self.stage.context.used_device,
            batch=int(getattr(self.stage.params, self.stage.batch_key(), 0) or 0),
        )  # fmt: skip
        shards, arrays["status"] = Shards(self.manifest.rows, self.manifest.shard_rows), status
        specs = zarr_metadata.all_arrays(self.manifest.arrays)
        objects = {
            name: encode_shard(spec, shards, self.shard, arrays[name], self.manifest.checksum)
            for name, spec in specs.items()
        }
        return self.unit.commit(record, objects)

    def take_over(self, older: Sequence[StageView]) -> CommitRecord | None:
        """Copy this shard from one of the `older_views`; None if none has it."""
        node, backend = self.node, self.session.backend
        start, stop = node.shards.span(self.shard)
        for view in older:
            if view.manifest.checksum != self.manifest.checksum:
                continue  # its bytes do not fit the arrays here
            record = view.record(self.shard)
            if record is None or (record.start, record.stop) != (start, stop):
                continue
            table = self.index.table([*node.columns, "reason"], start=start, stop=stop)
            alike = {digest_of_rows(node, table, start), digest_of_rows(node, table, start, retired=False)}
            if record.rows_digest not in alike or record.upstream != self.unit.upstream():
                continue
            names = commit.object_names(view.folder, view.manifest, record)
            objects = {name: backend.get(source) for name, source in names.items()}
            if any(sha256_bytes(data) != record.objects[name].sha256 for name, data in objects.items()):
                continue
            taken = record.model_copy(update={"taken_over_from": view.key, "generation": self.unit.generation})
            return self.unit.commit(taken, objects)
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
        return Rows(
            np.arange(start + first, start + last, dtype=np.int64), part, self.session.files.loader(part),
            status=status, reasons=reasons, threads=self.stage.context.threads, parts=parts,
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


@dataclass
class ArtifactJob:
    """One artifact being made: whole splits in, files out."""

    unit: Unit
    stage: ArtifactStage[Any]

    def make(self) -> CommitRecord:
        """Make and commit the files; return their record in the store."""
        began, session, params = time.perf_counter(), self.unit.session, self.unit.node.params
        wanted = [*self.stage.splits_needed(params), *self.stage.splits_measured(params)]
        present = [split for split in dict.fromkeys(wanted) if split in session.dataset.splits]
        made = self.stage.produce({split: self._rows(split) for split in present})
        record = commit.new_record(
            None, 0, 0, time.perf_counter() - began, upstream=self.unit.upstream(), summary=dict(made.summary),
            device=self.stage.context.used_device, generation=self.unit.generation,
        )  # fmt: skip
        return self.unit.commit(record, made.files)

    def _rows(self, split: str) -> Rows:
        session = self.unit.session
        index = session.index_of(split)
        assert index is not None
        columns = index.table(READ_ALWAYS).to_pydict()
        numbers = np.arange(len(columns["row"]), dtype=np.int64)
        reasons = {position: reason for position, reason in enumerate(columns["reason"]) if reason}
        status = np.full(len(numbers), Status.OK, np.uint8)
        status[list(reasons)] = Status.QUARANTINED
        load, threads = session.files.loader(columns), self.stage.context.threads
        return Rows(numbers, columns, load, status=status, reasons=reasons, threads=threads)
