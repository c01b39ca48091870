"""Making one unit in this process: a shard, an artifact or a scan of the index, with its models loaded once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import TornShardError
from wsolpipe.contract.layout import commit_name, file_of, lease_name
from wsolpipe.contract.manifest import CommitRecord, StageManifest
from wsolpipe.contract.reader import Artifact, Index, StageView
from wsolpipe.contract.schema import CHECKSUM
from wsolpipe.engine import commit, zarr_metadata
from wsolpipe.engine.checkpoint import scratch_path
from wsolpipe.engine.graph import Node, existing_manifest, node_manifest
from wsolpipe.engine.leases import GC, Lease, Leases, is_marked
from wsolpipe.engine.plan import State, retry_generation, retry_name, unit_state, upstream_contents
from wsolpipe.engine.shard import ArtifactJob, Memory, ShardJob, Unit, older_views
from wsolpipe.networks.saved_state import Unfinished
from wsolpipe.stages.base import ArtifactStage, Context, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsolpipe.engine.indexing import IndexWork
    from wsolpipe.engine.session import Session


#: Seconds between two looks whether a `gc` has ended.
GC_POLL = 0.05


class Abandoned(BaseException):
    """A unit abandoned before its end because this process was asked to stop.

    Not an `Exception`: neither a stage's handler nor the search for a failing row may take it for a failure.
    """


@dataclass
class Maker:
    """Makes units; keeps the last stage set up.

    Attributes
    ----------
    emit : callable
        Receives events: plain dictionaries with a field ``event``.
    stopping : callable
        Whether this process was asked to stop; called after every block.
    """

    session: Session
    leases: Leases
    emit: Callable[[dict[str, Any]], None]
    stopping: Callable[[], bool]
    _ready: tuple[str, Stage[Any]] | None = None
    _known: tuple[Node, StageManifest] | None = None
    _warned: set[str] = field(default_factory=set)
    _memory: Memory = field(default_factory=Memory)
    _older: dict[str, list[StageView]] = field(default_factory=dict)
    _within: Callable[[int], None] | None = None

    def make(self, node: Node, unit: int | None, lease: Lease) -> tuple[CommitRecord, bool]:
        """Make and commit one unit whose lease is held; return its record and whether this call made it.

        Raises
        ------
        Abandoned
            If this process was asked to stop.
        TornShardError
            If an upstream shard is damaged; it is discarded, so that it is remade first.
        """
        try:
            manifest = self._manifest(node)
            self._let_gc_end(node)
            generation = self._clear_old(node, manifest, unit, lease)
            if isinstance(generation, CommitRecord):
                return generation, False
            self.report("begin", node, shard=unit)
            wanted = Unit(self.session, node, unit, manifest, lease, generation)
            record = self._make_artifact(wanted) if unit is None else self._make_shard(wanted)
        except TornShardError:
            self._discard_damaged(node, unit)
            raise
        self.session.backend.delete(retry_name(node.folder, unit))
        self.session.backend.delete(failure_name(node.folder, unit))
        self.report(
            "shard", node, shard=unit, rows=record.stop - record.start, ok=record.ok + record.no_object,
            quarantined=len(record.quarantined), seconds=record.seconds, taken_over=record.taken_over_from is not None,
            summary=record.summary,
        )  # fmt: skip
        return record, True

    def _let_gc_end(self, node: Node) -> None:
        """Wait for a `gc` that marked what this unit belongs to or reads before it could see this unit's manifest.

        Raises
        ------
        TornShardError
            If there was one: what it removed is made again first.
        """
        folders = [node.folder, *(need.folder for need in node.upstream), *([node.index.folder] if node.index else ())]
        waited = False
        while any(is_marked(self.leases, folder, GC) for folder in folders):
            waited = True
            self.check()
            time.sleep(GC_POLL)
        if waited:
            self._known = None
            msg = f"gc was at work on what {node.stage} of {node.split} reads"
            raise TornShardError(msg, hint="run again")

    def _clear_old(self, node: Node, manifest: StageManifest, unit: int | None, lease: Lease) -> CommitRecord | int:
        """The valid record, or the generation to make after a torn or outdated shard is removed."""
        state, old = unit_state(self.session, node, manifest, unit, retry=True)
        asked = retry_generation(self.session, node, unit)
        if old is None:
            if state is State.TORN:  # the record itself is unreadable
                self.session.backend.delete(commit_name(node.folder, unit))
            return asked
        if state is State.DONE and old.upstream == upstream_contents(self.session, node, unit):
            return old
        commit.discard(self.session.backend, node.folder, manifest, old, lease)
        return max(asked, old.generation + 1)

    def _make_shard(self, unit: Unit) -> CommitRecord:
        node = unit.node

        def on_rows(done: int, total: int) -> None:
            def tell(more: int) -> None:
                unit.lease.rows = done + more
                if done + more < total:  # the commit reports the last rows
                    self.report("rows", node, shard=unit.number, done=done + more, total=total)
                self.check()

            self._within = tell
            tell(0)

        job = ShardJob(unit, self._set_up(node), self._memory, on_rows, self.stopping)
        if node.folder not in self._older:
            self._older[node.folder] = older_views(self.session, node, unit.manifest)
        taken = job.take_over(self._older[node.folder]) if unit.generation == 1 else None
        return taken or job.make()

    def _make_artifact(self, unit: Unit) -> CommitRecord:
        node, config = unit.node, self.session.config
        kind = self.session.stage_class(node.stage)
        assert issubclass(kind, ArtifactStage)
        self._ready = self._within = None  # one set of models at a time
        path = scratch_path(config, node, None, unit.generation).with_suffix(".safetensors")
        unfinished = Unfinished(path, every=config.checkpoint, stopping=self.stopping)
        stage = kind(node.params, replace(self._context(node), unfinished=unfinished))
        record = ArtifactJob(unit, stage).make()
        for leftover in path.parent.glob(f"{path.name}*"):
            leftover.unlink(missing_ok=True)
        return record

    def _discard_damaged(self, node: Node, unit: int | None) -> None:
        """Discard what `unit` reads if its bytes are not those of its record; restore arrays' metadata."""
        for need in node.upstream:
            manifest = existing_manifest(self.session, need)
            if manifest is not None and need.split is not None:
                zarr_metadata.restore_metadata(self.session.backend, need.folder, manifest, need.shards)
            if manifest is None:
                continue
            for read in node.reads(need, unit):
                lease = self.leases.acquire(lease_name(need.folder, read))
                if lease is None:
                    continue
                record, wrong = commit.judge(self.session.backend, need.folder, manifest, read, deep=True)
                if record is not None and wrong:
                    commit.discard(self.session.backend, need.folder, manifest, record, lease)
                    what = need.stage if read is None else f"{need.stage} shard {read}"
                    self.emit({"event": "warning", "text": f"{what} was damaged ({wrong}): made again"})
                lease.release()

    # -- set-up --------------------------------------------------------------------------------------------------

    def _manifest(self, node: Node) -> StageManifest:
        """Manifest in the node's folder; read once for each resolved node."""
        if self._known is None or self._known[0] is not node:
            self._known = node, existing_manifest(self.session, node) or self._begin(node)
        return self._known[1]

    def _begin(self, node: Node) -> StageManifest:
        if node.split is None:
            zarr_metadata.prepare_folder(self.session.backend, node.folder, node_manifest(self.session, node), None)
        else:
            made = node_manifest(self.session, node, arrays=self._set_up(node).arrays())
            made = made.model_copy(update={"checksum": self._checksum(node, made)})
            zarr_metadata.prepare_folder(self.session.backend, node.folder, made, node.shards)
        found = existing_manifest(self.session, node)
        assert found is not None
        return found

    def _checksum(self, node: Node, made: StageManifest) -> str:
        """Checksum of the shards in the folder or of those that can be taken over, else that of new shards."""
        standing = zarr_metadata.checksum_of_folder(self.session.backend, node.folder, made, node.shards)
        if standing is not None:
            return standing
        older = older_views(self.session, node, made)
        return older[0].manifest.checksum if older else CHECKSUM

    def _set_up(self, node: Node) -> Stage[Any]:
        """The stage of a node with its models loaded; one is kept at a time."""
        assert node.made_of is not None
        assert node.index is not None
        wanted = f"{node.made_of.basis()} {node.index.key}"
        if self._ready is None or self._ready[0] != wanted:
            kind = self.session.stage_class(node.stage)
            assert issubclass(kind, Stage)
            self._ready = self._within = None  # free the models of the last stage first
            stage = kind(node.params, self._context(node))
            stage.setup()
            self._ready = (wanted, stage)
        return self._ready[1]

    def _context(self, node: Node) -> Context:
        if self.session.config.device != "auto":
            self.session.device()  # refuses one that this machine does not have
        index = node.index or next((self.session.index_of(split) for split in self.session.splits), None)
        known = index.manifest if index else None
        store = self.session.store
        files = {
            need.stage: Artifact(store, need.dataset, need.stage, str(need.key)).fetch()
            for need in node.upstream
            if need.split is None
        }
        views = {
            need.stage: StageView(store, need.dataset, need.split, need.stage, str(need.key))
            for need in node.upstream
            if need.split is not None
        }
        return Context(
            dataset=node.dataset,
            classes=known.classes if known else None,
            class_names={int(label): name for label, name in known.class_names.items()} if known else {},
            objectless=frozenset(known.objectless) if known else frozenset(),
            find_device=self.session.device,
            threads=self.session.threads(),
            seed=self.session.config.seed,
            weights=node.weights,
            artifacts=files,
            upstream=views,
            warn=self._warn,
            progress=lambda done, total: self._progress(node, done, total),
            check=self.check,
            lists_any=lambda names: index is None or not set(names).isdisjoint(_image_ids(index)),
            open_stage=lambda name: self._open(node, name),
        )

    def _open(self, node: Node, name: str) -> Stage[Any] | None:
        """A rows stage that `node` reads, set up; None where it reads rows of other stages itself."""
        need = next(each for each in node.upstream if each.stage == name and each.split is not None)
        if any(each.split is not None for each in need.upstream):
            return None
        kind = self.session.stage_class(name)
        assert issubclass(kind, Stage)
        stage = kind(need.params, replace(self._context(need), progress=lambda done, total: self.check()))  # noqa: ARG005
        stage.setup()
        return stage

    def _progress(self, node: Node, done: int, total: int) -> None:
        """Progress of an artifact, or within a block of rows."""
        self.report("progress", node, done=done, total=total)
        if node.split is not None and self._within is not None:
            self._within(done)
        self.check()

    def check(self) -> None:
        """Raise `Abandoned` if this process was asked to stop."""
        if self.stopping():
            raise Abandoned

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.emit({"event": "warning", "text": text})

    def report(self, event: str, node: Node | IndexWork, **fields: Any) -> None:
        """Tell of an event of a stage on a split."""
        self.emit({"event": event, "stage": node.stage, "split": node.split, **fields})


def _image_ids(index: Index) -> list[str]:
    ids: list[str] = index.table(["image_id"]).column("image_id").to_pylist()
    return ids


def failure_name(folder: str, unit: int | None) -> str:
    """Name of the object with the last error of a unit."""
    return f"{folder}/failures/{file_of(unit)}"
