"""Frames of video: a few of each group an epoch, the maps of a frame's neighbours, and the CRF over all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stores import build_store
from trained import SMALL, settings, tensors
from wsolpipe.contract.errors import ConfigError
from wsolpipe.images.index import beside
from wsoltrain.data.config import ItemConfig, Labelling
from wsoltrain.data.order import Neighbours, draw_frames
from wsoltrain.data.stream import Stream
from wsoltrain.losses.crf import crf_loss
from wsoltrain.losses.terms import joint_crf
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.tracker import JsonLines

GROUPS = [name for name in "abcdefgh" for _ in range(5)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    built = build_store(folder, rows=40, groups=GROUPS, sizes=(30, 50))
    build_store(folder, rows=40, groups=GROUPS, sizes=(30, 50), split="val")
    return built


def test_a_few_frames_of_each_group_are_drawn_without_repeats():
    rows = np.arange(100, 140)
    groups = np.repeat(np.arange(8), 5)
    groups[:2] = -1
    drawn = [draw_frames(rows, groups, seed=1, epoch=epoch, count=3) for epoch in range(200)]
    for found in drawn:
        assert len(np.unique(found)) == len(found) == 2 + 3 + 7 * 3
    counts = np.bincount(np.concatenate(drawn) - 100, minlength=40)
    assert (counts[:2] == 200).all()
    assert (counts[:5][2:] == 200).all()  # a group of three is taken whole
    assert np.abs(counts[5:] / 200 - 3 / 5).max() < 0.15
    one = draw_frames(rows, groups, seed=1, epoch=0)
    assert len(one) == 2 + 8


def test_neighbours_are_of_the_same_group_in_the_order_of_frames():
    groups = np.array([0, 1, 0, 0, -1, 1])
    frames = np.array([2, 0, 0, 1, -1, 1])
    found = beside(groups, frames, 1, 1)
    assert found.tolist() == [[3, -1], [-1, 5], [-1, 3], [2, 0], [-1, -1], [1, -1]]
    assert beside(groups, frames, 2, 0).tolist()[0] == [2, 3]


def items(store, **more):
    labelling = Labelling(store.url, "tiny", "train", boxes=None)
    config = ItemConfig(labelling, root=store.root, size=32, resize=36, classes=5, **more)
    stream = Stream(config, batch_size=None)
    return {int(item["row"]): item for item in stream}


def test_maps_of_a_window_are_the_greatest_at_each_place(clips):
    found = items(clips, neighbours=Neighbours(before=1, after=1, heat=2.0))
    maps = clips.maps.astype(np.float32) / 255
    for row in (0, 2, 4):
        near = maps[max(row - 1, 0) : min(row + 2, 5)].max(0)
        warm = np.exp(2.0 * (near + 1e-6))
        warm /= warm.max((1, 2), keepdims=True)
        np.testing.assert_allclose(found[row]["maps"].numpy(), warm, rtol=1e-5)
    plain = items(clips)
    np.testing.assert_allclose(plain[2]["maps"].numpy(), maps[2], rtol=1e-6)


def test_pixels_of_a_window_are_in_the_crop_of_the_frame(clips):
    found = items(clips, neighbours=Neighbours(before=1, images=True))
    plain = items(clips)
    assert found[5]["beside"].tolist() == [False]
    assert found[6]["beside"].tolist() == [True]
    assert found[6]["rgb_beside"].shape == (1, 3, 32, 32)
    assert torch.equal(found[6]["rgb"], plain[6]["rgb"])
    assert torch.equal(found[6]["window"], plain[6]["window"])


def test_the_joint_energy_is_that_of_frames_side_by_side():
    rng = torch.Generator().manual_seed(0)
    prob = torch.rand(2, 2, 1, 8, 8, generator=rng)
    prob = torch.cat([prob, 1 - prob], 2)
    image = torch.randint(0, 255, (2, 2, 3, 8, 8), generator=rng)
    there = torch.tensor([[True, True], [True, False]])
    found = joint_crf(prob, image, there, sigma_rgb=40.0, scale=1.0)
    wide = [torch.cat([each[0, 0], each[0, 1]], -1)[None] for each in (prob, image)]
    flat = wide[1][0].flatten(1).double().T
    kernel = torch.exp(-(torch.cdist(flat, flat) ** 2) / (2 * 40.0**2))
    own = wide[0][0].flatten(1).double()
    exact = sum((side @ kernel @ (1 - side)) for side in own)
    alone = crf_loss(prob[1, :1], image[1, :1], sigma_rgb=40.0, sigma_xy=float("inf"), normalisation="reference")
    assert 2 * float(found) == pytest.approx(0.55 * float(exact) + float(alone), rel=0.05)


def test_a_window_trains_and_its_keys_are_refused_without_it(clips, tmp_path):
    changes = {
        **SMALL, "epochs": 1, "window": "both", "heat": 3.0, "joint_crf_weight": 1e-6, "frames_per_group": 3, "seed": 3,
        "maps": "cls_maps", "boxes": "proposals",
    }  # fmt: skip
    recipe = load_recipe("dips", dataset="tiny", changes=changes)
    out = tmp_path / "run"
    Trainer(recipe, settings(clips, out), [JsonLines(out / "metrics.jsonl")]).fit()
    told = (out / "metrics.jsonl").read_text()
    assert "joint_crf" in told
    assert all(torch.isfinite(value.float()).all() for value in tensors(out / "last.safetensors").values())
    with pytest.raises(ConfigError, match="window=none"):
        load_recipe("dips", dataset="tiny", changes={**SMALL, "heat": 3.0})


def test_recipes_of_both_video_sets_are_whole():
    for dataset in ("ytov1", "ytov22"):
        assert load_recipe("trcam", dataset=dataset, changes={}).maps == "clip_cams"
        tcam = load_recipe("tcam", dataset=dataset, changes={})
        assert (tcam.window, tcam.window_frames, tcam.one_per_group) == ("both", 1, True)
