"""PxAP against its definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from wsolpipe import metrics
from wsolpipe.contract.errors import DataError
from wsolpipe.metrics.pixels import PixelEvaluation


def pxap_by_definition(scores, masks, ignore=None, *, thresholds=1000):
    """Every threshold counted on its own, no histogram: precision and recall of ``score >= edge``."""
    kept = np.ones(masks.shape, bool) if ignore is None else ~(ignore & ~masks)
    foreground, background = scores[masks & kept], scores[~masks & kept]
    edges = np.append(np.arange(0, 1, 1 / thresholds), 1.0)
    total, area, before = len(foreground), 0.0, None
    for edge in edges[::-1]:
        true, false = (foreground >= edge).sum(), (background >= edge).sum()
        recall = true / total
        if before is not None and true + false:
            area += (recall - before) * true / (true + false)
        before = recall
    # The evaluator's last bins, [1, 2) and [2, 3], make the step to recall at 1 the first one that counts.
    true, false = (foreground >= 1).sum(), (background >= 1).sum()
    return 100 * (area + (true / total * true / (true + false) if true + false else 0.0))


def ecssd(shared, count=40):
    folder = shared / "data/ecssd_masks"
    masks, scores = [], []
    rng = np.random.default_rng(0)
    for path in sorted((folder / "masks").iterdir())[:count]:
        mask = np.asarray(Image.open(path).convert("L").resize((224, 224), Image.Resampling.NEAREST)) > 127
        image = Image.open(next((folder / "images").glob(f"{path.stem}.*"))).convert("L").resize((224, 224))
        blurred = np.asarray(image, float) / 255 * 0.5 + mask * 0.3 + rng.random((224, 224)) * 0.2
        masks.append(mask)
        scores.append(metrics.minmax(blurred))
    return np.stack(scores), np.stack(masks)


def test_pxap_equals_the_definition_on_real_masks(shared):
    scores, masks = ecssd(shared)
    assert metrics.pxap(scores, masks) == pytest.approx(pxap_by_definition(scores, masks), abs=1e-9)


def test_ignored_pixels_count_for_nothing_unless_they_are_foreground(shared):
    scores, masks = ecssd(shared, count=10)
    ignore = np.random.default_rng(1).random(masks.shape) < 0.3
    want = pxap_by_definition(scores, masks, ignore)
    assert metrics.pxap(scores, masks, ignore) == pytest.approx(want, abs=1e-9)
    assert metrics.pxap(scores, masks, ignore) != metrics.pxap(scores, masks)


def test_perfect_map_gives_100_and_constant_map_the_foreground_share(shared):
    _, masks = ecssd(shared, count=10)
    assert metrics.pxap(masks.astype(float), masks) == pytest.approx(100)
    for value in (0.0, 0.37, 1.0):
        assert metrics.pxap(np.full(masks.shape, value), masks) == pytest.approx(100 * masks.mean())


@pytest.mark.parametrize("thresholds", [1, 7, 100, 1000])
def test_histograms_equal_numpys_bin_for_bin(thresholds):
    rng = np.random.default_rng(4)
    edges = np.append(np.arange(thresholds) * (1 / thresholds), [1.0, 2.0, 3.0])
    # Half of the scores lie exactly on an edge: there a rounded product would take the wrong bin.
    scores = np.where(rng.random((60, 60)) < 0.5, rng.choice(edges[:-2], (60, 60)), rng.random((60, 60)))
    mask = rng.random((60, 60)) < 0.4
    got = metrics.pixel_histograms(scores, mask, thresholds=thresholds)
    np.testing.assert_array_equal(got[0], np.histogram(scores[~mask], edges)[0])
    np.testing.assert_array_equal(got[1], np.histogram(scores[mask], edges)[0])
    narrow = scores.astype(np.float32)
    got = metrics.pixel_histograms(narrow, mask, thresholds=thresholds)
    np.testing.assert_array_equal(got[1], np.histogram(narrow[mask].astype(np.float64), edges)[0])


def test_one_worker_equals_many():
    rng = np.random.default_rng(6)
    scores, masks = rng.random((9, 16, 16)), rng.random((9, 16, 16)) < 0.3
    whole, parts = PixelEvaluation(), [PixelEvaluation() for _ in range(3)]
    for row, (score, mask) in enumerate(zip(scores, masks, strict=True)):
        whole.add(score, mask)
        parts[row % 3].add(score, mask)
    total = PixelEvaluation()
    for part in parts[::-1]:
        total.merge(part)
    assert total.result() == whole.result()
    assert whole.result()["PxAP"] == metrics.pxap(scores, masks)


def test_missing_maps_masks_and_objects_are_counted_not_dropped():
    evaluation = PixelEvaluation(thresholds=10)
    evaluation.add(np.full((4, 4), 0.9), None)
    evaluation.add(None, np.eye(4, dtype=bool))
    evaluation.add(np.full((4, 4), 0.25), np.zeros((4, 4), bool))
    result = evaluation.result(tau=0.2)
    assert (result["rows"], result["rows_scored"]) == (3, 2)
    assert (result["rows_without_mask"], result["rows_missing"], result["rows_objectless"]) == (1, 1, 1)
    assert result["pixel_iou"] == 0
    assert result["true_negative_rate"] == pytest.approx(12 / 28)
    assert PixelEvaluation().result()["PxAP"] is None


def test_pixel_iou_at_a_threshold_equals_counting():
    rng = np.random.default_rng(9)
    scores, mask = rng.random((30, 30)), rng.random((30, 30)) < 0.4
    evaluation = PixelEvaluation(thresholds=100)
    evaluation.add(scores, mask)
    kept = scores >= 0.3
    assert evaluation.result(tau=0.3)["pixel_iou"] == pytest.approx((kept & mask).sum() / (kept | mask).sum())
    best = max((((scores >= t) & mask).sum() / ((scores >= t) | mask).sum(), t) for t in np.arange(100) / 100)
    assert evaluation.result()["pixel_iou"] == pytest.approx(best[0])


@pytest.mark.parametrize(
    ("score", "mask", "words"),
    [
        (np.full((4, 4), np.nan), np.zeros((4, 4)), "NaN"),
        (np.full((4, 4), 1.01), np.zeros((4, 4)), r"leaves \[0, 1\]"),
        (np.zeros((4, 4)), np.zeros((4, 5)), "want the same"),
    ],
)
def test_bad_pixels_are_named(score, mask, words):
    with pytest.raises(DataError, match=words):
        metrics.pixel_histograms(score, mask)
    if mask.shape == score.shape:
        with pytest.raises(DataError, match=words):
            metrics.pxap(score[None], mask[None])


def test_shapes_of_stacks_must_agree():
    with pytest.raises(DataError, match="one shape"):
        metrics.pxap(np.zeros((2, 4, 4)), np.zeros((3, 4, 4)))
