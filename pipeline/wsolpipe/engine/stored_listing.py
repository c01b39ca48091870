"""Listing of a split's metadata, as it lies in the folder of its index until the index is put together.

``listing.json`` notes the digests of ``listing.parquet`` and ``listing_annotations.parquet``, and its own.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from wsolpipe.contract.errors import AccessError, StoreError, TornShardError
from wsolpipe.contract.layout import digest, read_json, sha256_bytes, stage_folder
from wsolpipe.contract.manifest import MAX_JSON_BYTES, StoredObject
from wsolpipe.contract.parquet import ParquetRows

if TYPE_CHECKING:
    from wsolpipe.engine.session import Session

TABLES = ("listing.parquet", "listing_annotations.parquet")


@dataclass(frozen=True)
class StoredListing:
    """The listing of a split under the key of its index."""

    session: Session
    split: str
    key: str
    stage: ClassVar[str] = "index"

    @property
    def folder(self) -> str:
        """Folder in the store."""
        return stage_folder(self.session.dataset.name, self.split, "index", self.key)

    def is_whole(self) -> bool:
        """Whether its listing is in the store as it was written."""
        try:
            for name in TABLES:
                self.listing(name)
        except AccessError:
            raise
        except (FileNotFoundError, StoreError):
            return False
        return True

    def notes(self) -> dict[str, Any]:
        """Facts of the listing beside its rows.

        Raises
        ------
        TornShardError
            If they are not as they were written.
        """
        name = f"{self.folder}/listing.json"
        with contextlib.suppress(ValueError):
            notes = read_json(self.session.backend.get(name, limit=MAX_JSON_BYTES))
            named = isinstance(notes, dict) and {"rows", "annotations"} <= notes.keys()
            if named and notes.pop("digest", None) in {None, digest(notes)}:  # None: an older version wrote them
                return dict(notes)
        msg = f"{self.session.backend.url}/{name} is not as it was written"
        raise TornShardError(msg, hint="run again: the split is listed anew")

    def listing(self, name: str) -> ParquetRows:
        """One of the tables of `TABLES`, held against the digest that was noted of it; raises as `notes`."""
        stored, where = self.notes().get("objects", {}).get(name), f"{self.folder}/{name}"
        if stored is None:  # an older version wrote it
            return ParquetRows(self.session.backend, where)
        wanted = StoredObject.model_validate(stored)
        return ParquetRows(self.session.backend, where, lambda: self.session.store.verified.file(where, wanted))

    def write_listing(self, tables: dict[str, bytes], notes: dict[str, Any]) -> None:
        """Write the tables of a listing and, last, its notes, unless they stand."""
        if self.is_whole():
            return
        backend = self.session.backend
        for name, data in tables.items():
            backend.replace(f"{self.folder}/{name}", data)
        objects = {name: {"sha256": sha256_bytes(data), "bytes": len(data)} for name, data in tables.items()}
        whole = json.loads(json.dumps({**notes, "objects": objects}))
        data = json.dumps({**whole, "digest": digest(whole)}, sort_keys=True).encode()
        if not backend.create(f"{self.folder}/listing.json", data) and not self.is_whole():
            backend.replace(f"{self.folder}/listing.json", data)
