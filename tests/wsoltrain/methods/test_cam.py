"""CAM: the map is that of the class, at the stride that was asked for; F-CAM: the classifier stays as it is."""

from __future__ import annotations

import json
import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from trained import build, settings, tensors
from wsolpipe.contract.errors import ConfigError, StoreError
from wsolpipe.metrics.protocol import read_runs, select
from wsoltrain.inference.model import load_trained
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe

SMALL = {"channels": [8, 8, 16, 16], "stem_width": 8}


def test_map_weighs_features_by_the_weights_of_the_label_or_of_the_likeliest_class():
    model = build("cam", "resnet10t", weights=None, size=64, classes=5, model_args=SMALL).eval()
    image, labels = torch.randn(3, 3, 64, 64), torch.tensor([4, 0, -1])
    features = model.net.forward_features(image).detach()
    with torch.no_grad():
        found, expected_scores = model.predict(image, labels), model.net(image)
    torch.testing.assert_close(found.scores, expected_scores)
    picked = [4, 0, int(found.scores[2].argmax())]
    for number, label in enumerate(picked):
        expected = (model.net.fc.weight[label][:, None, None] * features[number]).sum(0)
        torch.testing.assert_close(found.maps[number], expected)
    scaled = found.scaled()
    assert scaled.amin((1, 2)).tolist() == pytest.approx([0] * 3)
    assert scaled.amax((1, 2)).tolist() == pytest.approx([1] * 3)


@pytest.mark.parametrize("backbone", ["resnet10t", "resnet18", "mobilenetv2_050", "vgg11_bn", "densenet121"])
@pytest.mark.parametrize("unstrided", [0, 1, 2])
def test_each_removed_stride_doubles_the_map(backbone, unstrided):
    args = SMALL if backbone == "resnet10t" else {}
    if backbone in ("vgg11_bn",):
        with pytest.raises(ConfigError, match="has no CAM"):
            build("cam", backbone, weights=None, size=64, classes=3, unstrided=unstrided)
        return
    model = build("cam", backbone, weights=None, size=64, classes=3, model_args=args, unstrided=unstrided).eval()
    plain = timm.create_model(backbone, num_classes=3, **args)
    assert model.net.state_dict().keys() == plain.state_dict().keys()
    assert model.predict(torch.randn(1, 3, 64, 64)).maps.shape[-1] == 2 * 2**unstrided


def test_backbones_that_have_no_cam_or_no_such_stride_are_refused():
    with pytest.raises(ConfigError, match="has no CAM"):
        build("cam", "vit_tiny_patch16_224", weights=None, size=224, classes=3)
    with pytest.raises(ConfigError, match="has 5 downsamplings at size=64, and 6 are to be removed"):
        build("cam", "resnet10t", weights=None, size=64, classes=3, model_args=SMALL, unstrided=6)
    with pytest.raises(ConfigError, match="fast=layer9"):
        build("cam", "resnet10t", weights=None, size=64, classes=3, model_args=SMALL, fast=["layer9"])


def test_classifier_and_named_parts_learn_faster():
    model = build("cam", "resnet10t", weights=None, size=64, classes=3, model_args=SMALL, fast=["layer4"])
    (phase,) = model.phases()
    slow, fast = phase.groups
    names = {id(value): name for name, value in model.net.named_parameters()}
    assert {names[id(value)].split(".")[0] for value in fast.parameters} == {"layer4", "fc"}
    assert (slow.lr, fast.lr) == (1.0, 10.0)
    assert len(phase.parameters) == len(names)


def test_cam_trains_on_labels_alone(trainable, tmp_path):
    keys = {"backbone": "resnet10t", "model_args": SMALL, "weights": None, "size": 32, "batch": 8, "epochs": 1}
    made = load_recipe("cam", dataset="tiny", changes={**keys, "mean": [0.5] * 3, "std": [0.5] * 3})
    place = settings(trainable, tmp_path, maps=None)
    Trainer(made, place, []).fit()
    trained = load_trained(str(tmp_path), device=torch.device("cpu"))
    assert trained.model.predict(torch.zeros(1, 3, 32, 32)).scores.shape == (1, 5)


@pytest.fixture
def classifier(tmp_path):
    def save(outputs=5, mean=0.4):
        torch.manual_seed(0)
        net = timm.create_model("resnet10t", num_classes=outputs, **SMALL)
        record = {
            "model": "resnet10t",
            "model_args": SMALL,
            "outputs": outputs,
            "size": 32,
            "mean": [mean] * 3,
            "std": [0.2] * 3,
        }
        path = tmp_path / f"model{outputs}.safetensors"
        save_file(net.state_dict(), path, metadata={"wsolpipe.classifier": json.dumps(record)})
        return path, net.eval()

    return save


def fcam(store, out, file, **keys):
    given = {"maps": "cls_maps", "size": 32, "batch": 8, "epochs": 1, "mean": [0.5] * 3, "std": [0.25] * 3, **keys}
    made = load_recipe("fcam", dataset="tiny", changes={**given, "classifier": None if file is None else str(file)})
    return Trainer(made, settings(store, out, boxes=None), [])


def test_fcam_keeps_its_classifier_and_needs_no_store_to_predict(trainable, tmp_path, classifier):
    file, net = classifier()
    run = fcam(trainable, tmp_path / "run", file)
    run.fit()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in run.model.encoder.net.state_dict().items())
    kept = tensors(tmp_path / "run" / "best-proposals.safetensors")
    assert not any(name.startswith("model.encoder") for name in kept)
    file.unlink()
    trained = load_trained(str(tmp_path / "run"), device=torch.device("cpu"))
    pixels = torch.rand(2, 3, 32, 32)
    found = trained.model.predict((pixels - 0.5) / 0.25)
    torch.testing.assert_close(found.scores, net((pixels - 0.4) / 0.2), rtol=1e-4, atol=1e-4)
    assert found.maps.shape == (2, 32, 32)
    assert found.unit


def test_fcam_resumes_with_the_same_classifier_only(trainable, tmp_path, classifier):
    file, _ = classifier()
    fcam(trainable, tmp_path / "run", file).fit()
    _, _ = classifier(mean=0.3)  # the same path, another file
    with pytest.raises(ConfigError, match="is of another run: artifacts were"):
        fcam(trainable, tmp_path / "run", file).fit()


def test_classifiers_that_are_missing_or_of_other_classes_are_named(trainable, tmp_path, classifier):
    with pytest.raises(ConfigError, match="knows 3 classes, the data set has 5"):
        fcam(trainable, tmp_path / "run", classifier(outputs=3)[0])
    with pytest.raises(StoreError, match="classifier") as caught:
        fcam(trainable, tmp_path / "run", None)
    assert "wsolpipe run stage=classifier" in str(caught.value)


def warm(store, out, file, **keys):
    given = {"backbone": "resnet10t", "model_args": SMALL, "size": 32, "batch": 8, "epochs": 2, "weights": "timm"}
    changes = {**given, "mean": [0.4] * 3, "std": [0.2] * 3, "warm_start": str(file), **keys}
    return Trainer(load_recipe("cam", dataset="tiny", changes=changes), settings(store, out, maps=None), [])


def test_a_warm_start_is_scored_as_epoch_0_and_chosen_where_training_only_spoils_it(trainable, tmp_path, classifier):
    file, net = classifier()
    run = warm(trainable, tmp_path / "run", file, unstrided=0, lr=1e-12, frozen_bn=True)
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(run.model.eval().predict(image).scores, net(image))  # no weights are fetched
    run.fit()
    epochs = read_runs(tmp_path / "run")
    assert [each.epoch for each in epochs] == [0, 1, 2]
    assert epochs[0].validation["accuracy"] == epochs[2].validation["accuracy"]
    spoilt = warm(trainable, tmp_path / "spoilt", file, unstrided=0, lr=0.5)
    spoilt.fit()
    choice = select(read_runs(tmp_path / "spoilt"), "proposals")
    assert choice.score >= select(epochs[:1], "proposals").score
    assert load_trained(str(tmp_path / "spoilt"), device=torch.device("cpu")).epoch == choice.run.epoch


def test_a_warm_start_resumes_without_scoring_its_start_again(trainable, tmp_path, classifier, monkeypatch):
    file, _ = classifier()
    warm(trainable, tmp_path / "whole", file).fit()
    run, evaluate = warm(trainable, tmp_path / "run", file), Trainer._evaluate

    def stopped(self, epoch):
        evaluate(self, epoch)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    seen = []
    monkeypatch.setattr(Trainer, "_evaluate", lambda self, epoch: (seen.append(epoch), evaluate(self, epoch)))
    warm(trainable, tmp_path / "run", file).fit()
    assert 0 not in seen
    for name in ("last", "best-proposals"):
        path = f"{name}.safetensors"
        assert (tmp_path / "run" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


@pytest.mark.parametrize(
    ("keys", "outputs", "words"),
    [
        ({"mean": [0.5] * 3}, 5, r"another network or input.*\n.*mean=\[0.4,0.4,0.4\]$"),
        ({"backbone": "resnet18", "model_args": {}}, 5, r'backbone="resnet10t" model_args=\{'),
        ({}, 3, "gives 3 outputs of pooled features"),
    ],
)
def test_a_warm_start_of_another_network_input_or_class_list_is_refused(
    trainable, tmp_path, classifier, keys, outputs, words
):
    with pytest.raises(ConfigError) as caught:
        warm(trainable, tmp_path / "run", classifier(outputs=outputs)[0], **keys)
    assert re.search(words, str(caught.value))
