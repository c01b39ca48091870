"""Figures of boxes along video clips, and CorLoc of maps, against values worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from stores import build_store, write_stage
from wsolpipe.cli.eval import command as pipeline_eval
from wsolpipe.contract.reader import open_store
from wsolpipe.contract.schema import boxes_spec
from wsolpipe.evaluate.box_scores import over_time
from wsolpipe.metrics.localization import corloc_of

BOXES = [
    [0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 20],  # IoU .5, then 1
    [0, 0, 10, 10], [np.nan] * 4, [5, 0, 15, 10],  # no pair
    [0, 0, 10, 10], [5, 0, 15, 10],  # IoU 1/3
]  # fmt: skip
GROUPS = ["a", "a", "a", "b", "b", "b", "c", "c"]


@pytest.fixture
def clips(tmp_path):
    build_store(tmp_path, rows=8, shard_rows=3, groups=GROUPS, sizes=(30, 40), images=False)
    spec = boxes_spec(1, "drawn")
    boxes = np.array(BOXES, np.float32)[:, None]
    write_stage(
        str(tmp_path / "store"), "drawn", "dddd000011112222", {"boxes": (spec, boxes)},
        status=np.ones(8, np.uint8), shard_rows=3,
    )  # fmt: skip
    return open_store(str(tmp_path / "store"))["tiny"]["train"]


def test_boxes_of_successive_frames_are_compared_inside_their_group(clips):
    found = over_time(clips["drawn"], clips.index(), None)
    assert (found["groups"], found["pairs"]) == (3, 3)
    assert found["stability"] == pytest.approx((0.5 + 1 + 1 / 3) / 3)
    assert found["stability_of_groups"] == pytest.approx((0.75 + 1 / 3) / 2)


def test_plain_images_have_no_figures_over_time(tmp_path):
    build_store(tmp_path, rows=4, sizes=(30, 40), images=False)
    split = open_store(str(tmp_path / "store"))["tiny"]["train"]
    assert over_time(split["proposals"], split.index(), None) == {}


def test_eval_shows_clips_and_corloc(tmp_path):
    build_store(tmp_path, rows=8, groups=GROUPS, sizes=(30, 50), classes=2)
    (tmp_path / "tiny.yaml").write_text("name: tiny\nlayout: folder\nroot: images\n")
    words = [f"dataset={tmp_path}/tiny.yaml", f"store={tmp_path}/store", "split=train", "threads=1", "--json"]

    def told(*more):
        done = CliRunner().invoke(pipeline_eval, [*more, *words], catch_exceptions=False)
        return json.loads(done.stdout)

    boxes = told("stage=proposals")
    assert boxes["video"]["groups"] == 3
    assert boxes["video"]["CorLoc_of_groups"] == pytest.approx(100)  # the first proposal is the object
    maps = told("stage=cls_maps", "corloc=pooled")
    assert "video" not in maps
    assert maps["CorLoc"]["pooled"] == pytest.approx(maps["MaxBoxAcc"])
    oracle = told("stage=cls_maps", "corloc=class")["CorLoc"]
    assert oracle["oracle"] is True
    assert oracle["mean"] >= maps["CorLoc"]["mean"]


def test_corloc_takes_a_threshold_that_was_chosen_beforehand():
    counts = {0: np.array([4, 1, 0, 0]), 1: np.array([0, 2, 2, 0])}
    found = corloc_of(counts, {0: 4, 1: 2}, tau=0.25)
    assert found["pooled"] == pytest.approx(50)
    assert found["mean"] == pytest.approx((25 + 100) / 2)
    assert corloc_of(counts, {0: 4, 1: 2})["tau"] == 0
