"""Reading a store: lazy, picklable as names, strict about what is not there."""

from __future__ import annotations

import multiprocessing
import operator
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import wsolpipe
from stores import BOXES_KEY, MAPS_KEY
from wsolpipe.contract.errors import StoreError
from wsolpipe.contract.manifest import StageManifest


def test_arrays_come_by_name_and_row(tiny):
    stage = wsolpipe.open_store(tiny.url)["tiny"]["train"]["cls_maps"]
    assert stage["maps"].shape == tiny.maps.shape
    assert stage["maps"].dtype == np.uint8
    np.testing.assert_array_equal(stage["maps"][5], tiny.maps[5])
    np.testing.assert_array_equal(stage["maps"][10:35], tiny.maps[10:35])
    np.testing.assert_array_equal(stage["maps"][[39, 0, 16, 16]], tiny.maps[[39, 0, 16, 16]])
    assert isinstance(stage.manifest, StageManifest)


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
