"""Listings and scans as tables and back, some rows at a time: Python objects of a whole split would fill memory."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from wsolpipe.images.index_tables import PARQUET_GROUP_ROWS, write_parts
from wsolpipe.images.listing import Annotation, ListedRow
from wsolpipe.images.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PART_ROWS = 256
"""Rows that are Python objects at once."""
LISTING_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("size_where", pa.string()),
        ("group", pa.string()),
        ("frame", pa.int32()),
        ("reason", pa.string()),
    ]
)
SCAN_SCHEMA = pa.schema(
    [
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("orientation", pa.int64()),
        ("reason", pa.string()),
        ("path", pa.string()),
        ("modified", pa.int64()),
    ]
)


def write_listing(rows: Sequence[ListedRow]) -> bytes:
    """Rows of a listing as a Parquet file of `LISTING_SCHEMA`, made a row group at a time."""
    return write_parts(
        (_listing_part(rows[at : at + PARQUET_GROUP_ROWS]) for at in range(0, len(rows), PARQUET_GROUP_ROWS)),
        LISTING_SCHEMA,
    )


def annotation_table(annotations: Sequence[Annotation]) -> pa.Table:
    """Annotations of a listing, with the lines that they come from, as a table."""
    kinds = {name: pa.float64() if name in {"x0", "y0", "x1", "y1"} else pa.string() for name in Annotation._fields}
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


def _listing_part(rows: Sequence[ListedRow]) -> pa.Table:
    return pa.table(
        {item.name: pa.array([getattr(row, item.name) for row in rows], item.type) for item in LISTING_SCHEMA}
    )


def _values(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=PART_ROWS):
        yield from batch.to_pylist()
