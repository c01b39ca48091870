"""Boxes of a stage as a Parquet table with one row for each box, for readers that know tables and not arrays."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from wsolpipe.contract.schema import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsolpipe.contract.arrays import IndexedStage
    from wsolpipe.contract.manifest import CommitRecord
    from wsolpipe.contract.parquet import ParquetRows

TABLE = "boxes.parquet"
#: Boxes are half-open, in pixels of the original image. ``rank`` counts from 0, best first; ``label`` and ``name`` are
#: the first label of the image; ``source`` is the map that a box was found in, null where a stage has no such array.
BOX_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("label", pa.int32()),
        ("name", pa.string()),
        ("x0", pa.float32()),
        ("y0", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("score", pa.float32()),
        ("rank", pa.int32()),
        ("source", pa.int32()),
    ]
)


def has_boxes(view: IndexedStage) -> bool:
    """Whether a stage has an array ``boxes`` of boxes."""
    spec = view.manifest.arrays.get("boxes")
    return spec is not None and len(spec.shape) == 2 and spec.shape[1] == 4


def box_table(view: IndexedStage) -> bytes:
    """Boxes of the finished shards as the bytes of a Parquet file, `BOX_SCHEMA`, one row group for each shard.

    Boxes of rows that have no result, and slots without a box, are left out.
    """
    import pyarrow.parquet as pq

    file = io.BytesIO()
    with pq.ParquetWriter(file, BOX_SCHEMA, compression="zstd") as writer:
        for table in _shards(view):
            writer.write_table(table)
    return file.getvalue()


def read_box_table(view: IndexedStage) -> pa.Table:
    """Boxes as `box_table` writes them, in memory."""
    return pa.concat_tables([BOX_SCHEMA.empty_table(), *_shards(view)])


def _shards(view: IndexedStage) -> Iterator[pa.Table]:
    spans = view.index().spans()
    names = {int(label): name for label, name in view.index().manifest.class_names.items()}
    for record in view.committed().values():
        yield _of_shard(view, record, spans, names)


def _of_shard(view: IndexedStage, record: CommitRecord, spans: ParquetRows, names: dict[int, str]) -> pa.Table:
    def values(array: str) -> np.ndarray[Any, Any]:
        return np.asarray(view[array][record.start : record.stop])

    boxes = values("boxes")
    there = (values("status") == Status.OK)[:, None] & ~np.isnan(boxes).any(axis=-1)
    position, rank = np.nonzero(there)
    found = boxes[there]
    rows = spans.table(["image_id", "path", "labels"], start=record.start, stop=record.stop)
    first = [labels[0] if labels else None for labels in rows.column("labels").to_pylist()]
    taken = rows.take(pa.array(position))
    labels = [first[at] for at in position.tolist()]
    columns: dict[str, Any] = {
        "row": position + record.start,
        "image_id": taken.column("image_id"),
        "path": taken.column("path"),
        "label": labels,
        "name": [None if label is None else names.get(label) for label in labels],
        **{edge: found[:, side] for side, edge in enumerate(("x0", "y0", "x1", "y1"))},
        **{
            column: values(array)[there] if view.manifest.arrays.get(array) else pa.nulls(len(found))
            for column, array in (("score", "scores"), ("source", "source"))
        },
        "rank": rank,
    }
    return pa.table({name: columns[name] for name in BOX_SCHEMA.names}, schema=BOX_SCHEMA)
