"""Verify the index of a split: its manifest, its two tables and the listing that it was made from must agree."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.canonical import digest, read_json, sha256_bytes
from wsolpipe.contract.errors import AccessError, StoreError
from wsolpipe.contract.reader import Index, Store
from wsolpipe.contract.schema import RETIRED
from wsolpipe.images.index_tables import column_digests

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.manifest import IndexManifest
    from wsolpipe.engine.folders import Folder

LISTING = "listing.json"
#: Fields that the manifest copies from the listing. A store that was pulled has no listing.
LISTED = ("fingerprint", "rows", "classes", "class_names", "objectless", "selection", "params")


def index_problems(store: Store, folder: Folder, manifest: IndexManifest, *, deep: bool) -> Iterator[str]:
    """Problems of an index whose manifest can be read; one line each."""
    backend = store.backend
    for name, stored in manifest.objects.items():
        if backend.size(f"{folder.path}/{name}") != stored.bytes:
            yield f"{name} is missing or does not have the {stored.bytes} bytes recorded"
            return
    yield from _listing_problems(store, folder, manifest, deep=deep)
    if not deep:
        return
    for name, stored in manifest.objects.items():
        if sha256_bytes(backend.get(f"{folder.path}/{name}")) != stored.sha256:
            yield f"{name} has other bytes than recorded"
            return
    index = Index(store, folder.dataset, str(folder.split), folder.key)
    try:
        table, annotations = index.table(), index.annotations()
    except AccessError:
        raise
    except (StoreError, OSError, ValueError) as error:
        yield str(error)
        return
    wrong = [name for name, value in column_digests(table).items() if manifest.digests.get(name) != value]
    reasons = table.column("reason").to_pylist()
    retired = [bool(manifest.retired) and reason == RETIRED for reason in reasons]
    listed = (row for row, gone in zip(table.column("labels").to_pylist(), retired, strict=True) if not gone)
    labels = Counter(label for row in listed for label in row)
    kinds = Counter(annotations.column("kind").to_pylist())
    counted = {
        "rows": (manifest.rows, table.num_rows),
        "quarantined": (manifest.quarantined, sum(map(bool, reasons)) - sum(retired)),
        "retired": (manifest.retired, sum(retired)),
        "label_counts": (manifest.label_counts, {str(label): count for label, count in labels.items()}),
        "boxes": (manifest.boxes, kinds["box"]),
    }
    wrong += [name for name, (said, found) in counted.items() if said != found]
    if wrong:
        yield f"{', '.join(wrong)} of the manifest do not agree with index.parquet"


def _listing_problems(store: Store, folder: Folder, manifest: IndexManifest, *, deep: bool) -> Iterator[str]:
    try:
        notes: Any = read_json(store.backend.get(f"{folder.path}/{LISTING}"))
    except FileNotFoundError:
        return
    except AccessError:
        raise
    except (ValueError, StoreError):
        notes = None
    if not isinstance(notes, dict) or notes.pop("digest", None) not in {None, digest(notes)}:
        yield f"{LISTING} is not as it was written"
        return
    for name, stored in notes.get("objects", {}).items() if deep else ():
        try:
            whole = sha256_bytes(store.backend.get(f"{folder.path}/{name}")) == stored["sha256"]
        except AccessError:
            raise
        except (FileNotFoundError, StoreError):
            whole = False
        if not whole:
            yield f"{name} does not agree with {LISTING}"
            return
    said = manifest.model_dump(mode="json")
    wrong = [name for name in LISTED if name in notes and notes[name] != said[name]]
    if wrong:
        yield f"{', '.join(wrong)} of the manifest do not agree with {LISTING}"
