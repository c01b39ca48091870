"""Checks of what another store sends: every name, size, number and byte, before it is kept; and who is trusted.

A manifest is only ever compared and written again from its checked fields, names of objects are computed and not
taken over, and nothing that is read is executed or unpickled.
"""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.backends.opening import CHECKSUMS, MAX_LIST_BYTES, parse_checksums
from wsolpipe.contract.budget import check_arrays, most_bytes
from wsolpipe.contract.errors import AccessError, ConfigError, StoreError, TornShardError, WsolError, raise_as
from wsolpipe.contract.layout import KEY_LENGTH, Shards, check_name, check_object_name, digest, read_json, sha256_bytes
from wsolpipe.contract.reader import Index, Store
from wsolpipe.contract.schema import INDEX_COLUMNS, RETIRED, ShardDecoder
from wsolpipe.engine.fingerprint import Ingredients
from wsolpipe.engine.zarr_metadata import all_arrays
from wsolpipe.images.index_tables import ANNOTATION_SCHEMA, INDEX_SCHEMA, column_digests

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.manifest import CommitRecord, IndexManifest, StageManifest
    from wsolpipe.engine.leases import Folder


MAX_FILE_BYTES = 64 * 2**30
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_own_place(manifest: StageManifest | IndexManifest, folder: str, where: str) -> None:
    """Check that a manifest belongs to the folder that it lies in.

    Raises
    ------
    StoreError
        If it names another data set, split, stage or key, or its key is not the start of its fingerprint.
    """
    dataset, second, stage, key = folder.split("/")
    split = None if second == "artifacts" else second
    said = (manifest.dataset, manifest.split, "index" if manifest.kind == "index" else manifest.stage, manifest.key)
    if said != (dataset, split, stage, key):
        msg = f"{where}/{folder}/manifest.json names {'/'.join(map(str, said))[:200]!r}"
        raise StoreError(msg)
    if not re.fullmatch(r"[0-9a-f]{16,64}", manifest.fingerprint) or manifest.fingerprint[:KEY_LENGTH] != key:
        msg = f"{where}/{folder}: key {key} does not belong to fingerprint {manifest.fingerprint[:64]!r}"
        raise StoreError(msg)


def check_key(manifest: StageManifest, said: str) -> None:
    """Recompute the key of a manifest from the version, parameters, weights and inputs that it lists.

    Raises
    ------
    StoreError
        If they give another fingerprint.
    """
    made_of = Ingredients(
        stage=manifest.stage,
        version=manifest.version,
        params=manifest.params,
        upstream=manifest.upstream,
        artifacts=manifest.artifacts,
        weights={item.name: item.sha256 for item in manifest.weights},
        columns=manifest.columns,
        bases={},
    )
    if made_of.fingerprint() != manifest.fingerprint:
        msg = (
            f"{said}: the version, parameters, weights, columns or upstream keys listed do not give key {manifest.key}"
        )
        raise StoreError(msg)


def check_stage(manifest: StageManifest, folder: str, where: str) -> Shards:
    """Check that the manifest of a stage describes what a store may hold; return its shards.

    Raises
    ------
    StoreError
        If a name leaves the store, a type is not a plain number or a shape is out of bounds.
    """
    check_own_place(manifest, folder, where)
    said = f"{where}/{folder}/manifest.json"
    for name in manifest.arrays:
        _name("array", name, said)
    check_arrays(manifest, said)
    if manifest.index_key is not None:
        _name("key", manifest.index_key, said)
    return Shards(manifest.rows, manifest.shard_rows)


def check_record(record: CommitRecord, unit: int | None, manifest: StageManifest, shards: Shards, said: str) -> None:
    """Check that a commit record fits its manifest and its own name.

    Raises
    ------
    StoreError
        If it names another shard, other rows, unknown arrays, sizes out of bounds, or names that leave the store.
    """
    span = (0, 0) if unit is None else shards.span(unit)
    if record.shard != unit or (unit is not None and (record.start, record.stop) != span):
        msg = f"{said} names shard {record.shard}, rows {record.start} to {record.stop}"
        raise StoreError(msg)
    known = all_arrays(manifest.arrays)
    if unit is not None and set(record.objects) != set(known):
        msg = f"{said} names other arrays than its manifest"
        raise StoreError(msg)
    for name, item in record.objects.items():
        _name("file", name, said)
        limit = MAX_FILE_BYTES if unit is None else most_bytes(known[name], shards.shard_rows)
        if not 0 <= item.bytes <= limit or not _DIGEST.fullmatch(item.sha256):
            msg = f"{said}: {name} of {item.bytes} bytes, at most {limit}, with digest {item.sha256[:64]!r}"
            raise StoreError(msg)
    if any(not span[0] <= item.row < span[1] for item in record.quarantined):
        msg = f"{said} quarantines rows of another shard"
        raise StoreError(msg)


def check_shard_bytes(data: bytes, manifest: StageManifest, array: str, shard: int, said: str) -> None:
    """Check the bytes of a shard object against its declared type and shape without decompressing them.

    Raises
    ------
    TornShardError
        If a chunk is not one zstd frame of a chunk's size: a wrong type, or a decompression bomb.
    """
    shards = Shards(manifest.rows, manifest.shard_rows)
    decoder = ShardDecoder.of(all_arrays(manifest.arrays)[array], shards.shard_rows, manifest.checksum)
    start, stop = shards.span(shard)
    with raise_as(TornShardError, f"{said}", ValueError, say=str):
        decoder.check_frames(data, -(-(stop - start) // decoder.rows))


def check_digest(data: bytes, sha256: str, size: int, said: str) -> None:
    """Compare bytes that arrived with their recorded size and digest.

    Raises
    ------
    TornShardError
        If they differ.
    """
    if len(data) != size or sha256_bytes(data) != sha256:
        msg = f"{said} has other bytes than recorded"
        raise TornShardError(msg)


def check_index(manifest: IndexManifest, table: pa.Table, annotations: pa.Table, where: str) -> None:
    """Check the tables of an index against its manifest.

    Raises
    ------
    StoreError
        If columns, types, rows or digests differ, or a path leaves the folder of images.
    """

    if table.schema.names != list(INDEX_COLUMNS) or table.num_rows != manifest.rows:
        msg = f"{where}: index.parquet has {table.num_rows} rows and columns {', '.join(table.schema.names)[:200]}"
        raise StoreError(msg)
    for found, wanted in ((table.schema, INDEX_SCHEMA), (annotations.schema, ANNOTATION_SCHEMA)):
        if [(field.name, field.type) for field in found] != [(field.name, field.type) for field in wanted]:
            msg = f"{where}: a table has other columns or types than an index has"
            raise StoreError(msg)
    if column_digests(table) != manifest.digests:
        msg = f"{where}: index.parquet does not have the digests of its manifest"
        raise StoreError(msg)
    for item in (table, annotations):
        for path in item.column("path").to_pylist():
            check_image_path(path or "", where)


def check_image_path(path: str, where: str) -> None:
    """Refuse a path of an image or mask that leaves the folder of images.

    Raises
    ------
    StoreError
        If it is absolute or holds ``..``.
    """
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        msg = f"{where}: path {path[:200]!r} leaves the folder of images"
        raise StoreError(msg)


def check_link(backend: Backend, name: str) -> None:
    """Refuse an object of a folder that is, or lies behind, a symbolic link.

    Raises
    ------
    StoreError
        If it is.
    """
    check_object_name(name, backend.url)
    if isinstance(backend, LocalBackend):
        parent, _, _ = name.rpartition("/")
        root = os.fspath(backend.root)
        if not _is_straight(root, parent) or os.path.islink(f"{root}/{name}"):  # noqa: PTH114 - called for every object
            msg = f"{backend.url}/{name} is, or lies behind, a symbolic link; links are not followed"
            raise StoreError(msg)


@functools.lru_cache(maxsize=1024)
def _is_straight(root: str, folder: str) -> bool:
    """Whether no part of `folder` below `root` is a link. Cached: the same folders hold all shards."""
    real = os.path.realpath(root)
    return os.path.realpath(f"{real}/{folder}") == f"{real}/{folder}".rstrip("/")


def _name(kind: str, name: str, said: str) -> None:
    try:
        check_name(kind, name)
    except WsolError as error:
        msg = f"{said}: {error.message}"
        raise StoreError(msg) from error


LEAST_DIGITS = 16
VARIABLE = "WSOLPIPE_TRUST"


@dataclass(frozen=True)
class Trust:
    """Objects that may be taken: everything (``listed`` None), or manifests and records with these digests.

    Records hold the digests of arrays and files, so that the list covers every byte.
    """

    listed: dict[str, str] | None = None

    @classmethod
    def of(cls, source: Backend, words: str | None) -> Trust:
        """Trust in `source` as ``trust=`` or the environment variable ``WSOLPIPE_TRUST`` defines it.

        Parameters
        ----------
        words : str or None
            Addresses of stores (or of folders above them) and digests of published lists, separated by commas;
            None if not given, which trusts the source that the user named.

        Raises
        ------
        ConfigError
            If the source is not among them.
        """
        given = words if words is not None else os.environ.get(VARIABLE)
        if given is None:
            return cls()
        items = [item.strip() for item in given.split(",") if item.strip()]
        digests = [item for item in items if re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", item)]
        if any(_is_below(source.url, item) for item in items if item not in digests):
            return cls()
        if digests:
            try:
                data = source.get(CHECKSUMS, limit=MAX_LIST_BYTES)
            except FileNotFoundError:
                data = b""
            if data and sha256_bytes(data).startswith(tuple(digests)):
                return cls(parse_checksums(data, source.url))
        msg = f"{source.url} is not among the trusted: {', '.join(items) or 'none'}"
        raise ConfigError(msg, hint=f"add its address, or the digest of its {CHECKSUMS}, to trust=")

    def check(self, name: str, sha256: str) -> None:
        """Compare the digest of an object of the source with the list, if there is one.

        Raises
        ------
        StoreError
            If the list has another digest, or not this object.
        """
        if self.listed is not None and self.listed.get(name) != sha256:
            msg = f"{name} does not have the digest of the trusted list of checksums"
            raise StoreError(msg)


def _is_below(url: str, trusted: str) -> bool:
    base = trusted.rstrip("/")
    return url.rstrip("/") == base or url.startswith(f"{base}/")


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
