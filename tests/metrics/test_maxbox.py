"""The fast sweep against the plain one, threshold by threshold."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metrics import oracle
from wsolpipe import metrics
from wsolpipe.contract.errors import ConfigError, DataError
from wsolpipe.metrics import maxbox


def several_blobs(rng, *, largest_side=40):
    """A map of many components: smoothed noise, few levels, holes punched, faint or full range."""
    height, width = rng.integers(2, largest_side, 2)
    score = rng.random((height, width))
    if rng.random() < 0.6:
        score = cv2.GaussianBlur(score, (0, 0), rng.uniform(0.4, 3))
    score -= score.min()
    score /= max(score.max(), 1e-9)
    if rng.random() < 0.5:
        score = np.round(score * (levels := rng.integers(1, 8))) / levels
    if rng.random() < 0.4:
        score *= rng.random(score.shape) < rng.uniform(0.2, 0.9)
    return score * rng.choice([1.0, rng.uniform(0.01, 1)])


def some_boxes(rng, shape):
    height, width = shape
    count = rng.integers(1, 4)
    x, y = (np.sort(rng.uniform(0, side, (count, 2)), axis=1) for side in (width, height))
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)


@pytest.mark.parametrize("contours", ["largest", "all"])
def test_hundreds_of_multi_component_maps_agree_at_every_threshold(contours):
    rng = np.random.default_rng(17)
    for number in range(400):
        score = several_blobs(rng)
        truth = some_boxes(rng, score.shape)
        want = oracle.iou_curve(score, truth, thresholds=120, contours=contours)
        got = maxbox.iou_curves(score[None], [truth], thresholds=120, contours=contours, threads=1)[0]
        np.testing.assert_array_equal(got, want, err_msg=f"map {number}")


def test_the_largest_contour_is_opencvs_on_equal_areas_too():
    # Small maps of few levels: most cuts hold several contours of one area.
    rng = np.random.default_rng(3)
    for number in range(1500):
        score = rng.integers(0, 5, rng.integers(1, 11, 2)) / 4
        want = np.concatenate(oracle.contour_boxes(score, thresholds=8))
        np.testing.assert_array_equal(maxbox.largest_boxes(score, thresholds=8), want, err_msg=f"map {number}")


@pytest.mark.parametrize("shape", [(224, 180), (33, 290), (129, 100)])  # strips of each width, whole and not
def test_large_maps_agree_too(shape):
    rng = np.random.default_rng(5)
    for sigma in (0.0, 1.0, 6.0, 25.0):
        score = rng.random(shape)
        score = cv2.GaussianBlur(score, (0, 0), sigma) if sigma else score
        score = (score - score.min()) / np.ptp(score)
        truth = some_boxes(rng, score.shape)
        for contours in ("largest", "all"):
            want = oracle.iou_curve(score, truth, thresholds=100, contours=contours)
            got = maxbox.iou_curves(score[None], [truth], thresholds=100, contours=contours)[0]
            np.testing.assert_array_equal(got, want)


DIAGONAL = np.eye(6)
RING = np.pad(np.pad(np.zeros((2, 3)), 1, constant_values=1.0), 1)
NESTED = np.pad(np.pad(RING, 1), 1, constant_values=1.0)
TOUCHING_HOLES = 1.0 - np.pad(np.eye(3), 2)
LEAK = RING.copy()
LEAK[1, 2] = 0.5  # the ring closes only at the lower cuts


@settings(max_examples=150, deadline=None)
@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        elements=st.sampled_from([0, 1, 2, 3, 128, 254, 255]),
    ).map(lambda levels: levels / 255),
    st.sampled_from(["largest", "all"]),
)
@example(DIAGONAL, "all")
@example(RING, "all")
@example(NESTED, "largest")
@example(NESTED, "all")
@example(TOUCHING_HOLES, "all")
@example(LEAK, "all")
@example(np.zeros((5, 7)), "largest")
@example(np.ones((5, 7)), "all")
@example(np.full((1, 1), 0.004), "largest")
def test_plateaus_holes_diagonals_single_pixels_and_borders(score, contours):
    height, width = score.shape
    truth = [[0, 0, width - 1, height - 1], [width // 3, height // 3, width // 2, height // 2]]
    for box in truth:
        want = oracle.iou_curve(score, [box], thresholds=60, contours=contours)
        got = maxbox.iou_curves(score[None], [[box]], thresholds=60, contours=contours, threads=1)[0]
        np.testing.assert_array_equal(got, want)


def golden(shared, name):
    """Maps in the evaluator's frame and truncated boxes of the 195 images that the reference scores."""
    packed = np.load(shared / "data/golden/ilsvrc_val_maps.npz")
    raw = packed["cam"][::4] if name == "cam" else packed["attn"].mean(axis=1)[::4]
    folder = shared / "data/ilsvrc_val_acuity"
    sizes = {}
    for line in (folder / "image_sizes.txt").read_text().split():
        image, width, height = line.split(",")
        sizes[image] = (int(width), int(height))
    boxes = {}
    for line in (folder / "localization.txt").read_text().split():
        image, *edges = line.split(",")
        boxes.setdefault(image, []).append([float(edge) for edge in edges])
    ids = [str(image) for image in packed["ids"][::4]]
    truth = [metrics.standard_boxes(boxes[image], sizes[image]) for image in ids]
    scores = json.loads((shared / "data/golden/ilsvrc_val_scores.json").read_text())[name]
    return raw, metrics.standard_maps(raw), truth, scores


@pytest.mark.parametrize("name", ["cam", "attn_mean"])
def test_golden_counts_equal_the_standard_evaluator_at_all_thresholds(shared, name):
    # Source: shared/data/golden/README.md, made with wsolevaluation itself.
    _, maps, truth, scores = golden(shared, name)
    single = metrics.maxbox_counts(maps, truth)
    np.testing.assert_array_equal(single[0], scores["MaxBoxAcc_counts"]["50"])
    assert 100 * single.max() / len(truth) == pytest.approx(scores["MaxBoxAcc"][0])
    levels = sorted(scores["MaxBoxAccV2_counts"])
    every = metrics.maxbox_counts(maps, truth, contours="all", ious=[int(level) / 100 for level in levels])
    for row, level in zip(every, levels, strict=True):
        np.testing.assert_array_equal(row, scores["MaxBoxAccV2_counts"][level])


@pytest.mark.parametrize("name", ["cam", "attn_mean"])
def test_bicubic_resize_needs_no_opencv_and_equals_it(shared, name):
    raw, maps, _, _ = golden(shared, name)
    for source, ours in zip(raw, maps, strict=True):
        theirs = cv2.resize(source, (224, 224), interpolation=cv2.INTER_CUBIC)
        theirs = ((theirs - theirs.min()) / (theirs.max() - theirs.min())).astype(np.float64)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        # The last bit decides only for values that lie on a level's edge.
        assert ((ours * 255).astype(np.uint8) != (theirs * 255).astype(np.uint8)).sum() <= 5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 7), (14, 9), (56, 40), (300, 260), (1, 5)])
def test_resize_equals_opencv_for_both_types_up_and_down(shape, dtype):
    score = np.random.default_rng(1).random(shape).astype(dtype)
    want = cv2.resize(score, (113, 224), interpolation=cv2.INTER_CUBIC)
    got = metrics.resize_maps(score, (224, 113))
    assert got.dtype == dtype
    # In float32 OpenCV also places its taps in float32, differently in each build; in float64 only weights round.
    np.testing.assert_allclose(got, want, atol=2e-7 if dtype == np.float64 else 4e-5)


def test_threads_and_chunks_change_nothing():
    rng = np.random.default_rng(2)
    maps = rng.random((150, 20, 20))
    truth = [some_boxes(rng, (20, 20)) for _ in maps]
    one = metrics.maxbox_counts(maps, truth, thresholds=50, threads=1)
    np.testing.assert_array_equal(metrics.maxbox_counts(maps, truth, thresholds=50, threads=4), one)


def test_clean_convention_keeps_float_values_apart_and_boxes_half_open():
    score = np.zeros((20, 30))
    score[5:15, 10:25] = 0.5001
    score[8:9, 12:14] = 0.5003  # one 8-bit level, two float values
    score[0, 0] = 1.0
    boxes = maxbox.largest_boxes(score, thresholds=10_000, convention=maxbox.CLEAN)
    np.testing.assert_array_equal(boxes[5000], [10, 5, 25, 15])
    np.testing.assert_array_equal(boxes[5002], [12, 8, 14, 9])
    curve = maxbox.iou_curves(score[None], [[[10, 5, 25, 15]]], thresholds=10_000, convention=maxbox.CLEAN)[0]
    assert curve[4000] == 1.0
    np.testing.assert_array_equal(maxbox.largest_box(score, 0.4, convention=maxbox.CLEAN), [10, 5, 25, 15])


def test_clean_convention_equals_labelled_regions_at_every_threshold():
    rng = np.random.default_rng(11)
    for _ in range(60):
        score = several_blobs(rng)
        truth = some_boxes(rng, score.shape)
        got = maxbox.iou_curves(
            score[None], [truth], thresholds=300, contours="all", convention=maxbox.CLEAN, threads=1
        )[0]
        for place, tau in enumerate(maxbox.taus(300)):
            _, _, stats, _ = cv2.connectedComponentsWithStats((score > tau * score.max()).astype(np.uint8))
            x, y, wide, high = stats[1:, :4].T
            boxes = np.stack([x, y, x + wide, y + high], axis=1)
            assert got[place] == pytest.approx(metrics.best_iou(boxes, truth))


def test_box_at_a_threshold_is_the_one_of_the_curve():
    score = several_blobs(np.random.default_rng(8))
    boxes = maxbox.largest_boxes(score, thresholds=100)
    np.testing.assert_array_equal(maxbox.largest_box(score, 0.37), boxes[37])


@pytest.mark.parametrize(
    ("maps", "boxes", "words"),
    [
        (np.full((1, 4, 4), np.nan), [[]], "map 0 holds NaN"),
        (np.full((1, 4, 4), 1.5), [[]], r"map 0 leaves \[0, 1\]"),
        (np.full((1, 4, 4), -0.1), [[]], r"leaves \[0, 1\]"),
        (np.zeros((4, 4)), [[]], r"shape \[N, H, W\]"),
        (np.zeros((2, 4, 4)), [[]], "2 maps but 1 sets of boxes"),
        (np.zeros((1, 0, 4)), [[]], r"shape \[H, W\]"),
    ],
)
def test_bad_maps_are_named(maps, boxes, words):
    with pytest.raises(DataError, match=words):
        metrics.maxbox_counts(maps, boxes)


def test_unknown_contours_are_refused():
    with pytest.raises(ConfigError, match="largest"):
        metrics.maxbox_counts(np.zeros((1, 4, 4)), [[]], contours="biggest")


def test_image_without_boxes_is_never_correct_and_not_dropped():
    assert metrics.maxbox_counts(np.ones((1, 4, 4)), [[]], ious=(0.3, 0.5)).sum() == 0
    assert metrics.maxbox_counts(np.ones((0, 4, 4)), []).shape == (1, 1000)
