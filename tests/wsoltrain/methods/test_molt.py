"""MOLT: levels are TS-CAM at their sizes, averaged as in the paper; sizes that do not fit are refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate

from trained import settings
from transformer_oracles import NAME, VIT, made, spread, ts_cam, unit
from wsolpipe.contract.errors import ConfigError
from wsoltrain.inference.model import load_trained
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe

SIZES = (24, 32)


def levels_of(model, images):
    """Scores, class maps and attention of each level by the oracle of TS-CAM."""
    for net, size in zip(model.nets, SIZES, strict=True):
        seen = interpolate(images, (size, size), mode="bilinear", antialias=True) if size != 32 else images
        yield ts_cam(net.state_dict(), seen, size // 8)


@pytest.mark.parametrize("combine", ["mean", "max", "product"])
def test_scores_maps_and_loss_combine_levels_of_ts_cam(combine):
    model = made("molt", sizes=SIZES, combine=combine).eval()
    for net in model.nets:
        spread(net)
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([4, 0, -1])
    levels = list(levels_of(model, images))
    likelihood = sum(torch.softmax(scores, 1) for scores, _, _ in levels) / 2
    found = model.predict(images, labels)
    torch.testing.assert_close(found.scores.exp(), likelihood, rtol=1e-5, atol=1e-6)
    picked = [4, 0, int(likelihood[2].argmax())]
    for row, label in enumerate(picked):
        scaled = []
        for _, maps, attention in levels:
            own = (maps[row, label] * attention[row])[None, None]
            scaled.append(unit(interpolate(own, (4, 4), mode="bilinear", align_corners=False)[0, 0]))
        one, two = scaled
        expected = {"mean": (one + two) / 2, "max": torch.maximum(one, two), "product": one * two}[combine]
        torch.testing.assert_close(found.maps[row], expected, rtol=1e-5, atol=1e-5)
    labels = torch.tensor([4, 0, 2])
    parts = model.losses({"image": images, "label": labels}, "train", 0).parts
    expected = sum(cross_entropy(scores, labels) for scores, _, _ in levels) / 2
    torch.testing.assert_close(parts["classes"], expected, rtol=1e-5, atol=1e-5)


def test_a_single_level_is_ts_cam():
    model = made("molt", sizes=(32,)).eval()
    plain = made("ts_cam").eval()
    plain.net.load_state_dict(spread(model.nets[0]).state_dict())
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])
    torch.testing.assert_close(model.predict(images, labels).scaled(), plain.predict(images, labels).scaled())


def test_a_shared_transformer_resamples_its_positions_at_each_level():
    model = made("molt", sizes=SIZES, shared=True).eval()
    spread(model.nets[0])
    assert len(model.nets) == 1
    images = torch.randn(2, 3, 32, 32)
    state = model.nets[0].state_dict()
    grid = interpolate(
        state["pos_embed"][:, 1:].transpose(1, 2).unflatten(2, (3, 3)), (4, 4), mode="bicubic", antialias=True
    )
    finer = {**state, "pos_embed": torch.cat([state["pos_embed"][:, :1], grid.flatten(2).transpose(1, 2)], 1)}
    coarse = interpolate(images, (24, 24), mode="bilinear", antialias=True)
    likelihood = (ts_cam(state, coarse, 3)[0].softmax(1) + ts_cam(finer, images, 4)[0].softmax(1)) / 2
    torch.testing.assert_close(model.predict(images).scores.exp(), likelihood, rtol=1e-4, atol=1e-5)


def test_levels_have_weights_of_their_own_and_begin_with_those_of_the_file(tmp_path):
    published = spread(made("ts_cam", size=24).net).state_dict()
    torch.save({"model": published}, tmp_path / "ts_cam.pth")
    model = made("molt", sizes=SIZES, weights=str(tmp_path / "ts_cam.pth"))
    assert torch.equal(model.nets[0].pos_embed, published["pos_embed"])
    assert model.nets[1].pos_embed.shape == (1, 17, 24)
    assert all(torch.equal(net.head.weight, published["head.weight"]) for net in model.nets)
    (phase,) = model.phases()
    assert sum(value.numel() for value in phase.parameters) == sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize("shared", [True, False])
def test_sizes_that_do_not_fit_are_refused(shared):
    with pytest.raises(ConfigError, match="sizes=30 is not a multiple of the patch size 8"):
        made("molt", sizes=(24, 30), shared=shared)
    with pytest.raises(ConfigError, match=r"sizes=\[24, 40\] reaches beyond size=32"):
        made("molt", sizes=(24, 40), shared=shared)
    with pytest.raises(ConfigError, match="each level must be larger"):
        load_recipe("molt", dataset="demo", changes={"sizes": [96, 64]})


def test_training_goes_through_the_recipe(trainable, tmp_path):
    keys = {"backbone": NAME, "model_args": VIT, "weights": None, "size": 32, "sizes": SIZES, "batch": 8, "epochs": 1}
    Trainer(load_recipe("molt", dataset="tiny", changes=keys), settings(trainable, tmp_path, maps=None), []).fit()
    found = load_trained(str(tmp_path), device=torch.device("cpu")).model.predict(torch.zeros(1, 3, 32, 32))
    assert found.maps.shape == (1, 4, 4)
