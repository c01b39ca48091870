"""The table that a localizer is compared in: figures as the metrics give them, and no verdict that is not earned."""

from __future__ import annotations

import numpy as np
import pytest

from stores import DATASET, build_store
from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.evaluate.box_scores import score_boxes
from wsolpipe.evaluate.figures import Frame
from wsolpipe.evaluate.map_sources import StageMaps
from wsolpipe.evaluate.results import StoreResults
from wsolpipe.evaluate.scored import BEST, Chooser, Line, beats, score_beside
from wsolpipe.evaluate.truth import find_truth
from wsolpipe.metrics import MaxBoxEvaluation, standard_boxes, standard_maps


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(tmp_path_factory.mktemp("table"), rows=24, sizes=(30, 50), split="val")


@pytest.fixture
def results(store):
    return StoreResults(store.url, DATASET)


def test_one_worse_threshold_or_figure_is_enough_to_lose():
    own = Line("localizer", 60.0, 50.0, 0.5)
    lines = [
        Line("boxes", 70.0, 49.0, 0.4),
        Line("blurred", 10.0, 40.0, 0.51),
        Line("cams", 10.0, 20.0, 0.2, "0.1"),
        Line("cams", 50.0, 51.0, 0.4, "its best"),
        Line("equal", 60.0, 50.0, 0.5),
        Line("nothing scored", None, None, None),
    ]
    won = {name: False for name in ("blurred", "cams", "equal", "nothing scored")}
    assert beats(own, lines) == {"boxes": True, **won}
    masks = Line("localizer", None, None, 0.5, pxap=60.0)
    others = [Line("worse", None, None, 0.4, pxap=59.0), Line("better", None, None, 0.4, pxap=61.0)]
    assert beats(masks, others) == {"worse": True, "better": False}


def test_maps_are_scored_as_the_metrics_score_them(store, results):
    rows = results.rows("val")
    truth, view = find_truth(results, rows, "gt"), results.view("cls_maps", "val")
    expected = MaxBoxEvaluation(thresholds=1000)
    for row, (low, grid) in enumerate(zip(np.full(24, np.float32(-1)), store.maps[:, 0], strict=True)):
        levels = low + grid.astype(np.float32) * np.float32(4 / 255)
        expected.add([standard_maps(levels)], [standard_boxes(store.objects[row : row + 1], rows.sizes[row])])
    pseudo = find_truth(results, rows, "proposals")
    chooser = Chooser(StageMaps(view, 0, rows), pseudo, Frame(), threads=1)
    beside = score_beside(truth, maps=view, rules=(chooser, BEST))
    centre, chosen, best = (each.line() for each in beside)
    tau = chooser.threshold().tau
    assert (centre.name, chosen.name, best.name) == ("centred box", "cls_maps", "cls_maps")
    assert chosen.threshold == f"{tau:.3f} by pseudo-boxes of proposals bbbb000011112222 of val"
    for line, given in ((chosen, tau), (best, None)):
        figures = expected.result(tau=given)
        assert (line.accuracy, line.v2, line.iou) == (
            figures["MaxBoxAcc"], figures["MaxBoxAccV2"]["mean"], figures["iou"],
        )  # fmt: skip


def test_centred_box_is_scored_like_any_box(results):
    truth = find_truth(results, results.rows("val"), "truth")
    view = results.view("proposals", "val")
    centre, proposals = (each.line() for each in score_beside(truth, boxes=[view]))
    figures = score_boxes(view, truth).figures
    assert centre.iou == pytest.approx(figures["iou_centre"])
    assert (proposals.accuracy, proposals.iou) == (100 * figures["recall50_top1"], figures["iou_top1"])


def test_stages_of_other_rows_are_refused(tmp_path, results):
    other = build_store(tmp_path, rows=16, sizes=(30, 50), split="val", seed=3)
    truth = find_truth(results, results.rows("val"), "gt")
    foreign = StoreResults(other.url, DATASET).view("proposals", "val")
    object.__setattr__(foreign, "key", "dddd000011112222")
    foreign.__dict__["manifest"] = foreign.manifest.model_copy(update={"index_key": "cccc000011112222"})
    with pytest.raises(StoreError, match="no clip_cams under .*tiny.val"):
        results.view("clip_cams", "val")
    truth.rows.__dict__["index"] = None
    with pytest.raises(ConfigError, match="was made of 16 rows, which are not the rows to score"):
        score_beside(truth, boxes=[foreign])
