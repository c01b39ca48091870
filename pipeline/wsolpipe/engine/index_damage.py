"""Damage of an index: tables that do not have the recorded bytes, and a manifest that changed since it was written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.engine.session import last_seen

if TYPE_CHECKING:
    from wsolpipe.contract.reader import Index
    from wsolpipe.engine.session import Session


def is_damaged(session: Session, index: Index) -> bool:
    """Whether a table of the index has other bytes than its manifest says, or the manifest is not as it was written.

    Where another store or an older version wrote it, its digests are held against the table once.
    """
    for name, stored in index.manifest.objects.items():
        try:
            if sha256_bytes(session.backend.get(f"{index.folder}/{name}")) != stored.sha256:
                return True
        except FileNotFoundError:
            return True
    manifest = sha256_bytes(session.backend.get(f"{index.folder}/manifest.json"))
    noted = last_seen(session.backend, index.folder).get("manifest")
    if noted is not None:
        return noted != manifest
    from wsolpipe.images.index_tables import column_digests

    if column_digests(index.table()) != index.manifest.digests:
        return True
    note_manifest(session, index.folder, manifest)
    return False


def note_manifest(session: Session, folder: str, sha256: str) -> None:
    """Remember the digest of a manifest that was checked, so that a later change of it is found."""
    note = {**last_seen(session.backend, folder), "manifest": sha256}
    session.backend.replace(f"{folder}/seen.json", json.dumps(note).encode())
