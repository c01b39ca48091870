"""Each step by which one box of many becomes a pseudo-box, on boxes small enough to see."""

from __future__ import annotations

import numpy as np
import pytest

from wsolpipe.maps.foreground import largest_otsu_box
from wsolpipe.ops.box_choice import Fallback, Step, best_finalist, highest, holds, map_peak, shortlist

BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 20], [8, 8, 9, 9], [30, 30, 40, 40], [0, 0, 50, 50]], float)
SCORES = np.array([0.9, 0.2, 0.5, 0.8, 0.1])
PEAK = np.array([8.5, 8.5])


def bits(found):
    return [int(value) for value in found.steps]


def test_filter_first_takes_the_share_of_all_boxes_and_then_those_that_hold_the_peak():
    found = shortlist(BOXES, SCORES, PEAK, keep=0.6, order="filter-first")
    assert bits(found) == [7, 2, 7, 1, 2]
    assert found.fallback == 0
    assert best_finalist(found, np.array([0.1, 0.9, 0.3, 0.9, 0.9]), SCORES) == (2, Fallback(0))


def test_pointing_first_takes_the_share_of_those_that_hold_the_peak():
    found = shortlist(BOXES, SCORES, PEAK, keep=0.5, order="pointing-first")
    assert bits(found) == [7, 2, 7, 0, 2]
    assert bits(shortlist(BOXES, SCORES, PEAK, keep=1.0, order="pointing-first")) == [7, 7, 7, 0, 7]


@pytest.mark.parametrize("order", ["filter-first", "pointing-first"])
def test_a_peak_outside_all_boxes_skips_the_pointing_game(order):
    found = shortlist(BOXES[:4], SCORES[:4], np.array([99.0, 1.0]), keep=0.5, order=order)
    assert found.fallback == Fallback.PEAK_OUTSIDE
    assert bits(found) == [5, 0, 0, 5]


def test_a_peak_outside_the_share_alone_skips_it_too_and_says_so():
    found = shortlist(BOXES, SCORES, np.array([45.0, 45.0]), keep=0.2, order="filter-first")
    assert found.fallback == Fallback.PEAK_OUTSIDE
    assert bits(found) == [5, 0, 0, 0, 2]


def test_no_peak_points_at_every_box():
    found = shortlist(BOXES, SCORES, None, keep=0.2, order="filter-first")
    assert found.fallback == Fallback.NO_PEAK
    assert bits(found) == [7, 2, 2, 2, 2]


def test_scores_that_are_all_zero_leave_the_order_of_the_step_before():
    zeros = np.zeros(5)
    found = shortlist(BOXES, zeros, PEAK, keep=0.4, order="filter-first")
    assert found.fallback == Fallback.NO_SCORE
    assert bits(found) == [7, 7, 2, 0, 2]
    first = shortlist(BOXES, SCORES, PEAK, keep=0.6, order="filter-first")
    assert best_finalist(first, zeros, SCORES) == (0, Fallback.NO_SCORE)


def test_no_region_at_all_is_told():
    found = shortlist(np.zeros((0, 4)), np.zeros(0), PEAK, keep=0.2, order="filter-first")
    assert found.fallback == Fallback.NO_REGION
    assert len(found.finalists()) == 0


@pytest.mark.parametrize(
    ("boxes", "share", "kept"), [(1, 0.2, 1), (5, 0.2, 1), (6, 0.2, 2), (200, 0.2, 40), (10, 1, 10), (100, 0.07, 7)]
)
def test_a_share_is_rounded_up_and_ties_go_to_the_earlier_box(boxes, share, kept):
    marked = highest(np.ones(boxes), np.ones(boxes, bool), share, np.ones(boxes, bool))
    assert np.flatnonzero(marked).tolist() == list(range(kept))


def test_a_box_holds_its_near_edge_and_not_its_far_one():
    box = np.array([[2.0, 3.0, 5.0, 7.0]])
    assert holds(box, (2.0, 3.0)).all()
    assert not holds(box, (5.0, 4.0)).any()
    assert not holds(box, (4.0, 7.0)).any()


def test_the_peak_lies_in_its_cell_in_pixels_of_the_image():
    levels = np.zeros((7, 7), np.uint8)
    levels[2, 5] = 255
    x, y = map_peak(levels, (140, 350))
    assert 250 < x < 300
    assert 40 < y < 60
    assert map_peak(np.full((7, 7), 9, np.uint8), (140, 350)) is None


def test_the_largest_otsu_box_scales_to_the_image_and_a_constant_map_has_none():
    levels = np.zeros((14, 14), np.uint8)
    levels[3:9, 4:10] = 200
    levels[12, 12] = 200
    box = largest_otsu_box(levels, (280, 140))
    assert box is not None
    assert np.allclose(box, [40, 60, 100, 180], atol=12)
    assert largest_otsu_box(levels * 0, (280, 140)) is None


def test_steps_are_bits():
    assert [int(step) for step in Step] == [1, 2, 4]
