"""SCM: blocks as in the released code on the same random numbers, dropped in prediction; keys of its checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trained import settings
from transformer_oracles import NAME, SIZE, VIT, calibrated, made, spread, ts_cam, unit
from wsolpipe.contract.errors import ConfigError
from wsoltrain.inference.model import load_trained
from wsoltrain.methods.ts_cam import Calibration, newton_schulz, unit_attention
from wsoltrain.networks.token_maps import read_token_maps
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe


@pytest.mark.parametrize(("rate", "threshold", "steps"), [(1.0, 0.5, 4), (1.0, 0.5, 16), (0.7, 0.4, 4), (1.3, 0.8, 2)])
def test_block_equals_a_plain_formula(rate, threshold, steps):
    torch.manual_seed(steps)
    maps, attention = torch.randn(3, 7, 5, 5, dtype=torch.float64), torch.rand(3, 5, 5, dtype=torch.float64)
    attention = torch.stack([unit(each) for each in attention])
    block = Calibration((5, 5), steps).double()
    with torch.no_grad():
        block.fuse._loss_rate.fill_(rate)
        block.thred.fill_(threshold)
        classes, made_attention = block(maps, attention)
    for row in range(3):
        scores, expected = calibrated(maps[row].numpy(), attention[row].numpy(), [(rate, threshold, steps)])
        np.testing.assert_allclose(classes[row].mean((1, 2)), scores, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(made_attention[row], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("steps", [4, 16])
def test_iteration_is_the_filter_of_singular_values_and_not_an_inverse(steps):
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    values = torch.tensor([12.0, 6.0, 3.0, 1.0, 0.1, 0.0], dtype=torch.float64)
    made_of = newton_schulz((left @ values.diag() @ right.T)[None], steps)[0]
    filtered = [(1 - (1 - 0.002 * value**2) ** (2**steps)) / value if value else 0.0 for value in values.tolist()]
    expected = right @ torch.tensor(filtered, dtype=torch.float64).diag() @ left.T
    torch.testing.assert_close(made_of, expected, rtol=1e-9, atol=1e-9)
    near_inverse = [abs(value * by - 1) < 0.05 for value, by in zip(values.tolist(), filtered, strict=True)]
    assert near_inverse == ([True, False] if steps == 4 else [True, True]) + [steps == 16] * 2 + [False] * 2


def test_training_scores_go_through_all_blocks_and_prediction_through_none():
    model = made("scm").eval()
    state = spread(model.net, 1.5).state_dict()
    blocks = [(state[f"layers.{n}.fuse._loss_rate"].item(), state[f"layers.{n}.thred"].item()) for n in range(4)]
    blocks = [(*block, steps) for block, steps in zip(blocks, (16, 4, 4, 4), strict=True)]
    images, labels = torch.randn(3, 3, SIZE, SIZE), torch.tensor([4, 0, 2])
    plain, maps, attention = ts_cam(state, images)
    scores = model.train_scores(images).detach()
    for row in range(3):
        expected, _ = calibrated(maps[row].double().numpy(), attention[row].double().numpy(), blocks)
        np.testing.assert_allclose(scores[row], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(scores, plain, rtol=0.01)
    found = model.predict(images, labels)
    torch.testing.assert_close(found.scores, plain, rtol=1e-5, atol=1e-5)
    expected = torch.stack([maps[row, label] * unit(attention[row]) for row, label in enumerate(labels)])
    torch.testing.assert_close(found.maps, expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_blocks_transformer_and_attention():
    model = made("scm").train()
    images = torch.randn(2, 3, SIZE, SIZE)
    loss = model.losses({"image": images, "label": torch.tensor([1, 3])}, "train", 0).parts["classes"]
    loss.backward()
    for name, value in model.net.named_parameters():
        if "blocks.3" in name and ("attn.proj" in name or "mlp" in name or "norm2" in name):
            continue  # of the last block only the patches are read, which these do reach
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
    assert all(layer.fuse._loss_rate.grad.abs() > 0 for layer in model.net.layers)
    assert unit_attention(read_token_maps(model.net, images, attention=True)).requires_grad


def test_keys_are_those_of_published_checkpoints_and_load(tmp_path):
    published = spread(made("scm").net).state_dict()
    more = {f"layers.{n}.{name}" for n in range(4) for name in ("fuse._loss_rate", "thred")}
    assert published.keys() == made("ts_cam").net.state_dict().keys() | more
    assert all(published[name].shape == (1,) for name in more)
    torch.save({"state_dict": published}, tmp_path / "scm.pth.tar")
    loaded = made("scm", weights=str(tmp_path / "scm.pth.tar")).net.state_dict()
    assert all(torch.equal(value, published[name]) for name, value in loaded.items())


def test_training_may_begin_with_a_checkpoint_of_ts_cam(tmp_path):
    published = spread(made("ts_cam").net).state_dict()
    torch.save(published, tmp_path / "ts_cam.pth")
    loaded = made("scm", weights=str(tmp_path / "ts_cam.pth")).net
    assert torch.equal(loaded.head.weight, published["head.weight"])
    assert loaded.layers[0].thred.item() == 0.5


def test_grids_that_are_not_square_and_blocks_without_steps_are_refused():
    with pytest.raises(ConfigError, match="a grid of 4 x 8 patches, and SCM needs a square one"):
        made("scm", model_args={**VIT, "patch_size": [8, 4]})
    with pytest.raises(ConfigError, match="iterations.1: must be at least 1"):
        load_recipe("scm", dataset="demo", changes={"iterations": [16, 0]})


def test_training_goes_through_the_recipe(trainable, tmp_path):
    keys = {"backbone": NAME, "model_args": VIT, "weights": None, "size": SIZE, "batch": 8, "epochs": 1}
    Trainer(load_recipe("scm", dataset="tiny", changes=keys), settings(trainable, tmp_path, maps=None), []).fit()
    found = load_trained(str(tmp_path), device=torch.device("cpu")).model.predict(torch.zeros(1, 3, SIZE, SIZE))
    assert found.maps.shape == (1, 4, 4)
