"""The stage ``pixels``, driven directly."""

from __future__ import annotations

import numpy as np

from stages.drawn import draw
from wsolpipe.contract.schema import Status
from wsolpipe.images.geometry import resize
from wsolpipe.stages.base import Context
from wsolpipe.stages.pixels import Pixels
from wsolpipe.stages.registry import load_registry


def stage(size: int) -> Pixels:
    made = Pixels(load_registry().params("pixels", {"size": size}), Context(dataset="d"))
    made.setup()
    return made


def test_every_image_is_the_whole_picture_squashed():
    drawn = draw(40)
    made = stage(48).process(drawn.rows(), {})["rgb"]
    assert made.shape == (40, 3, 48, 48)
    for planes, image in zip(made, drawn.images, strict=True):
        assert np.array_equal(planes.transpose(1, 2, 0), resize(image, (48, 48)))


def test_a_broken_image_is_quarantined_and_leaves_its_neighbours_alone():
    drawn = draw(6)
    rows = drawn.rows(bad=(2,))
    made = stage(32).process(rows, {})["rgb"]
    assert rows.status[2] == Status.QUARANTINED
    assert not made[2].any()
    assert np.array_equal(np.delete(made, 2, 0), np.delete(stage(32).process(drawn.rows(), {})["rgb"], 2, 0))
