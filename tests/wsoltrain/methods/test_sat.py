"""SAT: masked attention, map and losses as in the paper on the same random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm as normal

from trained import settings
from transformer_oracles import NAME, SIZE, VIT, made, sat, spread
from wsolpipe.contract.errors import ConfigError
from wsoltrain.inference.model import load_trained
from wsoltrain.methods.base import Task
from wsoltrain.methods.sat import blur_kernel
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe import recipe_type
from wsoltrain.training.recipe_file import load_recipe


def released_kernel():
    """Made by SciPy, as the released code describes it."""
    interval = (2 * 6 + 1.0) / 3
    side = np.sqrt(np.diff(normal.cdf(np.linspace(-6 - interval / 2, 6 + interval / 2, 4))))
    return np.outer(side, side) / np.outer(side, side).sum()


@pytest.mark.parametrize("masked", [3, 1])
def test_scores_and_map_are_those_of_the_paper_on_the_same_weights(masked):
    model = made("sat", masked_blocks=masked, stretched=False).eval()
    state = spread(model.net).state_dict()
    images = torch.randn(3, 3, SIZE, SIZE)
    scores, mask = sat(state, images, masked)
    found = model.predict(images, torch.tensor([0, 1, 2]))
    assert found.unit
    assert mask.std() > 0.003
    torch.testing.assert_close(found.scores, scores, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.maps, mask, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.predict(images).maps, found.maps)  # one map for all classes


def test_maps_are_scaled_before_thresholds_as_the_released_evaluator_does():
    model = made("sat").eval()
    found = model.predict(torch.randn(2, 3, SIZE, SIZE))
    assert not found.unit
    assert found.scaled().amin((1, 2)).tolist() == [0, 0]
    assert found.scaled().amax((1, 2)).tolist() == [1, 1]


def test_losses_equal_plain_formulas():
    model = made("sat", area=0.6, area_weight=2.0, contrast_weight=3.0)
    state = spread(model.net).state_dict()
    images, labels = torch.randn(4, 3, SIZE, SIZE), torch.tensor([0, 4, 2, 2])
    scores, mask = (value.detach().double().numpy() for value in sat(state, images))
    losses = model.losses({"image": images, "label": labels}, "train", 0)
    parts = {name: value.item() for name, value in losses.parts.items()}
    exponents = np.exp(scores - scores.max(1, keepdims=True))
    likelihood = exponents[range(4), labels.numpy()] / exponents.sum(1)
    assert parts["classes"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)
    assert parts["area"] == pytest.approx(2 * abs(mask.mean() - 0.6), rel=1e-5)
    blurred, padded, kernel = np.zeros_like(mask), np.pad(mask, ((0, 0), (1, 1), (1, 1))), released_kernel()
    for row in range(3):
        for column in range(3):
            blurred += kernel[row, column] * padded[:, row : row + 4, column : column + 4]
    assert parts["contrast"] == pytest.approx(3 * (blurred * (1 - blurred)).mean(), rel=1e-5)


def test_kernel_is_that_of_the_released_code():
    np.testing.assert_allclose(blur_kernel()[0, 0].numpy(), released_kernel(), atol=1e-7)


class Half:
    """One of two processes, whose share is known to hold the other half of a batch's mean area."""

    world = 2

    def __init__(self, other):
        self.other = other

    def sum(self, tensor):
        return tensor + self.other


def test_area_loss_of_two_processes_has_the_gradient_of_one():
    keys = {"method": "sat", "backbone": NAME, "weights": None, "size": SIZE, "model_args": VIT, "area": 0.5}
    recipe = recipe_type("sat").model_validate({**keys, "contrast_weight": 0.0})
    images, labels = torch.randn(4, 3, SIZE, SIZE), torch.tensor([0, 4, 2, 2])

    def gradients(model, rows):
        parts = model.losses({"image": images[rows], "label": labels[rows]}, "train", 0).parts
        return torch.autograd.grad(parts["area"], model.net.loc_token)[0]

    model = recipe.build(Task(5, SIZE)).eval()
    spread(model.net)
    halves = [slice(0, 2), slice(2, 4)]
    means = [sat(model.net.state_dict(), images[rows])[1].mean().detach() for rows in halves]
    whole, shares = gradients(model, slice(0, 4)), []
    for number, rows in enumerate(halves):
        model.task = Task(5, SIZE, processes=Half(means[1 - number]))
        shares.append(gradients(model, rows))
    torch.testing.assert_close(sum(shares) / 2, whole, rtol=1e-4, atol=1e-7)


def test_published_checkpoint_has_the_models_keys_and_loads(tmp_path):
    published = spread(made("sat").net).state_dict()
    assert {"loc_token", "loc_embed", "weight", "head.weight", "cls_token"} <= published.keys()
    assert published["weight"].shape == (1, 1, 3, 3)
    torch.save(
        {"model": {f"module.{name}": value for name, value in published.items()}, "best_thr": 0.4}, tmp_path / "a.pth"
    )
    loaded = made("sat", weights=str(tmp_path / "a.pth")).net.state_dict()
    assert all(torch.equal(value, published[name]) for name, value in loaded.items())


def test_vectors_are_not_decayed_and_all_is_trained_but_the_kernel():
    model = made("sat")
    (phase,) = model.phases()
    decayed, plain = phase.groups
    names = {id(value): name for name, value in model.net.named_parameters()}
    assert (decayed.weight_decay, plain.weight_decay) == (1.0, 0.0)
    assert all(name.endswith(".bias") or "norm" in name for name in (names[id(value)] for value in plain.parameters))
    assert {names[id(value)] for value in phase.parameters} == model.net.state_dict().keys() - {"weight"}


def test_more_masked_blocks_than_the_network_has_are_refused():
    with pytest.raises(ConfigError, match="masked_blocks=5: .* has 4 blocks"):
        made("sat", masked_blocks=5)


def test_training_goes_through_the_recipe(trainable, tmp_path):
    keys = {"backbone": NAME, "model_args": VIT, "weights": None, "size": SIZE, "batch": 8, "epochs": 1}
    Trainer(load_recipe("sat", dataset="tiny", changes=keys), settings(trainable, tmp_path, maps=None), []).fit()
    found = load_trained(str(tmp_path), device=torch.device("cpu")).model.predict(torch.zeros(1, 3, SIZE, SIZE))
    assert found.maps.shape == (1, 4, 4)
