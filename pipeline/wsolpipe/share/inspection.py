"""Checks of what another store sends: every name, size, number and byte, before it is kept.

A manifest is only ever compared and written again from its checked fields, names of objects are computed and not
taken over, and nothing that is read is executed or unpickled.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING

import numpy as np

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.canonical import KEY_LENGTH, sha256_bytes
from wsolpipe.contract.errors import StoreError, TornShardError, WsolError
from wsolpipe.contract.layout import Shards, check_name, check_object_name
from wsolpipe.contract.schema import INDEX_COLUMNS, ArraySpec
from wsolpipe.engine.encoding import inner_rows
from wsolpipe.engine.fingerprint import Ingredients
from wsolpipe.engine.zarr_metadata import all_arrays

if TYPE_CHECKING:
    import pyarrow as pa

    from wsolpipe.contract.backends.base import Backend
    from wsolpipe.contract.manifest import CommitRecord, IndexManifest, StageManifest

MAX_ROWS = 2**40
MAX_SHARDS = 10_000_000
MAX_SHARD_BYTES = 8 * 2**30
MAX_FILE_BYTES = 64 * 2**30
MAX_AXES = 8
_PLAIN = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_EMPTY = 2**64 - 1


def check_place(manifest: StageManifest | IndexManifest, folder: str, where: str) -> None:
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
    check_place(manifest, folder, where)
    said = f"{where}/{folder}/manifest.json"
    if not (0 <= manifest.rows <= MAX_ROWS and 1 <= manifest.shard_rows <= MAX_ROWS):
        msg = f"{said}: {manifest.rows} rows in shards of {manifest.shard_rows}"
        raise StoreError(msg)
    shards = Shards(manifest.rows, manifest.shard_rows)
    if len(shards) > MAX_SHARDS:
        msg = f"{said}: {len(shards)} shards, over the {MAX_SHARDS} that a stage may have"
        raise StoreError(msg)
    for name, spec in manifest.arrays.items():
        _name("array", name, said)
        if not _PLAIN.fullmatch(spec.dtype):
            msg = f"{said}: array {name} has type {spec.dtype[:40]!r}; only plain numbers are kept"
            raise StoreError(msg)
        if len(spec.shape) > MAX_AXES or any(not 1 <= extent <= MAX_SHARD_BYTES for extent in spec.shape):
            msg = f"{said}: array {name} has shape {spec.shape}"
            raise StoreError(msg)
        if shard_bytes(spec, shards) > MAX_SHARD_BYTES:
            msg = f"{said}: a shard of array {name} would have {shard_bytes(spec, shards)} bytes"
            raise StoreError(msg)
        try:
            spec.fill_value()
        except (TypeError, ValueError, OverflowError) as error:
            msg = f"{said}: array {name} cannot hold its fill {str(spec.fill)[:40]!r}"
            raise StoreError(msg) from error
    if manifest.index_key is not None:
        _name("key", manifest.index_key, said)
    return shards


def shard_bytes(spec: ArraySpec, shards: Shards) -> int:
    """Bytes of a whole shard before compression."""
    size = np.dtype(spec.dtype).itemsize * shards.shard_rows
    for extent in spec.shape:
        size *= extent
    return size


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
        limit = MAX_FILE_BYTES if unit is None else _most_bytes(known[name], shards)
        if not 0 <= item.bytes <= limit or not _DIGEST.fullmatch(item.sha256):
            msg = f"{said}: {name} of {item.bytes} bytes, at most {limit}, with digest {item.sha256[:64]!r}"
            raise StoreError(msg)
    if any(not span[0] <= item.row < span[1] for item in record.quarantined):
        msg = f"{said} quarantines rows of another shard"
        raise StoreError(msg)


def _most_bytes(spec: ArraySpec, shards: Shards) -> int:
    """Upper bound of the bytes of a shard object: incompressible data, frame headers and the index of chunks."""
    chunks = -(-shards.shard_rows // inner_rows(shards.shard_rows))
    size = shard_bytes(spec, shards)
    return size + size // 100 + 128 * chunks + 1024


def check_shard_bytes(data: bytes, spec: ArraySpec, shards: Shards, shard: int, said: str) -> None:
    """Check the bytes of a shard object against its declared type and shape without decompressing them.

    Every chunk must be one zstd frame that declares exactly the size of a chunk, so that neither a wrong type nor a
    decompression bomb is kept.

    Raises
    ------
    TornShardError
        If one is not.
    """
    inner = inner_rows(shards.shard_rows)
    count = shards.shard_rows // inner
    start, stop = shards.span(shard)
    present = -(-(stop - start) // inner)
    table_bytes = 16 * count
    if len(data) < table_bytes + 4:
        msg = f"{said} is too short to hold {count} chunks"
        raise TornShardError(msg)
    body = len(data) - table_bytes - 4
    table = np.frombuffer(data, "<u8", 2 * count, body).reshape(count, 2).tolist()
    wanted = shard_bytes(spec, shards) // count
    for chunk, (offset, length) in enumerate(table):
        if (offset, length) == (_EMPTY, _EMPTY):
            if chunk < present:
                msg = f"{said} lacks chunk {chunk}"
                raise TornShardError(msg)
            continue
        if offset + length > body or _frame_size(data[offset : min(offset + 18, offset + length)]) != wanted:
            msg = f"{said}: chunk {chunk} does not hold {wanted} bytes as its type and shape require"
            raise TornShardError(msg)


def _frame_size(head: bytes) -> int | None:
    """Decompressed size that a zstd frame declares (RFC 8878, section 3.1.1.1); None if it declares none."""
    if len(head) < 6 or head[:4] != _ZSTD_MAGIC:
        return None
    flags = head[4]
    single, dictionary = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    first = 5 + (1 - single) + dictionary
    if not width or len(head) < first + width:
        return None
    size = int.from_bytes(head[first : first + width], "little")
    return size + 256 if width == 2 else size


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
    from wsolpipe.images.index_tables import ANNOTATION_SCHEMA, INDEX_SCHEMA, column_digests

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
