"""Published checkpoints of whole networks load under the names that they have, and give the same maps and scores."""

from __future__ import annotations

import re

import pytest
import timm
import torch
import torch.nn.functional as f

from small_cnns import CLASSES, SMALL, made, train_and_load
from trained import lines, settings
from wsolpipe.contract.errors import WeightsError
from wsoltrain.methods.base import Task
from wsoltrain.training.loop import Trainer
from wsoltrain.training.recipe_file import load_recipe
from wsoltrain.training.tracker import JsonLines

METHODS = ("cam", "has", "cutmix", "adl", "acol", "spg")
WIDTH = 4
VGG = {
    "cam": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512",
    "adl": "64 64 M 128 128 M 256 256 256 M A 512 512 512 A M 512 512 512 A",
    "acol": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "spg": "64 64 M 128 128 M 256 256 256 M",
}
"""Layers ``features`` of the standard evaluation at 14 x 14: convolutions by their channels, poolings, ADL's layers."""


def conv(name, into, channels, side=3):
    return {f"{name}.weight": (into, channels, side, side), f"{name}.bias": (into,)}


def norm(name, channels):
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (channels,) for kind in kinds} | {f"{name}.num_batches_tracked": ()}


def branches(method, channels, width, seen):
    """Shapes of the parts that ACoL and SPG add, by the names of the standard evaluation."""
    if method == "acol":
        parts = [(0, width, channels, 3), (2, width, width, 3), (4, CLASSES, width, 1)]
        return {
            name: shape for side in "AB" for number, *size in parts
            for name, shape in conv(f"classifier_{side}.{number}", *size).items()
        }  # fmt: skip
    return {
        **conv("SPG_B_1a.0", width, seen[0]), **conv("SPG_B_2a.0", width, seen[1]),
        **conv("SPG_B_shared.0", width, width), **conv("SPG_B_shared.2", 1, width, 1),
        **conv("SPG_C.0", 512, channels), **conv("SPG_C.2", 1, 512, 1),
    }  # fmt: skip


def resnet(method):
    """ResNet-50: SPG has its third layer in two parts, ADL layers without tensors after 3.0, 4.0 and 4.2."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    channels = 64
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        width = WIDTH * 2 ** (layer - 1)
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            if method == "adl" and layer > 2:
                name = f"layer{layer}.{block + (block > 0)}"
            if method == "spg" and layer == 3:
                name = f"SPG_A2.{block - 1}" if block else "SPG_A1.0"
            sizes = ((width, channels, 1), (width, width, 3), (4 * width, width, 1))
            for number, (into, given, side) in enumerate(sizes, 1):
                shapes |= {f"{name}.conv{number}.weight": (into, given, side, side), **norm(f"{name}.bn{number}", into)}
            if not block:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, channels, 1, 1)}
                shapes |= norm(f"{name}.downsample.1", 4 * width)
            channels = 4 * width
    if method == "spg":
        return shapes | conv("SPG_A4", CLASSES, channels, 1) | branches("spg", channels, 8, (channels // 2,) * 2)
    if method == "acol":
        return shapes | branches("acol", channels, 8, ())
    return shapes | {"fc.weight": (CLASSES, channels), "fc.bias": (CLASSES,)}


def vgg(method):
    """VGG16 of the standard evaluation, a sixteenth as wide."""
    shapes, channels, number = {}, 3, 0
    for layer in VGG[method].split():
        if layer.isdigit():
            shapes |= conv(f"features.{number}", int(layer) // 16, channels)
            channels, number = int(layer) // 16, number + 1
        number += 1
    if method == "spg":
        for part, count in ((1, 3), (2, 3), (3, 2)):
            for each in range(count):
                shapes |= conv(f"SPG_A_{part}.{2 * each}", 32, channels)
                channels = 32
        return shapes | conv("SPG_A_4", CLASSES, 32, 1) | branches("spg", 32, 8, (32, 32))
    if method == "acol":
        return shapes | branches("acol", 32, 8, ())
    return shapes | conv("conv6", 64, 32) | {"fc.weight": (CLASSES, 64), "fc.bias": (CLASSES,)}


def inception(method):
    """InceptionV3 of the standard evaluation: torchvision's up to Mixed_6e, and its own convolutions."""
    whole = timm.create_model("inception_v3", num_classes=0, aux_logits=False).state_dict()
    shapes = {name: tuple(value.shape) for name, value in whole.items() if not name.startswith("Mixed_7")}
    if method == "acol":
        return shapes | branches("acol", 768, 8, ())
    shapes |= conv("SPG_A3_1b.0", 1024, 768) | conv("SPG_A3_2b.0", 1024, 1024) | conv("SPG_A4", CLASSES, 1024, 1)
    return shapes | (branches("spg", 1024, 8, (288, 768)) if method == "spg" else {})


LAYOUTS = {
    "standard": (resnet, {"model_args": {"channels": [WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH]}, "size": 64}),
    "vgg16": (vgg, {"model_args": {"width": WIDTH}, "size": 32}),
    "inception": (inception, {"size": 80}),
}


def written(path, shapes, prefix=""):
    """A checkpoint as the standard evaluation saves it, beside an optimiser's state; its tensors."""
    generator = torch.Generator().manual_seed(3)
    state = {
        name: torch.rand(shape, generator=generator) + 0.5 if "running_var" in name
        else torch.randn(shape, generator=generator) / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        for name, shape in shapes.items() if "num_batches" not in name
    }  # fmt: skip
    state |= {name: torch.tensor(7) for name in shapes if "num_batches" in name}
    saved = {prefix + name: value for name, value in state.items()}
    torch.save({"architecture": "resnet50", "epoch": 3, "state_dict": saved, "optimizer": {"state": {}}}, path)
    return state


def built(method, profile, **keys):
    """The method of a shipped recipe, narrow, on `CLASSES` classes."""
    own = {"acol": {"branch_width": 8}, "spg": {"guide_width": 8}}.get(method, {})
    changes = {"profile": profile, "weights": None, **LAYOUTS[profile][1], **own, **keys}
    recipe = load_recipe(method, dataset="cub", changes=changes)
    return recipe.build(Task(CLASSES, recipe.size)).eval()


@pytest.mark.parametrize("profile", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
def test_every_checkpoint_of_the_standard_evaluation_is_loaded_whole(method, profile, tmp_path):
    layout = LAYOUTS[profile][0]({"has": "cam", "cutmix": "cam"}.get(method, method))
    state = written(tmp_path / "best.pth.tar", layout, "module." if method == "has" else "")
    model = built(method, profile, published=str(tmp_path / "best.pth.tar"))
    loaded = model.state_dict()
    assert len(loaded) == len(state)
    ours = sorted((value.numel(), float(value.double().sum())) for value in loaded.values())
    assert ours == sorted((value.numel(), float(value.double().sum())) for value in state.values())
    image, size = torch.randn(2, 3, model.task.size, model.task.size), model.task.size
    with torch.no_grad():
        found = model.predict(image, torch.tensor([1, 4]))
        if profile == "vgg16" and method in ("acol", "spg"):
            expected = plain_vgg(state, image, method)
            torch.testing.assert_close(found.scores, expected.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert found.maps.shape[-1] == {"standard": 4, "vgg16": 2, "inception": 5}[profile], size


def plain_vgg(state, image, method):
    """Class maps of ACoL's first branch and of SPG on VGG16, in plain functions."""

    def chain(found, name, side=3):
        return f.conv2d(found, state[f"{name}.weight"], state[f"{name}.bias"], padding=side // 2)

    number = 0
    for layer in VGG[method].split():
        if layer.isdigit():
            image, number = chain(image, f"features.{number}").relu(), number + 1
        elif method == "spg":
            image = f.max_pool2d(image, 2)
        else:
            image = f.max_pool2d(image, 3, 2 if number < 30 else 1, padding=1)
        number += 1
    if method == "acol":
        image = f.avg_pool2d(image, 3, 1, padding=1)
        for part in (0, 2):
            image = chain(image, f"classifier_A.{part}").relu()
        return chain(image, "classifier_A.4", 1)
    for part, count in ((1, 3), (2, 3), (3, 2)):
        for each in range(count):
            image = chain(image, f"SPG_A_{part}.{2 * each}").relu()
        image = f.max_pool2d(image, 3, 2, padding=1) if part == 1 else image
    return chain(image, "SPG_A_4", 1)


def test_nl_ccams_checkpoint_is_loaded(tmp_path):
    trained = made("nl_ccam", backbone="vgg16_nonlocal", args={"width": 4}, size=32, unstrided=0)
    file = write(
        tmp_path / "nl.pth", trained, lambda name: name.replace("features.", "conv.").replace("fc.", "classifier.0.")
    )
    torch.manual_seed(5)
    loaded = made("nl_ccam", backbone="vgg16_nonlocal", args={"width": 4}, size=32, unstrided=0, published=file)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("holds", "run", "message", "words"),
    [
        (
            ("acol", "vgg16"),
            ("acol", "standard"),
            "ACoL on VGG16, 5 classes.* ACoL on a ResNet",
            "recipe=acol profile=vgg16",
        ),
        (("spg", "inception"), ("cam", "inception"), "SPG on InceptionV3, 5 classes", "recipe=spg profile=inception"),
        (
            ("adl", "standard"),
            ("spg", "standard"),
            "layer of classes on a ResNet of 50 layers, 5.* SPG on a ResNet of 50",
            "=",
        ),
        (("cam", "vgg16"), ("spg", "vgg16"), "one linear layer of classes on VGG16", "recipe=cam, has.* profile=vgg16"),
    ],
)
def test_a_checkpoint_of_another_method_or_backbone_says_what_to_type(holds, run, message, words, tmp_path):
    method, profile = holds
    written(tmp_path / "other.pth.tar", LAYOUTS[profile][0](method))
    with pytest.raises(WeightsError, match=message) as caught:
        built(*run, published=str(tmp_path / "other.pth.tar"))
    assert re.search(words, str(caught.value))


def test_a_checkpoint_that_lacks_a_tensor_or_holds_more_is_refused_whole(tmp_path):
    shapes = vgg("spg")
    written(tmp_path / "half.pth.tar", {name: shape for name, shape in shapes.items() if name != "SPG_C.2.bias"})
    with pytest.raises(WeightsError, match=r"it lacks SPG_C\.2\.bias"):
        built("spg", "vgg16", published=str(tmp_path / "half.pth.tar"))
    written(tmp_path / "more.pth.tar", shapes | conv("SPG_D.0", 4, 4))
    with pytest.raises(WeightsError, match="it holds more: net.SPG_D"):
        built("spg", "vgg16", published=str(tmp_path / "more.pth.tar"))


def write(path, model, rename=None):
    """A checkpoint as the standard evaluation saves it: names without ``net.``, beside an optimiser's state."""
    state = {}
    for name, value in model.state_dict().items():
        plain = name.removeprefix("net.")
        state[rename(plain) if rename else plain] = value
    torch.save({"architecture": "resnet50", "epoch": 3, "state_dict": state, "optimizer": {"state": {}}}, path)
    return str(path)


def test_checkpoints_of_another_class_count_or_network_are_refused_before_the_first_step(tmp_path, trainable):
    file = write(tmp_path / "five.pth.tar", made("cam"))
    from trained import build

    with pytest.raises(
        WeightsError, match=r"one linear layer of classes on a ResNet of 10 layers, 5 classes, and .*, 9 classes"
    ):
        build("cam", "resnet10t", weights=None, size=64, classes=9, model_args=SMALL, published=file)
    with pytest.raises(
        WeightsError, match=r"holds one linear layer .*, and this run is ACoL on a ResNet of 10 layers, 5 classes"
    ):
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
