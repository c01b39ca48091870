"""Quarantined rows: list them, retry them, or accept that they are gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.layout import read_json, short_key, split_folder
from wsolpipe.contract.schema import RETIRED
from wsolpipe.engine.chosen_maps import find_view
from wsolpipe.engine.image_files import LOST, is_readable
from wsolpipe.engine.listed import ask_rescan
from wsolpipe.engine.plan import examine, retry_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.manifest import CommitRecord
    from wsolpipe.contract.reader import StageView
    from wsolpipe.engine.graph import Graph
    from wsolpipe.engine.session import Session


def views(session: Session) -> Iterator[StageView]:
    """The requested stages (default all) of the requested splits, each after its upstream stages.

    A requested stage has the configuration's key, or else the newest; an upstream stage has the key that was read.
    """
    name = session.dataset.name
    seen: set[str] = set()

    def with_needs(view: StageView) -> Iterator[StageView]:
        present = session.store[name][view.split]
        for need, fingerprint in view.manifest.upstream.items():
            if short_key(fingerprint) in present.keys(need):  # noqa: SIM118 - not a mapping
                yield from with_needs(present.stage(need, short_key(fingerprint)))
        if view.folder not in seen:
            seen.add(view.folder)
            yield view

    for split in session.splits:
        if name in session.store.datasets() and split in session.store[name].splits():
            present = session.store[name][split].stages()
            for stage in session.config.stage or present:
                if stage in present:
                    yield from with_needs(find_view(session, stage, split))


def quarantined_rows(session: Session) -> list[dict[str, Any]]:
    """Every quarantined row: row, image_id, path, stage, split, reason; each at the stage that quarantined it."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for split in session.splits:
        index = session.index_of(split)
        if index is not None and index.manifest.quarantined:
            for item in index.table(["row", "image_id", "path", "reason"]).to_pylist():
                if item["reason"] not in {"", RETIRED}:
                    found[split, item["row"]] = {**item, "stage": "index", "split": split}
    for view in views(session):
        for item in view.quarantined():
            found.setdefault((view.split, item["row"]), {**item, "split": view.split})
    gone = {split: dropped_ids(session.backend, session.dataset.name, split) for split in session.splits}
    return [{**item, "dropped": item["image_id"] in gone[item["split"]]} for item in found.values()]


def retry(session: Session, ids: set[str] | None = None) -> int:
    """Ask for a new generation of every shard with a quarantined row; return the number of rows asked for.

    Parameters
    ----------
    ids : set of str, optional
        Only these image_ids.
    """
    rows = [item for item in quarantined_rows(session) if ids is None or item["image_id"] in ids]
    for split in {item["split"] for item in rows if item["stage"] == "index"}:
        ask_rescan(session, split)
    wanted = {(item["split"], item["row"]) for item in rows}
    for view in views(session):
        for shard, record in view.committed().items():
            if any((view.split, bad.row) in wanted for bad in record.quarantined):
                ask_again(session, view.folder, shard, record)
    return len(rows)


def retry_found(session: Session, graph: Graph) -> int:
    """Ask for a new generation of every shard with a row whose file was lost and is back; return how many.

    Rows are lost while the folder of images is unreachable; they are retried without a request.
    """
    asked = 0
    for node in graph.nodes:
        if node.blocked or node.split is None:
            continue
        for unit, record in examine(session, node, {}).records.items():
            lost = (bad.path for bad in record.quarantined if bad.reason.startswith(LOST))
            if any(is_readable(session.root, path) for path in lost):
                ask_again(session, node.folder, unit, record)
                asked += 1
    return asked


def ask_again(session: Session, folder: str, unit: int | None, record: CommitRecord) -> None:
    """Ask for a new generation of a shard or artifact."""
    asked = json.dumps({"generation": record.generation + 1}).encode()
    session.backend.replace(retry_name(folder, unit), asked)


def drop(session: Session, ids: set[str] | None = None) -> int:
    """Accept that rows are gone: they stay quarantined but no longer count against ``max_failed``."""
    rows = [item for item in quarantined_rows(session) if ids is None or item["image_id"] in ids]
    for split in {item["split"] for item in rows}:
        name = _dropped_name(session.dataset.name, split)
        known = dropped_ids(session.backend, session.dataset.name, split)
        known |= {item["image_id"] for item in rows if item["split"] == split}
        session.backend.replace(name, json.dumps(sorted(known)).encode())
    return len(rows)


def dropped_ids(backend: Backend, dataset: str, split: str) -> set[str]:
    """image_ids accepted as gone."""
    try:
        return set(read_json(backend.get(_dropped_name(dataset, split))))
    except (FileNotFoundError, ValueError, TypeError):
        return set()


def _dropped_name(dataset: str, split: str) -> str:
    return f"{split_folder(dataset, split)}/dropped.json"
