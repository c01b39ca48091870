"""Bounds on what others give, judged before it is decoded: sizes that a few bytes may claim are refused in one line.

An array may hold `ROW_BYTES` a row, which ``WSOLPIPE_MAX_ROW_MIB`` raises for a store that one trusts. A table may
unpack to `TIMES` its own size and `FREE_BYTES`; the tables of an index unpack to about ten times theirs.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.schema import ENTRY_BYTES, inner_rows, row_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow.parquet as pq

    from wsolpipe.contract.manifest import StageManifest
    from wsolpipe.contract.schema import ArraySpec

MAX_ROWS = 2**28
MAX_SHARDS = 1_000_000
MAX_SHARD_BYTES = 4 * 2**30
MAX_AXES = 8
ROW_BYTES = 8 * 2**20
VARIABLE = "WSOLPIPE_MAX_ROW_MIB"
TIMES, FREE_BYTES = 64, 64 * 2**20
#: Bytes of a value in memory beside those of its text: its number, or where its text begins.
VALUE_BYTES = 8
BATCH_ROWS = 65_536
_PLAIN = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")


def check_arrays(manifest: StageManifest, said: str) -> None:
    """Refuse a manifest whose rows, shards or arrays are larger than a store may hold.

    Parameters
    ----------
    said : str
        Name of the manifest in messages.

    Raises
    ------
    StoreError
        If there are too many rows or shards, a type is not a plain number, or a row or shard has too many bytes.
    """
    rows, shard_rows = manifest.rows, manifest.shard_rows
    if not (0 <= rows <= MAX_ROWS and 1 <= shard_rows <= MAX_ROWS and rows <= MAX_SHARDS * shard_rows):
        msg = f"{said}: {rows} rows in shards of {shard_rows}; at most {MAX_ROWS} rows in {MAX_SHARDS} shards are read"
        raise StoreError(msg)
    for name, spec in manifest.arrays.items():
        what = f"{said}: array {name}"
        if not _PLAIN.fullmatch(spec.dtype):
            msg = f"{what} has type {spec.dtype[:40]!r}; only plain numbers are kept"
            raise StoreError(msg)
        if len(spec.shape) > MAX_AXES or any(extent < 1 for extent in spec.shape):
            msg = f"{what} has shape {spec.shape}"
            raise StoreError(msg)
        most = max_row_bytes()
        if row_bytes(spec) > most or row_bytes(spec) * shard_rows > MAX_SHARD_BYTES:
            size = f"{row_bytes(spec):,} bytes a row, {row_bytes(spec) * shard_rows:,} a shard"
            msg = f"{what} of shape {spec.shape} has {size}; at most {most:,} and {MAX_SHARD_BYTES:,} are read"
            raise StoreError(msg, hint=f"if you trust whoever made it: {VARIABLE}={-(-row_bytes(spec) // 2**20)}")
        try:
            spec.fill_value()
        except (TypeError, ValueError, OverflowError) as error:
            msg = f"{what} cannot hold its fill {str(spec.fill)[:40]!r}"
            raise StoreError(msg) from error


def max_row_bytes() -> int:
    """Bytes that a row of an array may have."""
    text = os.environ.get(VARIABLE, "")
    return int(text) * 2**20 if text.isdecimal() else ROW_BYTES


def most_bytes(spec: ArraySpec, shard_rows: int) -> int:
    """Upper bound of the bytes of a shard object: incompressible data, frame headers and the table of chunks."""
    size = row_bytes(spec) * shard_rows
    return size + size // 100 + 8 * ENTRY_BYTES * (shard_rows // inner_rows(shard_rows)) + 1024


def check_parquet(
    source: Any, size: int, said: str, columns: Sequence[str] | None = None, *, opened: pq.ParquetFile | None = None
) -> None:
    """Refuse a Parquet file that unpacks to far more than its own size, by its footer and then by its longest cells.

    Text is read in batches, each distinct cell once, so that a long cell that many rows share is never multiplied.

    Parameters
    ----------
    source : path or file
    size : int
        Bytes of the file.
    said : str
        Name of the file in messages.
    columns : sequence of str, optional
        Whose cells are looked at; all without it.
    opened : ParquetFile, optional
        The same file, open.

    Raises
    ------
    StoreError
        If it would take more than ``FREE_BYTES + TIMES * size`` bytes of memory; if it is not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    most = FREE_BYTES + TIMES * size
    try:
        file = opened or pq.ParquetFile(source)
        schema, footer = file.schema_arrow, file.metadata
        read = [field for field in schema if columns is None or field.name in columns]
        texts = [field.name for field in read if pa.types.is_large_binary(field.type) or _is_text(field.type)]
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        parts = [group.column(number) for group in groups for number in range(group.num_columns)]
        claimed = sum(max(part.total_uncompressed_size, VALUE_BYTES * part.num_values) for part in parts)
        needed = max(claimed, sum(group.num_rows for group in groups) * VALUE_BYTES * len(schema))
        if needed <= most and texts:
            file = pq.ParquetFile(source, metadata=footer, read_dictionary=texts)
            batches = (  # group by group: a reader of several keeps the cells of all of them
                batch
                for number in range(len(groups))
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[number], columns=texts, use_threads=False)
            )
            for batch in batches:
                needed += sum(_unpacked(column) for column in batch.columns)
                if needed > most:
                    break
    except (pa.ArrowException, OSError, ValueError) as error:
        msg = f"{said} cannot be decoded: {str(error)[:200]}"
        raise StoreError(msg) from error
    if needed > most:
        msg = f"{said} of {size:,} bytes would unpack to {needed:,} and more; at most {most:,} are read"
        raise StoreError(msg)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind))


def _unpacked(column: Any) -> int:
    """Bytes of the text of a column that holds each distinct cell once."""
    import pyarrow.compute as pc

    lengths = np.asarray(pc.fill_null(pc.binary_length(column.dictionary), 0), np.int64)
    return int(np.bincount(np.asarray(column.indices.drop_null(), np.int64), minlength=len(lengths)) @ lengths)
