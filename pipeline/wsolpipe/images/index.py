"""From a listing and its files to the tables of a split: order, scan, check, build, digest.

Indexing has two steps: the listing (paths, labels, ground truth) is cheap and made whole; the scan opens every file and
is cut into shards by the engine.
"""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wsolpipe.contract.errors import BadImageError
from wsolpipe.contract.schema import INDEX_COLUMNS
from wsolpipe.images.decode import decode_oriented
from wsolpipe.images.listing import Annotation, ListedRow, Listing, Problems

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NO_LONGER_LISTED = "no longer listed"
PARQUET_GROUP_ROWS = 4096

INDEX_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("orientation", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("group", pa.string()),
        ("frame", pa.int32()),
        ("reason", pa.string()),
    ]
)

#: Boxes are half-open, in pixels of the image as the index counts them; masks have a path and zeros.
ANNOTATION_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("kind", pa.string()),
        ("x0", pa.float64()),
        ("y0", pa.float64()),
        ("x1", pa.float64()),
        ("y1", pa.float64()),
        ("path", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Scan:
    """What opening a file told.

    Attributes
    ----------
    bytes : int
        Size of the file; 0 if it could not be read.
    sha256 : str
        Of the file; empty if it could not be read.
    width, height : int
        Of the upright image in pixels; 0 if it could not be decoded.
    orientation : int
        EXIF orientation that makes it upright; 1 where EXIF is ignored.
    reason : str
        Why the row is quarantined; empty for a good file.
    """

    bytes: int
    sha256: str
    width: int
    height: int
    orientation: int
    reason: str = ""


@dataclass(frozen=True)
class Checked:
    """Annotations that agree with their files.

    Attributes
    ----------
    annotations : list of Annotation
        Boxes clipped to their images; those of quarantined rows as they were.
    clipped : int
        Boxes that reached over an edge.
    """

    annotations: list[Annotation]
    clipped: int


def order_rows(
    listing: Listing, previous_ids: Sequence[str], previous_paths: Sequence[str] | None = None
) -> list[ListedRow]:
    """Rows in index order: known ones where they were, new ones after them, sorted by image_id.

    Parameters
    ----------
    listing : Listing
        What the split holds now.
    previous_ids : sequence of str
        image_id of every row of the index before, in order; empty for a first index.
    previous_paths : sequence of str, optional
        Their paths, kept for rows that are gone.

    Returns
    -------
    list of ListedRow
        A row that the listing no longer has keeps its place with the reason `NO_LONGER_LISTED`.
    """
    if not previous_ids:
        return list(listing.rows)
    current = {row.image_id: row for row in listing.rows}
    rows = []
    for number, image_id in enumerate(previous_ids):
        row = current.pop(image_id, None)
        if row is None:
            path = previous_paths[number] if previous_paths is not None else image_id
            row = ListedRow(image_id, path, reason=NO_LONGER_LISTED)
        rows.append(row)
    return rows + list(current.values())


def scan_rows(
    root: Path, rows: Sequence[ListedRow], *, exif: Literal["apply", "ignore"], threads: int = 2
) -> list[Scan]:
    """Hash and fully decode the files of `rows`, in threads; only a full decode finds a truncated file.

    Returns
    -------
    list of Scan
        One a row, in order. Never raises for a bad file: it gets its reason.
    """
    top = os.fspath(root)

    def one(row: ListedRow) -> Scan:
        if row.reason:
            return Scan(0, "", 0, 0, 1, row.reason)
        return scan_file(os.path.join(top, row.path), exif=exif)

    if threads <= 1 or len(rows) < 2:
        return [one(row) for row in rows]
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        return list(pool.map(one, rows))


def scan_file(path: str, *, exif: Literal["apply", "ignore"]) -> Scan:
    """Hash and fully decode one file."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return Scan(0, "", 0, 0, 1, "missing file")
    except OSError as error:
        return Scan(0, "", 0, 0, 1, f"unreadable file: {error.strerror or type(error).__name__}")
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        pixels, orientation = decode_oriented(data, exif=exif)
    except BadImageError as error:
        return Scan(len(data), sha256, 0, 0, 1, error.message)
    return Scan(len(data), sha256, pixels.shape[1], pixels.shape[0], orientation)


def check_listing(
    rows: Sequence[ListedRow],
    scans: Sequence[Scan],
    annotations: Sequence[Annotation],
    *,
    subject: str = "data set",
) -> Checked:
    """Hold what the metadata says against what the files say.

    Parameters
    ----------
    rows, scans : sequences of one length
        Rows in index order and what their files told.
    annotations : sequence of Annotation
        Of these rows; others are an error.
    subject : str
        What messages call the data set.

    Raises
    ------
    DataError
        For up to twenty of: a declared size that is not the file's, a box wholly outside its image, an annotation of an
        unknown image; each with file and line.
    """
    problems = Problems(subject)
    sizes: dict[str, tuple[int, int] | None] = {}
    for row, scan in zip(rows, scans, strict=True):
        sizes[row.image_id] = None if scan.reason else (scan.width, scan.height)
        if row.width is not None and not scan.reason and (row.width, row.height) != (scan.width, scan.height):
            turned = (row.height, row.width) == (scan.width, scan.height) and scan.orientation >= 5
            note = " (it is stored sideways: exif: ignore keeps stored pixels)" if turned else ""
            problems.add(
                row.size_where,
                f"{row.path} is {scan.width}x{scan.height} pixels, not {row.width}x{row.height}{note}",
            )
    if problems.lines:
        problems.settle(hint="correct the sizes, or say files: {image_sizes: null} if boxes fit the files as they are")
    checked: list[Annotation] = []
    clipped = 0
    for item in annotations:
        if item.image_id not in sizes:
            problems.add(item.where, f"{item.image_id!r} is no image of this split")
            continue
        size = sizes[item.image_id]
        if item.kind != "box" or size is None:
            checked.append(item)
            continue
        width, height = size
        if item.x0 >= 0 and item.y0 >= 0 and item.x1 <= width and item.y1 <= height:
            checked.append(item)
        elif item.x0 >= width or item.y0 >= height or item.x1 <= 0 or item.y1 <= 0:
            box = f"({item.x0:g}, {item.y0:g}, {item.x1:g}, {item.y1:g})"
            problems.add(item.where, f"box {box} lies wholly outside {item.image_id}, {width}x{height} pixels")
        else:
            clipped += 1
            checked.append(
                item._replace(
                    x0=max(item.x0, 0.0), y0=max(item.y0, 0.0), x1=min(item.x1, width), y1=min(item.y1, height)
                )
            )
    problems.settle()
    return Checked(checked, clipped)


def build_tables(
    rows: Sequence[ListedRow], scans: Sequence[Scan], annotations: Sequence[Annotation]
) -> tuple[pa.Table, pa.Table]:
    """The index and the annotations of a split as tables, rows numbered from 0 in the order given.

    Returns
    -------
    index : pyarrow.Table
        `INDEX_SCHEMA`; ``reason`` is empty for good rows, ``frame`` null outside groups.
    annotations : pyarrow.Table
        `ANNOTATION_SCHEMA`, sorted by row; annotations of one image keep their order.
    """
    values = {
        "row": range(len(rows)),
        "image_id": [row.image_id for row in rows],
        "path": [row.path for row in rows],
        "labels": [row.labels for row in rows],
        "width": [scan.width for scan in scans],
        "height": [scan.height for scan in scans],
        "orientation": [scan.orientation for scan in scans],
        "bytes": [scan.bytes for scan in scans],
        "sha256": [scan.sha256 for scan in scans],
        "group": [row.group for row in rows],
        "frame": [row.frame for row in rows],
        "reason": [scan.reason for scan in scans],
    }
    index = pa.table({name: pa.array(values[name], INDEX_SCHEMA.field(name).type) for name in INDEX_COLUMNS})
    numbers = {row.image_id: number for number, row in enumerate(rows)}
    ordered = sorted(annotations, key=lambda item: numbers[item.image_id])
    truth = {
        "row": [numbers[item.image_id] for item in ordered],
        "image_id": [item.image_id for item in ordered],
        "kind": [item.kind for item in ordered],
        "x0": [item.x0 for item in ordered],
        "y0": [item.y0 for item in ordered],
        "x1": [item.x1 for item in ordered],
        "y1": [item.y1 for item in ordered],
        "path": [item.path for item in ordered],
    }
    arrays = {field.name: pa.array(truth[field.name], field.type) for field in ANNOTATION_SCHEMA}
    return index, pa.table(arrays)


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
    """Parquet bytes that are the same for the same table: no metadata of ours, row groups of 4,096 rows."""
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(None).combine_chunks(),
        sink,
        row_group_size=PARQUET_GROUP_ROWS,
        compression="zstd",
        store_schema=False,
        use_dictionary=["kind", "group", "reason"],
        write_statistics=True,
    )
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
