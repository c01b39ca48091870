"""Reading a store: lazy, picklable as names, strict about what is not there."""

from __future__ import annotations

import errno
import json
import multiprocessing
import operator
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wsolpipe
from stores import BOXES_KEY, MAPS_KEY, build_store
from wsolpipe.contract.backends.filesystem import LocalBackend
from wsolpipe.contract.errors import StoreError, TornShardError
from wsolpipe.contract.manifest import StageManifest


def test_arrays_come_by_name_and_row(tiny):
    stage = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]
    assert stage["maps"].shape == tiny.maps.shape
    assert stage["maps"].dtype == np.uint8
    np.testing.assert_array_equal(stage["maps"][5], tiny.maps[5])
    np.testing.assert_array_equal(stage["maps"][10:35], tiny.maps[10:35])
    np.testing.assert_array_equal(stage["maps"][[39, 0, 16, 16]], tiny.maps[[39, 0, 16, 16]])
    assert isinstance(stage.manifest, StageManifest)


def test_an_array_is_indexed_as_numpy_indexes_it(tiny):
    """Numbers, slices, masks and tuples of them; what is read is the rows that they need."""
    view = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]["maps"]
    mask = np.zeros(40, bool)
    mask[[3, 17, 39]] = True
    for index in (
        (0, 0), (7, 1, 3, 4), (-1, ..., 2), (slice(39, 2, -7), 0), slice(3, 20, 2), mask, (mask, 1), [],
        ([5, -1, 5], 0), (np.array([[1, 2], [38, 1]]), slice(1, 3)), ..., (..., 0), (None, 4), np.int64(11),
        (slice(None), [0, 2], 5),
    ):  # fmt: skip
        np.testing.assert_array_equal(view[index], tiny.maps[index])
        assert np.shape(view[index]) == np.shape(tiny.maps[index])
    for index in (40, -41, [0, 40], 1.5, mask[:39], (0, 3), "maps"):
        with pytest.raises(IndexError):
            view[index]


def test_numpy_takes_an_array_whole(tiny):
    view = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]["maps"]
    np.testing.assert_array_equal(np.asarray(view), tiny.maps)
    assert np.array(view, dtype=np.float32).dtype == np.float32
    assert len(view) == 40
    np.testing.assert_array_equal(np.stack(list(view)), tiny.maps)
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(view, copy=False)


@pytest.mark.parametrize("left", ["nothing", "objects without a record"])
def test_rows_of_a_shard_without_a_record_are_refused_not_filled(tiny, left):
    """Objects without a record are what a killed worker left: whatever they hold, nobody finished it."""
    split = wsolpipe.open_store(tiny.url)["tiny"]["train"]
    stage, shard = (split["proposals"], 1) if left == "nothing" else (split["cls_maps"], 2)
    if left != "nothing":
        os.unlink(f"{tiny.url}/{stage.folder}/commits/2.json")
    start, stop = stage.shards.span(shard)
    array = stage["boxes" if left == "nothing" else "maps"]
    for index in (start, slice(start - 1, start + 1), [0, stop - 1], slice(None), (slice(None), 0)):
        with pytest.raises(StoreError, match=f"rows {start} … {stop - 1} of .* are not made: shard {shard}") as caught:
            array[index]
        assert not isinstance(caught.value, TornShardError)
        assert "wsolpipe run" in str(caught.value.hint)
    array[:start]
    empty = array.filled()[start:stop]
    assert np.isnan(empty).all() if left == "nothing" else (empty == 0).all()


def test_a_shard_that_is_finished_meanwhile_is_read(tiny):
    stage = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]
    record = Path(f"{tiny.url}/{stage.folder}/commits/2.json")
    content = record.read_bytes()
    record.unlink()
    with pytest.raises(StoreError, match="are not made"):
        stage["maps"][33]
    record.write_bytes(content)
    np.testing.assert_array_equal(stage["maps"][33], tiny.maps[33])


def shard_file(tiny, stage, array, shard):
    base = Path(f"{tiny.url}/{stage.folder}/data.zarr/{array}/c/{shard}")
    return base if base.is_file() else next(path for path in base.rglob("*") if path.is_file())


@pytest.mark.parametrize("checksum", ["crc32c", ""], ids=["checksums", "made before chunks had checksums"])
@pytest.mark.parametrize("array", ["boxes", "scores", "source", "count", "status"])
def test_every_flipped_bit_of_a_shard_object_is_a_torn_shard(tmp_path, array, checksum):
    """Exhaustive: each bit of the object in turn, read by one row of each chunk."""
    tiny = build_store(tmp_path, rows=40, images=False, n_boxes=2, checksum=checksum)
    stage = wsolpipe.open_store(tiny.url)["tiny"]["train"]["proposals"]
    path = shard_file(tiny, stage, array, 1)
    whole = path.read_bytes()
    before = stage[array][16:32]
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            fresh = wsolpipe.open_store(tiny.url)["tiny"]["train"].stage("proposals")  # as in another process
            with pytest.raises(TornShardError, match="are damaged"):
                fresh[array][16:32]
    path.write_bytes(whole)
    np.testing.assert_array_equal(stage[array][16:32], before)


@pytest.mark.parametrize("checksum", ["crc32c", ""])
@pytest.mark.parametrize("seen", [False, True], ids=["at first use", "read before"])
def test_a_shard_object_that_is_cut_short_or_gone_is_torn(tiny, tmp_path, checksum, seen):
    tiny = build_store(tmp_path / checksum, images=False, checksum=checksum)
    stage = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]
    if seen:
        stage["maps"][:]
    path = shard_file(tiny, stage, "maps", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TornShardError, match="are damaged") as caught:
        stage["maps"][3]
    assert "wsolpipe repair" in str(caught.value.hint)
    path.unlink()
    with pytest.raises(TornShardError, match="missing"):
        stage["maps"][3]


@pytest.mark.parametrize(("is_local", "what"), [(True, "other bytes than recorded"), (False, "checksum")])
def test_a_chunk_that_rots_after_it_was_read_once_is_torn_all_the_same(tiny, monkeypatch, is_local, what):
    """Seen by the file's times where these are asked for before every read, else by the checksum of the chunk."""
    monkeypatch.setattr(LocalBackend, "is_local", is_local)
    stage = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]
    np.testing.assert_array_equal(stage["maps"][3], tiny.maps[3])
    path = shard_file(tiny, stage, "maps", 0)
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(TornShardError, match=what):
        stage["maps"][3]


def test_a_shard_that_may_not_be_read_is_not_called_torn(tiny, monkeypatch):
    """What cannot be read is not damaged: repair would remove good work."""
    stage = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]
    stage["maps"][3]

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "pread", refuse)
    with pytest.raises(StoreError, match="cannot read .*Permission denied") as caught:
        stage["maps"][3]
    assert not isinstance(caught.value, TornShardError)
    assert "repair" not in str(caught.value.hint)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["record", "shard", "manifest"])
def test_a_named_pipe_in_a_store_is_refused_instead_of_waited_for(tiny, what):
    stage = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]
    names = {
        "record": f"{tiny.url}/{stage.folder}/commits/0.json",
        "shard": shard_file(tiny, stage, "maps", 0),
        "manifest": f"{tiny.url}/{stage.folder}/manifest.json",
    }
    os.unlink(names[what])
    os.mkfifo(names[what])
    with pytest.raises(StoreError, match="not a regular file|no cls_maps"):
        wsolpipe.open_store(tiny.url)["tiny"]["train"].stage("cls_maps", MAPS_KEY)["maps"][3]


def test_folders_and_files_that_are_no_part_of_a_store_are_skipped(tiny):
    store = wsolpipe.open_store(tiny.url)
    stage = store["tiny"]["train"]["cls_maps"]
    for folder in ("my notes", "tiny/old train", "tiny/train/a stage", f"{stage.folder} (copy)"):
        shutil.copytree(f"{tiny.url}/{stage.folder}", f"{tiny.url}/{folder}")
    for name in ("²³.json", "-1.json", "07.json", "99999.json", "0.json.bak", "x.json"):
        Path(f"{tiny.url}/{stage.folder}/commits/{name}").write_text("{}")
    assert store.datasets() == ["tiny"]
    assert store["tiny"].splits() == ["train"]
    assert store["tiny"]["train"].stages() == ["cls_maps", "proposals"]
    assert store["tiny"]["train"].keys("cls_maps") == [MAPS_KEY]
    assert sorted(store["tiny"]["train"]["cls_maps"].committed()) == [0, 1, 2]


def test_the_newest_key_is_the_newest_with_a_finished_shard(tiny):
    split = wsolpipe.open_store(tiny.url)["tiny"]["train"]
    old = Path(f"{tiny.url}/{split['cls_maps'].folder}")
    failed = old.with_name("ffff000011112222")
    shutil.copytree(old, failed, ignore=shutil.ignore_patterns("commits"))
    manifest = json.loads((failed / "manifest.json").read_bytes())
    (failed / "manifest.json").write_text(
        json.dumps({**manifest, "key": failed.name, "created": "2026-01-01T00:00:00Z"})
    )
    assert split.keys("cls_maps") == [MAPS_KEY, failed.name]
    assert split["cls_maps"].key == MAPS_KEY
    assert split.stage("cls_maps", "ffff").key == failed.name


def test_rows_and_quarantine_follow_the_status(tiny):
    split = wsolpipe.open_store(tiny.url)["tiny"]["train"]
    maps, boxes = split["cls_maps"], split["proposals"]
    assert maps.rows().tolist() == [row for row in range(40) if row != 17]
    assert boxes.rows().tolist() == [row for row in [*range(16), *range(32, 40)] if row != 3]
    assert boxes.status()[16:32].tolist() == [0] * 16
    assert [(item["row"], item["reason"], item["stage"]) for item in maps.quarantined()] == [(17, "broken", "cls_maps")]
    assert sorted(boxes.committed()) == [0, 2]
    assert boxes.record(1) is None


def test_a_view_pickles_as_names_only(tiny):
    view = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]["maps"]
    before = len(pickle.dumps(view))
    view[:40]
    view.stage.manifest  # noqa: B018 - read, so that it is cached
    data = pickle.dumps(view)
    assert len(data) == before < 600
    assert tiny.url.encode() in data
    for word in (b"zarr", b"numpy", b"manifest", b"_io"):
        assert word not in data
    assert pickle.loads(data) == view  # noqa: S301


def test_a_view_works_after_unpickling_in_a_spawned_process(tiny):
    context = multiprocessing.get_context("spawn")
    view = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]["maps"]
    expected = view[[1, 38]]
    assert view.stage.manifest.key == MAPS_KEY
    with context.Pool(1) as pool:
        rows = pool.apply_async(operator.getitem, (view, [1, 38])).get(timeout=60)
    np.testing.assert_array_equal(rows, expected)


def test_no_file_stays_open_between_reads(tiny, tmp_path):
    view = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]["maps"]
    view[:]
    held = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert not [path for path in held if path.startswith(str(tmp_path))]


def test_a_part_of_a_key_is_enough_and_a_wrong_one_lists_those_there(tiny):
    split = wsolpipe.open_store(tiny.url)["tiny"]["train"]
    assert split.stage("proposals", BOXES_KEY[:4]).key == BOXES_KEY
    with pytest.raises(StoreError, match=f"no proposals with key 99.*{BOXES_KEY}"):
        split.stage("proposals", "99")


@pytest.mark.parametrize(
    ("reach", "told"),
    [
        (lambda store: store["birds"], "no data set 'birds'.*it holds: tiny"),
        (lambda store: store["tiny"]["test"], "no split 'test'.*it holds: train"),
        (lambda store: store["tiny"]["train"]["cams"], "no cams under"),
        (lambda store: store["tiny"]["train"]["cls_maps"]["boxes"], "no array 'boxes'.*it has: maps, range, status"),
        (lambda store: store["../etc"], "no data set '../etc'"),
        (lambda store: store["tiny"]["train"]["../../x"], "leaves the store"),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(tiny, reach, told):
    with pytest.raises(StoreError, match=told):
        reach(wsolpipe.open_store(tiny.url))


def test_a_missing_store_says_which_command_makes_it(tmp_path):
    with pytest.raises(StoreError, match="no store at") as caught:
        wsolpipe.open_store(str(tmp_path / "none"))
    assert "wsolpipe run" in str(caught.value.hint)


def test_index_and_truth_are_read_by_column_and_range(tiny):
    index = wsolpipe.open_store(tiny.url)["tiny"]["train"].index()
    table = index.table(["row", "labels"], start=30, stop=33)
    assert table.column("row").to_pylist() == [30, 31, 32]
    assert table.column_names == ["row", "labels"]
    assert index.annotations().num_rows == index.rows == 40


def test_reading_needs_no_torch_nor_engine():
    code = (
        "import sys, wsolpipe.contract.reader, wsolpipe.contract.manifest;"
        "print([name for name in ('torch', 'pyarrow', 'zarr', 'wsolpipe.engine', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
