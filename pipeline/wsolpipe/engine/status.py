"""State of a store, read from any shell: no data set, no root, no cluster needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import AccessError, SchemaMismatch, StoreError
from wsolpipe.contract.layout import Shards, read_json, shard_of
from wsolpipe.contract.manifest import CommitRecord, IndexManifest, StageManifest, standing_record, total_seconds
from wsolpipe.contract.reader import Artifact, Index, StageView, Store
from wsolpipe.engine.leases import Folder, Owner, list_folders

if TYPE_CHECKING:
    from wsolpipe.contract.backends.base import Backend


def survey(
    store: Store, *, dataset: str | None = None, stages: tuple[str, ...] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """A line for every stage, split and key: rows, shards, progress, active leases, failures and damage.

    Of several keys of a stage all are listed, the newest last.

    Returns
    -------
    (lines, failed, skipped)
        ``failed`` has the keys without a finished shard that no worker holds, since their first run failed; ``skipped``
        the folders whose names cannot belong to a store.

    Raises
    ------
    AccessError
        If something may not be read.
    SchemaMismatch
        If something was written by a newer wsolpipe.
    """
    folders, skipped = list_folders(store.backend, datasets=(dataset,) if dataset else (), stages=stages)
    read = [item for folder in folders if (item := _read(store, folder)) is not None]
    read.sort(key=lambda item: item[0])
    lines = [line for _, line in read]

    def begun(line: dict[str, Any]) -> bool:
        return bool(line["shards_done"] or line["running"] or line["damaged"] or line["stage"] == "index")

    return [line for line in lines if begun(line)], [line for line in lines if not begun(line)], skipped


def last_command(store: Store, dataset: str | None) -> str | None:
    """The command that last ran on the store."""
    notes = []
    for name in [dataset] if dataset else store.datasets():
        note = _read_note(store.backend, f"{name}/last-run.json")
        if isinstance(note.get("command"), str):
            notes.append((str(note.get("time", "")), note["command"]))
    return max(notes)[1] if notes else None


def _read(store: Store, folder: Folder) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """(place in the order, line) of a folder; None for one without a manifest that is not an index under way."""
    damaged: list[str] = []
    view: Artifact | Index | StageView
    if folder.split is None:
        view = Artifact(store, folder.dataset, folder.stage, folder.key)
    elif folder.stage == "index":
        view = Index(store, folder.dataset, folder.split, folder.key)
    else:
        view = StageView(store, folder.dataset, folder.split, folder.stage, folder.key)
    manifest: IndexManifest | StageManifest | None = None
    if store.backend.size(f"{folder.path}/manifest.json") is not None:
        try:
            manifest = view.manifest
        except (AccessError, SchemaMismatch):
            raise
        except StoreError as error:
            damaged.append(error.message)
    elif folder.stage != "index":
        return None
    line: dict[str, Any] = {
        "stage": folder.stage, "dataset": folder.dataset, "split": folder.split, "key": folder.key, "rows": 0,
        "done": 0, "quarantined": 0, "shards": 1, "shards_done": 0, "seconds": 0.0, "bytes": 0,
        "rows_per_second": None, "eta_seconds": None, **_activity(store.backend, folder.path), "damaged": damaged,
    }  # fmt: skip
    if isinstance(manifest, IndexManifest):
        done = manifest.rows - manifest.quarantined - manifest.retired
        line.update(rows=manifest.rows, shards_done=1, done=done, quarantined=manifest.quarantined)
        line["seconds"] = total_seconds(store.backend, folder.path)
    elif isinstance(manifest, StageManifest):
        _count(line, manifest, _records(store.backend, folder, damaged))
    created = manifest.created if manifest else ""
    order = (folder.dataset, folder.split or "", folder.stage != "index", folder.stage, created, folder.key)
    return order, line


def _count(line: dict[str, Any], manifest: StageManifest, records: list[CommitRecord]) -> None:
    """Add up what the records of a stage or artifact say."""
    line["seconds"] = round(sum(record.seconds for record in records), 3)
    line["shards_done"] = len(records)
    if manifest.kind == "artifact":
        return
    line.update(
        rows=manifest.rows, shards=len(Shards(manifest.rows, manifest.shard_rows)),
        done=sum(record.ok + record.no_object for record in records),
        quarantined=sum(len(record.quarantined) for record in records),
        bytes=sum(item.bytes for record in records for item in record.objects.values()),
    )  # fmt: skip
    made = sum(record.stop - record.start for record in records)
    if line["seconds"] and made:
        rate = made / line["seconds"]
        line["rows_per_second"] = round(rate, 2)
        line["eta_seconds"] = round((manifest.rows - made) / rate / max(1, line["running"]), 1)


def _records(backend: Backend, folder: Folder, damaged: list[str]) -> list[CommitRecord]:
    """Commit records of a folder; what is wrong with those that cannot be parsed is added to `damaged`."""
    records = []
    for file in backend.names(f"{folder.path}/commits"):
        unit = shard_of(file)
        if unit is None and file != "artifact.json":
            continue
        record, wrong = standing_record(backend, folder.path, unit)
        damaged += [wrong] if wrong else []
        records += [record] if record else []
    return records


def _activity(backend: Backend, folder: str) -> dict[str, Any]:
    """Leases by whether their holder is known to be dead, rows of their shards done so far, failures with reason."""
    running, stale, under_way = 0, 0, 0
    for name in backend.names(f"{folder}/leases"):
        note = _read_note(backend, f"{folder}/leases/{name}")
        try:
            dead = Owner.of(note.get("owner", {})).is_dead()
        except (ValueError, TypeError):
            continue
        stale += dead
        running += not dead
        rows = note.get("rows", 0)
        if not dead and isinstance(rows, int) and rows > 0:
            under_way += rows
    notes = {
        name.removesuffix(".json"): _read_note(backend, f"{folder}/failures/{name}")
        for name in backend.names(f"{folder}/failures")
    }
    failures = {unit: str(note["error"]) for unit, note in notes.items() if "error" in note}
    return {"running": running, "stale_leases": stale, "under_way": under_way, "failures": failures}


def _read_note(backend: Backend, name: str) -> dict[str, Any]:
    """A small JSON object that helps people and that no result depends on; empty if it is damaged or gone."""
    try:
        note = read_json(backend.get(name))
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
