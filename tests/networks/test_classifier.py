"""The scoring classifier: what goes in, what is stored, what is refused; and the SGD that trains it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from wsolpipe.contract.errors import ConfigError, StoreError, WeightsError
from wsolpipe.models.training import Recipe, augment, fine_tune, fit_head
from wsolpipe.networks.classifier import (
    ClassifierRecord,
    ImageClassifier,
    build_timm,
    count_outputs,
    load_classifier,
    refuse_label,
    refuse_misfit,
    save_classifier,
    stored_record,
)
from wsolpipe.networks.saved_state import Unfinished

TINY_VIT = {"embed_dim": 48, "depth": 5, "num_heads": 4, "patch_size": 8}


def record(model="resnet10t", **changes):
    values = {"outputs": 6, "size": 64, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
    return ClassifierRecord(model=model, **(values | changes))


def write(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def pixels(count=3, size=64):
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8))


@pytest.mark.parametrize("model", ["resnet10t", "mobilenetv2_050", "vit_tiny_patch16_224"])
def test_logits_are_those_of_timm_on_normalised_pixels(model):
    arguments = TINY_VIT if model.startswith("vit") else {}
    classifier = ImageClassifier(record(model, model_args=arguments)).eval()
    images = pixels()
    plain = timm.create_model(model, num_classes=6, **arguments, **({"img_size": 64} if arguments else {})).eval()
    plain.load_state_dict(classifier.tensors())
    with torch.inference_mode():
        mean, std = torch.tensor([0.4, 0.5, 0.6]).double(), torch.tensor([0.2, 0.25, 0.3]).double()
        expected = plain((((images.double() / 255) - mean) / std).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(classifier.logits(images), expected, rtol=1e-4, atol=1e-4)
    planes = images.permute(0, 3, 1, 2)
    torch.testing.assert_close(classifier.logits(planes), classifier.logits(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(classifier.logits(planes.float()), classifier.logits(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "arguments", "features"),
    [
        ("resnet10t", {}, "pooled"),
        ("convnext_atto", {}, "pooled"),
        ("vit_tiny_patch16_224", TINY_VIT, "pooled"),
        ("vit_tiny_patch16_224", TINY_VIT, "class_mean"),
        ("vit_tiny_patch16_224", TINY_VIT, "class_last4"),
    ],
)
def test_last_layer_on_pooled_features_is_the_model(model, arguments, features):
    classifier = ImageClassifier(record(model, model_args=arguments, features=features)).eval()
    inputs = classifier.normalise(pixels())
    with torch.inference_mode():
        torch.testing.assert_close(classifier.last_layer()(classifier.pooled(inputs)), classifier(inputs))


def test_class_mean_features_are_the_final_tokens():
    classifier = ImageClassifier(record("vit_tiny_patch16_224", model_args=TINY_VIT, features="class_mean")).eval()
    inputs = classifier.normalise(pixels())
    with torch.inference_mode():
        tokens = classifier.net.forward_features(inputs)
        expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1)
        torch.testing.assert_close(classifier.pooled(inputs), expected)


@pytest.mark.parametrize("features", ["pooled", "class_mean"])
def test_files_reload_to_the_same_logits_and_the_same_bytes(tmp_path, features):
    made = record("vit_tiny_patch16_224", model_args=TINY_VIT, features=features, class_names={"0": "kestrel"})
    classifier = ImageClassifier(made).eval()
    files = save_classifier(classifier)
    again = load_classifier(write(tmp_path, files))
    assert again.record == made
    assert torch.equal(again.logits(pixels()), classifier.logits(pixels()))
    assert save_classifier(again) == files
    assert not any(tensor.requires_grad for tensor in again.parameters())


def test_weights_file_alone_says_what_it_is(tmp_path):
    classifier = ImageClassifier(record())
    path = write(tmp_path, save_classifier(classifier)) / "model.safetensors"
    assert stored_record(path) == classifier.record
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert list(metadata) == sorted(metadata) or set(metadata) == {"arch", "mean", "std", "wsolpipe.classifier"}
    assert json.loads(metadata["mean"]) == [0.4, 0.5, 0.6]
    plain = timm.create_model("resnet10t", num_classes=6)
    plain.load_state_dict(load_file(path))


def test_a_torn_artifact_is_a_damaged_store(tmp_path):
    files = save_classifier(ImageClassifier(record()))
    write(tmp_path, files | {"model.safetensors": files["model.safetensors"][:5000]})
    with pytest.raises(StoreError, match="cannot be loaded"):
        load_classifier(tmp_path)
    (tmp_path / "classifier.json").unlink()
    with pytest.raises(StoreError, match=r"classifier\.json"):
        load_classifier(tmp_path)


def test_a_transformer_takes_another_input_size():
    net = build_timm("vit_tiny_patch16_224", {}, outputs=3, size=96)
    assert net(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_unknown_models_and_arguments_are_named():
    with pytest.raises(ConfigError, match=r"resnet51.*did you mean"):
        build_timm("resnet51", {}, outputs=3, size=64)
    with pytest.raises(ConfigError, match="pad_typ"):
        build_timm("resnet10t", {"pad_typ": "same"}, outputs=3, size=64)
    with pytest.raises(ConfigError, match="class token"):
        ImageClassifier(record("resnet10t", features="class_mean"))


def test_outputs_are_counted_in_the_file():
    state = timm.create_model("mobilenetv2_050", num_classes=11).state_dict()
    assert count_outputs("mobilenetv2_050", state, source="f") == 11
    with pytest.raises(WeightsError, match=r"no tensor fc\.weight of resnet10t"):
        count_outputs("resnet10t", state, source="f")


def test_a_classifier_of_other_classes_is_refused_with_the_difference():
    known = record(class_names={"0": "albatross", "3": "ani"})
    refuse_misfit(known, "birds", 6, {0: "albatross", 1: "auklet"})
    refuse_misfit(known, "birds", None, {})
    with pytest.raises(ConfigError, match="has 6 outputs, and data set birds has 10 classes"):
        refuse_misfit(known, "birds", 10, {})
    with pytest.raises(ConfigError, match="label 3 is 'ani' to the classifier resnet10t and 'auk'"):
        refuse_misfit(known, "birds", 6, {3: "auk"})
    refuse_label(5, known, "birds")
    with pytest.raises(ConfigError, match=r"label 6, and the classifier resnet10t only 6 outputs \(0 … 5\)"):
        refuse_label(6, known, "birds")


def recipe(**changes):
    return Recipe(**({"epochs": 30, "batch": 16, "lr": 0.05, "weight_decay": 0.0} | changes))


def test_probe_learns_features_on_any_scale():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    features = torch.randn(120, 5, generator=draw) * 0.3
    features[torch.arange(120), labels] += 2
    features = features * torch.tensor([1e-4, 1.0, 100.0, 1.0, 1.0]) + torch.tensor([7.0, 0.0, -300.0, 0.0, 5.0])
    features = torch.cat([features, torch.full((120, 1), 3.3)], dim=1)  # and one that never changes
    weight, bias = fit_head(features, labels, 3, recipe())
    assert ((features @ weight.T + bias).argmax(1) == labels).float().mean() == 1
    assert torch.equal(weight[:, 5], torch.zeros(3))


def test_probe_equals_logistic_regression_at_convergence():
    from scipy.optimize import minimize

    draw = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 4, generator=draw), torch.arange(60) % 3
    features[:, 0] += labels
    decay = 0.05
    weight, bias = fit_head(features, labels, 3, recipe(epochs=600, batch=60, lr=0.5, weight_decay=decay))
    scaled = ((features - features.mean(0)) / features.std(0, correction=0)).double()

    def loss(values):
        flat = torch.tensor(values, requires_grad=True)
        logits = scaled @ flat[:12].view(3, 4).T + flat[12:]
        value = torch.nn.functional.cross_entropy(logits, labels) + decay / 2 * flat.square().sum()
        value.backward()
        return value.item(), flat.grad.numpy()

    best = torch.tensor(minimize(loss, np.zeros(15), jac=True, tol=1e-12).x)
    expected = (scaled @ best[:12].view(3, 4).T + best[12:]).softmax(1).float()
    torch.testing.assert_close((features @ weight.T + bias).softmax(1), expected, atol=1e-3, rtol=0)


def test_probe_is_the_same_every_time():
    features, labels = torch.randn(50, 8, generator=torch.Generator().manual_seed(2)), torch.arange(50) % 4
    first, again = (fit_head(features, labels, 4, recipe(seed=3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other, _ = fit_head(features, labels, 4, recipe(seed=4))
    assert not torch.equal(first[0], other)


def test_rates_follow_the_schedule():
    cosine = recipe(epochs=4, schedule="cosine")
    assert [round(cosine.factor(step, 2), 4) for step in (0, 4, 7)] == [1.0, 0.5, 0.0381]
    step = recipe(schedule="step", lr_step=2, lr_gamma=0.1)
    assert [step.factor(at, 3) for at in (0, 5, 6, 12)] == [1.0, 1.0, 0.1, pytest.approx(0.01)]
    warm = recipe(schedule="constant", warmup=2.0)
    assert [warm.factor(at, 4) for at in (0, 3, 7, 30)] == [0.125, 0.5, 1.0, 1.0]


def test_fine_tuning_changes_every_tensor_and_leaves_the_generator_alone():
    classifier = ImageClassifier(record()).eval()
    before = {name: value.clone() for name, value in classifier.tensors().items()}
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 64, 64, 3), np.uint8), np.arange(8) % 6
    state, seen = torch.random.get_rng_state(), []
    fine_tune(
        classifier,
        lambda epoch, first: [(images, labels)] * (2 - first),
        steps=2,
        recipe=recipe(epochs=2, lr=0.1),
        done=lambda *at: seen.append(at),
        keep=Unfinished(),
    )
    same = [name for name, value in classifier.tensors().items() if torch.equal(value, before[name])]
    assert same == []
    assert torch.equal(torch.random.get_rng_state(), state)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not classifier.training


def folded():
    """A network whose BatchNorm does nothing but add: what it scaled and centred is in the convolutions."""
    classifier = ImageClassifier(record()).eval()
    with torch.no_grad():
        for layer in classifier.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.mul_(3.0)
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.fill_(1.0)
                layer.bias.normal_(0.3, 0.1)
                layer.running_mean.zero_()
                layer.running_var.fill_(1.0 - layer.eps)
    return classifier


def norms(classifier):
    return {
        f"{name}.{key}": value.clone()
        for name, layer in classifier.named_modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
        for key, value in layer.state_dict().items()
    }


def test_frozen_batchnorm_keeps_weights_whose_batchnorm_is_folded_in():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (8, 64, 64, 3), np.uint8), np.arange(8) % 6
    moved = {}
    for frozen in (False, True):
        torch.manual_seed(0)
        classifier = folded()
        before, kept = classifier.logits(torch.from_numpy(images)), norms(classifier)
        fine_tune(
            classifier,
            lambda epoch, first: [(images, labels)] * (1 - first),
            steps=1,
            recipe=recipe(epochs=1, lr=1e-20, momentum=0.0, nesterov=False, frozen_bn=frozen),
            done=lambda *at: None,
            keep=Unfinished(),
        )
        after = classifier.logits(torch.from_numpy(images))
        moved[frozen] = float((after - before).abs().max() / before.abs().max())
        assert all(torch.equal(kept[name], value) for name, value in norms(classifier).items()) is frozen
    assert moved[True] < 1e-3
    assert moved[False] > 0.1


def test_a_network_without_batchnorm_has_none_to_freeze():
    classifier = ImageClassifier(record("vit_tiny_patch16_224", model_args=TINY_VIT))
    with pytest.raises(ConfigError, match="no BatchNorm layer"):
        fine_tune(
            classifier,
            lambda epoch, first: [],
            steps=1,
            recipe=recipe(frozen_bn=True),
            done=lambda *at: None,
            keep=Unfinished(),
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint_path", "x.pth"),
        ("pretrained", True),
        ("pretrained_cfg_overlay", {"file": "x.pth"}),
        ("cache_dir", "."),
    ],
)
def test_a_record_cannot_make_timm_read_another_file(tmp_path, monkeypatch, name, value):
    """A pulled store is written by others: its record describes an architecture and nothing else."""
    made = save_classifier(ImageClassifier(record()))
    content = json.loads(made["classifier.json"])
    content["model_args"] = {name: value}
    write(tmp_path, made | {"classifier.json": json.dumps(content).encode()})
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: pytest.fail("timm was asked"))
    with pytest.raises(StoreError, match=f"model_args.{name} of resnet10t does not describe an architecture"):
        load_classifier(tmp_path)


def test_an_argument_is_a_plain_value():
    with pytest.raises(ConfigError, match="norm_layer of resnet10t is type"):
        build_timm("resnet10t", {"norm_layer": torch.nn.BatchNorm2d}, outputs=3, size=64)


@pytest.mark.parametrize("min_crop", [1.0, 0.3])
def test_training_views_show_part_of_the_image(min_crop):
    ramp = np.repeat(np.arange(72, dtype=np.uint8)[None, :, None] * 3, 72, axis=0).repeat(3, axis=2)
    flipped = 0
    for seed in range(40):
        view = augment(ramp, 64, np.random.default_rng(seed), flip=0.5, min_crop=min_crop)
        assert view.shape == (64, 64, 3)
        assert view.dtype == np.uint8
        steps = np.diff(view[30, :, 0].astype(int))
        flipped += bool(steps.sum() < 0)
        if min_crop == 1:
            assert set(np.abs(steps)) == {3}
    assert 8 <= flipped <= 32
    same = [augment(ramp, 64, np.random.default_rng(5), flip=0.5, min_crop=min_crop) for _ in range(2)]
    assert np.array_equal(*same)
