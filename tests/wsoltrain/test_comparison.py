"""The table that a localizer is judged by: figures as the metrics give them, and no verdict that it has not earned."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from wsolpipe.contract.errors import RunFailed
from wsolpipe.contract.reader import open_store
from wsolpipe.metrics import MaxBoxEvaluation, standard_boxes, standard_maps
from wsoltrain.cli import eval as scoring
from wsoltrain.data.config import Labelling
from wsoltrain.data.stored_rows import StoredRows
from wsoltrain.selection.comparison import Line, beats, box_figures, map_figures, map_tau
from wsoltrain.selection.evaluation import boxes_of


@pytest.fixture(scope="module")
def labelling(trainable):
    return Labelling(trainable.url, "tiny", "val", maps=None, boxes=None)


def test_one_worse_threshold_or_figure_is_enough_to_lose():
    own = Line("localizer", 60.0, 50.0, 0.5, "")
    lines = [
        Line("boxes", 70.0, 49.0, 0.4, ""),
        Line("blurred", 10.0, 40.0, 0.51, ""),
        Line("cams", 10.0, 20.0, 0.2, "0.1"),
        Line("cams", 50.0, 51.0, 0.4, "its best"),
        Line("equal", 60.0, 50.0, 0.5, ""),
        own,
    ]
    assert beats(lines) == {"boxes": True, "blurred": False, "cams": False, "equal": False}


def test_maps_are_scored_as_the_metrics_score_them(labelling):
    truth = boxes_of(labelling, "gt")
    maps = open_store(labelling.store)["tiny"]["val"]["cls_maps"]["maps"][:].astype(np.float32)[:, 0]
    sizes = StoredRows(labelling).sizes
    expected = MaxBoxEvaluation(thresholds=1000)
    for row, grid in enumerate(maps):
        boxes = [standard_boxes(truth[row], tuple(sizes[row]))] if row in truth else [np.zeros((0, 4))]
        expected.add([standard_maps(grid)], boxes)
    tau = map_tau(labelling, truth, "cls_maps")
    for given in (None, tau):
        told = map_figures(labelling, truth, "cls_maps", tau=given)
        assert told["MaxBoxAcc"] == expected.result(tau=given)["MaxBoxAcc"]
        assert told["iou"] == expected.result(tau=given)["iou"]
    assert map_figures(labelling, truth, "clip_cams") is None
    assert map_tau(labelling, truth, "clip_cams") is None


def test_centred_box_is_scored_like_any_box(labelling):
    truth = boxes_of(labelling, "gt")
    centre = box_figures(labelling, truth, None)
    assert centre["iou_top1"] == pytest.approx(centre["iou_centre"], abs=1e-6)
    assert centre["iou_centre"] == box_figures(labelling, truth, "proposals")["iou_centre"]
    assert box_figures(labelling, truth, "regions") is None


def test_command_shows_all_methods_and_fails_where_it_must_beat_what_it_cannot(trainable, trained):
    words = [
        f"checkpoint={trained}", f"store={trainable.url}", f"dataset={trainable.root}/../tiny.yaml", "split=val",
        "workers=0", "maps=cls_maps",
    ]  # fmt: skip
    told = json.loads(CliRunner().invoke(scoring.command, [*words, "--json"], catch_exceptions=False).output)
    names = [line["name"] for line in told["table"]]
    assert names == ["centred box", "cls_maps", "cls_maps", "proposals", "localizer"]
    assert told["table"][-1]["v2"] == told["localizer"]["MaxBoxAccV2"]["mean"]
    assert told["beats"]["centred box"]
    assert not told["beats"]["proposals"]  # the tiny store's first boxes are the objects themselves
    shown = CliRunner().invoke(scoring.command, words, catch_exceptions=False).output
    assert "does NOT beat proposals" in shown
    with pytest.raises(RunFailed, match="does not beat proposals"):
        CliRunner().invoke(scoring.command, [*words, "must_beat=true"], catch_exceptions=False)
