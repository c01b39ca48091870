"""Moving the index of a split from one store to another: both tables checked as Parquet, the manifest last."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from wsolpipe.contract.budget import check_parquet
from wsolpipe.contract.canonical import sha256_bytes
from wsolpipe.contract.errors import AccessError, SchemaMismatch, StoreError, TornShardError
from wsolpipe.contract.manifest import MAX_JSON_BYTES, IndexManifest, parse
from wsolpipe.share import inspection
from wsolpipe.share.shard_transfer import Moved, fetch

if TYPE_CHECKING:
    from wsolpipe.contract.backends.base import Backend

TABLES = ("index.parquet", "annotations.parquet")


def move_index(source: Backend, target: Backend, folder: str, manifest: IndexManifest, *, check: bool) -> Moved:
    """Move an index, unless the target holds it: whole by the sizes of its tables, or with `check` by their bytes.

    Raises
    ------
    StoreError
        If its tables are damaged or are not what its manifest says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if _stands(target, folder, check=check):
        return Moved("same", None)  # rows and ground truth are in the key
    name = f"{folder}/manifest.json"
    if set(manifest.objects) != set(TABLES):
        msg = f"{source.url}/{name} names other tables than {' and '.join(TABLES)}"
        raise StoreError(msg)
    data = {
        table: fetch(source, f"{folder}/{table}", stored.sha256, min(stored.bytes, inspection.MAX_FILE_BYTES))
        for table, stored in manifest.objects.items()
    }
    for table in TABLES:
        check_parquet(io.BytesIO(data[table]), len(data[table]), f"{source.url}/{folder}/{table}")
    try:
        tables = [pq.read_table(io.BytesIO(data[table])) for table in TABLES]
    except (pa.ArrowException, OSError, ValueError) as error:
        msg = f"a table of {source.url}/{folder} cannot be read: {str(error)[:200]}"
        raise TornShardError(msg) from error
    inspection.check_index(manifest, tables[0], tables[1], f"{source.url}/{folder}")
    objects = {**{f"{folder}/{table}": content for table, content in data.items()}, name: manifest.to_bytes()}
    for target_name, content in objects.items():
        if not target.create(target_name, content):
            target.replace(target_name, content)
    return Moved("moved", None, sum(map(len, data.values())))


def _stands(target: Backend, folder: str, *, check: bool) -> bool:
    name = f"{folder}/manifest.json"
    try:
        manifest = parse(IndexManifest, target.get(name, limit=MAX_JSON_BYTES), f"{target.url}/{name}")
        for table, stored in manifest.objects.items():
            if target.size(f"{folder}/{table}") != stored.bytes:
                return False
            if check and sha256_bytes(target.get(f"{folder}/{table}")) != stored.sha256:
                return False
    except FileNotFoundError:
        return False
    except (AccessError, SchemaMismatch):
        raise
    except StoreError:
        return False
    return True
