"""Folders of a store with what their manifests say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import AccessError, SchemaMismatch, StoreError
from wsolpipe.contract.layout import shard_of
from wsolpipe.contract.manifest import MAX_JSON_BYTES, IndexManifest, StageManifest, parse
from wsolpipe.contract.records import read_record
from wsolpipe.engine.folders import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wsolpipe.contract.backends.base import Backend


@dataclass(frozen=True)
class Found(Folder):
    """One folder of a stage, an artifact (``split`` None) or an index.

    Attributes
    ----------
    sha256 : str
        Of the bytes of its manifest.
    finished : int
        Commit records that it holds; 1 for an index.
    content : str or None
        Digest of the files of a finished artifact; manifests of the stages that read it name it by this.
    """

    manifest: StageManifest | IndexManifest
    sha256: str
    finished: int = 1
    content: str | None = None

    @property
    def shards(self) -> int:
        """Shards that it has when it is complete; 1 for an index or artifact."""
        if isinstance(self.manifest, IndexManifest) or self.split is None:
            return 1
        return -(-self.manifest.rows // max(1, self.manifest.shard_rows))  # as a giver says: checked when it is moved

    @property
    def folder(self) -> str:
        """Folder relative to the store."""
        return self.path


@dataclass
class Selected:
    """Selected folders: indexes first, then artifacts, then stages.

    Attributes
    ----------
    refused : list of (str, str)
        Folders that cannot be moved, and why.
    skipped : list of str
        Folders whose names cannot belong to a store.
    """

    found: list[Found]
    refused: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def read_folders(backend: Backend, folders: Iterable[Folder]) -> Selected:
    """Everything in these folders that has a manifest."""
    read = Selected([])
    for folder in folders:
        try:
            item = _read(backend, folder)
        except (AccessError, SchemaMismatch):
            raise  # the next folder would fail too
        except StoreError as error:
            read.refused.append((folder.path, error.message))
        else:
            read.found += [item] if item else []
    return read


def _read(backend: Backend, folder: Folder) -> Found | None:
    name = f"{folder.path}/manifest.json"
    try:
        data = backend.get(name, limit=MAX_JSON_BYTES)
    except FileNotFoundError:
        return None  # not begun, or an index that is still being made
    said, place = f"{backend.url}/{name}", (folder.dataset, folder.split, folder.stage, folder.key)
    if folder.stage == "index" and folder.split:
        return Found(*place, parse(IndexManifest, data, said), sha256_bytes(data))
    manifest = parse(StageManifest, data, said)
    if folder.split is None:
        record = read_record(backend, folder.path, None)
        content = record.content if record else None
        return Found(*place, manifest, sha256_bytes(data), int(record is not None), content)
    finished = sum(shard_of(file) is not None for file in backend.names(f"{folder.path}/commits"))
    return Found(*place, manifest, sha256_bytes(data), finished)
