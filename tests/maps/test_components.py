"""Connected regions and tight boxes against skimage and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.measure import label as skimage_label
from skimage.measure import regionprops

from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.maps.foreground import label, largest_region_box, tight_boxes

masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@settings(deadline=None)  # the first call compiles
@given(masks, st.sampled_from([4, 8]))
def test_labels_are_those_of_skimage_in_raster_order(mask, connectivity):
    labels, count = label(mask, connectivity=connectivity)
    want, regions = skimage_label(mask, connectivity=connectivity // 4, return_num=True)
    assert count == regions
    # The same partition; ours numbered by the first pixel in raster order.
    firsts = [np.flatnonzero(labels == number)[0] for number in range(1, count + 1)]
    assert firsts == sorted(firsts)
    assert len({(a, b) for a, b in zip(labels.flat, want.flat, strict=True)}) == count + (not mask.all())


@settings(deadline=None)  # the first call compiles
@given(masks, st.sampled_from([4, 8]))
def test_boxes_are_half_open_and_areas_count_pixels(mask, connectivity):
    boxes, areas = tight_boxes(mask, connectivity=connectivity)
    labels, _ = label(mask, connectivity=connectivity)
    found = regionprops(labels)
    assert boxes.dtype == np.float32
    assert areas.dtype == np.int64
    assert areas.tolist() == [region.area for region in found]
    assert boxes.tolist() == [[r.bbox[1], r.bbox[0], r.bbox[3], r.bbox[2]] for r in found]


def test_large_noise_and_spirals_agree_with_scipy():
    rng = np.random.default_rng(0)
    for share in (0.2, 0.4, 0.6, 0.9):
        mask = rng.random((223, 227)) < share
        for connectivity, structure in ((4, None), (8, np.ones((3, 3)))):
            labels, count = label(mask, connectivity=connectivity)
            want, regions = ndimage.label(mask, structure)
            assert count == regions
            assert np.array_equal(labels > 0, want > 0)
            assert sorted(np.bincount(labels.ravel())[1:]) == sorted(np.bincount(want.ravel())[1:])


def test_checkerboards_fit_into_the_table_of_labels():
    board = np.indices((9, 11)).sum(axis=0) % 2 == 0
    assert label(board, connectivity=4)[1] == board.sum()
    assert label(board, connectivity=8)[1] == 1


def test_single_pixel_has_a_box_of_one_pixel():
    mask = np.zeros((6, 9), bool)
    mask[2, 5] = True
    boxes, areas = tight_boxes(mask)
    assert boxes.tolist() == [[5, 2, 6, 3]]
    assert areas.tolist() == [1]


def test_diagonal_touch_joins_only_with_eight_neighbours():
    mask = np.eye(4, dtype=bool)
    assert tight_boxes(mask)[0].tolist() == [[0, 0, 4, 4]]
    assert len(tight_boxes(mask, connectivity=4)[0]) == 4


def test_largest_region_has_most_pixels_and_the_first_wins_a_tie():
    mask = np.zeros((8, 8), bool)
    mask[0, 3:5] = True
    mask[4:6, 0] = True
    mask[7, 2:7:2] = True  # a wide spread of single pixels is not one region
    assert largest_region_box(mask).tolist() == [3, 0, 5, 1]
    mask[6, 0] = True
    assert largest_region_box(mask).tolist() == [0, 4, 1, 7]


def test_empty_mask_has_no_region():
    boxes, areas = tight_boxes(np.zeros((5, 5), bool))
    assert boxes.shape == (0, 4)
    assert areas.shape == (0,)
    assert largest_region_box(np.zeros((5, 5), bool)) is None


def test_wrong_arguments_are_named():
    with pytest.raises(DataError, match="boolean mask"):
        tight_boxes(np.zeros((5, 5), np.uint8))
    with pytest.raises(ConfigError, match="4 or 8, not 6"):
        tight_boxes(np.zeros((5, 5), bool), connectivity=6)
