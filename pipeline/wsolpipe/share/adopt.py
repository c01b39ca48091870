"""Accepting, on purpose, shards of an older key as if they had been made with the present one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.contract.layout import lease_name
from wsolpipe.contract.making import run_command
from wsolpipe.contract.reader import StageView
from wsolpipe.contract.records import read_record
from wsolpipe.engine import commit, zarr_metadata
from wsolpipe.engine.graph import Node, existing_manifest, node_manifest, resolve
from wsolpipe.engine.leases import Leases
from wsolpipe.engine.plan import upstream_contents
from wsolpipe.engine.shard import digest_of_rows

if TYPE_CHECKING:
    from wsolpipe.contract.manifest import CommitRecord, StageManifest
    from wsolpipe.engine.session import Session


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

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


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
    damaged = commit.damaged_objects(session.backend, old.folder, old.manifest, record)
    return f"damaged: {', '.join(damaged)}" if damaged else ""


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
