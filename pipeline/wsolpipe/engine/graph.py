"""From stages, splits and parameters to nodes with keys. Reads manifests and records; tables for frames alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import ConfigError, FingerprintMismatch, TornShardError
from wsolpipe.contract.layout import Shards, digest, read_json, stage_folder
from wsolpipe.contract.manifest import StageManifest, read_record
from wsolpipe.contract.reader import Artifact, Index, StageView
from wsolpipe.contract.schema import RETIRED
from wsolpipe.contract.schema import Weights as WeightsEntry
from wsolpipe.engine.fingerprint import Ingredients, expand_columns
from wsolpipe.engine.named_stages import check_apart, check_kinds
from wsolpipe.images.index import beside

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsolpipe.engine.session import Session
    from wsolpipe.networks.sources import Weights
    from wsolpipe.stages.base import ArtifactStage, StageParams
    from wsolpipe.stages.registry import StageEntry


@dataclass(frozen=True)
class Node:
    """One stage on one split, or one artifact (``split`` None).

    ``blocked`` names what must exist before the key is known; then ``made_of`` and `key` are None.
    """

    stage: str
    split: str | None
    entry: StageEntry
    params: StageParams
    blocked: str = ""
    made_of: Ingredients | None = None
    index: Index | None = None
    shards: Shards = field(default_factory=lambda: Shards(0))
    upstream: tuple[Node, ...] = ()
    weights: dict[str, Weights] = field(default_factory=dict)
    dataset: str = ""
    frames_beside: int = 0

    @cached_property
    def key(self) -> str | None:
        """Folder name, None while blocked."""
        return self.made_of.key() if self.made_of else None

    @cached_property
    def folder(self) -> str:
        """Folder in the store."""
        return stage_folder(self.dataset, self.split, self.stage, self.key or "none")

    @property
    def units(self) -> list[int | None]:
        """Shard numbers, or ``[None]`` for an artifact."""
        return [None] if self.split is None else list(range(len(self.shards)))

    def reads(self, need: Node, unit: int | None) -> list[int | None]:
        """Units of `need` that this node's `unit` reads."""
        if need.split is None or unit is None:
            return need.units
        span = self.shards.span(unit)
        near = self.beside(*span)
        return sorted({*need.shards.covering(*span), *np.unique(near[near >= 0] // need.shards.shard_rows).tolist()})

    def beside(self, start: int, stop: int) -> NDArray[np.int64]:
        """Rows beside rows `start` … `stop` − 1 that are read with them, int64 [n, 2 · frames_beside], −1 for none."""
        if not self.frames_beside or self.index is None:
            return np.empty((stop - start, 0), np.int64)
        return _beside(self.index, self.frames_beside)[start:stop]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Index columns that the rows digest covers: this stage's and those of everything it reads row by row."""
        mine = set(expand_columns(self.entry.columns))
        for node in self.upstream:
            if node.split is not None:
                mine.update(node.columns)
        return tuple(sorted(mine))


@lru_cache(maxsize=4)
def _beside(index: Index, count: int) -> NDArray[np.int64]:
    """Rows beside each row of an index, which never changes under its key."""
    table = index.table(["group", "frame", "reason"])
    names = table.column("group").fill_null("").to_numpy(zero_copy_only=False).copy()
    names[table.column("reason").to_numpy(zero_copy_only=False) == RETIRED] = ""
    groups = np.unique(names, return_inverse=True)[1].astype(np.int64)
    groups[names == ""] = -1
    frames = table.column("frame").fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return beside(groups, frames, count, count)


@lru_cache(maxsize=4)
def _has_groups(index: Index) -> bool:
    """Whether any row of an index is a frame of a clip."""
    names = index.table(["group"]).column("group").fill_null("").to_numpy(zero_copy_only=False)
    return bool((names != "").any())


@dataclass(frozen=True)
class Graph:
    """Indexes by split, and nodes in topological order."""

    indexes: dict[str, Index | None]
    nodes: tuple[Node, ...]

    def find(self, stage: str, split: str | None) -> Node:
        """Node of a stage and split."""
        return next(node for node in self.nodes if node.stage == stage and node.split == split)


def stage_order(session: Session) -> list[str]:
    """The stages asked for and their upstream stages with these parameters, upstream first."""
    order: list[str] = []

    def visit(stage: str, path: tuple[str, ...]) -> None:
        if stage in path:
            msg = f"stages need each other in a circle: {' -> '.join([*path, stage])}"
            raise ConfigError(msg)
        check_kinds(session, stage)
        for need in session.needs(stage):
            visit(need, (*path, stage))
        if stage not in order:
            check_apart(session, stage)
            order.append(stage)

    for stage in session.config.stage:
        if stage != "index":
            visit(stage, ())
    return order


def split_read(session: Session, stage: str) -> str | None:
    """Split in which an artifact reads the rows stages that it needs; None where it reads no split."""
    kind: type[ArtifactStage[Any]] = session.stage_class(stage)  # type: ignore[assignment]
    return next(iter(kind.splits_needed(session.params(stage))), None)


def splits_by_stage(session: Session, order: list[str]) -> dict[str, list[str]]:
    """Splits that each rows stage is made of: those to work on, where it was asked for or is read there, and those in
    which an artifact reads it.
    """
    wanted: dict[str, dict[str, None]] = {stage: {} for stage in order}
    for stage in reversed(order):
        artifact = session.registry[stage].kind == "artifact"
        if stage in session.config.stage:
            wanted[stage] |= dict.fromkeys(session.splits)
        read = split_read(session, stage) if artifact else None
        splits = dict.fromkeys([read] if read else []) if artifact else wanted[stage]
        for need in session.needs(stage):
            wanted[need] |= splits
    return {stage: list(splits) for stage, splits in wanted.items()}


def wanted_splits(session: Session, order: list[str]) -> list[str]:
    """Splits whose index is needed: those to work on, and those that artifacts are made from."""
    wanted = list(session.splits)
    for stage in order:
        if session.registry[stage].kind == "artifact":
            kind: type[ArtifactStage[Any]] = session.stage_class(stage)  # type: ignore[assignment]
            params = session.params(stage)
            for split in kind.splits_needed(params):
                if split not in session.dataset.splits:
                    msg = f"stage {stage} is made from split {split!r}, which {session.dataset.name} does not have"
                    raise ConfigError(msg, hint=kind.without_split(params, split))
            measured = [split for split in kind.splits_measured(params) if split in session.dataset.splits]
            wanted += [*kind.splits_needed(params), *measured]
    return list(dict.fromkeys(wanted))


def resolve(session: Session, *, fetch: bool = False) -> Graph:
    """Nodes of everything asked for, as far as keys can be known now.

    Parameters
    ----------
    fetch : bool
        Whether weights may be downloaded to learn their digest.
    """
    order = stage_order(session)
    indexes = {split: session.index_of(split) for split in wanted_splits(session, order)}
    splits, nodes = splits_by_stage(session, order), []
    by_name: dict[tuple[str, str | None], Node] = {}
    for stage in order:
        artifact = session.registry[stage].kind == "artifact"
        for split in [None] if artifact else splits[stage]:
            where = split_read(session, stage) if artifact else split
            upstream = tuple(
                by_name[need, None if session.registry[need].kind == "artifact" else where]
                for need in session.needs(stage)
            )
            node = _make_node(session, stage, split, upstream, indexes, fetch=fetch)
            nodes.append(node)
            by_name[stage, split] = node
    return Graph(indexes, tuple(nodes))


def _make_node(
    session: Session,
    stage: str,
    split: str | None,
    upstream: tuple[Node, ...],
    indexes: dict[str, Index | None],
    *,
    fetch: bool,
) -> Node:
    entry, params = session.registry[stage], session.params(stage)
    kind, near = session.stage_class(stage), 0
    if entry.kind == "rows":
        near = kind.frames_beside(params)  # type: ignore[union-attr]
    bare = Node(stage, split, entry, params, upstream=upstream, dataset=session.dataset.name, frames_beside=near)
    splits = [split] if split is not None else list(session.stage_class(stage).splits_needed(params))  # type: ignore[union-attr]
    for name in splits:
        if indexes[name] is None:
            return replace(bare, blocked=f"key after index of {name}")
    reads_names = session.stage_class(stage).reads_class_names(params)
    if reads_names and not splits and indexes[session.splits[0]] is None:
        return replace(bare, blocked=f"key after index of {session.splits[0]}")
    for node in upstream:
        if node.key is None or (node.split is None and artifact_content(session, node) is None):
            return replace(bare, blocked=f"key after {node.stage}")
    weights = session.weights(stage, fetch=fetch)
    if weights is None:
        return replace(bare, blocked="key after its weights are fetched")
    made_of = _ingredients(session, bare, splits, indexes, weights)
    index = indexes[split] if split is not None else None
    node = replace(bare, made_of=made_of, index=index, weights=weights)
    if index is None:
        return node
    if near and not _has_groups(index):
        msg = f"stage {stage} takes frames of a clip together, and {split} of {node.dataset} holds photographs alone"
        raise ConfigError(
            msg, hint="leave the stage out, or give clips: layout: clips, or groups.txt of layout: metadata"
        )
    return _with_shards(session, node, index.manifest.rows)


def _ingredients(
    session: Session, node: Node, splits: list[str], indexes: dict[str, Index | None], weights: dict[str, Weights]
) -> Ingredients:
    columns: dict[str, str] = {}
    for split in splits:
        index = indexes[split]
        assert index is not None
        prefix = "" if node.split is not None else f"{split}/"
        digests, needed = index.manifest.digests, expand_columns(node.entry.columns)
        if lacking := [column for column in needed if column not in digests]:
            msg = f"{session.store.url}/{index.folder}/manifest.json lacks the digests of {', '.join(lacking)}"
            raise TornShardError(msg, hint=f"wsolpipe repair store={session.store.url}, then run again")
        more = ["retired"] if "retired" in digests else []
        columns |= {prefix + column: digests[column] for column in [*needed, *more]}
    rows_stages = [item for item in node.upstream if item.split is not None and item.made_of is not None]
    artifacts = {item.stage: artifact_content(session, item) or "" for item in node.upstream if item.split is None}
    params = node.params.in_key()
    if session.stage_class(node.stage).reads_class_names(node.params):
        named = indexes[splits[0] if splits else session.splits[0]]
        assert named is not None
        params["class_names"] = digest(named.manifest.class_names)
    return Ingredients(
        stage=node.stage,
        version=node.entry.version,
        params=params,
        upstream={item.stage: item.made_of.fingerprint() for item in rows_stages if item.made_of},
        artifacts=artifacts,
        weights={name: item.sha256 for name, item in weights.items()},
        columns=columns,
        bases={item.stage: item.made_of.basis() for item in rows_stages if item.made_of},
    )


def _with_shards(session: Session, node: Node, rows: int) -> Node:
    asked = session.config.shard_rows
    existing = existing_manifest(session, node)
    fixed = existing.shard_rows if existing is not None else _shard_rows_of_arrays(session, node)
    if fixed is not None and asked is not None and asked != fixed:
        msg = f"shard_rows={asked}, but {node.stage} of {node.split} was started with shard_rows={fixed}"
        raise ConfigError(msg, hint=f"leave shard_rows out, or give shard_rows={fixed}")
    return replace(node, shards=Shards(rows, fixed or asked or node.entry.shard_rows))


def _shard_rows_of_arrays(session: Session, node: Node) -> int | None:
    """Rows of a shard by the arrays of a folder that lost its manifest; None if it has no array."""
    try:
        metadata = read_json(session.backend.get(f"{node.folder}/data.zarr/status/zarr.json"))
        rows = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
    except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError):
        return None
    return rows if rows > 0 else None


def existing_manifest(session: Session, node: Node) -> StageManifest | None:
    """Manifest in the node's folder, None before the first worker wrote it.

    Raises
    ------
    FingerprintMismatch
        If the folder holds another fingerprint than its name.
    """
    if node.made_of is None or session.backend.size(f"{node.folder}/manifest.json") is None:
        return None
    if node.split is None:
        manifest = Artifact(session.store, node.dataset, node.stage, str(node.key)).manifest
    else:
        manifest = StageView(session.store, node.dataset, node.split, node.stage, str(node.key)).manifest
    if manifest.fingerprint != node.made_of.fingerprint():
        msg = f"{session.config.store}/{node.folder} holds fingerprint {manifest.fingerprint[:16]}, expected {node.key}"
        raise FingerprintMismatch(msg, hint="move that folder away and run again")
    return manifest


def artifact_content(session: Session, node: Node) -> str | None:
    """Digest of the files of an artifact, None until it is made."""
    record = read_record(session.backend, node.folder, None) if node.key else None
    return record.content if record else None


def node_manifest(session: Session, node: Node, **made: Any) -> StageManifest:
    """Manifest of a node whose key is known."""
    from wsolpipe.engine.commit import now
    from wsolpipe.engine.session import software_versions

    assert node.made_of is not None
    return StageManifest(
        kind=node.entry.kind,
        dataset=node.dataset,
        split=node.split,
        stage=node.stage,
        key=str(node.key),
        fingerprint=node.made_of.fingerprint(),
        basis=node.made_of.basis(),
        version=node.entry.version,
        params=dict(node.made_of.params),
        index_key=node.index.key if node.index else None,
        columns=dict(node.made_of.columns),
        upstream=dict(node.made_of.upstream),
        artifacts=dict(node.made_of.artifacts),
        weights=tuple(
            WeightsEntry(name=name, sha256=item.sha256, source=item.source) for name, item in node.weights.items()
        ),
        rows=node.shards.rows,
        shard_rows=node.shards.shard_rows,
        licence=session.dataset.licence,
        title=session.dataset.title,
        software=software_versions(),
        created=now(),
        **made,
    )
