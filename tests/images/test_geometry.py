"""Boxes, points and peaks come back where they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsolpipe.contract.errors import ConfigError
from wsolpipe.images.geometry import View, Window, clip_boxes, resize, resize_mask
from wsolpipe.maps.levels import peak
from wsolpipe.metrics.boxes import box_areas

sides = st.integers(1, 6000)


@st.composite
def views(draw, original=None):
    """A trainer's view: squash to a size, crop a window inside it, flip or not."""
    original = original or (draw(sides), draw(sides))
    resized = (draw(st.integers(8, 512)), draw(st.integers(8, 512)))
    height, width = draw(st.integers(1, resized[0])), draw(st.integers(1, resized[1]))
    top, left = draw(st.integers(0, resized[0] - height)), draw(st.integers(0, resized[1] - width))
    return View(original, resized, Window(top, left, height, width, draw(st.booleans())))


@st.composite
def boxes_in(draw, size):
    height, width = size
    share = st.floats(0, 1, allow_nan=False)
    x = sorted((draw(share) * width, draw(share) * width))
    y = sorted((draw(share) * height, draw(share) * height))
    return np.array([[x[0], y[0], x[1], y[1]]])


@given(st.data())
def test_a_box_through_network_input_crop_and_flip_comes_back_to_a_thousandth_of_a_pixel(data):
    original = (data.draw(sides), data.draw(sides))
    box = data.draw(boxes_in(original))
    network = View.squash(original, (224, 224))
    inside = network.boxes_to_view(box)
    assert (inside >= -1e-9).all()
    assert (inside <= 224 + 1e-9).all()
    np.testing.assert_allclose(network.boxes_from_view(inside), box, atol=1e-3, rtol=0)
    trainer = data.draw(views(original))
    seen = trainer.boxes_to_view(network.boxes_from_view(inside))
    back = trainer.boxes_from_view(seen)
    np.testing.assert_allclose(back, box, atol=1e-3, rtol=0)
    assert (back[:, 2:] >= back[:, :2] - 1e-9).all()
    assert (seen[:, 2:] >= seen[:, :2] - 1e-9).all()


@given(st.data())
def test_two_views_one_after_the_other_are_their_composition(data):
    first = data.draw(views())
    second = data.draw(views(first.size))
    box = data.draw(boxes_in(first.original))
    both = first.then(second)
    assert both.size == second.size
    stepwise = second.boxes_to_view(first.boxes_to_view(box))
    np.testing.assert_allclose(both.boxes_to_view(box), stepwise, atol=1e-6, rtol=1e-9)
    np.testing.assert_allclose(both.boxes_from_view(stepwise), box, atol=1e-3, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_peak_stays_on_its_object_through_squash_map_crop_and_flip(data):
    height, width = data.draw(st.integers(40, 300)), data.draw(st.integers(40, 300))
    # An object large enough that one cell of the map lies wholly on it after the squash.
    box_h, box_w = data.draw(st.integers(-(-height // 4), height)), data.draw(st.integers(-(-width // 4), width))
    top, left = data.draw(st.integers(0, height - box_h)), data.draw(st.integers(0, width - box_w))
    image = np.zeros((height, width), np.uint8)
    image[top : top + box_h, left : left + box_w] = 255
    network = View.squash((height, width), (224, 224))
    cells = network.apply(image).reshape(14, 16, 14, 16).mean(axis=(1, 3))
    grid = View.squash((224, 224), (14, 14))
    found = network.points_from_view(grid.points_from_view([peak(cells)]))
    (x, y), slack = found[0], 1.0
    assert left - slack <= x <= left + box_w + slack
    assert top - slack <= y <= top + box_h + slack
    flip = data.draw(st.booleans())
    crop_top, crop_left = data.draw(st.integers(0, 32)), data.draw(st.integers(0, 32))
    trainer = View((height, width), (256, 256), Window(crop_top, crop_left, 224, 224, flip))
    seen = trainer.points_to_view(found)
    inside = trainer.boxes_to_view([[left, top, left + box_w, top + box_h]])
    pixel = slack * max(trainer.scale)
    assert inside[0, 0] - pixel <= seen[0, 0] <= inside[0, 2] + pixel
    assert inside[0, 1] - pixel <= seen[0, 1] <= inside[0, 3] + pixel


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_pixels_and_boxes_go_the_same_way(data):
    height, width = data.draw(st.integers(32, 120)), data.draw(st.integers(32, 120))
    scale = data.draw(st.integers(1, 3))
    x0, y0 = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    box = [x0, y0, data.draw(st.integers(x0 + 4, width)), data.draw(st.integers(y0 + 4, height))]
    image = np.zeros((height, width), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    rows, columns = height * scale, width * scale
    window = Window(scale, scale, rows - 2 * scale, columns - 2 * scale, data.draw(st.booleans()))
    view = View((height, width), (rows, columns), window)
    ys, xs = np.nonzero(view.apply(image) > 127)
    wanted = view.boxes_to_view([box], clip=True)[0]
    found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(found - wanted).max() <= 0.5 + 1e-9 if scale > 1 else (found == wanted).all()


def test_a_crop_takes_the_very_pixels_of_the_resized_image():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    view = View((30, 40), (30, 40), Window(3, 5, 20, 10, flip=True))
    np.testing.assert_array_equal(view.apply(image), image[3:23, 5:15][:, ::-1])
    assert view.apply(image).flags.c_contiguous
    assert view.apply(image).flags.writeable


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, (8, 8))[2:6, 2:6]
    assert small.min() > 110
    assert small.max() < 145


def test_lost_boxes_have_no_area_and_padding_stays_nan():
    view = View((100, 100), (256, 256), Window(32, 32, 224, 224))
    boxes = [[0, 0, 10, 10], [20, 20, 60, 60], [np.nan] * 4]
    seen = view.boxes_to_view(boxes, clip=True)
    assert box_areas(seen[:2]).tolist()[0] == 0
    assert box_areas(seen[:2])[1] > 0
    assert np.isnan(seen[2]).all()
    assert clip_boxes([[-5, -5, 500, 5]], (10, 20)).tolist() == [[0, 0, 20, 5]]


def test_no_boxes_are_no_trouble():
    assert View.squash((5, 5), (10, 10)).boxes_to_view([]).shape == (0, 4)


def test_keeping_the_aspect_sets_the_longer_side():
    view = View.fit((300, 400), 224)
    assert view.size == (168, 224)
    assert View.fit((1, 5000), 224).size == (1, 224)


def test_a_mask_is_shrunk_to_its_nearest_pixels():
    mask = np.zeros((8, 8), bool)
    mask[4:, 4:] = True
    np.testing.assert_array_equal(resize_mask(mask, (2, 2)), [[False, False], [False, True]])
    np.testing.assert_array_equal(resize_mask(mask, (8, 8)), mask)
    mask = np.zeros((9, 9), bool)
    mask[1::3, 1::3] = True  # the middle of each third
    assert resize_mask(mask, (3, 3)).all()


@pytest.mark.parametrize(
    "view",
    [
        View((10, 10), (20, 20), Window(5, 5, 20, 20)),
        View((10, 10), (20, 20), Window(0.5, 0, 10, 10)),
        View((11, 10), (20, 20), Window(0, 0, 10, 10)),
    ],
)
def test_a_view_that_cannot_be_cut_is_refused(view):
    with pytest.raises(ConfigError):
        view.apply(np.zeros((10, 10, 3), np.uint8))


def test_views_of_other_sizes_do_not_compose():
    with pytest.raises(ConfigError, match="cannot follow"):
        View.squash((10, 10), (20, 20)).then(View.squash((30, 30), (5, 5)))
