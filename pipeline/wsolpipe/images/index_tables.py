"""Tables of a split: the index, its annotations and digests, and the listings and scans it is put together from.

The same rows give the same bytes. Listings and scans become Python objects some rows at a time: those of a whole split
would fill memory.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wsolpipe.contract.schema import INDEX_COLUMNS
from wsolpipe.images.listing import Annotation, ListedRow
from wsolpipe.images.scan import Scan

PARQUET_GROUP_ROWS = 4096
#: Rows that are Python objects at once.
PART_ROWS = 256

TEXT, LABELS, INT32, INT64, REAL = pa.string(), pa.list_(pa.int32()), pa.int32(), pa.int64(), pa.float64()
INDEX_SCHEMA = pa.schema(
    {"row": INT64, "image_id": TEXT, "path": TEXT, "labels": LABELS}
    | dict.fromkeys(("width", "height", "orientation"), INT32)
    | {"bytes": INT64, "sha256": TEXT, "group": TEXT, "frame": INT32, "reason": TEXT}
)
EDGES = dict.fromkeys(("x0", "y0", "x1", "y1"), REAL)
#: Boxes are half-open, in pixels of the image as the index counts them; masks have a path and zeros.
ANNOTATION_SCHEMA = pa.schema({"row": INT64, "image_id": TEXT, "kind": TEXT} | EDGES | {"path": TEXT})
LISTING_SCHEMA = pa.schema(
    {"image_id": TEXT, "path": TEXT, "labels": LABELS, "width": INT32, "height": INT32, "size_where": TEXT}
    | {"group": TEXT, "frame": INT32, "reason": TEXT}
)
SCAN_SCHEMA = pa.schema(
    {"bytes": INT64, "sha256": TEXT}
    | dict.fromkeys(("width", "height", "orientation"), INT64)
    | {"reason": TEXT, "path": TEXT, "modified": INT64}
)


def index_part(first: int, rows: Sequence[ListedRow], scans: Sequence[Scan]) -> pa.Table:
    """Some rows of the index of a split as a table.

    Parameters
    ----------
    first : int
        Number of the first of them.
    rows, scans : sequences of one length
        Rows in index order and the scans of their files.

    Returns
    -------
    pyarrow.Table
        `INDEX_SCHEMA`; ``reason`` is empty for good rows, ``frame`` null outside groups.
    """
    values: dict[str, Any] = {"row": range(first, first + len(rows))}
    values |= {name: [getattr(row, name) for row in rows] for name in ("image_id", "path", "labels", "group", "frame")}
    scanned = ("width", "height", "orientation", "bytes", "sha256", "reason")
    values |= {name: [getattr(scan, name) for scan in scans] for name in scanned}
    return pa.table({name: pa.array(values[name], INDEX_SCHEMA.field(name).type) for name in INDEX_COLUMNS})


def truth_table(annotations: Sequence[Annotation], numbers: Mapping[str, int]) -> pa.Table:
    """The annotations of a split as a table.

    Parameters
    ----------
    annotations : sequence of Annotation
        In any order.
    numbers : mapping of str to int
        Row of each image that they name.

    Returns
    -------
    pyarrow.Table
        `ANNOTATION_SCHEMA`, sorted by row; annotations of one image keep their order.
    """
    ordered = sorted(annotations, key=lambda item: numbers[item.image_id])
    own = [name for name in ANNOTATION_SCHEMA.names if name != "row"]
    truth: dict[str, Any] = {name: [getattr(item, name) for item in ordered] for name in own}
    truth["row"] = [numbers[item.image_id] for item in ordered]
    return pa.table({field.name: pa.array(truth[field.name], field.type) for field in ANNOTATION_SCHEMA})


def write_listing(rows: Sequence[ListedRow]) -> bytes:
    """Rows of a listing as a Parquet file of `LISTING_SCHEMA`, made a row group at a time."""
    return write_parts(
        (_listing_part(rows[at : at + PARQUET_GROUP_ROWS]) for at in range(0, len(rows), PARQUET_GROUP_ROWS)),
        LISTING_SCHEMA,
    )


def annotation_table(annotations: Sequence[Annotation]) -> pa.Table:
    """Annotations of a listing, with the lines that they come from, as a table."""
    kinds = {name: EDGES.get(name, TEXT) for name in Annotation._fields}
    return pa.table(
        {name: pa.array([getattr(item, name) for item in annotations], kind) for name, kind in kinds.items()}
    )


def listed_rows(table: pa.Table) -> Iterator[ListedRow]:
    """Rows of a part of what `write_listing` wrote."""
    for row in _values(table):
        yield ListedRow(**{**row, "labels": tuple(row["labels"])})


def scan_table(found: Iterable[tuple[ListedRow, Scan, int]]) -> pa.Table:
    """Rows with their scans and the times of change of their files (ns), as a table of `SCAN_SCHEMA`."""
    values = ({**asdict(scan), "path": row.path, "modified": modified} for row, scan, modified in found)
    parts = iter(lambda: list(islice(values, PART_ROWS)), [])
    return pa.Table.from_batches([pa.RecordBatch.from_pylist(part, SCAN_SCHEMA) for part in parts], SCAN_SCHEMA)


def stored_scans(table: pa.Table) -> Iterator[tuple[Scan, str, int]]:
    """Scans of a `scan_table`, with the paths and times of change that they were made of."""
    for values in _values(table):
        path, modified = values.pop("path"), values.pop("modified")
        yield Scan(**values), path, modified


def column_digests(table: pa.Table) -> dict[str, str]:
    """sha256 of each column's canonical rows.

    The digest depends on values and their order only: not on chunks, slices, integer width, or how a file stored them.
    """
    return {name: _column_digest(table.column(name)) for name in table.column_names}


def rows_digest(table: pa.Table, columns: Sequence[str]) -> str:
    """sha256 of the canonical rows of some columns of a (slice of a) table; their order does not matter."""
    total = hashlib.sha256()
    for name in sorted(set(columns)):
        total.update(f"{name}:{_column_digest(table.column(name))}\n".encode())
    return total.hexdigest()


def write_parquet(table: pa.Table) -> bytes:
    """Parquet bytes that are the same for the same table: no custom metadata, row groups of 4,096 rows."""
    return write_parts([table], table.schema)


def write_parts(parts: Iterable[pa.Table], schema: pa.Schema) -> bytes:
    """The bytes of `write_parquet` of a table that comes in parts, all but the last of whole row groups."""
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        schema.remove_metadata(),
        compression="zstd",
        store_schema=False,
        use_dictionary=["kind", "group", "reason"],
        write_statistics=True,
    ) as writer:
        for part in parts:
            for start in range(0, max(len(part), 1), PARQUET_GROUP_ROWS):
                group = part.slice(start, PARQUET_GROUP_ROWS).replace_schema_metadata(None).combine_chunks()
                writer.write_table(group, row_group_size=PARQUET_GROUP_ROWS)
    return sink.getvalue()


def read_parquet(data: bytes) -> pa.Table:
    """Read back what `write_parquet` wrote."""
    return pq.read_table(io.BytesIO(data))


def _column_digest(column: pa.ChunkedArray) -> str:
    """Digest of kind, length, validity, lengths of strings or lists, and values, each as little-endian bytes."""
    hasher = hashlib.sha256()
    _feed(hasher, pa.chunked_array(column.chunks, column.type).combine_chunks())
    return hasher.hexdigest()


def _feed(hasher: hashlib._Hash, array: pa.Array | pa.ChunkedArray) -> None:
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    hasher.update(len(array).to_bytes(8, "little"))
    hasher.update(b"null" + np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        hasher.update(b"list" + lengths.astype("<i8").tobytes())
        _feed(hasher, array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        text = pc.fill_null(array.cast(pa.large_string()), "")
        lengths = pc.binary_length(text).to_numpy(zero_copy_only=False)
        hasher.update(b"text" + lengths.astype("<i8").tobytes())
        # Concatenating copies a slice so that its buffer begins and ends with its own rows.
        joined = pa.concat_arrays([text, pa.array([], pa.large_string())])
        ends = np.frombuffer(joined.buffers()[1], "<i8", len(joined) + 1, joined.offset * 8)
        if len(joined) and joined.buffers()[2] is not None:
            hasher.update(memoryview(joined.buffers()[2])[int(ends[0]) : int(ends[-1])])
    elif pa.types.is_floating(kind):
        hasher.update(b"real" + pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False).astype("<f8").tobytes())
    else:
        values = pc.fill_null(array.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        hasher.update(b"int." + values.astype("<i8").tobytes())


def _listing_part(rows: Sequence[ListedRow]) -> pa.Table:
    return pa.table(
        {item.name: pa.array([getattr(row, item.name) for row in rows], item.type) for item in LISTING_SCHEMA}
    )


def _values(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=PART_ROWS):
        yield from batch.to_pylist()
