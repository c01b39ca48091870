"""Errors by kind and histograms of values, against plain loops over the same maps."""

from __future__ import annotations

import numpy as np
import pytest

from wsolpipe.evaluate.figures import THRESHOLDS, ErrorDissection, FramedBatch, ValueHistograms
from wsolpipe.evaluate.map_sources import RowTable
from wsolpipe.evaluate.truth import Truth
from wsolpipe.metrics import largest_box, standard_boxes
from wsolpipe.metrics.localization import OUTCOMES, dissect

SIDE = 64


@pytest.fixture(scope="module")
def seen():
    """Twelve smooth maps, the boxes of their images, and predictions that are right for all but two."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    maps, found = [], {}
    for row in range(12):
        cx, cy, width = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.4)
        blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width**2)
        maps.append((blob - blob.min()) / (blob.max() - blob.min()))
        corners = rng.uniform(0, 0.5, (1 + row % 3, 2))
        found[row] = np.concatenate([corners, corners + rng.uniform(0.15, 0.45, corners.shape)], axis=1) * 100
    labels = np.arange(12) % 3
    predicted = labels[:, None].copy()
    predicted[[2, 7]] += 1
    sizes = np.full((12, 2), 100)
    rows = RowTable("val", [str(row) for row in range(12)], [[int(each)] for each in labels], sizes,
                    np.ones(12, int), frozenset(), np.zeros(12, bool))  # fmt: skip
    batch = FramedBatch(np.arange(12), maps, maps, labels, np.zeros(12, bool), predicted, {})
    return batch, Truth("gt", rows, found)


def test_errors_are_those_of_the_single_boxes(seen):
    batch, truth = seen
    scores = ErrorDissection()
    scores.add(batch, truth)
    for tau in (0.1, 0.3, 0.62, 0.9):
        outcomes = [
            dissect(
                largest_box(batch.framed[row], round(tau * THRESHOLDS) / THRESHOLDS),
                standard_boxes(truth.boxes(row), (100, 100), side=SIDE),
                class_right=bool(batch.predicted[row, 0] == batch.labels[row]),
            )
            for row in range(12)
        ]
        errors = scores.result(tau)["errors"]
        assert {name: errors[name] for name in OUTCOMES} == pytest.approx(
            {name: outcomes.count(name) / 12 for name in OUTCOMES}
        )
        assert (errors["LPE"], errors["LME"], errors["MIE"]) == (
            errors["part"], errors["more"], errors["multi-instance"],
        )  # fmt: skip
    best = scores.result(None)["errors"]
    assert best["right"] == max(scores.result(tau / 100)["errors"]["right"] for tau in range(100))
    assert best["wrong class"] == pytest.approx(2 / 12)
    assert ErrorDissection().result(None) == {"errors": None}


def test_part_and_more_are_judged_by_the_object_that_fits_best():
    # The box lies in a large object but fits a small one better, of which it holds the whole.
    large, small = [0, 0, 99, 99], [10, 10, 29, 24]
    box = [10, 10, 39, 49]
    assert dissect(box, [large, small]) == "multi-instance" or dissect(box, [large, small]) == "more"
    assert dissect([10, 10, 29, 49], [large]) == "part"


def test_values_are_counted_inside_and_outside_of_boxes(seen):
    batch, truth = seen
    found = ValueHistograms()
    found.add(batch, truth)
    shares = found.result(None)
    inside, outside = np.zeros(10), np.zeros(10)
    for row in range(12):
        for (v, u), value in np.ndenumerate(batch.framed[row]):
            x, y = (u + 0.5) * 100 / SIDE, (v + 0.5) * 100 / SIDE
            within = any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in truth.boxes(row))
            (inside if within else outside)[min(int(value * 10), 9)] += 1
    assert shares["values_inside"] == pytest.approx(inside / inside.sum(), abs=0.02)
    assert shares["values_outside"] == pytest.approx(outside / outside.sum(), abs=0.02)
    assert ValueHistograms().result(None) == {"values_inside": None, "values_outside": None}
