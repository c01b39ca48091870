"""ACoL, SPG, NL-CCAM and CAM's poolings beside plain formulas, and one epoch of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from small_cnns import CLASSES, batch, made, train_and_load
from wsolpipe.contract.errors import ConfigError
from wsolpipe.ops import cam as stage_maps
from wsoltrain.methods.base import Processes
from wsoltrain.methods.branches import IGNORED, erase, sure_mask, taught_loss
from wsoltrain.methods.cam import PoolKeys, class_shares, pool_maps, rank_weights

GUIDED = {"guided_parts": ["layer3.0", "layer4.0"], "guide_width": 8}


def _unit(value):
    return (value - value.min()) / (value.max() - value.min())


def _cross_entropy(scores, labels):
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return -logs[np.arange(len(labels)), labels].mean()


def test_acol_erases_from_the_threshold_on():
    features, maps = torch.randn(3, 4, 6, 7), torch.randn(3, 6, 7)
    found = erase(features, maps, 0.6).numpy()
    for number in range(3):
        kept = _unit(maps[number].numpy()) < 0.6
        np.testing.assert_array_equal(found[number], features[number].numpy() * kept)


def test_acol_sums_both_cross_entropies_and_shows_the_larger_map():
    model, given = made("acol", branch_width=8, erase_from=0.5).eval(), batch(3)
    with torch.no_grad():
        parts = model.losses(given, "train", 0).parts
        found = model.predict(given["image"], given["label"])
        features = model.net.forward_features(given["image"])
        first = model.classifier_A(features).numpy()
        labels = given["label"].numpy()
        kept = np.stack([_unit(first[n, labels[n]]) < 0.5 for n in range(3)])
        second = model.classifier_B(features * torch.tensor(kept)[:, None]).numpy()
    assert parts["classes"].item() == pytest.approx(_cross_entropy(first.mean((2, 3)), labels), rel=1e-5)
    assert parts["erased"].item() == pytest.approx(_cross_entropy(second.mean((2, 3)), labels), rel=1e-5)
    for number, label in enumerate(labels):
        expected = np.maximum(_unit(first[number, label]), _unit(second[number, label]))
        np.testing.assert_allclose(found.maps[number].numpy(), expected, atol=1e-5)


def test_acol_lets_no_gradient_through_what_is_erased():
    features, maps = torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4, requires_grad=True)
    erase(features.requires_grad_(), maps, 0.5).sum().backward()
    assert maps.grad is None
    assert features.grad is not None


def spg_oracle(maps, high, low):
    """The released rule, pixel by pixel."""
    found = np.full(maps.shape, IGNORED, np.float32)
    for number, each in enumerate(maps):
        sure = each > np.float32(high)
        if sure.sum() < 30:
            sure = each > each.max() * np.float32(0.7)
        found[number][sure] = 1
        found[number][each < np.float32(low)] = 0
    return found


def test_spg_masks_are_those_of_the_rule_with_few_and_many_sure_pixels():
    maps = torch.rand(6, 16, 16, generator=torch.Generator().manual_seed(0))
    maps[3:] *= torch.tensor([0.5, 0.1, 0.0])[:, None, None]
    for pair in ((0.7, 0.01), (0.5, 0.05), (0.95, 0.4)):
        np.testing.assert_array_equal(sure_mask(maps, pair).numpy(), spg_oracle(maps.numpy(), *pair))


def test_spg_losses_are_the_four_of_the_formula():
    """Masks, resizing and cross-entropies written down again in numpy, on the same random weights."""
    model, given = made("spg", **GUIDED).eval(), batch(3)
    with torch.no_grad():
        parts = model.losses(given, "train", 0).parts
        first, second, last = model._features(given["image"])
        guides = [model.SPG_B_shared(model.SPG_B_1a(first)), model.SPG_B_shared(model.SPG_B_2a(second))]
        maps, guide_c = model.SPG_A4(last), model.SPG_C(last)
    labels = given["label"].numpy()
    b1, b2, c = (_stretch(each[:, 0].double().numpy(), 64) for each in (*guides, guide_c))
    own = _stretch(maps.double().numpy()[np.arange(3), labels], 64)
    attention = np.stack([_unit(each) for each in own])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def entropy(logits, target):
        mask = spg_oracle(*target)
        on, prob = mask != IGNORED, sigmoid(logits)
        return -(mask * np.log(prob) + (1 - mask) * np.log(1 - prob))[on].mean()

    expected = {
        "classes": _cross_entropy(maps.double().numpy().mean((2, 3)), labels),
        "b2": entropy(b2, (attention, 0.7, 0.01)),
        "b1": entropy(b1, (sigmoid(b2), 0.5, 0.05)),
        "c": entropy(c, ((sigmoid(b1) + sigmoid(b2)) / 2, 0.7, 0.1)),
    }
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value, rel=1e-4), name


def _stretch(maps, size):
    """Bilinear resizing [B, h, w] -> [B, size, size] with half-pixel centres, in numpy."""
    side = maps.shape[1]
    at = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
    low = np.floor(at).astype(int)
    high, share = np.minimum(low + 1, side - 1), at - low
    rows = maps[:, low] * (1 - share)[None, :, None] + maps[:, high] * share[None, :, None]
    return rows[:, :, low] * (1 - share) + rows[:, :, high] * share


def test_spg_loss_without_a_sure_pixel_is_zero():
    logits = torch.randn(2, 4, 4, requires_grad=True)
    loss = taught_loss(logits, torch.full((2, 4, 4), IGNORED), Processes())
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_spg_drops_last_features_of_inception_before_all_that_reads_them():
    given = {"guided_parts": ["last_pool", "Mixed_6e"], "guide_width": 4, "size": 80, "unstrided": 0, "fast": ["SPG_"]}
    model = made("spg", backbone="inception_v3_spg", args={}, **given)
    seen = []
    handles = [
        part.register_forward_hook(lambda _part, given, _made: seen.append(given[0]))
        for part in (model.SPG_A4, model.SPG_C)
    ]
    model.losses(batch(2, 80), "train", 0)
    for handle in handles:
        handle.remove()
    assert len(seen) == 2
    assert torch.equal(*seen)
    kept = (seen[0] != 0).float().mean()
    model.eval()
    with torch.no_grad():
        whole = (model._features(batch(2, 80)["image"])[2] != 0).float().mean()
    assert kept < 0.8 * whole


@pytest.mark.parametrize("combination", ["quadratic", "linear"])
@pytest.mark.parametrize("count", [2, 5, 200])
def test_nl_ccam_is_the_map_of_the_stage(combination, count):
    """The stage ``cams`` computes the same map of a finished classifier."""
    generator = torch.Generator().manual_seed(0)
    features, weight, logits = (torch.randn(*s, generator=generator) for s in ((4, 6, 3, 3), (count, 6), (4, count)))
    classes = torch.tensor([0, 1, count - 1, 0])
    expected = stage_maps.nl_ccam(features, weight, logits, classes[:, None], combination)[:, 0]
    shares = class_shares(logits, classes, combination)
    torch.testing.assert_close(torch.einsum("bc,bchw->bhw", shares @ weight, features), expected)
    torch.testing.assert_close(rank_weights(count, combination), stage_maps.rank_weights(count, combination))


@pytest.mark.parametrize("label_first", [False, True])
def test_nl_ccam_on_its_network_combines_all_maps_and_knows_labels_only_where_asked(label_first):
    given = {"backbone": "vgg16_nonlocal", "args": {"width": 4}, "size": 32, "unstrided": 0}
    model = made("nl_ccam", label_first=label_first, **given).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = model.predict(image, torch.tensor([3, -1]))
        features = model.net.forward_features(image)
    order = [int(k) for k in found.scores[0].argsort(descending=True)]
    order = [3, *(k for k in order if k != 3)] if label_first else order
    shares = [1.0, 0.0, 0.0, -0.25, -1.0]  # squares of 1, 0 and of 0, -1/2, -1
    weights = sum(share * model.net.fc.weight[k] for share, k in zip(shares, order, strict=True))
    torch.testing.assert_close(found.maps[0], (weights[:, None, None] * features[0]).sum(0).detach())


def mean_of_peaks(maps):
    """Mean of the places that no neighbour exceeds, in plain loops; drawn maps hold no equal values."""
    found = np.zeros(maps.shape[:2])
    for at in np.ndindex(maps.shape[:2]):
        one = maps[at]
        peaks = [
            value for (y, x), value in np.ndenumerate(one)
            if value == one[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max()
        ]  # fmt: skip
        found[at] = sum(peaks) / len(peaks)
    return found


def test_a_flat_map_has_one_peak_and_gradients_reach_the_peaks_alone():
    keys, flat = PoolKeys(pool="peaks"), torch.full((1, 1, 4, 4), 3.0)
    assert pool_maps(flat, keys).item() == 3
    maps = torch.zeros(1, 1, 5, 5)
    maps[0, 0, 1, 1], maps[0, 0, 3, 4] = 2, 4
    maps.requires_grad_()
    pool_maps(maps, keys).sum().backward()
    assert (maps.grad[0, 0, 1, 1], maps.grad[0, 0, 3, 4]) == (maps.grad.max(), maps.grad.max())


@pytest.mark.parametrize("pool", ["gap", "max", "peaks", "lse", "wildcat"])
def test_poolings_are_their_formulas(pool):
    keys = PoolKeys(pool=pool, lse_sharpness=3.0, wildcat_share=0.2, wildcat_alpha=0.5)
    maps = torch.randn(2, 3, 5, 5)
    values = np.sort(maps.double().numpy().reshape(2, 3, 25), 2)
    expected = {
        "gap": values.mean(2),
        "max": values.max(2),
        "peaks": mean_of_peaks(maps.double().numpy()),
        "lse": np.log(np.exp(3 * values).mean(2)) / 3,
        "wildcat": values[..., -5:].mean(2) + 0.5 * values[..., :5].mean(2),
    }[pool]
    np.testing.assert_allclose(pool_maps(maps, keys).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("pool", ["max", "peaks", "lse", "wildcat"])
def test_cam_with_a_pooling_scores_its_own_maps(pool):
    model, image = made("cam", pool=pool, wildcat_maps=3).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features, linear = model.net.forward_features(image), model.net.get_classifier()
        weight, bias = (
            value.reshape(CLASSES, 3 if pool == "wildcat" else 1, -1).mean(1) for value in (linear.weight, linear.bias)
        )
        maps = torch.einsum("kc,bchw->bkhw", weight, features)
        found = model.predict(image, torch.tensor([1, 4]))
        torch.testing.assert_close(found.maps, maps[[0, 1], [1, 4]])
        torch.testing.assert_close(found.scores, pool_maps(maps, model.keys) + bias[:, 0])


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        ("spg", {"guided_parts": ["layer3.0", "layer3.9"]}, "unknown part of the network 'layer3.9'"),
        ("spg", {"sure_b1": [0.1, 0.5]}, r"sure_b1=\[0.1, 0.5\]: foreground is above"),
        ("spg", {"sure_c": [1.7, 0.5]}, r"sure_c=\[1.7, 0.5\]"),
        ("acol", {"erase_from": 1.2}, "erase_from: must be at most 1"),
        ("cam", {"pool": "mean"}, "pool: expected 'gap', 'max', 'peaks', 'lse' or 'wildcat'"),
    ],
)
def test_keys_that_do_not_fit_are_refused(method, keys, message, trainable, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train_and_load(method, trainable, tmp_path, fast=[], **keys)


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("acol", {"branch_width": 8}),
        ("spg", GUIDED),
        ("nl_ccam", {"backbone": "vgg16_nonlocal", "model_args": {"width": 4}, "unstrided": 0, "lr": 1e-4}),
        ("cam", {"pool": "wildcat"}),
        ("cam", {"pool": "lse"}),
        ("cam", {"pool": "peaks"}),
    ],
)
def test_one_epoch_trains_and_loads(method, keys, trainable, tmp_path):
    found, best = train_and_load(method, trainable, tmp_path, fast=[], **keys)
    assert found.maps.ndim == 3
    assert found.scores.shape == (2, CLASSES)
    assert best.keys() == {"proposals"}
