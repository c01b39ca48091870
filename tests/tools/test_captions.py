"""What the demo's CLIP is trained on: captions that are true, views that show what they say, and the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import train_demo_clip as trainer
from captioned_views import draw_pool, draw_view
from captions import Truth, fits, where, write_caption
from render import CLASSES


def test_caption_says_only_what_is_true_of_its_view_and_not_of_others() -> None:
    rng = np.random.default_rng(0)
    fish = Truth(("fish",), ("fog", "tiles"), ("large", "on the left"))
    others = [Truth(("car",), ("fog", "tiles"), fish.extras), Truth((), fish.kinds)]
    captions = [write_caption(rng, fish) for _ in range(60)]
    matrix = fits([fish, *others], captions)
    assert matrix[0].all()
    assert not matrix[1:].any()
    for caption in captions:
        assert "fish" in caption.text
        for statement in caption.says:
            assert statement[0] == "on" or statement[0] in caption.text
    empty = [write_caption(rng, others[1]) for _ in range(20)]
    assert fits([others[1]], empty).all()
    assert not any(name in caption.text for caption in empty for name in CLASSES)


def test_places_and_sizes_are_those_of_the_box() -> None:
    assert where((0, 0, 20, 20), 96) == ("small", "on the left", "at the top")
    assert where((8, 8, 90, 90), 96) == ("large",)
    assert where((60, 40, 90, 60), 96) == ("small", "on the right")


def test_views_show_what_their_truth_says_and_patches_get_the_class_where_it_is() -> None:
    pool, rng = draw_pool(5, 0, 8), np.random.default_rng(1)
    views = [draw_view(rng, pool, wide) for wide in (0.0, 1.0) for _ in range(20)]
    targets = trainer.patch_targets(views, None).numpy().reshape(len(views), 12, 12)
    for view, shown in zip(views, targets, strict=True):
        shares = view.cover.reshape(12, 8, 12, 8).mean(axis=(1, 3)) / 255
        label = CLASSES.index(view.truth.names[0]) if len(view.truth.names) == 1 else -1
        assert (shown[shares > 0.51] == label).all()
        assert (shown[shares < 0.01] == trainer.NOTHING).all()
        assert bool(view.truth.names) == bool((view.cover > 127).any())
        window = trainer.draw_window(rng, view.cover)
        assert len(np.unique(window)) == trainer.WINDOW**2
        assert 0 <= window.min() <= window.max() < 144


def test_loss_is_least_where_texts_and_images_agree() -> None:
    fitting = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    right = trainer.loss_of(torch.where(fitting, 20.0, -20.0), fitting)
    floor = float(np.log(2) * 2 / 3)  # two of three rows and columns have two answers
    assert float(right) == pytest.approx(floor, abs=1e-4)
    assert float(trainer.loss_of(torch.zeros(3, 3), fitting)) == pytest.approx(float(np.log(3)), abs=1e-4)
