"""Scans are stored, and a split is assembled, some rows at a time: traced memory does not grow with the rows."""

from __future__ import annotations

import json
import tracemalloc
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq

from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.budget import check_parquet
from wsolpipe.engine.indexing import SCAN_ROWS, IndexWork
from wsolpipe.images.index_tables import annotation_table, scan_table, write_listing, write_parquet
from wsolpipe.images.listing import ListedRow
from wsolpipe.images.scan import Scan


def peak(work):
    """Bytes that Python objects took at most, and the result."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def listed(number):
    return ListedRow(f"film.mp4#{number:06d}", f"film.mp4#{number:06d}", (1,), group="film.mp4", frame=number)


def assemble(folder, rows):
    """Peaks of storing the scans of a film, and of assembling its index."""
    backend = LocalBackend(folder)
    work = IndexWork(SimpleNamespace(backend=backend, dataset=SimpleNamespace(name="d")), "train", "0123456789abcdef")
    backend.create(f"{work.folder}/listing.json", json.dumps({"rows": rows, "annotations": 0}).encode())
    backend.create(f"{work.folder}/listing.parquet", write_listing([listed(number) for number in range(rows)]))
    backend.create(f"{work.folder}/listing_annotations.parquet", write_parquet(annotation_table([])))
    scanning = 0
    for shard in range(len(work.shards())):
        start, stop = work.shards().span(shard)
        found = ((listed(number), Scan(9, f"{number:064x}", 96, 64, 1), 5) for number in range(start, stop))
        most, table = peak(lambda found=found: scan_table(found))
        scanning = max(scanning, most)
        backend.create(f"{work.folder}/scan/{shard}.parquet", write_parquet(table))
    most, (index, truth, clipped) = peak(lambda: work._tables(0))
    assert (len(index), len(truth), clipped) == (rows, 0, 0)
    assert index.column("frame").to_pylist() == list(range(rows))
    return scanning, most


def test_memory_of_an_index_does_not_grow_with_its_rows(tmp_path):
    few, many = assemble(tmp_path / "few", SCAN_ROWS // 2), assemble(tmp_path / "many", 3 * SCAN_ROWS + 100)
    assert many[0] < 1.1 * few[0] + 100_000
    assert many[1] < 1.1 * few[1] + 200_000  # objects of 12,000 rows would take six million bytes


def test_bounding_the_text_of_a_table_takes_the_memory_of_one_row_group(tmp_path):
    table = pa.table({"text": [f"{number:0200d}" for number in range(50_000)]})
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=2_000)
    ordinary = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(ordinary)
    pa.set_memory_pool(counted)
    try:
        check_parquet(tmp_path / "table.parquet", 50_000_000, "table")
    finally:
        pa.set_memory_pool(ordinary)
    assert counted.max_memory() < table.nbytes / 2
