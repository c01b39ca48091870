"""Stores made before chunks had checksums: readable, resumed and taken over as they are, under the same keys."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from wsolpipe.contract.reader import open_store
from wsolpipe.share.verify import verify


@pytest.fixture
def older(bench, monkeypatch):
    """A bench whose store was made before."""
    monkeypatch.setattr("wsolpipe.engine.maker.CHECKSUM", "")
    assert bench.go().code == 0
    monkeypatch.undo()
    return bench


def checksums(bench):
    return {
        path.parents[1].name: json.loads(path.read_bytes()).get("checksum")
        for path in bench.store.glob("toy/train/[sf]*/*/manifest.json")
    }


def codecs(bench, stage):
    found = json.loads((bench.folder_of(stage) / "data.zarr/status/zarr.json").read_bytes())
    return [codec["name"] for codec in found["codecs"][0]["configuration"]["codecs"]]


def check(bench, before):
    """All of it is read, and holds what the store held."""
    split = open_store(str(bench.store))["toy"]["train"]
    for stage, arrays in before.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(split[stage][name][: len(values)], values)
    assert list(verify(open_store(str(bench.store)))) == []


def values_of(bench):
    split = open_store(str(bench.store))["toy"]["train"]
    return {stage: {name: split[stage][name][:] for name in split[stage].manifest.arrays} for stage in split.stages()}


def test_new_stores_have_a_checksum_in_every_chunk_and_older_ones_are_done(older):
    assert checksums(older) == {"shade": "", "frame": ""}
    keys, before = older.keys(), values_of(older)
    assert older.go().code == 0
    assert older.made() == []
    assert older.keys() == keys
    assert codecs(older, "shade") == ["bytes", "zstd"]
    shutil.rmtree(older.store)
    assert older.go().code == 0
    assert older.keys() == keys
    assert checksums(older) == {"shade": "crc32c", "frame": "crc32c"}
    assert codecs(older, "shade") == ["bytes", "zstd", "crc32c"]
    check(older, before)


@pytest.mark.parametrize("manifest", ["kept", "lost"])
def test_shards_of_an_older_store_are_made_again_as_the_others_are(older, manifest):
    before, keys = values_of(older), older.keys()
    folder = older.folder_of("shade")
    (folder / "commits/2.json").unlink()
    for path in folder.glob("data.zarr/*/c/2"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if manifest == "lost":
        (folder / "manifest.json").unlink()
    assert older.go().code == 0
    assert ("shade", 2) in older.made()
    assert older.keys() == keys
    assert checksums(older)["shade"] == ""
    check(older, before)


def test_shards_of_an_older_store_are_taken_over_where_rows_were_added(older):
    before = values_of(older)
    older.draw([f"class{row % 3}/image{row:03d}.png" for row in range(72, 80)])
    assert older.go("force=true", stage="index").code in {0, 2}
    assert older.go().code == 0
    assert ("shade", 0) in older.taken_over()
    newest = open_store(str(older.store))["toy"]["train"]["shade"]
    assert newest.manifest.rows == 80
    assert newest.manifest.checksum == ""
    check(older, {"shade": before["shade"]})  # the other stage reads an artifact of all rows
