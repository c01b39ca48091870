"""`verify` reads what is there unless it is asked to look at records and sizes only."""

from __future__ import annotations

import pytest

from wsolpipe import open_store
from wsolpipe.share.verify import verify


def problems(bench, **how):
    return [(item.kind, item.shard) for item in verify(open_store(str(bench.store)), **how)]


@pytest.mark.parametrize("deep", [True, False])
def test_a_sound_store_has_no_problems(done, deep):
    assert problems(done[0], deep=deep) == []


def test_a_changed_byte_is_found_by_reading_and_a_lost_one_by_its_record(done):
    bench, _ = done
    shard = next(bench.folder_of("shade").glob("data.zarr/mean/c/1"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert problems(bench, deep=False) == []
    assert problems(bench) == [("torn", 1)]
    shard.write_bytes(data[:-1])
    assert problems(bench, deep=False) == [("torn", 1)]


def test_a_table_that_lost_bytes_is_found_without_reading_it(done):
    bench, _ = done
    (table,) = bench.store.glob("toy/train/index/*/annotations.parquet")
    table.write_bytes(table.read_bytes()[:-1])
    assert problems(bench, deep=False) == [("index", None)]
