"""Rows that were given up: to list them, to try them again, or to accept that they are gone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.layout import split_folder
from wsolpipe.engine.graph import resolve
from wsolpipe.engine.indexing import ask_rescan
from wsolpipe.engine.plan import examine, retry_name

if TYPE_CHECKING:
    from wsolpipe.contract.backend import Backend
    from wsolpipe.engine.session import Session


def quarantined_rows(session: Session) -> list[dict[str, Any]]:
    """Every quarantined row: row, image_id, path, stage, split, reason; a row is listed where it was given up first."""
    graph = resolve(session)
    found: list[dict[str, Any]] = []
    seen: set[tuple[str, int]] = set()
    for split, index in graph.indexes.items():
        if index is None or not index.manifest.quarantined:
            continue
        table = index.table(["row", "image_id", "path", "reason"])
        for item in table.to_pylist():
            if item["reason"]:
                seen.add((split, item["row"]))
                found.append({**item, "stage": "index", "split": split})
    for node in graph.nodes:
        if node.split is None or node.blocked:
            continue
        for record in examine(session, node, {}).records.values():
            for bad in record.quarantined:
                if (node.split, bad.row) not in seen:
                    seen.add((node.split, bad.row))
                    found.append({**bad.model_dump(), "stage": node.stage, "split": node.split})
    gone = {split: dropped_ids(session.backend, session.dataset.name, split) for split in graph.indexes}
    return [{**item, "dropped": item["image_id"] in gone[item["split"]]} for item in found]


def retry(session: Session, ids: set[str] | None = None) -> int:
    """Ask for a new generation of every shard with a quarantined row; return the number of rows asked for.

    Parameters
    ----------
    ids : set of str, optional
        Only these image_ids.
    """
    rows = [item for item in quarantined_rows(session) if ids is None or item["image_id"] in ids]
    by_split: dict[str, set[int]] = {}
    for item in rows:
        if item["stage"] == "index":
            ask_rescan(session, item["split"])
        else:
            by_split.setdefault(item["split"], set()).add(item["row"])
    for node in resolve(session).nodes:
        if node.split not in by_split or node.blocked:
            continue
        for unit, record in examine(session, node, {}).records.items():
            if any(bad.row in by_split[str(node.split)] for bad in record.quarantined):
                asked = json.dumps({"generation": record.generation + 1}).encode()
                session.backend.replace(retry_name(node.folder, unit), asked)
    return len(rows)


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
    """image_ids that somebody accepted as gone."""
    try:
        return set(json.loads(backend.get(_dropped_name(dataset, split))))
    except (FileNotFoundError, ValueError, TypeError):
        return set()


def _dropped_name(dataset: str, split: str) -> str:
    return f"{split_folder(dataset, split)}/dropped.json"
