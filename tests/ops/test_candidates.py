"""From maps to candidate boxes: the rules of Algorithm 2.1, one a test, and a slow reference beside them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops

from wsolpipe.ops.candidates import find_candidates, order_boxes, stretch_levels


def reference_boxes(maps: np.ndarray, size: int, min_area: float) -> list[tuple[tuple[int, ...], int]]:
    """Boxes with the number of their map, one step of the definition at a time."""
    found = []
    for number, small in enumerate(maps):
        large = cv2.resize(small.astype(np.float64), (size, size), interpolation=cv2.INTER_LINEAR)
        if large.max() == large.min():
            continue
        grey = ((large - large.min()) * 255 / (large.max() - large.min())).astype(np.uint8)
        mask = grey > threshold_otsu(grey)
        for region in regionprops(label(mask, connectivity=2)):
            y0, x0, y1, x1 = region.bbox
            found.append(((x0, y0, x1, y1), number))
    if not found:
        return [((0, 0, size, size), 0)]

    def area(box: tuple[int, ...]) -> int:
        return (box[2] - box[0]) * (box[3] - box[1])

    passing = [item for item in found if area(item[0]) > min_area * size * size]
    if not passing:
        return [max(found, key=lambda item: area(item[0]))]
    first: dict[tuple[int, ...], int] = {}
    for box, number in passing:
        first.setdefault(box, number)
    return list(first.items())


@given(
    seed=st.integers(0, 10**6),
    side=st.sampled_from([7, 14, 28, 56]),  # those of which every step is exact
    count=st.integers(1, 5),
    min_area=st.sampled_from([0.0, 0.05, 0.3, 0.9]),
    smooth=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_boxes_equal_the_slow_reference_exactly(seed, side, count, min_area, smooth):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 256, (count, side, side), np.uint8)
    if smooth:
        maps = np.stack([cv2.GaussianBlur(part, (5, 5), 1.5) for part in maps])
    found = find_candidates(maps, size=224, min_area=min_area)
    boxes = [(tuple(box), number) for box, number in zip(found.boxes.tolist(), found.source.tolist(), strict=True)]
    assert boxes == reference_boxes(maps, 224, min_area)


@pytest.mark.parametrize("side", [8, 16])
def test_levels_between_two_of_which_rounding_decides_are_next_to_each_other_and_rare(side):
    """From sides that 224 is no power-of-two multiple of, a value that is a whole level may round to the one below."""
    maps = np.random.default_rng(0).integers(0, 256, (200, side, side), np.uint8)
    maps[:, 0, :2] = 0, 255
    large = np.stack([cv2.resize(one.astype(np.float64), (224, 224), interpolation=cv2.INTER_LINEAR) for one in maps])
    low, high = large.min((1, 2), keepdims=True), large.max((1, 2), keepdims=True)
    grey = ((large - low) * 255 / (high - low)).astype(np.uint8)
    off = np.abs(stretch_levels(maps, 224).astype(int) - grey)
    assert off.max() <= 1
    assert off.mean() < 1e-3


def blob(side: int, *rectangles: tuple[int, int, int, int]) -> np.ndarray:
    image = np.zeros((side, side), np.uint8)
    for x0, y0, x1, y1 in rectangles:
        image[y0:y1, x0:x1] = 255
    return image


def test_regions_that_touch_at_a_corner_are_one():
    found = find_candidates(blob(16, (2, 2, 5, 5), (5, 5, 9, 9))[None], size=16)
    assert found.boxes.tolist() == [[2, 2, 9, 9]]


def test_identical_boxes_keep_the_first_map():
    same = blob(16, (2, 2, 6, 7))
    found = find_candidates(np.stack([blob(16, (1, 1, 3, 3)), same, same]), size=16)
    assert found.boxes.tolist() == [[1, 1, 3, 3], [2, 2, 6, 7]]
    assert found.source.tolist() == [0, 1]
    assert found.fallback == "none"


def test_a_box_of_exactly_the_least_area_does_not_pass():
    maps = blob(16, (0, 0, 8, 8), (10, 10, 14, 14))[None]  # 64 and 16 of 256 pixels
    assert len(find_candidates(maps, size=16, min_area=16 / 256).boxes) == 1
    assert len(find_candidates(maps, size=16, min_area=15 / 256).boxes) == 2


def test_where_nothing_passes_the_largest_box_of_all_maps_stays():
    maps = np.stack([blob(16, (0, 0, 2, 2)), blob(16, (3, 3, 6, 6), (8, 8, 11, 11))])
    found = find_candidates(maps, size=16, min_area=0.5)
    assert found.boxes.tolist() == [[3, 3, 6, 6]]
    assert found.source.tolist() == [1]
    assert found.fallback == "largest"


def test_maps_without_contrast_give_the_whole_image():
    found = find_candidates(np.full((2, 14, 14), 7, np.uint8), size=224)
    assert found.boxes.tolist() == [[0, 0, 224, 224]]
    assert (found.source.tolist(), found.fallback) == ([0], "whole")


def test_one_flat_map_among_others_gives_nothing():
    found = find_candidates(np.stack([np.full((16, 16), 9, np.uint8), blob(16, (4, 4, 8, 8))]), size=16)
    assert found.source.tolist() == [1]


@pytest.mark.parametrize("side", [7, 14, 28, 56])
def test_levels_are_truncated_without_rounding_error(side):
    # 224 is a power of two times these sides, so in units of a bilinear weight everything is a whole number.
    maps = np.random.default_rng(side).integers(0, 256, (3, side, side), np.uint8)
    unit = 2 * 224 // side
    places = np.clip(2 * np.arange(224) + 1 - 224 // side, 0, None)
    left = places // unit
    weights = np.zeros((224, side), np.int64)
    weights[np.arange(224), left] += unit - places % unit
    weights[np.arange(224), np.minimum(left + 1, side - 1)] += places % unit
    whole = weights @ maps.astype(np.int64) @ weights.T
    low, high = whole.min(axis=(1, 2), keepdims=True), whole.max(axis=(1, 2), keepdims=True)
    assert np.array_equal(stretch_levels(maps, 224), 255 * (whole - low) // (high - low))


def test_order_does_not_depend_on_the_order_of_boxes():
    scores = np.array([0.5, 0.9, 0.5, 0.5, 0.5], np.float32)
    source = np.array([1, 3, 0, 0, 0])
    boxes = np.array([[0, 0, 1, 1], [5, 5, 6, 6], [4, 0, 5, 9], [4, 0, 5, 8], [2, 7, 3, 9]])
    expected = boxes[[1, 4, 3, 2, 0]].tolist()
    assert boxes[order_boxes(scores, source, boxes)].tolist() == expected
    shuffled = np.random.default_rng(0).permutation(5)
    again = boxes[shuffled][order_boxes(scores[shuffled], source[shuffled], boxes[shuffled])]
    assert again.tolist() == expected


def test_a_fixed_threshold_takes_the_place_of_otsus():
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))[None]
    for share in (0.25, 0.5, 0.75):
        (box,) = find_candidates(ramp, size=64, threshold=share).boxes
        assert box.tolist() == [int(np.argmax(ramp[0, 0] > int(255 * share))), 0, 64, 64]
