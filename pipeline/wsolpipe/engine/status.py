"""What a store holds, read from any shell: no data set, no root, no cluster needed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsolpipe.engine.indexing import scan_seconds
from wsolpipe.engine.leases import Owner

if TYPE_CHECKING:
    from wsolpipe.contract.reader import Store

ARTIFACTS = "artifacts"


def survey(store: Store, *, dataset: str | None = None, stages: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """A line for every stage, split and key: rows, shards, what is done, who is at work, what failed.

    Of several keys of a stage all are listed, the newest last.
    """
    lines: list[dict[str, Any]] = []
    for name in store.datasets():
        if dataset in {None, name}:
            lines += _artifacts(store, name)
            for split in store[name].splits():
                lines += _split_lines(store, name, split)
    return [line for line in lines if not stages or line["stage"] in stages]


def last_command(store: Store, dataset: str | None) -> str | None:
    """The command that last ran on the store."""
    notes = []
    for name in [dataset] if dataset else store.datasets():
        try:
            notes.append(json.loads(store.backend.get(f"{name}/last-run.json")))
        except (FileNotFoundError, ValueError):
            continue
    return str(max(notes, key=lambda note: note["time"])["command"]) if notes else None


def _split_lines(store: Store, dataset: str, split_name: str) -> list[dict[str, Any]]:
    split = store[dataset][split_name]
    lines = []
    for key in store.backend.names(f"{split.folder}/index"):
        folder = f"{split.folder}/index/{key[:-1]}"
        done = store.backend.size(f"{folder}/manifest.json") is not None
        manifest = split.index(key[:-1]).manifest if done else None
        line = _line("index", dataset, split_name, key[:-1], manifest.rows if manifest else 0, 1, int(done))
        if manifest:
            line.update(
                done=manifest.rows - manifest.quarantined, quarantined=manifest.quarantined,
                seconds=scan_seconds(split.index(key[:-1])),
            )  # fmt: skip
        lines.append({**line, **_activity(store, folder)})
    for stage in split.stages():
        for key in split.keys(stage):
            view = split.stage(stage, key)
            records = view.committed().values()
            line = _line(stage, dataset, split_name, key, view.manifest.rows, len(view.shards), len(records))
            line.update(
                done=sum(record.ok + record.no_object for record in records),
                quarantined=sum(len(record.quarantined) for record in records),
                seconds=round(sum(record.seconds for record in records), 3),
                bytes=sum(item.bytes for record in records for item in record.objects.values()),
            )
            made = sum(record.stop - record.start for record in records)
            rate = made / line["seconds"] if line["seconds"] else None
            activity = _activity(store, view.folder)
            workers = max(1, activity["running"])
            line["rows_per_second"] = round(rate, 2) if rate else None
            line["eta_seconds"] = round((line["rows"] - made) / rate / workers, 1) if rate else None
            lines.append({**line, **activity})
    return lines


def _artifacts(store: Store, dataset: str) -> list[dict[str, Any]]:
    lines = []
    for stage in store.backend.names(f"{dataset}/{ARTIFACTS}"):
        for key in store.backend.names(f"{dataset}/{ARTIFACTS}/{stage[:-1]}"):
            folder = f"{dataset}/{ARTIFACTS}/{stage}{key[:-1]}"
            done = store.backend.size(f"{folder}/commits/artifact.json") is not None
            line = _line(stage[:-1], dataset, None, key[:-1], 0, 1, int(done))
            if done:
                line["seconds"] = store[dataset].artifact(stage[:-1], key[:-1]).record.seconds  # type: ignore[union-attr]
            lines.append({**line, **_activity(store, folder)})
    return lines


def _line(stage: str, dataset: str, split: str | None, key: str, rows: int, shards: int, done: int) -> dict[str, Any]:
    return {
        "stage": stage, "dataset": dataset, "split": split, "key": key, "rows": rows, "done": 0, "quarantined": 0,
        "shards": shards, "shards_done": done, "seconds": 0.0, "bytes": 0, "rows_per_second": None, "eta_seconds": None,
    }  # fmt: skip


def _activity(store: Store, folder: str) -> dict[str, Any]:
    """Leases by whether their holder is known to be dead, and failures with their reason."""
    running, stale = 0, 0
    for name in store.backend.names(f"{folder}/leases"):
        try:
            content = json.loads(store.backend.get(f"{folder}/leases/{name}"))
            dead = Owner(**content["owner"]).is_dead()
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue
        stale += dead
        running += not dead
    failures = {}
    for name in store.backend.names(f"{folder}/failures"):
        try:
            failures[name.removesuffix(".json")] = json.loads(store.backend.get(f"{folder}/failures/{name}"))["error"]
        except (FileNotFoundError, ValueError, KeyError):
            continue
    return {"running": running, "stale_leases": stale, "failures": failures}
