"""The stage ``val_masks`` on maps small enough to see."""

from __future__ import annotations

import numpy as np
import pytest

from stages.drawn import draw
from wsolpipe.contract.errors import ConfigError
from wsolpipe.contract.schema import Status
from wsolpipe.stages.base import Context, Upstream
from wsolpipe.stages.registry import load_registry
from wsolpipe.stages.val_masks import ValMasks


def stage(*, objectless=(), **params):
    chosen = load_registry().params("val_masks", {"size": 28} | params)
    return ValMasks(chosen, Context(dataset="drawn", objectless=frozenset(objectless)))


@pytest.fixture
def cams():
    maps = np.zeros((5, 1, 14, 14), np.uint8)
    maps[:, 0, 2:8, 3:9] = 240
    maps[:, 0, 11:13, 11:13] = 200
    maps[1] = 7
    status = np.array([1, 1, 1, 2, 1], np.uint8)
    return {"cams": Upstream({"maps": maps}, status, {})}


def test_masks_are_the_foreground_of_the_map_or_its_largest_region(cams):
    rows, made = draw(5).rows(), stage()
    arrays = made.process(rows, cams)
    assert arrays["masks"].shape == (5, 28, 28)
    assert arrays["masks"][0, 5:15, 7:17].all()
    assert arrays["masks"][0, 23:25, 23:25].all()
    assert arrays["masks"][0, 18:21].sum() == 0
    assert arrays["share"][0] == pytest.approx(arrays["masks"][0].mean())
    largest = stage(region="largest").process(draw(5).rows(), cams)["masks"][0]
    assert largest[5:15, 7:17].all()
    assert largest[18:].sum() == 0
    high = stage(tau=0.9).process(draw(5).rows(), cams)["masks"][0]
    assert 0 < high.sum() < arrays["masks"][0].sum()
    assert high[18:].sum() == 0


def test_a_map_without_contrast_is_an_empty_mask_and_counted(cams):
    rows, made = draw(5).rows(), stage()
    arrays = made.process(rows, cams)
    assert arrays["masks"][1].sum() == 0
    assert made.summary(arrays, rows) == {"empty_masks": 1}


def test_objectless_rows_and_rows_without_a_map_are_marked(cams):
    rows = draw(5).rows()
    stage(objectless=[2]).process(rows, cams)
    assert rows.status.tolist() == [Status.OK, Status.OK, Status.NO_OBJECT, Status.QUARANTINED, Status.OK]
    with pytest.raises(ConfigError, match="slots 0 … 0"):
        stage(map=1).process(draw(5).rows(), cams)
