"""Two keys of a stage: why they differ, and accepting the shards of one as those of the other, on purpose."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.backends.opening import open_backend
from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.contract.layout import lease_name
from wsolpipe.contract.making import run_command
from wsolpipe.contract.manifest import CommitRecord, StageManifest, read_record
from wsolpipe.contract.reader import StageView
from wsolpipe.engine import commit, zarr_metadata
from wsolpipe.engine.graph import Node, existing_manifest, node_manifest, resolve
from wsolpipe.engine.leases import Leases
from wsolpipe.engine.plan import upstream_contents
from wsolpipe.engine.shard import digest_of_rows
from wsolpipe.share.selection import Selection, StoredResult, select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.engine.session import Session


NOTHING = "nothing that results depend on"


@dataclass(frozen=True)
class KeyPlace:
    """One key of a stage, and the store that it lies in."""

    backend: Backend
    found: StoredResult

    @property
    def manifest(self) -> StageManifest:
        """Its manifest."""
        assert isinstance(self.found.manifest, StageManifest)
        return self.found.manifest


@dataclass(frozen=True)
class Difference:
    """One field that differs.

    Attributes
    ----------
    field : str
        Such as ``params.size``, or ``cls_maps.params.size`` where a stage that was read differs.
    before, after : JSON values
    """

    field: str
    before: Any
    after: Any


def locate(word: str, store: str, wanted: Selection) -> KeyPlace:
    """The stage that a word names: first digits of its key, ``stage/key``, or ``STORE/dataset/split/stage/key``.

    Raises
    ------
    ConfigError
        If it names none or several.
    """
    parts = word.rstrip("/").split("/")
    stages = wanted.stages
    if len(parts) > 4:
        store, wanted = "/".join(parts[:-4]), Selection(dataset=parts[-4], splits=_split(parts[-3]))
        stages, key = (parts[-2],), parts[-1]
    elif len(parts) == 2:
        stages, key = (parts[0],), parts[1]
    else:
        key = word
    if not re.fullmatch(r"[0-9a-f]{4,16}", key):
        msg = f"{word!r} names no key: write its first four or more digits, stage/key or STORE/dataset/split/stage/key"
        raise ConfigError(msg, hint="wsolpipe status lists keys")
    backend = open_backend(store)
    chosen = select(backend, Selection(wanted.dataset, stages, wanted.splits, keys=key), unfinished=True).found
    matching = [item for item in chosen if item.manifest.kind != "index"]
    if len(matching) != 1:
        several = ", ".join(item.folder for item in matching[:5])
        msg = f"{word!r} names {len(matching)} stages of {store}: {several}"
        raise ConfigError(msg, hint="add split= or dataset=, or write STORE/dataset/split/stage/key")
    return KeyPlace(backend, matching[0])


def explain(one: KeyPlace, other: KeyPlace) -> list[Difference]:
    """Every field in which what two keys are made of differs; what they read is followed where its manifest is there.

    Raises
    ------
    ConfigError
        If they are of different stages.
    """
    a, b = one.manifest, other.manifest
    if a.stage != b.stage:
        msg = f"{one.found.folder} is of stage {a.stage}, {other.found.folder} of {b.stage}"
        raise ConfigError(msg, hint="compare two keys of one stage")
    found = _fields("", {"version": a.version}, {"version": b.version})
    found += _fields("params.", a.params, b.params)
    found += _fields("weights.", _weights(a), _weights(b))
    found += _fields("index.", a.columns, b.columns)
    found += _followed(one, other, a.upstream, b.upstream, artifacts=False)
    found += _followed(one, other, a.artifacts, b.artifacts, artifacts=True)
    return found


def _fields(prefix: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    found = []
    for key in sorted({*a, *b}):
        before, after = a.get(key), b.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _fields(f"{prefix}{key}.", before, after)
        elif before != after:
            found.append(Difference(f"{prefix}{key}", before, after))
    return found


def _weights(manifest: StageManifest) -> dict[str, str]:
    return {item.name: item.sha256 for item in manifest.weights}


def _followed(
    one: KeyPlace, other: KeyPlace, a: Mapping[str, str], b: Mapping[str, str], *, artifacts: bool
) -> list[Difference]:
    """Differences of the stages that were read, or their digests where a manifest is not at hand."""
    found: list[Difference] = []
    for need in sorted({*a, *b}):
        before, after = a.get(need), b.get(need)
        if before == after:
            continue
        mine, theirs = _need(one, need, before, artifacts), _need(other, need, after, artifacts)
        inner = explain(mine, theirs) if mine is not None and theirs is not None else []
        found += [Difference(f"{need}.{item.field}", item.before, item.after) for item in inner]
        if not inner:  # an artifact made again may differ by chance of its training alone
            found.append(Difference(need, before, after))
    return found


def _need(place: KeyPlace, stage: str, wanted: str | None, artifact: bool) -> KeyPlace | None:  # noqa: FBT001
    """Where a stage that was read lies, by its fingerprint, or by the digest of what an artifact holds."""
    if wanted is None:
        return None
    splits = () if artifact or place.found.split is None else (place.found.split,)
    try:
        chosen = select(place.backend, Selection(place.found.dataset, (stage,), splits, keys="all"), unfinished=True)
    except ConfigError:
        return None
    for item in chosen.found:
        if item.stage != stage:
            continue
        if artifact:
            if item.content == wanted:
                return KeyPlace(place.backend, item)
        elif item.manifest.fingerprint == wanted:
            return KeyPlace(place.backend, item)
    return None


def _split(name: str) -> tuple[str, ...]:
    return () if name == "artifacts" else (name,)


@dataclass(frozen=True)
class Adopted:
    """Shards that were taken over for one split.

    Attributes
    ----------
    shards : int
        Adopted now.
    present : int
        Made or adopted before.
    left : list of (int, str)
        Shards that were not adopted, and why; run makes them.
    """

    split: str
    stage: str
    old: str
    new: str
    shards: int
    present: int
    left: list[tuple[int, str]]


def adopt(session: Session, stage: str, key: str, reason: str) -> list[Adopted]:
    """Take the shards of `key` for those of the stage as it is configured now, for every split that has them.

    Only shards of the same images in the same order are taken. Each record names the old key and the reason; consumers
    then resume on them.

    Raises
    ------
    ConfigError
        If no reason is given, the stage is an artifact, its present key is not known yet, or no split has `key`.
    """
    if not reason.strip():
        msg = "no reason given"
        raise ConfigError(msg, hint='say why these results may stand, as in reason="only the batch size differs"')
    if session.registry[stage].kind != "rows":
        msg = f"stage {stage} makes an artifact; only shards of rows can be adopted"
        raise ConfigError(msg)
    name, done = session.dataset.name, []
    for split in session.splits:
        if name not in session.store.datasets() or split not in session.store[name].splits():
            continue
        matching = [item for item in session.store[name][split].keys(stage) if item.startswith(key)]
        if len(matching) > 1:
            msg = f"key={key} names several keys of {stage} of {split}: {', '.join(matching)}"
            raise ConfigError(msg)
        if matching:
            done.append(_adopt_split(session, StageView(session.store, name, split, stage, matching[0]), reason))
    if not done:
        msg = f"no split of {name} in {session.config.store} has {stage} with key {key}"
        raise ConfigError(msg, hint=f"wsolpipe status store={session.config.store} lists keys")
    return done


def _adopt_split(session: Session, old: StageView, reason: str) -> Adopted:
    shard_rows = old.manifest.shard_rows
    session = replace(session, config=replace(session.config, shard_rows=shard_rows))
    node = resolve(session).find(old.stage, old.split)
    if node.key is None:
        msg = f"the present key of {old.stage} of {old.split} is not known: {node.blocked}"
        raise ConfigError(msg, hint=f"{run_command(old.stage, store=session.config.store)} makes what it needs first")
    if node.key == old.key:
        msg = f"{old.stage} of {old.split} has key {old.key} now: there is nothing to adopt"
        raise ConfigError(msg)
    manifest = existing_manifest(session, node)
    if manifest is None:
        made = node_manifest(session, node, arrays=old.manifest.arrays, checksum=old.manifest.checksum)
        zarr_metadata.prepare_folder(session.backend, node.folder, made, node.shards)
        manifest = existing_manifest(session, node)
    assert manifest is not None
    if (manifest.arrays, manifest.checksum) != (old.manifest.arrays, old.manifest.checksum):
        msg = f"{node.folder} has other arrays than {old.folder}"
        raise ConfigError(msg, hint="these results cannot stand for one another: run makes new ones")
    return _adopt_shards(session, node, manifest, old, reason)


def _adopt_shards(session: Session, node: Node, manifest: StageManifest, old: StageView, reason: str) -> Adopted:
    leases = Leases(session.backend, ttl=session.config.lease)
    taken, present = 0, 0
    left: list[tuple[int, str]] = []
    for shard, record in old.committed().items():
        if shard >= len(node.shards):
            left.append((shard, "the index has no such shard now"))
            continue
        if read_record(session.backend, node.folder, shard) is not None:
            present += 1
            continue
        why = _unlike(session, node, old, record)
        lease = None if why else leases.acquire(lease_name(node.folder, shard))
        if lease is None:
            left.append((shard, why or "a worker holds it"))
            continue
        with lease.beating():
            objects = {
                name: (commit.object_name(node.folder, manifest.arrays, name, shard), session.backend.get(source))
                for name, source in commit.object_names(old.folder, old.manifest, record).items()
            }
            commit.put(session.backend, node.folder, _renamed(session, node, old, record, reason), objects, lease)
        taken += 1
    return Adopted(old.split, old.stage, old.key, str(node.key), taken, present, left)


def _unlike(session: Session, node: Node, old: StageView, record: CommitRecord) -> str:
    """Why a shard cannot stand for the present one; empty if it can."""
    assert node.index is not None
    assert record.shard is not None
    if node.shards.span(record.shard) != (record.start, record.stop):
        return "it has other rows now"
    span = {"start": record.start, "stop": record.stop}
    try:
        before = old.index().table(["image_id", "sha256"], **span)
    except (StoreError, OSError):
        return "the index that it was made from is gone"
    if not before.equals(node.index.table(["image_id", "sha256"], **span)):
        return "its images are others now"
    wrong = commit.damage(session.backend, old.folder, old.manifest, record, deep=True)
    return f"damaged: {wrong}" if wrong else ""


def _renamed(session: Session, node: Node, old: StageView, record: CommitRecord, reason: str) -> CommitRecord:
    assert node.index is not None
    table = node.index.table([*node.columns, "reason"], start=record.start, stop=record.stop)
    return record.model_copy(
        update={
            "rows_digest": digest_of_rows(node, table, record.start),
            "upstream": upstream_contents(session, node, record.shard),
            "taken_over_from": old.key,
            "adopted": reason,
            "generation": 1,
        }
    )
