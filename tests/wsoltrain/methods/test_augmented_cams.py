"""HaS, CutMix and ADL: what they hide, mix and drop, beside plain formulas, and seeded by (seed, epoch, row)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from small_cnns import CLASSES, batch, draws, made, train_and_load
from wsolpipe.contract.errors import ConfigError
from wsoltrain.methods.augmented_cams import attend_or_drop, beta_quantiles, cut_boxes

FAST = {"fast": [], "unstrided": 2}


def test_has_hides_whole_cells_of_the_drawn_side_at_the_given_rate():
    model, given = made("has", hide_cells=[8], hide_rate=0.3), batch(64)
    hidden = (model.augment(given, draws(given["row"]))["image"] == 0).all(1)
    cells = hidden.view(64, 8, 8, 8, 8).float().mean((2, 4))
    assert set(cells.unique().tolist()) == {0.0, 1.0}
    assert float(cells.mean()) == pytest.approx(0.3, abs=0.02)
    kept = ~hidden[:, None].expand_as(given["image"])
    assert torch.equal(model.augment(given, draws(given["row"]))["image"][kept], given["image"][kept])


def test_has_draws_one_of_several_sides_for_each_image_and_cuts_the_last_cells():
    model, given = made("has", hide_cells=[0, 24], hide_rate=1.0), batch(60)
    hidden = (model.augment(given, draws(given["row"]))["image"] == 0).all(1).flatten(1).float().mean(1)
    assert set(hidden.tolist()) == {0.0, 1.0}
    assert 0.3 < float(hidden.mean()) < 0.7


@pytest.mark.parametrize("method", ["has", "cutmix", "adl"])
def test_draws_belong_to_seed_epoch_and_row(method):
    model, given = made(method, **({"drop_parts": ["layer4.0"]} if method == "adl" else {})), batch(16)
    names = {"has": ["image"], "cutmix": ["image", "kept", "partner"], "adl": ["dropping"]}[method]

    def found(**other):
        made_ = model.augment(given, draws(given["row"], **other))
        return [made_[name].clone() for name in names]

    again = [torch.equal(one, other) for one, other in zip(found(), found(), strict=True)]
    assert all(again)
    for other in ({"seed": 1}, {"epoch": 1}):
        assert not torch.equal(found()[0], found(**other)[0])
    if method != "cutmix":  # whose partner is another row of the batch
        part = {name: value[8:] for name, value in given.items()}
        alone = model.augment(part, draws(part["row"]))
        assert all(torch.equal(alone[name], whole[8:]) for name, whole in zip(names, found(), strict=True))


def test_cutmix_pastes_the_partners_box_and_counts_the_clipped_area():
    model, given = made("cutmix", mix_beta=1.0), batch(32)
    mixed = model.augment(given, draws(given["row"]))
    shares = []
    for number in range(32):
        changed = (mixed["image"][number] != given["image"][number]).any(0)
        kept = float(mixed["kept"][number])
        assert kept == pytest.approx(1 - float(changed.float().mean()), abs=1e-6)
        if changed.any():
            rows, columns = changed.any(1).nonzero()[:, 0], changed.any(0).nonzero()[:, 0]
            box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.all()
            sources = [
                other for other in range(32) if torch.equal(mixed["image"][number][:, changed],
                                                            given["image"][other][:, changed])
            ]  # fmt: skip
            assert len(sources) == 1
            assert int(mixed["partner"][number]) == int(given["label"][sources[0]])
        shares.append(kept)
    assert 0.5 < np.mean(shares) < 0.85  # 1/2 before clipping; (1 - clipped box) is larger


def test_cutmix_boxes_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    share, row, column = (torch.tensor(rng.random(50), dtype=torch.float32) for _ in range(3))
    found = cut_boxes(share, row, column, (64, 48))
    for number in range(50):
        expected = []
        for centre, side in ((float(row[number]), 64), (float(column[number]), 48)):
            half = int(side * np.sqrt(1 - np.float32(share[number]))) // 2
            middle = int(np.float32(centre) * side)
            expected.append((np.clip(middle - half, 0, side), np.clip(middle + half, 0, side)))
        (y0, y1), (x0, x1) = expected
        assert found[number].tolist() == [y0, x0, y1, x1]


@pytest.mark.parametrize("beta", [0.2, 1.0, 3.0, 50.0])
def test_cutmix_draws_shares_of_the_beta_distribution(beta):
    found = beta_quantiles(beta).double().numpy()
    expected = stats.beta.ppf(np.linspace(0, 1, len(found)), beta, beta)
    assert np.abs(found - expected)[10:-10].max() < 1e-3


def test_cutmix_loss_weighs_both_labels_by_their_areas():
    model, given = made("cutmix").eval(), batch(4)
    mixed = model.augment(given, draws(given["row"]))
    loss = model.losses(mixed, "train", 0).parts["classes"].item()
    scores = model.net(mixed["image"]).detach().double().numpy()
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    kept = mixed["kept"].numpy()
    rows = np.arange(4)
    expected = -(kept * logs[rows, given["label"]] + (1 - kept) * logs[rows, mixed["partner"]]).mean()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_cutmix_at_rate_zero_is_cam():
    model, given = made("cutmix", mix_rate=0.0), batch(4)
    mixed = model.augment(given, draws(given["row"]))
    assert torch.equal(mixed["image"], given["image"])
    assert mixed["kept"].tolist() == [1.0] * 4


@pytest.mark.parametrize("drop", [True, False])
def test_adl_drops_the_strongest_places_or_weighs_all(drop):
    features = torch.randn(3, 7, 5, 6)
    found = attend_or_drop(features, drop=torch.tensor(drop), threshold=0.8).numpy()
    values = features.double().numpy()
    for number in range(3):
        attention = values[number].mean(0)
        chosen = attention < 0.8 * attention.max() if drop else 1 / (1 + np.exp(-attention))
        np.testing.assert_allclose(found[number], values[number] * chosen, rtol=1e-5, atol=1e-6)


def test_adl_changes_training_only_and_no_name_of_a_tensor():
    plain, model = made("cam").eval(), made("adl", drop_parts=["layer3.0", "layer4.0"], drop_rate=1.0).eval()
    assert plain.state_dict().keys() == model.state_dict().keys()
    model.load_state_dict(plain.state_dict())
    given = batch(4)
    torch.testing.assert_close(model.predict(given["image"]).maps, plain.predict(given["image"]).maps)
    augmented = model.augment(given, draws(given["row"]))
    assert augmented["dropping"].all()
    trained, without = (m.losses(augmented, "train", 0).parts["classes"].item() for m in (model, plain))
    assert trained != pytest.approx(without, rel=1e-4)
    torch.testing.assert_close(model.predict(given["image"]).maps, plain.predict(given["image"]).maps)


def test_adl_draws_once_for_a_batch_and_part_at_the_given_rate():
    model = made("adl", drop_parts=["layer3.0", "layer4.0"], drop_rate=0.75)
    rows = torch.arange(4000)
    drawn = model.augment({"image": torch.zeros(1), "row": rows}, draws(rows))["dropping"].float()
    assert drawn.mean(0).tolist() == pytest.approx([0.75, 0.75], abs=0.03)
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.06


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        ("has", {"hide_cells": [65]}, "hide_cells=65: a cell has a side of 0 to 64 pixels"),
        ("adl", {"drop_parts": ["layer3.0", "layer4.9"]}, "unknown part of the network 'layer4.9'"),
    ],
)
def test_keys_that_do_not_fit_the_network_are_refused(method, keys, message):
    with pytest.raises(ConfigError, match=message) as caught:
        made(method, **keys)
    assert "\n" not in str(caught.value).partition("\n  -> ")[0]


@pytest.mark.parametrize(("method", "key"), [("has", "hide_rate"), ("cutmix", "mix_rate"), ("adl", "drop_rate")])
def test_rates_outside_of_0_to_1_are_refused(method, key, trainable, tmp_path):
    with pytest.raises(ConfigError, match=f"{key}: must be at most 1"):
        train_and_load(method, trainable, tmp_path, **{key: 1.5})


@pytest.mark.parametrize(
    ("method", "keys"), [("has", {"hide_cells": [4]}), ("cutmix", {}), ("adl", {"drop_parts": ["layer4.0"]})]
)
def test_one_epoch_trains_and_loads(method, keys, trainable, tmp_path):
    found, best = train_and_load(method, trainable, tmp_path, **FAST, **keys)
    assert found.maps.shape == (2, 4, 4)
    assert found.scores.shape == (2, CLASSES)
    assert best.keys() == {"proposals"}
