"""Published checkpoints of whole networks load under the names that they have, and give the same maps and scores."""

from __future__ import annotations

import re

import pytest
import torch

from small_cnns import CLASSES, SMALL, made, train_and_load
from trained import lines, settings
from wsolpipe.contract.errors import WeightsError
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.tracker import JsonLines

DEEP = {"channels": [8, 8, 16, 16], "stem_width": 8, "layers": [1, 1, 3, 3]}


def write(path, model, rename=None):
    """A checkpoint as the standard evaluation saves it: names without ``net.``, beside an optimiser's state."""
    state = {}
    for name, value in model.state_dict().items():
        plain = name.removeprefix("net.")
        state[rename(plain) if rename else plain] = value
    torch.save({"architecture": "resnet50", "epoch": 3, "state_dict": state, "optimizer": {"state": {}}}, path)
    return str(path)


def with_dropping_layers(name):
    """ADL of the standard evaluation has layers without tensors after layer3.0, layer4.0 and layer4.2."""
    found = re.match(r"layer([34])\.(\d)\.(.*)", name)
    return f"layer{found[1]}.{int(found[2]) + (int(found[2]) > 0)}.{found[3]}" if found else name


def with_split_layer(name):
    """SPG of the standard evaluation has its third layer in two parts."""
    name = name.replace("layer3.0.", "SPG_A1.0.")
    return re.sub(r"layer3\.(\d)\.", lambda found: f"SPG_A2.{int(found[1]) - 1}.", name)


@pytest.mark.parametrize(
    ("method", "keys", "rename"),
    [
        ("cam", {}, None),
        ("cam", {}, lambda name: f"module.{name}"),
        ("adl", {"drop_parts": ["layer3.0", "layer4.0", "layer4.2"]}, with_dropping_layers),
        ("acol", {"branch_width": 8}, None),
        ("spg", {"guided_parts": ["layer3.0", "layer3.2"], "guide_width": 8}, with_split_layer),
    ],
)
def test_resnets_of_the_standard_evaluation(method, keys, rename, tmp_path):
    torch.manual_seed(1)
    trained = made(method, args=DEEP, **keys).eval()
    for value in trained.state_dict().values():
        if value.is_floating_point():
            torch.nn.init.uniform_(value, 0.5, 1.5) if value.ndim == 1 else torch.nn.init.normal_(value, 0, 0.1)
    file = write(tmp_path / "best_checkpoint.pth.tar", trained, rename)
    loaded = made(method, args=DEEP, **keys, published=file).eval()
    image, labels = torch.randn(2, 3, 64, 64), torch.tensor([1, 4])
    with torch.no_grad():
        one, other = trained.predict(image, labels), loaded.predict(image, labels)
    assert torch.equal(one.maps, other.maps)
    assert torch.equal(one.scores, other.scores)


def test_inception_and_vgg_of_the_standard_evaluation_and_nl_ccam(tmp_path):
    cases = {
        ("cam", "vgg16_gap"): lambda name: re.sub(
            r"features\.(\d+)", lambda found: f"features.{int(found[1]) + (int(found[1]) >= 17)}", name
        ),  # with a dropping layer of ADL at 17
        ("nl_ccam", "vgg16_nonlocal"): lambda name: name.replace("features.", "conv.").replace("fc.", "classifier.0."),
    }
    for (method, backbone), rename in cases.items():
        trained = made(method, backbone=backbone, args={"width": 4}, size=32, unstrided=0)
        file = write(tmp_path / f"{backbone}.pth.tar", trained, rename)
        torch.manual_seed(5)
        loaded = made(method, backbone=backbone, args={"width": 4}, size=32, unstrided=0, published=file)
        assert all(torch.equal(value, trained.state_dict()[name]) for name, value in loaded.state_dict().items())
    trained = made("cam", backbone="inception_v3_spg", args={}, size=80, unstrided=0)
    state = {name.removeprefix("net.").replace("fc.", "SPG_A4."): v for name, v in trained.state_dict().items()}
    state["SPG_A4.weight"] = state["SPG_A4.weight"][:, :, None, None]
    torch.save({"state_dict": state}, tmp_path / "inception.pth.tar")
    file = str(tmp_path / "inception.pth.tar")
    loaded = made("cam", backbone="inception_v3_spg", args={}, size=80, unstrided=0, published=file)
    assert torch.equal(loaded.net.fc.weight, trained.net.fc.weight)


def test_checkpoints_of_another_class_count_or_network_are_refused_before_the_first_step(tmp_path, trainable):
    file = write(tmp_path / "five.pth.tar", made("cam"))
    from trained import build

    with pytest.raises(WeightsError, match=r"one linear layer of classes on a ResNet, 5 classes, and .*, 9 classes"):
        build("cam", "resnet10t", weights=None, size=64, classes=9, model_args=SMALL, published=file)
    with pytest.raises(WeightsError, match=r"holds one linear layer .*, and this run is ACoL on a ResNet, 5 classes"):
        train_and_load("acol", trainable, tmp_path / "run", fast=[], branch_width=8, published=file)


def test_a_published_checkpoint_is_scored_without_training(trainable, tmp_path):
    """``epochs=0`` chooses the threshold on validation and writes the run's best weights, as any run does."""
    torch.manual_seed(3)
    published = made("cam", size=32)
    file = write(tmp_path / "best.pth.tar", published)
    given = {"backbone": "resnet10t", "model_args": SMALL, "weights": None, "size": 32, "fast": [], "epochs": 0}
    recipe = load_recipe("cam", dataset="tiny", changes={**given, "batch": 8, "published": file})
    out = tmp_path / "run"
    result = Trainer(recipe, settings(trainable, out, maps=None), [JsonLines(out / "metrics.jsonl")]).fit()
    assert result["steps"] == 0
    assert [line["epoch"] for line in lines(out, "val")] == [0]
    from wsoltrain.inference.model import load_trained

    loaded = load_trained(str(out), device=torch.device("cpu"))
    assert loaded.tau is not None
    assert torch.equal(loaded.model.net.fc.weight, published.net.fc.weight)
    assert len(loaded.class_names) == CLASSES
