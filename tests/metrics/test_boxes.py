"""Boxes against boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsolpipe.contract.errors import DataError
from wsolpipe.metrics import BoxEvaluation, best_iou, box_recall, centred_box, iou_matrix, iou_per_box, iou_shares


def test_iou_counts_edges_half_open_or_as_pixels():
    a, b = [[0, 0, 9, 9]], [[0, 0, 9, 4]]
    assert iou_matrix(a, b)[0, 0] == pytest.approx(36 / 81)
    assert iou_matrix(a, b, inclusive=True)[0, 0] == pytest.approx(50 / 100)


def test_touching_boxes_overlap_only_where_edges_are_pixels():
    a, b = [[0, 0, 4, 4]], [[4, 0, 8, 4]]
    assert iou_matrix(a, b)[0, 0] == 0
    assert iou_matrix(a, b, inclusive=True)[0, 0] == pytest.approx(5 / 45)


def test_empty_boxes_give_zero_and_no_warning():
    assert iou_matrix([[3, 3, 3, 3]], [[3, 3, 3, 3]])[0, 0] == 0
    assert iou_matrix(np.zeros((0, 4)), [[0, 0, 1, 1]]).shape == (0, 1)
    assert best_iou([], [[0, 0, 1, 1]]) == 0
    assert iou_per_box([[0, 0, 1, 1]], []).tolist() == [0]


def test_padding_is_no_box_and_inverted_boxes_are_refused():
    padded = [[0, 0, 2, 2], [np.nan] * 4]
    assert iou_matrix(padded, padded).shape == (1, 1)
    with pytest.raises(DataError, match="far edge before its near edge"):
        iou_matrix([[5, 0, 2, 2]], padded)
    with pytest.raises(DataError, match=r"\[N, 4\]"):
        iou_matrix(np.zeros((2, 5)), padded)


edges = st.tuples(*[st.integers(0, 12)] * 2).map(sorted)
box = st.tuples(edges, edges).map(lambda xy: [xy[0][0], xy[1][0], xy[0][1], xy[1][1]])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a loaded machine is slow, not wrong
@given(box, box, st.booleans())
def test_iou_equals_counting_pixels(a, b, inclusive):
    def pixels(edges):
        grid = np.zeros((14, 14), bool)
        grid[edges[1] : edges[3] + inclusive, edges[0] : edges[2] + inclusive] = True
        return grid

    union = (pixels(a) | pixels(b)).sum()
    want = (pixels(a) & pixels(b)).sum() / union if union else 0.0
    assert iou_matrix([a], [b], inclusive=inclusive)[0, 0] == pytest.approx(want)


def test_recall_counts_ground_truth_not_boxes():
    truth = [[0, 0, 4, 4], [10, 10, 14, 14]]
    assert box_recall([[0, 0, 4, 4], [0, 0, 4, 3]], truth) == 0.5
    assert np.isnan(box_recall([[0, 0, 4, 4]], []))
    assert box_recall([], truth) == 0


def test_centred_box_takes_its_side_of_both_axes():
    assert centred_box(100, 50).tolist() == pytest.approx([10, 5, 90, 45])


def test_shares_meet_the_level_inclusively():
    assert iou_shares([0.3, 0.5, 0.7, 0.0]) == pytest.approx({"30": 0.75, "50": 0.5, "70": 0.25, "mean": 0.5})


def random_rows(seed=0, count=40):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        corners = rng.uniform(0, 50, (rng.integers(0, 6), 4))
        boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
        near = rng.uniform(0, 50, (rng.integers(0, 3), 2))
        yield boxes, np.concatenate([near, near + 40], axis=1), (100, 100)


def test_one_worker_equals_many_to_the_last_bit():
    rows = list(random_rows())
    whole, parts = BoxEvaluation(), [BoxEvaluation() for _ in range(3)]
    for number, (boxes, truth, size) in enumerate(rows):
        whole.add(boxes, truth, size=size)
        parts[number % 3].add(boxes, truth, size=size)
    total = BoxEvaluation()
    for part in reversed(parts):
        total.merge(part)
    assert total.result() == whole.result()


def test_no_row_leaves_the_denominator_silently():
    score = BoxEvaluation()
    truth = [[0, 0, 10, 10]]
    score.add(truth, truth, size=(20, 20))
    score.add([[np.nan] * 4], truth, size=(20, 20))  # prediction missing: scores 0
    score.add(truth, [], size=(20, 20))  # no ground truth: counted beside
    score.add([], [], size=(20, 20), objectless=True)  # right to say nothing
    score.add(truth, [], size=(20, 20), objectless=True)  # false alarm
    result = score.result()
    assert result["rows"] == 5
    assert result["rows_scored"] == 2
    assert result["rows_without_box"] == 1
    assert result["rows_missing"] == 1
    assert (result["rows_objectless"], result["true_negatives"]) == (2, 1)
    assert result["iou_top1"] == pytest.approx(0.5)
    assert result["box_maxboxacc_v2"] == pytest.approx(0.5)
    assert result["recall50_candidates"] == pytest.approx(0.5)


def test_proposal_figures_look_at_the_right_boxes():
    score = BoxEvaluation()
    boxes = [[0, 0, 10, 4], [0, 0, 10, 6], *[[50, 50, 60, 60]] * 3, [0, 0, 10, 10]]
    score.add(boxes, [[0, 0, 10, 10]], size=(100, 100))
    result = score.result()
    assert result["iou_top1"] == pytest.approx(0.4)
    assert result["iou_best5"] == pytest.approx(0.6)
    assert result["iou_upper"] == 1
    assert result["iou_candidates"] == pytest.approx(2 / 6)
    assert (result["box_maxboxacc_30"], result["recall50_top1"]) == (1, 0)


def test_nothing_scored_is_none_not_zero():
    assert BoxEvaluation().result()["iou_top1"] is None
