"""Bytes of shards against what plain Zarr reads of them."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import zarr

from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.layout import Shards, shard_object
from wsolpipe.contract.schema import ArraySpec
from wsolpipe.engine import zarr_metadata
from wsolpipe.engine.zarr_metadata import SMALL, encode_shard, metadata_bytes

SHARDS = Shards(rows=72, shard_rows=16)  # the last one is half as long


@pytest.mark.parametrize("checksum", ["crc32c", ""])
@pytest.mark.parametrize("level", [0, -1, 9])
@pytest.mark.parametrize("shape", [(), (3, 40)], ids=["remembered", "not remembered"])
def test_zarr_reads_what_was_encoded_also_where_shards_are_alike_or_the_last_is_short(tmp_path, shape, level, checksum):
    spec = ArraySpec(dtype="float32", shape=shape, fill="nan", level=level)
    assert (np.zeros((16, *shape), np.float32).nbytes <= SMALL) == (shape == ())
    values = np.random.default_rng(0).normal(size=(72, *shape)).astype(np.float32)
    values[16:32] = values[:16]  # as another shard
    values[64:] = values[:8]  # as the beginning of others
    values[3] = np.nan
    folder = tmp_path / "data.zarr" / "a"
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_bytes(metadata_bytes(spec, SHARDS, checksum, ()))
    for shard in reversed(range(len(SHARDS))):
        start, stop = SHARDS.span(shard)
        path = tmp_path / shard_object("", "a", shard, values.ndim).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_shard(spec, SHARDS, shard, values[start:stop], checksum))
    read = zarr.open_array(folder, mode="r")
    np.testing.assert_array_equal(read[:], values)
    assert f'"level": {level}' in (folder / "zarr.json").read_text()
    assert ("crc32c" in {codec["name"] for codec in read.metadata.codecs[0].to_dict()["configuration"]["codecs"]}) == (
        checksum == "crc32c"
    )


def test_arrays_of_another_shape_or_type_are_refused():
    spec = ArraySpec(dtype="uint8")
    for wrong in (np.zeros(15, np.uint8), np.zeros(16, np.int8), np.zeros((16, 1), np.uint8)):
        with pytest.raises(StoreError, match="was declared"):
            encode_shard(spec, SHARDS, 0, wrong, "crc32c")


def test_a_shard_is_read_back_in_parts_so_that_memory_stays_near_its_own_size(monkeypatch):
    monkeypatch.setattr(zarr_metadata, "READ_BACK", 1 << 20)
    shards, spec = Shards(rows=1024, shard_rows=1024), ArraySpec(dtype="uint8", shape=(128, 128))
    values = np.zeros((1024, 128, 128), np.uint8)
    values[:, ::7] = np.arange(1024)[:, None, None] % 251
    tracemalloc.start()
    try:
        encode_shard(spec, shards, 0, values, "crc32c")
        assert tracemalloc.get_traced_memory()[1] < 1.2 * values.nbytes  # twice as much where all is read at once
    finally:
        tracemalloc.stop()


def test_a_slow_end_of_zarrs_thread_shows_no_traceback():
    code = (
        "import time, numpy, zarr.core.sync as zarr\n"
        "from wsolpipe.contract.layout import Shards\n"
        "from wsolpipe.contract.schema import ArraySpec\n"
        "from wsolpipe.engine.zarr_metadata import encode_shard\n"
        "encode_shard(ArraySpec(dtype='uint8', shape=()), Shards(4, 4), 0, numpy.zeros(4, 'uint8'), '')\n"
        "zarr.loop[0].call_soon_threadsafe(time.sleep, 1)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
